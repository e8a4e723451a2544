"""Damaged and hostile files: every tool answers with a sentence that names the file and the place, and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tools.material import UNET, Tensors, base_file, changed, lora_file, save, use
from trainer.errors import AthanorError, BadInput
from trainer.models.tensor_file import read_file
from trainer.tools.catalog import LoraEntry

QUERY = "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q"
DOWN, UP, MID = "lora_down.weight", "lora_up.weight", "lora_mid.weight"


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_file(tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def lora(base: Path) -> Path:
    return lora_file(base.with_name("lora.safetensors"), base)


def with_one(value: float) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(tensor: torch.Tensor) -> torch.Tensor:
        changed = tensor.clone()
        changed.view(-1)[3] = value
        return changed

    return change


DAMAGES: dict[str, tuple[dict[str, Any], str]] = {  # tensor → its new value or what makes it of the old one; None: no such
    "NaN": ({UP: with_one(float("nan"))}, "holds values that are no numbers"),
    "infinite": ({DOWN: with_one(float("inf"))}, "holds values that are no numbers"),
    "alpha is NaN": ({"alpha": torch.tensor(float("nan"))}, "holds values that are no numbers"),
    "several alphas": ({"alpha": torch.ones(3)}, "its alpha is not one number"),
    "rank 0": ({UP: torch.ones(32, 0), DOWN: torch.ones(0, 32)}, "its factors ([0, 32]; [32, 0]) do not fit each other"),
    "other ranks": ({UP: torch.ones(32, 3)}, "do not fit each other"),
    "a row alone": ({DOWN: torch.ones(32)}, "do not fit each other"),
    "a number alone": ({UP: torch.tensor(1.0)}, "do not fit each other"),
    "a middle of two dimensions": ({MID: torch.ones(4, 4)}, "do not fit each other"),
    "a middle of another rank": ({MID: torch.ones(4, 3, 3, 3)}, "do not fit each other"),
    "integers": ({DOWN: torch.ones(4, 32, dtype=torch.int8)}, "lora_down.weight holds numbers of the kind I8"),
    "no up": ({UP: None}, "it lacks lora_up.weight"),
    "no down": ({DOWN: None}, "it lacks lora_down.weight"),
    "alpha alone": ({UP: None, DOWN: None}, "1 tensors of a kind that the tools do not know"),
    "a strange tensor": ({"bias_values": torch.ones(32)}, "of a kind that the tools do not know"),
}


def damaged(lora: Path, target: Path, changes: dict[str, Any]) -> Path:
    tensors = read_file(lora)
    for end, value in changes.items():
        name = f"{QUERY}.{end}"
        if value is None:
            del tensors[name]
        else:
            tensors[name] = value(tensors[name]) if callable(value) else value
    return save(target, tensors)


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_lora_is_refused_by_every_tool(damage: str, base: Path, lora: Path, awkward: Path) -> None:
    changes, sentence = DAMAGES[damage]
    broken = damaged(lora, awkward / "broken.safetensors", changes)
    output = awkward / "out.safetensors"
    for tool, settings in USES.items():
        with pytest.raises(BadInput) as refused:
            use(tool, output=output, **settings(base, lora, broken))
        assert sentence in str(refused.value) and QUERY in str(refused.value), tool
        assert "broken.safetensors" in str(refused.value)
    assert {path.name for path in awkward.iterdir()} == {"broken.safetensors"}


USES: dict[str, Callable[[Path, Path, Path], dict[str, Any]]] = {
    "bake": lambda base, lora, broken: {"model": base, "loras": (LoraEntry(path=str(broken)),)},
    "join": lambda base, lora, broken: {"loras": tuple(LoraEntry(path=str(path)) for path in (lora, broken)), "rank": 2},
    "resize": lambda base, lora, broken: {"lora": broken},
}


def of_query(**tensors: torch.Tensor) -> Tensors:
    return {f"{QUERY}.{end}": tensor for end, tensor in tensors.items()}


FOREIGN: dict[str, tuple[Tensors, str]] = {  # layers that no model of these sizes can have
    "DoRA of another width": (
        of_query(**{UP: torch.ones(32, 2), DOWN: torch.ones(2, 32), "dora_scale": torch.ones(1, 7)}), "does not fit",
    ),
    "DoRA of one number": (
        of_query(**{UP: torch.ones(32, 2), DOWN: torch.ones(2, 32), "dora_scale": torch.tensor(1.0)}), "does not fit",
    ),
    "LoHa of rows": (of_query(**{f"hada_w{end}": torch.ones(32) for end in ("1_a", "1_b", "2_a", "2_b")}), "does not fit"),
    "half a LoHa": (of_query(hada_w1_a=torch.ones(32, 2), hada_w1_b=torch.ones(2, 32)), "it lacks hada_w2_a"),
    "LoKr of numbers": (of_query(lokr_w1=torch.tensor(1.0), lokr_w2=torch.tensor(1.0)), "does not fit"),
    "LoKr without its first factor": (of_query(lokr_w2=torch.ones(8, 4)), "it lacks lokr_w1_a"),
    "IA3 of another width": (of_query(weight=torch.ones(7), on_input=torch.tensor(1)), "does not fit"),
    "IA3 without its side": (of_query(weight=torch.ones(32)), "of a kind that the tools do not know"),
    "OFT of another width": (of_query(oft_blocks=torch.ones(3, 4, 4)), "does not fit"),
    "BOFT of odd blocks": (of_query(oft_blocks=torch.ones(2, 32, 1, 1)), "does not fit"),
    "GLoRA of another width": (
        of_query(**{f"{name}.weight": torch.ones(3, 5) for name in ("a1", "a2", "b1", "b2")}), "does not fit",
    ),
    "a difference of one number": (of_query(diff=torch.tensor(1.0)), "does not fit"),
    "a bias where there is none": (of_query(diff_b=torch.ones(32)), "None of the 1 layers"),
    "one layer twice": (
        {name: torch.ones(4, 32) if "down" in name or "lora_A" in name else torch.ones(32, 4)
         for name in (f"{QUERY}.{DOWN}", f"{QUERY}.{UP}",
                      "unet.down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.weight")},
        "more than once",
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_layer_that_fits_no_weight_is_refused(kind: str, base: Path, tmp_path: Path) -> None:
    tensors, sentence = FOREIGN[kind]
    path = save(tmp_path / "foreign.safetensors", tensors)
    with pytest.raises(BadInput) as refused:
        use("bake", model=base, loras=(LoraEntry(path=str(path)),), output=tmp_path / "out.safetensors")
    assert sentence in str(refused.value) and "foreign.safetensors" in str(refused.value)
    assert {path.name for path in tmp_path.iterdir()} == {"foreign.safetensors"}


# --- models ---

WEIGHT = f"{UNET}input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight"


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_are_not_passed_on(value: float, base: Path, lora: Path, tmp_path: Path) -> None:
    """Wherever something is computed; a tool that only copies leaves them as they are."""
    broken = changed(base, tmp_path / "broken.safetensors", lambda tensors: tensors[WEIGHT].view(-1)[3].fill_(value))
    other = base_file(tmp_path, "other", seed=1)
    output = tmp_path / "out.safetensors"
    cases: list[tuple[str, dict[str, Any]]] = [
        *(("merge", {"model_a": other, "model_b": broken, "precision": dtype}) for dtype in ("fp16", "bf16", "fp32")),
        ("merge", {"model_a": other, "model_b": other, "model_c": broken, "mode": "difference"}),
        ("bake", {"model": broken, "loras": (LoraEntry(path=str(lora)),)}),
        ("extract", {"base": base, "tuned": broken}),
        ("extract", {"base": broken, "tuned": base, "rule": "frobenius", "amount": 0.9}),
    ]
    for tool, settings in cases:
        with pytest.raises(AthanorError) as refused:
            use(tool, output=output, **settings)
        assert "no numbers (NaN or infinite)" in str(refused.value), tool
        assert (QUERY if tool == "extract" else WEIGHT) in str(refused.value)
        assert not output.exists() and not list(tmp_path.glob(".*"))
    use("convert", model=broken, output=output, precision="fp16")
    assert not read_file(output)[WEIGHT].isfinite().all()


def test_weights_of_integers_are_refused_or_told(base: Path, lora: Path, tmp_path: Path) -> None:
    integers = changed(base, tmp_path / "int.safetensors", lambda tensors: tensors.update({WEIGHT: tensors[WEIGHT].long()}))
    other, output = base_file(tmp_path, "other", seed=1), tmp_path / "out.safetensors"
    for tool, settings in (
        ("bake", {"model": integers, "loras": (LoraEntry(path=str(lora)),)}),
        ("extract", {"base": other, "tuned": integers}),
        ("extract", {"base": integers, "tuned": other}),
    ):
        with pytest.raises(BadInput, match="numbers of the kind I64, with which nothing can be computed"):
            use(tool, output=output, **settings)
    result = use("merge", model_a=other, model_b=integers, output=output, precision="fp32")
    assert any("1 weights of Model B are numbers of another kind" in str(note) for note in result.notes)
    assert torch.equal(read_file(output)[WEIGHT], read_file(other)[WEIGHT])


def test_fp8_is_read_everywhere_and_written_where_it_can_be(base: Path, lora: Path, tmp_path: Path) -> None:
    def shorten(tensors: Tensors) -> None:
        for name, tensor in tensors.items():
            tensors[name] = tensor.to(torch.float8_e4m3fn) if tensor.is_floating_point() else tensor

    short, other = changed(base, tmp_path / "short.safetensors", shorten), base_file(tmp_path, "other", seed=1)
    for start, end in ((short, other), (other, short)):
        use("extract", base=start, tuned=end, output=tmp_path / "lora.safetensors", rank=2, overwrite=True)
    with pytest.raises(BadInput, match="do not differ"):  # rounding is no training
        use("extract", base=base, tuned=short, output=tmp_path / "none.safetensors")
    use("merge", model_a=short, model_b=other, output=tmp_path / "merged.safetensors", precision="keep")
    assert read_file(tmp_path / "merged.safetensors")[WEIGHT].dtype == torch.float8_e4m3fn
    with pytest.raises(BadInput, match=r"\(F8_E4M3\) that a \.ckpt file cannot hold"):
        use("convert", model=short, output=tmp_path / "short.ckpt")
    use("convert", model=short, output=tmp_path / "short.ckpt", precision="fp16")
    large = save(tmp_path / "large.safetensors", {f"{QUERY}.diff": torch.full((32, 32), 1000.0)})
    with pytest.raises(AthanorError, match="too large for fp8"):
        use("bake", model=short, loras=(LoraEntry(path=str(large)),), output=tmp_path / "baked.safetensors")


def test_models_of_other_kinds_are_not_copied_under_another_name(base: Path, tmp_path: Path) -> None:
    """FLUX is recognised, but nothing of it is known to the tools."""
    shapes = {"double_blocks.0.img_attn.qkv.weight": torch.ones(3, 2), "single_blocks.0.linear1.weight": torch.ones(3, 2),
              "img_in.weight": torch.ones(2, 64), "guidance_in.in_layer.weight": torch.ones(2, 2)}  # fmt: skip
    flux = save(tmp_path / "flux.safetensors", shapes)
    output = tmp_path / "out.safetensors"
    for tool, settings in (
        ("merge", {"model_a": flux, "model_b": flux}), ("merge", {"model_a": base, "model_b": flux}),
        ("extract", {"base": flux, "tuned": flux}), ("convert", {"model": flux, "output": tmp_path / "folder"}),
    ):  # fmt: skip
        with pytest.raises(BadInput, match="FLUX"):
            use(tool, **{"output": output, **settings})
    assert [path.name for path in tmp_path.iterdir()] == ["flux.safetensors"]


# --- paths ---


@pytest.mark.parametrize(
    ("name", "sentence"),
    [("a\0b.safetensors", "No file can have the name"), ("m.safetensor", "should end in"), ("m.pt", "should end in"),
     ("m.sft", "should end in"), ("m.bin", "should end in")],
)  # fmt: skip
def test_names_that_cannot_be_meant(name: str, sentence: str, base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=sentence):
        use("convert", model=base, output=str(tmp_path / name))
    assert not list(tmp_path.iterdir())


def test_a_blank_is_no_output() -> None:
    from trainer.tools.catalog import TOOLS

    tool = TOOLS["convert"]
    assert [problem.place for problem in tool.missing(tool.settings(model="a", output="  "))] == ["output"]


@pytest.mark.parametrize("text", ["[1, 2]", "{torn", "[" * 5000])
def test_a_strange_json_beside_is_in_the_way(text: str, base: Path, tmp_path: Path) -> None:
    """It is the user's, and the tiny model's config would have to go there: nothing is written."""
    notes = tmp_path / "m.json"
    notes.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="is in the way"):
        use("convert", model=base, output=tmp_path / "m.safetensors")
    assert notes.read_text(encoding="utf-8") == text and [path.name for path in tmp_path.iterdir()] == ["m.json"]


def test_an_input_is_known_under_every_name(base: Path, lora: Path, awkward: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, adapter = awkward / "m.safetensors", awkward / "l.safetensors"
    model.write_bytes(base.read_bytes())
    adapter.write_bytes(lora.read_bytes())
    for one in (model, adapter):
        one.with_name(f"soft {one.name}").symlink_to(one)
        os.link(one, one.with_name(f"hard {one.name}"))
    before = {path.name: path.read_bytes() for path in awkward.iterdir()}
    monkeypatch.chdir(awkward)
    entry = LoraEntry(path=str(adapter))
    for prefix in ("", "soft ", "hard ", "./", "../" + awkward.name + "/"):
        for settings in (
            {"tool": "convert", "model": model}, {"tool": "merge", "model_a": base, "model_b": model},
            {"tool": "bake", "model": model, "loras": (entry,)}, {"tool": "extract", "base": base, "tuned": model},
        ):  # fmt: skip
            _refuses(settings, f"{prefix}m.safetensors")
        for settings in (
            {"tool": "join", "loras": (entry, entry)}, {"tool": "resize", "lora": adapter},
            {"tool": "bake", "model": model, "loras": (entry,)}, {"tool": "metadata", "file": adapter, "set": ("a=b",)},
        ):  # fmt: skip
            _refuses(settings, f"{prefix}l.safetensors")
    assert {path.name: path.read_bytes() for path in awkward.iterdir()} == before


def _refuses(settings: dict[str, Any], output: str) -> None:
    tool, *more = settings.items()
    with pytest.raises(BadInput, match="The output is what is read"):
        use(str(tool[1]), output=output, overwrite=True, **dict(more))
