"""A guess at what a UNet predicts, from the shares of noise in its answers that `trainer.probe` measured. No torch."""

from __future__ import annotations

from dataclasses import dataclass

from trainer.messages import Message, say

VERSION = "probe 1"  # changes with anything that may change an answer
MIDDLE = 0.5  # between an epsilon model's share of ε at NOISY (near 1) and a v model's (√ᾱ = 0.08)
UNSURE = 0.15  # closer to the middle than this, nothing is said
MUST_SEE = 0.3  # a UNet that removes noise answers at least so much of it at CLEAR


@dataclass(frozen=True)
class Guess:
    """What a UNet seems to predict: "epsilon", "v_prediction" or None, and the shares of ε in its answers."""

    prediction: str | None
    noisy: float
    clear: float

    def sentence(self) -> Message:
        """What was found, for the user."""
        if self.prediction is None:
            return say("The UNet's answers to a test fit neither epsilon nor v-prediction.")
        names = {"epsilon": say("epsilon"), "v_prediction": say("v-prediction")}
        return say("By the UNet's answers to a test it is a model of {kind}.", kind=names[self.prediction])


def judge(noisy: float, clear: float) -> Guess:
    """The guess that the shares of ε at both timesteps allow."""
    unsure = clear < MUST_SEE or abs(noisy - MIDDLE) < UNSURE or not -0.5 < noisy < 1.5
    prediction = None if unsure else "epsilon" if noisy > MIDDLE else "v_prediction"
    return Guess(prediction, noisy, clear)
