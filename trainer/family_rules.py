"""What a base model's family says of a run's settings: what cannot work with it, and what is doubtful. No torch."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from trainer.config.run import KARRAS, SAMPLERS, RunFile
from trainer.errors import Problem
from trainer.messages import say
from trainer.models.header import FAMILY_TITLES, TRAINABLE, ModelFacts

if TYPE_CHECKING:
    from trainer.models.protocol import Family

Rule = Callable[[RunFile, ModelFacts, "Family"], Iterator[Problem]]


def family_of(facts: ModelFacts) -> Family | None:
    """The family of a base model, None for what cannot be trained. No torch is imported."""
    if facts.kind != "base" or facts.family not in TRAINABLE:
        return None
    family: Family = importlib.import_module(f"trainer.models.{facts.family}").FAMILY
    return family


def family_problems(run: RunFile, facts: ModelFacts) -> list[Problem]:
    """Every rule that `run` breaks with the base model of `facts`; nothing is said of a model that cannot be trained."""
    family = family_of(facts)
    return [] if family is None else [problem for rule in RULES for problem in rule(run, facts, family)]


def clip_skip_is_allowed(run: RunFile, facts: ModelFacts, family: Family) -> Iterator[Problem]:
    """SD 2.x and SDXL use a layer of their own."""
    if run.model.clip_skip not in family.clip_skips:
        what = say("{family} uses a layer of its own and takes no clip skip.", family=family.title)
        yield Problem("model.clip_skip", what, say("Set it to 1."), run.model.clip_skip)


def resolution_is_native(run: RunFile, facts: ModelFacts, family: Family) -> Iterator[Problem]:
    """Below the size that a model was made at it learns blur."""
    native, sides = facts.native_resolution, run.images.resolution
    if native is None or len(sides) != 2 or any(type(side) is not int for side in sides):
        return
    if sides[0] * sides[1] < 0.8 * native * native:
        what = say("This model was made at {native} × {native}; at smaller sizes it learns blur.", native=native)
        todo = say("Raise the resolution if the memory allows it.")
        yield Problem("images.resolution", what, todo, severity="warning")


def zero_snr_needs_v(run: RunFile, facts: ModelFacts, family: Family) -> Iterator[Problem]:
    """Pure noise tells an epsilon model nothing."""
    if run.model.zero_terminal_snr == "on" and _prediction(run, facts) == "epsilon":
        what = say("Zero terminal SNR is for v-prediction models, and this one predicts epsilon.")
        yield Problem("model.zero_terminal_snr", what, say("Switch it off."), run.model.zero_terminal_snr)


def prediction_is_the_models(run: RunFile, facts: ModelFacts, family: Family) -> Iterator[Problem]:
    """A prediction chosen against the file's word is nearly always a mistake; where it says nothing, it is tested."""
    chosen = run.model.prediction
    names = {"epsilon": say("epsilon"), "v_prediction": say("v-prediction")}
    if chosen == "auto" and facts.prediction_source is None:
        what = say(
            "The file does not say whether it is an epsilon or a v-prediction model; a test tells, at the start at latest."
        )
        yield Problem("model.prediction", what, severity="warning")
    elif chosen == "auto" and facts.contradicted:
        what = say(
            "The model's file says both epsilon and v-prediction; {told} is taken.",
            told=names[facts.prediction or "epsilon"],
        )
        yield Problem("model.prediction", what, say("Choose the other one if the previews are nothing but noise."),
                      severity="warning")  # fmt: skip
    elif chosen != "auto" and facts.prediction_source not in (None, "family") and chosen != facts.prediction:
        what = say("The model's file says {told}.", told=names[facts.prediction or "epsilon"])
        todo = say("Let it be as the model says, unless you know better.")
        yield Problem("model.prediction", what, todo, chosen, "warning")


def noise_offset_fits(run: RunFile, facts: ModelFacts, family: Family) -> Iterator[Problem]:
    """Zero terminal SNR does by itself what a noise offset is for."""
    if run.noise.noise_offset and _has_zero_snr(run, facts):
        what = say("With zero terminal SNR a noise offset is not needed, and makes pictures too dark or too bright.")
        yield Problem("noise.noise_offset", what, say("Set it to 0."), run.noise.noise_offset, "warning")


def samplers_fit(run: RunFile, facts: ModelFacts, family: Family) -> Iterator[Problem]:
    """Where the greatest noise has no bound (programs take σ = 4096 or 4518), Karras' steps are wasted on it.

    Of 20 steps 13 lie above σ = 14.6, where the usual schedule begins. Other programs draw as coarsely with it.
    """
    titles = {choice.value: choice.label for choice in SAMPLERS}
    for number, prompt in enumerate(run.samples.prompts, 1):
        if prompt.sampler in KARRAS and _has_zero_snr(run, facts):
            what = say(
                "With zero terminal SNR {sampler} spends most steps on pure noise, and its pictures are coarse.",
                sampler=titles[prompt.sampler],
            )
            todo = say("Choose {sampler}.", sampler=titles["euler_a"])
            yield Problem(f"samples.prompts[{number}].sampler", what, todo, prompt.sampler, "warning")


def _prediction(run: RunFile, facts: ModelFacts) -> str | None:
    """What the model is trained and drawn with, None where it will be tested."""
    return facts.prediction if run.model.prediction == "auto" else run.model.prediction


def _has_zero_snr(run: RunFile, facts: ModelFacts) -> bool:
    """As `trainer.parametrisation` settles it."""
    setting = run.model.zero_terminal_snr
    wanted = setting == "on" or (setting == "auto" and bool(facts.zero_snr))
    return wanted and _prediction(run, facts) != "epsilon"


def one_text_encoder_is_enough(run: RunFile, facts: ModelFacts, family: Family) -> Iterator[Problem]:
    """A second text encoder belongs to families that have two."""
    if run.model.text_encoder_2 and len(family.text_parts) < 2:
        what = say("{family} has one text encoder.", family=FAMILY_TITLES[family.name])
        yield Problem("model.text_encoder_2", what, say("Leave this empty."), run.model.text_encoder_2)


RULES: tuple[Rule, ...] = (
    clip_skip_is_allowed,
    resolution_is_native,
    zero_snr_needs_v,
    prediction_is_the_models,
    noise_offset_fits,
    samplers_fit,
    one_text_encoder_is_enough,
)
