"""A run on a model that is named by its id: fetched at its start, kept to its version, resumed without the network."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.models.hub_server import Hub
from tests.runs import draw_pictures, tiny_run
from tests.tiny import family_of, save_tiny_file, save_tiny_folder
from trainer import worker
from trainer.base_model import BaseModel, Sources
from trainer.check import check_run
from trainer.config.files import absolute, read_run, write_run
from trainer.config.run import Model, RunFile
from trainer.data.memo import Memo
from trainer.errors import AthanorError, BadRunFile
from trainer.ipc import events, journal
from trainer.ipc.journal import Record
from trainer.ipc.runfolder import RunFolder, create
from trainer.local_models import with_local_models
from trainer.models.header import base_problem, inspect_file, lora_problem, vae_problem
from trainer.models.hub import HubId, look_up
from trainer.models.hub_download import fetch, make_plan
from trainer.models.safetensors_file import read_header
from trainer.models.stable_diffusion import CLIP_TOKENIZER

REPO = "someone/tiny-model"


@pytest.fixture
def run(server: Hub, tmp_path: Path) -> RunFile:
    folder = save_tiny_folder(tmp_path / "folder")
    server.repos[REPO] = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    server.repos["someone/vae"] = {"some.safetensors": save_tiny_file(tmp_path).read_bytes()}
    return tiny_run(Path(REPO), draw_pictures(tmp_path / "pictures", [(64, 64)] * 3))


class Told:
    """What is reported."""

    def __init__(self) -> None:
        self.stages: list[events.Stage] = []

    def __call__(self, event: events.Event) -> None:
        assert isinstance(event, events.Stage)
        self.stages.append(event)


def stay() -> None: ...


def reported(folder: RunFolder) -> list[events.Event]:
    parts = [part.content for part in journal.read(folder.journal)]
    return [part.event for part in parts if isinstance(part, Record)]


def test_ids_become_paths_and_keep_their_version(server: Hub, run: RunFile) -> None:
    told = Told()
    here, fixed = with_local_models(run, told, stay)
    assert inspect_file(here.model.path).family == "sd1" and Path(here.model.path).is_dir()
    assert fixed.model.path == f"{REPO}@{server.commit}" and here.images == run.images
    assert {stage.name for stage in told.stages} == {"downloading"}
    assert told.stages[-1].done == told.stages[-1].total > 0
    server.asked.clear()
    again, kept = with_local_models(fixed, told, stay)
    assert (again, kept) == (here, fixed) and server.asked == []


def test_an_id_has_facts_before_and_after(server: Hub, run: RunFile, request: pytest.FixtureRequest) -> None:
    facts = inspect_file(REPO)
    assert facts.kind == "hub" and "begin by downloading" in str(facts.summary)
    assert base_problem(facts) is None and vae_problem(facts) is None and lora_problem(facts) is None
    plan = make_plan(HubId(REPO))
    facts = inspect_file(Path(REPO))
    assert facts.num_bytes == plan.num_bytes and f"{plan.num_bytes / 1e9:.1f} GB" in str(facts.summary)
    path = fetch(HubId(REPO), lambda done, total: None)
    request.getfixturevalue("no_calls")
    facts = inspect_file(REPO)
    assert (facts.kind, facts.family, facts.path) == ("base", "sd1", path) and base_problem(facts) is None
    assert "downloaded from the hub" in str(facts.summary)
    assert inspect_file("models/x.safetensors").kind == "missing"


def test_a_run_without_ids_stays_as_it_is(run: RunFile, tmp_path: Path) -> None:
    plain = replace_model(run, path=str(tmp_path / "folder"))
    assert with_local_models(plain, Told(), stay) == (plain, plain)


def replace_model(run: RunFile, **changes: str) -> RunFile:
    return run.model_copy(update={"model": run.model.model_copy(update=changes)})


def test_a_separate_vae_may_be_an_id_too(server: Hub, run: RunFile) -> None:
    here, _ = with_local_models(replace_model(run, vae="someone/vae"), Told(), stay)
    assert Path(here.model.vae).name == "some.safetensors" and look_up(HubId("someone/vae")).path == Path(here.model.vae)


def test_a_model_reads_texts_by_its_own_tokenizer_as_the_same_folder_does(server: Hub, tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "folder", family="sdxl")
    vocab = folder / "tokenizer" / "vocab.json"
    (folder / "tokenizer" / "tokenizer.json").unlink(missing_ok=True)
    shutil.copy(CLIP_TOKENIZER / "merges.txt", vocab.parent)
    words = json.loads((CLIP_TOKENIZER / "vocab.json").read_text(encoding="utf-8"))
    words["cat</w>"], words["dog</w>"] = words["dog</w>"], words["cat</w>"]
    vocab.write_text(json.dumps(words), encoding="utf-8")
    server.repos[REPO] = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }
    fetched = fetch(HubId(REPO), lambda done, total: None)
    family = family_of("sdxl")
    cat, dog = (family.load_tokenizer(path)("cat")["input_ids"] for path in (fetched, Path()))
    assert cat == family.load_tokenizer(folder)("cat")["input_ids"] != dog
    models = [BaseModel(family, Sources(path), torch.device("cpu"), clip_skip=1, memo=Memo()) for path in (folder, fetched)]
    assert models[0].text_identity(torch.float32) == models[1].text_identity(torch.float32)
    assert sorted(path.name for path in (fetched / "tokenizer_2").iterdir()) == sorted(
        path.name for path in (folder / "tokenizer_2").iterdir()
    )


def test_leaving_while_it_comes(server: Hub, run: RunFile) -> None:
    class Left(Exception): ...

    def leave() -> None:
        raise Left

    with pytest.raises(Left):
        with_local_models(run, Told(), leave)
    assert look_up(HubId(REPO)).path is None


def test_what_turns_out_to_be_no_model_is_said(server: Hub, run: RunFile) -> None:
    server.repos["someone/lora"] = {
        "x.safetensors": b"\x02\0\0\0\0\0\0\0{}", "README.md": b"",
    }  # fmt: skip
    with pytest.raises(BadRunFile, match=r"model\.path"):
        with_local_models(replace_model(run, path="someone/lora"), Told(), stay)
    with pytest.raises(AthanorError, match="There is no model"):
        with_local_models(replace_model(run, path="someone/none"), Told(), stay)


def test_an_id_survives_the_run_file_and_the_check(run: RunFile, tmp_path: Path) -> None:
    write_run(tmp_path / "run.toml", run)
    read = read_run(tmp_path / "run.toml")
    assert read.model.path == REPO and check_run(read).problems == ()
    moved = absolute(replace_model(run, path="models/x.safetensors", vae="folder"), tmp_path)
    assert moved.model == Model(path=str(tmp_path / "models/x.safetensors"), vae=str(tmp_path / "folder"))


def test_a_run_fetches_trains_and_goes_on_without_the_hub(
    server: Hub, run: RunFile, tmp_path: Path
) -> None:
    from trainer.training import train

    folder = create(tmp_path, "tiny")
    write_run(folder.run_file, run)
    ending = worker.work(folder, train)
    assert isinstance(ending, events.Done), ending
    stages = [event.name for event in reported(folder) if isinstance(event, events.Stage)]
    assert stages.index("downloading") < stages.index("caching")
    assert read_run(folder.run_file).model.path == f"{REPO}@{server.commit}"
    header = read_header(folder.checkpoints / "tiny.safetensors")
    assert header.metadata["ss_sd_model_name"] == REPO  # not the version's number, which names its folder
    server.error = 500
    server.asked.clear()
    longer = worker.work(folder, train, epochs=3)
    assert isinstance(longer, events.Done) and longer.step > ending.step and server.asked == []


def test_a_model_that_can_not_be_fetched_ends_the_run_with_a_sentence(server: Hub, run: RunFile, tmp_path: Path) -> None:
    from trainer.training import train

    server.gated = True
    folder = create(tmp_path, "tiny")
    write_run(folder.run_file, run)
    ending = worker.work(folder, train)
    assert isinstance(ending, events.Failed) and "accepted its terms" in str(ending.what)
    assert ending.exit_code == 2 and replace(ending, details="").todo is not None
