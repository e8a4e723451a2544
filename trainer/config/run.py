"""What a run is: every section of the run file and every setting in it, once.

The TOML file, the window's forms, the manual and the refusals are all made from these lines, and from those of
`trainer.config.material` on model and pictures.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from pydantic import Field

from trainer.config.fields import Choice, Section, plain_type, setting
from trainer.config.material import Folder as Folder
from trainer.config.material import Images, Model, Regularization
from trainer.config.registry import method_settings
from trainer.optim.table import OPTIMIZERS, SCHEDULES

if TYPE_CHECKING:
    from trainer.methods.lora import Settings as Network
else:
    Network = method_settings()

FORMAT = 2


class Training(Section):
    """How long, in which portions, and from which seed."""

    epochs: int = setting(
        10,
        "Epochs",
        "How often the whole set is shown. Ignored if a number of steps is set.",
        kohya=("max_train_epochs", "epoch"),
        ge=1,
        le=100_000,
    )
    steps: int | None = setting(
        None,
        "Steps",
        "Ends the run after exactly this many steps, whatever the epochs. Empty goes by epochs.",
        level="advanced",
        kohya=("max_train_steps",),
        ge=1,
        le=10_000_000,
    )
    batch_size: int = setting(
        1,
        "Batch size",
        "Pictures in one step. More is smoother and faster for each picture, and makes fewer steps.",
        costs="Memory grows with each picture.",
        kohya=("train_batch_size", "batch_size"),
        ge=1,
        le=512,
    )
    accumulation: int = setting(
        1,
        "Gradient accumulation",
        "Collects this many batches into one step: the effect of a larger batch without its memory.",
        level="advanced",
        kohya=("gradient_accumulation_steps",),
        ge=1,
        le=1024,
    )
    seed: int = setting(
        42,
        "Seed",
        "The same run file with the same seed gives the same result.",
        widget="seed",
        kohya=("seed",),
        ge=0,
        le=2**32 - 1,
    )


class Optimizer(Section):
    """The rule that turns gradients into changes, and how large they are."""

    name: str = setting(
        "AdamW8bit",
        "Optimiser",
        "AdamW8bit is a good start; Prodigy finds its own rate.",
        choices=tuple(row.choice for row in OPTIMIZERS.values()),
        kohya=("optimizer_type", "optimizer", "use_8bit_adam"),
    )
    learning_rate: float = setting(
        1e-4,
        "Learning rate",
        "Size of each change. Too high burns, too low learns nothing; 1e-4 is usual for a LoRA with AdamW.",
        widget="rate",
        kohya=("learning_rate",),
        ge=0,
        le=100,
    )
    unet_rate: float | None = setting(
        None,
        "UNet rate",
        "The UNet's own learning rate; empty takes the one above.",
        widget="rate",
        kohya=("unet_lr",),
        ge=0,
        le=100,
    )
    text_encoder_rate: float | None = setting(
        5e-5,
        "Text encoder rate",
        "The text encoder's own learning rate, usually half of the UNet's or less; empty takes the one above.",
        widget="rate",
        kohya=("text_encoder_lr",),
        ge=0,
        le=100,
    )
    text_encoder_2_rate: float | None = setting(
        None,
        "Second text encoder rate",
        "SDXL's second text encoder has a learning rate of its own here; empty takes the text encoder's.",
        level="advanced",
        widget="rate",
        kohya=("text_encoder_lr", "learning_rate_te2"),
        ge=0,
        le=100,
    )
    max_grad_norm: float = setting(
        1.0,
        "Gradient clipping",
        "Longest gradient allowed in a step; 0 switches clipping off.",
        level="advanced",
        step=0.1,
        kohya=("max_grad_norm",),
        ge=0,
    )
    arguments: dict[str, Any] = setting(
        {},
        "More arguments",
        "Arguments of the optimiser itself, one `name = value` a line, such as `weight_decay = 0.1`.",
        level="advanced",
        widget="arguments",
        kohya=("optimizer_args",),
    )

    def rates(self) -> dict[str, float]:
        """The learning rate of each part of a model."""
        unet = self.learning_rate if self.unet_rate is None else self.unet_rate
        text = self.learning_rate if self.text_encoder_rate is None else self.text_encoder_rate
        second = text if self.text_encoder_2_rate is None else self.text_encoder_2_rate
        return {"unet": unet, "text_encoder": text, "text_encoder_2": second}


class Scheduler(Section):
    """How the learning rate moves over the run."""

    name: str = setting(
        "cosine",
        "Schedule",
        "The curve of the learning rate.",
        choices=tuple(row.choice for row in SCHEDULES.values()),
        kohya=("lr_scheduler",),
    )
    warmup_ratio: float = setting(
        0.05,
        "Warm-up",
        "Share of the run in which the rate rises from zero; 0.05 is five per cent.",
        step=0.01,
        kohya=("lr_warmup",),
        ge=0,
        le=1,
    )
    warmup_steps: int | None = setting(
        None,
        "Warm-up steps",
        "Warm-up as a number of steps; empty goes by the share above.",
        level="advanced",
        kohya=("lr_warmup_steps",),
        ge=0,
    )
    cycles: int = setting(
        1,
        "Cycles",
        "How often cosine_with_restarts begins anew. With one it is plain cosine.",
        kohya=("lr_scheduler_num_cycles",),
        ge=1,
        le=1000,
    )
    power: float = setting(
        1.0, "Power", "Exponent of the polynomial schedule; 1 is a straight line.", step=0.1,
        kohya=("lr_scheduler_power",), gt=0, le=20,
    )  # fmt: skip


class Noise(Section):
    """The noise that pictures are hidden in, and how the loss weighs it."""

    noise_offset: float = setting(
        0.0,
        "Noise offset",
        "Lets the model learn darker darks and brighter brights. 0 is off; 0.03 to 0.1 is usual.",
        step=0.01,
        kohya=("noise_offset",),
        ge=0,
        le=1,
    )
    min_snr_gamma: float = setting(
        5.0,
        "Min-SNR gamma",
        "Evens out easy and hard noise levels so that learning is quicker. 5 is usual, 0 is off.",
        step=0.5,
        kohya=("min_snr_gamma",),
        ge=0,
        le=100,
    )


class Speed(Section):
    """Precision, memory and the device."""

    precision: str = setting(
        "fp16",
        "Precision",
        "Numbers used while training. fp16 suits nearly every card, bf16 newer ones (RTX 30 and later), fp32 a CPU.",
        costs="fp32 takes twice the memory and time.",
        choices=(
            Choice("fp16", "fp16", "Half precision with a loss scaler."),
            Choice("bf16", "bf16", "Half precision for newer cards."),
            Choice("fp32", "fp32", "Full precision; the one for a CPU."),
        ),
        kohya=("mixed_precision",),
    )
    gradient_checkpointing: bool = setting(
        False,
        "Gradient checkpointing",
        "Computes parts twice to save memory.",
        costs="Much less memory, about a quarter more time.",
        kohya=("gradient_checkpointing",),
    )
    attention: str = setting(
        "sdpa",
        "Attention",
        "The routine for attention. SDPA comes with PyTorch and is right for nearly everybody.",
        level="advanced",
        choices=(
            Choice("sdpa", "SDPA"),
            Choice("xformers", "xformers", "Only where it is installed and a test call works."),
        ),
        kohya=("sdpa", "xformers", "mem_eff_attn"),
    )
    device: str = setting(
        "auto",
        "Device",
        "Where to train: auto takes the first graphics card, else the CPU; or a card by its name.",
        widget="device",
        kohya=("gpu_ids",),
    )
    cache_latents: str = setting(
        "disk",
        "Cache pictures",
        "Keeps the encoded pictures, so that the VAE works once and not in every step.",
        level="advanced",
        choices=(
            Choice("disk", "on disk", "The next run starts at once."),
            Choice("memory", "in memory", "Nothing is written."),
        ),
        kohya=("cache_latents", "cache_latents_to_disk"),
    )
    cache_limit_gb: float = setting(
        20.0,
        "Cache limit",
        "Largest size of the shared cache folder; the longest unused entries go first.",
        level="advanced",
        unit="GB",
        ge=0.1,
        le=100_000,
    )
    vae_batch_size: int = setting(
        1,
        "VAE batch",
        "Pictures encoded at once while caching.",
        level="advanced",
        costs="More is quicker on a large card and needs its memory.",
        kohya=("vae_batch_size",),
        ge=1,
        le=64,
    )
    decode_threads: int = setting(
        2,
        "Decoding threads",
        "Threads that read pictures ahead of the VAE.",
        level="advanced",
        kohya=("max_data_loader_n_workers",),
        ge=1,
        le=64,
    )


SAMPLERS = (
    Choice("euler_a", "Euler a"),
    Choice("ddim", "DDIM"),
    Choice("dpmpp_2m_karras", "DPM++ 2M Karras"),
)
KARRAS = ("dpmpp_2m_karras",)  # those whose steps go evenly from the greatest noise to the least, by the 7th root of σ


class Prompt(Section):
    """One preview picture: the same seed gives the same noise at every step, so pictures can be compared."""

    prompt: str = setting("", "Prompt", "What to draw.")
    negative: str = setting("", "Negative prompt", "What to avoid.")
    width: int = setting(512, "Width", "Of the picture.", unit="px", step=64, ge=64, le=4096, multiple_of=8)
    height: int = setting(512, "Height", "Of the picture.", unit="px", step=64, ge=64, le=4096, multiple_of=8)
    steps: int = setting(20, "Steps", "20 to 30 is usual.", ge=1, le=1000)
    cfg: float = setting(7.0, "CFG scale", "How closely the prompt is followed; 7 is usual.", step=0.5, ge=1, le=100)
    seed: int = setting(1, "Seed", "The picture's own seed.", widget="seed", ge=0, le=2**32 - 1)
    sampler: str = setting("euler_a", "Sampler", "The routine that draws.", choices=SAMPLERS)


class Samples(Section):
    """Preview pictures while training."""

    prompts: tuple[Prompt, ...] = setting(
        (),
        "Prompts",
        "What to draw as a preview. Have one without the trigger word, to see whether it bleeds into everything.",
        widget="list",
        costs="Each picture takes as long as many steps.",
        kohya=("sample_prompts",),
    )
    every_steps: int = setting(
        0, "Every n steps", "Draws after every so many steps; 0 is off.", kohya=("sample_every_n_steps",), ge=0
    )
    every_epochs: int = setting(
        1, "Every n epochs", "Draws after every so many epochs; 0 is off.", kohya=("sample_every_n_epochs",), ge=0
    )
    at_start: bool = setting(
        True, "Before the first step", "Shows what the base model draws.", kohya=("sample_at_first",)
    )
    at_end: bool = setting(True, "At the end", "Draws once more when the run is done.")


class Output(Section):
    """Where the files go, and what is written in them."""

    name: str = setting(
        "my_lora", "Name", "The name of the LoRA and its files.", kohya=("output_name",), max_length=120
    )
    folder: str = setting(
        "",
        "Output folder",
        "Each run makes a folder of its own in here. Empty takes Athanor's own runs folder.",
        widget="folder",
        kohya=("output_dir",),
    )
    save_every_epochs: int = setting(
        1,
        "Save every n epochs",
        "0 is off. Several files let you choose the best.",
        kohya=("save_every_n_epochs",),
        ge=0,
    )
    save_every_steps: int = setting(
        0, "Save every n steps", "0 is off.", level="advanced", kohya=("save_every_n_steps",), ge=0
    )
    keep_last: int = setting(
        0,
        "Keep the last n",
        "Older files of this run are deleted; 0 keeps all. The final file always stays.",
        level="advanced",
        kohya=("save_last_n_epochs", "save_last_n_steps"),
        ge=0,
    )
    precision: str = setting(
        "fp16",
        "File precision",
        "Numbers in the file. fp16 is half the size and works everywhere.",
        level="advanced",
        choices=(Choice("fp16", "fp16"), Choice("bf16", "bf16"), Choice("fp32", "fp32")),
        kohya=("save_precision",),
    )
    export_to: str = setting(
        "",
        "Copy to",
        "The folder of the program you draw with, or any other: the final LoRA is placed where it looks for LoRAs. "
        "Empty copies nothing.",
        widget="folder",
    )
    snapshot_minutes: float = setting(
        10.0,
        "Snapshot every",
        "A snapshot lets a run go on after a power cut. One is made at each save too.",
        level="advanced",
        unit="min",
        gt=0,
        le=1440,
    )
    title: str = setting("", "Title", "Shown by programs that read it; empty takes the name.", level="advanced",
                         kohya=("metadata_title",))  # fmt: skip
    author: str = setting(
        "", "Author", "Written into the file if you wish.", level="advanced", kohya=("metadata_author",)
    )
    comment: str = setting(
        "", "Comment", "Written into the file if you wish.", level="advanced", kohya=("training_comment",)
    )
    private: bool = setting(
        False,
        "Leave private entries out",
        "Keeps folder names, tags and author out of the file.",
        level="advanced",
        kohya=("no_metadata",),
    )
    tensorboard: bool = setting(
        False, "TensorBoard log", "Writes a log for TensorBoard beside the run's own.", level="advanced",
        kohya=("log_with", "logging_dir"),
    )  # fmt: skip


class RunFile(Section):
    """A whole run file. Each field is a table of the TOML."""

    model: Model = Field(default_factory=Model, title="Base model")
    images: Images = Field(default_factory=Images, title="Images")
    regularization: Regularization = Field(default_factory=Regularization, title="Regularisation")
    network: Network = Field(default_factory=Network, title="Network")
    optimizer: Optimizer = Field(default_factory=Optimizer, title="Optimiser")
    scheduler: Scheduler = Field(default_factory=Scheduler, title="Scheduler")
    training: Training = Field(default_factory=Training, title="Training")
    noise: Noise = Field(default_factory=Noise, title="Noise and loss")
    speed: Speed = Field(default_factory=Speed, title="Speed and memory")
    samples: Samples = Field(default_factory=Samples, title="Samples")
    output: Output = Field(default_factory=Output, title="Output")


@cache
def sections() -> Mapping[str, type[Section]]:
    """The sections of a run file by key, in the file's order."""
    return MappingProxyType({key: plain_type(field) for key, field in RunFile.model_fields.items()})


def default_values() -> dict[str, dict[str, Any]]:
    """A new run's values by section and key, as they are in a `RunFile()`."""
    return {
        section: {key: field.get_default(call_default_factory=True) for key, field in kind.model_fields.items()}
        for section, kind in sections().items()
    }
