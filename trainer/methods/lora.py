"""LoRA: small low-rank updates beside the base model's layers. The settings here; the network in `trainer.nets.lora`."""

from __future__ import annotations

from typing import Literal

from trainer.config.fields import Choice, Section, setting


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
        "A LoRA file to go on from. Its rank must be the rank set here; empty starts fresh.",
        level="advanced",
        widget="file",
        kohya=("network_weights", "dim_from_weights"),
    )
