"""A run file held against the disk: which model, which pictures, how many steps, and what each mistake is told."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.data.draw import dataset, save
from tests.tiny import save_tiny_file
from trainer.check import check_run
from trainer.config.run import Folder, Images, Model, Output, Regularization, RunFile, Scheduler, Training
from trainer.errors import BadInput
from trainer.methods.lora import Settings as Lora
from trainer.paths import ROOT


@pytest.fixture
def run(awkward: Path) -> RunFile:
    model = save_tiny_file(awkward)
    pictures = dataset(awkward / "img", {"10_rufus cat": 3}, captions=True)
    return RunFile(
        model=Model(path=str(model)),
        images=Images(folders=(Folder(path=str(pictures)),), resolution=(64, 64), bucket_min=64),
        training=Training(epochs=4, batch_size=4),
    )


def test_a_good_run_has_no_problems_and_a_plan(run: RunFile) -> None:
    checked = check_run(run)
    assert checked.problems == ()
    assert checked.plan is not None
    assert (checked.plan.num_train, checked.plan.steps_per_epoch, checked.plan.total_steps) == (30, 8, 32)


@pytest.mark.parametrize(
    ("changes", "place", "words"),
    [
        ({"model": Model(path="none.safetensors")}, "model.path", "no file"),
        ({"images": Images(folders=(Folder(path="none"),))}, "images.folders[1].path", ""),
        ({"output": Output(export_to="none")}, "output.export_to", "no folder"),
        ({"network": Lora(network_weights="none")}, "network.network_weights", "no file"),
        ({"scheduler": Scheduler(warmup_steps=32)}, "scheduler.warmup_steps", "longer than the run (32 steps)"),
    ],
)
def test_each_mistake_is_told_at_its_place(run: RunFile, changes: dict, place: str, words: str) -> None:
    problems = {problem.place: str(problem) for problem in check_run(run.model_copy(update=changes)).errors}
    assert set(problems) == {place}
    assert words in problems[place]


def test_a_lora_is_no_base_model_and_a_base_model_no_lora(run: RunFile, awkward: Path) -> None:
    changed = run.model_copy(update={"network": Lora(network_weights=run.model.path)})
    assert [problem.place for problem in check_run(changed).errors] == ["network.network_weights"]


TO_Q = "base_model.model.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q"
BAD_PATTERN = "to_(q"


@pytest.mark.parametrize(
    ("ends", "config", "words"),
    [
        (("lora_A.weight", "lora_B.weight"), {"lora_alpha": 8, "alpha_pattern": {"to_.": 4}}, ""),
        (("lora_A.weight", "lora_B.weight"), {"alpha_pattern": {BAD_PATTERN: 4}}, BAD_PATTERN),
        (("lora_A.weight",), {}, "only half of one"),
        (("lora_A.weight", "lora_B.weight", "lora_magnitude_vector"), {}, "of the kind dora"),
        (("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b"), {}, "of the kind loha"),
    ],
)
def test_of_a_lora_to_go_on_from_check_and_run_say_the_same(
    run: RunFile, awkward: Path, ends: tuple[str, ...], config: dict, words: str
) -> None:
    from trainer.methods.lora import build
    from trainer.models.sd1 import FAMILY

    unet = FAMILY.load(Path(run.model.path), parts=("unet",))
    width = unet.unet.get_submodule(TO_Q.removeprefix("base_model.model.")).in_features
    shapes = {"A": (2, width), "B": (width, 2), "r": (width,), "a": (width, 2), "b": (2, width)}
    path = awkward / "theirs" / "adapter_model.safetensors"
    path.parent.mkdir()
    tensors = {f"{TO_Q}.{end}": np.ones(shapes[end.removesuffix(".weight")[-1]], np.float32) for end in ends}
    save_file(tensors, str(path), {"ss_base_model_version": "sd_v1"})
    (path.parent / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", **config}), encoding="utf-8")
    settings = Lora(network_weights=str(path), train="unet")
    found = [str(problem) for problem in check_run(run.model_copy(update={"network": settings})).errors]
    if not words:
        assert not found
        trained = build(settings, unet, FAMILY)
        assert 4 / 2 in {float(layer.alpha) / layer.rank for layer in map(trained.network.layer, trained.network.layers)}
        return
    with pytest.raises(BadInput) as refused:
        build(settings, unet, FAMILY)
    assert words in found[0] and str(refused.value).endswith(found[0].partition(" ")[2])


def test_the_class_folder_is_blamed_for_itself(run: RunFile, awkward: Path) -> None:
    (awkward / "empty").mkdir()
    reg = Regularization(folders=(Folder(path=str(awkward / "empty")),))
    problems = check_run(run.model_copy(update={"regularization": reg})).errors
    assert [problem.place for problem in problems] == ["regularization.folders[1].path"]


def test_the_same_picture_on_both_sides_names_both_files(run: RunFile, awkward: Path) -> None:
    source = next((awkward / "img").rglob("*.png"))
    reg = awkward / "reg" / "1_cat"
    reg.mkdir(parents=True)
    (reg / "copy.png").write_bytes(source.read_bytes())
    settings = Regularization(folders=(Folder(path=str(awkward / "reg")),))
    [problem] = check_run(run.model_copy(update={"regularization": settings})).errors
    assert str(source) in str(problem) and str(reg / "copy.png") in str(problem)


def test_a_broken_picture_is_named_and_the_rest_is_planned(run: RunFile, awkward: Path) -> None:
    broken = next((awkward / "img").iterdir()) / "broken.png"
    broken.write_bytes(b"no picture")
    checked = check_run(run)
    assert any("broken.png" in str(problem) for problem in checked.problems)
    assert checked.errors == () and checked.plan is not None and checked.plan.num_train == 30


def test_an_output_folder_that_is_a_file_is_refused(run: RunFile, awkward: Path) -> None:
    picture = save(awkward / "x.png")
    checked = check_run(run.model_copy(update={"output": Output(folder=str(picture / "runs"))}))
    assert [problem.place for problem in checked.errors] == ["output.folder"]


def test_checking_never_imports_torch() -> None:
    code = "import sys, trainer.check, trainer.config.files; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
