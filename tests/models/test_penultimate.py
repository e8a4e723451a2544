"""SD 2.x reads the layer before OpenCLIP-H's last, in whichever form and with however many layers the encoder is given."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.tiny import TINY_CLIP, family_of, save_tiny_file, save_tiny_folder, tiny_model
from trainer.models import libraries
from trainer.models.header import inspect_file, text_encoder_problem
from trainer.models.keys import LDM_OPEN_CLIP
from trainer.models.tensor_file import read_file, write_file

FAMILY = family_of("sd2")
RUN, LAST = 23, 24  # OpenCLIP-H's layers: those that are run, and all; narrow ones here
TEXTS = ["a photo of a red cat, sitting", ""]
Tensors = dict[str, Tensor]


def encoder(layers: int) -> Any:
    """A narrow text encoder of so many layers, the same weights in those that two of them share."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        clip, config = libraries.clip_classes()
        made = clip(config(**{**TINY_CLIP, "hidden_act": "gelu", "num_hidden_layers": LAST}))
        torch.nn.init.normal_(made.get_input_embeddings().weight, std=0.2)
        for name, weight in made.named_parameters():
            if weight.dim() > 1 and ".layers." in name:
                torch.nn.init.normal_(weight, std=0.2)
    if layers == LAST:
        return made
    fewer = clip(config(**{**TINY_CLIP, "hidden_act": "gelu", "num_hidden_layers": layers}))
    fewer.load_state_dict({name: value for name, value in made.state_dict().items() if f".layers.{RUN}." not in name})
    return fewer


def save(path: Path, tensors: Tensors) -> Path:
    kinds = {torch.float32: "F32", torch.int64: "I64"}
    write_file(path, [(name, tuple(value.shape), kinds[value.dtype], value.clone) for name, value in tensors.items()], {})
    return path


def open_clip_tensors(folder: Path, layers: int) -> Tensors:
    """OpenCLIP's own names. The layer that is not run is not a copy of another here, so that it would be noticed."""
    whole = replace(tiny_model("sd2"), text_encoder=encoder(LAST))
    FAMILY.save(whole, folder / "names.safetensors")
    tensors = read_file(folder / "names.safetensors")
    return {
        name.removeprefix(LDM_OPEN_CLIP): value
        for name, value in tensors.items()
        if name.startswith(LDM_OPEN_CLIP) and not any(f".resblocks.{number}." in name for number in range(layers, LAST + 1))
    }


def checkpoint(folder: Path, layers: int) -> Path:
    """A whole LDM file."""
    path = save_tiny_file(folder, family="sd2")
    tensors = {name: value for name, value in read_file(path).items() if not name.startswith(LDM_OPEN_CLIP)}
    tensors |= {LDM_OPEN_CLIP + name: value for name, value in open_clip_tensors(folder, layers).items()}
    return save(path, tensors)


def original(folder: Path, layers: int) -> Path:
    """The encoder alone, as OpenCLIP's own programs write it."""
    return save(folder / "original.safetensors", open_clip_tensors(folder, layers))


def library_file(folder: Path, layers: int) -> Path:
    """The encoder alone with transformers' names."""
    tensors = {f"text_model.{name}": value for name, value in encoder(layers).state_dict().items()}
    return save(folder / "library.safetensors", tensors)


def library_folder(folder: Path, layers: int) -> Path:
    """The encoder alone as transformers writes it."""
    encoder(layers).save_pretrained(folder / "alone")
    return folder / "alone"


def whole_folder(folder: Path, layers: int) -> Path:
    """A diffusers folder."""
    path = save_tiny_folder(folder / "whole", family="sd2")
    encoder(layers).save_pretrained(path / "text_encoder")
    return path


@pytest.fixture(scope="module")
def wanted() -> Tensor:
    """What 23 layers and the final norm say."""
    model = replace(tiny_model("sd2"), text_encoder=encoder(RUN).eval())
    return FAMILY.encode_text(model, TEXTS).states


@pytest.mark.parametrize("layers", [RUN, LAST])
@pytest.mark.parametrize("form", [checkpoint, original, library_file, library_folder, whole_folder])
def test_every_form_is_read_up_to_the_layer_before_the_last(
    form: Callable[[Path, int], Path], layers: int, wanted: Tensor, tmp_path: Path
) -> None:
    given = form(tmp_path, layers)
    assert text_encoder_problem(inspect_file(given), "sd2") is None
    others = () if form in (checkpoint, whole_folder) else (given,)
    bare = tmp_path / "bare.safetensors"
    FAMILY.save(replace(tiny_model("sd2"), text_encoder=None), bare)
    model = FAMILY.load(bare if others else given, text_encoders=others)
    assert model.text_encoder.config.num_hidden_layers == RUN
    torch.testing.assert_close(FAMILY.encode_text(model, TEXTS).states, wanted, atol=1e-5, rtol=1e-4)


def test_the_layer_that_is_not_run_would_say_something_else(wanted: Tensor) -> None:
    model = replace(tiny_model("sd2"), text_encoder=encoder(LAST).eval())
    assert (FAMILY.encode_text(model, TEXTS).states - wanted).abs().max() > 0.1


@pytest.mark.parametrize("layers", [RUN, LAST])
def test_what_is_written_has_all_layers_that_programs_look_for(layers: int, tmp_path: Path) -> None:
    """24 in an LDM file, the last of them filled; 23 in a diffusers folder. By a run's code and by the tools."""
    from tests.tools.material import use

    folder = whole_folder(tmp_path, layers)
    FAMILY.save(FAMILY.load(folder), tmp_path / "ours.safetensors")
    use("convert", model=folder, output=tmp_path / "tool.safetensors")
    for name in ("ours", "tool"):
        blocks = {key.split(".")[4] for key in read_file(tmp_path / f"{name}.safetensors") if ".resblocks." in key}
        assert blocks == {str(number) for number in range(LAST)}
    FAMILY.save_folder(FAMILY.load(tmp_path / "tool.safetensors"), tmp_path / "again")
    use("convert", model=tmp_path / "ours.safetensors", output=tmp_path / "tools folder")
    for name in ("again", "tools folder"):
        config = json.loads((tmp_path / name / "text_encoder/config.json").read_text(encoding="utf-8"))
        assert config["num_hidden_layers"] == RUN


def test_a_small_model_has_its_unused_layer_in_ldm_files_alone(tmp_path: Path) -> None:
    """No number of layers tells there: four in our file are three and one that is not run, three in a folder are three."""
    file, folder = save_tiny_file(tmp_path, family="sd2"), save_tiny_folder(tmp_path / "folder", family="sd2")
    counts = [FAMILY.load(path).text_encoder.config.num_hidden_layers for path in (file, folder)]
    assert counts == [3, 3] and any(".resblocks.3." in name for name in read_file(file))
