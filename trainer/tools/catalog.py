"""What tools there are, as plain data: the window builds its forms from it and the command line its options. No torch.

A tool's module has `run(settings, watch) -> Result`; it is imported only when it runs.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from trainer.config.fields import Choice, Section, setting, settings_of
from trainer.errors import Problem
from trainer.messages import Message, say
from trainer.tools.watch import Result, Watch

RULES = (
    Choice("rank", "Fixed rank", "Every layer gets the same rank."),
    Choice(
        "frobenius", "Share of the length", "The smallest rank that keeps this share of each layer's length (sv_fro)."
    ),
    Choice(
        "cumulative",
        "Share of the sum",
        "The smallest rank whose singular values make up this share of their sum (sv_cumulative; LyCORIS' quantile).",
    ),
    Choice(
        "ratio", "Ratio to the greatest", "Keeps the singular values above the greatest one divided by this (sv_ratio)."
    ),
    Choice("threshold", "Threshold", "Keeps the singular values above this."),
)


def _model(label: str, help: str) -> Any:
    return setting("", label, help, widget="file")


def _output(help: str) -> Any:
    return setting("", "Output", help, widget="file")


def _overwrite() -> Any:
    return setting(False, "Overwrite", "Replaces the output if it exists; otherwise that is refused.")


def _precision(default: str, help: str) -> Any:
    choices = (
        Choice("keep", "As it is", "Every tensor keeps its precision."),
        Choice("fp16", "fp16", "Half the size of fp32, read by every program."),
        Choice(
            "bf16", "bf16", "Half the size, for newer programs and cards; coarser, but never too small for a value."
        ),
        Choice("fp32", "fp32", "Full precision."),
    )
    return setting(default, "Precision", help, choices=choices)


def _rule(help: str) -> Any:
    return setting("rank", "Choose ranks by", help, choices=RULES)


def _amount_of_rule() -> Any:
    return setting(
        0.0,
        "Amount",
        "The number that belongs to the rule: a share from 0 to 1 (0.9 is usual), a ratio above 1, or a threshold. "
        "A fixed rank does not use it.",
        ge=0,
    )


def _conv_rank(help: str) -> Any:
    return setting(0, "Rank of convolutions", help, ge=0, le=4096)


def _weight(label: str, help: str) -> Any:
    return setting(None, label, help, step=0.05, ge=-10, le=10)


class LoraEntry(Section):
    """A LoRA and how strongly it counts."""

    path: str = setting("", "LoRA", "The LoRA's file.", widget="file")
    weight: float = setting(1.0, "Weight", "How strongly it counts, as in a prompt.", step=0.05, ge=-10, le=10)
    unet: float | None = _weight("UNet weight", "The weight in the UNet; empty takes the first.")
    text_encoder: float | None = _weight(
        "Text encoder weight", "The weight in the text encoder; empty takes the first."
    )
    text_encoder_2: float | None = _weight(
        "Second text encoder weight", "The weight in SDXL's second text encoder; empty takes the text encoder's."
    )


class ConvertSettings(Section):
    """What `convert` is asked."""

    model: str = _model("Model", "A model file (.safetensors, .ckpt, .pt) or a diffusers folder.")
    output: str = _output(
        "Where to write. A name that ends in neither .safetensors nor .ckpt becomes a diffusers folder."
    )
    precision: str = _precision("keep", "Of the weights. What is no weight of the model keeps its precision.")
    ema: str = setting(
        "drop",
        "Averaged weights",
        "Some checkpoints hold the UNet a second time, averaged over the training (EMA).",
        choices=(
            Choice("drop", "Leave out", "The file gets smaller; pictures stay the same."),
            Choice("take", "Take instead", "The averaged UNet takes the place of the other one."),
            Choice("keep", "Keep both", "For training on; a diffusers folder has no place for it."),
        ),
    )
    vae: str = _model("Other VAE", "A VAE file or folder (or a model that has one) to put in place of the model's.")
    overwrite: bool = _overwrite()


class MergeSettings(Section):
    """What `merge` is asked."""

    model_a: str = _model("Model A", "The first model. What the others lack is taken from it.")
    model_b: str = _model("Model B", "The second model, of the same family.")
    model_c: str = _model("Model C", "A third one: its share is added, or with “difference” B is compared with it.")
    output: str = _output("The new model, .safetensors or .ckpt.")
    mode: str = setting(
        "sum",
        "Method",
        "How the models are joined.",
        choices=(
            Choice("sum", "Weighted sum", "A × (1 − amount) + B × amount; with C also C × its amount."),
            Choice("difference", "Add difference", "A + (B − C) × amount: what B learnt on top of C is added to A."),
        ),
    )
    amount: float = setting(0.5, "Amount", "The share of B, or of the difference.", step=0.05, ge=-10, le=10)
    amount_c: float = setting(
        0.0, "Amount of C", "The share of C in a weighted sum of three.", step=0.05, ge=-10, le=10
    )
    blocks: str = setting(
        "",
        "Amounts by block",
        "Own amounts for the UNet's blocks: a list (SD 1 and 2: 25 numbers IN00 to OUT11, or 26 with BASE in front; SDXL: "
        "19 or 20), or names such as IN04=0.3, M00=0, OUT05=1. BASE is all that is no block.",
        level="advanced",
    )
    vae_from: str = setting(
        "a",
        "VAE",
        "What happens with the VAEs inside the models. Mixing different ones makes pictures pale.",
        level="advanced",
        choices=(Choice("a", "Take A's", "Unchanged."), Choice("merge", "Merge", "Like all other weights.")),
    )
    vae: str = setting("", "Other VAE", "A VAE file to put into the new model.", level="advanced", widget="file")
    precision: str = _precision("fp16", "Of the new file; computed is in fp32.")
    overwrite: bool = _overwrite()


class BakeSettings(Section):
    """What `bake` is asked."""

    model: str = _model("Model", "The model that the LoRAs are made for.")
    loras: tuple[LoraEntry, ...] = setting((), "LoRAs", "The LoRAs and their weights.", widget="list")
    output: str = _output("The new model, .safetensors or .ckpt.")
    precision: str = _precision("keep", "Of the new file; computed is in fp32.")
    overwrite: bool = _overwrite()


class JoinSettings(Section):
    """What `join` is asked."""

    loras: tuple[LoraEntry, ...] = setting((), "LoRAs", "The LoRAs and their weights.", widget="list")
    output: str = _output("The new LoRA, .safetensors.")
    rank: int = setting(
        0,
        "New rank",
        "0 puts the LoRAs side by side: exactly their sum, and their ranks add up. Otherwise the sum is cut to this rank.",
        ge=0,
        le=4096,
    )
    conv_rank: int = _conv_rank("The same for 3×3 convolutions; 0 takes the rank.")
    precision: str = _precision("fp16", "Of the new file; computed is in fp32.")
    overwrite: bool = _overwrite()


class ExtractSettings(Section):
    """What `extract` is asked."""

    base: str = _model("Base model", "The model before the training.")
    tuned: str = _model("Trained model", "The model after it, of the same family.")
    output: str = _output("The new LoRA, .safetensors.")
    parts: str = setting(
        "both",
        "Parts",
        "Where to look for differences.",
        choices=(
            Choice("both", "UNet and text encoder", "Text encoders that did not change are left out by themselves."),
            Choice("unet", "The UNet alone"),
            Choice("text_encoder", "The text encoder alone"),
        ),
    )
    rule: str = _rule("How each layer's rank is chosen.")
    amount: float = _amount_of_rule()
    rank: int = setting(32, "Rank", "The rank of each layer, or the most that the rule may choose.", ge=1, le=4096)
    conv_rank: int = _conv_rank("The same for 3×3 convolutions; 0 leaves them out, as a plain LoRA does.")
    least_change: float = setting(
        0.0,
        "Ignore changes below",
        "Layers whose greatest change is not above this are left out. 0 leaves out layers that are equal.",
        level="advanced",
        ge=0,
    )
    precision: str = setting(
        "fp16",
        "Precision",
        "Of the new file; computed is in fp32.",
        choices=(Choice("fp16", "fp16"), Choice("bf16", "bf16"), Choice("fp32", "fp32")),
    )
    device: str = setting(
        "cpu",
        "Device",
        "What computes: cpu, or a graphics card (auto, cuda:0), which is several times as fast.",
        level="advanced",
        widget="device",
    )
    overwrite: bool = _overwrite()


class ResizeSettings(Section):
    """What `resize` is asked."""

    lora: str = _model("LoRA", "The LoRA to make smaller.")
    output: str = _output("The new LoRA, .safetensors.")
    rule: str = _rule("How each layer's new rank is chosen.")
    amount: float = _amount_of_rule()
    rank: int = setting(8, "Rank", "The new rank, or the most that the rule may choose.", ge=1, le=4096)
    conv_rank: int = _conv_rank("The same for 3×3 convolutions; 0 takes the rank.")
    precision: str = _precision("keep", "Of the new file; computed is in fp32.")
    overwrite: bool = _overwrite()


class MetadataSettings(Section):
    """What `metadata` is asked."""

    file: str = _model("File", "A .safetensors file.")
    set: tuple[str, ...] = setting((), "Set", "Entries to write, each as key=value.", widget="list")
    remove: tuple[str, ...] = setting(
        (), "Remove", "Names of entries to take out; * stands for anything.", widget="list"
    )
    strip_private: bool = setting(
        False, "Strip private entries", "Takes out what tells of your folders, captions and name."
    )
    output: str = _output("Where to write the changed file; empty changes the file itself.")
    overwrite: bool = _overwrite()


class HashSettings(Section):
    """What `hash` is asked."""

    files: tuple[str, ...] = setting((), "Files", "Model files of any kind.", widget="list")


def _is_empty(value: Any) -> bool:
    return not (value.strip() if isinstance(value, str) else value)


@dataclass(frozen=True)
class Tool:
    """One tool.

    Attributes:
        name: its word on the command line, and the name of its module unless `module` says another.
        settings: what it is asked; the window makes a form of it.
        given: settings that stand on the command line without a name, in this order.
        needed: settings that must not be empty.
        several: a setting that needs two entries at least.
    """

    name: str
    title: Message
    summary: Message
    settings: type[Section]
    given: tuple[str, ...]
    needed: tuple[str, ...]
    module: str = ""
    several: str = ""

    def run(self, settings: Any, watch: Watch) -> Result:
        """Do the work. Raises AthanorError; `Stopped` if `watch` was cancelled: then nothing was written."""
        from trainer.tools.watch import explained

        module = importlib.import_module(f"trainer.tools.{self.module or self.name}")
        with explained():
            result: Result = module.run(settings, watch)
        return result

    def missing(self, settings: Any) -> list[Problem]:
        """A problem for each setting that is needed and empty: for the command line, and for the window's button."""
        labels = {key: info.label for key, _, info in settings_of(self.settings)}
        empty = [key for key in self.needed if _is_empty(getattr(settings, key))]
        problems = [Problem(key, say("{label} is missing.", label=labels[key])) for key in empty]
        if self.several and len(getattr(settings, self.several)) == 1:
            problems.insert(0, Problem(self.several, say("At least two LoRAs are needed to be merged.")))
        return problems


TOOLS: dict[str, Tool] = {
    tool.name: tool
    for tool in (
        Tool(
            "convert",
            say("Convert"),
            say("Writes a model in another format or precision, without its averaged weights, or with another VAE."),
            ConvertSettings,
            ("model", "output"),
            ("model", "output"),
        ),
        Tool(
            "merge",
            say("Merge models"),
            say("Makes one model of two or three."),
            MergeSettings,
            ("model_a", "model_b", "model_c"),
            ("model_a", "model_b", "output"),
        ),
        Tool(
            "bake",
            say("Merge LoRAs into a model"),
            say("Writes a model that has LoRAs built in."),
            BakeSettings,
            ("model",),
            ("model", "loras", "output"),
        ),
        Tool(
            "join",
            say("Merge LoRAs with each other"),
            say("Makes one LoRA of several."),
            JoinSettings,
            (),
            ("loras", "output"),
            several="loras",
        ),
        Tool(
            "extract",
            say("Extract a LoRA"),
            say("Makes a LoRA of the difference between two models."),
            ExtractSettings,
            ("base", "tuned"),
            ("base", "tuned", "output"),
        ),
        Tool(
            "resize",
            say("Resize a LoRA"),
            say("Makes a LoRA smaller and loses as little as can be."),
            ResizeSettings,
            ("lora", "output"),
            ("lora", "output"),
        ),
        Tool(
            "metadata",
            say("Metadata"),
            say("Shows and changes what a file says about itself."),
            MetadataSettings,
            ("file",),
            ("file",),
        ),
        Tool(
            "hash",
            say("Hashes"),
            say("Computes the hashes by which programs and sites know a file."),
            HashSettings,
            ("files",),
            ("files",),
            "hashes",
        ),
    )
}
