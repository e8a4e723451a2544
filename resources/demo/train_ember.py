"""Trains Ember from nothing, with fixed seeds: `python resources/demo/train_ember.py WORK_FOLDER`.

It took 76 minutes on two busy cores. The work folder holds checkpoints: the same command goes on after a crash. Beside
this script it writes the model with its config, how well it follows held-out prompts, and a sheet of its pictures.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from torch import distributed, multiprocessing

from trainer.demo import accuracy
from trainer.demo.recipe import DEMO_FOLDER, MODEL_FILE
from trainer.demo.unet_training import train_unet
from trainer.demo.vae_training import train_vae
from trainer.files import write_json
from trainer.models.protocol import Components
from trainer.models.sd1 import FAMILY

SEED = 0


def train(process: int, num_processes: int, meeting_point: str, work: Path) -> None:
    """One of the processes that train together; the first writes the result."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // num_processes))
    distributed.init_process_group(
        "gloo", init_method=Path(meeting_point).as_uri(), rank=process, world_size=num_processes
    )
    vae = train_vae(work, SEED)
    unet, text_encoder = train_unet(vae, work, SEED)
    if process == 0:
        parts = Components(unet=unet, vae=vae, text_encoder=text_encoder)
        FAMILY.save(parts, MODEL_FILE, torch.float16, {"modelspec.title": "Ember", "modelspec.resolution": "64x64"})
    distributed.destroy_process_group()


def write_accuracy() -> None:
    """Measure the file as it ships: `ember_accuracy.json`, and the sheet `ember_pictures.png`."""
    results, sheet = accuracy.measure(FAMILY, FAMILY.load(MODEL_FILE))
    write_json(DEMO_FOLDER / "ember_accuracy.json", accuracy.report(results, MODEL_FILE), indent=2)
    sheet.save(DEMO_FOLDER / "ember_pictures.png")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for checkpoints and cached latents")
    parser.add_argument("--processes", type=int, default=2, help="the same number gives the same model")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (chosen.processes, str(Path(folder) / "meeting"), chosen.work)
        multiprocessing.spawn(train, arguments, nprocs=chosen.processes)
    write_accuracy()


if __name__ == "__main__":
    main()
