"""What a family of models wants of a run's settings, to be taken over visibly when a base model is chosen. No torch.

A suggestion is not a rule: the run file holds plain values, and whoever wants others sets others.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from trainer.messages import Message, say
from trainer.models.header import FAMILY_TITLES, TRAINABLE, ModelFacts


@dataclass(frozen=True)
class Suggestion:
    """A value for a setting of the run file, and why."""

    place: str  # "images.resolution"
    value: Any
    why: Message


def suggestions(facts: ModelFacts) -> tuple[Suggestion, ...]:
    """What to set for a base model; nothing for a file that cannot be trained. Every family speaks of the same settings.

    So going from one model to another leaves nothing behind of what the first one wanted.
    """
    if facts.kind != "base" or facts.family not in TRAINABLE:
        return ()
    return (*_sizes(facts), *_parts(facts.family), *_noise(facts))


def preview_side(facts: ModelFacts) -> int:
    """The side of a preview in pixels: what the model was made to draw."""
    return facts.native_resolution or 512


def _sizes(facts: ModelFacts) -> tuple[Suggestion, ...]:
    side = facts.native_resolution or 512
    title = FAMILY_TITLES[facts.family or ""]
    why = say("{family} models of this kind were made at {side} pixels.", family=title, side=side)
    large = side >= 1024
    return (
        Suggestion("images.resolution", (side, side), why),
        Suggestion("images.bucket_min", max(side // 128 * 64, 64), why),
        Suggestion("images.bucket_max", 2 * side, why),
        Suggestion(
            "speed.gradient_checkpointing", large,
            say("Pictures of this size need much memory.") if large else say("At this size it is hardly needed."),
        ),
    )  # fmt: skip


def _parts(family: str) -> tuple[Suggestion, ...]:
    only_unet = family == "sdxl"
    train = (
        say("SDXL's two text encoders know enough, and training them needs much memory.")
        if only_unet
        else say("The text encoder helps a new word to stick.")
    )
    layer = (
        say("The last layer is right for photographic models; set 2 for most anime models.")
        if family == "sd1"
        else say("{family} uses the same layer always.", family=FAMILY_TITLES[family])
    )
    rates = say("Usual for a LoRA with AdamW.")
    return (
        Suggestion("network.train", "unet" if only_unet else "both", train),
        Suggestion("model.clip_skip", 1, layer),
        Suggestion("optimizer.learning_rate", 1e-4, rates),
        Suggestion("optimizer.unet_rate", None, rates),
        Suggestion("optimizer.text_encoder_rate", 5e-5, rates),
    )


def _noise(facts: ModelFacts) -> tuple[Suggestion, ...]:
    if facts.zero_snr:
        why = say("With zero terminal SNR the model learns true darks and brights by itself.")
        return (Suggestion("noise.noise_offset", 0.0, why),)
    return ()
