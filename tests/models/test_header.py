"""What a base model is, told from its header: family, parts, prediction, size, and what it lacks."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from tests.models import shapes as make
from tests.models.shapes import Shapes, write
from tests.tiny import save_tiny_folder
from trainer.models.header import base_problem, inspect_file
from trainer.models.keys import LDM_CLIP, LDM_UNET, LDM_VAE


def test_a_whole_model(tiny_file: Path) -> None:
    facts = inspect_file(tiny_file)
    assert (facts.kind, facts.family, facts.prediction, facts.dtype) == ("base", "sd1", "epsilon", "fp32")
    assert facts.parts == {"unet", "vae", "text_encoder"}
    assert facts.problem is None and base_problem(facts) is None
    assert facts.num_bytes == tiny_file.stat().st_size
    assert facts.native_resolution == 64
    assert str(facts.summary) == "Stable Diffusion 1.x model."


WHOLE = {"sd1": dict, "sd2": make.sd2, "sdxl": make.sdxl}
TEXT_PARTS = {"sd1": {"text_encoder"}, "sd2": {"text_encoder"}, "sdxl": {"text_encoder", "text_encoder_2"}}


@pytest.mark.parametrize("family", list(WHOLE))
def test_a_whole_model_of_each_family(tmp_path: Path, sd1: Shapes, family: str) -> None:
    whole = WHOLE[family](sd1)
    facts = inspect_file(write(tmp_path / "x.safetensors", whole))
    assert (facts.kind, facts.family, facts.problem) == ("base", family, None)
    assert facts.parts == {"unet", "vae"} | TEXT_PARTS[family] and not facts.missing
    assert facts.in_channels == 4 and facts.container == "safetensors" and facts.num_tensors == len(whole)
    assert facts.use is not None and base_problem(facts) is None
    expected = {"sd1": ("epsilon", "family"), "sd2": (None, None), "sdxl": ("epsilon", "family")}[family]
    assert (facts.prediction, facts.prediction_source) == expected
    assert facts.native_resolution == {"sd1": 512, "sd2": 512, "sdxl": 1024}[family]


@pytest.mark.parametrize("family", list(WHOLE))
def test_inpainting_models_of_each_family(tmp_path: Path, sd1: Shapes, family: str) -> None:
    facts = inspect_file(write(tmp_path / "x.safetensors", make.inpainting(WHOLE[family](sd1))))
    assert (facts.kind, facts.family, facts.in_channels, facts.problem) == ("base", family, 9, None)
    assert "inpainting" in str(facts.summary)


@pytest.mark.parametrize(("channels", "words"), [(5, "depth map"), (8, "InstructPix2Pix"), (6, "unknown purpose")])
def test_other_inputs_are_refused(tmp_path: Path, sd1: Shapes, channels: int, words: str) -> None:
    facts = inspect_file(write(tmp_path / "x.safetensors", make.inpainting(sd1, channels)))
    assert words in str(facts.problem) and f"{channels} input channels" in str(facts.problem)


def test_the_refiner_is_refused(tmp_path: Path, sd1: Shapes) -> None:
    whole = make.refiner(sd1)
    for shapes in (whole, make.part(whole, LDM_UNET)):
        facts = inspect_file(write(tmp_path / "x.safetensors", shapes))
        assert facts.family == "sdxl_refiner" and "refiner" in str(facts.problem) and "base model" in str(facts.problem)


@pytest.mark.parametrize("family", list(WHOLE))
def test_averaged_weights_beside_and_instead_of_its_own(tmp_path: Path, sd1: Shapes, family: str) -> None:
    from trainer.models.keys import ema_name

    whole = WHOLE[family](sd1)
    averaged = {ema_name(name): shape for name, shape in make.part(whole, LDM_UNET).items()}
    both = inspect_file(write(tmp_path / "both.safetensors", {**whole, **averaged}))
    assert both.averaged and both.problem is None
    alone = inspect_file(write(tmp_path / "alone.safetensors", {**make.without(whole, LDM_UNET), **averaged}))
    assert (alone.kind, alone.family, alone.averaged, alone.problem) == ("base", family, True, None)
    assert alone.parts == both.parts and alone.in_channels == 4
    averaged.pop(ema_name(f"{LDM_UNET}out.2.weight"))
    torn = inspect_file(write(tmp_path / "torn.safetensors", {**make.without(whole, LDM_UNET), **averaged}))
    assert torn.kind == "broken" and "out.2.weight is missing" in str(torn.problem)


def test_a_second_text_encoder_that_is_not_whole(tmp_path: Path, sd1: Shapes) -> None:
    whole = make.sdxl(sd1)
    whole.pop("conditioner.embedders.1.model.positional_embedding")
    assert "positional_embedding is missing" in str(inspect_file(write(tmp_path / "x.safetensors", whole)).problem)
    one = make.without(make.sdxl(sd1), "conditioner.embedders.1.")
    facts = inspect_file(write(tmp_path / "y.safetensors", {**one, "conditioner.embedders.1.x": (1,)}))
    assert facts.missing == {"text_encoder_2"} and "second text encoder" in str(facts.problem)


def test_missing_parts(tmp_path: Path, sd1: Shapes) -> None:
    alone = inspect_file(write(tmp_path / "unet.safetensors", make.part(sd1, LDM_UNET)))
    assert alone.missing == {"text_encoder", "vae"}
    assert "no text encoder" in str(alone.problem)
    bare = {name: shape for name, shape in sd1.items() if not name.startswith(LDM_VAE)}
    facts = inspect_file(write(tmp_path / "bare.safetensors", bare))
    assert facts.problem is None and "without a VAE" in str(facts.summary)
    assert "Choose a VAE" in str(base_problem(facts)) and base_problem(facts, has_vae=True) is None
    torn = {name: shape for name, shape in sd1.items() if not name.endswith("time_embed.0.weight")}
    torn.pop(f"{LDM_UNET}out.2.weight")
    assert "out.2.weight is missing" in str(inspect_file(write(tmp_path / "torn.safetensors", torn)).problem)


def test_the_early_name_of_the_text_encoder(tmp_path: Path, sd1: Shapes) -> None:
    early = {name.replace(LDM_CLIP, "cond_stage_model.transformer."): shape for name, shape in sd1.items()}
    facts = inspect_file(write(tmp_path / "x.safetensors", early))
    assert facts.problem is None and "text_encoder" in facts.parts


def test_mixed_dtypes(tmp_path: Path) -> None:
    from trainer.models.safetensors_file import header_bytes

    head = header_bytes({"a": ("F16", (100,)), "b": ("F32", (10,)), "c": ("I64", (400,))}, {})
    path = tmp_path / "x.safetensors"
    path.write_bytes(head + bytes(200 + 40 + 3200))
    facts = inspect_file(path)
    assert facts.dtype == "fp16" and dict(facts.dtypes) == {"I64": 3200, "fp16": 200, "fp32": 40}


def test_a_diffusers_folder(tmp_path: Path) -> None:
    folder = save_tiny_folder(tmp_path / "folder")
    facts = inspect_file(folder)
    assert (facts.kind, facts.family, facts.prediction, facts.dtype) == ("base", "sd1", "epsilon", "fp32")
    assert facts.parts == {"unet", "vae", "text_encoder"} and facts.problem is None
    config = json.loads((folder / "scheduler/scheduler_config.json").read_text(encoding="utf-8"))
    (folder / "scheduler/scheduler_config.json").write_text(
        json.dumps({**config, "prediction_type": "v_prediction"}), encoding="utf-8"
    )
    assert inspect_file(folder).prediction == "v_prediction"
    weights = folder / "unet/diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    assert "unet/diffusion_pytorch_model.safetensors: 9 bytes are missing" in str(inspect_file(folder).problem)
    weights.unlink()
    assert "unet/ has no weights" in str(inspect_file(folder).problem)
    (folder / "unet/config.json").write_text("{", encoding="utf-8")
    assert inspect_file(folder).kind == "broken"


Said = tuple[str | None, str | None, bool | None]
PREDICTIONS: dict[str, tuple[str, Shapes, dict[str, str], str, Said]] = {
    "marker": ("sd1", {"v_pred": (0,)}, {}, "", ("v_prediction", "marker", None)),
    "both markers": ("sdxl", {"v_pred": (0,), "ztsnr": (0,)}, {}, "", ("v_prediction", "marker", True)),
    "zero SNR alone": ("sdxl", {"ztsnr": ()}, {}, "", ("epsilon", "family", True)),
    "modelspec": ("sd1", {}, {"modelspec.prediction_type": "v"}, "", ("v_prediction", "metadata", None)),
    "modelspec, other key": ("sd2", {}, {"modelspec.predict_key": "v"}, "", ("v_prediction", "metadata", None)),
    "modelspec, epsilon": ("sd2", {}, {"modelspec.prediction_type": "epsilon"}, "", ("epsilon", "metadata", None)),
    "marker before metadata": (
        "sdxl", {"v_pred": (0,)}, {"modelspec.prediction_type": "epsilon"}, "", ("v_prediction", "marker", None),
    ),
    "config before marker": (
        "sdxl", {"v_pred": (0,)}, {}, '{"model": {"prediction": "epsilon"}}', ("epsilon", "config", None),
    ),
    "architecture, v": (
        "sd2", {}, {"modelspec.architecture": "stable-diffusion-v2-768-v"}, "", ("v_prediction", "metadata", None),
    ),
    "architecture, epsilon": (
        "sd2", {}, {"modelspec.architecture": "stable-diffusion-v2-512"}, "", ("epsilon", "metadata", None),
    ),
    "kohya": ("sd2", {}, {"ss_v_parameterization": "True"}, "", ("v_prediction", "metadata", None)),
    "zero SNR in metadata": (
        "sdxl", {}, {"ss_zero_terminal_snr": "True"}, "", ("epsilon", "family", True),
    ),
    "config beside": ("sd1", {}, {}, "model: {params: {parameterization: v}}", ("v_prediction", "config", None)),
    "nobody says it": ("sd2", {}, {}, "", (None, None, None)),
    "nonsense": ("sd1", {}, {"modelspec.prediction_type": "x0?"}, "", ("epsilon", "family", None)),
}  # fmt: skip


@pytest.mark.parametrize("name", list(PREDICTIONS))
def test_what_a_model_predicts_and_who_says_so(tmp_path: Path, sd1: Shapes, name: str) -> None:
    family, more, metadata, beside, expected = PREDICTIONS[name]
    path = write(tmp_path / "x.safetensors", {**WHOLE[family](sd1), **more}, metadata)
    if beside:
        path.with_suffix(".json" if beside.startswith("{") else ".yaml").write_text(beside, encoding="utf-8")
    facts = inspect_file(path)
    assert facts.problem is None
    assert (facts.prediction, facts.prediction_source, facts.zero_snr) == expected
    assert facts.contradicted == ("before" in name)


@pytest.mark.parametrize("marker", ["edm_mean", "edm_vpred.sigma_max"])
@pytest.mark.parametrize("complete", [True, False])
def test_models_of_edm_noise_are_refused(tmp_path: Path, sd1: Shapes, marker: str, complete: bool) -> None:
    """Playground v2.5 and CosXL: their UNets are asked by a quarter of σ's logarithm, and not by a timestep's number."""
    whole = {name: shape for name, shape in make.sdxl(sd1).items() if complete or "conditioner" not in name}
    facts = inspect_file(write(tmp_path / "x.safetensors", {**whole, marker: (4,), "v_pred": (0,)}))
    assert facts.family == "sdxl" and facts.use is None and "EDM" in str(base_problem(facts, has_vae=True, has_text=True))


def test_sd2_with_v_prediction_is_of_768_pixels(tmp_path: Path, sd1: Shapes) -> None:
    shapes = {**make.sd2(sd1), "v_pred": (0,)}
    assert inspect_file(write(tmp_path / "x.safetensors", shapes)).native_resolution == 768
    said = write(tmp_path / "x.safetensors", shapes, {"modelspec.resolution": "512x512"})
    assert inspect_file(said).native_resolution == 512


def test_a_config_beside_that_cannot_be_read(tmp_path: Path, sd1: Shapes) -> None:
    path = write(tmp_path / "x.safetensors", sd1)
    path.with_suffix(".json").write_text("{", encoding="utf-8")
    assert "config file" in str(inspect_file(path).problem)
    path.with_suffix(".json").write_text('{"activation text": "a note of the WebUI"}', encoding="utf-8")
    assert inspect_file(path).problem is None


def test_averaged_weights_beside_scraps_of_a_unet(tmp_path: Path) -> None:
    """As a mutated header had it: what there is of the UNet is not its first layer."""
    scraps: Shapes = {f"{LDM_UNET}label_emb.0.0.weight": (), "model_ema.diffusion_modelinput_blocks00weight": ()}
    assert inspect_file(write(tmp_path / "x.safetensors", scraps)).problem is not None


def test_a_full_size_header_takes_less_than_a_third_of_a_second(tmp_path: Path, sd1: Shapes) -> None:
    many = {**sd1, **{f"model_ema.{index}_{'x' * 60}": (320, 320) for index in range(3000)}}
    path = write(tmp_path / "x.safetensors", many, {"thumbnail": "x" * 500_000})
    start = time.process_time()  # of this process alone: a busy machine must not fail the test
    assert inspect_file(path).problem is None
    assert time.process_time() - start < 0.3


def test_no_torch_is_needed(tiny_file: Path) -> None:
    import subprocess
    import sys

    code = (
        "import sys, trainer.models.header as h, trainer.models.protocol, trainer.export_targets\n"
        f"assert h.inspect_file({str(tiny_file)!r}).problem is None\n"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.json", "[]"), ("x.json", "5"), ("x.json", "null"), ("x.json", '{"unet": 5}'), ("x.yaml", "model: 5"),
        ("x.yaml", "model: {params: [1]}"), ("x.yaml", "model: {params: {unet_config: 5, denoiser_config: 5}}"),
    ],
)  # fmt: skip
def test_files_of_others_beside_a_model_are_left_alone(tmp_path: Path, sd1: Shapes, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert inspect_file(write(tmp_path / "x.safetensors", sd1)).problem is None


def test_a_config_beside_that_is_longer_than_any(tmp_path: Path, sd1: Shapes) -> None:
    (tmp_path / "x.json").write_bytes(b" " * (5 << 20))
    problem = str(inspect_file(write(tmp_path / "x.safetensors", sd1)).problem)
    assert problem.endswith("x.json beside the model cannot be read: it is longer than such a file can be.")
