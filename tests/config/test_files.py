"""Run files: what is written is read back, and every problem is told at once."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.config.fields import bounds_of, item_section, plain_type, settings_of
from trainer.config.files import check_values, parse_toml, read_run, to_toml, to_values, write_run
from trainer.config.migrate import migrate
from trainer.config.reference import TARGET, settings_page
from trainer.config.run import (
    FORMAT,
    Folder,
    Images,
    Model,
    Optimizer,
    Prompt,
    RunFile,
    Samples,
    default_values,
    sections,
)
from trainer.errors import BadInput, BadRunFile

TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), max_size=40)
GOOD = {"model": {"path": "m.safetensors"}, "images": {"folders": [{"path": "p"}]}}


def problems_of(values: dict) -> dict[str, str]:
    return {problem.place: str(problem) for problem in check_values(values)[1] if problem.severity == "error"}


def full_run(path: str = "m.safetensors", folder: str = "10_cat") -> RunFile:
    return RunFile(
        model=Model(path=path),
        images=Images(folders=(Folder(path=folder), Folder(path="b", repeats=3, enabled=False))),
        samples=Samples(prompts=(Prompt(prompt='a "quoted" cat\\n', negative="低质量"),)),
        optimizer=Optimizer(arguments={"weight_decay": 0.1, "betas": [0.9, 0.99]}),
    )


def test_a_written_file_is_read_back_equal(awkward: Path) -> None:
    run = full_run(str(awkward / "模型.safetensors"), str(awkward))
    write_run(awkward / "run.toml", run)
    assert read_run(awkward / "run.toml").model == run.model
    values = parse_toml(to_toml(run), "run.toml")
    assert check_values(values)[0] == run


def test_an_empty_setting_stays_empty_whatever_its_default() -> None:
    run = full_run().model_copy(update={"optimizer": Optimizer(text_encoder_rate=None, unet_rate=None)})
    assert Optimizer().text_encoder_rate is not None
    read, _ = check_values(parse_toml(to_toml(run), "run.toml"))
    assert read == run
    assert "optimizer.learning_rate" in problems_of({**GOOD, "optimizer": {"learning_rate": ""}})


def test_relative_paths_start_at_the_file(awkward: Path) -> None:
    write_run(awkward / "run.toml", full_run())
    run = read_run(awkward / "run.toml")
    assert run.model.path == str(awkward / "m.safetensors")
    assert run.images.folders[0].path == str(awkward / "10_cat")
    assert run.model.vae == ""


@given(path=TEXT, caption=TEXT, rate=st.floats(0, 1), weight=st.floats(-1e9, 1e9), text=TEXT)
def test_any_text_and_number_survives_the_file(path: str, caption: str, rate: float, weight: float, text: str) -> None:
    run = RunFile(
        model=Model(path=path),
        images=Images(folders=(Folder(path=path, caption=caption),)),
        optimizer=Optimizer(learning_rate=rate, arguments={"weight_decay": weight, "note": text, "on": True}),
    )
    tables = parse_toml(to_toml(run), "run.toml")
    assert RunFile(**{key: sections()[key](**values) for key, values in tables.items()}) == run


def test_every_setting_stands_in_the_file_with_its_help() -> None:
    text = " ".join(line.removeprefix("# ") for line in to_toml(full_run()).splitlines())
    for section in sections().values():
        for key, _field, info in settings_of(section):
            assert key in text
            assert info.help in text


def test_all_problems_are_told_at_once_with_the_way_out() -> None:
    found = problems_of(
        {
            "model": {"pth": "x", "clip_skip": "2", "token_length": 76},
            "images": {"resolution": [500, 512], "folders": [{"path": "a", "repeats": 0}, {"pat": "b"}]},
            "optimizer": {"learning_rate": "1e-4", "name": "AdamW8bits", "arguments": {"weightdecay": 1}},
            "netwrk": {},
            "noise": {"min_snr_gamma": float("nan")},
            "samples": 3,
        }
    )
    assert set(found) == {
        "model.pth", "model.clip_skip", "model.token_length", "model.path", "images.resolution",
        "images.folders[1].repeats", "images.folders[2].pat", "images.folders[2].path", "optimizer.learning_rate",
        "optimizer.name", "optimizer.arguments.weightdecay", "netwrk", "noise.min_snr_gamma", "samples",
    }  # fmt: skip
    assert "Did you mean path?" in found["model.pth"]
    assert "Did you mean network?" in found["netwrk"]
    assert "Did you mean AdamW8bit?" in found["optimizer.name"]
    assert "without quotes" in found["optimizer.learning_rate"]
    assert "512" in found["images.resolution"]


@pytest.mark.parametrize("key", [key for key in sections()])
def test_every_bound_and_type_is_enforced(key: str) -> None:
    for name, field, info in settings_of(sections()[key]):
        place = f"{key}.{name}"
        bounds = bounds_of(field)
        kind = plain_type(field)
        wrong: list[object] = [object()] if item_section(field) else [["x", {}], {"a": []}]
        if kind in (int, float):
            wrong += ["1", True]
        if "ge" in bounds:
            wrong.append(kind(bounds["ge"] - 1))
        if "gt" in bounds:
            wrong.append(kind(bounds["gt"]))
        if "le" in bounds:
            wrong.append(kind(bounds["le"] + 1))
        if info.choices:
            wrong.append("no such choice")
        if kind is dict:
            wrong = [3, "x"]
        for value in wrong:
            found = check_values({key: {name: value}})[1]
            assert any(problem.place.startswith(place) for problem in found), (place, value)


def test_a_setting_without_problems_has_none() -> None:
    run, problems = check_values(GOOD)
    assert run is not None and problems == ()


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"scheduler": {"name": "adafactor"}}, "scheduler.name"),
        ({"optimizer": {"name": "Adafactor"}}, "scheduler.name"),
        ({"scheduler": {"warmup_steps": 100}, "training": {"steps": 100}}, "scheduler.warmup_steps"),
        ({"output": {"name": "a/b"}}, "output.name"),
        ({"output": {"name": "CON"}}, "output.name"),
        ({"output": {"name": " x"}}, "output.name"),
        ({"output": {"name": "字" * 100}}, "output.name"),
        ({"images": {"folders": [{"path": "p", "enabled": False}]}}, "images.folders"),
        ({"images": {"folders": [{"path": "p"}], "resolution": [512]}}, "images.resolution"),
        ({"images": {"folders": [{"path": "p"}], "resolution": [32, 512]}}, "images.resolution"),
        ({"images": {"folders": [{"path": "p"}], "bucket_min": 2048}}, "images.bucket_min"),
        ({"images": {"folders": [{"path": "p"}], "bucket_min": 250}}, "images.bucket_min"),
        ({"images": {"folders": [{"path": "p"}], "alpha_colour": "white"}}, "images.alpha_colour"),
    ],
)
def test_what_cannot_work_together_is_refused(values: dict, place: str) -> None:
    assert place in problems_of({**GOOD, **values})


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"network": {"rank": 256, "alpha": 1.0}}, "network.rank"),
        ({"network": {"rank": 4}}, "network.alpha"),
        ({"optimizer": {"name": "Prodigy", "text_encoder_rate": ""}}, "optimizer.learning_rate"),
        ({"optimizer": {"name": "Lion", "learning_rate": 1e-3}}, "optimizer.learning_rate"),
        ({"optimizer": {"learning_rate": 0.1}}, "optimizer.learning_rate"),
        ({"optimizer": {"learning_rate": 0.0, "text_encoder_rate": 0.0}}, "optimizer.learning_rate"),
        ({"scheduler": {"warmup_steps": 50}, "training": {"steps": 100}}, "scheduler.warmup_steps"),
        ({"scheduler": {"name": "cosine_with_restarts"}}, "scheduler.cycles"),
        ({"samples": {"prompts": [{}]}}, "samples.prompts[1].prompt"),
        ({"images": {"folders": [{"path": "p"}], "shuffle_captions": True}}, "images.keep_tokens"),
        ({"images": {"folders": [{"path": "p"}], "resolution": [1152, 1152], "bucket_max": 2048}}, "images.resolution"),
    ],
)
def test_what_is_doubtful_is_a_warning_and_trains_all_the_same(values: dict, place: str) -> None:
    run, problems = check_values({**GOOD, **values})
    assert run is not None
    assert place in {problem.place for problem in problems if problem.severity == "warning"}


def test_the_text_encoder_rate_is_no_matter_when_it_is_frozen() -> None:
    values = {"network": {"train": "unet"}, "optimizer": {"name": "Prodigy", "learning_rate": 1.0}}
    assert check_values({**GOOD, **values})[1] == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"format = 1\n[model\n", "line 2"),
        ("format = 1\n# 猫咪 \N{CAT FACE}".encode("gb18030"), "UTF-8"),
        (b"[model]\n", "format"),
        (b"format = 99\n", "newer"),
        (b"format = true\n", "format number"),
        (b'format = 1\n[model]\npath = "D:\\models"\n', "backslash"),
    ],
)
def test_a_file_that_is_no_run_file_gets_a_sentence(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(content)
    with pytest.raises(BadInput, match=words):
        read_run(path)


def test_a_missing_file_and_a_folder_get_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no run file"):
        read_run(tmp_path / "none.toml")
    with pytest.raises(BadInput, match="cannot be read"):
        read_run(tmp_path)


def test_a_byte_order_mark_is_no_problem(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text(to_toml(full_run()), encoding="utf-8-sig")
    assert read_run(tmp_path / "run.toml").training.epochs == 10


def test_old_formats_are_migrated_in_order() -> None:
    steps = {1: lambda tables: {**tables, "seen": [1]}, 2: lambda tables: {**tables, "seen": [*tables["seen"], 2]}}
    assert migrate({"format": 1, "a": {}}, steps, newest=3) == {"a": {}, "seen": [1, 2]}
    assert migrate({"format": 3}, steps, newest=3) == {}


def test_what_a_run_file_said_of_refreshing_a_program_is_dropped() -> None:
    output = {"name": "x", "refresh_webui": True, "webui_address": "http://127.0.0.1:7860"}
    assert migrate({"format": 1, "output": output}) == {"output": {"name": "x"}}
    assert migrate({"format": 1, "output": 3}) == {"output": 3} and migrate({"format": 1}) == {}


def test_all_problems_are_in_the_error(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("format = 1\n[training]\nepochs = 0\nbatch_size = 0\n", encoding="utf-8")
    with pytest.raises(BadRunFile) as caught:
        read_run(tmp_path / "run.toml")
    assert {"training.epochs", "training.batch_size", "model.path"} <= {p.place for p in caught.value.problems}
    assert caught.value.exit_code == 2


def test_the_manual_is_current() -> None:
    assert TARGET.read_text(encoding="utf-8") == settings_page(), "run python -m trainer.config.reference"


def test_the_default_file_is_valid_toml() -> None:
    assert tomllib.loads(to_toml(RunFile()))["format"] == FORMAT


def test_a_new_runs_values_are_known_without_making_a_run() -> None:
    assert default_values() == to_values(RunFile())
    assert {key: type(part) for key, part in RunFile()} == dict(sections())
