"""What a model predicts is told by every form that a tool writes, and never claimed where nobody knows it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families import silenced
from tests.tiny import save_tiny_file, save_tiny_folder
from tests.tools.material import save, use
from tests.tools.test_families import trained
from trainer.export import save_adapter
from trainer.models.header import inspect_file
from trainer.models.safetensors_file import read_header
from trainer.models.tensor_file import read_file
from trainer.models.weights_file import read_header as read_any_header
from trainer.tools.catalog import LoraEntry

KINDS: dict[str, dict[str, Any]] = {
    "sd1": {"family": "sd1"},
    "sd1 v": {"family": "sd1", "prediction": "v_prediction"},
    "sd2": {"family": "sd2"},
    "sd2 v": {"family": "sd2", "prediction": "v_prediction"},
    "sdxl v zero": {"family": "sdxl", "prediction": "v_prediction", "zero_snr": True},
}


def told(path: Path) -> tuple[str | None, bool]:
    facts = inspect_file(path)
    assert facts.kind == "base", facts.summary
    return facts.prediction, bool(facts.zero_snr)


@pytest.mark.parametrize("kind", KINDS)
def test_every_form_tells_it(kind: str, tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "theirs", **KINDS[kind])
    wanted = told(folder)
    assert wanted == (KINDS[kind].get("prediction", "epsilon"), KINDS[kind].get("zero_snr", False))
    file, pickled, again = tmp_path / "one.safetensors", tmp_path / "two.ckpt", tmp_path / "three.safetensors"
    use("convert", model=folder, output=file)
    use("convert", model=file, output=tmp_path / "ours")
    use("convert", model=file, output=pickled)
    use("convert", model=pickled, output=again)
    use("convert", model=folder, output=tmp_path / "four.ckpt")
    use("merge", model_a=folder, model_b=folder, output=tmp_path / "five.ckpt")
    use("merge", model_a=folder, model_b=folder, output=tmp_path / "six.safetensors")
    family = KINDS[kind]["family"]
    _, network = trained(family, file)
    save_adapter(tmp_path / "lora.safetensors", network.state_tensors(), {}, torch.float32)
    entry = LoraEntry(path=str(tmp_path / "lora.safetensors"))
    use("bake", model=folder, loras=(entry,), output=tmp_path / "seven.safetensors")
    written = [file, pickled, again, tmp_path / "ours", *tmp_path.glob("f*.ckpt"), *tmp_path.glob("s*.safetensors")]
    assert len(written) == 8
    assert {path.name: told(path) for path in written} == {path.name: wanted for path in written}


@pytest.mark.parametrize("kind", ["sd1 v", "sdxl v zero"])
def test_programs_find_the_marker(kind: str, tmp_path: Path) -> None:
    """They look for it in families that mostly predict noise, and do not read a header's words."""
    folder = save_tiny_folder(tmp_path / "theirs", **KINDS[kind])
    for name in ("one.safetensors", "two.ckpt"):
        use("convert", model=folder, output=tmp_path / name)
        assert "v_pred" in read_any_header(tmp_path / name).tensors
        assert ("ztsnr" in read_any_header(tmp_path / name).tensors) == ("zero" in kind)


def test_the_header_says_what_a_folder_says(tmp_path: Path) -> None:
    use("convert", model=save_tiny_folder(tmp_path / "theirs", family="sd2"), output=tmp_path / "m.safetensors")
    metadata = read_header(tmp_path / "m.safetensors").metadata
    assert metadata["modelspec.architecture"] == "stable-diffusion-v2-512"
    assert metadata["modelspec.prediction_type"] == "epsilon" and metadata["modelspec.title"] == "m"
    assert metadata["modelspec.resolution"] == "512x512" and "generative-models" in metadata["modelspec.implementation"]


def test_what_a_header_lacks_is_added_and_what_it_says_stays(tmp_path: Path) -> None:
    """As of files of other programs, which say little or nothing."""
    given = save_tiny_file(tmp_path, "given", family="sd1")
    said = {"modelspec.title": "Mine", "modelspec.architecture": "stable-diffusion-v1"}
    cases: dict[str, dict[str, str]] = {"bare": {}, "some": said}
    for name, metadata in cases.items():
        save(tmp_path / f"{name}.safetensors", read_file(given), metadata)
        (tmp_path / f"{name}.json").write_bytes(given.with_suffix(".json").read_bytes())
        use("convert", model=tmp_path / f"{name}.safetensors", output=tmp_path / f"{name} out.safetensors")
        entries = read_header(tmp_path / f"{name} out.safetensors").metadata
        assert entries["modelspec.resolution"] == "512x512" and entries["modelspec.sai_model_spec"] == "1.0.1"
        assert entries["modelspec.title"] == metadata.get("modelspec.title", "bare out")
        assert entries["modelspec.architecture"] == "stable-diffusion-v1"
        assert entries["modelspec.prediction_type"] == "epsilon" and entries["modelspec.hash_sha256"]


@pytest.mark.parametrize("family", ["sd1", "sd2"])
def test_what_a_yaml_beside_says_goes_on_in_what_is_written(family: str, tmp_path: Path) -> None:
    """The original programs' config is all that says it, and it does not lie beside the new file."""
    model = silenced(save_tiny_file(tmp_path, "theirs", family=family, prediction="v_prediction"))
    other = silenced(save_tiny_file(tmp_path, "other", family=family, prediction="v_prediction", seed=1))
    for path in (model, other):
        path.with_suffix(".json").unlink()
        text = "model:\n  params:\n    parameterization: v\n    unet_config: {params: {num_heads: 2}}\n"
        path.with_suffix(".yaml").write_text(text, encoding="utf-8")
    assert told(model) == ("v_prediction", False) and inspect_file(model).prediction_source == "config"
    out = tmp_path / "out"
    out.mkdir()
    use("convert", model=model, output=out / "a.safetensors")
    use("convert", model=model, output=out / "b.ckpt")
    use("convert", model=out / "b.ckpt", output=out / "c.safetensors")
    use("merge", model_a=model, model_b=other, output=out / "d.safetensors")
    use("extract", base=model, tuned=other, output=tmp_path / "lora.safetensors", rank=1)
    use("bake", model=model, loras=(LoraEntry(path=str(tmp_path / "lora.safetensors")),), output=out / "e.safetensors")
    for path in out.glob("*.json"):
        path.unlink()  # the sizes of tiny models
    assert {path.name: told(path) for path in out.iterdir()} == dict.fromkeys(
        ("a.safetensors", "b.ckpt", "c.safetensors", "d.safetensors", "e.safetensors"), ("v_prediction", False)
    )
    for path in [*out.glob("*.safetensors"), tmp_path / "lora.safetensors"]:
        entries = read_header(path).metadata
        assert entries["modelspec.prediction_type"] == "v", path.name
        assert family == "sd1" or entries["modelspec.architecture"].startswith("stable-diffusion-v2-768-v")


def test_what_nobody_knows_is_not_claimed(tmp_path: Path) -> None:
    """SD 2.x files look alike: a merge of two that say nothing says nothing, nor does a LoRA out of them."""
    one, other = (silenced(save_tiny_file(tmp_path, name, family="sd2", seed=seed)) for seed, name in enumerate("ab"))
    assert told(one) == (None, False)
    use("merge", model_a=one, model_b=other, output=tmp_path / "m.safetensors")
    use("convert", model=one, output=tmp_path / "c.safetensors")
    use("convert", model=one, output=tmp_path / "c.ckpt")
    assert [told(tmp_path / name) for name in ("m.safetensors", "c.safetensors", "c.ckpt")] == [(None, False)] * 3
    assert "modelspec.resolution" not in read_header(tmp_path / "c.safetensors").metadata
    use("extract", base=one, tuned=other, output=tmp_path / "lora.safetensors", rank=1)
    facts = inspect_file(tmp_path / "lora.safetensors")
    assert (facts.family, facts.prediction) == ("sd2", None)
    result = use("convert", model=one, output=tmp_path / "folder")
    assert "Nothing says whether the model predicts noise or v" in str(result.notes[0])


@pytest.mark.parametrize(
    ("family", "said"),
    [
        ("sd1", "stable-diffusion-v1/inpaint"),
        ("sd2", "stable-diffusion-v2-inpainting"),
        ("sdxl", "stable-diffusion-xl-v1-base"),  # no word for it is in use
    ],
)
def test_an_inpainting_model_is_called_so_where_a_word_is_in_use(family: str, said: str, tmp_path: Path) -> None:
    """SwarmUI tells it by this; a LoRA out of one is for the family as any other."""
    one = save_tiny_file(tmp_path, "one", family=family, in_channels=9)
    other = save_tiny_folder(tmp_path / "other", family=family, in_channels=9, seed=1)
    use("convert", model=other, output=tmp_path / "other.safetensors")
    use("merge", model_a=one, model_b=other, output=tmp_path / "merged.safetensors")
    for name in ("one", "other", "merged"):
        path = tmp_path / f"{name}.safetensors"
        assert read_header(path).metadata["modelspec.architecture"] == said
        assert inspect_file(path).in_channels == 9 and told(path) == ("epsilon", False)
    use("extract", base=one, tuned=tmp_path / "other.safetensors", output=tmp_path / "lora.safetensors", rank=1)
    facts = inspect_file(tmp_path / "lora.safetensors")
    plain = {"sd1": "stable-diffusion-v1", "sd2": "stable-diffusion-v2-512", "sdxl": "stable-diffusion-xl-v1-base"}
    assert dict(facts.metadata)["modelspec.architecture"] == f"{plain[family]}/lora" and facts.family == family
