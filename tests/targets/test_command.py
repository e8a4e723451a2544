"""`python -m trainer export`: every kind of file to its folder, one object for programs, refusals as sentences."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.targets.fakes import a1111, comfyui
from trainer.__main__ import main
from trainer.targets.wishes import Wish, wish_of


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Nobody's installs but the test's."""
    home = tmp_path / "home"
    monkeypatch.setattr(Path, "home", lambda: home)
    for name in ("APPDATA", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    return home


def test_a_file_goes_where_it_belongs_in_each_program(
    tmp_path: Path, embedding: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    webui, comfy = a1111(tmp_path / "webui"), comfyui(tmp_path / "comfy")
    assert main(["export", str(embedding), "--to", str(webui), "--to", str(comfy), "--name", "cat", "--json"]) == 0
    answer = json.loads(capfd.readouterr().out)
    assert answer["ok"] and answer["note"] is None
    expected = [webui / "embeddings/cat.safetensors", comfy / "models/embeddings/cat.safetensors"]
    assert [Path(path) for path in answer["files"]] == expected and all(path.is_file() for path in expected)
    assert main(["export", str(embedding), "--to", str(webui), "--name", "cat"]) == 2
    assert "there is already cat.safetensors" in capfd.readouterr().err
    assert main(["export", str(embedding), "--to", str(webui), "--name", "cat", "--overwrite"]) == 0
    assert "cat.safetensors" in capfd.readouterr().out


def test_a_webui_that_is_not_there_is_a_note(
    tmp_path: Path, embedding: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    webui = a1111(tmp_path / "webui")
    assert main(["export", str(embedding), "--to", str(webui), "--refresh", "nonsense://x"]) == 0
    printed = capfd.readouterr().out
    assert "rufus.safetensors" in printed and "Note: " in printed and "is not an address" in printed


def test_where_a_program_answers_is_kept_for_later_copies(
    tmp_path: Path, embedding: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    comfy, webui = comfyui(tmp_path / "comfy"), a1111(tmp_path / "webui")
    order = ["export", str(embedding), "--to", str(comfy), "--to", str(webui), "--overwrite"]
    assert main([*order, "--refresh", "ftp://me:geheim@x"]) == 0 and "Note: ftp://x is not an" in capfd.readouterr().out
    assert wish_of(webui) == Wish(True, "ftp://x") and wish_of(comfy) == Wish()
    assert main([*order, "--json"]) == 0 and "is not an address" in json.loads(capfd.readouterr().out)["note"]
    assert main([*order, "--refresh", "off"]) == 0 and "Note" not in capfd.readouterr().out
    assert wish_of(webui) == Wish()


def test_programs_on_this_machine(_home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--list"]) == 0
    capfd.readouterr()
    root = a1111(_home / "stable-diffusion-webui")
    assert main(["export", "--list", "--json"]) == 0
    installs = json.loads(capfd.readouterr().out)["installs"]
    mine = [install for install in installs if Path(install["root"]) == root]
    assert len(mine) == 1 and mine[0]["folders"]["lora"] == [str(root / "models/Lora")]
    assert main(["export", "--list"]) == 0
    assert f"Stable Diffusion WebUI: {root}" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "A file and a folder are needed"),
        (["x.safetensors"], "A file and a folder are needed"),
        (["missing.safetensors", "--to", "."], "no file or folder"),
        (["missing.safetensors", "--to", "nowhere"], "no folder nowhere"),
    ],
)
def test_bad_input_is_a_sentence(
    arguments: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    assert said in capfd.readouterr().err
