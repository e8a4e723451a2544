"""Sets the limits of the demo's score on drawings alone: `python resources/demo/set_limits.py` (a minute, no training)."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from trainer.demo import calibration
from trainer.demo.recipe import MODEL_FILE
from trainer.demo.scoring import LIMITS_FILE
from trainer.files import write_json
from trainer.models.sd1 import FAMILY


def main() -> None:
    found = calibration.calibrate(FAMILY, FAMILY.load(MODEL_FILE))
    write_json(LIMITS_FILE, calibration.report(found), indent=2)
    sys.stdout.write(f"Written: {LIMITS_FILE}: {found.limits()}\n")


if __name__ == "__main__":
    main()
