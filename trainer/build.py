"""From a run file to the parts that the loop turns: the only place that knows them all."""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from trainer import metadata
from trainer.base_model import BaseModel
from trainer.check import bucketing
from trainer.checkpoint import Checkpoints, Saving, clear_leftovers, fitting, read_snapshot
from trainer.config.registry import method_modules
from trainer.config.run import Prompt, RunFile
from trainer.data.batches import Batches
from trainer.data.cache import LatentJob, Latents, TextStates, latent_jobs
from trainer.data.captions import CaptionRules, captions_to_cache
from trainer.data.index import Index, hash_files, index_dataset
from trainer.data.memo import Memo
from trainer.data.order import Sample, place
from trainer.data.store import Store
from trainer.device import (
    DTYPES,
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
from trainer.ipc import events
from trainer.ipc.runfolder import safe_name
from trainer.loop import Parts, Reporter, memory_sentence
from trainer.messages import Message, say
from trainer.methods import Trained
from trainer.models.header import base_problem, inspect_file
from trainer.models.hub import shown_stem
from trainer.models.protocol import Components, Family, Part
from trainer.optim.build import build_optimizer
from trainer.optim.curves import multiplier, warmup_steps
from trainer.optim.stepper import Stepper
from trainer.optim.table import OPTIMIZERS
from trainer.orders import Orders
from trainer.paths import cache_folder
from trainer.previews import Previews, Studio, Timing
from trainer.texts import CachedTexts, LiveTexts, Texts

LIBRARIES = ("torch", "diffusers", "transformers", "bitsandbytes", "lion-pytorch", "prodigyopt")
HASH_PATIENCE_S = 60.0  # for the base model's hash, when the final file is written


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


def family_of(path: Path, has_vae: bool) -> Family:
    """The family of a base model. Raises BadInput if nothing can be trained on the file."""
    facts = inspect_file(path)
    problem = base_problem(facts, has_vae=has_vae)
    if problem is not None:
        raise BadInput(say("{path} cannot be used: {problem}", path=str(path), problem=str(problem)))
    family: Family = importlib.import_module(f"trainer.models.{facts.family}").FAMILY
    return family


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
        images = run.images
        self.captions = CaptionRules(
            images.caption_prefix, images.shuffle_captions, images.keep_tokens, images.caption_dropout
        )
        self.store: Store | None = None
        self.base_hash: BaseHash | None = None

    def close(self) -> None:
        """Let go of the cache and the hashing thread."""
        if self.base_hash is not None:
            self.base_hash.stop()
        if self.store is not None:
            self.store.close()

    def build(self) -> Built:
        run = self.run
        clear_leftovers(self.folder)
        family = family_of(Path(run.model.path), bool(run.model.vae))
        self.trained_parts: tuple[Part, ...] = self.method.trained_parts(run.network, family)
        importing = _import_ahead()
        self._choose_device()
        index, hashes = self._read_pictures()
        importing.join()
        self.model = BaseModel(
            family, Path(run.model.path), Path(run.model.vae) if run.model.vae else None, self.device,
            clip_skip=run.model.clip_skip, token_length=run.model.token_length, memo=self.memo,
        )  # fmt: skip
        self.store = self._open_store()
        latents, index = self._cache_pictures(index, hashes)
        samples = place(index.items, bucketing(run.images))
        snapshot = read_snapshot(self.folder, self.reporter.report)
        notes: dict[str, Any] = snapshot["notes"] if snapshot else {}
        dataset = _fingerprint(index, samples, hashes)
        self._say_what_changed(notes, dataset)
        prompts = _prompts(run, notes)
        texts, components = self._load(index, prompts)
        trained = self._attach(components, snapshot)
        batches = self._batches(index, samples, latents, texts)
        plan = batches.plan(epochs=run.training.epochs, steps=run.training.steps)
        stepper = self._stepper(trained, plan, snapshot)
        previews = self._previews(prompts, plan, components, trained, texts)
        start = int(snapshot["position"]) if snapshot else 0
        previews.forget_after(start)
        self.base_hash = BaseHash(Path(run.model.path), self.memo)
        kept = {"dataset": dataset, "started_at": notes.get("started_at", time.time()), "versions": _versions()}
        export = _Export(
            run, family, trained, plan, _dataset_facts(index, samples), self.base_hash, components.prediction,
            kept["started_at"],
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

    # --- pictures ---

    def _choose_device(self) -> None:
        run = self.run
        self.device = choose_device(run.speed.device)
        self.dtype = choose_dtype(run.speed.precision, self.device)
        self.attention, warning = usable_attention(run.speed.attention, self.device, self.dtype)
        if warning is not None:
            self.reporter.report(warning)
        self.precision = precision_context(self.dtype, self.device)

    def _progress(self, stage: str) -> Callable[[int, int], None]:
        def tell(done: int, total: int) -> None:
            self.reporter.report(events.Stage(stage, done, total))
            self.orders.leave_if_ending()

        return tell

    def _read_pictures(self) -> tuple[Index, Mapping[Path, str]]:
        """The index and each picture's SHA-256; what is left out or doubtful is reported."""
        run, tell = self.run, self._progress("checking")
        tell(0, 0)
        index = index_dataset(
            run.images.folders,
            run.regularization.folders,
            caption_extension=run.images.caption_extension,
            smallest_side=run.images.smallest_side,
            memo=self.memo,
            on_progress=tell,
        )
        hashes, unreadable = hash_files([item.facts for item in index.items], self.memo, tell)
        if unreadable:
            index = index.without(unreadable)
        for warning in (*index.warnings, *(skipped.sentence() for skipped in index.skipped)):
            self.reporter.report(events.Warning_(warning))
        return index, hashes

    def _open_store(self) -> Store:
        folder = cache_folder() / "encoded" if self.run.speed.cache_latents == "disk" else None
        limit = int(self.run.speed.cache_limit_gb * 1e9)
        return Store(folder, limit_bytes=limit, warn=lambda message: self.reporter.report(events.Warning_(message)))

    def _cache_pictures(self, index: Index, hashes: Mapping[Path, str]) -> tuple[Latents, Index]:
        """Latents of every picture. The VAE is loaded only if one is missing, and in fp32: it computes once."""
        run, model, tell = self.run, self.model, self._progress("caching")
        tell(0, 0)
        assert self.store is not None
        latents = Latents(
            self.store,
            model.identity(("vae",), torch.float32),
            compute=f"fp32 {self.device.type}",
            alpha_colour=_colour(run.images.alpha_colour),
        )
        jobs = latent_jobs(index.items, bucketing(run.images), hashes, flip=run.images.flip)
        missing = latents.find(jobs, tell)
        if missing:
            self.store.reserve(sum(_latent_bytes(job, model.family) for job in missing))
            vae = model.load({"vae"}, torch.float32).vae
            broken = latents.encode(
                missing,
                partial(model.family.encode_pictures, vae),
                batch_size=run.speed.vae_batch_size,
                threads=run.speed.decode_threads,
                device=self.device,
                on_progress=tell,
            )
            del vae
            for skipped in broken:
                self.reporter.report(events.Warning_(skipped.sentence()))
            if broken:
                index = index.without(broken)
        model.tidy()
        return latents, index

    # --- the model ---

    def _load(self, index: Index, prompts: Sequence[Prompt]) -> tuple[Texts, Components]:
        """The parts that stay in memory. A frozen text encoder whose answers can be cached is not among them."""
        model, text_parts = self.model, self.model.family.text_parts
        trains_text = not set(text_parts).isdisjoint(self.trained_parts)
        if trains_text or not self.captions.cacheable:
            self.reporter.report(events.Stage("loading"))
            components = model.load({"unet", *text_parts}, self.dtype)
            return LiveTexts(model.encoder(components), trains_text), components
        assert self.store is not None
        states = TextStates(
            self.store,
            model.identity(text_parts, self.dtype),
            clip_skip=self.run.model.clip_skip,
            token_length=self.run.model.token_length,
            compute=f"{self.dtype} {self.device.type}",
        )
        texts = CachedTexts(states, lambda: model.encoder(model.load(text_parts, self.dtype)), model.tidy)
        wanted = captions_to_cache((item.caption for item in index.items), self.captions)
        drawn = [text for prompt in prompts for text in (prompt.prompt, prompt.negative)]
        texts.ensure([*wanted, *drawn], self._progress("caching"))
        model.tidy()
        self.reporter.report(events.Stage("loading"))
        return texts, model.load({"unet"}, self.dtype)

    def _attach(self, components: Components, snapshot: Mapping[str, Any] | None) -> Trained:
        """The method's weights beside the model's: as the snapshot has them, else fresh."""
        run, family = self.run, self.model.family
        family.set_attention(components, self.attention)
        if run.speed.gradient_checkpointing:
            family.checkpoint_gradients(components, {"unet", *self.trained_parts})
        settings = run.network
        if snapshot is not None:  # the LoRA that this one began from may be gone by now, and is in the snapshot
            settings = settings.model_copy(update={"network_weights": ""})
        trained: Trained = self.method.build(settings, components, family, run.training.seed)
        if snapshot is not None:
            with fitting():
                trained.load_state_dict(snapshot["trained"])
        trained.train()
        return trained

    def _batches(self, index: Index, samples: Sequence[Sample], latents: Latents, texts: Texts) -> Batches:
        run = self.run
        return Batches(
            samples,
            latents=latents,
            captions={item.id: item.caption for item in index.items},
            text=texts.states if isinstance(texts, CachedTexts) else None,
            rules=self.captions,
            seed=run.training.seed,
            batch_size=run.training.batch_size,
            accumulation=run.training.accumulation,
            flip=run.images.flip,
            prior_loss_weight=run.regularization.prior_loss_weight,
        )

    def _stepper(self, trained: Trained, plan: StepPlan, snapshot: Mapping[str, Any] | None) -> Stepper:
        settings, schedule = self.run.optimizer, self.run.scheduler
        unet = settings.learning_rate if settings.unet_rate is None else settings.unet_rate
        text = settings.learning_rate if settings.text_encoder_rate is None else settings.text_encoder_rate
        optimizer = build_optimizer(
            OPTIMIZERS[settings.name], trained.parameter_groups(unet, text), settings.arguments
        )  # fmt: skip
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
            Process(components.prediction, self.device),
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
            encode=texts.encode,
            load_vae=lambda: model.load({"vae"}, torch.float32).vae,
            ensure=texts.ensure,
            autocast=self.precision,
            model_name=shown_stem(Path(run.model.path)),
            clip_skip=run.model.clip_skip,
        )
        return Previews(self.folder, self.name, prompts, timing, studio, self.reporter)

    def _say_what_changed(self, notes: Mapping[str, Any], dataset: str) -> None:
        """On resume: sum with as many threads as before, and say what may make the last digits differ."""
        if not notes:
            return
        torch.set_num_threads(notes["threads"])
        changed = [
            f"{name} {old} → {new}"
            for name, new in _versions().items()
            if (old := notes["versions"].get(name, new)) != new
        ]
        if changed:
            what = say("Libraries have changed since the run began ({changes}).", changes=", ".join(changed))
            todo = say("The run goes on; its last digits may differ from an unbroken one.")
            self.reporter.report(events.Warning_(what, todo))
        if notes["dataset"] != dataset:
            what = say("The pictures or captions have changed since the run began.")
            todo = say("The run goes on with those of now; it will differ from an unbroken one.")
            self.reporter.report(events.Warning_(what, todo))


class _Export:
    """Writes the trained weights for other programs, with a header that says how they were made."""

    def __init__(
        self,
        run: RunFile,
        family: Family,
        trained: Trained,
        plan: StepPlan,
        data: metadata.DatasetFacts,
        base_hash: BaseHash,
        prediction: str,
        started_at: float,
    ) -> None:
        self._run, self._family, self._trained, self._plan, self._data = run, family, trained, plan, data
        self._base_hash, self._prediction, self._started_at = base_hash, prediction, started_at

    def __call__(self, path: Path, position: int) -> None:
        plan = self._plan
        epoch = sum(end <= position for end in plan.epoch_ends)
        progress = metadata.Progress(epoch, position, self._started_at, time.time())
        model = Path(self._run.model.path)
        vae = Path(self._run.model.vae) if self._run.model.vae else None
        patience = HASH_PATIENCE_S if position >= plan.total_steps else 0.0
        base = metadata.base_facts(model, vae, self._prediction, {model: self._base_hash}, patience)
        header = metadata.header_metadata(self._run, self._family, base, self._data, plan, progress, path.stem)
        self._trained.export(path, header, DTYPES[self._run.output.precision])


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


def _prompts(run: RunFile, notes: Mapping[str, Any]) -> tuple[Prompt, ...]:
    """The run file's prompts, or those that a resumed run had when its snapshot was made."""
    if "prompts" not in notes:
        return run.samples.prompts
    return tuple(Prompt.model_validate(table) for table in notes["prompts"])


def _dataset_facts(index: Index, samples: Sequence[Sample]) -> metadata.DatasetFacts:
    return metadata.dataset_facts(index, {sample.item: sample.bucket for sample in samples})


def _fingerprint(index: Index, samples: Sequence[Sample], hashes: Mapping[Path, str]) -> str:
    """What a run learns from, as one word: pictures, captions, repeats, sizes."""
    rows = [
        f"{hashes[item.path]} {sample.repeats} {sample.is_reg} {sample.bucket} {item.caption}"
        for item, sample in zip(index.items, samples, strict=True)
    ]
    return hashlib.sha256("\n".join(rows).encode("utf-8")).hexdigest()


def _versions() -> dict[str, str]:
    """The libraries on which the last digits may depend, as far as they are installed."""
    found = {}
    for name in LIBRARIES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _latent_bytes(job: LatentJob, family: Family) -> int:
    cells = job.bucket.area // family.latent_factor**2
    return 2 * 4 * family.latent_channels * cells  # mean and deviation, float32


def _colour(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue
