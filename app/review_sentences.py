"""What a run will do, in sentences for the review."""

from __future__ import annotations

from pathlib import Path

from app.draft import Draft
from app.editors import number_text
from app.i18n import joined, listed, tr, translate_message
from app.words import count_words, size_words
from trainer.config.run import RunFile
from trainer.paths import default_runs_folder

Sentence = tuple[str, str]  # icon, text


def sentences(draft: Draft) -> list[Sentence]:
    """An icon and a sentence for each thing that is known; nothing is said of what is not."""
    run = draft.usable
    if run is None:
        return []
    found = [_model(run), _pictures(draft), _length(draft), _learning(run), _samples(draft, run), _files(draft, run)]
    return [sentence for sentence in found if sentence is not None]


def _model(run: RunFile) -> Sentence | None:
    if not run.model.path:
        return None
    parts = {
        "both": tr("its UNet and its text encoder learn"),
        "unet": tr("its UNet learns"),
        "text_encoder": tr("its text encoder learns"),
    }
    text = tr(
        "A LoRA of rank {rank} is trained on {model}; {parts}.",
        rank=run.network.rank, model=Path(run.model.path).name, parts=parts[run.network.train],
    )  # fmt: skip
    return "box", text


def _pictures(draft: Draft) -> Sentence | None:
    index = draft.disk.index
    if index is None or not index.train:
        return None
    sizes = {item.size for item in index.train}
    text = tr("{count} pictures are learnt.", count=len(index.train))
    if len(sizes) > 1 and draft.usable is not None and draft.usable.images.buckets:
        text = joined(text, tr("Each keeps its shape; none is dropped."))
    if index.reg:
        text = joined(text, tr("{count} class pictures keep the model from forgetting.", count=len(index.reg)))
    if index.skipped:
        text = joined(text, tr("{count} files are left out.", count=len(index.skipped)))
    return "images", text


def _length(draft: Draft) -> Sentence | None:
    plan = draft.disk.plan
    return None if plan is None else ("footprints", translate_message(plan.sentence()))


def _learning(run: RunFile) -> Sentence:
    optimizer = run.optimizer
    unet = optimizer.learning_rate if optimizer.unet_rate is None else optimizer.unet_rate
    text_rate = optimizer.learning_rate if optimizer.text_encoder_rate is None else optimizer.text_encoder_rate
    values = {
        "optimizer": optimizer.name,
        "unet": number_text(unet),
        "text": number_text(text_rate),
        "schedule": run.scheduler.name,
        "precision": run.speed.precision,
        "device": run.speed.device,
    }
    if run.network.train == "both":
        text = tr("{optimizer} with rates of {unet} (UNet) and {text} (text encoder), schedule {schedule}.", **values)
    elif run.network.train == "unet":
        text = tr("{optimizer} with a rate of {unet}, schedule {schedule}.", **values)
    else:
        text = tr("{optimizer} with a rate of {text}, schedule {schedule}.", **values)
    return "gauge", joined(text, tr("Precision {precision}, device {device}.", **values))


def _samples(draft: Draft, run: RunFile) -> Sentence | None:
    prompts = len(run.samples.prompts)
    if not prompts:
        return "image", tr("No previews: you will see numbers only.")
    times = []
    if run.samples.at_start:
        times.append(tr("before the first step"))
    if run.samples.every_epochs == 1:
        times.append(tr("after every epoch"))
    elif run.samples.every_epochs:
        times.append(tr("every {count} epochs", count=run.samples.every_epochs))
    if run.samples.every_steps:
        times.append(tr("every {count} steps", count=run.samples.every_steps))
    if run.samples.at_end:
        times.append(tr("at the end"))
    if not times:
        return "image", tr("There are {count} prompts, but no previews are asked for.", count=prompts)
    return "image", tr("{count} previews are drawn: {times}.", count=prompts, times=listed(times))


def _files(draft: Draft, run: RunFile) -> Sentence:
    folder = run.output.folder or str(default_runs_folder())
    facts = draft.disk.facts
    text = tr("Everything goes into a new folder in {folder}.", folder=folder)
    if facts is not None and facts.file_bytes and facts.num_files:
        kept = tr(
            "LoRA files kept: {count} of about {size} ({all}; free: {free}).",
            count=count_words(facts.num_files), size=size_words(facts.file_bytes),
            all=size_words(facts.file_bytes * facts.num_files), free=size_words(facts.free_bytes or 0),
        )  # fmt: skip
        text = joined(text, kept)
    if run.output.export_to:
        text = joined(text, tr("The finished one is copied to {target}.", target=run.output.export_to))
    return "folder-output", text
