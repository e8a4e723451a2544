"""Latents and text states are made once, found again by content, and made anew for exactly what has changed."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.data.draw import Entry, dataset, save
from trainer.data import cache as cache_module
from trainer.data.buckets import Bucketing
from trainer.data.cache import LatentJob, Latents, TextStates, identity_of, latent_jobs, weights_identity
from trainer.data.index import hash_files, index_dataset
from trainer.data.memo import FileFacts, Memo
from trainer.data.store import Store
from trainer.errors import RunFailed, Stopped
from trainer.messages import say
from trainer.models.protocol import Cond

RULES = Bucketing((64, 64), step=16, min_side=16, max_side=128)


class Vae:
    """Stands in for an encoder: averages 8×8 pixels, counts its work."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        self.shapes.append(tuple(pixels.shape))
        assert pixels.min() >= -1 and pixels.max() <= 1 and pixels.dtype == torch.float32
        mean = torch.nn.functional.avg_pool2d(pixels, 8)
        mean = torch.cat([mean, mean[:, :1]], dim=1)
        return mean, mean.abs() * 0.1 + 0.01

    @property
    def num_encoded(self) -> int:
        return sum(shape[0] for shape in self.shapes)


def jobs_of(parent: Path, flip: bool = False, masks: int = 0) -> list[LatentJob]:
    found = index_dataset([Entry(str(parent))])
    hashes, _ = hash_files([item.facts for item in found.items], Memo())
    return latent_jobs(found.items, RULES, hashes, flip=flip, masks=masks)


def run(folder: Path, jobs: Sequence[LatentJob], identity: str = "vae", **options: object) -> tuple[Latents, Vae]:
    """What a run does at its start."""
    vae = Vae()
    with Store(folder, limit_bytes=10**9) as store:
        latents = Latents(store, identity, **options)  # type: ignore[arg-type]
        missing = latents.find(jobs)
        if missing:
            assert latents.encode(missing, vae) == ()
    return latents, vae


@pytest.fixture
def pictures(awkward: Path) -> Path:
    dataset(awkward / "img", {"2_猫": 3})
    save(awkward / "img" / "2_猫" / "wide.png", 160, 40)
    return awkward / "img"


def test_an_unchanged_run_encodes_nothing(pictures: Path, tmp_path: Path) -> None:
    jobs = jobs_of(pictures, flip=True)
    first, vae = run(tmp_path / "cache", jobs)
    assert vae.num_encoded == len(jobs) == 8
    again, vae = run(tmp_path / "cache", jobs)
    assert vae.num_encoded == 0
    for job in jobs:
        for one, other in zip(first.moments(job.item, flip=job.flip), again.moments(job.item, flip=job.flip), strict=True):
            assert torch.equal(one, other) and one.shape == (4, job.bucket.height // 8, job.bucket.width // 8)


def test_the_moments_are_the_pictures_and_mirrored_ones_their_own(pictures: Path, tmp_path: Path) -> None:
    latents, _ = run(tmp_path / "cache", jobs_of(pictures, flip=True))
    mean, std = latents.moments(0)
    assert mean[0, 0, 0] > 0.7 and mean[2, 0, 0] < -0.7  # red at the top left
    assert (std > 0).all()
    mirrored, _ = latents.moments(0, flip=True)
    assert mirrored[1, 0, 0] > 0.7 and torch.allclose(mirrored, mean.flip(-1), atol=0.05)


def test_only_what_changed_is_encoded_again(pictures: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    run(cache, jobs_of(pictures))
    save(pictures / "2_猫" / "01.png", 100, 90, seed=5)
    os.utime(pictures / "2_猫" / "01.png", (1e9, 1e9))
    assert run(cache, jobs_of(pictures))[1].num_encoded == 1
    moved = pictures.parent / "moved"
    shutil.copytree(pictures, moved)
    (moved / "2_猫" / "00.png").rename(moved / "2_猫" / "another name.png")
    assert run(cache, jobs_of(moved))[1].num_encoded == 0


def test_every_ingredient_has_its_own_entries(pictures: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    jobs = jobs_of(pictures)
    run(cache, jobs)
    first = jobs[0]
    for changed in (
        dataclasses.replace(first, box=(0, 0, 50, 50)),
        dataclasses.replace(first, bucket=jobs[-1].bucket),
        dataclasses.replace(first, flip=True),
        dataclasses.replace(first, sha256="0" * 64),
    ):
        assert run(cache, [changed])[1].num_encoded == 1
    assert run(cache, jobs, "another vae")[1].num_encoded == len(jobs)
    assert run(cache, jobs, dtype=torch.float16)[1].num_encoded == len(jobs)
    assert run(cache, jobs, compute="fp16")[1].num_encoded == len(jobs)
    assert run(cache, jobs, alpha_colour=(0, 0, 0))[1].num_encoded == len(jobs)
    assert run(cache, jobs)[1].num_encoded == 0


def test_the_same_content_is_encoded_once(tmp_path: Path) -> None:
    save(tmp_path / "1_a" / "a.png", seed=1)
    shutil.copy(tmp_path / "1_a" / "a.png", tmp_path / "1_a" / "b.png")
    latents, vae = run(tmp_path / "cache", jobs_of(tmp_path))
    assert vae.num_encoded == 1
    assert torch.equal(latents.moments(0)[0], latents.moments(1)[0])


def test_a_damaged_entry_is_encoded_again_with_a_warning(pictures: Path, tmp_path: Path) -> None:
    cache, jobs = tmp_path / "cache", jobs_of(pictures)
    before, _ = run(cache, jobs)
    entries = sorted(cache.rglob("*.safetensors"))
    whole = entries[0].read_bytes()
    entries[0].write_bytes(whole[:100])
    said: list[str] = []
    vae = Vae()
    with Store(cache, limit_bytes=10**9, warn=lambda message: said.append(str(message))) as store:
        latents = Latents(store, "vae")
        latents.encode(latents.find(jobs), vae)
    assert vae.num_encoded == 1 and len(said) == 1 and "damaged" in said[0]
    assert entries[0].read_bytes() == whole
    assert torch.equal(before.moments(0)[0], latents.moments(0)[0])


def test_an_entry_lost_in_mid_run_fails_with_a_way_out(pictures: Path, tmp_path: Path) -> None:
    latents, _ = run(tmp_path / "cache", jobs_of(pictures))
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(RunFailed, match="Resume the run"):
        latents.moments(0)


def test_batches_hold_one_bucket_and_nothing_is_left_behind(pictures: Path, tmp_path: Path) -> None:
    vae, jobs = Vae(), jobs_of(pictures)
    seen: list[tuple[int, int]] = []
    with Store(tmp_path / "cache", limit_bytes=10**9) as store:
        latents = Latents(store, "vae")
        latents.encode(latents.find(jobs), vae, batch_size=2, threads=3, on_progress=lambda d, t: seen.append((d, t)))
        assert latents.find(jobs) == []
    assert sorted(shape[0] for shape in vae.shapes) == [1, 1, 2]
    assert seen[-1] == (4, 4) and [done for done, _ in seen] == sorted(done for done, _ in seen)


def test_broken_pictures_are_named_once_and_the_others_go_on(pictures: Path, tmp_path: Path) -> None:
    cut = save(pictures / "2_猫" / "cut.png", 300, 300)
    cut.write_bytes(cut.read_bytes()[:-5000])
    found = index_dataset([Entry(str(pictures))])
    hashes, _ = hash_files([item.facts for item in found.items], Memo())
    vae = Vae()
    with Store(tmp_path / "cache", limit_bytes=10**9) as store:
        latents = Latents(store, "vae")
        broken = latents.encode(latents.find(latent_jobs(found.items, RULES, hashes, flip=True)), vae)
    assert [entry.path.name for entry in broken] == ["cut.png"] and "broken or cut short" in str(broken[0].why)
    left = found.without(broken)
    assert vae.num_encoded == 8 and len(left.items) == 4
    for item in left.items:
        latents.moments(item.id, flip=True)


def test_every_copy_of_a_broken_picture_is_named(tmp_path: Path) -> None:
    dataset(tmp_path, {"1_a": 1})
    cut = save(tmp_path / "1_a" / "cut.png", 300, 300)
    cut.write_bytes(cut.read_bytes()[:-5000])
    shutil.copy(cut, tmp_path / "1_a" / "copy.png")
    with Store(None) as store:
        latents = Latents(store, "vae")
        broken = latents.encode(latents.find(jobs_of(tmp_path)), Vae())
    assert sorted(entry.path.name for entry in broken) == ["copy.png", "cut.png"]


def test_a_picture_changed_while_the_run_starts_is_not_kept_under_its_old_name(pictures: Path, tmp_path: Path) -> None:
    jobs = jobs_of(pictures)
    save(jobs[0].path, 120, 110, seed=77)
    os.utime(jobs[1].path, (1e9, 1e9))  # only the time: still the same picture
    with Store(tmp_path / "cache", limit_bytes=10**9) as store:
        latents = Latents(store, "vae")
        skipped = latents.encode(latents.find(jobs), Vae())
        assert [entry.path for entry in skipped] == [jobs[0].path] and "was changed" in str(skipped[0].why)
        assert latents.find(jobs) == [jobs[0]]


def test_the_decoding_threads_stay_ahead_but_not_far(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        save(pictures / "2_猫" / f"more {number}.png", 64, 64)
    decoded, most_ahead, lock = 0, 0, threading.Lock()
    real = cache_module.load_pixels

    def counted(*args: object, **options: object) -> object:
        nonlocal decoded
        with lock:
            decoded += 1
        return real(*args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(cache_module, "load_pixels", counted)
    vae = Vae()

    def slow(pixels: Tensor) -> tuple[Tensor, Tensor]:
        nonlocal most_ahead
        time.sleep(0.005)
        most_ahead = max(most_ahead, decoded - vae.num_encoded)
        return vae(pixels)

    with Store(None) as store:
        latents = Latents(store, "vae")
        latents.encode(latents.find(jobs_of(pictures)), slow, threads=2)
    assert 2 <= most_ahead <= 8


def test_stopping_in_mid_caching_keeps_what_is_done_and_leaves_no_thread(pictures: Path, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stopped(say("Stopped."))

    with Store(tmp_path / "cache", limit_bytes=10**9) as store:
        latents = Latents(store, "vae")
        with pytest.raises(Stopped):
            latents.encode(latents.find(jobs_of(pictures)), Vae(), on_progress=stop)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]
    assert run(tmp_path / "cache", jobs_of(pictures))[1].num_encoded == 2


def test_in_memory_nothing_reaches_the_disk(pictures: Path, tmp_path: Path) -> None:
    with Store(None) as store:
        latents = Latents(store, "vae")
        latents.encode(latents.find(jobs_of(pictures)), Vae())
        assert latents.moments(0)[0].shape[0] == 4
    assert not list(tmp_path.rglob("*.safetensors"))


def encode_texts(captions: Sequence[str]) -> Cond:
    lengths = torch.tensor([float(len(caption)) for caption in captions])
    return Cond(lengths[:, None, None].expand(-1, 5, 3))


def encode_with_pooled(captions: Sequence[str]) -> Cond:
    cond = encode_texts(captions)
    return Cond(cond.states, cond.states[:, 0] + 0.5)


def test_text_states_are_kept_by_caption_encoder_and_length(tmp_path: Path) -> None:
    with Store(tmp_path, limit_bytes=10**9) as store:
        text = TextStates(store, "clip", clip_skip=1, token_length=75)
        assert text.find(["a cat", "", "a cat", "猫"]) == ["a cat", "", "猫"]
        text.encode(["a cat", "", "猫"], encode_texts, batch_size=2)
        assert text.find(["a cat", "", "猫"]) == []
        cat, empty = text.cond("a cat"), text.cond("")
        assert torch.equal(cat.states, torch.full((1, 5, 3), 5.0)) and torch.equal(empty.states, torch.zeros(1, 5, 3))
        assert cat.pooled is None
        for other in (
            TextStates(store, "clip2", clip_skip=1, token_length=75),
            TextStates(store, "clip", clip_skip=2, token_length=75),
            TextStates(store, "clip", clip_skip=1, token_length=150),
            TextStates(store, "clip", clip_skip=1, token_length=75, dtype=torch.float16),
        ):
            assert other.find(["a cat"]) == ["a cat"]
        with pytest.raises(RunFailed):
            text.cond("a dog")


def test_the_pooled_vector_is_kept_with_the_states(tmp_path: Path) -> None:
    with Store(tmp_path, limit_bytes=10**9) as store:
        text = TextStates(store, "clips", clip_skip=1, token_length=75)
        text.encode(["a cat", ""], encode_with_pooled, batch_size=2)
        both = Cond.stack([text.cond(""), text.cond("a cat")])
        assert both.pooled is not None and torch.equal(both.pooled, torch.tensor([[0.5] * 3, [5.5] * 3]))
        assert both.states.shape == (2, 5, 3) and both.sizes is None


def test_the_identity_of_weights_follows_every_value_name_and_type() -> None:
    weights = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.bfloat16)}
    name = weights_identity(weights)
    assert name == weights_identity(dict(reversed(weights.items()))) and len(name) == 64
    others = [
        weights | {"a": weights["a"].reshape(3, 2)},
        weights | {"a": weights["a"] + torch.tensor([[0, 0, 1e-6], [0, 0, 0]])},
        weights | {"b": torch.ones(2)},
        {"a": weights["b"], "b": weights["a"]},
        {"a": weights["a"]},
    ]
    assert len({name, *map(weights_identity, others)}) == 6


def test_an_identity_is_remembered_by_the_models_files(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"x")
    os.utime(file, (1e9, 1e9))
    loads: list[int] = []

    def weights() -> dict[str, Tensor]:
        loads.append(1)
        return {"a": torch.ones(3)}

    names = {identity_of(Memo(), [file], "vae fp32", weights) for _ in range(3)}
    assert len(names) == 1 and len(loads) == 1
    identity_of(Memo(), [file], "vae fp16", weights)
    os.utime(file, (1e9 + 1, 1e9 + 1))
    identity_of(Memo(), [file], "vae fp32", weights)
    assert len(loads) == 3
    assert Memo().recall_weights([FileFacts.of(file)], "vae fp32") in names


def test_two_runs_at_once_make_the_same_entries(pictures: Path, tmp_path: Path) -> None:
    script = (
        "import sys; from pathlib import Path; from tests.data.test_cache import *\n"
        "latents, vae = run(Path(sys.argv[2]), jobs_of(Path(sys.argv[1]), flip=True)); print(vae.num_encoded)\n"
    )
    command = [sys.executable, "-c", script, str(pictures), str(tmp_path / "cache")]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) for _ in "ab"]
    outputs = [child.communicate(timeout=120)[0] for child in children]
    assert [child.returncode for child in children] == [0, 0]
    assert 8 <= sum(map(int, outputs)) <= 16
    assert run(tmp_path / "cache", jobs_of(pictures, flip=True))[1].num_encoded == 0
    assert len(list((tmp_path / "cache").rglob("*.safetensors"))) == 8


# --- inpainting ---


def test_masked_pictures_are_cached_beside_the_whole_ones(pictures: Path, tmp_path: Path) -> None:
    run(tmp_path / "cache", jobs_of(pictures, flip=True))
    jobs = jobs_of(pictures, flip=True, masks=3)
    _, vae = run(tmp_path / "cache", jobs)
    assert len(jobs) == 8 * 4 and vae.num_encoded == 8 * 3, "the whole pictures were there"
    _, vae = run(tmp_path / "cache", jobs)
    assert vae.num_encoded == 0
    with Store(tmp_path / "cache", limit_bytes=10**9) as store:
        latents = Latents(store, "vae")
        latents.find(jobs)
        mask, mean = latents.masked(0, 3 - 1, flip=True)[:1], latents.moments(0, flip=True)[0]
        hidden = latents.masked(0, 2, flip=True)[1:]
        assert set(mask.unique().tolist()) == {0.0, 1.0}
        kept = (hidden == mean).all(0)  # cells at the mask's edge are partly hidden
        assert kept[mask[0] == 0].float().mean() > 0.6 and not kept[mask[0] == 1].any()
        full = latents.masked(0, 1)
        assert full[0].eq(1).all() and full[1:].abs().max() < 1e-6, "all hidden: grey"


def test_a_pictures_own_opaque_part_is_its_first_mask(awkward: Path, tmp_path: Path) -> None:
    folder = awkward / "img" / "1_cut out"
    folder.mkdir(parents=True)
    picture = Image.new("RGBA", (64, 64), (200, 10, 10, 0))
    picture.paste((10, 200, 10, 255), (0, 0, 16, 64))
    picture.save(folder / "a.png")
    jobs = jobs_of(awkward / "img", flip=True, masks=1)
    with Store(tmp_path / "cache", limit_bytes=10**9) as store:
        latents = Latents(store, "vae")
        latents.encode(latents.find(jobs), Vae())
        plain, mirrored = latents.masked(0, 0), latents.masked(0, 0, flip=True)
    assert plain[0].sum() == 2 * 8 and plain[0, :, :2].eq(1).all()
    assert torch.equal(mirrored[0], plain[0].flip(1))
    assert plain[1:, :, :2].abs().max() < 1e-6 and plain[1:, :, 2:].eq(1).all(), "hidden, and white behind transparency"
