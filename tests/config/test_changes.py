"""A run that goes on with other settings names each of them."""

from __future__ import annotations

from trainer.config.changes import changed_settings, plain_values
from trainer.config.run import Folder, Prompt, RunFile


def with_values(run: RunFile, section: str, **values: object) -> RunFile:
    return run.model_copy(update={section: getattr(run, section).model_copy(update=values)})


def test_an_unchanged_run_has_nothing_to_say() -> None:
    run = RunFile()
    assert changed_settings(plain_values(run), run) == ()


def test_every_changed_setting_is_named_with_both_values() -> None:
    before = RunFile()
    after = with_values(before, "optimizer", learning_rate=0.5, unet_rate=0.25)
    after = with_values(after, "images", flip=not before.images.flip, folders=(Folder(path="pictures"),))
    said = [str(change) for change in changed_settings(plain_values(before), after)]
    flip = (str(before.images.flip).lower(), str(after.images.flip).lower())
    assert set(said) == {
        "images.folders has another value than before.",
        f"images.flip was {flip[0]} and is now {flip[1]}.",
        f"optimizer.learning_rate was {before.optimizer.learning_rate} and is now 0.5.",
        "optimizer.unet_rate was empty and is now 0.25.",
    }


def test_arguments_of_the_optimiser_count_as_one_setting() -> None:
    after = with_values(RunFile(), "optimizer", arguments={"weight_decay": "0.1"})
    (change,) = changed_settings(plain_values(RunFile()), after)
    assert str(change) == "optimizer.arguments has another value than before."


def test_what_changes_no_result_and_what_one_version_lacks_is_left_out() -> None:
    run = RunFile()
    other = with_values(with_values(run, "samples", prompts=(Prompt(prompt="x"),)), "output", keep_last=3)
    assert changed_settings(plain_values(run), other) == ()
    older = plain_values(run)
    del older["training"]["seed"]
    older["training"]["forgotten"] = 1
    assert changed_settings(older, run) == ()
