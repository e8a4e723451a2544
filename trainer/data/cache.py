"""Encoded pictures and captions: found in the cache by what they were made from, or encoded now, and kept there.

    store = Store(cache_folder() / "encoded", limit_bytes=..., warn=...)
    latents = Latents(store, vae_identity)
    missing = latents.find(latent_jobs(index.items, rules, hashes, flip=True))
    if missing:                                         # only now need the VAE be loaded
        broken = latents.encode(missing, encode_pictures, batch_size=4, threads=2, device="cuda")
        index = index.without(broken)
    text = TextStates(store, text_identity, clip_skip=1, token_length=75)
    text.encode(text.find(captions), encode_texts)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from trainer.ahead import ahead
from trainer.data.buckets import Box, Bucket, Bucketing, crop_box
from trainer.data.index import Item, Skipped
from trainer.data.masks import MASKS_VERSION, OWN, draw_mask, opaque_part, shrink
from trainer.data.memo import FileFacts, Memo
from trainer.data.pictures import WHITE, CannotUse, Colour, load_opacity, load_pixels
from trainer.data.store import Damaged, Store
from trainer.errors import RunFailed
from trainer.messages import Message, say
from trainer.models.protocol import Cond

if TYPE_CHECKING:
    from trainer.data.masks import Mask
    from trainer.data.pictures import Pixels

Progress = Callable[[int, int], None]  # done, total; may raise to stop
EncodePictures = Callable[[Tensor], tuple[Tensor, Tensor]]  # (B, 3, H, W) in [-1, 1] -> mean, std (B, C, h, w)
EncodeTexts = Callable[[Sequence[str]], Cond]

_LATENTS_VERSION = "latents 1 lanczos"  # changes with anything in pictures.py that changes pixels
_TEXT_VERSION = "text 3"


@dataclass(frozen=True)
class LatentJob:
    """One picture as it is encoded: which file, which part of it, at which size, mirrored or not, masked or not."""

    item: int
    facts: FileFacts
    sha256: str
    box: Box
    bucket: Bucket
    flip: bool = False
    mask: int | None = None  # the variant (see `trainer.data.masks`) under which the picture is hidden for inpainting

    @property
    def path(self) -> Path:
        return self.facts.path


def latent_jobs(
    items: Iterable[Item], rules: Bucketing, hashes: Mapping[Path, str], *, flip: bool = False, masks: int = 0
) -> list[LatentJob]:
    """What must be encoded for `items` (those without a hash are left out).

    With `flip` each is mirrored as well; with `masks` each of these is also hidden under that many masks.
    """
    sides = (False, True) if flip else (False,)
    jobs = []
    for item in items:
        if item.path in hashes:
            bucket = rules.choose(item.size)
            box = crop_box(item.size, bucket)
            jobs += [
                LatentJob(item.id, item.facts, hashes[item.path], box, bucket, mirrored, mask)
                for mirrored in sides
                for mask in (None, *range(masks))
            ]
    return jobs


class Latents:
    """The encoded pictures of a run: each one's mean and deviation (C, h, w), so that every showing draws its own.

    `identity` names the VAE (see `weights_identity`), `dtype` is that of the stored numbers, `compute` says how they
    were computed ("fp32"): an entry is used again only where all of these, the picture and its geometry are equal.
    """

    def __init__(
        self,
        store: Store,
        identity: str,
        *,
        dtype: torch.dtype = torch.float32,
        compute: str = "fp32",
        alpha_colour: Colour = WHITE,
    ) -> None:
        self._store, self._identity, self._dtype, self._compute = store, identity, dtype, compute
        self._alpha_colour = alpha_colour
        self._keys: dict[tuple[int, bool, int | None], str] = {}
        self._copies: dict[str, dict[Path, None]] = {}  # every file of a content, in order

    def find(self, jobs: Sequence[LatentJob], on_progress: Progress | None = None) -> list[LatentJob]:
        """Take what the cache holds; returns the jobs that must be encoded (each content once, damaged ones included)."""
        missing: dict[str, LatentJob] = {}
        present: set[str] = set()
        for done, job in enumerate(jobs, 1):
            key = self._keys[job.item, job.flip, job.mask] = self._key(job)
            self._copies.setdefault(job.sha256, {})[job.path] = None
            if key not in present and key not in missing:
                if self._store.has(key):
                    present.add(key)
                else:
                    missing[key] = job
            if on_progress and (done % 64 == 0 or done == len(jobs)):
                on_progress(done, len(jobs))
        return list(missing.values())

    def encode(
        self,
        jobs: Sequence[LatentJob],
        encode: EncodePictures,
        *,
        batch_size: int = 1,
        threads: int = 2,
        device: torch.device | str = "cpu",
        on_progress: Progress | None = None,
    ) -> tuple[Skipped, ...]:
        """Decode in threads, encode by bucket, keep; returns the files (copies too) whose pixels turned out to be broken.

        Batches of more than one may differ from single pictures in the last bits; on a CPU leave it at one.
        """
        broken: dict[Path, Skipped] = {}
        done = 0
        with closing(_decoded(jobs, self._alpha_colour, threads)) as decoded:
            for portion in _by_bucket(decoded, batch_size):
                good = [(job, picture) for job, picture in portion if not isinstance(picture, Message)]
                for job, why in portion:
                    if isinstance(why, Message):
                        broken |= {path: Skipped(path, why) for path in self._copies[job.sha256]}
                if good:
                    self._keep(good, *encode(_to_tensor([picture for _, picture in good], device)))
                done += len(portion)
                if on_progress:
                    on_progress(done, len(jobs))
        self._store.shrink()
        return tuple(broken.values())

    def moments(self, item: int, *, flip: bool = False) -> tuple[Tensor, Tensor]:
        """Mean and deviation (C, h, w). Raises RunFailed if the entry has been lost since `find`."""
        tensors = _held(self._store, self._keys[item, flip, None])
        return tensors["mean"], tensors["std"]

    def masked(self, item: int, variant: int, *, flip: bool = False) -> Tensor:
        """A mask (1 where it is to be painted) and the mean of the picture hidden under it, (1 + C, h, w)."""
        tensors = _held(self._store, self._keys[item, flip, variant])
        return torch.cat([tensors["mask"], tensors["mean"]])

    def _keep(self, pictures: Sequence[tuple[LatentJob, Picture]], mean: Tensor, std: Tensor) -> None:
        for number, (job, picture) in enumerate(pictures):
            entry = {"mean": mean[number].to(self._dtype)}
            if picture.mask is None:
                entry["std"] = std[number].to(self._dtype)
            else:
                small = shrink(picture.mask, picture.mask.shape[0] // mean.shape[-2])
                entry["mask"] = torch.from_numpy(small)[None].to(self._dtype)
            self._store.write(self._key(job), entry)

    def _key(self, job: LatentJob) -> str:
        mask = () if job.mask is None else (MASKS_VERSION, job.mask)
        return _hash(
            _LATENTS_VERSION, job.sha256, job.box, (job.bucket.width, job.bucket.height), job.flip, self._identity,
            self._dtype, self._compute, self._alpha_colour, *mask,
        )  # fmt: skip


class TextStates:
    """The text encoders' answers to a run's captions, for frozen encoders and captions that stay the same."""

    def __init__(
        self,
        store: Store,
        identity: str,
        *,
        clip_skip: int,
        token_length: int,
        weighted: bool = False,
        dtype: torch.dtype = torch.float32,
        compute: str = "fp32",
    ) -> None:
        self._store, self._dtype = store, dtype
        self._identity = (identity, clip_skip, token_length, weighted, str(dtype), compute)

    def find(self, captions: Iterable[str]) -> list[str]:
        """Those of `captions` that must be encoded."""
        return [caption for caption in dict.fromkeys(captions) if not self._store.has(self._key(caption))]

    def encode(
        self, captions: Sequence[str], encode: EncodeTexts, *, batch_size: int = 1, on_progress: Progress | None = None
    ) -> None:
        """Encode and keep them."""
        for start in range(0, len(captions), batch_size):
            portion = captions[start : start + batch_size]
            cond = encode(portion).to("cpu", self._dtype)
            for number, caption in enumerate(portion):
                entry = {"states": cond.states[number]}
                if cond.pooled is not None:
                    entry["pooled"] = cond.pooled[number]
                self._store.write(self._key(caption), entry)
            if on_progress:
                on_progress(start + len(portion), len(captions))
        if captions:
            self._store.shrink()

    def cond(self, caption: str) -> Cond:
        """One sample's states and `pooled`. Raises RunFailed if the entry has been lost since `find`."""
        entry = _held(self._store, self._key(caption))
        pooled = entry.get("pooled")
        return Cond(entry["states"][None], None if pooled is None else pooled[None])

    def _key(self, caption: str) -> str:
        return _hash(_TEXT_VERSION, caption, self._identity)


def weights_identity(tensors: Mapping[str, Tensor]) -> str:
    """A name for weights that changes with any of their values, names, shapes or dtypes (about a second a gigabyte)."""
    whole = hashlib.sha256()
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(_fingerprint, sorted(tensors.items())):
            whole.update(line)
    return whole.hexdigest()


def identity_of(memo: Memo, files: Sequence[Path], part: str, weights: Callable[[], Mapping[str, Tensor]]) -> str:
    """`weights_identity` of a model's part, remembered by the model's `files`: then `weights` need not be loaded.

    `part` says which ("vae fp32"). Raises OSError if a file is gone.
    """
    facts = [FileFacts.of(file) for file in files]
    known = memo.recall_weights(facts, part)
    if known is None:
        known = weights_identity(weights())
        memo.remember_weights(facts, part, known)
    return known


def _fingerprint(entry: tuple[str, Tensor]) -> bytes:
    name, tensor = entry
    data = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8).numpy()
    return f"{name} {tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(data.data).hexdigest()}\n".encode()


def _held(store: Store, key: str) -> Mapping[str, Tensor]:
    try:
        tensors = store.read(key)
    except Damaged as damage:
        raise RunFailed(_lost(str(damage)), say("Resume the run: the entry is then made again.")) from damage
    if tensors is None:
        raise RunFailed(_lost(key), say("Resume the run: the entry is then made again."))
    return tensors


def _lost(detail: str) -> Message:
    return say("An entry of the cache was deleted or damaged while the run was using it ({detail}).", detail=detail)


def _hash(*parts: object) -> str:
    return hashlib.sha256("\x1f".join(map(str, parts)).encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class Picture:
    """A decoded picture (H, W, 3) uint8, and the mask (H, W) under which it is hidden: 1 where nothing is seen of it."""

    pixels: Pixels
    mask: Mask | None = None


Decoded = tuple[LatentJob, Picture | Message]


def _decoded(jobs: Sequence[LatentJob], alpha_colour: Colour, threads: int) -> Generator[Decoded, None, None]:
    """The picture of each job in turn, or why not; `threads` decode a bounded number of them ahead."""

    def decode(job: LatentJob) -> Picture | Message:
        try:
            picture = _picture(job, alpha_colour)
            changed = _has_changed(job)  # then these pixels would be kept under the old content's name
        except CannotUse as cannot:
            return cannot.why
        except FileNotFoundError:
            return say("it is gone")
        return say("it was changed while the run was starting") if changed else picture

    return ahead(decode, jobs, 2 * threads + 2, threads, "decode")


def _picture(job: LatentJob, alpha_colour: Colour) -> Picture:
    """Read a job's picture and draw its mask. Raises CannotUse, FileNotFoundError."""
    box, bucket = job.box, job.bucket
    pixels = load_pixels(job.path, box=box, bucket=bucket, flip=job.flip, alpha_colour=alpha_colour)
    if job.mask is None:
        return Picture(pixels)
    own = None
    if job.mask == OWN:
        opacity = load_opacity(job.path, box=box, bucket=bucket, flip=job.flip)
        own = None if opacity is None else opaque_part(opacity)
    return Picture(pixels, draw_mask(bucket.width, bucket.height, job.sha256, job.mask) if own is None else own)


def _has_changed(job: LatentJob) -> bool:
    """Whether the file is no longer what was hashed. (Times alone can differ: a Windows folder lists them late.)"""
    if FileFacts.of(job.path) == job.facts:
        return False
    with job.path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest() != job.sha256


def _by_bucket(decoded: Iterable[Decoded], batch_size: int) -> Iterator[list[Decoded]]:
    """Portions of one bucket each, none larger than `batch_size`, as soon as one is full; then the rest."""
    waiting: dict[Bucket, list[Decoded]] = {}
    for entry in decoded:
        portion = waiting.setdefault(entry[0].bucket, [])
        portion.append(entry)
        if len(portion) == batch_size:
            yield waiting.pop(entry[0].bucket)
    yield from waiting.values()


def _to_tensor(pictures: Sequence[Picture], device: torch.device | str) -> Tensor:
    """(B, 3, H, W) float32 in [-1, 1]; grey (0) where a mask hides the picture, as diffusers' pipeline has it."""
    stacked = torch.stack([torch.from_numpy(picture.pixels.copy()) for picture in pictures])  # (B, H, W, 3) uint8
    pixels = stacked.to(device).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0).contiguous()
    for number, picture in enumerate(pictures):
        if picture.mask is not None:
            pixels[number] *= torch.from_numpy(picture.mask).to(device) == 0
    return pixels
