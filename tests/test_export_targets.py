"""Placing what was trained in the program that draws with it: found by content, nothing lost, nothing replaced unasked."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from trainer import export_targets
from trainer.errors import AthanorError, BadInput
from trainer.export_targets import PROGRAMS, Conflict, Target, export_to, export_to_all, find_target, name_problem
from trainer.models.safetensors_file import header_bytes, read_header
from trainer.targets.installs import look_for_installs

NAME = "lora_te_text_model_encoder_layers_0_mlp_fc1"


def make(root: Path, files: Mapping[str, str] = {}, folders: tuple[str, ...] = ()) -> Path:
    """A fake install: these files with these texts, and these folders."""
    for folder in ("", *folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text, encoding="utf-8")
    return root


def a1111(root: Path) -> Path:
    return make(root, {"webui.py": "", "launch.py": "", "webui-user.sh": "#export COMMANDLINE_ARGS=\"\"\n",
                       "webui-user.bat": "@echo off\nset COMMANDLINE_ARGS=\n"}, ("modules", "models/Lora"))  # fmt: skip


def forge(root: Path) -> Path:
    return make(a1111(root), {"README.md": "# Stable Diffusion WebUI Forge\n"}, ("modules_forge", "backend"))


def reforge(root: Path) -> Path:
    return make(forge(root), {"README.md": "# Stable Diffusion WebUI Forge/reForge\n"}, ("ldm_patched",))


def sdnext(root: Path) -> Path:
    return make(root, {"webui.py": "", "launch.py": "", "installer.py": ""}, ("modules", "models/Lora"))


def comfyui(root: Path) -> Path:
    return make(root, {"main.py": ""}, ("comfy", "models/loras"))


def fooocus(root: Path) -> Path:
    files = {"fooocus_version.py": "", "webui.py": "", "launch.py": ""}
    return make(root, files, ("modules", "models/loras"))


def swarmui(root: Path) -> Path:
    return make(root, {"SwarmUI.sln": "", "Data/Settings.fds": "IsInstalled: true\n"}, ("src", "Models/Lora"))


def matrix(root: Path) -> Path:
    return make(root, {"settings.json": "{}"}, ("Packages", "Models/Lora", "Models/StableDiffusion"))


def plain(root: Path) -> Path:
    return make(root)


# program, how an install is built, its folders for a LoRA, a checkpoint and an embedding, the files beside a LoRA
WEBUI_FOLDERS = ("models/Lora", "models/Stable-diffusion", "embeddings")
COMFY_FOLDERS = ("models/loras", "models/checkpoints", "models/embeddings")
INSTALLS: dict[str, tuple[Callable[[Path], Path], tuple[str, str, str], set[str]]] = {
    "Stable Diffusion WebUI": (a1111, WEBUI_FOLDERS, {".preview.png", ".json"}),
    "Stable Diffusion WebUI Forge": (forge, WEBUI_FOLDERS, {".preview.png", ".json"}),
    "reForge": (reforge, WEBUI_FOLDERS, {".preview.png", ".json"}),
    "SD.Next": (sdnext, ("models/Lora", "models/Stable-diffusion", "models/embeddings"), {".preview.png"}),
    "ComfyUI": (comfyui, COMFY_FOLDERS, {".preview.png"}),
    "Fooocus": (fooocus, COMFY_FOLDERS, set()),
    "SwarmUI": (swarmui, ("Models/Lora", "Models/Stable-Diffusion", "Models/Embeddings"), {".preview.png", ".json"}),
    "StabilityMatrix": (
        matrix, ("Models/Lora", "Models/StableDiffusion", "Models/Embeddings"), {".preview.png", ".cm-info.json"},
    ),
    "": (plain, ("", "", ""), {".preview.png", ".json"}),
}  # fmt: skip


def found(folder: Path) -> Target:
    target = find_target(folder)
    assert target is not None
    return target


@pytest.fixture
def webui(awkward: Path) -> Target:
    return found(a1111(awkward / "webui"))


@pytest.fixture
def lora(tmp_path: Path) -> Path:
    """A LoRA of 2 MiB, longer than where the legacy hash looks."""
    shapes = {f"{NAME}.lora_down.weight": ("F16", (8, 65536)), f"{NAME}.lora_up.weight": ("F16", (65536, 8))}
    metadata = {
        "ss_output_name": "run-000003", "sshs_model_hash": "old", "sshs_legacy_hash": "old", "ss_seed": "1",
        "modelspec.title": "run",
    }  # fmt: skip
    path = tmp_path / "run-000003.safetensors"
    path.write_bytes(header_bytes(shapes, metadata) + bytes(range(256)) * (2 * 1024 * 1024 // 256))
    return path


@pytest.fixture
def embedding(tmp_path: Path) -> Path:
    path = tmp_path / "rufus.safetensors"
    path.write_bytes(header_bytes({"emb_params": ("F32", (2, 768))}, {}) + bytes(2 * 768 * 4))
    return path


@pytest.fixture
def preview(tmp_path: Path) -> Path:
    info = PngImagePlugin.PngInfo()
    info.add_text("parameters", "a cat\nSteps: 20, Seed: 1")
    path = tmp_path / "sample.png"
    Image.new("RGB", (8, 8)).save(path, pnginfo=info)
    return path


def test_every_program_has_its_fake_install() -> None:
    assert {program.name for program in PROGRAMS} | {""} == set(INSTALLS)


@pytest.mark.parametrize("program", list(INSTALLS))
def test_a_program_is_found_by_content(awkward: Path, program: str) -> None:
    build, (lora_folder, checkpoint, embeddings), _ = INSTALLS[program]
    root = build(awkward / "anything")
    for place in (root, *(folder for folder in root.rglob("*") if folder.is_dir() and program)):
        target = found(place)
        assert (target.program, target.root) == (program, root), place
    target = found(root)
    assert target.lora_folder == root / lora_folder
    assert (target.folder("checkpoint"), target.folder("embedding")) == (root / checkpoint, root / embeddings)


@pytest.mark.parametrize("program", list(INSTALLS))
def test_everything_lands_in_its_place(
    awkward: Path, lora: Path, embedding: Path, preview: Path, program: str
) -> None:
    build, folders, beside = INSTALLS[program]
    target = found(build(awkward / "install"))
    goal = export_to(target, lora, "小猫 v1", preview, activation_text="rufus cat", preferred_weight=0.8)
    assert goal == target.root / folders[0] / "小猫 v1.safetensors"
    there = {path.name.removeprefix("小猫 v1") for path in goal.parent.iterdir() if path.is_file()}
    assert there == {".safetensors", *beside}
    assert read_header(goal).metadata["modelspec.trigger_phrase"] == "rufus cat"
    if ".preview.png" in beside:
        with Image.open(goal.with_suffix(".preview.png")) as picture:
            assert picture.info["parameters"] == "a cat\nSteps: 20, Seed: 1"
    other = export_to(target, embedding, "rufus")
    assert other == target.root / folders[2] / "rufus.safetensors" and other.read_bytes() == embedding.read_bytes()


@pytest.mark.parametrize("program", list(INSTALLS))
def test_nothing_is_replaced_without_asking_and_notes_are_never_lost(
    awkward: Path, lora: Path, preview: Path, program: str
) -> None:
    build, _, beside = INSTALLS[program]
    target = found(build(awkward / "install"))
    goal = export_to(target, lora, "cat", preview, activation_text="one", preferred_weight=0.5)
    for ending in beside - {".preview.png"}:
        notes = goal.with_suffix(ending)
        written = json.loads(notes.read_text(encoding="utf-8"))
        notes.write_text(json.dumps({**written, "mine": [1], "notes": "by hand"}), encoding="utf-8")
    before = {path.name: path.read_bytes() for path in goal.parent.iterdir() if path.is_file()}
    with pytest.raises(Conflict, match=r"cat\.safetensors"):
        export_to(target, lora, "cat", preview)
    assert {path.name: path.read_bytes() for path in goal.parent.iterdir() if path.is_file()} == before
    export_to(target, lora, "cat", preview, overwrite=True)
    for ending in beside - {".preview.png"}:
        merged = json.loads(goal.with_suffix(ending).read_text(encoding="utf-8"))
        assert merged["mine"] == [1] and merged["notes"] == "by hand"
        words = merged.get("activation text") or merged["TrainedWords"][0]
        assert words == "one"  # nothing new was said of it


def test_the_webuis_notes(webui: Target, lora: Path) -> None:
    goal = export_to(webui, lora, "cat", activation_text="rufus cat", preferred_weight=0.8)
    text = goal.with_suffix(".json").read_text(encoding="utf-8")
    assert json.loads(text) == {
        "description": "", "sd version": "SD1", "activation text": "rufus cat", "preferred weight": 0.8,
        "negative text": "", "notes": "",
    }  # fmt: skip
    assert text.startswith('{\n    "description"')


def test_what_is_not_known_takes_nothing_away(webui: Target, tmp_path: Path) -> None:
    strange = tmp_path / "strange.safetensors"
    layer = "diffusion_model.blocks.0.self_attn.q"
    shapes = {f"{layer}.lora_A.weight": ("F16", (1, 8)), f"{layer}.lora_B.weight": ("F16", (8, 1))}
    strange.write_bytes(header_bytes(shapes, {}) + bytes(32))
    notes = webui.lora_folder / "cat.json"
    notes.write_text(json.dumps({"sd version": "SDXL", "preferred weight": 0.6, "activation text": "x"}), encoding="utf-8")
    goal = export_to(webui, strange, "cat")
    merged = json.loads(notes.read_text(encoding="utf-8"))
    assert (merged["sd version"], merged["preferred weight"], merged["activation text"]) == ("SDXL", 0.6, "x")
    assert read_header(goal).metadata["ss_output_name"] == "cat"


def test_stability_matrix_notes(awkward: Path, lora: Path) -> None:
    import hashlib

    target = found(matrix(awkward / "Data"))
    goal = export_to(target, lora, "cat", activation_text="rufus cat")
    notes = json.loads(goal.with_suffix(".cm-info.json").read_text(encoding="utf-8"))
    assert (notes["ModelName"], notes["ModelType"], notes["BaseModel"]) == ("cat", "LORA", "SD 1.5")
    assert notes["TrainedWords"] == ["rufus cat"] and "ModelId" not in notes
    assert notes["Hashes"] == {"SHA256": hashlib.sha256(goal.read_bytes()).hexdigest().upper()}


def test_swarm_notes(awkward: Path, lora: Path) -> None:
    target = found(swarmui(awkward / "swarm"))
    goal = export_to(target, lora, "cat", activation_text="rufus cat", preferred_weight=0.7)
    notes = json.loads(goal.with_suffix(".json").read_text(encoding="utf-8"))
    assert notes["activation text"] == "rufus cat" and notes["TrainedWords"] == ["rufus cat"]
    assert notes["modelspec.lora_default_weight"] == "0.7"


def test_a_portable_package_around_it(tmp_path: Path) -> None:
    forge(tmp_path / "package/webui")
    comfyui(tmp_path / "portable/ComfyUI")
    fooocus(tmp_path / "fooocus_win64/Fooocus")
    matrix(tmp_path / "StabilityMatrix/Data")
    assert found(tmp_path / "package").root == tmp_path / "package/webui"
    assert found(tmp_path / "portable").program == "ComfyUI"
    assert found(tmp_path / "fooocus_win64").program == "Fooocus"
    assert found(tmp_path / "StabilityMatrix").root == tmp_path / "StabilityMatrix/Data"


def test_the_nearest_program_wins(tmp_path: Path) -> None:
    inner = comfyui(matrix(tmp_path / "Data") / "Packages/ComfyUI")
    assert found(inner / "models/loras").program == "ComfyUI"
    assert found(tmp_path / "Data/Models").program == "StabilityMatrix"
    backend = comfyui(swarmui(tmp_path / "SwarmUI") / "dlbackend/ComfyUI")
    assert found(backend).program == "ComfyUI" and found(tmp_path / "SwarmUI").program == "SwarmUI"


def test_a_folder_within_the_loras_takes_them(tmp_path: Path, lora: Path) -> None:
    root = a1111(tmp_path / "webui")
    (root / "models/Lora/characters").mkdir()
    goal = export_to(found(root / "models/Lora/characters"), lora, "cat")
    assert goal == root / "models/Lora/characters/cat.safetensors"
    assert found(root / "models/Lora/characters").folder("checkpoint") == root / "models/Stable-diffusion"


def test_a_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = a1111(tmp_path / "webui")
    monkeypatch.chdir(root / "models")
    assert found(Path()).root == root and found(Path("Lora")).lora_folder == root / "models/Lora"


def test_what_is_no_folder_is_no_target(tmp_path: Path) -> None:
    (tmp_path / "main.py").touch()
    assert found(tmp_path).program == ""
    assert find_target(tmp_path / "none") is None
    assert find_target(tmp_path / "main.py") is None
    assert find_target("a\0b") is None


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


def test_installs_in_well_known_places_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "home"
    a1111(home / "stable-diffusion-webui")
    comfyui(home / "Documents/ComfyUI_windows_portable/ComfyUI")
    fooocus(home / "AI/Fooocus_win64/Fooocus")
    matrix(tmp_path / "library")
    forge(tmp_path / "library/Packages/forge")
    swarmui(tmp_path / "elsewhere/swarm")
    make(home / "Documents/letters")
    (home / "webui-loop").symlink_to(home, target_is_directory=True)
    make(home, {".config/StabilityMatrix/library.json": json.dumps({"LibraryPath": str(tmp_path / "library")})})
    monkeypatch.setattr(Path, "home", lambda: home)
    for name in ("APPDATA", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    installs = export_targets.known_installs([tmp_path / "elsewhere/swarm", tmp_path / "gone"])
    names = [target.program for target in installs if tmp_path in target.root.parents]
    assert sorted(names) == sorted(
        ["SwarmUI", "StabilityMatrix", "Stable Diffusion WebUI", "ComfyUI", "Fooocus", "Stable Diffusion WebUI Forge"]
    )


@pytest.mark.parametrize(
    "place",
    ["sd-webui-aki-v4.8", "ComfyUI-aki-v1.6", "秋叶整合包/sd-webui-aki-v4", "AI/ComfyUI", "AI 绘画/webui", "automatic",
     "sd.next", "Fooocus_win64_2-5-0/Fooocus", "webui_forge_cu121_torch231/webui", "StabilityMatrix-win-x64/Data"],
)  # fmt: skip
def test_folders_as_people_have_them(tmp_path: Path, place: str) -> None:
    comfyui(tmp_path / place)
    make(tmp_path / "holiday/webui")
    found_roots = [target.root for target in look_for_installs(export_targets._at_or_inside, [tmp_path])]
    assert found_roots == [tmp_path / place]


def test_looking_for_installs_ends_in_time(tmp_path: Path) -> None:
    for number in range(5):
        comfyui(tmp_path / f"comfy{number}")
    assert list(look_for_installs(find_target, [tmp_path], seconds=-1)) == []
    assert len(list(look_for_installs(find_target, [tmp_path]))) >= 5


def test_models_in_an_install(tmp_path: Path) -> None:
    root = a1111(tmp_path / "webui")
    models = root / "models/Stable-diffusion"
    files = ["B.safetensors", "anime/a.ckpt", "notes.txt", ".hidden/c.safetensors", "deep/1/2/3/4/5/d.safetensors"]
    make(models, {name: "" for name in [*files, "folder/model_index.json", "folder/unet/x.safetensors"]})
    (models / "again.safetensors").symlink_to(models / "B.safetensors")
    names = [path.relative_to(models).as_posix() for path in export_targets.models_in(found(root))]
    assert len(names) == 3 and names[0] == "anime/a.ckpt" and names[2] == "folder"
    assert export_targets.models_in(found(make(tmp_path / "none"))) == ()


def test_tensors_stay_and_the_name_is_its_own(webui: Target, lora: Path) -> None:
    from safetensors import safe_open

    goal = export_to(webui, lora, "chosen")
    old, new = read_header(lora), read_header(goal)
    assert goal.read_bytes()[new.data_start :] == lora.read_bytes()[old.data_start :]
    assert new.metadata["ss_output_name"] == "chosen" and new.metadata["ss_seed"] == "1"
    assert new.data_start % 8 == 0
    with safe_open(goal, "pt") as reader:
        assert set(reader.keys()) == set(old.tensors)


def test_no_two_loras_of_a_program_have_one_name(webui: Target, lora: Path) -> None:
    """The WebUI knows a LoRA by the name in its header; one that two files have is no name for either."""
    export_to(webui, lora, "cat")
    inside = Target(webui.program, webui.root, {"lora": (webui.lora_folder / "sub", webui.lora_folder)})
    again = export_to(inside, lora, "cat")
    other = webui.lora_folder / "other.safetensors"
    other.write_bytes(header_bytes({}, {"ss_output_name": "dog"}))
    dog = export_to(webui, lora, "dog")
    assert read_header(again).metadata["ss_output_name"] == "cat-2"
    assert read_header(dog).metadata["ss_output_name"] == "dog-2"
    replaced = export_to(webui, lora, "dog", overwrite=True)
    assert read_header(replaced).metadata["ss_output_name"] == "dog-2"


def test_hashes_are_those_that_programs_compute(webui: Target, lora: Path) -> None:
    import hashlib

    goal = export_to(webui, lora, "chosen")
    header = read_header(goal)
    data = goal.read_bytes()
    assert header.metadata["sshs_model_hash"] == hashlib.sha256(data[header.data_start :]).hexdigest()
    # kohya's programs compute the legacy hash of the file as it is before the two hashes are added
    metadata = {key: value for key, value in header.metadata.items() if key.startswith("ss_")}
    before = header_bytes({key: (info.dtype, info.shape) for key, info in header.tensors.items()}, metadata)
    bare = before + data[header.data_start :]
    expected = hashlib.sha256(bare[0x100000 : 0x100000 + 0x10000]).hexdigest()[:8]
    assert header.metadata["sshs_legacy_hash"] == expected


@pytest.mark.parametrize("text", ["[1]", "{torn", "[" * 100_000])
@pytest.mark.parametrize(("program", "ending"), [(a1111, ".json"), (swarmui, ".json"), (matrix, ".cm-info.json")])
def test_a_strange_json_is_left_alone(
    tmp_path: Path, lora: Path, program: Callable[[Path], Path], ending: str, text: str
) -> None:
    target = found(program(tmp_path / "install"))
    notes = target.lora_folder / f"cat{ending}"
    notes.write_text(text, encoding="utf-8")
    with pytest.raises(BadInput, match="something else"):
        export_to(target, lora, "cat")
    assert notes.read_text(encoding="utf-8") == text
    assert not (target.lora_folder / "cat.safetensors").exists()


def test_a_picture_of_another_is_not_replaced(webui: Target, lora: Path, preview: Path) -> None:
    model, picture = webui.lora_folder / "cat.safetensors", webui.lora_folder / "cat.preview.png"
    picture.write_bytes(b"theirs")
    with pytest.raises(Conflict, match=r"cat\.preview\.png") as caught:
        export_to(webui, lora, "cat", preview)
    assert caught.value.files == (picture,)
    model.write_bytes(b"theirs")
    with pytest.raises(Conflict) as caught:
        export_to(webui, lora, "cat")
    assert caught.value.files == (model,)
    assert (model.read_bytes(), picture.read_bytes()) == (b"theirs", b"theirs")
    export_to(webui, lora, "cat", preview, overwrite=True)
    assert picture.read_bytes() == preview.read_bytes()
    assert read_header(model).metadata["ss_output_name"] == "cat"


def test_several_programs_at_once_or_none(tmp_path: Path, lora: Path, preview: Path) -> None:
    targets = [found(a1111(tmp_path / "webui")), found(comfyui(tmp_path / "comfy")), found(fooocus(tmp_path / "fooocus"))]
    theirs = targets[1].lora_folder / "cat.preview.png"
    theirs.write_bytes(b"theirs")
    with pytest.raises(Conflict) as caught:
        export_to_all(targets, lora, "cat", preview)
    assert caught.value.files == (theirs,)
    assert not any((target.lora_folder / "cat.safetensors").exists() for target in targets)
    goals = export_to_all(targets, lora, "cat", preview, overwrite=True)
    assert goals == tuple(target.lora_folder / "cat.safetensors" for target in targets)
    with pytest.raises(Conflict, match=r"cat\.safetensors, cat\.preview\.png, .*comfy.*cat\.safetensors"):
        export_to_all(targets, lora, "cat", preview)
    with pytest.raises(BadInput):
        export_to_all(targets, lora, "a/b")


def test_a_file_is_not_copied_onto_itself(webui: Target, lora: Path) -> None:
    goal = export_to(webui, lora, "cat")
    before = goal.read_bytes()
    with pytest.raises(BadInput, match="lies there already"):
        export_to(webui, goal, "cat", overwrite=True)
    assert goal.read_bytes() == before


def test_the_lora_folder_is_made(webui: Target, lora: Path) -> None:
    shutil.rmtree(webui.root / "models")
    assert export_to(webui, lora, "cat").is_file()


@pytest.mark.parametrize("where", ["copyfile", "_pieces"])
def test_a_full_disk_changes_nothing(
    webui: Target, lora: Path, preview: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    export_to(webui, lora, "cat", preview, activation_text="before")
    before = {path.name: path.read_bytes() for path in webui.lora_folder.iterdir()}

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil if where == "copyfile" else export_targets, where, full)
    with pytest.raises(AthanorError, match="is full"):
        export_to(webui, lora, "cat", preview, activation_text="after", overwrite=True)
    assert {path.name: path.read_bytes() for path in webui.lora_folder.iterdir()} == before


def test_too_little_space_is_seen_before_writing(webui: Target, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export_targets, "free_bytes", lambda folder: 1000)
    with pytest.raises(AthanorError, match="is full"):
        export_to(webui, lora, "cat")
    assert list(webui.lora_folder.iterdir()) == []


def test_a_folder_that_cannot_be_written(webui: Target, lora: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(export_targets, "atomic_path", refuse)
    with pytest.raises(AthanorError, match="cannot be written"):
        export_to(webui, lora, "cat")


def test_wrong_sources(webui: Target, lora: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="no file or folder"):
        export_to(webui, tmp_path / "none.safetensors", "cat")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(lora.read_bytes()[:-5])
    with pytest.raises(BadInput, match="5 bytes are missing"):
        export_to(webui, broken, "cat")
    with pytest.raises(BadInput, match="not a PNG"):
        export_to(webui, lora, "cat", preview=lora)
    with pytest.raises(BadInput, match="is a folder"):
        export_to(webui, tmp_path, "cat")
    assert list(webui.lora_folder.iterdir()) == []


def test_a_program_without_a_place_for_it(tmp_path: Path, embedding: Path) -> None:
    target = Target("Fooocus", tmp_path, {"lora": (tmp_path,)})
    with pytest.raises(BadInput, match="Fooocus has no folder for this"):
        export_to(target, embedding, "style")


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


@pytest.mark.parametrize("name", ["", " cat", "cat.", "a/b", "a\\b", "CON", "nul.x", "a\nb", "x" * 201, "what?"])
def test_names_that_no_file_can_have(webui: Target, lora: Path, name: str) -> None:
    assert name_problem(name) is not None
    with pytest.raises(BadInput):
        export_to(webui, lora, name)


def test_ordinary_names() -> None:
    assert all(name_problem(name) is None for name in ("cat", "小猫 v1.2", "console", "a-b_c (2)"))
