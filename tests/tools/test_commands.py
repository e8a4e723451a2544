"""The command line of the tools: options from the descriptions, JSON lines, exit codes, stopping, whole files or none."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tools.material import base_file, lora_file, save, use
from trainer.config.fields import item_section, settings_of
from trainer.errors import Stopped
from trainer.models.safetensors_file import read_header
from trainer.paths import ROOT
from trainer.tools.catalog import TOOLS, LoraEntry
from trainer.tools.commands import _parser, _settings, main
from trainer.tools.watch import Watch


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return base_file(tmp_path_factory.mktemp("base"))


def parsed(*arguments: str) -> Any:
    chosen = _parser().parse_args(arguments)
    return _settings(TOOLS[chosen.tool], chosen)


def test_every_setting_is_an_option_with_help() -> None:
    parsers = next(action for action in _parser()._actions if action.dest == "tool").choices
    assert parsers is not None and set(parsers) == set(TOOLS)
    for name, tool in TOOLS.items():
        actions = {action.dest: action for action in parsers[name]._actions}
        for key, _, info in settings_of(tool.settings):
            assert actions[key].help and info.help.replace("%", "%%") in actions[key].help
        assert set(tool.given) <= set(actions) and set(tool.needed) <= set(actions)
        assert parsers[name].format_help()


def test_values_come_out_as_the_form_gives_them() -> None:
    merged = parsed(
        "merge", "a.ckpt", "b.ckpt", "-o", "m.safetensors", "--amount", "0.3", "--mode", "sum", "--overwrite"
    )
    assert (merged.model_b, merged.model_c, merged.amount, merged.overwrite) == ("b.ckpt", "", 0.3, True)
    baked = parsed(
        "bake", "a", "--lora", "x=1.safetensors", "0.5", "--lora", "C:\\y.safetensors", "unet=1", "-o", "m.ckpt"
    )
    assert baked.loras == (LoraEntry(path="x=1.safetensors", weight=0.5), LoraEntry(path="C:\\y.safetensors", unet=1.0))
    assert parsed("metadata", "f", "--set", "a=b", "--set", "c=d", "e=f").set == ("a=b", "c=d", "e=f")
    assert parsed("hash", "a", "b").files == ("a", "b")


@pytest.mark.parametrize(
    "arguments",
    [(), ("nonsense",), ("merge", "a"), ("merge", "a", "b"), ("merge", "a", "b", "-o", "c", "--amount", "many"),
     ("merge", "a", "b", "-o", "c", "--amount", "99"), ("merge", "a", "b", "-o", "c", "--mode", "x"),
     ("bake", "a", "-o", "b"), ("bake", "a", "-o", "b", "--lora", "c", "0.5", "0.5"),
     ("bake", "a", "-o", "b", "--lora", "c", "x=1"), ("bake", "a", "-o", "b", "--lora", "c", "much"),
     ("extract", "a", "b", "-o", "c", "--rank", "0"), ("convert", "a")],
)  # fmt: skip
def test_bad_options_are_a_sentence_and_exit_code_2(
    arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code: Any = main(arguments)
    except SystemExit as ended:
        code = ended.code
    assert code == 2
    told = capsys.readouterr().err.strip()
    assert told and "Traceback" not in told


def events_of(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "m.safetensors"
    assert main(["convert", str(base), str(output), "--precision", "fp16", "--json"]) == 0
    *progress, result = events_of(capsys.readouterr().out)
    assert progress and all(event["event"] == "progress" and 0 <= event["done"] <= event["total"] for event in progress)
    assert (
        progress[-1]["done"] == progress[-1]["total"] == sum(i.num_bytes for i in read_header(output).tensors.values())
    )
    assert result["event"] == "result" and result["outputs"] == [str(output)]
    assert result["summary_message"]["template"].count("{") == 2, "the window says it in its own language"


def test_json_of_a_refusal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["extract", "none", "none", "-o", str(tmp_path / "x.safetensors"), "--json"]) == 2
    (failed,) = events_of(capsys.readouterr().out)
    assert failed["event"] == "failed" and not failed["stopped"] and "none" in failed["what"]
    assert main(["merge", "a", "b", "--amount", "99", "--amount-c", "-99", "--json"]) == 2
    (failed,) = events_of(capsys.readouterr().out)
    assert {problem["place"] for problem in failed["problems"]} == {"merge.amount", "merge.amount_c"}


def test_words_for_people(base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metadata", str(base)]) == 0
    assert "modelspec.resolution: 64x64" in capsys.readouterr().out
    assert main(["convert", str(base), str(tmp_path / "x.ckpt"), "--ema", "take"]) == 2
    assert "no averaged weights" in capsys.readouterr().err


@pytest.mark.parametrize("tool", ["convert", "merge", "bake", "join", "extract", "resize", "metadata", "hash"])
def test_every_tool_can_be_cancelled_and_leaves_nothing(tool: str, base: Path, tmp_path: Path) -> None:
    """At the first, at a middle and at the last moment at which it may be asked."""
    other = base_file(tmp_path, "other", seed=1)
    lora = str(lora_file(tmp_path / "lora.safetensors", base))
    loras = (LoraEntry(path=lora), LoraEntry(path=lora, weight=0.5))
    output = tmp_path / "new" / "out.safetensors"
    settings: dict[str, Any] = {
        "convert": {"model": base, "output": output},
        "merge": {"model_a": base, "model_b": other, "output": output},
        "bake": {"model": base, "loras": loras, "output": output},
        "join": {"loras": loras, "output": output},
        "extract": {"base": base, "tuned": other, "output": output, "rank": 2},
        "resize": {"lora": lora, "output": output, "rank": 2},
        "metadata": {"file": lora, "set": ("a=b",), "output": output},
        "hash": {"files": (lora, str(base))},
    }[tool]
    asked = 0

    def count() -> bool:
        nonlocal asked
        asked += 1
        return False

    use(tool, Watch(cancelled=count), **settings)
    shutil.rmtree(output.parent, ignore_errors=True)  # the file, and the config beside it
    for moment in (1, asked // 2, asked):
        left = moment

        def cancelled() -> bool:
            nonlocal left
            left -= 1
            return left <= 0

        with pytest.raises(Stopped):
            use(tool, Watch(cancelled=cancelled), **settings)
        assert not output.parent.exists() or not list(output.parent.iterdir())


@pytest.fixture
def large(tmp_path: Path) -> Path:
    """400 MB: long enough to be stopped."""
    return save(tmp_path / "large.safetensors", {f"lora_unet_{n}.diff": torch.zeros(10_000_000) for n in range(10)})


def start(*arguments: str) -> subprocess.Popen[str]:
    line = [sys.executable, "-m", "trainer", "tools", *arguments, "--json"]
    return subprocess.Popen(
        line, cwd=ROOT, stdout=subprocess.PIPE, text=True, encoding="utf-8", env=os.environ | {"PYTHONUTF8": "1"}
    )


@pytest.mark.skipif(os.name == "nt", reason="a console program there is stopped by its stop file")
def test_a_signal_stops_it_with_130_and_no_file(large: Path, tmp_path: Path) -> None:
    process = start("convert", str(large), str(tmp_path / "out.ckpt"))
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["event"] == "progress"
    process.send_signal(signal.SIGINT)
    rest = events_of(process.communicate(timeout=60)[0])
    assert process.returncode == 130 and rest[-1]["stopped"]
    assert {path.name for path in tmp_path.iterdir()} == {"large.safetensors"}


def test_a_stop_file_stops_it(large: Path, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    process = start("convert", str(large), str(tmp_path / "out.ckpt"), "--stop-file", str(stop))
    assert process.stdout is not None and process.stdout.readline()
    stop.write_text("", encoding="utf-8")
    process.communicate(timeout=60)
    assert process.returncode == 130 and not (tmp_path / "out.ckpt").exists()


def test_a_full_disk_is_told_before_anything_is_written(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.errors import RunFailed
    from trainer.tools import output

    monkeypatch.setattr(output, "free_bytes", lambda folder: 1_000_000)
    for target in ("x.safetensors", "x.ckpt"):
        with pytest.raises(RunFailed, match="1 MB free"):
            use("convert", model=base, output=tmp_path / target)
        assert not list(tmp_path.iterdir())


def test_what_only_reads_needs_no_torch(base: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from trainer.tools.commands import main; "
        f"assert main(['hash', {str(base)!r}]) == 0 and main(['metadata', {str(base)!r}]) == 0; "
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_catalog_is_what_a_form_needs() -> None:
    """Every path is a file widget, every list of LoRAs has a section of its own, every output is last to be missing."""
    for tool in TOOLS.values():
        fields = {key: (field, info) for key, field, info in settings_of(tool.settings)}
        for key in tool.given:
            assert fields[key][1].widget in ("file", "list")
        if "loras" in fields:
            assert item_section(fields["loras"][0]) is LoraEntry
        empty = tool.settings()
        assert [problem.place for problem in tool.missing(empty)] == list(tool.needed)
