"""diffusers folders as they are found: variants, shards, pickles, parts alone, and every way in which they are not whole."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tests.tiny import save_tiny_folder
from trainer.models.folder_files import weight_files
from trainer.models.header import inspect_file, vae_problem
from trainer.models.sd1 import FAMILY

UNET = "unet/diffusion_pytorch_model"
TEXT = "text_encoder/model"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_folder(tmp_path_factory.mktemp("folder") / "whole")


@pytest.fixture
def folder(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "model"))


def same_unet(folder: Path, whole: Path) -> None:
    ours, theirs = (FAMILY.load(path, parts=("unet",)).unet.state_dict() for path in (folder, whole))
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def sharded(path: Path, goal: str, ending: str, index: str | None) -> None:
    """Split a weight file into two pieces, with an index if it has a name."""
    tensors = load_file(path)
    names = sorted(tensors)
    halves = (names[: len(names) // 2], names[len(names) // 2 :])
    table: dict[str, str] = {}
    for number, half in enumerate(halves, 1):
        file = path.parent / f"{goal}-{number:05}-of-00002{ending}"
        save({name: tensors[name] for name in half}, file)
        table |= dict.fromkeys(half, file.name)
    if index is not None:
        (path.parent / index).write_text(json.dumps({"metadata": {}, "weight_map": table}), encoding="utf-8")
    path.unlink()


def save(tensors: dict[str, torch.Tensor], path: Path) -> None:
    if path.suffix == ".bin":
        torch.save(tensors, path)
    else:
        from safetensors.torch import save_file

        save_file(tensors, path)


def test_a_variant_in_half_precision(folder: Path) -> None:
    for stem in (UNET, TEXT):
        path = folder / f"{stem}.safetensors"
        save({name: tensor.half() for name, tensor in load_file(path).items()}, folder / f"{stem}.fp16.safetensors")
        path.unlink()
    facts = inspect_file(folder)
    assert facts.problem is None and "fp16" in dict(facts.dtypes)
    assert FAMILY.load(folder, parts=("unet", "text_encoder")).unet is not None


def test_the_full_version_is_preferred_and_non_ema_never_read(folder: Path) -> None:
    unet = folder / f"{UNET}.safetensors"
    shutil.copy(unet, folder / f"{UNET}.fp16.safetensors")
    shutil.copy(unet, folder / f"{UNET}.non_ema.safetensors")
    shutil.copy(unet, folder / f"{UNET}.bin")
    assert weight_files(folder / "unet") == [unet]
    unet.unlink()
    assert [path.name for path in weight_files(folder / "unet")] == ["diffusion_pytorch_model.fp16.safetensors"]
    (folder / f"{UNET}.fp16.safetensors").unlink()
    assert [path.name for path in weight_files(folder / "unet")] == ["diffusion_pytorch_model.bin"]


@pytest.mark.parametrize(
    ("goal", "ending", "index"),
    [
        ("diffusion_pytorch_model", ".safetensors", "diffusion_pytorch_model.safetensors.index.json"),
        ("diffusion_pytorch_model", ".safetensors", None),
        ("diffusion_pytorch_model.fp16", ".safetensors", "diffusion_pytorch_model.safetensors.index.fp16.json"),
        ("diffusion_pytorch_model", ".bin", "diffusion_pytorch_model.bin.index.json"),
    ],
)
def test_shards(folder: Path, whole: Path, goal: str, ending: str, index: str | None) -> None:
    sharded(folder / f"{UNET}.safetensors", goal, ending, index)
    assert len(weight_files(folder / "unet")) == 2
    assert inspect_file(folder).problem is None
    same_unet(folder, whole)
    (folder / "unet" / f"{goal}-00002-of-00002{ending}").unlink()
    facts = inspect_file(folder)
    assert facts.kind == "broken" and f"lacks its piece {goal}-00002-of-00002{ending}" in str(facts.problem)


def test_pickles_in_a_folder(folder: Path, whole: Path) -> None:
    for stem, name in ((UNET, f"{UNET}.bin"), (TEXT, "text_encoder/pytorch_model.bin")):
        path = folder / f"{stem}.safetensors"
        save(load_file(path), folder / name)
        path.unlink()
    facts = inspect_file(folder)
    assert facts.problem is None and facts.num_bytes > 1000
    same_unet(folder, whole)


def test_a_harmful_pickle_in_a_folder(folder: Path) -> None:
    from tests.models import hostile

    (folder / f"{UNET}.safetensors").unlink()
    (folder / f"{UNET}.bin").write_bytes(hostile.zipped(hostile.imports()["os.system"][1]))
    assert "os.system" in str(inspect_file(folder).problem)


@pytest.mark.parametrize(
    "table",
    [{"a": "../../secret.safetensors"}, {"a": "/etc/passwd"}, {"a": ".hidden"}, {"a": 5}, {}, {"a": "x\0y"}, []],
)
def test_an_index_that_leads_elsewhere(folder: Path, table: Any) -> None:
    (folder / f"{UNET}.safetensors").unlink()
    index = folder / "unet/diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": table}), encoding="utf-8")
    facts = inspect_file(folder)
    assert facts.kind == "broken" and "weight_map" in str(facts.problem)


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")


def test_families_and_predictions_by_configs(folder: Path) -> None:
    facts = inspect_file(folder)
    assert (facts.family, facts.prediction, facts.prediction_source, facts.zero_snr) == (
        "sd1",
        "epsilon",
        "config",
        False,
    )
    edit(folder / "scheduler/scheduler_config.json", prediction_type="v_prediction", rescale_betas_zero_snr=True)
    edit(folder / "unet/config.json", use_linear_projection=True)
    facts = inspect_file(folder)
    assert (facts.family, facts.prediction, facts.zero_snr) == ("sd2", "v_prediction", True)
    edit(folder / "unet/config.json", in_channels=9)
    assert inspect_file(folder).in_channels == 9 and "inpainting" in str(inspect_file(folder).summary)
    edit(folder / "unet/config.json", in_channels=5)
    assert "depth map" in str(inspect_file(folder).problem)
    edit(folder / "unet/config.json", in_channels=4, addition_embed_type="text_time", cross_attention_dim=32,
         projection_class_embeddings_input_dim=32 + 6 * 256)  # fmt: skip
    facts = inspect_file(folder)
    assert facts.family == "sdxl" and facts.missing == {"text_encoder_2"}
    edit(folder / "unet/config.json", projection_class_embeddings_input_dim=32 + 5 * 256)
    assert inspect_file(folder).family == "sdxl_refiner" and "refiner" in str(inspect_file(folder).problem)


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        ({"_class_name": "EDMDPMSolverMultistepScheduler", "prediction_type": "epsilon"}, "EDMDPMSolverMultistep"),
        ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "FlowMatchEulerDiscrete"),
        ({"prediction_type": "sample"}, "sample"),
        ({"prediction_type": "flow_prediction"}, "flow_prediction"),
    ],
)
def test_schedules_that_nothing_is_trained_with_here(folder: Path, values: dict[str, str], kind: str) -> None:
    edit(folder / "scheduler/scheduler_config.json", **values)
    facts = inspect_file(folder)
    assert kind in str(facts.problem) and facts.use is None and facts.prediction is None


def test_parts_that_are_missing(folder: Path) -> None:
    shutil.rmtree(folder / "text_encoder")
    facts = inspect_file(folder)
    assert facts.missing == {"text_encoder"} and "no text encoder" in str(facts.problem)
    shutil.rmtree(folder / "vae")
    assert inspect_file(folder).missing == {"text_encoder", "vae"}


def test_parts_alone(folder: Path) -> None:
    vae = inspect_file(folder / "vae")
    assert vae.kind == "vae" and vae.latent_channels == 4 and vae_problem(vae, "sd1") is None and vae.num_bytes > 1000
    for part in ("unet", "text_encoder"):
        facts = inspect_file(folder / part)
        assert facts.kind == "part" and "Choose the folder above it" in str(facts.problem)
    assert "Choose the folder above it" in str(inspect_file(folder / "tokenizer").problem)
    assert inspect_file(folder / f"{UNET}.safetensors").kind == "part"
    assert "Choose the folder" in str(inspect_file(folder / "model_index.json").problem)


def test_a_folder_of_the_hubs_cache(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    assert "under snapshots" in str(inspect_file(tmp_path).problem)


def test_a_folder_with_one_model_file(tmp_path: Path) -> None:
    """A LoRA as the hub and PEFT keep it."""
    (tmp_path / "adapter_config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "adapter_model.safetensors").write_bytes(b"x")
    assert "Choose the file adapter_model.safetensors inside it" in str(inspect_file(tmp_path).problem)
    (tmp_path / "other.ckpt").write_bytes(b"x")
    assert "model_index.json" in str(inspect_file(tmp_path).problem)


def test_configs_that_are_no_files(folder: Path) -> None:
    (folder / "unet/config.json").unlink()
    (folder / "unet/config.json").mkdir()
    assert "UNet" in str(inspect_file(folder).problem)
    (folder / "model_index.json").write_bytes(b" " * (5 << 20))
    assert "longer than such a file can be" in str(inspect_file(folder).problem)


@pytest.mark.parametrize("listed", [5, [], [5], "x", {"a": 1}, None])
def test_a_part_of_no_known_class(tmp_path: Path, listed: Any) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"architectures": listed}), encoding="utf-8")
    assert inspect_file(tmp_path).kind in ("part", "unknown")
