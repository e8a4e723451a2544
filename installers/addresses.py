"""Reads addresses.txt, the one table of the public addresses that the set-up downloads from or points to."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

TABLE = Path(__file__).with_name("addresses.txt")


def addresses(table: Path = TABLE) -> dict[str, str]:
    """Return the table as name -> address."""
    lines = table.read_text(encoding="ascii").splitlines()
    pairs = (line.split("=", 1) for line in lines if line.strip() and not line.startswith("#"))
    return {name.strip(): value.strip() for name, value in pairs}


def torch_index(build: str, environ: Mapping[str, str] = os.environ) -> str:
    """Return the package index that holds the torch build `build`; a mirror in ATHANOR_TORCH_INDEX goes first."""
    base = environ.get("ATHANOR_TORCH_INDEX") or addresses()["torch_index"]
    return f"{base.rstrip('/')}/{build}"
