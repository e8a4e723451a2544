"""The names that LoRA files of other programs have for layers and tensors, translated to kohya's. No torch.

Known are kohya's own, for SDXL with the original names of the UNet or with diffusers'; diffusers', old and new; PEFT's;
OneTrainer's; and LyCORIS' own. All of them join a part's prefix and a module's path, with dots or underscores.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from trainer.errors import BadInput
from trainer.messages import say
from trainer.models import foreign_json, keys
from trainer.models.folder_files import read_json
from trainer.models.keys import Config
from trainer.models.lora_layers import UNET_PREFIX, kohya_name
from trainer.models.opening import shown
from trainer.models.patterns import NotRead, Patterns

DOWN, UP, ALPHA = "lora_down.weight", "lora_up.weight", "alpha"
_ENDS = (  # of tensors' names, to kohya's; a name in the middle ("default") is PEFT's adapter
    (re.compile(r"\.lora_down\.weight$|\.lora_A(?:\.\w+)?\.weight$|(?:\.|_)lora\.down\.weight$"), DOWN),
    (re.compile(r"\.lora_up\.weight$|\.lora_B(?:\.\w+)?\.weight$|(?:\.|_)lora\.up\.weight$"), UP),
    (re.compile(r"\.lora_linear_layer\.down\.weight$"), DOWN),
    (re.compile(r"\.lora_linear_layer\.up\.weight$"), UP),
    (re.compile(r"\.alpha$"), ALPHA),
)
RANKED = ("hada_w1_b", "lokr_w2_b", "lokr_w1_b")  # of LoHa and LoKr, as everybody calls them: the rank is their rows'
_WRAPPED = ("base_model_model_", "lycoris_")  # PEFT; LyCORIS on its own, which wraps one module as PEFT does
_UNET = ("lora_unet_", "oft_unet_", "unet_", "diffusion_model_")
_BARE = ("down_blocks_", "mid_block_", "up_blocks_", "input_blocks_", "middle_block_", "output_blocks_")  # without either
_TEXT = (  # number of the text encoder, and what its layers' names begin with
    (1, ("lora_te2_", "text_encoder_2_", "clip_g_")),
    (0, ("lora_te1_", "lora_te_", "text_encoder_", "clip_l_")),
)


@dataclass(frozen=True)
class Speller:
    """Translates one family's names.

    Attributes:
        unet: a layer's path, flat, by any of its names → kohya's name.
        text: what the names of the text encoders' layers begin with in kohya's files.
        alone: which text encoder it is that stands in a file without a word for the part.
    """

    unet: Mapping[str, str]
    text: tuple[str, ...]
    alone: str = "text_encoder"

    def of_parts(self, parts: Collection[str]) -> Speller:
        """The names of a file that changes these parts."""
        return replace(self, alone="text_encoder_2") if set(parts) == {"text_encoder_2"} else self

    def layer(self, module: str) -> str:
        """kohya's name of a layer; strangers keep theirs, as far as their part can be told in kohya's way."""
        return self._flat(module.replace(".processor.", ".").replace(".", "_"))

    def _flat(self, name: str) -> str:
        rest = next((name.removeprefix(prefix) for prefix in _WRAPPED if name.startswith(prefix)), name)
        if rest != name:
            known = rest.startswith((*_UNET, *_TEXT[0][1], *_TEXT[1][1]))
            prefix = "" if known else f"{self.alone}_" if rest.startswith(("text_model_", "encoder_layers_")) else "unet_"
            return self._flat(prefix + rest)
        for number, prefixes in _TEXT:
            for prefix in prefixes:
                if name.startswith(prefix) and number < len(self.text):
                    return f"{self.text[number]}_text_model_{name.removeprefix(prefix).removeprefix('text_model_')}"
        for prefix in _UNET:
            if name.startswith(prefix):
                path = name.removeprefix(prefix)
                return self.unet.get(path, f"{UNET_PREFIX}_{path}")
        return self._flat(f"unet_{name}") if name.startswith(_BARE) else name

    def tensor(self, name: str) -> tuple[str, str] | None:
        """kohya's name of the layer and of its tensor (DOWN, UP or ALPHA); None for what no plain LoRA has."""
        module, end = _split(name)
        return None if end is None else (self.layer(module), end)


def _split(name: str) -> tuple[str, str | None]:
    """A tensor's module, as the file calls it, and DOWN, UP or ALPHA; None for what no plain LoRA has."""
    for pattern, end in _ENDS:
        match = pattern.search(name)
        if match:
            return name[: match.start()], end
    return name, None


def speller(unet: Config | None, text: tuple[str, ...], *, sai: bool) -> Speller:
    """The names of a family: by its UNet's config (None where no UNet is at hand) and its text encoders' prefixes."""
    return Speller(_unet_names(unet, sai) if unet is not None else {}, text)


def _unet_names(config: Config, sai: bool) -> dict[str, str]:
    names = {}
    for ldm, path in keys.unet_modules(config).items():
        kohya = kohya_name(UNET_PREFIX, ldm if sai else path)
        for other in (ldm, path):
            names[other.replace(".", "_")] = kohya
            if other.endswith(".to_out.0"):  # as the attention processors of the first diffusers called it
                names[other.removesuffix(".0").replace(".", "_")] = kohya
    return names


@dataclass(frozen=True)
class Alphas:
    """Alpha of layers that carry none, by kohya's name, as the program that wrote the file says it elsewhere.

    Attributes:
        of_layer: alpha.
        stabilised: layers whose updates are divided by the root of the rank.
    """

    of_layer: Mapping[str, float]
    stabilised: frozenset[str]

    def find(self, layer: str, rank: int) -> float | None:
        """Of the layer with this kohya name, None where nothing says it: it is then the rank.

        Where the root of the rank divides, the alpha that gives the same where all divide by the rank.
        """
        alpha = self.of_layer.get(layer)
        return alpha * rank**0.5 if alpha is not None and layer in self.stabilised else alpha


def read_alphas(path: Path, metadata: Mapping[str, str], tensors: Iterable[str], names: Speller) -> Alphas:
    """What diffusers writes in the header (`lora_adapter_metadata`), or PEFT in `adapter_config.json` beside the file.

    `tensors` are the file's names. Raises BadInput for a pattern of layers' names that is not read here.
    """
    configs = {part: _AdapterConfig.of(path, config) for part, config in adapter_configs(path, metadata).items()}
    of_layer: dict[str, float] = {}
    stabilised = set()
    for name in tensors if configs else ():
        module, end = _split(name)
        if end is None and name.endswith(tuple(f".{ranked}" for ranked in RANKED)):
            module, end = name.rpartition(".")[0], DOWN
        layer = names.layer(module)
        part = "unet" if layer.startswith(UNET_PREFIX) else "text_encoder_2" if "_te2_" in layer else "text_encoder"
        config = configs.get(part, configs.get(""))
        if end != DOWN or config is None:
            continue
        alpha = config.alpha_of(module.removeprefix("base_model.model.").removeprefix(f"{part}."))
        if alpha is not None:
            of_layer[layer] = alpha
        if config.stabilised:
            stabilised.add(layer)
    return Alphas(of_layer, frozenset(stabilised))


@dataclass(frozen=True)
class _AdapterConfig:
    """One of PEFT's configs, as far as alphas go: that of all layers, and of those whose names match a pattern."""

    path: Path
    alpha: float | None
    of_pattern: Mapping[str, float]
    patterns: Patterns
    stabilised: bool

    @classmethod
    def of(cls, path: Path, config: Mapping[str, Any]) -> _AdapterConfig:
        own = config.get("alpha_pattern")
        said = {name: _number(value) for name, value in own.items()} if isinstance(own, dict) else {}
        of_pattern = {name: value for name, value in said.items() if value is not None}
        try:
            patterns = Patterns(of_pattern)
        except NotRead as error:
            raise _not_read(path, error) from error
        alpha = _number(config.get("lora_alpha", config.get("alpha")))
        return cls(path, alpha, of_pattern, patterns, config.get("use_rslora") is True)

    def alpha_of(self, module: str) -> float | None:
        """Of a module by its name in the part, as PEFT finds it: by the first pattern that matches."""
        try:
            pattern = self.patterns.first(module)
        except NotRead as error:
            raise _not_read(self.path, error) from error
        return self.alpha if pattern is None else self.of_pattern[pattern]


def _number(value: object) -> float | None:
    """What JSON says, where it is a number that an alpha can be."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e9 else None


def _not_read(path: Path, error: NotRead) -> BadInput:
    what = say(
        "Alpha of the layers of {path} is given by patterns, of which one is not read here: {pattern}.",
        path=str(path),
        pattern=shown(str(error), 120),
    )
    return BadInput(what, say("Save the LoRA in kohya's format, in which each layer has its own alpha."))


def adapter_configs(path: Path, metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """PEFT's configs by part; "" is the config of a whole file."""
    beside = path.with_name("adapter_config.json")
    try:
        said = foreign_json.parse(metadata.get("lora_adapter_metadata", "{}"))
        whole = read_json(beside) if beside.is_file() else {}
    except (OSError, ValueError):
        return {}
    found: dict[str, dict[str, Any]] = {"": whole} if whole else {}
    for key, value in said.items() if isinstance(said, dict) else ():
        part, _, entry = key.partition(".")
        found.setdefault(part, {})[entry] = value
    return found
