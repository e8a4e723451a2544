"""What a family says of a run: clip skip, sizes, zero terminal SNR, missing parts; and what it suggests instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.data.draw import dataset
from tests.families import save_kind, silenced
from tests.runs import draw_pictures, go, tiny_run
from tests.tiny import family_of, save_tiny_file, tiny_model
from trainer.check import check_run
from trainer.config.files import check_values, to_values
from trainer.config.run import KARRAS, Folder, Images, Model, Noise, Prompt, RunFile, Samples
from trainer.errors import BadInput
from trainer.models.header import TRAINABLE, ModelFacts, inspect_file
from trainer.models.protocol import Components
from trainer.models.suggestions import preview_side, suggestions
from trainer.models.tensor_file import read_file, write_file


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    made = {kind: save_kind(folder, kind) for kind in ("sd2", "sd2 v", "sd2 v zero", "sdxl")}
    (folder / "silent").mkdir()
    both = save_tiny_file(folder, "both", family="sdxl", prediction="v_prediction")
    says_epsilon(both)
    return made | {
        "sd1": save_tiny_file(folder, "sd1"), "silent": silenced(save_kind(folder / "silent", "sd2")), "both": both,
    }  # fmt: skip


def says_epsilon(path: Path) -> None:
    """Metadata that a merge has left in a file whose marker says v-prediction."""
    tensors = read_file(path)
    kinds = {"torch.float32": "F32", "torch.int64": "I64"}
    rows = [(name, tuple(one.shape), kinds[str(one.dtype)], lambda one=one: one) for name, one in tensors.items()]
    write_file(path, rows, {"format": "pt", "modelspec.prediction_type": "epsilon"})


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return dataset(tmp_path_factory.mktemp("pictures") / "img", {"1_cat": 1}, captions=True)


def problems(path: Path, pictures: Path, model: dict[str, Any], **sections: Any) -> list[tuple[str, str, str]]:
    images = {"folders": (Folder(path=str(pictures)),), "resolution": (64, 64), "bucket_min": 64}
    run = RunFile(model=Model(path=str(path), **model), images=Images(**images | sections.pop("images", {})), **sections)
    return [(problem.place, problem.severity, str(problem.what)) for problem in check_run(run).problems]


@pytest.mark.parametrize(
    ("kind", "model", "sections", "place", "severity", "words"),
    [
        ("sd2", {"clip_skip": 2}, {}, "model.clip_skip", "error", "takes no clip skip"),
        ("sdxl", {"clip_skip": 2}, {}, "model.clip_skip", "error", "takes no clip skip"),
        ("sd2", {"zero_terminal_snr": "on"}, {}, "model.zero_terminal_snr", "error", "for v-prediction"),
        ("sd1", {"text_encoder_2": "x"}, {}, "model.text_encoder_2", "error", "one text encoder"),
        ("sd2 v", {"prediction": "epsilon"}, {}, "model.prediction", "warning", "says v-prediction"),
        ("silent", {}, {}, "model.prediction", "warning", "a test tells"),
        ("both", {}, {}, "model.prediction", "warning", "v-prediction is taken"),
        ("sd2 v zero", {}, {"noise": Noise(noise_offset=0.1)}, "noise.noise_offset", "warning", "not needed"),
    ],
)  # fmt: skip
def test_each_rule_speaks_at_its_place(
    models: dict[str, Path], pictures: Path, kind: str, model: dict[str, Any], sections: dict[str, Any], place: str,
    severity: str, words: str,
) -> None:  # fmt: skip
    found = problems(models[kind], pictures, model, **sections)
    assert [(where, how) for where, how, what in found if words in what] == [(place, severity)]
    assert [where for where, how, _ in found if how == "error"] in ([], [place], [place, place])


@pytest.mark.parametrize("kind", ["sd1", "sd2 v", "sd2 v zero", "sdxl"])
def test_what_fits_is_left_alone(models: dict[str, Path], pictures: Path, kind: str) -> None:
    assert problems(models[kind], pictures, {}) == []
    zero = {"zero_terminal_snr": "on"} if " v" in kind else {"clip_skip": 1}
    assert problems(models[kind], pictures, zero) == []


@pytest.mark.parametrize(
    ("kind", "model", "told"),
    [
        ("sd2 v zero", {}, True),
        ("sd2 v zero", {"zero_terminal_snr": "off"}, False),
        ("sd2 v", {}, False),
        ("sd2 v", {"zero_terminal_snr": "on"}, True),
        ("silent", {"zero_terminal_snr": "on"}, True),  # it may turn out to predict v
        ("sd2 v zero", {"prediction": "epsilon"}, False),  # then it is trained and drawn without
        ("sd1", {}, False),
    ],
)
def test_karras_steps_from_pure_noise_are_told(
    models: dict[str, Path], pictures: Path, kind: str, model: dict[str, Any], told: bool
) -> None:
    """Why, and that the others draw well: tests/test_sampler_accuracy.py."""
    prompts = tuple(Prompt(prompt="a cat", sampler=name) for name in ("euler_a", *KARRAS, "ddim"))
    found = problems(models[kind], pictures, model, samples=Samples(prompts=prompts))
    expected = [("samples.prompts[2].sampler", "warning")] if told else []
    assert [(where, how) for where, how, _ in found if where.startswith("samples")] == expected
    assert all("Karras" in what for where, _, what in found if where.startswith("samples"))


def test_sizes_below_the_native_one_are_told(models: dict[str, Path], pictures: Path) -> None:
    small = {"resolution": (64, 64)}
    facts = inspect_file(models["sd1"])
    assert facts.native_resolution == 64 and problems(models["sd1"], pictures, {}, images=small) == []
    silent = problems(models["silent"], pictures, {}, images=small)  # nothing says its size, so the family's 512 counts
    assert [(where, how) for where, how, what in silent if "blur" in what] == [("images.resolution", "warning")]


def test_a_vae_or_text_encoder_of_another_family_is_refused(models: dict[str, Path], pictures: Path) -> None:
    other = str(models["sdxl"])
    for key in ("vae", "text_encoder"):
        found = problems(models["sd1"], pictures, {key: other})
        assert [(where, how) for where, how, _ in found] == [(f"model.{key}", "error")], found


# --- parts from other files ---


def without(family: str, folder: Path, *parts: str) -> Path:
    """A tiny model's file that lacks parts."""
    components = tiny_model(family)
    for part in parts:
        setattr(components, part, None)
    path = folder / f"{family}_bare.safetensors"
    family_of(family).save(components, path, None, {"modelspec.resolution": "64x64"})
    return path


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_missing_parts_are_taken_from_another_model(family: str, tmp_path: Path) -> None:
    bare = without(family, tmp_path, "vae", *family_of(family).text_parts)
    whole = save_tiny_file(tmp_path, "whole", family=family)
    pictures = draw_pictures(tmp_path / "img", [(64, 64)])
    told = {place for place, _, _ in problems(bare, pictures / "1_zork emblem", {})}
    assert "model.path" in told
    given = {"vae": str(whole), "text_encoder": str(whole)}
    assert [entry for entry in problems(bare, pictures, given) if entry[1] == "error"] == []
    run = tiny_run(whole, pictures, training={"steps": 1})
    _, expected = go(run, tmp_path / "whole run")
    from_two = run.model_copy(update={"model": Model(path=str(bare), **given)})
    _, got = go(from_two, tmp_path / "run of two")
    assert got.losses == expected.losses
    with pytest.raises(BadInput, match="text encoder"):
        go(run.model_copy(update={"model": Model(path=str(bare), vae=str(whole))}), tmp_path / "refused")


# --- suggestions ---


def test_suggestions_are_settings_and_every_family_speaks_of_the_same(models: dict[str, Path]) -> None:
    places = set()
    for kind in ("sd1", "sd2", "sdxl"):
        made = suggestions(inspect_file(models[kind]))
        places.add(tuple(suggestion.place for suggestion in made))
        values = to_values(RunFile())
        values["model"]["path"] = str(models[kind])
        values["images"]["folders"] = [{"path": "p"}]
        for suggestion in made:
            section, key = suggestion.place.split(".")
            assert key in values[section] and str(suggestion.why)
            values[section][key] = suggestion.value
        assert [problem for problem in check_values(values)[1] if problem.severity == "error"] == []
    assert len(places) == 1


def test_what_each_family_wants() -> None:
    from trainer.messages import say

    def wanted(family: str, **more: Any) -> dict[str, Any]:
        facts = ModelFacts(Path("m"), "base", family, say("x"), **more)
        return {suggestion.place: suggestion.value for suggestion in suggestions(facts)}

    sdxl = wanted("sdxl", native_resolution=1024)
    assert sdxl["images.resolution"] == (1024, 1024) and sdxl["network.train"] == "unet"
    assert sdxl["images.bucket_min"] == 512 and sdxl["images.bucket_max"] == 2048 and sdxl["speed.gradient_checkpointing"]
    sd1 = wanted("sd1", native_resolution=512)
    assert sd1["images.resolution"] == (512, 512) and sd1["network.train"] == "both"
    assert sd1["images.bucket_min"] == 256 and sd1["images.bucket_max"] == 1024
    assert wanted("sd2", native_resolution=768)["images.resolution"] == (768, 768)
    assert wanted("sdxl", zero_snr=True)["noise.noise_offset"] == 0.0
    assert wanted("flux") == {} and suggestions(ModelFacts(Path("m"), "lora", "sd1", say("x"))) == ()
    assert preview_side(ModelFacts(Path("m"), "base", "sdxl", say("x"), native_resolution=1024)) == 1024
    assert set(TRAINABLE) == {"sd1", "sd2", "sdxl"}, "a new family has suggestions of its own"


def test_components_of_two_files_have_one_tokenizer(tmp_path: Path) -> None:
    """What the text encoders are read with comes with them."""
    bare = without("sd1", tmp_path, "text_encoder")
    whole = save_tiny_file(tmp_path, "whole")
    loaded: Components = family_of("sd1").load(bare, None, {"text_encoder"}, text_encoders=(whole,))
    assert loaded.tokenizer is not None and loaded.text_encoder is not None and loaded.unet is None
