"""Trains Ember from nothing, with fixed seeds: `python resources/demo/train_ember.py WORK_FOLDER`.

About 45 minutes on two cores. The work folder holds checkpoints: the same command goes on after a crash. The model is
written beside this script.
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

from trainer.demo.unet_training import train_unet
from trainer.demo.vae_training import train_vae

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
        parts = {"vae": vae, "unet": unet, "text_encoder": text_encoder}
        torch.save({name: module.state_dict() for name, module in parts.items()}, work / "ember.pt")
    distributed.destroy_process_group()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, help="folder for checkpoints and cached latents")
    parser.add_argument("--processes", type=int, default=2, help="the same number gives the same model")
    chosen = parser.parse_args()
    chosen.work.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        arguments = (chosen.processes, str(Path(folder) / "meeting"), chosen.work)
        multiprocessing.spawn(train, arguments, nprocs=chosen.processes)


if __name__ == "__main__":
    main()
