"""What the families of latent diffusion with a U-Net have in common: all but the facts in which they differ.

A family is one file that makes a `StableDiffusion` of its facts; see `trainer.models.sd1` and `docs/adding-a-family.md`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput
from trainer.messages import Message, say
from trainer.models import folder_out, libraries, loading, lora_layers, lora_names, plans, saving, text
from trainer.models.configs import Rules
from trainer.models.folder_files import TOKENIZER_FILES, is_tokenizer
from trainer.models.header import ModelFacts, inspect_file, vae_problem
from trainer.models.loading import PartPlan
from trainer.models.protocol import PARTS, Attention, Components, Cond, Part
from trainer.models.text_encoders import TextEncoder
from trainer.paths import RESOURCES

if TYPE_CHECKING:
    import torch
    from torch import nn

CLIP_TOKENIZER = RESOURCES / "tokenizer" / "clip"
PLAIN_CHANNELS, INPAINTING_CHANNELS = 4, 9  # that a UNet takes: latents; with a mask and the masked picture's latents
_CLIP_ENTRIES = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "projection_dim",
    "max_position_embeddings", "hidden_act", "layer_norm_eps", "bos_token_id", "eos_token_id", "pad_token_id",
)  # fmt: skip


def _nothing(cond: Cond) -> dict[str, Any]:
    return {}


@dataclass(kw_only=True, eq=False)
class StableDiffusion:
    """A family by its facts; see `protocol.Family` for what each function promises.

    Attributes:
        architectures, base_versions: prediction → modelspec's word for the base, and sd-scripts'.
        inpainting_architecture: the word of inpainting models where one is in use (SwarmUI's), "" where none is.
        rules: what tensors do not show.
        text_encoders: in the order in which their states stand side by side.
        sai_lora: whether LoRA files name the UNet's layers as the original code does, or as diffusers does.
        told: what else the UNet is told, from a `Cond`.
        pipeline, pipeline_entries, scheduler: of a diffusers folder: its class, what else its index says, its sampler.
    """

    name: str
    title: str
    native_resolution: int
    architectures: Mapping[str, str]
    base_versions: Mapping[str, str]
    inpainting_architecture: str = ""
    text_encoders: tuple[TextEncoder, ...]
    rules: Rules = field(default_factory=Rules)
    clip_skips: range = range(1, 2)
    sai_lora: bool = False
    told: Callable[[Cond], dict[str, Any]] = _nothing
    pipeline: str = "StableDiffusionPipeline"
    pipeline_entries: Mapping[str, Any] = field(default_factory=dict)
    scheduler: str = "DDIMScheduler"
    latent_channels: int = 4
    latent_factor: int = 8
    token_lengths: tuple[int, ...] = (75, 150, 225)

    @property
    def text_parts(self) -> tuple[Part, ...]:
        return tuple(encoder.part for encoder in self.text_encoders)

    @property
    def parts(self) -> tuple[Part, ...]:
        """The parts that a model of the family has."""
        return ("unet", "vae", *self.text_parts)

    @property
    def zeros_without_negative(self) -> bool:
        return bool(self.pipeline_entries.get("force_zeros_for_empty_prompt"))  # the WebUI does so where diffusers does

    @property
    def architecture(self) -> str:
        return self.architecture_of(self.rules.prediction)

    @property
    def implementation(self) -> str:
        return saving.STABILITY if self.sai_lora else "diffusers"

    def architecture_of(self, prediction: str) -> str:
        return self.architectures[prediction]

    def base_version_of(self, prediction: str) -> str:
        return self.base_versions[prediction]

    @property
    def base_version(self) -> str:
        return self.base_versions[self.rules.prediction]

    # --- loading ---

    def load(
        self,
        source: Path,
        vae: Path | None = None,
        parts: Collection[Part] = PARTS,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
        text_encoders: Sequence[Path] = (),
    ) -> Components:
        import torch

        facts = inspect_file(source)
        self._refuse_strangers(facts)
        found: Mapping[str, PartPlan] = self.plans(source, vae, parts, text_encoders)  # type: ignore[assignment]
        dtypes = {part: self._dtype(plan, dtype or torch.float32) for part, plan in found.items()}
        reading = loading.read_parts(found, dtypes, device)
        loaded: dict[str, Any] = {part: self._build(plan, reading[part]) for part, plan in found.items()}
        beside = {name: tensor for plan in found.values() for name, tensor in loading.read_beside(plan).items()}
        tokenizer = self.load_tokenizer(source) if any(part in loaded for part in self.text_parts) else None
        _check_vocabulary(tokenizer, [loaded[part] for part in self.text_parts if part in loaded], source)
        return Components(
            **loaded,
            tokenizer=tokenizer,
            facts=facts,
            prediction=facts.prediction or self.rules.prediction,
            zero_snr=bool(facts.zero_snr),
            beside=beside,
        )

    def plans(
        self, source: Path, vae: Path | None = None, parts: Collection[Part] = PARTS, text_encoders: Sequence[Path] = ()
    ) -> dict[Part, PartPlan]:
        """Where the tensors of the parts lie. No weights are read. Raises BadInput."""
        found: dict[Part, PartPlan] = {}
        facts = inspect_file(source)
        inside = facts.parts
        if "unet" in parts:
            _check_inside(source, "unet", inside)
            side = (facts.native_resolution or self.native_resolution) // self.latent_factor
            found["unet"] = plans.plan_unet(source, replace(self.rules, sample_size=side))
            _check_channels(source, found["unet"].config.get("in_channels", PLAIN_CHANNELS))
        if "vae" in parts:
            if vae is not None:
                _refuse_if(vae_problem(inspect_file(vae), self.name), vae)
            else:
                _check_inside(source, "vae", inside)
            found["vae"] = plans.plan_vae(vae or source, self.rules)
            _check_normalisation(found["vae"])
        wanted = [encoder for encoder in self.text_encoders if encoder.part in parts]
        if wanted:
            chosen = plans.choose_text(source, text_encoders, self.text_encoders, self.rules)
            for encoder in wanted:
                if chosen[encoder] == source:
                    _check_inside(source, encoder.part, inside)
                found[encoder.part] = plans.plan_text(chosen[encoder], encoder, self.rules)
        _check_widths(source, found, self.text_encoders)
        return found

    def _refuse_strangers(self, facts: ModelFacts) -> None:
        if facts.kind == "base" and facts.family == self.name:
            return
        needed = say("A {family} model is needed here. {summary}", family=self.title, summary=facts.summary)
        _refuse_if(facts.problem if facts.kind != "base" and facts.problem else needed, facts.path)

    def _dtype(self, plan: PartPlan, dtype: torch.dtype) -> torch.dtype:
        """A VAE that overflows in fp16 stays in fp32."""
        import torch

        delicate = plan.part == "vae" and self.rules.vae_needs_fp32 and plan.config.get("force_upcast", True)
        return torch.float32 if delicate and dtype == torch.float16 else dtype

    def _build(self, plan: PartPlan, reading: Any) -> Any:
        """The module of a plan, holding the tensors that are being read meanwhile."""
        return loading.build(plan, self.maker(plan), reading)

    def maker(self, plan: PartPlan) -> Callable[[], Any]:
        """What makes the module of a plan, with weights of its own."""
        encoder = next((encoder for encoder in self.text_encoders if encoder.part == plan.part), None)
        if encoder is not None:
            clip, clip_config = libraries.clip_classes(projected=encoder.pooled)
            entries = {name: plan.config[name] for name in _CLIP_ENTRIES if name in plan.config}
            return lambda: clip(clip_config(**entries))
        make = libraries.unet_class() if plan.part == "unet" else libraries.vae_class()
        return lambda: make(**loading.known_arguments(make, plan.config))

    def load_tokenizer(self, source: Path) -> Any:
        """The tokenizer of a diffusers folder that brings its own, else CLIP's."""
        return libraries.clip_tokenizer(_tokenizer_folder(source))

    def tokenizer_files(self, source: Path) -> tuple[Path, ...]:
        return tuple(sorted(path for path in _tokenizer_folder(source).iterdir() if path.suffix in (".json", ".txt")))

    # --- use ---

    def encode_text(
        self,
        components: Components,
        texts: Sequence[str],
        clip_skip: int = 1,
        token_length: int = text.CHUNK,
        weighted: bool = False,
    ) -> Cond:
        readers = [encoder.reader(getattr(components, encoder.part), clip_skip) for encoder in self.text_encoders]
        return text.encode(components.tokenizer, readers, texts, token_length, weighted)

    def predict(
        self, components: Components, noisy: torch.Tensor, timesteps: torch.Tensor, cond: Cond
    ) -> torch.Tensor:
        import torch

        inputs = noisy if cond.concat is None else torch.cat([noisy, cond.concat.to(noisy)], 1)
        assert inputs.shape[1] == components.unet.config.in_channels, "an inpainting UNet needs cond.concat, others none"
        told = self.told(cond)
        return components.unet(inputs, timesteps, encoder_hidden_states=cond.states, **told, return_dict=False)[0]

    def encode_pictures(self, vae: nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        module: Any = vae
        with torch.no_grad():
            latents = module.encode(pixels.to(module.device, module.dtype), return_dict=False)[0]
        mean, factor = _normalisation(module)
        return (latents.mean.float() - mean) * factor, latents.std.float() * factor

    def decode(self, vae: nn.Module, latents: torch.Tensor) -> torch.Tensor:
        import torch

        module: Any = vae
        with torch.no_grad():
            mean, factor = _normalisation(module)
            own = (latents.to(module.device) / factor + mean).to(module.dtype)
            return module.decode(own, return_dict=False)[0].float()

    # --- training ---

    def adapter_modules(
        self, components: Components, part: Part, convolutions: bool = False
    ) -> dict[str, nn.Module]:
        module: Any = getattr(components, part)
        if part == "unet":
            names = lora_layers.unet_layers(module.config, sai=self.sai_lora, convolutions=convolutions)
            return {name: module.get_submodule(path) for name, path in names.items()}
        encoder = next(encoder for encoder in self.text_encoders if encoder.part == part)
        names = lora_layers.text_layers(module.config.to_dict(), encoder.lora)
        return {name: module.get_submodule(encoder.module_name(path)) for name, path in names.items()}

    def lora_speller(self, components: Components) -> lora_names.Speller:
        config = None if components.unet is None else components.unet.config
        return lora_names.speller(config, tuple(encoder.lora for encoder in self.text_encoders), sai=self.sai_lora)

    def checkpoint_gradients(self, components: Components, parts: Collection[Part]) -> None:
        if "unet" in parts:
            components.unet.enable_gradient_checkpointing()
        for part in self.text_parts:
            if part in parts:
                _checkpoint_clip(getattr(components, part))

    def set_attention(self, components: Components, kind: Attention) -> None:
        from diffusers.models import attention_processor

        classes = {"sdpa": "AttnProcessor2_0", "xformers": "XFormersAttnProcessor", "plain": "AttnProcessor"}
        for module in (components.unet, components.vae):
            if module is not None:
                module.set_attn_processor(getattr(attention_processor, classes[kind])())

    # --- saving ---

    def save(
        self,
        components: Components,
        path: Path,
        dtype: torch.dtype | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        saving.save_file(self, components, path, dtype, metadata or {})

    def save_folder(self, components: Components, folder: Path, dtype: torch.dtype | None = None) -> None:
        folder_out.save_folder(self, components, folder, dtype)


def _normalisation(vae: Any) -> tuple[Any, Any]:
    """What is taken from a VAE's latents, and what they are then multiplied by: numbers, or (C, 1, 1) by channel."""
    import torch

    mean, deviation, factor = (vae.config.get(key) for key in ("latents_mean", "latents_std", "scaling_factor"))
    if mean is None or deviation is None:
        return 0.0, factor
    of_channels = [torch.tensor(values, device=vae.device).view(-1, 1, 1) for values in (mean, deviation)]
    return of_channels[0], factor / of_channels[1]


def _check_normalisation(plan: PartPlan) -> None:
    """Raise BadInput for a VAE's factor, means and deviations with which its latents would be no numbers."""
    config, channels = plan.config, plan.config.get("latent_channels", 4)
    mean, deviation = config.get("latents_mean"), config.get("latents_std")
    known = {"scaling_factor": [config.get("scaling_factor", 1.0)]}
    if mean is not None and deviation is not None:
        known |= {"latents_mean": mean, "latents_std": deviation}
    for name, values in known.items():
        fits = isinstance(values, list) and len(values) == (1 if name == "scaling_factor" else channels)
        numbers = fits and all(type(value) in (int, float) and abs(value) < 1e9 for value in values)
        if not numbers or (name != "latents_mean" and min(values) <= 0):
            raise loading.bad_config(plan, name)


def _tokenizer_folder(source: Path) -> Path:
    own = source / "tokenizer"
    there = [name for name in TOKENIZER_FILES if (own / name).is_file()]
    return own if is_tokenizer(there) else CLIP_TOKENIZER


def _refuse_if(problem: Any, path: Path) -> None:
    if problem is not None:
        raise BadInput(say("{path} cannot be used: {problem}", path=str(path), problem=problem))


def _check_inside(source: Path, part: Part, inside: Collection[str]) -> None:
    """Raise BadInput if a model lacks a part, saying what to give beside it."""
    if part in inside:
        return
    lacking: dict[Part, tuple[Message, Message]] = {
        "unet": (say("There is no UNet in {path}.", path=str(source)), say("Choose the whole model.")),
        "vae": (say("There is no VAE inside {path}.", path=str(source)), say("Choose a VAE file beside it.")),
        "text_encoder": (
            say("There is no text encoder inside {path}.", path=str(source)),
            say("Choose the full version of the model, or a text encoder beside it."),
        ),
        "text_encoder_2": (
            say("There is no second text encoder inside {path}.", path=str(source)),
            say("Choose the full version of the model, or text encoders beside it."),
        ),
    }
    raise BadInput(*lacking[part])


def _check_channels(source: Path, channels: int) -> None:
    if channels not in (PLAIN_CHANNELS, INPAINTING_CHANNELS):
        raise BadInput(
            say("The UNet of {path} takes {channels} channels.", path=str(source), channels=channels),
            say("Choose an ordinary version of the model (4 channels) or an inpainting version (9)."),
        )


def _check_widths(source: Path, found: Mapping[Part, PartPlan], encoders: Sequence[TextEncoder]) -> None:
    """Raise BadInput if the text encoders are not those that the UNet was made for."""
    if "unet" not in found or any(encoder.part not in found for encoder in encoders):
        return
    said = [found[encoder.part].config.get("hidden_size") for encoder in encoders]
    widths = [width for width in said if isinstance(width, int)]
    wanted = found["unet"].config.get("cross_attention_dim")
    if not isinstance(wanted, int) or len(widths) < len(said):
        return  # a config that does not say: the tensors' own sizes are compared when the parts are built
    given = sum(widths)
    if given != wanted:
        raise BadInput(
            say(
                "The text encoders give {given} numbers for each token, the UNet of {path} wants {wanted}.",
                given=given,
                path=str(source),
                wanted=wanted,
            ),
            say("Choose text encoders of the same family, in the order in which it has them."),
        )


def _check_vocabulary(tokenizer: Any, encoders: Sequence[Any], source: Path) -> None:
    for encoder in encoders:
        if len(tokenizer) > encoder.config.vocab_size:
            raise BadInput(
                say(
                    "The text encoder of {path} knows {rows} tokens, its tokenizer has {count}.",
                    path=str(source),
                    rows=encoder.config.vocab_size,
                    count=len(tokenizer),
                ),
                say("Such a model needs its own tokenizer: give it as a diffusers folder."),
            )


def _checkpoint_clip(encoder: Any) -> None:
    encoder.train()  # transformers recomputes in train mode only; CLIP has no dropout that this would switch on
    if hasattr(encoder, "activation_checkpointing_enable"):
        encoder.activation_checkpointing_enable({"use_reentrant": False})
    else:
        encoder.gradient_checkpointing_enable({"use_reentrant": False})
