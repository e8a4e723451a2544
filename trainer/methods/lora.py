"""LoRA: small low-rank updates beside the base model's layers. The settings here; the network in `trainer.nets.lora`."""

from __future__ import annotations

import json
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
    from trainer.nets.begun_lora import BegunLora
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
    conv_rank: int = setting(
        0,
        "Convolution rank",
        "Above 0 the UNet's convolutions learn too (“LoCon”): textures and small shapes come closer. 4 to 16 is usual.",
        costs="Memory, time and file size; 0 leaves the convolutions as they are.",
        level="advanced",
        kohya=("conv_dim",),
        ge=0,
        le=1024,
    )
    conv_alpha: float = setting(
        1.0,
        "Convolution alpha",
        "Scales the convolutions' update by this ÷ their rank.",
        level="advanced",
        kohya=("conv_alpha",),
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
        "A LoRA file to go on from, made by any of the usual programs. Empty starts fresh.",
        level="advanced",
        widget="file",
        kohya=("network_weights",),
    )
    weights_rank: str = setting(
        "file",
        "Its rank",
        "Whether the LoRA that is continued keeps its rank and alpha, or gets those set here.",
        level="advanced",
        choices=(
            Choice("file", "As in the file", "Nothing of it changes at the start."),
            Choice(
                "set",
                "As set here",
                "A higher rank begins with the same effect and has room to learn; a lower one keeps what is strongest.",
            ),
        ),
        kohya=("dim_from_weights",),
    )


def trained_parts(settings: Settings, family: Family) -> tuple[Part, ...]:
    """The parts of a model of this family that get weights."""
    unet: tuple[Part, ...] = () if settings.train == "text_encoder" else ("unet",)
    return unet if settings.train == "unet" else (*unet, *family.text_parts)


def build(
    settings: Settings,
    components: Components,
    family: Family,
    seed: int = 0,
    state: Mapping[str, torch.Tensor] | None = None,
) -> TrainedLora:
    """Put LoRA layers beside the layers of the parts that train; they act from now on, with no effect yet.

    Args:
        settings: [network] of the run file.
        components: the loaded model; the parts that train must be there.
        family: says which layers a LoRA acts on and what they are called.
        seed: of the initial weights.
        state: what a run that goes on will load: the layers that `network_weights` gave are known from it, and that file,
            which may be gone by now, is not read again.

    Raises BadInput if `network_weights` names a file that does not fit.
    """
    from trainer.nets.begun_lora import BegunLora, read_begun
    from trainer.nets.lora import LoraNetwork

    parts = trained_parts(settings, family)
    begun = None
    if settings.network_weights:
        source = Path(settings.network_weights)
        begun = read_begun(source, components, family) if state is None else BegunLora(source, state)
    targets: dict[str, Any] = {part: family.adapter_modules(components, part) for part in parts}
    if "unet" in parts and (settings.conv_rank or (begun and begun.goes_beyond(targets["unet"]))):
        targets["unet"] = family.adapter_modules(components, "unet", convolutions=True)
    network = LoraNetwork(
        targets, settings.rank, settings.alpha, settings.dropout, seed, settings.conv_rank, settings.conv_alpha
    )
    trained = TrainedLora(network, settings)
    if begun is not None and state is None:
        try:
            trained.continue_from(begun)
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
            "ss_network_args": self._arguments(),
            "ss_scale_weight_norms": str(self.settings.scale_weight_norms or None),
        }

    def _arguments(self) -> str:
        """What kohya's programs write of convolutions: a table of texts, or the word None."""
        wide = next((layer for layer in self.network.wide_layers()), None)
        if wide is None:
            return "None"
        return json.dumps({"conv_dim": str(wide.rank), "conv_alpha": str(float(wide.alpha))})

    def export(self, path: Path, metadata: Mapping[str, str], dtype: torch.dtype) -> None:
        from trainer.export import save_adapter

        save_adapter(path, self.network.state_tensors(), {**metadata, **self.metadata()}, dtype)

    def continue_from(self, begun: BegunLora) -> None:
        """Take the weights of a LoRA, with its rank and alpha or with those set. Raises BadInput if they do not fit."""
        self._refuse_strangers(begun)
        try:
            self.network.load_tensors(begun.tensors, keep_rank=self.settings.weights_rank == "set")
        except ValueError as error:
            text = say("Training cannot go on from {path}: {reason}.", path=str(begun.path), reason=str(error))
            raise BadInput(text, say("Choose a LoRA made on a model of the same sizes.")) from error

    def _refuse_strangers(self, begun: BegunLora) -> None:
        """Nothing of the file may be lost in silence: each of its layers must have a place in this run."""
        strangers = sorted(begun.layers - set(self.network.layers))
        if not strangers:
            return
        what = say(
            "Training cannot go on from {path}: {count} of its {total} layers have no place in this run, "
            "for example {name}.",
            path=str(begun.path),
            count=len(strangers),
            total=len(begun.layers),
            name=strangers[0],
        )
        if all(name.startswith("lora_te") for name in strangers) and self.settings.train == "unet":
            raise BadInput(what, say("They belong to the text encoder: train the UNet and the text encoder."))
        if all(name.startswith("lora_unet") for name in strangers) and "unet" not in self.parts:
            raise BadInput(what, say("They belong to the UNet: train the UNet and the text encoder."))
        raise BadInput(what, say("Choose a LoRA made on a model of the same family and sizes."))

    def remove(self) -> None:
        self.network.remove()
