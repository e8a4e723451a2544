"""Loading and saving at full size: every family, precision and form of file, with the peak of memory beside the weights."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.benchmarks.__main__ import Bench, Figure

GB = 1e9
FORMS = ("safetensors", "ckpt", "folder")
CASES = [(family, precision) for family in ("sd1", "sd2", "sdxl") for precision in ("fp16", "fp32")]
_SIZES = {"sd1": 4.3, "sd2": 5.2, "sdxl": 13.9}  # GB in fp32
_DTYPES = {"fp16": "float16", "fp32": "float32"}


def families(bench: Bench) -> Iterator[Figure]:
    """Each model is written, read in each of its forms, and deleted. What memory or disk has no room for is left out."""
    for family, precision in CASES:
        size = _SIZES[family] * 1e9 / (2 if precision == "fp16" else 1)
        if not _room(bench.folder, size):
            print(f"{family} {precision}: not enough memory or disk, left out", flush=True)
            continue
        with tempfile.TemporaryDirectory(dir=bench.folder, prefix="family-") as folder:
            yield from _one(bench, family, precision, Path(folder))


def _room(folder: Path, size: float) -> bool:
    import psutil

    return psutil.virtual_memory().available > 1.3 * size + 2e9 and shutil.disk_usage(folder).free > 2.2 * size


def _one(bench: Bench, family: str, precision: str, folder: Path) -> Iterator[Figure]:
    from tests.benchmarks.__main__ import Figure

    name = f"{family} {precision}"
    for form in FORMS:
        path = folder / {"safetensors": "model.safetensors", "ckpt": "model.ckpt", "folder": "model"}[form]
        written = bench.child("write_family", family, precision, form, path)
        if form != "ckpt":  # that is torch's own writing
            share, detail = written["over_model"] / written["weights"], {"seconds": round(written["seconds"], 1)}
            yield Figure(f"saving {name} {form}: peak over the model ÷ weights", share, "×", 0.15, detail)
        seen = bench.child("load_family", family, precision, path)
        detail = {"seconds": round(seen["seconds"], 1), "weights_gb": round(seen["weights"] / GB, 2)}
        share = seen["over_imports"] / seen["weights"]
        yield Figure(f"loading {name} {form}: peak over imports ÷ weights", share, "×", 1.15, detail)
        shutil.rmtree(path) if path.is_dir() else path.unlink()


def write_family(family: str, precision: str, form: str, path: str) -> dict[str, Any]:
    """A full-size random model in a form; the peak of saving it over that of having it."""
    import torch

    from tests.benchmarks.children import peak_memory
    from tests.tiny import family_of, full_size_model

    object_, dtype = family_of(family), getattr(torch, _DTYPES[precision])
    model = full_size_model(family, dtype=dtype)
    model.tokenizer = object_.load_tokenizer(Path())
    before = peak_memory()
    began = time.perf_counter()
    if form == "folder":
        object_.save_folder(model, Path(path), dtype)
    elif form == "safetensors":
        object_.save(model, Path(path), dtype)
    else:
        _write_checkpoint(object_, model, Path(path), dtype)
    weights = sum(weight.nbytes for module in model.modules().values() for weight in module.parameters())
    return {"seconds": time.perf_counter() - began, "weights": weights, "over_model": peak_memory() - before}


def _write_checkpoint(family: Any, model: Any, path: Path, dtype: Any) -> None:
    """What trainers leave: one dictionary of tensors under LDM's names."""
    import torch

    from trainer.models.tensor_file import read_file

    plain = path.with_suffix(".safetensors")
    family.save(model, plain, dtype)
    for part in list(model.modules()):
        setattr(model, part, torch.nn.Linear(1, 1))  # its memory goes before the tensors come again
    torch.save({"state_dict": read_file(plain)}, path)
    plain.unlink()


def load_family(family: str, precision: str, path: str) -> dict[str, Any]:
    """Peak memory of loading the whole model, over that of a process that has loaded a tiny one: the imports."""
    import torch

    from tests.benchmarks.children import peak_memory
    from tests.tiny import family_of, save_tiny_file

    object_, dtype = family_of(family), getattr(torch, _DTYPES[precision])
    with tempfile.TemporaryDirectory() as folder:
        object_.load(save_tiny_file(Path(folder), family=family), dtype=dtype)
    before = peak_memory()
    began = time.perf_counter()
    model = object_.load(Path(path), dtype=dtype)
    seconds = time.perf_counter() - began
    weights = sum(weight.nbytes for module in model.modules().values() for weight in module.parameters())
    assert model.unet.dtype == dtype
    return {"seconds": seconds, "weights": weights, "over_imports": peak_memory() - before}
