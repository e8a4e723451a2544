"""k steps + resume + n - k equal n, bit for bit; a killed run goes on, and no finished file is ever broken."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from tests.runs import PROMPT, AfterStep, Recorder, assert_equal, draw_pictures, go, tiny_run, weights
from tests.tiny import save_tiny_file
from trainer.checkpoint import read_snapshot, snapshots
from trainer.config.files import write_run
from trainer.config.run import RunFile
from trainer.errors import RunFailed
from trainer.ipc import events
from trainer.ipc.events import Command
from trainer.ipc.journal import Rows, decode, step_of
from trainer.models.tensor_file import read_file
from trainer.optim.build import build_optimizer
from trainer.optim.curves import multiplier
from trainer.optim.stepper import Stepper
from trainer.optim.table import OPTIMIZERS
from trainer.paths import ROOT


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_file(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "img", [(64, 64)] * 3 + [(96, 64)] * 2)


def broken_and_whole(run: RunFile, tmp_path: Path, at: int) -> tuple[Recorder, Recorder, Recorder]:
    """The run unbroken, and in another folder stopped after `at` steps and resumed."""
    _, whole = go(run, tmp_path / "whole")
    first = Recorder()
    go(run, tmp_path / "broken", AfterStep(first, at, Command("stop")), first)
    torch.rand(11)  # the second process would start elsewhere
    _, second = go(run, tmp_path / "broken")
    return whole, first, second


@pytest.mark.parametrize("name", ["AdamW", "AdamW8bit"])
def test_resume_is_exact(model: Path, pictures: Path, tmp_path: Path, name: str) -> None:
    """Dropout on, accumulation, two buckets, and for 8 bits tensors of 4,096 elements and more (rank 64 × width 64)."""
    run = tiny_run(
        model, pictures, network={"rank": 64, "dropout": 0.2}, training={"accumulation": 2, "epochs": 3},
        optimizer={"name": name}, scheduler={"name": "cosine", "warmup_ratio": 0.2},
    )  # fmt: skip
    whole, first, second = broken_and_whole(run, tmp_path, 4)
    assert first.losses + second.losses == whole.losses
    assert [s.rates for s in first.of(events.Step) + second.of(events.Step)] == [s.rates for s in whole.of(events.Step)]
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "broken"))
    if name == "AdamW8bit":
        state = read_snapshot(tmp_path / "whole", lambda warning: None)
        assert state is not None and holds_bytes(state["stepper"]["optimizer"])


def test_a_run_that_began_from_convolutions_resumes_without_their_file(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    """The layers that the other LoRA brought are in the snapshot, not in the run file."""
    go(tiny_run(model, pictures, network={"conv_rank": 2}, training={"epochs": 1}), tmp_path / "before")
    begun = (tmp_path / "before" / "checkpoints" / "tiny.safetensors").rename(tmp_path / "begun.safetensors")
    run = tiny_run(model, pictures, network={"rank": 8, "network_weights": str(begun)}, training={"epochs": 3})
    _, whole = go(run, tmp_path / "whole")
    first = Recorder()
    go(run, tmp_path / "broken", AfterStep(first, 4, Command("stop")), first)
    begun.unlink()
    _, second = go(run, tmp_path / "broken")
    assert first.losses + second.losses == whole.losses
    assert any("_conv1." in name for name in weights(tmp_path / "broken"))
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "broken"))


def holds_bytes(state: Any) -> bool:
    if isinstance(state, torch.Tensor):
        return state.dtype == torch.uint8
    if isinstance(state, dict):
        return any(holds_bytes(value) for value in state.values())
    return isinstance(state, list) and any(holds_bytes(value) for value in state)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimiser_resumes_exactly(name: str, tmp_path: Path) -> None:
    """Through torch.save and back, in the middle of a schedule, with a tensor of 8,192 elements."""
    rate = 1.0 if name == "Prodigy" else 1e-2

    def make() -> tuple[torch.nn.Parameter, Stepper]:
        weight = torch.nn.Parameter(torch.randn(64, 128, generator=torch.Generator().manual_seed(0)))
        optimizer = build_optimizer(OPTIMIZERS[name], [{"params": [weight], "lr": rate, "name": "unet"}], {})
        curve = "adafactor" if name == "Adafactor" else "cosine"
        return weight, Stepper(optimizer, lambda step: multiplier(curve, step, 12, 2), max_grad_norm=1.0)

    def steps(weight: torch.nn.Parameter, stepper: Stepper, numbers: range) -> list[tuple[float, ...]]:
        rates = []
        for number in numbers:
            torch.manual_seed(number)
            stepper.backward(((weight - torch.randn(64, 128)) ** 2).mean())
            stepper.step(number)
            rates.append(stepper.rates())
        return rates

    weight, stepper = make()
    expected = steps(weight, stepper, range(12))
    first, before = make()
    steps(first, before, range(5))
    torch.save({"weight": first.detach(), "stepper": before.state_dict()}, tmp_path / "state.pt")
    second, after = make()
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    with torch.no_grad():
        second.copy_(state["weight"])
    after.load_state_dict(state["stepper"])
    assert steps(second, after, range(5, 12)) == expected[5:]
    assert torch.equal(second, weight)


def test_the_schedule_goes_on_where_it_was(model: Path, pictures: Path, tmp_path: Path) -> None:
    """Not anew from the start, as sd-scripts' own resume does (its cosine climbs again), and no step too many."""
    run = tiny_run(model, pictures, training={"steps": 6}, scheduler={"name": "linear", "warmup_ratio": 0.0})
    _, first, second = broken_and_whole(run, tmp_path, 4)
    rates = [step.rates[0] for step in second.of(events.Step)]
    assert rates == pytest.approx([1e-2 * (1 - 4 / 6), 1e-2 * (1 - 5 / 6)])
    assert [step.step for step in first.of(events.Step) + second.of(events.Step)] == [1, 2, 3, 4, 5, 6]


def test_replaced_prompts_survive(model: Path, pictures: Path, tmp_path: Path) -> None:
    run = tiny_run(model, pictures, samples={"prompts": (PROMPT,), "at_end": True}, training={"steps": 4})
    new = PROMPT.model_copy(update={"seed": 99}).model_dump()
    recorder = Recorder()
    go(run, tmp_path, AfterStep(recorder, 2, Command("prompts", (new,)), Command("save"), Command("stop")), recorder)
    _, second = go(run, tmp_path)
    assert [(sample.step, sample.seed) for sample in second.of(events.Sample)] == [(4, 99)]


def test_a_damaged_snapshot_gives_way_to_the_one_before(model: Path, pictures: Path, tmp_path: Path) -> None:
    run = tiny_run(model, pictures, training={"steps": 6}, output={"save_every_steps": 2})
    _, whole = go(run, tmp_path / "whole")
    recorder = Recorder()
    go(run, tmp_path / "broken", AfterStep(recorder, 4, Command("abort")), recorder)
    newest = snapshots(tmp_path / "broken")[0]
    newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    _, second = go(run, tmp_path / "broken")
    assert newest.name in str(second.of(events.Warning_)[0].what)
    assert [step.step for step in second.of(events.Step)] == [3, 4, 5, 6] and second.losses == whole.losses[2:]
    assert_equal(weights(tmp_path / "whole"), weights(tmp_path / "broken"))


def test_a_snapshot_of_another_network_is_refused(model: Path, pictures: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    run = tiny_run(model, pictures, network={"train": "both"})
    go(run, tmp_path, AfterStep(recorder, 2, Command("stop")), recorder)
    with pytest.raises(RunFailed, match="does not fit this run"):
        go(tiny_run(model, pictures, network={"train": "unet"}), tmp_path)


def test_changed_captions_are_said(model: Path, tmp_path: Path) -> None:
    pictures = draw_pictures(tmp_path / "img", [(64, 64)] * 2)
    recorder = Recorder()
    run = tiny_run(model, pictures)
    go(run, tmp_path / "run", AfterStep(recorder, 1, Command("stop")), recorder)
    next(pictures.rglob("*.txt")).write_text("something else", encoding="utf-8")
    _, second = go(run, tmp_path / "run")
    assert any("have changed" in str(warning.what) for warning in second.of(events.Warning_))


def test_changed_settings_are_said(model: Path, pictures: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    go(tiny_run(model, pictures), tmp_path, AfterStep(recorder, 1, Command("stop")), recorder)
    same = Recorder()
    go(tiny_run(model, pictures), tmp_path, AfterStep(same, 1, Command("stop")), same)
    assert not any("is now" in str(warning.what) for warning in same.of(events.Warning_))
    _, second = go(tiny_run(model, pictures, noise={"noise_offset": 0.5}), tmp_path)
    said = [str(warning.what) for warning in second.of(events.Warning_) if "is now" in str(warning.what)]
    assert said == ["noise.noise_offset was 0.0 and is now 0.5."]


def test_a_longer_run_goes_on(model: Path, pictures: Path, tmp_path: Path) -> None:
    go(tiny_run(model, pictures, training={"steps": 3}), tmp_path)
    done, recorder = go(tiny_run(model, pictures, training={"steps": 5}), tmp_path)
    assert (done.step, [step.step for step in recorder.of(events.Step)]) == (5, [4, 5])


# --- real processes, really killed ---

RUN_ON = """
import sys
from pathlib import Path
import torch
torch.set_num_threads(1)
from trainer.ipc.runfolder import RunFolder
from trainer.training import train
from trainer import worker
ending = worker.work(RunFolder(Path(sys.argv[1])), train)
print(ending)
sys.exit(worker.exit_code(ending))
"""


def start(folder: Path) -> subprocess.Popen[bytes]:
    """A worker that goes on in `folder`."""
    log = (folder / "log.txt").open("ab")
    with log:
        return subprocess.Popen([sys.executable, "-c", RUN_ON, str(folder)], cwd=ROOT, stdout=log, stderr=log)


def num_events(folder: Path) -> int:
    journal = folder / "events.jsonl"
    return journal.read_bytes().count(b"\n") if journal.exists() else 0


def kill_at_random(folder: Path, dice: random.Random) -> bool:
    """Start a worker, let it get somewhere, kill -9 it. False if it had ended before."""
    before, process = num_events(folder), start(folder)
    wanted = before + dice.randrange(3, 30)
    deadline = time.monotonic() + 240
    while process.poll() is None and num_events(folder) < wanted and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(dice.random() * 0.05)  # anywhere in a step, a save, a snapshot
    if process.poll() is not None:
        return False
    psutil.Process(process.pid).send_signal(signal.SIGKILL if os.name != "nt" else signal.SIGTERM)
    process.wait(30)
    return True


def check_finished_files(folder: Path) -> None:
    """Every file that has its final name is whole."""
    for path in (folder / "checkpoints").glob("*.safetensors"):
        assert all(torch.isfinite(tensor).all() for tensor in read_file(path).values()), path
    for path in snapshots(folder):
        assert torch.load(path, weights_only=True)["format"] == 1, path


def steps_in_journal(folder: Path) -> dict[int, float]:
    """Step → loss as a window shows them: what a resumed run goes over again replaces what was there."""
    curve: dict[int, float] = {}
    for line in (folder / "events.jsonl").read_bytes().splitlines():
        record = decode(line)
        if isinstance(record, Rows):
            step = step_of(record.rows[0])
            assert step.step == len(curve) + 1, "a gap or a double"
            curve[step.step] = step.loss
        elif isinstance(record.event, events.Hello):
            curve = {step: loss for step, loss in curve.items() if step <= record.event.from_step}
    return curve


def killed_run(model: Path, pictures: Path, tmp_path: Path, kills: int, steps: int) -> None:
    output = {"save_every_steps": 2, "keep_last": 3, "snapshot_minutes": 1e-6}
    run = tiny_run(model, pictures, training={"steps": steps}, network={"rank": 8, "dropout": 0.1}, output=output)
    _, whole = go(run, tmp_path / "whole")
    folder = tmp_path / "killed"
    for part in ("checkpoints", "state", "samples"):
        (folder / part).mkdir(parents=True)
    write_run(folder / "run.toml", run)
    dice, killed = random.Random(1), 0
    while killed < kills and kill_at_random(folder, dice):
        killed += 1
        check_finished_files(folder)
    assert start(folder).wait(900) == 0, (folder / "log.txt").read_text(encoding="utf-8", errors="replace")[-2000:]
    assert killed == kills, "the run ended too early for this test to mean anything"
    check_finished_files(folder)
    assert list(steps_in_journal(folder).values()) == pytest.approx(whole.losses, rel=1e-6)  # the journal rounds
    assert_equal(weights(tmp_path / "whole"), weights(folder))
    assert not list(folder.rglob("*.tmp"))


def test_a_killed_run_goes_on_as_if_nothing_had_been(model: Path, pictures: Path, tmp_path: Path) -> None:
    killed_run(model, pictures, tmp_path, kills=1, steps=24)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_kills(model: Path, pictures: Path, tmp_path: Path) -> None:
    killed_run(model, pictures, tmp_path, kills=10, steps=160)
