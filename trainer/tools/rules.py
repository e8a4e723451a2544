"""What the rules that choose ranks need of their number. No torch."""

from __future__ import annotations

from trainer.errors import BadInput
from trainer.messages import say


def check_rule(rule: str, amount: float) -> None:
    """Raise BadInput if the amount makes no sense for the rule (see `catalog.RULES`)."""
    if rule in ("frobenius", "cumulative") and not 0 < amount <= 1:
        raise BadInput(
            say("The rule {rule} needs a share above 0 and up to 1, not {amount}.", rule=rule, amount=amount),
            say("0.9 is usual (--amount 0.9)."),
        )
    if rule == "ratio" and amount <= 1:
        raise BadInput(
            say("The rule ratio needs a number above 1, not {amount}.", amount=amount),
            say("2 keeps what is above half of the greatest singular value; 10 and more are usual."),
        )
    if rule == "threshold" and amount <= 0:
        raise BadInput(say("The rule threshold needs a number above 0, not {amount}.", amount=amount))
