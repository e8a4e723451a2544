"""Folders that a program's own settings have moved, and settings that make no sense."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.targets.fakes import INSTALLS, a1111, comfyui, fooocus, forge, found, make, matrix, sdnext, swarmui


def test_a_webuis_folders_are_where_its_start_file_puts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.targets.webui import start_arguments

    monkeypatch.setenv("COMMANDLINE_ARGS", "--lora-dir /not/this/one")
    root = a1111(tmp_path / "webui")
    assert start_arguments(root) == {}
    text = 'loras="/data/my loras"\nexport COMMANDLINE_ARGS="--api --lora-dir \'${loras}\' --ckpt-dir=/data/ckpt"\n'
    (root / "webui-user.sh").write_text(text, encoding="utf-8")
    given = start_arguments(root, windows=False)
    assert given == {"--lora-dir": "/data/my loras", "--ckpt-dir": "/data/ckpt"}
    batch = (
        "@echo off\r\n@REM set COMMANDLINE_ARGS=--lora-dir C:\\wrong\r\nset A1111_HOME=D:\\AI\\webui\r\n"
        'set COMMANDLINE_ARGS=--medvram ^\r\n --lora-dir "%A1111_HOME%/models/my Lora" ^\r\n --ckpt-dir D:\\ckpt\r\n'
        "call webui.bat\r\n"
    )
    (root / "webui-user.bat").write_text(batch, encoding="utf-8", newline="")
    assert start_arguments(root, windows=True) == {
        "--lora-dir": "D:\\AI\\webui/models/my Lora", "--ckpt-dir": "D:\\ckpt",
    }  # fmt: skip


@pytest.mark.parametrize("how", ["--lora-dir", "--data-dir", "--models-dir"])
def test_arguments_move_folders(tmp_path: Path, how: str) -> None:
    root, elsewhere = a1111(tmp_path / "webui"), tmp_path / "else where"
    for name in ("webui-user.sh", "webui-user.bat"):
        quote = "'" if name.endswith(".sh") else '"'
        setting = f"{how} {quote}{elsewhere}{quote}"
        line = f'export COMMANDLINE_ARGS="{setting}"\n' if name.endswith(".sh") else f"set COMMANDLINE_ARGS={setting}\n"
        (root / name).write_text(line, encoding="utf-8")
    expected = {
        "--lora-dir": elsewhere, "--data-dir": elsewhere / "models/Lora", "--models-dir": elsewhere / "Lora",
    }  # fmt: skip
    target = found(root)
    assert target.lora_folder == expected[how]
    embeddings = elsewhere if how == "--data-dir" else root
    assert target.folder("embedding") == embeddings / "embeddings"


def test_forge_borrows_the_folders_of_an_a1111(tmp_path: Path) -> None:
    home, root = a1111(tmp_path / "old webui"), forge(tmp_path / "forge")
    (home / "embeddings").mkdir()
    line = f"--forge-ref-a1111-home '{home}'"
    (root / "webui-user.sh").write_text(f'export COMMANDLINE_ARGS="{line}"\n', encoding="utf-8")
    (root / "webui-user.bat").write_text(f'set COMMANDLINE_ARGS=--forge-ref-a1111-home "{home}"\n', encoding="utf-8")
    target = found(root)
    assert target.lora_folder == home / "models/Lora" and target.folder("embedding") == home / "embeddings"
    # what the old install does not have, Forge looks for at home
    assert target.folders["checkpoint"] == (root / "models/Stable-diffusion",)


def test_sdnext_keeps_its_folders_in_its_settings(tmp_path: Path) -> None:
    root = sdnext(tmp_path / "sdnext")
    config = {"lora_dir": str(tmp_path / "loras"), "models_dir": "my models", "embeddings_dir": 7}
    (root / "config.json").write_text(json.dumps(config), encoding="utf-8")
    target = found(root)
    assert target.lora_folder == tmp_path / "loras"
    assert target.folder("checkpoint") == root / "my models/Stable-diffusion"
    assert target.folder("embedding") == root / "my models/embeddings"


EXTRA_PATHS = """\
# a comment
a111:
    base_path: ../old webui
    checkpoints: models/Stable-diffusion
    loras: |
        models/Lora
        models/LyCORIS
    embeddings: embeddings
empty:
shared:
    is_default: true
    base_path: {shared}
    loras: loras
bare:
    vae: my vae/
    custom_nodes: 7
"""


def test_comfyui_reads_extra_model_paths(tmp_path: Path) -> None:
    root = comfyui(tmp_path / "ComfyUI")
    text = EXTRA_PATHS.format(shared=json.dumps(str(tmp_path / "shared")))
    (root / "extra_model_paths.yaml").write_text(text, encoding="utf-8")
    target = found(root)
    old = tmp_path / "old webui"
    assert target.folders["lora"] == (
        tmp_path / "shared/loras", root / "models/loras", old / "models/Lora", old / "models/LyCORIS",
    )  # fmt: skip
    assert target.folders["checkpoint"] == (root / "models/checkpoints", old / "models/Stable-diffusion")
    assert target.folders["embedding"][1] == old / "embeddings" and target.folders["vae"][1] == root / "my vae"
    for broken in ("a: [", "- 1\n- 2", "a: &b [*b]", "\0", "a:\n  base_path: 7\n  loras: x"):
        (root / "extra_model_paths.yaml").write_text(broken, encoding="utf-8")
        assert found(root).lora_folder == root / "models/loras"


def test_comfyui_desktops_folder(tmp_path: Path) -> None:
    root = make(tmp_path / "ComfyUI", {}, ("models/loras", "custom_nodes", "user", "input", "output"))
    assert found(root).program == "ComfyUI"


@pytest.mark.parametrize("value", ["text", "list", "missing", "broken"])
def test_fooocus_config(tmp_path: Path, value: str) -> None:
    root, own = fooocus(tmp_path / "Fooocus"), make(tmp_path / "my loras")
    lists = [str(own), str(root)], [str(own), str(tmp_path / "gone")]
    given: Any = {"text": str(own), "list": lists[0], "missing": lists[1], "broken": 7}
    text = json.dumps({"path_loras": given[value], "path_embeddings": str(own)})
    (root / "config.txt").write_text(text, encoding="utf-8")
    usable = value in ("text", "list")
    assert found(root).lora_folder == (own if usable else root / "models/loras")
    assert found(root).folder("embedding") == own


def test_swarm_settings(tmp_path: Path) -> None:
    root = swarmui(tmp_path / "swarm")
    models = make(tmp_path / "models", {}, ("loras",))
    escaped = str(models).replace("\\", "\\s")
    text = (
        "#A comment\nIsInstalled: true\nPaths:\n\t#Root\n\tModelRoot: " + escaped + ";Models\n\tSDLoraFolder: Lora;loras\n"
        "\tSDModelFolder: Stable-Diffusion\nNetwork:\n\tModelRoot: wrong\n"
    )
    (root / "Data/Settings.fds").write_text(text, encoding="utf-8")
    target = found(root)
    assert target.folders["lora"] == (models / "loras", models / "Lora", root / "Models/Lora", root / "Models/loras")
    assert target.folder("checkpoint") == models / "Stable-Diffusion"
    from trainer.targets.swarmui import read_paths

    assert read_paths("Paths:\n    ModelRoot: C:\\sAI\\sModels\n") == {"ModelRoot": "C:\\AI\\Models"}


def test_stability_matrix_elsewhere_and_older(tmp_path: Path) -> None:
    root = matrix(tmp_path / "library")
    (root / "Models/TextualInversion").mkdir()
    assert found(root).folder("embedding") == root / "Models/TextualInversion"
    settings = json.dumps({"ModelDirectoryOverride": str(tmp_path / "models")})
    (root / "settings.json").write_text(settings, encoding="utf-8")
    assert found(root).lora_folder == tmp_path / "models/Lora"


@pytest.mark.parametrize("program", list(INSTALLS))
@pytest.mark.parametrize("text", ["", "\0\xff", "{" * 50_000, "[1]", "Paths", "a: &a [" + "*a, " * 999 + "]", "x" * 2**21])
def test_settings_that_make_no_sense_are_as_if_not_there(tmp_path: Path, program: str, text: str) -> None:
    build, (lora_folder, _, _), _ = INSTALLS[program]
    root = build(tmp_path / "install")
    names = ("webui-user.sh", "webui-user.bat", "config.json", "extra_model_paths.yaml", "config.txt", "settings.json")
    for name in (*names, "Data/Settings.fds"):
        if (root / name).parent.is_dir():
            (root / name).write_text(text, encoding="latin-1")
    assert found(root).lora_folder == root / lora_folder


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this system's folders")
def test_a_pipe_in_a_settings_files_place_holds_nobody_up(tmp_path: Path) -> None:
    root = comfyui(tmp_path / "ComfyUI")
    os.mkfifo(root / "extra_model_paths.yaml")
    assert found(root).lora_folder == root / "models/loras"
