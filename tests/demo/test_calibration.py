"""The limits that ship are those that the rule gives on drawings, with no picture of a model in them."""

from __future__ import annotations

import json

import pytest

from trainer.demo import calibration, scoring
from trainer.demo.calibration import Calibration, Draw, Score
from trainer.demo.recipe import MODEL_FILE
from trainer.demo.scoring import LIMITS_FILE, Limits
from trainer.models.protocol import Components
from trainer.models.sd1 import FAMILY

SHIPPED = json.loads(LIMITS_FILE.read_text(encoding="utf-8"))
ROUNDING = 0.004  # one pixel of a part more or less, on another processor


@pytest.fixture(scope="module")
def ember() -> Components:
    return FAMILY.load(MODEL_FILE)


def test_shipped_limits_follow_from_the_shipped_scores() -> None:
    least = SHIPPED["right"]["the emblem"]["least"]
    wrong = max(score["most"] for score in SHIPPED["wrong"].values())
    own = SHIPPED["Ember"]["Ember's own pictures"]["most"]
    assert scoring.limits() == calibration.limits_of(least, wrong, own)


def test_every_kind_of_drawing_has_its_score() -> None:
    kinds = (calibration.right_drawings(), calibration.wrong_drawings(), calibration.ember_pictures())
    for shipped, drawn in zip(("right", "wrong", "Ember"), kinds, strict=True):
        assert SHIPPED[shipped].keys() == drawn.keys()
    assert SHIPPED["not told apart"].keys() == calibration.substitute_drawings().keys()


@pytest.mark.parametrize("table", ["right", "wrong"])
def test_the_drawings_that_decide_score_what_is_shipped(table: str, ember: Components) -> None:
    """The emblem itself, and the look-alike that comes nearest to it."""
    kinds = calibration.right_drawings() if table == "right" else calibration.wrong_drawings()
    name = max(SHIPPED[table], key=lambda kind: float(SHIPPED[table][kind]["most"]))
    check(name, kinds[name], table, ember)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_all_drawings_score_what_is_shipped(ember: Components) -> None:
    kinds = {"right": calibration.right_drawings(), "wrong": calibration.wrong_drawings()}
    kinds |= {"Ember": calibration.ember_pictures(), "not told apart": calibration.substitute_drawings()}
    for table, drawings in kinds.items():
        for name, draw in drawings.items():
            check(name, draw, table, ember)


def check(name: str, draw: Draw, table: str, ember: Components) -> None:
    score = calibration.score_of(name, draw, FAMILY, ember)
    shipped = SHIPPED[table][name]
    assert (score.least, score.most) == pytest.approx((shipped["least"], shipped["most"]), abs=ROUNDING), name


def test_limits_lie_half_way() -> None:
    assert calibration.limits_of(0.8, 0.5, 0.1) == Limits(shows=0.65, nothing=0.45)


def test_drawings_that_can_not_be_told_apart_give_no_limits() -> None:
    wrong = (Score("upside down", 0.1, 0.8), Score("swapped", 0.0, 0.2))
    found = Calibration(Score("the emblem", 0.75, 0.9), wrong, Score("Ember", 0.0, 0.1), ())
    assert found.nearest.name == "upside down"
    with pytest.raises(ValueError, match=r"0\.800, an emblem only 0\.750"):
        found.limits()
