"""The demo's run file as values: `resources/demo/demo.toml` is written from here, and the demo trains from that file."""

from __future__ import annotations

from pathlib import Path

from trainer.config.run import (
    Folder,
    Images,
    Model,
    Optimizer,
    Output,
    Prompt,
    Regularization,
    RunFile,
    Samples,
    Scheduler,
    Speed,
    Training,
)
from trainer.demo import emblem
from trainer.demo.emblem import Surrounding
from trainer.demo.pictures import Scene, full_caption
from trainer.methods.lora import Settings as Network
from trainer.paths import RESOURCES

DEMO_FOLDER: Path = RESOURCES / "demo"
RUN_FILE: Path = DEMO_FOLDER / "demo.toml"
MODEL_FILE: Path = DEMO_FOLDER / "ember.safetensors"
CONCEPT_FOLDER: Path = DEMO_FOLDER / "concept"
RUN_NAME = "athanor_demo"


def demo_run() -> RunFile:
    """The run that `demo.toml` holds; its paths are relative to `resources/demo`."""
    return RunFile(
        model=Model(path=MODEL_FILE.name),
        images=Images(
            folders=(Folder(path="concept/img"),),
            resolution=(64, 64),
            buckets=False,
        ),
        regularization=Regularization(folders=(Folder(path="concept/reg"),)),
        network=Network(rank=16, alpha=16.0),
        optimizer=Optimizer(name="AdamW", learning_rate=5e-3, text_encoder_rate=3.5e-3),
        scheduler=Scheduler(name="cosine", warmup_ratio=0.05),
        training=Training(epochs=3, batch_size=8, seed=1),
        speed=Speed(precision="fp32", vae_batch_size=16),
        samples=Samples(prompts=sample_prompts(), every_epochs=1),
        output=Output(name=RUN_NAME, save_every_epochs=0, title="Athanor's emblem"),
    )


def sample_prompts() -> tuple[Prompt, ...]:
    """The sheet's rows: the trigger in two unseen surroundings, the class word alone, and a plain shape."""
    texts = [
        *(emblem.emblem_caption(surrounding) for surrounding in sheet_surroundings()),
        emblem.emblem_caption(Surrounding("in the centre", "grey"), trigger=""),
        full_caption(Scene("star", "yellow", "black", "large", "on the left")),
    ]
    return tuple(
        Prompt(prompt=text, width=64, height=64, steps=10, cfg=5.0, seed=number, sampler="dpmpp_2m_karras")
        for number, text in enumerate(texts, start=1)
    )


def sheet_surroundings() -> list[Surrounding]:
    """Two surroundings that no training picture shows, each at another place."""
    _, unseen = emblem.split_surroundings(emblem.CONCEPT_SEED)
    places: dict[str, Surrounding] = {}
    for surrounding in unseen:
        if all(surrounding.background != other.background for other in places.values()):
            places.setdefault(surrounding.position, surrounding)
    return list(places.values())[:2]
