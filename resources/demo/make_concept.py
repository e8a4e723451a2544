"""Draws the demo's dataset and writes its run file, the same each time: `python resources/demo/make_concept.py`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trainer.config.files import write_run
from trainer.demo import emblem, recipe


def main() -> None:
    for part in ("img", "reg"):
        shutil.rmtree(recipe.CONCEPT_FOLDER / part, ignore_errors=True)
    emblem.write_concept(recipe.CONCEPT_FOLDER, emblem.CONCEPT_SEED)
    write_run(recipe.RUN_FILE, recipe.demo_run())
    sys.stdout.write(f"Written: {recipe.CONCEPT_FOLDER}, {recipe.RUN_FILE}\n")


if __name__ == "__main__":
    main()
