"""`python -m trainer inspect`: what people and programs read of a model file, and how long it takes."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
import zipfile
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.models import shapes as make
from tests.models.shapes import write
from tests.tiny import save_tiny_file
from trainer.__main__ import main
from trainer.commands import inspection
from trainer.models import opening
from trainer.models.header import inspect_file
from trainer.models.keys import LDM_UNET
from trainer.models.safetensors_file import read_header

LORA = {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (8, 320, 1, 1)}
TRAINING = {
    "ss_output_name": "cat", "ss_network_alpha": "4.0", "ss_network_dim": "8", "ss_base_model_version": "sd_v1",
    "ss_num_train_images": "120", "ss_steps": "1500", "ss_optimizer": "AdamW", "ss_unet_lr": "0.0001",
    "ss_training_started_at": "1700000000.0", "ss_network_module": "networks.lora", "ss_noise_offset": "None",
    "ss_tag_frequency": json.dumps({"10_cat": {"cat": 12, " sitting": 5}, "5_cat": {"cat": 3}}),
}  # fmt: skip


@pytest.fixture(scope="module")
def sd1(tmp_path_factory: pytest.TempPathFactory) -> make.Shapes:
    return read_header(save_tiny_file(tmp_path_factory.mktemp("model"))).shapes


def told(capsys: pytest.CaptureFixture[str], path: Path, *more: str) -> tuple[int, str]:
    code = main(["inspect", str(path), *more])
    return code, capsys.readouterr().out


def test_a_lora_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = told(capsys, write(tmp_path / "cat.safetensors", LORA, TRAINING))
    rows = {line[2:20].strip(): line[20:].strip() for line in text.splitlines() if line.startswith("  ")}
    assert code == 0 and text.startswith("This is a LoRA for Stable Diffusion 1.x.")
    assert rows["method"] == "LoRA" and rows["names"] == "kohya" and rows["rank"] == "8" and rows["alpha"] == "4"
    assert rows["changes"] == "UNet" and rows["pictures"] == "120" and rows["optimiser"] == "AdamW"
    assert rows["trained"] == "2023-11-14 22:13 UTC" and rows["frequent tags"] == "cat (15), sitting (5)"
    assert "noise offset" not in rows  # "None" is what trainers write for nothing


def test_the_same_for_programs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, text = told(capsys, write(tmp_path / "cat.safetensors", LORA, TRAINING), "--json")
    facts = json.loads(text)
    assert code == 0 and facts["metadata"] == TRAINING
    assert facts["adapter"] == {
        "method": "lora", "spelling": "kohya", "family": "sd1", "parts": ["unet"], "ranks": [8], "alpha": 4.0,
        "num_layers": 1,
    }  # fmt: skip
    assert facts["dtypes"] == {"fp16": 5120} and facts["container"] == "safetensors" and "go on from it" in facts["use"]


def test_a_base_model_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str], sd1: make.Shapes) -> None:
    shapes = {**make.sdxl(sd1), "v_pred": (0,), "ztsnr": (0,)}
    code, text = told(capsys, write(tmp_path / "x.safetensors", make.without(shapes, "first_stage_model.")))
    assert code == 0 and "SDXL model without a VAE." in text and "Can be trained on here." in text
    assert "v_prediction (a marker in the file says so)" in text and "UNet, text encoder, second text encoder" in text
    code, text = told(capsys, write(tmp_path / "y.safetensors", make.sd2(sd1)))
    assert "nothing in the file says it" in text
    code, text = told(capsys, write(tmp_path / "z.safetensors", make.part(make.sd2(sd1), LDM_UNET)))
    assert code == 0 and "There is no text encoder" in text and "VAE, text encoder" in text


def test_what_a_pickle_says_beside_tensors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import torch

    hypernetwork = {
        768: tuple({"linear.0.weight": torch.zeros(4, 4)} for _ in range(2)),
        "name": "style", "step": 500, "layer_structure": [1, 2, 1], "activation_func": "relu",
    }  # fmt: skip
    torch.save(hypernetwork, tmp_path / "style.pt")
    code, text = told(capsys, tmp_path / "style.pt")
    assert code == 0 and "This is a hypernetwork." in text and "relu" in text and "500" in text
    facts = json.loads(told(capsys, tmp_path / "style.pt", "--json")[1])
    assert facts["tree"]["layer_structure"] == [1, 2, 1] and facts["container"] == "torch_zip"


def test_a_harmful_file_is_refused_by_name_and_the_command_fails(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.models import hostile

    path = hostile.save(tmp_path / "x.ckpt", hostile.zipped(hostile.imports()["eval"][1]))
    code, text = told(capsys, path)
    assert code == 2 and "builtins.eval" in text and "nothing in it was run" in text
    code, text = told(capsys, path, "--json")
    assert code == 2 and json.loads(text)["kind"] == "pickle"


def test_a_strangers_words_cannot_command_the_terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "x.safetensors", LORA, {"modelspec.title": "a\x1b[2Jb\r\nc", "ss_tag_frequency": "[[[]]"})
    assert "\x1b" not in told(capsys, path)[1]
    import torch

    torch.save({"a": torch.zeros(1), "\x1b[2J": 1}, tmp_path / "x.pt")
    assert "\x1b" not in told(capsys, tmp_path / "x.pt")[1]


@dataclass
class Reading:
    """What inspecting a file took."""

    count: int = 0
    num_bytes: int = 0
    steps: int = 0
    most_memory: int = 0


def taken_by_inspecting(path: Path, monkeypatch: pytest.MonkeyPatch) -> Reading:
    """Reads and their bytes; then calls of functions, Python's own among them; then the most memory at once."""
    taken = Reading()

    class Counting(FileIO):
        def readinto(self, target: Any) -> int:
            count = super().readinto(target)
            taken.count += 1
            taken.num_bytes += count
            return count

        def readall(self) -> bytes:
            raise AssertionError("a whole file is read")

    def step(frame: FrameType, event: str, argument: Any) -> None:
        taken.steps += event in ("call", "c_call")

    monkeypatch.setattr(opening, "FileIO", Counting)
    assert inspect_file(path).kind == "base"
    monkeypatch.undo()
    sys.setprofile(step)
    inspect_file(path)
    sys.setprofile(None)
    tracemalloc.start()
    inspect_file(path)
    taken.most_memory = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return taken


def test_a_full_size_file_is_told_by_its_header_alone(
    tmp_path: Path, sd1: make.Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes it quick, counted: 7 GB with as many tensors as SDXL and averaged weights beside. docs has the time."""
    many = {**make.sdxl(sd1), **{f"model_ema.{index}_{'x' * 60}": (1180, 1000) for index in range(3000)}}
    path = write(tmp_path / "x.safetensors", many, {"thumbnail": "x" * 500_000})
    header_bytes = read_header(path).data_start
    assert path.stat().st_size > 7e9
    taken = taken_by_inspecting(path, monkeypatch)
    assert taken.num_bytes < header_bytes + 200_000 and taken.count < 20
    assert taken.most_memory < 12 * header_bytes and taken.steps < 150 * len(many)


def test_a_pickle_is_told_without_a_look_at_its_numbers(
    tmp_path: Path, sd1: make.Shapes, monkeypatch: pytest.MonkeyPatch
) -> None:
    import torch

    tensors = {name: torch.zeros(shape) for name, shape in make.part(sd1, LDM_UNET).items()}
    tensors |= {f"model_ema.{index}": torch.zeros(300) for index in range(3000)}
    torch.save({"state_dict": tensors}, tmp_path / "x.ckpt")
    taken = taken_by_inspecting(tmp_path / "x.ckpt", monkeypatch)
    with zipfile.ZipFile(tmp_path / "x.ckpt") as archive:
        said = archive.getinfo("x/data.pkl").file_size + sum(len(name) + 46 for name in archive.namelist())
    assert taken.num_bytes < said + 500_000 and taken.count < 30
    assert taken.most_memory < 12 * said and taken.steps < 450 * len(tensors)


@pytest.mark.parametrize(
    "entries",
    [
        {"lora_adapter_metadata": json.dumps({"lora_alpha": 10**400})},
        {"ss_network_alpha": "nan"},
        {"ss_network_alpha": "1e999"},
        {"ss_tag_frequency": json.dumps({"a": {"cat": int("9" * 4300)}, "b": {"cat": 1}})},
        {"ss_tag_frequency": "[" * 100_000, "lora_adapter_metadata": "[" * 100_000},
    ],
)
def test_numbers_that_are_none_are_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], entries: dict[str, str]
) -> None:
    def refuse(word: str) -> None:
        raise AssertionError(word)

    path = write(tmp_path / "x.safetensors", LORA, entries)
    code, text = told(capsys, path)
    assert code == 0 and "alpha" not in text and "frequent tags" not in text
    code, text = told(capsys, path, "--json")
    assert json.loads(text, parse_constant=refuse)["adapter"]["alpha"] is None


def test_tables_in_metadata_take_no_memory_beyond_their_bytes(tmp_path: Path) -> None:
    """Five million lists in the text of one entry would be 300 MB."""
    many = f"[{'[],' * 1_000_000}0]"
    for entry in ("lora_adapter_metadata", "ss_tag_frequency"):
        facts = inspect_file(write(tmp_path / f"{entry}.safetensors", LORA, {entry: many}))
        tracemalloc.start()
        inspection.as_text(facts)
        inspect_file(facts.path)
        assert tracemalloc.get_traced_memory()[1] < 20e6
        tracemalloc.stop()


def test_inspecting_needs_no_torch(tmp_path: Path) -> None:
    path = write(tmp_path / "x.safetensors", LORA)
    code = (
        "import sys; from trainer.__main__ import main; main(['inspect', sys.argv[1], '--json']);"
        "assert not {'torch', 'diffusers', 'transformers', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True)
