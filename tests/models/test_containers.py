"""A model is the same in every container: each family is loaded from a zip and from old pickles as from safetensors."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import family_of, save_tiny_file
from trainer.errors import BadInput
from trainer.models.header import inspect_file, vae_problem
from trainer.models.keys import LDM_VAE
from trainer.models.tensor_file import read_file

OLD = {"_use_new_zipfile_serialization": False}


def states(family: str, path: Path, **facts: Any) -> dict[str, torch.Tensor]:
    parts = family_of(family).load(path, **facts).modules()
    return {f"{part}.{name}": tensor for part, module in parts.items() for name, tensor in module.state_dict().items()}


def same(ours: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


@pytest.mark.parametrize("family", ["sd1", "sd2", "sdxl"])
def test_a_checkpoint_of_torch_is_loaded_as_a_safetensors_file(tmp_path: Path, family: str) -> None:
    source = save_tiny_file(tmp_path, "plain", family=family)
    beside = source.with_suffix(".json").read_text(encoding="utf-8")
    wanted, tensors = states(family, source), read_file(source)
    for name, options in (("zip", {}), ("old", OLD)):
        path = tmp_path / f"{name}.ckpt"
        torch.save({"state_dict": tensors, "global_step": 1}, path, **options)
        path.with_suffix(".json").write_text(beside, encoding="utf-8")
        facts = inspect_file(path)
        assert (facts.family, facts.problem) == (family, None)
        same(states(family, path), wanted)


def test_a_checkpoint_in_half_precision_and_with_shared_storages(tmp_path: Path) -> None:
    """What merging scripts write: views of one large storage."""
    source = save_tiny_file(tmp_path, "plain", torch.float16)
    tensors = read_file(source)
    whole = torch.cat([tensor.flatten() for tensor in tensors.values()])
    views, place = {}, 0
    for name, tensor in tensors.items():
        views[name] = whole[place : place + tensor.numel()].view(tensor.shape)
        place += tensor.numel()
    torch.save(views, tmp_path / "views.ckpt")
    (tmp_path / "views.json").write_text(source.with_suffix(".json").read_text(encoding="utf-8"), encoding="utf-8")
    same(states("sd1", tmp_path / "views.ckpt"), states("sd1", source))


def test_a_vae_as_it_was_handed_round(tmp_path: Path) -> None:
    """A .vae.pt: the tensors in a state_dict, beside them those of the loss that it was trained with."""
    source = save_tiny_file(tmp_path, "plain")
    vae = {name.removeprefix(LDM_VAE): tensor for name, tensor in read_file(source).items() if name.startswith(LDM_VAE)}
    extra = {"loss.logvar": torch.zeros(1), "loss.discriminator.main.0.weight": torch.zeros(4, 3, 4, 4)}
    for options in ({}, OLD):
        path = tmp_path / "some.vae.pt"
        torch.save({"state_dict": {**vae, **extra}, "epoch": 5, "optimizer_states": []}, path, **options)
        facts = inspect_file(path)
        assert facts.kind == "vae" and vae_problem(facts, "sd1") is None
        (tmp_path / "some.vae.json").write_text(
            source.with_suffix(".json").read_text(encoding="utf-8"), encoding="utf-8"
        )
        same(states("sd1", source, vae=path, parts=("vae",)), states("sd1", source, parts=("vae",)))


def test_a_harmful_checkpoint_is_refused_by_the_loader(tmp_path: Path) -> None:
    from tests.models import hostile

    path = hostile.save(tmp_path / "x.ckpt", hostile.zipped(hostile.imports()["os.system"][1]))
    with pytest.raises(BadInput, match=r"os\.system"):
        family_of("sd1").load(path)


def test_a_checkpoint_that_is_cut_between_looking_and_loading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save_tiny_file(tmp_path, "plain")
    torch.save(read_file(source), tmp_path / "x.ckpt")
    from trainer.models import loading

    begin = loading.read_parts

    def cut(*arguments: Any) -> Any:
        with (tmp_path / "x.ckpt").open("r+b") as handle:
            handle.truncate(5000)
        return begin(*arguments)

    monkeypatch.setattr(loading, "read_parts", cut)
    (tmp_path / "x.json").write_text(source.with_suffix(".json").read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(BadInput, match="became shorter"):
        family_of("sd1").load(tmp_path / "x.ckpt")
