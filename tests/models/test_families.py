"""What every family promises, on tiny models of each: files in and out, bit for bit, in every form that people have."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import CLIPTokenizer

from tests.families import silenced
from tests.models.shapes import write as write_shapes
from tests.tiny import FAMILIES, family_of, save_tiny_file, save_tiny_folder, tiny_model
from trainer.errors import BadInput
from trainer.models import keys
from trainer.models.header import base_problem, inspect_file
from trainer.models.protocol import Components, Cond
from trainer.models.safetensors_file import read_header
from trainer.models.tensor_file import read_file, write_file
from trainer.models.text_encoders import TextEncoder
from trainer.tools.checkpoint import open_checkpoint

VARIANTS: list[dict[str, Any]] = [
    {},
    {"prediction": "v_prediction", "in_channels": 9},
    {"prediction": "v_prediction", "zero_snr": True},
]
EACH = [(family, facts) for family in FAMILIES for facts in VARIANTS]
# What OpenCLIP's files hold beside and no library keeps: a diffusers folder has no place for it.
BESIDE = ("logit_scale", "cond_stage_model.model.text_projection")


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    return {name: save_tiny_file(folder, name, family=name) for name in FAMILIES}


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("folders")
    return {name: save_tiny_folder(folder / name, family=name) for name in FAMILIES}


def same_weights(one: Components, other: Components, dtype: torch.dtype | None = None) -> None:
    assert one.modules().keys() == other.modules().keys()
    for part, module in one.modules().items():
        first, second = module.state_dict(), other.modules()[part].state_dict()
        assert first.keys() == second.keys(), part
        wrong = [name for name in first if not torch.equal(first[name].to(dtype or first[name].dtype), second[name])]
        assert not wrong, (part, wrong[:3])


def tensors_of(folder: Path) -> dict[str, torch.Tensor]:
    """All tensors of a diffusers folder, whichever version of the libraries wrote it."""
    found = {}
    for path in sorted(folder.glob("*/*.safetensors")):
        for name, tensor in read_file(path).items():
            plain = name if path.parent.name in ("unet", "vae") else name.removeprefix("text_model.")
            found[f"{path.parent.name}/{plain}"] = tensor
    return found


# --- out and in again ---


@pytest.mark.parametrize(("family", "facts"), EACH)
def test_a_file_comes_back_as_it_was_and_goes_out_the_same(family: str, facts: dict[str, Any], tmp_path: Path) -> None:
    object_ = family_of(family)
    model = tiny_model(family, **facts)
    object_.save(model, tmp_path / "one.safetensors", torch.float16)
    loaded = object_.load(tmp_path / "one.safetensors", dtype=torch.float16)
    loaded.vae.half()  # SDXL's stays in fp32
    same_weights(model, loaded, torch.float16)
    assert (loaded.prediction, loaded.zero_snr) == (model.prediction, model.zero_snr)
    object_.save(loaded, tmp_path / "two.safetensors", torch.float16)
    one, two = read_file(tmp_path / "one.safetensors"), read_file(tmp_path / "two.safetensors")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.parametrize(("family", "facts"), EACH)
def test_a_folder_comes_back_as_it_was_and_goes_out_the_same(family: str, facts: dict[str, Any], tmp_path: Path) -> None:
    object_ = family_of(family)
    theirs = save_tiny_folder(tmp_path / "theirs", family=family, **facts)
    loaded = object_.load(theirs)
    same_weights(tiny_model(family, **facts), loaded)
    object_.save_folder(loaded, tmp_path / "ours")
    one, two = tensors_of(theirs), tensors_of(tmp_path / "ours")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    told, found = inspect_file(theirs), inspect_file(tmp_path / "ours")
    assert found.problem is None and found.family == family and found.parts == told.parts
    assert (found.prediction, bool(found.zero_snr)) == (loaded.prediction, loaded.zero_snr)
    read = json.loads((tmp_path / "ours" / "model_index.json").read_text(encoding="utf-8"))
    assert read["_class_name"] == json.loads((theirs / "model_index.json").read_text(encoding="utf-8"))["_class_name"]


def test_file_to_folder_to_file_loses_nothing(family: str, files: dict[str, Path], tmp_path: Path) -> None:
    object_ = family_of(family)
    object_.save_folder(object_.load(files[family]), tmp_path / "folder")
    object_.save(object_.load(tmp_path / "folder"), tmp_path / "again.safetensors")
    one, two = read_file(files[family]), read_file(tmp_path / "again.safetensors")
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name]) and not name.endswith(BESIDE)] == []


def test_folder_to_file_to_folder_loses_nothing(family: str, folders: dict[str, Path], tmp_path: Path) -> None:
    object_ = family_of(family)
    object_.save(object_.load(folders[family]), tmp_path / "file.safetensors")
    object_.save_folder(object_.load(tmp_path / "file.safetensors"), tmp_path / "again")
    one, two = tensors_of(folders[family]), tensors_of(tmp_path / "again")
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_second_tokenizer_fills_chunks_as_its_encoder_wants_it(tmp_path: Path) -> None:
    """A folder that brings only the first: the words are its own, the padding is that of OpenCLIP."""
    sdxl = family_of("sdxl")
    folder = save_tiny_folder(tmp_path / "folder", family="sdxl")
    shutil.rmtree(folder / "tokenizer_2")
    sdxl.save_folder(sdxl.load(folder), tmp_path / "again")
    pads = [CLIPTokenizer.from_pretrained(tmp_path / "again" / name).pad_token for name in ("tokenizer", "tokenizer_2")]
    assert pads == ["<|endoftext|>", "!"]


def test_what_nobody_runs_is_filled_in_and_left_out_again(tmp_path: Path) -> None:
    """SD 2.x: OpenCLIP's last layer, filled from the one before; what stands beside it comes back as it was."""
    path = save_tiny_file(tmp_path, family="sd2")
    tensors = read_file(path)
    layers = sorted({name.split(".")[4] for name in tensors if ".resblocks." in name})
    assert layers == ["0", "1", "2", "3"]
    for name, tensor in tensors.items():
        if ".resblocks.3." in name:
            assert torch.equal(tensor, tensors[name.replace(".3.", ".2.")])
    tensors[f"{keys.LDM_OPEN_CLIP}text_projection"] = torch.rand(32, 32)
    tensors[f"{keys.LDM_OPEN_CLIP}logit_scale"] = torch.tensor(4.5)
    write_tensors(tmp_path / "odd.safetensors", tensors, beside=path)
    object_ = family_of("sd2")
    loaded = object_.load(tmp_path / "odd.safetensors")
    assert loaded.text_encoder.config.num_hidden_layers == 3
    object_.save(loaded, tmp_path / "again.safetensors")
    again = read_file(tmp_path / "again.safetensors")
    assert all(torch.equal(again[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_header_says_what_it_is_and_the_hash_is_of_its_bytes(family: str, dtype: torch.dtype, tmp_path: Path) -> None:
    import hashlib

    path = save_tiny_file(tmp_path, family=family, dtype=dtype, prediction="v_prediction")
    header = read_header(path)
    data = path.read_bytes()[header.data_start :]
    said = header.metadata
    assert said["modelspec.hash_sha256"] == f"0x{hashlib.sha256(data).hexdigest()}"
    assert said["modelspec.architecture"] == family_of(family).architecture_of("v_prediction")
    assert said["modelspec.prediction_type"] == "v" and said["modelspec.sai_model_spec"] == "1.0.1"
    assert inspect_file(path).dtype == {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype]
    assert ("v_pred" in header.tensors) == (family != "sd2"), "the marker stands where nothing else tells"


def test_the_header_says_the_size_that_the_model_was_made_for(family: str, tmp_path: Path) -> None:
    """Of the UNet in memory, and the same again through file and folder; nothing where nobody knows it."""
    model = tiny_model(family, prediction="v_prediction")
    model.unet.register_to_config(sample_size=96)
    object_ = family_of(family)
    object_.save(model, tmp_path / "one.safetensors")
    object_.save_folder(object_.load(tmp_path / "one.safetensors"), tmp_path / "folder")
    object_.save(object_.load(tmp_path / "folder"), tmp_path / "two.safetensors")
    for name in ("one.safetensors", "two.safetensors"):
        assert read_header(tmp_path / name).metadata["modelspec.resolution"] == "768x768"
    assert {inspect_file(tmp_path / name).native_resolution for name in ("one.safetensors", "folder")} == {768}
    model.unet.register_to_config(sample_size=[64, 96])
    object_.save(model, tmp_path / "wide.safetensors")
    assert read_header(tmp_path / "wide.safetensors").metadata["modelspec.resolution"] == "768x512"
    object_.save(replace(model, unet=None), tmp_path / "vae.safetensors")
    assert "modelspec.resolution" not in read_header(tmp_path / "vae.safetensors").metadata
    silent = object_.load(silenced(tmp_path / "one.safetensors"))
    object_.save(silent, tmp_path / "guessed.safetensors")
    told = read_header(tmp_path / "guessed.safetensors").metadata.get("modelspec.resolution")
    assert told == {"sd1": "512x512", "sd2": None, "sdxl": "1024x1024"}[family]


# --- forms of files ---


def as_checkpoint(path: Path, goal: Path, zipped: bool = True) -> Path:
    """The tensors of a .safetensors as a .ckpt, with what trainers leave beside them."""
    torch.save({"state_dict": read_file(path), "global_step": 7}, goal, _use_new_zipfile_serialization=zipped)
    goal.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes())
    return goal


@pytest.mark.parametrize("zipped", [True, False])
def test_old_checkpoints_hold_the_same(family: str, zipped: bool, files: dict[str, Path], tmp_path: Path) -> None:
    path = as_checkpoint(files[family], tmp_path / "old.ckpt", zipped)
    same_weights(family_of(family).load(files[family]), family_of(family).load(path))


def as_bin(folder: Path) -> None:
    for path in folder.glob("*/*.safetensors"):
        stem = "pytorch_model" if path.stem == "model" else path.stem
        torch.save(read_file(path), path.with_name(f"{stem}.bin"))
        path.unlink()


def as_shards(folder: Path) -> None:
    for path in folder.glob("*/*.safetensors"):
        rows = list(read_file(path).items())
        middle, table = len(rows) // 2, {}
        for number, portion in enumerate((rows[:middle], rows[middle:]), 1):
            shard = path.with_name(f"{path.stem}-{number:05d}-of-00002.safetensors")
            write_file(shard, [(name, tuple(value.shape), "F32", value.clone) for name, value in portion], {})
            table |= {name: shard.name for name, _ in portion}
        index = {"metadata": {"total_size": 1}, "weight_map": table}
        path.with_name(f"{path.name}.index.json").write_text(json.dumps(index), encoding="utf-8")
        path.unlink()


@pytest.mark.parametrize("change", [as_bin, as_shards])
def test_folders_of_every_form_hold_the_same(family: str, change: Any, tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "folder", family=family)
    change(folder)
    same_weights(tiny_model(family), family_of(family).load(folder))


def test_the_half_version_of_a_folder(family: str, tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "folder", family=family, variant="fp16")
    assert list(folder.glob("*/*.fp16.safetensors"))
    loaded = family_of(family).load(folder)
    halves = [{part: module.half() for part, module in model.modules().items()} for model in (tiny_model(family), loaded)]
    same_weights(Components(**halves[0]), Components(**halves[1]))


def test_averaged_weights_alone_are_taken(family: str, files: dict[str, Path], tmp_path: Path) -> None:
    tensors = read_file(files[family])
    renamed = {keys.ema_name(name) if name.startswith(keys.LDM_UNET) else name: value for name, value in tensors.items()}
    assert set(keys.plain_names(renamed).values()) == {name for name in tensors if name.startswith(keys.LDM_UNET)}
    path = write_tensors(tmp_path / "ema.safetensors", renamed, beside=files[family])
    same_weights(tiny_model(family), family_of(family).load(path))


# --- parts from elsewhere ---


def without(path: Path, goal: Path, *prefixes: str) -> Path:
    """A copy of a file without some of its tensors."""
    return write_tensors(
        goal, {name: value for name, value in read_file(path).items() if not name.startswith(prefixes)}, beside=path
    )


def write_tensors(goal: Path, tensors: dict[str, torch.Tensor], beside: Path) -> Path:
    """Tensors as one file, with the metadata of another and the config that lies beside that."""
    words = {torch.int64: "I64", torch.float32: "F32"}
    rows = [(name, tuple(value.shape), words[value.dtype], value.clone) for name, value in tensors.items()]
    write_file(goal, rows, dict(read_header(beside).metadata))
    goal.with_suffix(".json").write_bytes(beside.with_suffix(".json").read_bytes())
    return goal


def test_a_folder_says_at_which_size_its_model_draws(family: str, files: dict[str, Path], tmp_path: Path) -> None:
    """diffusers draws at the side that the UNet's config names: 768 pixels for SD 2.x with v-prediction, here as said."""
    object_ = family_of(family)
    silent = tmp_path / "silent.safetensors"
    object_.save(tiny_model(family, prediction="v_prediction"), silent, None, {"modelspec.resolution": ""})
    for number, file in enumerate((files[family], silent)):
        object_.save_folder(object_.load(file), tmp_path / str(number))
        assert inspect_file(tmp_path / str(number)).native_resolution == inspect_file(file).native_resolution
    assert inspect_file(silent).native_resolution == {"sd1": 512, "sd2": 768, "sdxl": 1024}[family]


def test_missing_text_encoders_are_named_and_can_be_given(
    family: str, files: dict[str, Path], folders: dict[str, Path], tmp_path: Path
) -> None:
    object_, whole = family_of(family), family_of(family).load(files[family])
    bare = without(files[family], tmp_path / "bare.safetensors", "cond_stage_model.", "conditioner.")
    with pytest.raises(BadInput, match="no text encoder inside"):
        object_.load(bare)
    assert object_.load(bare, parts={"unet", "vae"}).text_encoder is None
    for given in (files[family], folders[family]):
        same_weights(whole, object_.load(bare, text_encoders=[given]))
    alone = [next((folders[family] / part).glob("*.safetensors")) for part in object_.text_parts]
    same_weights(whole, object_.load(bare, text_encoders=alone))
    with pytest.raises(BadInput, match="No text encoder that fits"):
        object_.load(bare, text_encoders=[save_vae_alone(whole, tmp_path)])


def test_sdxls_text_encoders_in_files_of_their_own_are_told_apart(files: dict[str, Path], tmp_path: Path) -> None:
    """Either one alone, both in any order, and with what CLIP files carry beside (ComfyUI's clip_l and clip_g do)."""
    object_, whole = family_of("sdxl"), family_of("sdxl").load(files["sdxl"])
    first, second = (save_text_alone(getattr(whole, encoder.part), encoder, tmp_path) for encoder in object_.text_encoders)
    bare = without(files["sdxl"], tmp_path / "bare.safetensors", "conditioner.")
    for given in ([first, second], [second, first]):
        same_weights(whole, object_.load(bare, text_encoders=given))
    for prefix, given in (("conditioner.embedders.0.", first), ("conditioner.embedders.1.", second)):
        half = without(files["sdxl"], tmp_path / "half.safetensors", prefix)
        same_weights(whole, object_.load(half, text_encoders=[given]))


@pytest.mark.parametrize("prefix", [keys.LDM_UNET, "diffusion_model.", ""])
def test_a_unet_alone_is_used_with_the_other_parts_of_another_file(
    family: str, files: dict[str, Path], tmp_path: Path, prefix: str
) -> None:
    """As ComfyUI and trainers save it, with and without the levels above it."""
    object_, whole = family_of(family), family_of(family).load(files[family])
    tensors = {
        prefix + name.removeprefix(keys.LDM_UNET): tensor
        for name, tensor in read_file(files[family]).items()
        if name.startswith(keys.LDM_UNET)
    }
    alone = write_tensors(tmp_path / "alone.safetensors", tensors, beside=files[family])
    facts = inspect_file(alone)
    assert (facts.kind, facts.family, facts.parts) == ("base", family, {"unet"})
    assert base_problem(facts, has_vae=True, has_text=True) is None
    same_weights(whole, object_.load(alone, vae=files[family], text_encoders=[files[family]]))
    assert open_checkpoint(str(alone), "Model").places.keys() == {
        name for name in read_header(files[family]).tensors if name.startswith(keys.LDM_UNET)
    }


def save_text_alone(module: Any, encoder: TextEncoder, folder: Path) -> Path:
    """A text encoder alone with transformers' names, with a projection and a scale of similarities like any CLIP."""
    tensors = {encoder.file_name(name): value.detach() for name, value in module.state_dict().items()}
    if not encoder.pooled:
        tensors["text_projection.weight"] = torch.eye(module.config.hidden_size)
    tensors["logit_scale"] = torch.tensor(4.6)
    path = folder / f"{encoder.part}.safetensors"
    write_file(path, [(name, tuple(value.shape), "F32", value.clone) for name, value in tensors.items()], {})
    return path


def save_vae_alone(model: Components, folder: Path) -> Path:
    path = folder / "vae.safetensors"
    write_file(path, [(name, tuple(value.shape), "F32", value.clone) for name, value in model.vae.state_dict().items()], {})
    path.with_suffix(".json").write_text('{"vae": {"norm_num_groups": 4}}', encoding="utf-8")
    return path


def test_text_encoders_of_another_size_are_refused(files: dict[str, Path]) -> None:
    with pytest.raises(BadInput, match="numbers for each token"):
        family_of("sdxl").load(files["sdxl"], text_encoders=[save_wide(files["sdxl"].parent)])


def save_wide(folder: Path) -> Path:
    """A text encoder alone, twice as wide as the tiny models'."""
    from tests.tiny import TINY_CLIP
    from trainer.models import libraries

    clip, config = libraries.clip_classes()
    encoder = clip(config(**{**TINY_CLIP, "hidden_size": 128, "num_attention_heads": 2}))
    path = folder / "wide.safetensors"
    rows = [(f"text_model.{name}", tuple(value.shape), "F32", value.clone) for name, value in encoder.state_dict().items()]
    write_file(path, rows, {})
    return path


def test_a_vae_is_missing_or_given(family: str, files: dict[str, Path], tmp_path: Path) -> None:
    object_ = family_of(family)
    bare = without(files[family], tmp_path / "bare.safetensors", "first_stage_model.")
    with pytest.raises(BadInput, match="no VAE inside"):
        object_.load(bare)
    whole = object_.load(files[family])
    same_weights(whole, object_.load(bare, vae=save_vae_alone(whole, tmp_path)))


def test_a_delicate_vae_stays_out_of_fp16(files: dict[str, Path], tmp_path: Path) -> None:
    """SDXL's, unless its config says that it is safe; SD 1.x and 2.x have no such trouble."""
    for name in FAMILIES:
        loaded = family_of(name).load(files[name], dtype=torch.float16)
        assert loaded.vae.dtype == (torch.float32 if name == "sdxl" else torch.float16)
        assert loaded.unet.dtype == torch.float16
    assert family_of("sdxl").load(files["sdxl"], dtype=torch.bfloat16).vae.dtype == torch.bfloat16
    path = without(files["sdxl"], tmp_path / "safe.safetensors")
    path.with_suffix(".json").write_text('{"vae": {"norm_num_groups": 4, "force_upcast": false}}', encoding="utf-8")
    safe = family_of("sdxl").load(path, dtype=torch.float16)
    assert safe.vae.dtype == torch.float16
    family_of("sdxl").save(safe, tmp_path / "again.safetensors")
    again = json.loads((tmp_path / "again.json").read_text(encoding="utf-8"))
    assert again == {"vae": {"norm_num_groups": 4, "force_upcast": False}}, "what a reader can't tell goes beside the file"


# --- use ---


def cond_of(model: Components, family: str, captions: tuple[str, ...] = ("a red cat", "dog"), **more: Any) -> Cond:
    """What the pipeline would tell a model of captions."""
    from dataclasses import replace

    cond = family_of(family).encode_text(model, captions)
    sizes = torch.tensor([[64.0, 64.0, 0.0, 0.0, 64.0, 64.0]]).expand(len(captions), -1)
    return replace(cond, sizes=sizes, **more)


def test_predictions_under_everything_that_is_told(family: str) -> None:
    model = tiny_model(family)
    noisy, steps = torch.randn(2, 4, 8, 8), torch.tensor([10, 700])
    cond = cond_of(model, family)
    assert cond.states.shape == (2, 77, model.unet.config.cross_attention_dim)
    before = family_of(family).predict(model, noisy, steps, cond)
    assert before.shape == (2, 4, 8, 8)
    both = Cond.stack([cond.select([1]), cond.select([0])]).to("cpu")
    swapped = family_of(family).predict(model, noisy.flip(0), steps.flip(0), both).flip(0)
    torch.testing.assert_close(swapped, before, atol=1e-5, rtol=1e-4)
    if family == "sdxl":
        assert cond.pooled is not None and cond.sizes is not None and cond.pooled.shape == (2, 64)
        for other in (Cond(cond.states, cond.pooled + 1, cond.sizes), Cond(cond.states, cond.pooled, cond.sizes + 64)):
            assert (family_of(family).predict(model, noisy, steps, other) - before).abs().max() > 1e-4


def test_an_inpainting_unet_is_told_mask_and_picture(family: str) -> None:
    model = tiny_model(family, in_channels=9)
    noisy, steps = torch.randn(2, 4, 8, 8), torch.tensor([10, 700])
    concat = torch.cat([torch.ones(2, 1, 8, 8), torch.randn(2, 4, 8, 8)], 1)
    first = family_of(family).predict(model, noisy, steps, cond_of(model, family, concat=concat))
    other = family_of(family).predict(model, noisy, steps, cond_of(model, family, concat=concat * 0.5))
    assert first.shape == (2, 4, 8, 8) and (first - other).abs().max() > 1e-4
    with pytest.raises(AssertionError):
        family_of(family).predict(model, noisy, steps, cond_of(model, family))


def test_other_families_and_odd_unets_are_refused(family: str, files: dict[str, Path], tmp_path: Path) -> None:
    for other in FAMILIES:
        if other != family:
            with pytest.raises(BadInput, match=family_of(family).title):
                family_of(family).load(files[other])
    odd = save_tiny_file(tmp_path, family=family, in_channels=5)
    with pytest.raises(BadInput, match="channels"):
        family_of(family).load(odd)


def test_nobody_else_asks_for_a_family_by_name() -> None:
    """`docs/adding-a-family.md` promises it: a family is named in trainer/models alone, but for tables of plain words."""
    import re

    root = Path(__file__).parents[2]
    tables = ("trainer/models/", "trainer/targets/notes.py", "trainer/targets/base.py", "trainer/tools/")
    asks = re.compile(r"[\"'](sd1|sd2|sdxl|sdxl_refiner)[\"']|\bis_(sd1|sd2|sdxl|xl)\b")
    found = [
        f"{path.relative_to(root).as_posix()}:{number}"
        for folder in ("trainer", "app", "captioners")
        for path in sorted((root / folder).rglob("*.py"))
        if not path.relative_to(root).as_posix().startswith(tables)
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if asks.search(line)
    ]
    assert found == []


def test_the_guide_shows_the_family_as_it_is() -> None:
    root = Path(__file__).parents[2]
    code = (root / "trainer" / "models" / "sdxl.py").read_text(encoding="utf-8")
    shown = (root / "docs" / "adding-a-family.md").read_text(encoding="utf-8")
    block = shown.split("```python\n")[1].split("```")[0]
    assert block.strip() in code


# --- broken and hostile ---

ODD_CONFIGS: list[tuple[str, dict[str, Any]]] = [
    ("unet", {"attention_head_dim": 0}),
    ("unet", {"block_out_channels": ["wide", "wider"]}),
    ("unet", {"down_block_types": ["NoSuchBlock", "DownBlock2D"]}),
    ("unet", {"layers_per_block": 10**9}),
    ("unet", {"transformer_layers_per_block": [10**9, 1]}),
    ("unet", {"cross_attention_dim": 10**12}),
    ("unet", {"norm_num_groups": 7}),
    ("vae", {"block_out_channels": None}),
    ("vae", {"latent_channels": "four"}),
    ("vae", {"scaling_factor": "0.2"}),
    ("vae", {"scaling_factor": 0}),
    ("vae", {"scaling_factor": 10**400}),
    ("vae", {"latents_mean": [1.0], "latents_std": [1.0, 1.0, 1.0, 1.0]}),
    ("vae", {"latents_mean": [0.0, 0.0, 0.0, 0.0], "latents_std": [1.0, 1.0, 1.0, 0.0]}),
    ("text_encoder", {"num_hidden_layers": 10**9}),
    ("text_encoder", {"num_attention_heads": 0}),
    ("text_encoder", {"hidden_size": -1}),
    ("text_encoder", {"hidden_act": "no such thing"}),
]


@pytest.mark.parametrize(("part", "odd"), ODD_CONFIGS)
def test_configs_that_describe_no_model_get_a_sentence(
    part: str, odd: dict[str, Any], folders: dict[str, Path], tmp_path: Path
) -> None:
    import shutil
    import time

    shutil.copytree(folders["sd1"], tmp_path / "odd")
    file = tmp_path / "odd" / part / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | odd), encoding="utf-8")
    began = time.process_time()
    with pytest.raises(BadInput):
        family_of("sd1").load(tmp_path / "odd", parts={part})  # type: ignore[arg-type]
    assert time.process_time() - began < 2


@pytest.mark.parametrize("config", ["[]", "{", '{"_class_name": 5}', "null", '"text"', "\x00"])
def test_configs_that_are_none_get_a_sentence(config: str, folders: dict[str, Path], tmp_path: Path) -> None:
    import shutil

    folder = shutil.copytree(folders["sdxl"], tmp_path / "odd")
    for part in ("unet", "vae", "text_encoder", "text_encoder_2"):
        file = folder / part / "config.json"
        whole = file.read_bytes()
        file.write_text(config, encoding="utf-8")
        with pytest.raises(BadInput):
            family_of("sdxl").load(folder)
        file.write_bytes(whole)


@pytest.mark.parametrize("shape", [(), (0,), (1,), (3, 0), (7, 5, 2)])
def test_tensors_of_odd_shapes_get_a_sentence(
    family: str, shape: tuple[int, ...], files: dict[str, Path], tmp_path: Path
) -> None:
    """Every tensor of which a size is read, in turn; they are refused before any weight is looked at."""
    header = read_header(files[family])
    shapes = {name: info.shape for name, info in header.tensors.items()}
    path = tmp_path / "odd.safetensors"
    path.with_suffix(".json").write_bytes(files[family].with_suffix(".json").read_bytes())
    read = (
        "input_blocks.0.0.weight", "out.2.weight", "attn2.to_k.weight", "proj_in.weight", "label_emb.0.0.weight",
        "encoder.conv_in.weight", "decoder.conv_out.weight", "post_quant_conv.weight", "token_embedding.weight",
        "position_embedding.weight", "positional_embedding", "fc1.weight", "c_fc.weight", "in_proj_weight", "in_proj_bias",
        "text_projection",
    )  # fmt: skip
    for end in read:
        names = [name for name in shapes if name.endswith(end)]
        if not names or (end == "text_projection" and family == "sd2"):
            continue
        write_shapes(path, shapes | {names[0]: shape}, header.metadata, "F32")
        parts = part_of(names[0], family)
        with pytest.raises(BadInput):
            family_of(family).load(path, parts=parts)


def part_of(name: str, family: str) -> set[Any]:
    """The parts that have to be read for a tensor of a file to matter."""
    prefixes = {keys.LDM_UNET: "unet", keys.LDM_VAE: "vae"}
    return next(({part} for prefix, part in prefixes.items() if name.startswith(prefix)), set(family_of(family).text_parts))
