"""`python -m trainer fetch`: how far it is, being ended, and what it can not fetch."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.hub_model import DIFFUSERS, REPO, TAKEN, files_in, weights
from tests.models.hub_server import Hub
from trainer.paths import ROOT

pytestmark = pytest.mark.usefixtures("served")


def command(server: Hub, *arguments: str, home: Path, **variables: str) -> subprocess.Popen[str]:
    ours = {"HF_ENDPOINT": server.address, "HF_HUB_OFFLINE": "0", "ATHANOR_HOME": str(home)}
    environment = {**os.environ, **ours, **variables}
    return subprocess.Popen(
        [sys.executable, "-m", "trainer", "fetch", *arguments], cwd=ROOT, env=environment, text=True, encoding="utf-8",
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_the_command_says_how_far_it_is(server: Hub, tmp_path: Path) -> None:
    child = command(server, REPO, "--json", home=tmp_path)
    out, err = child.communicate(timeout=60)
    lines = [json.loads(line) for line in out.splitlines()]
    assert child.returncode == 0, err
    assert lines[0]["event"] == "plan" and lines[0]["total"] == sum(len(DIFFUSERS[name]) for name in TAKEN)
    assert lines[-1]["event"] == "done" and files_in(Path(lines[-1]["path"])) == TAKEN
    assert all(line["done"] <= line["total"] for line in lines if line["event"] == "progress")
    assert {path for _, path, _, _ in server.asked if not path.startswith(("/cdn/", f"/{REPO}/resolve/"))} == {
        f"/api/models/{REPO}"
    }  # and nothing else is asked or told


def test_a_command_that_is_ended_goes_on_the_next_time(server: Hub, tmp_path: Path) -> None:
    server.repos[REPO]["big.safetensors"] = weights(20, 6_000_000)
    server.cut_after, server.cuts = 3_000_000, 1000
    child = command(server, f"{REPO}/big.safetensors", "--json", home=tmp_path)
    assert child.stdout is not None
    for line in child.stdout:
        if json.loads(line)["event"] == "progress":
            break
    child.send_signal(signal.SIGTERM) if os.name != "nt" else child.kill()
    child.communicate(timeout=30)
    server.cuts = 0
    kept = [path.stat().st_size for path in tmp_path.rglob("*.part")] or [6_000_000]
    server.asked.clear()
    again = command(server, f"{REPO}/big.safetensors", home=tmp_path)
    out, err = again.communicate(timeout=60)
    assert again.returncode == 0, err
    ranges = [int(given.removeprefix("bytes=").removesuffix("-") or 0) for given in server.sent("/cdn/")]
    assert ranges == [kept[0]] or kept[0] == 6_000_000
    assert "big.safetensors" in out


def test_the_command_only_asks_for_the_size(server: Hub, tmp_path: Path) -> None:
    child = command(server, REPO, "--plan", home=tmp_path)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0 and f"{len(TAKEN)} files" in out, err
    assert server.sent("/cdn/") == []


@pytest.mark.parametrize("moved", [False, True])
def test_a_token_that_was_saved_by_a_login_is_taken(server: Hub, tmp_path: Path, moved: bool) -> None:
    """By the library's own login, where HF_HOME or the user's cache is; the models' cache may be elsewhere."""
    server.token = "hf_secret"
    theirs = {"HF_HOME": str(tmp_path / "hf")} if moved else {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    theirs |= {"HF_ENDPOINT": server.address, "HF_HUB_OFFLINE": "0"}
    login = [sys.executable, "-c", "import huggingface_hub; huggingface_hub.login('hf_secret', skip_if_logged_in=False)"]
    subprocess.run(login, env={**os.environ, **theirs}, check=True, capture_output=True)
    home = tmp_path / "home"
    refused = command(server, REPO, home=home, HF_HUB_DISABLE_IMPLICIT_TOKEN="1", **theirs)
    assert "not public" in refused.communicate(timeout=60)[1] and refused.returncode == 2
    server.asked.clear()
    child = command(server, REPO, "--json", home=home, **theirs)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert files_in(Path(json.loads(out.splitlines()[-1])["path"])) == TAKEN
    assert all(has_token == (not path.startswith("/cdn/")) for _, path, _, has_token in server.asked)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and b"hf_secret" in path.read_bytes()]
    assert {path.name for path in kept} <= {"token", "stored_tokens"} and "hf_secret" not in out + err


def test_what_the_command_can_not_fetch_is_a_sentence(
    server: Hub, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    from trainer.__main__ import main

    assert main(["fetch", "someone/none"]) == 2
    assert "There is no model someone/none" in capfd.readouterr().err
    assert main(["fetch", "someone/none", "--json"]) == 2
    answer = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert not answer["ok"] and "There is no model" in answer["what"] and answer["todo"]
    assert answer["what_message"]["values"] == {"id": "someone/none"}  # for the window's language
    assert main(["fetch", str(tmp_path)]) == 2
    assert "is no model's id" in capfd.readouterr().err
