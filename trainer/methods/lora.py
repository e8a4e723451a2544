"""LoRA: small low-rank updates beside the base model's layers. The settings here; the network in `trainer.nets.lora`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from trainer.config.fields import Choice, Section, setting
from trainer.errors import BadInput
from trainer.messages import say

if TYPE_CHECKING:
    import torch

    from trainer.models.protocol import Components, Family, Part
    from trainer.nets.lora import LoraNetwork


class Settings(Section):
    """[network] with kind = "lora"."""

    kind: Literal["lora"] = setting(
        "lora",
        "Method",
        "What is trained. A LoRA is a small file that changes the base model while it is loaded.",
        choices=(Choice("lora", "LoRA", "Small, removable, good with few pictures."),),
        kohya=("network_module",),
    )
    train: str = setting(
        "both",
        "Train",
        "Which parts learn. The text encoder helps a new word to stick; without it a run needs less memory.",
        costs="The UNet alone saves memory and time, and costs likeness.",
        choices=(
            Choice("both", "UNet and text encoder", "The usual choice for SD 1.x."),
            Choice("unet", "UNet only", "Less memory; captions and their encodings can be cached."),
            Choice("text_encoder", "Text encoder only", "Teaches words, not looks."),
        ),
        kohya=("network_train_unet_only", "network_train_text_encoder_only"),
    )
    rank: int = setting(
        16,
        "Rank",
        "Width of the update. More learns more detail, weighs more and overfits sooner; 8 to 32 is usual.",
        costs="Memory and file size grow in proportion.",
        kohya=("network_dim",),
        ge=1,
        le=1024,
    )
    alpha: float = setting(
        8.0,
        "Alpha",
        "Scales the update by alpha ÷ rank. Half the rank is usual; a smaller alpha needs a higher learning rate.",
        kohya=("network_alpha",),
        gt=0,
        le=4096,
    )
    dropout: float = setting(
        0.0,
        "Dropout",
        "Share of the update that is switched off at random in each step. 0 to 0.3; helps a little against overfitting.",
        level="advanced",
        step=0.05,
        kohya=("network_dropout",),
        ge=0,
        lt=1,
    )
    scale_weight_norms: float = setting(
        0.0,
        "Limit weight norms",
        "Shrinks any layer whose update grows beyond this length; 0 is off, 1 is a usual limit.",
        level="advanced",
        step=0.1,
        kohya=("scale_weight_norms",),
        ge=0,
    )
    network_weights: str = setting(
        "",
        "Continue from",
        "A LoRA file to go on from; its rank and alpha take the place of those set here. Empty starts fresh.",
        level="advanced",
        widget="file",
        kohya=("network_weights", "dim_from_weights"),
    )


def trained_parts(settings: Settings, family: Family) -> tuple[Part, ...]:
    """The parts of a model of this family that get weights."""
    unet: tuple[Part, ...] = () if settings.train == "text_encoder" else ("unet",)
    return unet if settings.train == "unet" else (*unet, *family.text_parts)


def build(settings: Settings, components: Components, family: Family, seed: int = 0) -> TrainedLora:
    """Put LoRA layers beside the layers of the parts that train; they act from now on, with no effect yet.

    Args:
        settings: [network] of the run file.
        components: the loaded model; the parts that train must be there.
        family: says which layers a LoRA acts on and what they are called.
        seed: of the initial weights.

    Raises BadInput if `network_weights` names a file that does not fit.
    """
    from trainer.nets.lora import LoraNetwork

    targets: dict[str, Any] = {
        part: family.adapter_modules(components, part) for part in trained_parts(settings, family)
    }
    network = LoraNetwork(targets, settings.rank, settings.alpha, settings.dropout, seed)
    trained = TrainedLora(network, settings)
    if settings.network_weights:
        try:
            trained.continue_from(Path(settings.network_weights), family.name)
        except BadInput:
            network.remove()
            raise
    return trained


class TrainedLora:
    """A LoRA in training; see `trainer.methods.Trained` for what each function promises."""

    def __init__(self, network: LoraNetwork, settings: Settings) -> None:
        self.network = network
        self.settings = settings
        self.parts = frozenset(part for part, names in network.parts.items() if names)
        self.text_is_constant = self.parts <= {"unet"}

    def parameter_groups(self, rates: Mapping[str, float]) -> list[dict[str, Any]]:
        return [
            {"params": self.network.parameters_of(part), "lr": rates[part], "name": part}
            for part in self.network.parts
            if part in self.parts
        ]

    def parameters(self) -> list[torch.nn.Parameter]:
        return list(self.network.parameters())

    def state_dict(self) -> dict[str, torch.Tensor]:
        return self.network.state_tensors()

    def load_state_dict(self, state: Mapping[str, torch.Tensor]) -> None:
        self.network.load_tensors(state)

    def train(self, on: bool = True) -> None:
        self.network.train(on)

    @contextmanager
    def off(self) -> Iterator[None]:
        with self.network.enabled(False):
            yield

    def after_step(self) -> dict[str, float]:
        if not self.settings.scale_weight_norms:
            return {}
        report = self.network.scale_weight_norms(self.settings.scale_weight_norms)
        return {"scaled_layers": report.num_scaled, "mean_norm": report.mean, "greatest_norm": report.greatest}

    def metadata(self) -> dict[str, str]:
        layer = self.network.layer(next(iter(self.network.layers)))
        return {
            "ss_network_module": "networks.lora",
            "ss_network_dim": str(layer.rank),
            "ss_network_alpha": str(float(layer.alpha)),
            "ss_network_dropout": str(self.settings.dropout or None),
            "ss_network_args": "None",
            "ss_scale_weight_norms": str(self.settings.scale_weight_norms or None),
        }

    def export(self, path: Path, metadata: Mapping[str, str], dtype: torch.dtype) -> None:
        from trainer.export import save_adapter

        save_adapter(path, self.network.state_tensors(), {**metadata, **self.metadata()}, dtype)

    def continue_from(self, path: Path, family: str) -> None:
        """Take the weights, rank and alpha of a LoRA file. Raises BadInput if it is none or does not fit this run."""
        from trainer.models.header import inspect_file, lora_problem
        from trainer.models.tensor_file import read_file

        problem = lora_problem(inspect_file(path), family)
        if problem is not None:
            raise BadInput(say("Training cannot go on from {path}: {problem}", path=str(path), problem=problem))
        tensors = read_file(path)
        self._refuse_strangers(path, {name.split(".")[0] for name in tensors})
        try:
            self.network.load_tensors(tensors)
        except ValueError as error:
            text = say("Training cannot go on from {path}: {reason}.", path=str(path), reason=str(error))
            raise BadInput(text, say("Choose a LoRA made on a model of the same sizes.")) from error

    def _refuse_strangers(self, path: Path, names: set[str]) -> None:
        """Nothing of the file may be lost in silence: each of its layers must have a place in this run."""
        strangers = sorted(names - set(self.network.layers))
        if not strangers:
            return
        what = say(
            "Training cannot go on from {path}: {count} of its {total} layers have no place in this run, "
            "for example {name}.",
            path=str(path),
            count=len(strangers),
            total=len(names),
            name=strangers[0],
        )
        if all(name.startswith("lora_te") for name in strangers):
            raise BadInput(what, say("They belong to the text encoder: train the UNet and the text encoder."))
        if all(name.startswith("lora_unet") for name in strangers) and "unet" not in self.parts:
            raise BadInput(what, say("They belong to the UNet: train the UNet and the text encoder."))
        raise BadInput(what, say("Choose a plain LoRA with kohya's names; other kinds cannot be continued yet."))

    def remove(self) -> None:
        self.network.remove()
