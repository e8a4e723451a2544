"""Rules across values: what cannot work together (errors) and what is doubtful (warnings), each with the way out.

One function a rule, listed in RULES; the window, `check` and the tests go through the same list.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator

from trainer.config.run import RunFile
from trainer.errors import Problem
from trainer.messages import Message, say
from trainer.optim.table import OPTIMIZERS, SCHEDULES

Rule = Callable[[RunFile], Iterator[Problem]]


def broken_rules(run: RunFile) -> list[Problem]:
    """Every rule that `run` breaks, errors and warnings, in the order of RULES."""
    return [problem for rule in RULES for problem in rule(run)]


def _warning(place: str, what: Message, todo: Message | None = None) -> Problem:
    return Problem(place, what, todo, severity="warning")


def needs_model(run: RunFile) -> Iterator[Problem]:
    """A run without a base model has nothing to train."""
    if not run.model.path.strip():
        yield Problem("model.path", say("No base model is chosen."), say("Choose a model file or a folder."))


def needs_folders(run: RunFile) -> Iterator[Problem]:
    """At least one folder of pictures is in use, and each has a path."""
    if not any(folder.enabled for folder in run.images.folders):
        yield Problem("images.folders", say("There are no pictures to learn."), say("Add a folder with pictures."))
    for key in ("images", "regularization"):
        for number, folder in enumerate(getattr(run, key).folders, 1):
            if not folder.path.strip():
                yield Problem(f"{key}.folders[{number}].path", say("This folder has no path."), say("Choose a folder."))


def resolution_fits(run: RunFile) -> Iterator[Problem]:
    """Resolution is a width and a height, multiples of the bucket step, within the bucket limits."""
    images = run.images
    place = "images.resolution"
    if len(images.resolution) != 2 or any(type(side) is not int for side in images.resolution):
        yield Problem(place, say("Resolution is a width and a height."), say("Write [512, 512] for example."))
        return
    step = images.bucket_step
    for side in images.resolution:
        if side < 64 or side > 8192:
            yield Problem(place, say("{side} is out of range; sides go from 64 to 8192.", side=side), value=side)
        elif side % step:
            near = max(step, round(side / step) * step)
            what = say("{side} is not a multiple of {step}.", side=side, step=step)
            yield Problem(place, what, say("The nearest that is: {near}.", near=near), side)
    if images.bucket_min > images.bucket_max:
        yield Problem("images.bucket_min", say("The shortest side is longer than the longest side."),
                      say("Lower it, or raise the longest side."))  # fmt: skip
    for key in ("bucket_min", "bucket_max"):
        side = getattr(images, key)
        if images.buckets and side % step:
            what = say("{side} is not a multiple of {step}.", side=side, step=step)
            yield Problem(f"images.{key}", what, say("Change it or the bucket step."), side)


def colour_is_one(run: RunFile) -> Iterator[Problem]:
    """The colour behind transparency is written #rrggbb."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", run.images.alpha_colour):
        what = say("{value} is not a colour.", value=run.images.alpha_colour)
        yield Problem("images.alpha_colour", what, say("Write #ffffff for white."), run.images.alpha_colour)


def warmup_fits(run: RunFile) -> Iterator[Problem]:
    """Warm-up is shorter than the run, where the run's length is known from the file alone."""
    if run.training.steps is not None:
        yield from warmup_problem(run, run.training.steps)


def warmup_problem(run: RunFile, total_steps: int) -> Iterator[Problem]:
    """What is wrong with the warm-up of a run of `total_steps` (the pictures must be known to count epochs)."""
    warmup = run.scheduler.warmup_steps
    if warmup is None or not SCHEDULES[run.scheduler.name].warmup:
        return
    if warmup >= total_steps:
        what = say("{warmup} is longer than the run ({steps} steps).", warmup=warmup, steps=total_steps)
        yield Problem("scheduler.warmup_steps", what, say("Lower it, or raise the steps."), warmup)
    elif warmup * 10 > total_steps:
        what = say("Warm-up takes more than a tenth of the run.")
        yield _warning("scheduler.warmup_steps", what, say("Five per cent is usual."))


def arguments_are_known(run: RunFile) -> Iterator[Problem]:
    """Free arguments are ones that the optimiser takes."""
    row = OPTIMIZERS[run.optimizer.name]
    for name in run.optimizer.arguments:
        if name not in row.arguments:
            near = difflib.get_close_matches(name, row.arguments, 1)
            known = ", ".join(row.arguments)
            todo = say("Did you mean {name}?", name=near[0]) if near else say("It takes: {known}.", known=known)
            what = say("{optimizer} has no argument {name}.", optimizer=row.name, name=name)
            yield Problem(f"optimizer.arguments.{name}", what, todo, run.optimizer.arguments[name])


def adafactor_pairs(run: RunFile) -> Iterator[Problem]:
    """The adafactor schedule belongs to Adafactor with its relative step, and the other way round."""
    row = OPTIMIZERS[run.optimizer.name]
    relative = row.relative_rate and bool(run.optimizer.arguments.get("relative_step", row.arguments["relative_step"]))
    if run.scheduler.name == "adafactor" and not relative:
        yield Problem("scheduler.name", say("This schedule only works with Adafactor and relative_step."),
                      say("Choose Adafactor as the optimiser, or another schedule."))  # fmt: skip
    if relative and run.scheduler.name != "adafactor":
        yield Problem("scheduler.name", say("Adafactor with relative_step sets its own rate."),
                      say("Choose the schedule adafactor, or set relative_step = false."))  # fmt: skip


def own_rate_is_one_for_all(run: RunFile) -> Iterator[Problem]:
    """An optimiser that finds its rate finds one for all parts."""
    row = OPTIMIZERS[run.optimizer.name]
    rates = {part: rate for part, rate in _trained_rates(run).items() if rate}
    if not row.own_rate or len(set(rates.values())) < 2:
        return
    part, rate = next((part, rate) for part, rate in rates.items() if rate != next(iter(rates.values())))
    what = say("{optimizer} finds one rate for UNet and text encoder, and these differ.", optimizer=row.name)
    yield Problem(f"optimizer.{part}_rate", what, say("Leave both empty, with a learning rate of 1."), rate)


def _trained_rates(run: RunFile) -> dict[str, float]:
    """The rates of the parts that train. A second text encoder counts where it is given a rate of its own."""
    rates, train = run.optimizer.rates(), run.network.train
    if run.optimizer.text_encoder_2_rate is None:
        del rates["text_encoder_2"]
    return {part: rate for part, rate in rates.items() if train == "both" or (part == "unet") == (train == "unet")}


def rates_make_sense(run: RunFile) -> Iterator[Problem]:
    """Rates in the range that this optimiser is used with."""
    row, optimizer = OPTIMIZERS[run.optimizer.name], run.optimizer
    rates = {"learning_rate": optimizer.learning_rate, "unet_rate": optimizer.unet_rate}
    if run.network.train != "unet":
        rates |= {key: getattr(optimizer, key) for key in ("text_encoder_rate", "text_encoder_2_rate")}
    for key, rate in rates.items():
        if rate is None:
            continue
        if row.own_rate and rate < 0.1:
            what = say("{optimizer} finds its own rate and wants about 1 here.", optimizer=row.name)
            yield _warning(f"optimizer.{key}", what, say("Set it to 1, or empty where another rate is used."))
        elif row.name == "Lion" and rate >= 1e-3:
            yield _warning(f"optimizer.{key}", say("This rate is too high for Lion."), say("5e-5 is usual."))
        elif row.name in ("AdamW", "AdamW8bit") and rate > 1e-2:
            yield _warning(f"optimizer.{key}", say("This rate is so high that pictures usually burn."),
                           say("1e-4 is usual."))  # fmt: skip


def rank_makes_sense(run: RunFile) -> Iterator[Problem]:
    """A rank over 128 brings nothing; alpha above the rank is unusual."""
    if run.network.rank > 128:
        yield _warning("network.rank", say("Over 128 brings no gain, a larger file, and overfits sooner."),
                       say("8 to 32 is usual."))  # fmt: skip
    if run.network.alpha > run.network.rank:
        yield _warning("network.alpha", say("Alpha above the rank makes every update stronger than the learning rate says."),
                       say("Half the rank is usual."))  # fmt: skip


def shuffle_keeps_trigger(run: RunFile) -> Iterator[Problem]:
    """Shuffling without keep_tokens makes every tag a trigger in time."""
    if run.images.shuffle_captions and run.images.keep_tokens == 0:
        yield _warning("images.keep_tokens", say("Tags are shuffled and none is kept in front: the trigger word gets lost."),
                       say("Set it to at least 1."))  # fmt: skip


def resolution_is_native(run: RunFile) -> Iterator[Problem]:
    """Below the native size the model learns blur; far above, doubled subjects."""
    if len(run.images.resolution) == 2 and max(run.images.resolution) > 1024:
        yield _warning("images.resolution", say("More than 1024 is rarely worth its time and memory."))


def one_cycle_is_cosine(run: RunFile) -> Iterator[Problem]:
    """Restarts with one cycle are plain cosine."""
    if run.scheduler.name == "cosine_with_restarts" and run.scheduler.cycles == 1:
        yield _warning(
            "scheduler.cycles", say("With one cycle this is plain cosine."), say("Set 2 or more, or cosine.")
        )


def prompts_fit(run: RunFile) -> Iterator[Problem]:
    """Preview prompts have text, and there is one if previews are asked for."""
    for number, prompt in enumerate(run.samples.prompts, 1):
        if not prompt.prompt.strip():
            yield _warning(f"samples.prompts[{number}].prompt", say("This prompt is empty."), say("Say what to draw."))


def name_is_a_file_name(run: RunFile) -> Iterator[Problem]:
    """The output's name can be a file name on every system."""
    name = run.output.name
    reserved = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}
    if not name.strip() or name != name.strip() or name.endswith("."):
        yield Problem("output.name", say("The name is empty, or begins or ends with a blank or a dot."),
                      say("Choose a plain name."), name)  # fmt: skip
    elif re.search(r'[<>:"/\\|?*\x00-\x1f]', name) or name.split(".")[0].lower() in reserved:
        what = say("{name} cannot be a file name on Windows.", name=name)
        yield Problem("output.name", what, say('Leave out < > : " / \\ | ? * and reserved words.'), name)
    elif len(name.encode("utf-8")) > 180:
        yield Problem("output.name", say("The name is too long for a file name."), say("Make it shorter."), name)


def something_is_saved(run: RunFile) -> Iterator[Problem]:
    """A rate of zero everywhere trains nothing."""
    if not any(_trained_rates(run).values()) and not OPTIMIZERS[run.optimizer.name].relative_rate:
        yield _warning("optimizer.learning_rate", say("Every learning rate is 0: nothing will be learnt."))


RULES: tuple[Rule, ...] = (
    needs_model,
    needs_folders,
    resolution_fits,
    colour_is_one,
    warmup_fits,
    arguments_are_known,
    adafactor_pairs,
    own_rate_is_one_for_all,
    rates_make_sense,
    rank_makes_sense,
    shuffle_keeps_trigger,
    resolution_is_native,
    one_cycle_is_cosine,
    prompts_fit,
    name_is_a_file_name,
    something_is_saved,
)
