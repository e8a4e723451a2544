"""Patterns of layers' names: what Python's engine says of them, in a time that no pattern can make long."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.models.patterns import NotRead, Patterns
from trainer.paths import ROOT

PIECES = [
    "a",
    "b",
    r"\.",
    ".",
    "[ab]",
    "[^a]",
    r"\w",
    "^",
    "$",
    "*",
    "+",
    "?",
    "*?",
    "{2}",
    "{1,}",
    "{,2}",
    "(",
    "(?:",
    ")",
    "|",
]
LAYER = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"


def first(patterns: list[str], name: str) -> str | None:
    """As PEFT does it (peft.utils.other.get_pattern_key)."""
    return next((key for key in patterns if re.match(rf"(.*\.)?({key})$", name)), None)


@settings(max_examples=600)
@given(st.lists(st.sampled_from(PIECES), max_size=9).map("".join), st.lists(st.text("ab.", max_size=7), max_size=8))
def test_it_is_what_python_says(pattern: str, names: list[str]) -> None:
    """Of every pattern of these pieces that Python reads."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            re.compile(f"({pattern})")
            balanced = re.compile(pattern) is not None
    except re.error:
        balanced = False
    if balanced and not re.fullmatch(r"\w+(?:\.\w+)*", pattern):  # a plain name means itself
        found = Patterns([pattern])
        assert [found.first(name) for name in names] == [first([pattern], name) for name in names]


@pytest.mark.parametrize(
    "patterns",
    [
        ["to_q", "attn1.to_k"],
        [r".*\.attn[12]\.to_(q|k)", "to_k"],
        [r"^down_blocks\.[0-2]\..*", "down_blocks.3"],
        [r"(?:down|up)_blocks\.\d+\.attentions\.\d{1,2}.*?to_q", "attentions.*"],
        ["(to_q)?|x", "o_q", "[a-z_0-9.]+"],
        [r"attn1\.to\_q", r"[^.]+\.to_k", "attn1-to_q", "attn[^2].to_k|nothing"],
    ],
)
def test_layers_as_peft_finds_them(patterns: list[str]) -> None:
    names = [LAYER.replace("attn1", f"attn{n}").replace("down", where).replace("to_q", end)
             for n in (1, 2) for where in ("down", "up") for end in ("to_q", "to_k", "to_out.0")]  # fmt: skip
    found = Patterns(patterns)
    assert [found.first(name) for name in names] == [first(patterns, name) for name in names]


@pytest.mark.parametrize(
    "pattern",
    [
        "[a",
        "(",
        ")",
        "*a",
        "a\\",
        "a)|(b",
        "(?P<n>a)(?P<n>",
        "(a{500}){500}",
        "((){900}){900}",
        "((a{500}){500}){0}",
        "(?:a?b?c?){999999}",
        "(" * 20 + "a" + "){2}" * 20,
        r"\p{L}",
        "(?:abc){e<=30}",
        "(" * 260 + ")" * 240,
        "a" * 501,
    ],
)
def test_what_is_not_read_is_refused(pattern: str) -> None:
    with pytest.raises(NotRead) as caught:
        Patterns(["to_q", pattern])
    assert str(caught.value) == pattern


HOSTILE = [
    r"(.+)(.+)(.+)(.+)(.+)(.+)(.+)\3\4\5[XY]",
    "(a+)+b",
    "(.*)*x",
    "(.|..|...)*x",
    "(.*)(.*)(.*)(.*)(.*)(.*)x",
    "(a|a)*" * 50 + "x",
    ".*" * 200 + "x",
    "(" * 20 + ".*" + ")*" * 20,
    "(" * 245 + "a" + ")" * 245,
    "(?:" * 100 + "a" + ")*" * 100,
    r"(?:(.)(.)|(.)){,90}(?:(.)|(..)|(.)(.))*\d[XY]",
    r"(?:(?:(?:.|.)+|.)+|.)+[XY]",
    "(?:a?){999}",
]


_CHILD = """
import resource
from tests.models.test_patterns import HOSTILE, LAYER
from trainer.models.patterns import NotRead, Patterns
from trainer.paths import ROOT
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for one in HOSTILE:
    try:
        Patterns([one]).first(LAYER + "a" * 40)
    except NotRead:
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="memory is counted in KiB on Linux only")
def test_no_pattern_takes_much_memory() -> None:
    line = [sys.executable, "-c", _CHILD]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True)
    assert int(done.stdout) < 50_000


@pytest.mark.parametrize(
    "patterns",
    [
        *([one] for one in HOSTILE),
        [one * n for one in HOSTILE[:4] for n in range(1, 40)],
        [f"((a|b){{9}}c){{9}}{n}" for n in range(100_000)],
        list(map(str, range(100_000))),
    ],
)
def test_no_pattern_takes_long(patterns: list[str]) -> None:
    """Of a file with a thousand layers, with or without an answer: some of these would keep Python for years."""
    start = time.process_time()
    try:
        found = Patterns(patterns)
        for number in range(1000):
            found.first(f"{LAYER}{'a' * 40}{number}")
    except NotRead:
        pass
    assert time.process_time() - start < 5


def test_a_pattern_for_each_layer_of_the_largest_model_is_read() -> None:
    names = [f"down_blocks.{a}.attentions.{b}.transformer_blocks.{c}.attn1.to_{d}"
             for a in range(4) for b in range(3) for c in range(22) for d in "qkvo"]  # fmt: skip
    found = Patterns(names)
    assert len(names) > 1000 and [found.first(name) for name in names] == names
    broad = Patterns([rf"down_blocks\.{number}\..*\.attn[12]\.to_(k|v)" for number in range(30)])
    assert sum(broad.first(name) is not None for name in names) == len(names) / 2


def test_what_takes_too_long_is_named() -> None:
    with pytest.raises(NotRead) as caught:
        Patterns(["to_q", HOSTILE[0]]).first(LAYER.replace("to_q", "to_k"))
    assert str(caught.value) == HOSTILE[0]
