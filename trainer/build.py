"""From a run file to the parts that the loop turns: the only place that knows them all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainer import metadata
from trainer.base_model import BaseModel, Sources
from trainer.check import bucketing
from trainer.checkpoint import Checkpoints, Saving, clear_leftovers, fitting, read_snapshot
from trainer.config.changes import plain_values
from trainer.config.registry import method_modules
from trainer.config.run import Prompt, RunFile
from trainer.data.batches import Batches
from trainer.data.cache import Latents
from trainer.data.index import Index
from trainer.data.memo import Memo
from trainer.data.order import Sample, place
from trainer.data.store import Store
from trainer.device import (
    choose_device,
    choose_dtype,
    describe_device,
    memory_in_use,
    precision_context,
    usable_attention,
)
from trainer.diffusion.objective import Denoising
from trainer.diffusion.process import Process
from trainer.errors import BadInput
from trainer.estimate import StepPlan
from trainer.export import BaseHash
from trainer.exporting import Export
from trainer.family_rules import family_of
from trainer.guess import Guess
from trainer.ipc import events
from trainer.ipc.runfolder import safe_name
from trainer.loop import Parts, Reporter, memory_sentence
from trainer.messages import Message, say
from trainer.methods import Trained
from trainer.models.header import ModelFacts, base_problem, inspect_file
from trainer.models.hub import shown_stem
from trainer.models.protocol import Components, Family, Part, is_inpainting
from trainer.optim.build import build_optimizer
from trainer.optim.curves import multiplier, warmup_steps
from trainer.optim.stepper import Stepper
from trainer.optim.table import OPTIMIZERS
from trainer.orders import Orders
from trainer.parametrisation import known_guess, parametrisation, remembered
from trainer.paths import cache_folder
from trainer.preparation import Preparation
from trainer.previews import Previews, Studio, Timing
from trainer.probe import probe
from trainer.resumption import fingerprint, go_on_as_before, prompts_of, versions
from trainer.texts import CachedTexts, Texts


@dataclass(frozen=True)
class Built:
    """A run ready to train: its parts, its length, its device for people, and what lets everything go at the end.

    `rates` says what the learning rates of a step belong to ("unet", …).
    """

    parts: Parts
    plan: StepPlan
    rates: tuple[str, ...]
    device: str
    close: Callable[[], None]


def build_run(run: RunFile, folder: Path, reporter: Reporter, orders: Orders) -> Built:
    """Read the pictures, fill the caches, load the model, join the parts; go on from the newest snapshot if there is one.

    Args:
        run: with absolute paths.
        folder: of the run; nobody else works in it.
        reporter: gets stages and warnings.
        orders: looked at often, so that a run can be ended while it is being built.

    Raises AthanorError with a sentence for whatever can't be used, Ending if the user ends the run.
    """
    with memory_sentence(memory_advice(run)):
        builder = _Builder(run, folder, reporter, orders)
        try:
            return builder.build()
        except BaseException:
            builder.close()
            raise


def checked_family(facts: ModelFacts, sources: Sources) -> Family:
    """The family of a base model. Raises BadInput if nothing can be trained on the file."""
    problem = base_problem(facts, has_vae=sources.vae is not None, has_text=bool(sources.text_encoders))
    family = family_of(facts)
    if problem is not None or family is None:
        raise BadInput(
            say("{path} cannot be used: {problem}", path=str(sources.model), problem=problem or facts.summary)
        )
    return family


def sources_of(run: RunFile) -> Sources:
    """Where the parts of a run's model lie."""
    model = run.model
    texts = tuple(Path(path) for path in (model.text_encoder, model.text_encoder_2) if path)
    return Sources(Path(model.path), Path(model.vae) if model.vae else None, texts)


def memory_advice(run: RunFile) -> Message:
    """What to lower in this run when memory runs out, the cheapest first."""
    if not run.speed.gradient_checkpointing:
        return say("Switch gradient checkpointing on, lower the batch size or the resolution, or close other programs.")
    if run.training.batch_size > 1:
        return say("Lower the batch size (accumulation keeps its effect) or the resolution, and close other programs.")
    if run.network.train == "both":
        return say("Lower the resolution or the rank, train the UNet only, and close other programs.")
    return say("Lower the resolution or the rank, and close other programs.")


class _Builder:
    """One building, step by step; each step uses what the ones before have made."""

    def __init__(self, run: RunFile, folder: Path, reporter: Reporter, orders: Orders) -> None:
        self.run, self.folder, self.reporter, self.orders = run, folder, reporter, orders
        self.name = safe_name(run.output.name)
        self.memo = Memo()
        self.method = method_modules()[run.network.kind]
        self.preparation = Preparation(run, self.memo, reporter, orders)
        self.sources = sources_of(run)
        self.store: Store | None = None
        self.base_hash: BaseHash | None = None

    def close(self) -> None:
        """Let go of the cache and the hashing thread."""
        if self.base_hash is not None:
            self.base_hash.stop()
        if self.store is not None:
            self.store.close()

    def build(self) -> Built:
        run, preparation = self.run, self.preparation
        clear_leftovers(self.folder)
        facts = inspect_file(self.sources.model)
        family = checked_family(facts, self.sources)
        trained_parts = self.method.trained_parts(run.network, family)
        importing = _import_ahead()
        self._choose_device()
        index, hashes = preparation.read_pictures()
        importing.join()
        self.model = BaseModel(family, self.sources, self.device, clip_skip=run.model.clip_skip, memo=self.memo)
        self.masks = run.images.mask_variants if is_inpainting(facts.in_channels, family) else 0
        self.store = self._open_store()
        latents, index = preparation.cache_pictures(self.model, self.store, index, hashes, self.masks)
        samples = place(index.items, bucketing(run.images))
        snapshot = read_snapshot(self.folder, self.reporter.report)
        notes: dict[str, Any] = snapshot["notes"] if snapshot else {}
        dataset = fingerprint(index, samples, hashes)
        go_on_as_before(notes, run, dataset, self.reporter)
        prompts = prompts_of(run, notes)
        texts, components = preparation.load(self.model, self.store, index, prompts, trained_parts, self.dtype)
        self._settle_parametrisation(facts, components, texts, notes)
        trained = self._attach(components, trained_parts, snapshot)
        batches = self._batches(index, samples, latents, texts)
        plan = batches.plan(epochs=run.training.epochs, steps=run.training.steps)
        stepper = self._stepper(trained, plan, snapshot)
        previews = self._previews(prompts, plan, components, trained, texts)
        start = int(snapshot["position"]) if snapshot else 0
        previews.forget_after(start)
        self.base_hash = BaseHash(self.sources.model, self.memo)
        kept = {"dataset": dataset, "started_at": notes.get("started_at", time.time()), "versions": versions(),
                "run": plain_values(run), "prediction": components.prediction}  # fmt: skip
        export = Export(
            run, family, self.sources, components, trained, plan, _dataset_facts(index, samples),
            {self.sources.model: self.base_hash}, kept["started_at"],
        )  # fmt: skip
        checkpoints = Checkpoints(
            self.folder, _saving(run, self.name, plan), trained, stepper, export,
            lambda: {**kept, "threads": torch.get_num_threads(), "prompts": previews.tables()},
            self.reporter, start if snapshot else None,
        )  # fmt: skip
        parts = Parts(
            seed=run.training.seed,
            start=start,
            total_steps=plan.total_steps,
            steps=partial(batches.steps, plan),
            loss=self._objective(components, texts),
            stepper=stepper,
            after_step=trained.after_step,
            memory=memory_in_use(self.device),
            checkpoints=checkpoints,
            previews=previews,
            memory_advice=memory_advice(run),
        )
        return Built(parts, plan, stepper.names, describe_device(self.device), self.close)

    def _choose_device(self) -> None:
        run = self.run
        self.device = choose_device(run.speed.device)
        self.dtype = choose_dtype(run.speed.precision, self.device)
        self.attention, warning = usable_attention(run.speed.attention, self.device, self.dtype)
        if warning is not None:
            self.reporter.report(warning)
        self.precision = precision_context(self.dtype, self.device)

    def _open_store(self) -> Store:
        folder = cache_folder() / "encoded" if self.run.speed.cache_latents == "disk" else None
        limit = int(self.run.speed.cache_limit_gb * 1e9)
        return Store(folder, limit_bytes=limit, warn=lambda message: self.reporter.report(events.Warning_(message)))

    def _settle_parametrisation(
        self, facts: ModelFacts, components: Components, texts: Texts, notes: Mapping[str, Any]
    ) -> None:
        """What the model predicts; where nobody says it, it is tested, and the answer said to be a guess."""

        def ask() -> Guess:
            texts.ensure(prompts=[""])
            with self.precision():
                return probe(components, self.model.family, texts.encode_prompts([""]))

        source = self.sources.model
        found = parametrisation(
            self.run.model, facts, notes, lambda: remembered(self.memo, source, ask), lambda: known_guess(self.memo, source)
        )
        components.prediction, components.zero_snr = found.prediction, found.zero_snr
        if found.doubt is not None:
            what = say("The file of the base model does not say what it predicts. {guess}", guess=found.doubt)
            self.reporter.report(events.Warning_(what, found.todo))

    def _attach(
        self, components: Components, parts: Sequence[Part], snapshot: Mapping[str, Any] | None
    ) -> Trained:
        """The method's weights beside the model's: as the snapshot has them, else fresh."""
        run, family = self.run, self.model.family
        family.set_attention(components, self.attention)
        if run.speed.gradient_checkpointing:
            family.checkpoint_gradients(components, {"unet", *parts})
        state = snapshot["trained"] if snapshot else None
        trained: Trained = self.method.build(run.network, components, family, run.training.seed, state)
        if state is not None:
            with fitting():
                trained.load_state_dict(state)
        trained.train()
        return trained

    def _batches(self, index: Index, samples: Sequence[Sample], latents: Latents, texts: Texts) -> Batches:
        run = self.run
        return Batches(
            samples,
            latents=latents,
            captions={item.id: item.caption for item in index.items},
            sizes={item.id: item.size for item in index.items},
            text=texts.states if isinstance(texts, CachedTexts) else None,
            rules=self.preparation.captions,
            seed=run.training.seed,
            batch_size=run.training.batch_size,
            accumulation=run.training.accumulation,
            flip=run.images.flip,
            prior_loss_weight=run.regularization.prior_loss_weight,
            masks=self.masks,
        )

    def _stepper(self, trained: Trained, plan: StepPlan, snapshot: Mapping[str, Any] | None) -> Stepper:
        settings, schedule = self.run.optimizer, self.run.scheduler
        groups = trained.parameter_groups(settings.rates())
        optimizer = build_optimizer(OPTIMIZERS[settings.name], groups, settings.arguments)
        curve = partial(
            multiplier,
            schedule.name,
            total_steps=plan.total_steps,
            warmup=warmup_steps(plan.total_steps, schedule.warmup_ratio, schedule.warmup_steps),
            cycles=schedule.cycles,
            power=schedule.power,
        )
        scaler = torch.amp.GradScaler(self.device.type) if self.dtype == torch.float16 else None
        stepper = Stepper(optimizer, curve, max_grad_norm=settings.max_grad_norm, scaler=scaler)
        if snapshot is not None:
            with fitting():
                stepper.load_state_dict(snapshot["stepper"])
        return stepper

    def _objective(self, components: Components, texts: Texts) -> Denoising:
        noise = self.run.noise
        return Denoising(
            partial(self.model.family.predict, components),
            texts.encode,
            Process(components.prediction, self.device, zero_snr=components.zero_snr),
            seed=self.run.training.seed,
            noise_offset=noise.noise_offset,
            min_snr_gamma=noise.min_snr_gamma,
            device=self.device,
            autocast=self.precision,
        )

    def _previews(
        self, prompts: Sequence[Prompt], plan: StepPlan, components: Components, trained: Trained, texts: Texts
    ) -> Previews:
        run, model = self.run, self.model
        samples = run.samples
        timing = Timing(plan.epoch_ends, samples.every_steps, samples.every_epochs, samples.at_start, samples.at_end)
        studio = Studio(
            family=model.family,
            components=components,
            trained=trained,
            encode=texts.encode_prompts,
            load_vae=lambda: model.load_vae(None if self.masks else "decoder", self.dtype),
            ensure=lambda prompts: texts.ensure(prompts=prompts),
            autocast=self.precision,
            model_name=shown_stem(Path(run.model.path)),
            clip_skip=run.model.clip_skip,
        )
        return Previews(self.folder, self.name, prompts, timing, studio, self.reporter)


def _import_ahead() -> threading.Thread:
    """Import the model libraries (seconds) while the pictures are being read."""

    def load() -> None:
        from trainer.models import libraries

        libraries.unet_class()
        libraries.clip_classes()

    thread = threading.Thread(target=load, name="import-ahead", daemon=True)
    thread.start()
    return thread


def _saving(run: RunFile, name: str, plan: StepPlan) -> Saving:
    output = run.output
    return Saving(
        name,
        plan.epoch_ends,
        every_epochs=output.save_every_epochs,
        every_steps=output.save_every_steps,
        keep_last=output.keep_last,
        snapshot_s=60 * output.snapshot_minutes,
    )


def _dataset_facts(index: Index, samples: Sequence[Sample]) -> metadata.DatasetFacts:
    return metadata.dataset_facts(index, {sample.item: sample.bucket for sample in samples})
