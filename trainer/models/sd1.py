"""Stable Diffusion 1.x: its facts, and how it is loaded, used and saved."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trainer.errors import BadInput
from trainer.files import write_json
from trainer.messages import say
from trainer.models import configs, keys, layouts, libraries, loading, text
from trainer.models.header import ModelFacts, base_problem, inspect_file, vae_problem
from trainer.models.loading import PartPlan
from trainer.models.protocol import PARTS, Attention, Components, Cond, Part
from trainer.models.safetensors_file import Header, read_header
from trainer.models.tensor_file import write_file
from trainer.paths import RESOURCES

if TYPE_CHECKING:
    import torch
    from torch import nn

RULES = configs.Rules()
_CLIP_CONFIG = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "max_position_embeddings", "hidden_act", "layer_norm_eps",
)  # fmt: skip
_FILE_DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}


class StableDiffusion1:
    """The family sd1; see `protocol.Family` for what each function promises."""

    name = "sd1"
    title = "Stable Diffusion 1.x"
    latent_channels = 4
    latent_factor = 8
    native_resolution = 512
    token_lengths: tuple[int, ...] = (75, 150, 225)
    text_parts: tuple[Part, ...] = ("text_encoder",)
    clip_skips = range(1, 13)
    architecture = "stable-diffusion-v1"
    base_version = "sd_v1"

    def load(
        self,
        source: Path,
        vae: Path | None = None,
        parts: Collection[Part] = PARTS,
        dtype: torch.dtype | None = None,
        device: torch.device | str = "cpu",
    ) -> Components:
        import torch

        facts = inspect_file(source)
        _refuse_if(base_problem(facts, has_vae=vae is not None or "vae" not in parts), source)
        plans: dict[str, PartPlan] = {
            part: _plan(facts, part, vae) for part in self._own_parts() if part in parts
        }
        reading = loading.read_parts(plans, dtype or torch.float32, device)
        loaded: dict[str, Any] = {part: _build(plans[part], reading[part]) for part in plans}
        tokenizer = self.load_tokenizer(source) if "text_encoder" in loaded else None
        if tokenizer is not None:
            _check_vocabulary(tokenizer, loaded["text_encoder"], source)
        return Components(**loaded, tokenizer=tokenizer, facts=facts, prediction=facts.prediction or RULES.prediction)

    def _own_parts(self) -> tuple[Part, ...]:
        return ("unet", "vae", *self.text_parts)

    def load_tokenizer(self, source: Path) -> Any:
        """The tokenizer of a diffusers folder that brings its own, else CLIP's."""
        own = source / "tokenizer"
        whole = (
            all((own / name).is_file() for name in ("vocab.json", "merges.txt")) or (own / "tokenizer.json").is_file()
        )
        return libraries.clip_tokenizer(own if whole else RESOURCES / "tokenizer" / "clip")

    def encode_text(
        self,
        components: Components,
        texts: Sequence[str],
        clip_skip: int = 1,
        token_length: int = text.CHUNK,
        weighted: bool = False,
    ) -> Cond:
        reader = text.Reader(lambda ids, ends: (text.layer_states(components.text_encoder, ids, clip_skip), None))
        return text.encode(components.tokenizer, [reader], texts, token_length, weighted)

    def predict(
        self, components: Components, noisy: torch.Tensor, timesteps: torch.Tensor, cond: Cond
    ) -> torch.Tensor:
        return components.unet(noisy, timesteps, encoder_hidden_states=cond.states, return_dict=False)[0]

    def encode_pictures(self, vae: nn.Module, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        import torch

        module: Any = vae
        with torch.no_grad():
            latents = module.encode(pixels.to(module.device, module.dtype), return_dict=False)[0]
        scale = module.config.scaling_factor
        return latents.mean.float() * scale, latents.std.float() * scale

    def decode(self, vae: nn.Module, latents: torch.Tensor) -> torch.Tensor:
        import torch

        module: Any = vae
        with torch.no_grad():
            scaled = (latents / module.config.scaling_factor).to(module.device, module.dtype)
            return module.decode(scaled, return_dict=False)[0].float()

    def save(
        self,
        components: Components,
        path: Path,
        dtype: torch.dtype | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        import torch

        file_dtype = _FILE_DTYPES[str(dtype or torch.float32).removeprefix("torch.")]
        modules: dict[str, Any] = {
            part: getattr(components, part) for part in self._own_parts() if getattr(components, part) is not None
        }
        tables = {part: _ldm_names(part, module.config) for part, module in modules.items()}
        rows = (
            (tables[part][name], _ldm_shape(name, tensor), file_dtype, partial(_ldm_tensor, name, tensor))
            for part, module in modules.items()
            for name, tensor in module.state_dict().items()
        )
        write_file(path, rows, {"modelspec.architecture": self.architecture, "format": "pt", **(metadata or {})})
        _save_config_beside(path, modules, components.prediction)

    def adapter_modules(self, components: Components, part: Part) -> dict[str, nn.Module]:
        module: Any = getattr(components, part)
        if part == "text_encoder":
            names = keys.kohya_clip_modules(module.config.to_dict())
        else:
            names = keys.kohya_unet_modules(module.config)
        return {name: module.get_submodule(path) for name, path in names.items()}

    def checkpoint_gradients(self, components: Components, parts: Collection[Part]) -> None:
        if "unet" in parts:
            components.unet.enable_gradient_checkpointing()
        if "text_encoder" in parts:
            encoder = components.text_encoder
            encoder.train()  # transformers recomputes in train mode only; CLIP has no dropout that this would switch on
            if hasattr(encoder, "activation_checkpointing_enable"):
                encoder.activation_checkpointing_enable({"use_reentrant": False})
            else:
                encoder.gradient_checkpointing_enable({"use_reentrant": False})

    def set_attention(self, components: Components, kind: Attention) -> None:
        from diffusers.models import attention_processor

        classes = {"sdpa": "AttnProcessor2_0", "xformers": "XFormersAttnProcessor", "plain": "AttnProcessor"}
        for module in (components.unet, components.vae):
            if module is not None:
                module.set_attn_processor(getattr(attention_processor, classes[kind])())


def _refuse_if(problem: Any, path: Path) -> None:
    if problem is not None:
        raise BadInput(say("{path} cannot be used: {problem}", path=str(path), problem=problem))


# --- where the tensors of each part lie ---


def _plan(facts: ModelFacts, part: Part, vae: Path | None) -> PartPlan:
    """Where the tensors of a part lie in the model, or in the separate VAE. Raises BadInput."""
    path = facts.path
    if part == "vae" and vae is not None:
        path = vae
        _refuse_if(vae_problem(inspect_file(vae)), vae)
    try:
        return _plan_folder(path, part) if path.is_dir() else _plan_file(path, part)
    except (OSError, ValueError) as error:  # ValueError: a layout or a config that is not what it should be
        reason = getattr(error, "why", str(error))
        text = say("In {path}, the {part} cannot be used: {reason}.", path=str(path), part=part, reason=reason)
        raise BadInput(text) from error


def _plan_folder(folder: Path, part: Part) -> PartPlan:
    inner = folder / part if (folder / part).is_dir() else folder
    config = json.loads((inner / "config.json").read_text(encoding="utf-8-sig"))
    tensors = {}
    for path in layouts.weight_files(inner):
        for name, info in read_header(path).tensors.items():
            tensors[_library_name(name, part)] = (path, info)
    tensors.pop("embeddings.position_ids", None)
    return PartPlan(part, config, tensors)


def _library_name(name: str, part: Part) -> str:
    """A tensor's name in today's libraries: files have a `text_model` level and may have the VAE's old names."""
    if part == "vae":
        return keys.modern_vae_name(name)
    return name.removeprefix("text_model.") if part == "text_encoder" else name


def _plan_file(path: Path, part: Part) -> PartPlan:
    header = read_header(path)
    prefix = _prefix(header, part)
    if part == "vae" and f"{prefix}encoder.down_blocks.0.resnets.0.conv1.weight" in header.tensors:
        return _plan_diffusers_vae(path, header)
    config = _file_config(path, header, part)
    modules = _modules(part, config)
    tensors = {}
    for name, info in header.tensors.items():
        module, _, last = name.removeprefix(prefix).rpartition(".")
        if name.startswith(prefix) and module in modules:
            tensors[f"{modules[module]}.{last}"] = (path, info)
    return PartPlan(part, config, tensors)


def _plan_diffusers_vae(path: Path, header: Header) -> PartPlan:
    """A VAE alone in one file with diffusers' names: as LDM's names, its sizes are read in the same way."""
    tensors = {keys.modern_vae_name(name): (path, info) for name, info in header.tensors.items()}
    shapes = {name: info.shape for name, (_, info) in tensors.items()}
    config = configs.vae_config(_ldm_vae_shapes(shapes), RULES) | configs.config_beside(path).get("vae", {})
    return PartPlan("vae", config, tensors)


def _ldm_vae_shapes(shapes: configs.Shapes) -> dict[str, tuple[int, ...]]:
    """The few names that `vae_config` looks at, from diffusers' to LDM's."""
    plain = {"encoder.down_blocks.": "encoder.down.", ".resnets.": ".block."}
    renamed = dict(shapes)
    for name, shape in shapes.items():
        new = name
        for theirs, ours in plain.items():
            new = new.replace(theirs, ours)
        renamed[new] = shape
    if "encoder.mid_block.attentions.0.to_q.weight" in shapes:
        renamed["encoder.mid.attn_1.q.weight"] = shapes["encoder.mid_block.attentions.0.to_q.weight"]
    return renamed


def _file_config(path: Path, header: Header, part: Part) -> dict[str, Any]:
    """A part's config: from the shapes and the family's rules, then what the config beside the file says."""
    shapes = layouts.strip(header.shapes, _prefix(header, part))
    derive = {"unet": configs.unet_config, "vae": configs.vae_config, "text_encoder": configs.clip_config}[part]
    return derive(shapes, RULES) | configs.config_beside(path).get(part, {})


def _prefix(header: Header, part: Part) -> str:
    """What stands before a part's names: a VAE alone in a file has no prefix."""
    if part == "vae":
        return "" if "encoder.conv_in.weight" in header.tensors else keys.LDM_VAE
    return keys.LDM_UNET if part == "unet" else layouts.clip_prefix(header.shapes) or keys.LDM_CLIP


def _modules(part: str, config: Mapping[str, Any]) -> dict[str, str]:
    tables = {"unet": keys.unet_modules, "vae": keys.vae_modules, "text_encoder": keys.clip_modules}
    return tables[part](config)


# --- from a plan to a module ---


def _build(plan: PartPlan, reading: Any) -> Any:
    """The module of a plan, holding the tensors that are being read meanwhile."""
    if plan.part == "text_encoder":
        clip, clip_config = libraries.clip_classes()
        entries = {name: plan.config[name] for name in _CLIP_CONFIG if name in plan.config}
        return loading.build(plan, lambda: clip(clip_config(**entries)), reading)
    make = libraries.unet_class() if plan.part == "unet" else libraries.vae_class()
    return loading.build(plan, lambda: make(**loading.known_arguments(make, plan.config)), reading)


def _check_vocabulary(tokenizer: Any, encoder: Any, source: Path) -> None:
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


# --- from modules to an LDM file ---


def _ldm_names(part: str, config: Any) -> dict[str, str]:
    """Library tensor name → name in an LDM file."""
    prefix = {"unet": keys.LDM_UNET, "vae": keys.LDM_VAE, "text_encoder": keys.LDM_CLIP}[part]
    modules = _modules(part, config.to_dict() if part == "text_encoder" else config)
    return {
        f"{ours}.{last}": f"{prefix}{theirs}.{last}" for theirs, ours in modules.items() for last in ("weight", "bias")
    }


def _ldm_shape(name: str, tensor: torch.Tensor) -> tuple[int, ...]:
    return (*tensor.shape, 1, 1) if is_linear_vae_attention(name, tensor) else tuple(tensor.shape)


def _ldm_tensor(name: str, tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(_ldm_shape(name, tensor))


def is_linear_vae_attention(name: str, tensor: torch.Tensor) -> bool:
    """Whether LDM files keep this tensor as a 1×1 convolution while the library holds a matrix."""
    return keys.is_vae_attention(name) and tensor.dim() == 2


def _save_config_beside(path: Path, modules: Mapping[str, Any], prediction: str) -> None:
    """Write `<stem>.json` with what a reader could not tell from the file, if there is anything."""
    header = read_header(path)
    beside: dict[str, Any] = {}
    for part, module in modules.items():
        config = module.config.to_dict() if part == "text_encoder" else module.config
        derived = _derived(header, part)
        wrong = {key: config[key] for key, value in derived.items() if _plain(config[key]) != _plain(value)}
        wrong.pop("sample_size", None)
        if wrong:
            beside[part] = wrong
    if prediction != RULES.prediction:
        beside["model"] = {"prediction": prediction}
    if beside:
        write_json(path.with_suffix(".json"), beside, indent=2)


def _derived(header: Header, part: str) -> dict[str, Any]:
    shapes = layouts.strip(header.shapes, _prefix(header, part))  # type: ignore[arg-type]
    derive = {"unet": configs.unet_config, "vae": configs.vae_config, "text_encoder": configs.clip_config}[part]
    return derive(shapes, RULES)


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


FAMILY = StableDiffusion1()
