"""What a finished file says about how it was made: the `ss_*` and `modelspec.*` entries of its header. No torch.

Every value is a string, as the format wants it; what was not set is "None", as the kohya programs write it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trainer.config.run import RunFile
from trainer.data.buckets import Bucket
from trainer.data.captions import tag_frequency
from trainer.data.index import Index, Item
from trainer.estimate import StepPlan
from trainer.export import BaseHash
from trainer.models.hub import shown_name
from trainer.models.protocol import Family

PRIVATE = ("ss_dataset_dirs", "ss_reg_dataset_dirs", "ss_tag_frequency", "modelspec.author")
_PRECISIONS = {"fp16": "fp16", "bf16": "bf16", "fp32": "no"}


@dataclass(frozen=True)
class DatasetFacts:
    """What is told of the pictures: folder name → {"n_repeats", "img_count"}, folder → tag → count, sizes → count."""

    folders: Mapping[str, Mapping[str, int]]
    reg_folders: Mapping[str, Mapping[str, int]]
    tags: Mapping[str, Mapping[str, int]]
    buckets: Mapping[Bucket, int]
    num_train: int = 0
    num_class: int = 0


@dataclass(frozen=True)
class BaseFacts:
    """What is told of the base model and a separate VAE; hashes are None where they could not be computed."""

    name: str
    prediction: str = "epsilon"
    zero_snr: bool = False
    sha256: str | None = None
    legacy_hash: str | None = None
    vae_name: str | None = None
    vae_sha256: str | None = None
    vae_legacy_hash: str | None = None


@dataclass(frozen=True)
class Progress:
    """Where the run is when the file is written: epochs and optimiser steps done, times in seconds since 1970."""

    epoch: int
    step: int
    started_at: float
    now: float


def dataset_facts(index: Index, buckets: Mapping[int, Bucket]) -> DatasetFacts:
    """Collect them from the items that train; `buckets` gives each item's by its id."""
    sizes: dict[Bucket, int] = {}
    for item in index.items:
        sizes[buckets[item.id]] = sizes.get(buckets[item.id], 0) + item.repeats
    return DatasetFacts(
        folders=_folders(index.train),
        reg_folders=_folders(index.reg),
        tags={
            name: tag_frequency(item.caption for item in index.items if item.folder == name)
            for name in dict.fromkeys(item.folder for item in index.items)
        },
        buckets=dict(sorted(sizes.items())),
        num_train=sum(item.repeats for item in index.train),
        num_class=sum(item.repeats for item in index.reg),
    )


def _folders(items: Sequence[Item]) -> dict[str, dict[str, int]]:
    folders: dict[str, dict[str, int]] = {}
    for item in items:
        entry = folders.setdefault(item.folder, {"n_repeats": item.repeats, "img_count": 0})
        entry["img_count"] += 1
    return folders


def base_facts(
    model: Path,
    vae: Path | None,
    prediction: str,
    zero_snr: bool,
    hashes: Mapping[Path, BaseHash],
    wait_s: float = 0.0,
) -> BaseFacts:
    """Collect them; a hash that is not computed within `wait_s` is left out of this file and in the next one."""
    found = {path: hashes[path].result(wait_s) if path in hashes else None for path in (model, vae) if path is not None}
    return BaseFacts(
        name=shown_name(model),
        prediction=prediction,
        zero_snr=zero_snr,
        sha256=found[model],
        legacy_hash=legacy_hash(model) if model.is_file() else None,
        vae_name=shown_name(vae) if vae else None,
        vae_sha256=found[vae] if vae else None,
        vae_legacy_hash=legacy_hash(vae) if vae and vae.is_file() else None,
    )


def legacy_hash(path: Path) -> str | None:
    """The short hash by which the first WebUIs knew a model: SHA-256 of 64 KiB at 1 MiB, 8 digits."""
    try:
        with path.open("rb") as handle:
            handle.seek(0x100000)
            return hashlib.sha256(handle.read(0x10000)).hexdigest()[:8]
    except OSError:
        return None


def header_metadata(
    run: RunFile,
    family: Family,
    base: BaseFacts,
    data: DatasetFacts,
    plan: StepPlan,
    progress: Progress,
    output_name: str,
) -> dict[str, str]:
    """All entries but the method's own and the hashes, which the method and `export.save_adapter` add.

    `output_name` is the stem of this very file: two files with the same one hide each other in the WebUI.
    """
    values: dict[str, Any] = {
        **_of_session(run, plan, progress, output_name),
        **_of_training(run, plan),
        **_of_data(run, data, plan),
        **_of_base(run, family, base),
    }
    texts = {f"ss_{name}": _text(value) for name, value in values.items()} | _modelspec(run, family, base, progress)
    if run.output.private:
        texts = {name: value for name, value in texts.items() if name not in PRIVATE}
    return texts


def _text(value: Any) -> str:
    """As the kohya programs write it: JSON for tables, Python's words for the rest."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (dict, list)) else str(value)


def _of_session(run: RunFile, plan: StepPlan, progress: Progress, output_name: str) -> dict[str, Any]:
    digest = hashlib.sha256(f"{run.output.name} {progress.started_at!r}".encode()).digest()
    return {
        "session_id": int.from_bytes(digest[:4], "little"),
        "training_started_at": progress.started_at,
        "training_finished_at": progress.now,
        "output_name": output_name,
        "training_comment": run.output.comment or None,
        "epoch": progress.epoch,
        "num_epochs": plan.num_epochs,
        "steps": progress.step,
        "max_train_steps": plan.total_steps,
    }


def _of_training(run: RunFile, plan: StepPlan) -> dict[str, Any]:
    optimizer, scheduler, warmup = run.optimizer, run.scheduler, run.scheduler.warmup_steps
    rates = optimizer.rates()
    text_rates = list(dict.fromkeys((rates["text_encoder"], rates["text_encoder_2"])))
    arguments = ",".join(f"{name}={value}" for name, value in optimizer.arguments.items())
    return {
        "learning_rate": optimizer.learning_rate,
        "unet_lr": rates["unet"],
        "text_encoder_lr": text_rates if len(text_rates) > 1 else text_rates[0],
        "optimizer": optimizer.name + (f"({arguments})" if arguments else ""),
        "max_grad_norm": optimizer.max_grad_norm,
        "lr_scheduler": scheduler.name,
        "lr_warmup_steps": round(scheduler.warmup_ratio * plan.total_steps) if warmup is None else warmup,
        "gradient_checkpointing": run.speed.gradient_checkpointing,
        "gradient_accumulation_steps": run.training.accumulation,
        "mixed_precision": _PRECISIONS[run.speed.precision],
        "full_fp16": False,
        "seed": run.training.seed,
        "lowram": False,
        "noise_offset": run.noise.noise_offset or None,
        "min_snr_gamma": run.noise.min_snr_gamma or None,
        "multires_noise_iterations": None,
        "adaptive_noise_scale": None,
        "loss_type": "l2",
        "prior_loss_weight": run.regularization.prior_loss_weight,
    }


def _of_data(run: RunFile, data: DatasetFacts, plan: StepPlan) -> dict[str, Any]:
    images = run.images
    buckets = {
        str(number): {"resolution": [bucket.width, bucket.height], "count": count}
        for number, (bucket, count) in enumerate(data.buckets.items())
    }
    return {
        "num_train_images": data.num_train,
        "num_reg_images": data.num_class,
        "num_batches_per_epoch": plan.first_epoch.num_batches,
        "batch_size_per_device": run.training.batch_size,
        "total_batch_size": run.training.batch_size,
        "resolution": str(tuple(images.resolution)),
        "enable_bucket": images.buckets,
        "bucket_no_upscale": images.no_upscale,
        "min_bucket_reso": images.bucket_min,
        "max_bucket_reso": images.bucket_max,
        "bucket_info": {"buckets": buckets},
        "flip_aug": images.flip,
        "color_aug": False,
        "random_crop": False,
        "shuffle_caption": images.shuffle_captions,
        "keep_tokens": images.keep_tokens,
        "caption_dropout_rate": images.caption_dropout,
        "cache_latents": True,
        "dataset_dirs": dict(data.folders),
        "reg_dataset_dirs": dict(data.reg_folders),
        "tag_frequency": dict(data.tags),
    }


def _of_base(run: RunFile, family: Family, base: BaseFacts) -> dict[str, Any]:
    values = {
        "sd_model_name": base.name,
        "sd_model_hash": base.legacy_hash,
        "new_sd_model_hash": base.sha256,
        "vae_name": base.vae_name,
        "vae_hash": base.vae_legacy_hash,
        "new_vae_hash": base.vae_sha256,
    }
    known = {name: value for name, value in values.items() if value is not None}
    version = family.base_version_of(base.prediction)
    return known | {
        "base_model_version": version,
        "v2": version.startswith("sd_v2"),
        "v_parameterization": base.prediction == "v_prediction",
        "zero_terminal_snr": base.zero_snr,
        "clip_skip": run.model.clip_skip,
        "max_token_length": None if run.model.token_length == 75 else run.model.token_length,
    }


def _modelspec(run: RunFile, family: Family, base: BaseFacts, progress: Progress) -> dict[str, str]:
    date = datetime.fromtimestamp(progress.now, UTC).replace(microsecond=0, tzinfo=None).isoformat()
    width, height = run.images.resolution
    texts = {
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{family.architecture_of(base.prediction)}/lora",
        "modelspec.implementation": family.implementation,
        "modelspec.title": run.output.title or run.output.name,
        "modelspec.author": run.output.author,
        "modelspec.description": run.output.comment,
        "modelspec.date": date,
        "modelspec.resolution": f"{width}x{height}",
        "modelspec.prediction_type": "v" if base.prediction == "v_prediction" else "epsilon",
        "modelspec.encoder_layer": str(run.model.clip_skip),
    }
    return {name: text for name, text in texts.items() if text}
