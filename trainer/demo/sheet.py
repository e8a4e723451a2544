"""The demo's sheet: one row for each prompt, one column for each time of the run that pictures were made."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

CELL_PX = 128
GAP_PX = 8
LABEL_PX = 250
HEADER_PX = 40
INK, PAPER = (40, 40, 46), (250, 250, 248)


@dataclass(frozen=True)
class Row:
    """A prompt and its pictures by training step; step 0 is the base model."""

    prompt: str
    pictures: dict[int, Image.Image]


def draw_sheet(rows: Sequence[Row]) -> Image.Image:
    """Base against LoRA, prompt by prompt, steps across. A picture that is missing leaves its place empty."""
    steps = sorted({step for row in rows for step in row.pictures})
    size = (
        LABEL_PX + len(steps) * (CELL_PX + GAP_PX) + GAP_PX,
        HEADER_PX + len(rows) * (CELL_PX + GAP_PX) + GAP_PX,
    )
    sheet = Image.new("RGB", size, PAPER)
    brush, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=15)
    for column, step in enumerate(steps):
        text = "base model" if step == 0 else f"step {step}"
        brush.text((LABEL_PX + column * (CELL_PX + GAP_PX) + CELL_PX // 2, 22), text, INK, font, anchor="mm")
    for line, row in enumerate(rows):
        top = HEADER_PX + line * (CELL_PX + GAP_PX)
        label = "\n".join(textwrap.wrap(row.prompt, 30))
        brush.multiline_text((GAP_PX * 2, top + CELL_PX // 2), label, INK, font, anchor="lm", spacing=5)
        for column, step in enumerate(steps):
            if step in row.pictures:
                cell = row.pictures[step].convert("RGB").resize((CELL_PX, CELL_PX), Image.Resampling.LANCZOS)
                sheet.paste(cell, (LABEL_PX + column * (CELL_PX + GAP_PX), top))
    return sheet
