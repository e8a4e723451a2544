"""The learning score: whether a LoRA has learnt the emblem, and whether everything else is still as it was."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from trainer.demo import accuracy, emblem, generation, pictures, scoring
from trainer.demo.pictures import Scene
from trainer.messages import Message, say
from trainer.models.protocol import Components, Family

NUM_PROMPTS = 40
MOST_BEFORE, LEAST_AFTER, LEAST_OTHERS = 0.10, 0.80, 0.95
CLASS_ONLY_EVERY = 4  # of the prompts without the trigger, one in four names only the class


@dataclass(frozen=True)
class LearningScore:
    """Shares between 0 and 1: the emblem on its trigger before and after, and other prompts that are still right."""

    before: float
    after: float
    others: float

    @property
    def passed(self) -> bool:
        return self.before <= MOST_BEFORE and self.after >= LEAST_AFTER and self.others >= LEAST_OTHERS

    def sentences(self) -> list[Message]:
        """The score in words."""
        return [
            say(
                "The trigger gives the emblem in unseen surroundings: before {before:.0%} (at most {limit:.0%} wanted).",
                before=self.before,
                limit=MOST_BEFORE,
            ),
            say("After training: {after:.0%} (at least {limit:.0%} wanted).", after=self.after, limit=LEAST_AFTER),
            say(
                "Prompts without the trigger still right: {others:.0%} (at least {limit:.0%} wanted).",
                others=self.others,
                limit=LEAST_OTHERS,
            ),
        ]


def trigger_prompts() -> list[str]:
    """40 prompts with the trigger, in the 20 surroundings that no training picture shows."""
    _, unseen = emblem.split_surroundings(emblem.CONCEPT_SEED)
    return [emblem.emblem_caption(unseen[number % len(unseen)]) for number in range(NUM_PROMPTS)]


@dataclass(frozen=True)
class OtherPrompt:
    """A prompt without the trigger; without a `scene` any shape but the emblem is right."""

    text: str
    scene: Scene | None


def other_prompts() -> list[OtherPrompt]:
    """40 prompts without the trigger: held-out scenes, and the trigger's own prompts with the class word alone."""
    rng = random.Random("others")
    scenes = rng.sample(pictures.split_scenes(accuracy.SPLIT_SEED)[1], NUM_PROMPTS)
    _, unseen = emblem.split_surroundings(emblem.CONCEPT_SEED)
    prompts = []
    for number, scene in enumerate(scenes):
        if number % CLASS_ONLY_EVERY == 0:
            prompts.append(OtherPrompt(emblem.emblem_caption(unseen[number % len(unseen)], trigger=""), None))
        else:
            prompts.append(OtherPrompt(pictures.full_caption(scene), scene))
    return prompts


def share_with_emblem(family: Family, components: Components) -> float:
    """How often the trigger gives the emblem."""
    drawn = generation.draw_prompts(family, components, trigger_prompts(), range(NUM_PROMPTS), quick=True)
    return share(scoring.shows_emblem(picture) for picture in drawn)


def share_of_others_right(family: Family, components: Components) -> float:
    """How often a prompt without the trigger gives what it says."""
    prompts = other_prompts()
    seeds = range(5000, 5000 + NUM_PROMPTS)
    drawn = generation.draw_prompts(family, components, [prompt.text for prompt in prompts], seeds, quick=True)
    return share(is_right(prompt, picture) for prompt, picture in zip(prompts, drawn, strict=True))


def is_right(prompt: OtherPrompt, picture: Image.Image) -> bool:
    """Whether a picture shows what a prompt without the trigger asks for, and not the emblem."""
    if prompt.scene is None:
        return scoring.shows_other_shape(picture)
    return scoring.shape_and_colour_right(scoring.read_picture(picture), prompt.scene)


def share(answers: Iterable[bool]) -> float:
    """The share of true answers."""
    every = list(answers)
    return sum(every) / len(every)


class Scorer:
    """Scores LoRAs on one base model. Made while another process trains: what the base draws needs no LoRA."""

    def __init__(self, model: Path) -> None:
        from trainer.models.sd1 import FAMILY

        self._family = FAMILY
        self._components = FAMILY.load(model)
        self._before = share_with_emblem(FAMILY, self._components)

    def score(self, lora: Path) -> LearningScore:
        """The score of one LoRA file; the base model is as before afterwards."""
        from trainer.methods.lora import Settings, build

        trained = build(Settings(network_weights=str(lora)), self._components, self._family)
        trained.train(False)
        try:
            after = share_with_emblem(self._family, self._components)
            return LearningScore(self._before, after, share_of_others_right(self._family, self._components))
        finally:
            trained.network.remove()
