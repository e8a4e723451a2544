"""What a run does before it trains: read its pictures, fill the caches, load the parts of the model that stay."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import torch

from trainer.base_model import BaseModel
from trainer.check import bucketing
from trainer.config.run import Prompt, RunFile
from trainer.data.cache import LatentJob, Latents, TextStates, latent_jobs
from trainer.data.captions import CaptionRules, captions_to_cache
from trainer.data.index import Index, hash_files, index_dataset
from trainer.data.memo import Memo
from trainer.data.store import Store
from trainer.ipc import events
from trainer.loop import Reporter
from trainer.models.protocol import Components, Family, Part
from trainer.models.text import ANY_LENGTH
from trainer.orders import Orders
from trainer.sampling import drawn_texts
from trainer.texts import CachedTexts, LiveTexts, Readers, Texts


class Preparation:
    """One run's preparation, on the run's thread; what is left out or doubtful is reported.

    Args:
        run: with absolute paths.
        memo: of the user's files.
        reporter: gets stages and warnings.
        orders: looked at often, so that a run can be ended meanwhile.
    """

    def __init__(self, run: RunFile, memo: Memo, reporter: Reporter, orders: Orders) -> None:
        self.run, self.memo, self.reporter, self.orders = run, memo, reporter, orders
        images = run.images
        self.captions = CaptionRules(
            images.caption_prefix, images.shuffle_captions, images.keep_tokens, images.caption_dropout
        )

    def progress(self, stage: str) -> Callable[[int, int], None]:
        """Tells of a stage, and leaves it if the run is to end."""

        def tell(done: int, total: int) -> None:
            self.reporter.report(events.Stage(stage, done, total))
            self.orders.leave_if_ending()

        return tell

    def read_pictures(self) -> tuple[Index, Mapping[Path, str]]:
        """The index and each picture's SHA-256."""
        run, tell = self.run, self.progress("checking")
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

    def cache_pictures(
        self, model: BaseModel, store: Store, index: Index, hashes: Mapping[Path, str], masks: int
    ) -> tuple[Latents, Index]:
        """Latents of every picture, and of each under so many masks. The VAE's encoder is loaded if one is missing."""
        run, tell = self.run, self.progress("caching")
        tell(0, 0)
        latents = Latents(
            store,
            model.identity(("vae",), torch.float32),
            compute=f"fp32 {model.device.type}",
            alpha_colour=_colour(run.images.alpha_colour),
        )
        jobs = latent_jobs(index.items, bucketing(run.images), hashes, flip=run.images.flip, masks=masks)
        missing = latents.find(jobs, tell)
        if missing:
            store.reserve(sum(_latent_bytes(job, model.family) for job in missing))
            broken = latents.encode(
                missing,
                partial(model.family.encode_pictures, model.load_vae("encoder")),
                batch_size=run.speed.vae_batch_size,
                threads=run.speed.decode_threads,
                device=model.device,
                on_progress=tell,
            )
            for skipped in broken:
                self.reporter.report(events.Warning_(skipped.sentence()))
            if broken:
                index = index.without(broken)
        model.tidy()
        return latents, index

    def load(
        self, model: BaseModel, store: Store, index: Index, prompts: Sequence[Prompt], trained: Sequence[Part],
        dtype: torch.dtype,
    ) -> tuple[Texts, Components]:  # fmt: skip
        """The parts that stay in memory. Frozen text encoders whose answers can be cached are not among them."""
        text_parts = model.family.text_parts
        trains_text = not set(text_parts).isdisjoint(trained)
        if trains_text or not self.captions.cacheable:
            self.reporter.report(events.Stage("loading"))
            components = model.load({"unet", *text_parts}, dtype)
            return LiveTexts(self._readers(model, components), trains_text), components
        texts = self._cached_texts(model, store, dtype)
        captions = captions_to_cache((item.caption for item in index.items), self.captions)
        texts.ensure(captions, drawn_texts(prompts), self.progress("caching"))
        model.tidy()
        self.reporter.report(events.Stage("loading"))
        return texts, model.load({"unet"}, dtype)

    def _cached_texts(self, model: BaseModel, store: Store, dtype: torch.dtype) -> CachedTexts:
        states = partial(
            TextStates,
            store,
            model.text_identity(dtype),
            clip_skip=self.run.model.clip_skip,
            compute=f"{dtype} {model.device.type}",
        )
        return CachedTexts(
            states(token_length=self.run.model.token_length, weighted=self.run.images.weighted_captions),
            states(token_length=ANY_LENGTH),
            lambda: self._readers(model, model.load(model.family.text_parts, dtype)),
            model.tidy,
        )

    def _readers(self, model: BaseModel, components: Components) -> Readers:
        captions = model.encoder(components, self.run.model.token_length, self.run.images.weighted_captions)
        return Readers(captions, model.encoder(components, ANY_LENGTH))


def _latent_bytes(job: LatentJob, family: Family) -> int:
    cells = job.bucket.area // family.latent_factor**2
    numbers = 2 * family.latent_channels if job.mask is None else family.latent_channels + 1
    return 4 * numbers * cells  # mean and deviation, or mean and mask, float32


def _colour(text: str) -> tuple[int, int, int]:
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue
