"""Whole little runs in this process: the same twice, batches against accumulation, previews that change nothing."""

from __future__ import annotations

import errno
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from tests.runs import PROMPT, AfterStep, Recorder, Script, assert_equal, draw_pictures, go, tiny_run, weights
from tests.tiny import save_tiny_file
from trainer.build import build_run
from trainer.config.run import RunFile
from trainer.errors import BadInput, RunFailed
from trainer.ipc import events
from trainer.ipc.events import Command
from trainer.models.safetensors_file import read_header
from trainer.models.stable_diffusion import StableDiffusion
from trainer.orders import Ending, Orders


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_file(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_pictures(tmp_path_factory.mktemp("pictures") / "img", [(64, 64)] * 4)


def test_the_same_run_file_gives_the_same_file(model: Path, pictures: Path, tmp_path: Path) -> None:
    run = tiny_run(model, pictures, network={"rank": 4, "dropout": 0.2}, noise={"noise_offset": 0.05})
    done, first = go(run, tmp_path / "one")
    torch.rand(3)
    _, second = go(run, tmp_path / "two")
    assert (done.outcome, done.step, done.file) == ("finished", 8, "checkpoints/tiny.safetensors")
    assert first.losses == second.losses and len(set(first.losses)) == 8
    assert_equal(weights(tmp_path / "one"), weights(tmp_path / "two"))
    _, other = go(run.model_copy(update={"training": run.training.model_copy(update={"seed": 7})}), tmp_path / "three")
    assert other.losses != first.losses


def test_previews_change_nothing(model: Path, pictures: Path, tmp_path: Path) -> None:
    network = {"rank": 4, "dropout": 0.2}
    plain = tiny_run(model, pictures, network=network)
    samples = {"prompts": (PROMPT,), "every_steps": 3, "every_epochs": 1, "at_start": True, "at_end": True}
    drawing = tiny_run(model, pictures, network=network, samples=samples)
    _, without = go(plain, tmp_path / "without")
    _, drawn = go(drawing, tmp_path / "with", AfterStep(recorder := Recorder(), 5, Command("sample")), recorder)
    assert without.losses == drawn.losses
    assert_equal(weights(tmp_path / "without"), weights(tmp_path / "with"))
    names = sorted(path.name for path in (tmp_path / "with" / "samples").iterdir())
    assert names == [f"tiny_{step:08d}_00_5.png" for step in (0, 3, 4, 5, 6, 8)]
    assert [sample.step for sample in drawn.of(events.Sample)] == [0, 3, 4, 5, 6, 8]


def test_a_batch_of_two_is_two_of_one_accumulated(model: Path, pictures: Path, tmp_path: Path) -> None:
    """To rounding: without Adam, which makes a step of any size out of a gradient that is nearly zero."""
    optimizer = {"name": "SGDNesterov", "learning_rate": 0.5, "text_encoder_rate": 0.5}
    both = tiny_run(model, pictures, optimizer=optimizer, training={"batch_size": 2, "epochs": 3})
    gathered = tiny_run(model, pictures, optimizer=optimizer, training={"batch_size": 1, "accumulation": 2, "epochs": 3})
    _, one = go(both, tmp_path / "batch")
    _, other = go(gathered, tmp_path / "gathered")
    assert len(one.losses) == 6 and one.losses == pytest.approx(other.losses, rel=1e-5)
    left, right = weights(tmp_path / "batch"), weights(tmp_path / "gathered")
    for name, value in left.items():
        torch.testing.assert_close(value, right[name], rtol=1e-4, atol=1e-6)
    assert any(value.abs().max() > 1e-3 for name, value in left.items() if "lora_up" in name), "something was learnt"


def test_the_short_last_group_of_an_epoch_is_stepped(model: Path, pictures: Path, tmp_path: Path) -> None:
    _, recorder = go(tiny_run(model, pictures, training={"accumulation": 3, "epochs": 2}), tmp_path)
    assert [(step.step, step.epoch) for step in recorder.of(events.Step)] == [(1, 1), (2, 1), (3, 2), (4, 2)]


def test_cached_text_states_train_as_the_encoder_does(model: Path, pictures: Path, tmp_path: Path) -> None:
    """UNet only: with constant captions the encoder is not even loaded; keeping all tags in place needs it each step."""
    network = {"rank": 4, "train": "unet"}
    cached = tiny_run(model, pictures, network=network, images={"caption_dropout": 0.5})
    live = tiny_run(model, pictures, network=network,
                    images={"caption_dropout": 0.5, "shuffle_captions": True, "keep_tokens": 9})  # fmt: skip
    _, one = go(cached, tmp_path / "cached")
    _, other = go(live, tmp_path / "live")
    assert one.losses == pytest.approx(other.losses, rel=1e-5)
    assert not any(name.startswith("lora_te") for name in weights(tmp_path / "cached"))


def test_a_warm_cache_loads_neither_vae_nor_encoder(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import os

    for path in model.parent.iterdir():
        os.utime(path, (1.7e9, 1.7e9))  # fresh files are not remembered
    run = tiny_run(model, pictures, network={"rank": 4, "train": "unet"}, training={"steps": 1})
    go(run, tmp_path / "cold")
    loaded: list[set[str]] = []
    load = StableDiffusion.load

    def spied(self: Any, source: Path, vae: Path | None, parts: Any, *rest: Any, **options: Any) -> Any:
        loaded.append(set(parts))
        return load(self, source, vae, parts, *rest, **options)

    monkeypatch.setattr(StableDiffusion, "load", spied)
    go(run, tmp_path / "warm")
    assert loaded == [{"unet"}]


def test_files_epochs_and_keep_last(model: Path, pictures: Path, tmp_path: Path) -> None:
    output = {"save_every_epochs": 1, "save_every_steps": 3, "keep_last": 2, "snapshot_minutes": 1e-6}
    _, recorder = go(tiny_run(model, pictures, training={"epochs": 3}, output=output), tmp_path)
    assert recorder.files == [
        f"checkpoints/tiny{end}.safetensors" for end in
        ("-step00000003", "-000001", "-step00000006", "-000002", "-step00000009", "")
    ]  # fmt: skip
    left = sorted(path.name for path in (tmp_path / "checkpoints").iterdir())
    assert left == ["tiny-000002.safetensors", "tiny-step00000009.safetensors", "tiny.safetensors"]
    assert sorted(path.name for path in (tmp_path / "state").iterdir()) == ["snapshot-00000011.pt", "snapshot-00000012.pt"]


def test_the_header_says_how_it_was_made(model: Path, pictures: Path, tmp_path: Path) -> None:
    go(tiny_run(model, pictures, output={"save_every_epochs": 1}), tmp_path)
    final = read_header(tmp_path / "checkpoints" / "tiny.safetensors").metadata
    first = read_header(tmp_path / "checkpoints" / "tiny-000001.safetensors").metadata
    assert (first["ss_output_name"], first["ss_epoch"], first["ss_steps"]) == ("tiny-000001", "1", "4")
    assert (final["ss_output_name"], final["ss_epoch"], final["ss_steps"]) == ("tiny", "2", "8")
    assert final["ss_network_module"] == "networks.lora" and final["ss_sd_model_name"] == "tiny.safetensors"
    assert len(final["ss_new_sd_model_hash"]) == 64 and final["sshs_model_hash"]
    assert json.loads(final["ss_dataset_dirs"]) == {"1_zork emblem": {"n_repeats": 1, "img_count": 4}}


def test_prompts_are_replaced_and_bad_ones_refused(model: Path, pictures: Path, tmp_path: Path) -> None:
    run = tiny_run(model, pictures, samples={"prompts": (PROMPT,)})
    new = PROMPT.model_copy(update={"seed": 77}).model_dump()
    recorder = Recorder()
    commands = AfterStep(recorder, 2, Command("prompts", (new, new)), Command("sample"))
    go(run, tmp_path / "good", commands, recorder)
    assert [(sample.index, sample.seed) for sample in recorder.of(events.Sample)] == [(0, 77), (1, 77)]
    recorder = Recorder()
    bad = {**new, "steps": 0}
    go(run, tmp_path / "bad", AfterStep(recorder, 2, Command("prompts", (bad,)), Command("sample")), recorder)
    assert [sample.seed for sample in recorder.of(events.Sample)] == [PROMPT.seed]
    assert any("prompts" in str(warning.what) for warning in recorder.of(events.Warning_))


def test_no_memory_for_a_preview_is_a_warning(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise torch.OutOfMemoryError("out of memory")

    monkeypatch.setattr("trainer.previews.sample", refuse)
    samples = {"prompts": (PROMPT,), "every_steps": 2}
    done, recorder = go(tiny_run(model, pictures, samples=samples, training={"epochs": 1}), tmp_path)
    assert done.outcome == "finished" and len(recorder.losses) == 4
    assert any("preview" in str(warning.what) for warning in recorder.of(events.Warning_))


def test_out_of_memory_in_a_step_keeps_what_was_saved(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.diffusion.objective import Denoising

    calls = [0]
    compute = Denoising.__call__

    def limited(self: Any, batch: Any) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 6:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return compute(self, batch)

    monkeypatch.setattr(Denoising, "__call__", limited)
    with pytest.raises(RunFailed, match="gradient checkpointing"):
        go(tiny_run(model, pictures, output={"save_every_epochs": 1}), tmp_path)
    assert weights(tmp_path, "tiny-000001")
    monkeypatch.undo()
    done, recorder = go(tiny_run(model, pictures, output={"save_every_epochs": 1}), tmp_path)
    assert done.outcome == "finished" and [step.step for step in recorder.of(events.Step)] == [5, 6, 7, 8]


def test_a_loss_that_is_no_number_keeps_the_good_snapshot(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from trainer.diffusion import objective

    calls = [0]

    def sick(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        return torch.full((len(prediction),), math.nan if calls[0] > 5 else 1.0) * prediction.mean((1, 2, 3))

    monkeypatch.setattr(objective, "squared_error", sick)
    with pytest.raises(RunFailed, match="no longer a number at step 6"):
        go(tiny_run(model, pictures, output={"save_every_steps": 2}), tmp_path)
    assert [path.name for path in sorted((tmp_path / "state").iterdir())] == ["snapshot-00000002.pt", "snapshot-00000004.pt"]
    assert all(torch.isfinite(weight).all() for weight in weights(tmp_path, "tiny-step00000004").values())


@pytest.mark.parametrize("where", ["export", "snapshot", "no room"])
def test_a_full_disk_is_said_and_the_last_good_file_stays(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    run = tiny_run(model, pictures, output={"save_every_steps": 2})
    recorder = Recorder()
    go(run, tmp_path, AfterStep(recorder, 2, Command("stop")), recorder)
    before = {path: path.read_bytes() for part in ("checkpoints", "state") for path in (tmp_path / part).iterdir()}
    full = OSError(errno.ENOSPC, "No space left on device")

    def refuse(*_: Any, **__: Any) -> Any:
        raise full

    if where == "export":
        monkeypatch.setattr("trainer.methods.lora.TrainedLora.export", refuse)
    elif where == "snapshot":
        monkeypatch.setattr("trainer.checkpoint._HonestFile.write", refuse_writing(full))
    else:
        monkeypatch.setattr("trainer.checkpoint.free_bytes", lambda folder: 1000)
    with pytest.raises(RunFailed, match="The disk is full"):
        go(run, tmp_path)
    assert all(path.read_bytes() == data for path, data in before.items())
    assert not [path for path in tmp_path.rglob("*.tmp")]
    monkeypatch.undo()
    done, recorder = go(run, tmp_path)
    assert done.outcome == "finished" and recorder.of(events.Step)[0].step == 3


def refuse_writing(error: OSError) -> Any:
    def write(self: Any, data: Any) -> int:
        self.error = error
        raise error

    return write


@pytest.mark.parametrize("name", ["stop", "abort"])
def test_a_run_can_be_ended_while_it_is_built(model: Path, pictures: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(Ending):
        build_run(tiny_run(model, pictures), tmp_path, Recorder(), Orders(Script({2: [Command(name)]})))


@pytest.mark.parametrize(("train", "names"), [("text_encoder", ("text_encoder",)), ("both", ("unet", "text_encoder"))])
def test_rates_are_named_after_the_parts_that_learn(
    model: Path, pictures: Path, tmp_path: Path, train: str, names: tuple[str, ...]
) -> None:
    built = build_run(tiny_run(model, pictures, network={"train": train}), tmp_path, Recorder(), Orders(Script()))
    built.close()
    assert built.rates == names and len(built.parts.stepper.rates()) == len(names)


def test_stop_saves_a_file_that_the_run_goes_on_from(model: Path, pictures: Path, tmp_path: Path) -> None:
    recorder = Recorder()
    done, _ = go(tiny_run(model, pictures), tmp_path, AfterStep(recorder, 3, Command("stop")), recorder)
    assert (done.outcome, done.file) == ("stopped", "checkpoints/tiny-step00000003.safetensors")
    done, recorder = go(tiny_run(model, pictures), tmp_path)
    assert [step.step for step in recorder.of(events.Step)] == [4, 5, 6, 7, 8]


def bad_runs(model: Path, pictures: Path) -> dict[str, tuple[RunFile, str]]:
    speed = {"device": "cpu"}
    return {
        "device": (tiny_run(model, pictures, speed={"device": "RTX 9090"}), "There is no device RTX 9090"),
        "fp16": (tiny_run(model, pictures, speed={**speed, "precision": "fp16"}), "CPU can not train in fp16"),
        "model": (tiny_run(model.with_name("none.safetensors"), pictures), "none.safetensors"),
        "argument": (tiny_run(model, pictures, optimizer={"arguments": {"beta": 1}}), "Did you mean betas"),
        "rates": (tiny_run(model, pictures, optimizer={"name": "Prodigy"}), "one rate for all parts"),
    }


@pytest.mark.parametrize("which", ["device", "fp16", "model", "argument", "rates"])
def test_what_can_not_be_trained_is_said(model: Path, pictures: Path, tmp_path: Path, which: str) -> None:
    run, said = bad_runs(model, pictures)[which]
    with pytest.raises(BadInput, match=said):
        go(run, tmp_path)


def test_xformers_gives_way_with_a_warning(model: Path, pictures: Path, tmp_path: Path) -> None:
    run = tiny_run(model, pictures, speed={"attention": "xformers"}, training={"steps": 1})
    done, recorder = go(run, tmp_path)
    assert done.outcome == "finished" and "xformers" in str(recorder.of(events.Warning_)[0].what)


def test_bf16_trains_on_the_cpu(model: Path, pictures: Path, tmp_path: Path) -> None:
    run = tiny_run(model, pictures, speed={"precision": "bf16", "gradient_checkpointing": True}, training={"steps": 2})
    _, recorder = go(run, tmp_path)
    assert len(recorder.losses) == 2 and all(math.isfinite(loss) for loss in recorder.losses)
    assert all(weight.dtype == torch.float32 for weight in weights(tmp_path).values())


def test_gradient_checkpointing_changes_nothing(model: Path, pictures: Path, tmp_path: Path) -> None:
    network = {"rank": 4, "dropout": 0.2}
    _, plain = go(tiny_run(model, pictures, network=network), tmp_path / "plain")
    _, thrifty = go(tiny_run(model, pictures, network=network, speed={"gradient_checkpointing": True}), tmp_path / "thrifty")
    assert plain.losses == pytest.approx(thrifty.losses, rel=1e-5)


def test_a_preview_is_a_png_that_the_webui_reads(model: Path, pictures: Path, tmp_path: Path) -> None:
    run = tiny_run(model, pictures, samples={"prompts": (PROMPT,), "at_start": True}, training={"steps": 1})
    go(run, tmp_path)
    with Image.open(tmp_path / "samples" / "tiny_00000000_00_5.png") as picture:
        assert picture.size == (64, 64)
        assert picture.info["parameters"] == (
            "a zork\nNegative prompt: ugly\n"
            "Steps: 2, Sampler: Euler a, CFG scale: 3, Seed: 5, Size: 64x64, Model: tiny, Clip skip: 1, RNG: CPU"
        )
