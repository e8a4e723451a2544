"""What a run's model predicts, and whether its last step is pure noise: by the user's word, the file's, or a test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trainer.config.run import Model
from trainer.data.memo import FileFacts, Memo
from trainer.errors import BadInput
from trainer.guess import VERSION, Guess, judge
from trainer.messages import Message, say
from trainer.models.header import ModelFacts
from trainer.source_files import weight_files


@dataclass(frozen=True)
class Parametrisation:
    """What is trained and drawn with. `doubt` says what was only guessed, and `todo` what to do about it."""

    prediction: str
    zero_snr: bool = False
    doubt: Message | None = None
    todo: Message | None = None


def parametrisation(
    settings: Model,
    facts: ModelFacts,
    kept: Mapping[str, Any],
    guess: Callable[[], Guess],
    known: Callable[[], Guess | None] = lambda: None,
) -> Parametrisation:
    """Settle it.

    Args:
        settings: [model] of the run file: what the user says goes before all else.
        facts: of the base model's file.
        kept: what a resumed run went by ("prediction").
        guess: asked only where nobody says what the model predicts.
        known: a guess made before, where the file does not say it and its family mostly predicts the one.

    Raises BadInput for zero terminal SNR with an epsilon model.
    """
    prediction: str | None = settings.prediction
    doubt = None
    if prediction == "auto":
        is_silent = facts.prediction_source in (None, "family")
        prediction = kept.get("prediction") if is_silent else facts.prediction
    if prediction is None:
        found = known() if facts.prediction_source == "family" else guess()
        prediction = (found and found.prediction) or facts.prediction or "epsilon"
        doubt = found.sentence() if found and prediction != facts.prediction else None
    zero_snr = settings.zero_terminal_snr == "on" or (settings.zero_terminal_snr == "auto" and bool(facts.zero_snr))
    if zero_snr and prediction == "epsilon":
        if settings.zero_terminal_snr == "on":
            raise BadInput(
                say("Zero terminal SNR is switched on, and this model predicts epsilon: pure noise tells it nothing."),
                say("Switch it off, or choose v-prediction if the model is one."),
            )
        zero_snr = False
    todo = say("If that is wrong, choose the prediction on the base model's page: the wrong one ruins the result.")
    return Parametrisation(prediction, zero_snr, doubt, todo if doubt else None)


def known_guess(memo: Memo, source: Path) -> Guess | None:
    """The guess made before about the UNet of these unchanged files, if there is one. Raises OSError if they are gone."""
    known = memo.recall_weights(_files(source), VERSION)
    return None if known is None else judge(*map(float, known.split()))


def remembered(memo: Memo, source: Path, ask: Callable[[], Guess]) -> Guess:
    """The guess about a model's UNet, made once for each content of its files. Raises OSError if they are gone."""
    known = known_guess(memo, source)
    if known is not None:
        return known
    found = ask()
    memo.remember_weights(_files(source), VERSION, f"{found.noisy!r} {found.clear!r}")
    return found


def _files(source: Path) -> list[FileFacts]:
    return [FileFacts.of(file) for file in weight_files(source)]
