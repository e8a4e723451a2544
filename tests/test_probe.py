"""What a UNet predicts, told from its answers: on tiny models trained for a moment in either way, and on random ones."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.families import silenced
from tests.runs import draw_pictures, go, tiny_run
from tests.tiny import family_of, save_tiny_file, tiny_model
from trainer.__main__ import main
from trainer.config.run import Model
from trainer.data.memo import Memo
from trainer.diffusion.process import Process
from trainer.errors import BadInput
from trainer.guess import Guess, judge
from trainer.ipc import events
from trainer.models.header import ModelFacts, inspect_file
from trainer.models.protocol import Components, Cond
from trainer.models.safetensors_file import read_header
from trainer.parametrisation import known_guess, parametrisation
from trainer.probe import probe


def trained(prediction: str, steps: int = 70) -> Components:
    """A tiny SD 2.x whose UNet has seen noise on smooth latents for a moment, much and little of it in turn."""
    parts = tiny_model("sd2", prediction=prediction)
    process, dice = Process(prediction), torch.Generator().manual_seed(0)
    unet = parts.unet.requires_grad_(True)
    optimizer = torch.optim.AdamW(unet.parameters(), lr=4e-3)
    empty = torch.zeros(4, 77, 32)
    for _ in range(steps):
        coarse = torch.randn(4, 4, 2, 2, generator=dice)
        latents = torch.nn.functional.interpolate(coarse, size=(8, 8), mode="bilinear")
        noise = torch.randn(4, 4, 8, 8, generator=dice)
        timesteps = torch.randint(60, (4,), generator=dice) + torch.tensor([940, 940, 180, 180])
        answer = unet(process.add_noise(latents, noise, timesteps), timesteps, encoder_hidden_states=empty).sample
        (answer - process.target(latents, noise, timesteps)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    unet.requires_grad_(False)
    return parts


@pytest.fixture(scope="module")
def models() -> dict[str, Components]:
    return {prediction: trained(prediction) for prediction in ("epsilon", "v_prediction")}


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_trained_unet_tells_what_it_predicts(models: dict[str, Components], prediction: str) -> None:
    found = probe(models[prediction], family_of("sd2"), Cond(torch.zeros(1, 77, 32)))
    assert found.prediction == prediction, found
    again = probe(models[prediction], family_of("sd2"), Cond(torch.zeros(1, 77, 32)))
    assert again == found, "the test makes up the same noise each time"


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl"])
def test_random_weights_tell_nothing(name: str) -> None:
    parts = tiny_model(name)
    pooled = torch.zeros(1, 64) if name == "sdxl" else None
    width = parts.unet.config.cross_attention_dim
    assert probe(parts, family_of(name), Cond(torch.zeros(1, 77, width), pooled)).prediction is None


def test_an_inpainting_unet_can_be_asked_too() -> None:
    parts = tiny_model("sd1", in_channels=9)
    assert probe(parts, family_of("sd1"), Cond(torch.zeros(1, 77, 32))).prediction is None


@pytest.mark.parametrize(
    ("noisy", "clear", "prediction"),
    [
        (0.99, 0.97, "epsilon"), (0.05, 0.9, "v_prediction"), (-0.1, 0.9, "v_prediction"), (0.5, 0.9, None),
        (0.6, 0.9, None), (0.99, 0.1, None), (3.0, 0.9, None), (0.0, 0.0, None),
    ],
)  # fmt: skip
def test_the_judgement(noisy: float, clear: float, prediction: str | None) -> None:
    found = judge(noisy, clear)
    assert found.prediction == prediction and str(found.sentence())


# --- who decides ---


def facts(prediction: str | None, source: str | None, zero_snr: bool | None = None) -> ModelFacts:
    from trainer.messages import say

    return ModelFacts(Path("m"), "base", "sd2", say("x"), prediction=prediction, prediction_source=source, zero_snr=zero_snr)


def never() -> Guess:
    raise AssertionError("nobody may be asked")


def test_the_user_goes_before_the_file_and_the_file_before_the_test() -> None:
    told = facts("v_prediction", "metadata", True)
    assert parametrisation(Model(), told, {}, never).prediction == "v_prediction"
    assert parametrisation(Model(), told, {}, never).zero_snr
    assert not parametrisation(Model(zero_terminal_snr="off"), told, {}, never).zero_snr
    mine = parametrisation(Model(prediction="epsilon"), told, {}, never)
    assert (mine.prediction, mine.zero_snr) == ("epsilon", False), "what only suits v goes with it"
    silent = facts(None, None)
    guessed = parametrisation(Model(), silent, {}, lambda: judge(0.0, 0.9))
    assert guessed.prediction == "v_prediction" and guessed.doubt is not None and guessed.todo is not None
    unsure = parametrisation(Model(), silent, {}, lambda: judge(0.0, 0.0))
    assert unsure.prediction == "epsilon" and unsure.doubt is not None
    resumed = parametrisation(Model(), silent, {"prediction": "v_prediction"}, never)
    assert resumed.prediction == "v_prediction" and resumed.doubt is None
    assert parametrisation(Model(zero_terminal_snr="on"), silent, {"prediction": "v_prediction"}, never).zero_snr
    with pytest.raises(BadInput, match="pure noise"):
        parametrisation(Model(zero_terminal_snr="on", prediction="epsilon"), silent, {}, never)


def test_a_test_made_before_goes_before_what_the_family_mostly_is() -> None:
    usual = facts("epsilon", "family")
    assert parametrisation(Model(), usual, {}, never).doubt is None
    tested = parametrisation(Model(), usual, {}, never, lambda: judge(0.0, 0.9))
    assert tested.prediction == "v_prediction" and tested.doubt is not None
    for same in (judge(1.0, 0.9), judge(0.0, 0.0)):
        found = parametrisation(Model(), usual, {}, never, lambda same=same: same)
        assert (found.prediction, found.doubt) == ("epsilon", None)
    resumed = parametrisation(Model(), usual, {"prediction": "epsilon"}, never, lambda: judge(0.0, 0.9))
    assert (resumed.prediction, resumed.doubt) == ("epsilon", None), "a run ends as it began"


# --- in a run, and on the command line ---


@pytest.fixture(scope="module")
def silent_v(models: dict[str, Components], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of a v-prediction model that does not say what it is, old enough to be remembered."""
    path = tmp_path_factory.mktemp("silent") / "model.safetensors"
    family_of("sd2").save(models["v_prediction"], path, torch.float32, {"modelspec.resolution": "64x64"})
    silenced(path)
    for file in path.parent.iterdir():
        os.utime(file, (1.7e9, 1.7e9))
    return path


def test_a_run_goes_by_the_guess_and_says_so(silent_v: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert inspect_file(silent_v).prediction_source is None and known_guess(Memo(), silent_v) is None
    pictures = draw_pictures(tmp_path / "img", [(64, 64)])
    run = tiny_run(silent_v, pictures, training={"steps": 1}, network={"rank": 4, "train": "unet"})
    _, recorder = go(run, tmp_path / "run")
    (warning,) = recorder.of(events.Warning_)
    assert "v-prediction" in str(warning.what) and "wrong" in str(warning.todo)
    said = read_header(tmp_path / "run" / "checkpoints" / "tiny.safetensors").metadata
    assert said["modelspec.prediction_type"] == "v" and said["ss_base_model_version"] == "sd_v2_v"
    remembered = known_guess(Memo(), silent_v)
    assert remembered is not None and remembered.prediction == "v_prediction"

    def asked_again(*anything: Any) -> Guess:
        raise AssertionError("it was remembered")

    monkeypatch.setattr("trainer.build.probe", asked_again)
    _, again = go(run, tmp_path / "again")
    assert len(again.of(events.Warning_)) == 1, "a guess stays a guess"


def test_the_command(silent_v: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["probe", str(silent_v), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"] and answer["guess"] == "v_prediction" and answer["prediction"] is None
    assert len(answer["shares"]) == 2 and answer["summary_message"]["template"]


def test_the_command_refuses_what_is_no_model(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a.txt").write_text("nothing", encoding="utf-8")
    assert main(["probe", str(tmp_path / "a.txt"), "--json"]) == 2
    said = capsys.readouterr()
    assert json.loads(said.out)["ok"] is False and "Traceback" not in said.err


def test_a_file_that_says_it_can_be_tested_too(tmp_path: Path) -> None:
    from trainer.probe import probe_file

    found, guess = probe_file(save_tiny_file(tmp_path, family="sd1"))
    assert found.prediction == "epsilon" and guess.prediction is None
