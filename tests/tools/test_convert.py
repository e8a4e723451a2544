"""Converting: the same bits in every container, precision, averaged weights, other VAEs, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tests.tiny import save_tiny_file, save_tiny_folder
from tests.tools.material import UNET, Tensors, base_file, changed, lora_file, save, unet_output, use
from trainer.errors import BadInput
from trainer.models.configs import config_beside
from trainer.models.safetensors_file import read_header
from trainer.models.tensor_file import read_file

VAE = "first_stage_model."


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_file(tmp_path_factory.mktemp("base"))


def same(one: Tensors, other: Tensors) -> bool:
    return set(one) == set(other) and all(
        one[name].dtype == other[name].dtype and torch.equal(one[name], other[name]) for name in one
    )


def test_to_ckpt_and_back_is_the_same_file(base: Path, tmp_path: Path) -> None:
    use("convert", model=base, output=tmp_path / "m.ckpt")
    use("convert", model=tmp_path / "m.ckpt", output=tmp_path / "m.safetensors")
    assert same(read_file(base), read_file(tmp_path / "m.safetensors"))
    data = [path.read_bytes()[read_header(path).data_start :] for path in (base, tmp_path / "m.safetensors")]
    assert data[0] == data[1], "byte for byte"
    assert config_beside(tmp_path / "m.safetensors") == config_beside(base)


def test_torch_reads_a_ckpt_in_its_safe_mode(base: Path, tmp_path: Path) -> None:
    """Also mapped into memory, for which tensors have to begin at multiples of 64."""
    mixed = changed(base, tmp_path / "mixed.safetensors", lambda tensors: tensors.update(
        {"alphas_cumprod": torch.rand(10, dtype=torch.float64), "steps": torch.tensor([3], dtype=torch.int64),
         "flag": torch.tensor([True]), "half": torch.ones(3, dtype=torch.bfloat16), "empty": torch.ones(0, 4),
         "scalar": torch.tensor(2.5)}))  # fmt: skip
    use("convert", model=mixed, output=tmp_path / "m.ckpt")
    for mapped in (False, True):
        state = torch.load(tmp_path / "m.ckpt", weights_only=True, mmap=mapped)["state_dict"]
        assert same(state, read_file(mixed))
    import zipfile

    with zipfile.ZipFile(tmp_path / "m.ckpt") as archive:
        assert archive.testzip() is None
        for entry in archive.infolist():
            name, extra = len(entry.filename.encode()), _extra_bytes(tmp_path / "m.ckpt", entry.header_offset)
            assert (entry.header_offset + 30 + name + extra) % 64 == 0


def _extra_bytes(path: Path, offset: int) -> int:
    with path.open("rb") as handle:
        handle.seek(offset + 28)
        return int.from_bytes(handle.read(2), "little")


@pytest.mark.parametrize(
    ("precision", "dtype"), [("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)]
)
def test_precision_is_that_of_a_cast(base: Path, tmp_path: Path, precision: str, dtype: torch.dtype) -> None:
    schedule = changed(
        base, tmp_path / "s.safetensors", lambda tensors: tensors.update(alphas_cumprod=torch.rand(1000))
    )
    use("convert", model=schedule, output=tmp_path / "m.safetensors", precision=precision)
    before, after = read_file(schedule), read_file(tmp_path / "m.safetensors")
    assert after.pop("alphas_cumprod").dtype == torch.float32, "a schedule is no weight"
    for name, tensor in after.items():
        expected = before[name].to(dtype) if before[name].is_floating_point() else before[name]
        assert tensor.dtype == expected.dtype and torch.equal(tensor, expected)


@pytest.fixture(scope="module")
def averaged(base: Path) -> Path:
    """A model as the first trainers wrote it: the UNet's averages beside it, under flattened names."""

    def add(tensors: Tensors) -> None:
        for name in [name for name in tensors if name.startswith(UNET)]:
            tensors["model_ema." + name.removeprefix("model.").replace(".", "")] = tensors[name] + 1
        tensors["model_ema.decay"] = torch.tensor(0.9999)
        tensors["model_ema.num_updates"] = torch.tensor(7)

    return changed(base, base.with_name("averaged.safetensors"), add)


def test_averaged_weights_are_dropped_taken_or_kept(base: Path, averaged: Path, tmp_path: Path) -> None:
    result = use("convert", model=averaged, output=tmp_path / "drop.safetensors")
    assert same(read_file(base), read_file(tmp_path / "drop.safetensors"))
    assert "averaged weights (EMA) were left out" in str(result.notes[0])
    use("convert", model=averaged, output=tmp_path / "take.safetensors", ema="take")
    taken, before = read_file(tmp_path / "take.safetensors"), read_file(base)
    assert set(taken) == set(before)
    for name in taken:
        assert torch.equal(taken[name], before[name] + 1 if name.startswith(UNET) else before[name])
    use("convert", model=averaged, output=tmp_path / "keep.safetensors", ema="keep")
    assert same(read_file(averaged), read_file(tmp_path / "keep.safetensors"))
    with pytest.raises(BadInput, match="no averaged weights"):
        use("convert", model=base, output=tmp_path / "none.safetensors", ema="take")


def test_incomplete_averages_are_not_taken(averaged: Path, tmp_path: Path) -> None:
    first = "model_ema.diffusion_modelout2weight"
    broken = changed(averaged, tmp_path / "broken.safetensors", lambda tensors: tensors.pop(first))
    with pytest.raises(BadInput, match=r"lack 1 of the UNet's, for example model\.diffusion_model\.out\.2\.weight"):
        use("convert", model=broken, output=tmp_path / "none.safetensors", ema="take")


def test_another_vae_from_every_kind_of_file(base: Path, tmp_path: Path) -> None:
    other = read_file(base_file(tmp_path, "other", seed=9))
    expected = {name: tensor for name, tensor in other.items() if name.startswith(VAE)}
    alone = save(tmp_path / "alone.safetensors", {name.removeprefix(VAE): tensor for name, tensor in expected.items()})
    alone.with_suffix(".json").write_bytes(base.with_suffix(".json").read_bytes())
    torch.save(
        {"state_dict": {name.removeprefix(VAE): tensor for name, tensor in expected.items()}}, tmp_path / "vae.pt"
    )
    (tmp_path / "vae.json").write_bytes(base.with_suffix(".json").read_bytes())
    before = read_file(base)
    for vae in (tmp_path / "other.safetensors", alone, tmp_path / "vae.pt"):
        use("convert", model=base, output=tmp_path / "m.safetensors", vae=vae, overwrite=True)
        after = read_file(tmp_path / "m.safetensors")
        assert all(
            torch.equal(after[name], expected[name] if name.startswith(VAE) else before[name]) for name in before
        )


def test_a_diffusers_vae_is_taken_by_name(base: Path, tmp_path: Path) -> None:
    from tests.tiny import tiny_sd1

    parts = tiny_sd1(seed=9)
    parts.vae.save_pretrained(tmp_path / "vae")
    use("convert", model=base, output=tmp_path / "m.safetensors", vae=tmp_path / "vae")
    expected = read_file(base_file(tmp_path, "other", seed=9))
    after = read_file(tmp_path / "m.safetensors")
    assert all(torch.equal(after[name], expected[name]) for name in after if name.startswith(VAE))
    assert after[f"{VAE}encoder.mid.attn_1.q.weight"].dim() == 4, "a 1×1 convolution, as LDM files have it"


def test_a_vae_that_does_not_belong_is_refused(base: Path, tmp_path: Path) -> None:
    """Of another family, or with half of its tensors (a decoder alone)."""
    xl = save_tiny_file(tmp_path, "xl", family="sdxl")
    half = changed(base, tmp_path / "half.safetensors", lambda tensors: [
        tensors.pop(name) for name in list(tensors) if name.startswith(f"{VAE}encoder.mid")])  # fmt: skip
    for vae, sentence in ((xl, "A VAE for Stable Diffusion 1.x is needed here"), (half, r"is not whole: \d+ tensors")):
        for tool, settings in (("convert", {"model": base}), ("merge", {"model_a": base, "model_b": base})):
            with pytest.raises(BadInput, match=sentence):
                use(tool, output=tmp_path / "m.safetensors", vae=vae, **settings)


def test_early_models_get_the_usual_names(base: Path, tmp_path: Path) -> None:
    short = {
        name.replace("transformer.text_model.", "transformer."): tensor for name, tensor in read_file(base).items()
    }
    early = save(tmp_path / "early.safetensors", short)
    early.with_suffix(".json").write_bytes(base.with_suffix(".json").read_bytes())
    use("convert", model=early, output=tmp_path / "m.safetensors")
    assert same(read_file(base), read_file(tmp_path / "m.safetensors"))


def test_loras_and_others_change_container_and_precision(base: Path, tmp_path: Path) -> None:
    lora = lora_file(tmp_path / "lora.safetensors", base)
    use("convert", model=lora, output=tmp_path / "half.safetensors", precision="fp16")
    header = read_header(tmp_path / "half.safetensors")
    assert {info.dtype for info in header.tensors.values()} == {"F16"}
    before = read_header(lora).metadata
    assert header.metadata["ss_network_dim"] == before["ss_network_dim"]
    assert header.metadata["sshs_model_hash"] != before["sshs_model_hash"], "the hash is of the new bytes"
    torch.save(read_file(lora), tmp_path / "old.pt")
    use("convert", model=tmp_path / "old.pt", output=tmp_path / "new.safetensors")
    assert same(read_file(lora), read_file(tmp_path / "new.safetensors"))


def test_metadata_stays(base: Path, tmp_path: Path) -> None:
    use("convert", model=base, output=tmp_path / "m.safetensors", precision="fp16")
    metadata, before = read_header(tmp_path / "m.safetensors").metadata, read_header(base).metadata
    kept = {name: text for name, text in before.items() if name != "modelspec.hash_sha256"}
    assert kept.items() <= metadata.items() and metadata["modelspec.resolution"] == "64x64"


def test_an_awkward_name_and_notes_beside_it(base: Path, awkward: Path) -> None:
    """The WebUI's notes in a .json of the same name keep what they say."""
    output = awkward / "模型 (1).safetensors"
    output.with_suffix(".json").write_text('{"notes": "mine", "vae": "x"}', encoding="utf-8")
    use("convert", model=base, output=output)
    assert same(read_file(base), read_file(output))
    beside = json.loads(output.with_suffix(".json").read_text(encoding="utf-8"))
    assert beside["notes"] == "mine" and config_beside(output)["vae"] == config_beside(base)["vae"]


def test_what_cannot_be_converted_is_refused(base: Path, tmp_path: Path) -> None:
    lora = lora_file(tmp_path / "lora.safetensors", base)
    text = tmp_path / "text.safetensors"
    text.write_text("no model", encoding="utf-8")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "a").write_text("", encoding="utf-8")
    cases = [
        ({"model": text}, "cannot be converted"),
        ({"model": tmp_path / "none.ckpt"}, "There is no file"),
        ({"model": lora, "vae": base}, "needs a base model"),
        ({"model": lora, "output": tmp_path / "folder"}, "needs a base model"),
        ({"vae": lora}, "A VAE is needed"),
        ({"output": base}, "The output is what is read"),
        ({"output": tmp_path / "full"}, "There is a folder of this name"),
        ({"output": tmp_path / "full", "overwrite": True}, "There is a folder of this name"),
        ({"output": base.parent, "overwrite": True}, "The output is what is read, or lies in it"),
    ]
    for settings, sentence in cases:
        with pytest.raises(BadInput) as refused:
            use("convert", **{"model": base, "output": tmp_path / "m.safetensors", **settings})
        assert sentence in str(refused.value)
    assert (tmp_path / "full" / "a").exists(), "a folder of the user's is never replaced"
    assert not (tmp_path / "m.safetensors").exists() and not (tmp_path / "folder").exists()


def test_the_result_draws_the_same(base: Path, tmp_path: Path) -> None:
    use("convert", model=base, output=tmp_path / "m.ckpt")
    assert torch.equal(unet_output(tmp_path / "m.ckpt"), unet_output(base))


# --- diffusers folders ---


def weights_of(folder: Path) -> dict[str, Tensors]:
    """The tensors of each part; transformers 5 writes a text encoder's names without the level that all files have."""
    found = {path.parent.name: read_file(path) for path in folder.glob("*/*.safetensors")}
    if "text_encoder" in found:
        names = {name: name if name.startswith("text_") else f"text_model.{name}" for name in found["text_encoder"]}
        found["text_encoder"] = {names[name]: tensor for name, tensor in found["text_encoder"].items()}
    return found


def test_to_a_folder_and_back_is_the_same(base: Path, tmp_path: Path) -> None:
    use("convert", model=base, output=tmp_path / "folder")
    use("convert", model=tmp_path / "folder", output=tmp_path / "m.safetensors")
    assert same(read_file(base), read_file(tmp_path / "m.safetensors"))
    assert torch.equal(unet_output(tmp_path / "folder"), unet_output(base))
    assert not list(tmp_path.glob(".*")), "nothing temporary is left"


def test_a_folder_of_the_libraries_comes_back_bit_for_bit(tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "theirs")
    use("convert", model=folder, output=tmp_path / "m.safetensors")
    use("convert", model=tmp_path / "m.safetensors", output=tmp_path / "ours")
    before, after = weights_of(folder), weights_of(tmp_path / "ours")
    assert set(before) == set(after) == {"unet", "vae", "text_encoder"}
    assert all(same(before[part], after[part]) for part in before)
    use("convert", model=folder, output=tmp_path / "again")
    assert all(same(before[part], tensors) for part, tensors in weights_of(tmp_path / "again").items())


def test_diffusers_draws_with_the_folder(base: Path, tmp_path: Path) -> None:
    from diffusers import StableDiffusionPipeline

    use("convert", model=base, output=tmp_path / "folder", precision="fp16")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "folder", local_files_only=True, dtype=torch.float32)
    for part, tensors in weights_of(tmp_path / "folder").items():
        assert {tensor.dtype for tensor in tensors.values()} == {torch.float16}
        module = getattr(pipeline, part)
        assert len(module.state_dict()) == len(tensors)
    before = read_file(base)[f"{UNET}out.2.weight"].half().float()
    assert torch.equal(pipeline.unet.conv_out.weight, before)
    assert pipeline.scheduler.config.prediction_type == "epsilon"


def test_a_folder_is_merged_and_baked_like_a_file(base: Path, tmp_path: Path) -> None:
    from trainer.tools.catalog import LoraEntry

    use("convert", model=base, output=tmp_path / "folder")
    lora = LoraEntry(path=str(lora_file(tmp_path / "lora.safetensors", base)))
    for source in (base, tmp_path / "folder"):
        use("bake", model=source, loras=(lora,), output=tmp_path / f"{source.stem}-baked.safetensors")
    one, other = (read_file(tmp_path / f"{name}-baked.safetensors") for name in ("base", "folder"))
    assert same(one, other)


def test_a_folder_is_overwritten_only_if_asked_and_only_if_it_is_a_model(base: Path, tmp_path: Path) -> None:
    output = tmp_path / "folder"
    output.mkdir()
    use("convert", model=base, output=output, overwrite=True)
    with pytest.raises(BadInput, match="There is a file or folder of this name"):
        use("convert", model=base, output=output)
    use("convert", model=base, output=output, overwrite=True, precision="fp16")
    assert {tensor.dtype for tensor in weights_of(output)["unet"].values()} == {torch.float16}
    with pytest.raises(BadInput, match="or lies in it"):
        use("convert", model=output, output=output / "m.safetensors")


def test_an_incomplete_model_makes_no_folder(base: Path, tmp_path: Path) -> None:
    name = f"{UNET}out.2.bias"
    broken = changed(base, tmp_path / "broken.safetensors", lambda tensors: tensors.pop(name))
    with pytest.raises(BadInput, match=r"the tensor conv_out\.bias of the unet is missing"):
        use("convert", model=broken, output=tmp_path / "folder")
    assert not (tmp_path / "folder").exists() and not list(tmp_path.glob(".*"))
