"""LoRA on every family: the names that kohya's programs use, what it may touch, and files of other programs gone on from."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.models.test_families import cond_of
from tests.tiny import FAMILIES, family_of, full_size_model, pipeline_of, tiny_model
from trainer.errors import BadInput
from trainer.export import save_adapter
from trainer.methods.lora import Settings, TrainedLora, build
from trainer.models.lora_layers import unet_layers
from trainer.models.protocol import Components
from trainer.models.tensor_file import read_file
from trainer.nets.lora import LoraNetwork

COUNTS = {"sd1": (192, 278, 72), "sd2": (192, 278, 138), "sdxl": (722, 788, 72, 192)}
CONVOLUTIONS = {"conv_rank": 2, "conv_alpha": 1.0}


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def spelled_out(family: str) -> set[str]:
    """The names of a plain LoRA at full size, written down from the key tables of kohya's files, not from our code."""
    linears = [f"{a}_{n}" for a in ("attn1", "attn2") for n in ("to_q", "to_k", "to_v", "to_out_0")]
    inner = [*linears, "ff_net_0_proj", "ff_net_2"]
    if family == "sdxl":
        depths = {f"input_blocks_{n}_1": 2 if n < 7 else 10 for n in (4, 5, 7, 8)} | {"middle_block_1": 10}
        depths |= {f"output_blocks_{n}_1": 10 if n < 3 else 2 for n in range(6)}
    else:
        places = [f"down_blocks_{i}_attentions_{j}" for i in (0, 1, 2) for j in (0, 1)]
        places += [f"up_blocks_{i}_attentions_{j}" for i in (1, 2, 3) for j in (0, 1, 2)]
        depths = dict.fromkeys([*places, "mid_block_attentions_0"], 1)
    unet = {
        f"lora_unet_{place}_{name}"
        for place, depth in depths.items()
        for name in ("proj_in", "proj_out", *(f"transformer_blocks_{k}_{n}" for k in range(depth) for n in inner))
    }
    layers = {"sd1": {"te": 12}, "sd2": {"te": 23}, "sdxl": {"te1": 12, "te2": 32}}[family]
    text = [f"self_attn_{n}_proj" for n in ("q", "k", "v", "out")] + ["mlp_fc1", "mlp_fc2"]
    return unet | {
        f"lora_{te}_text_model_encoder_layers_{i}_{n}" for te, count in layers.items() for i in range(count) for n in text
    }


def test_names_and_counts_at_full_size(family: str) -> None:
    model, object_ = full_size_model(family, "meta"), family_of(family)
    targets = {part: object_.adapter_modules(model, part) for part in ("unet", *object_.text_parts)}
    plain, with_convolutions, *text = COUNTS[family]
    assert [len(modules) for modules in targets.values()] == [plain, *text]
    tensors = LoraNetwork(targets, rank=4, alpha=4.0).state_tensors()
    assert {name.split(".")[0] for name in tensors} == spelled_out(family)
    assert len(tensors) == 3 * (plain + sum(text))
    wide = object_.adapter_modules(model, "unet", convolutions=True)
    assert len(wide) == with_convolutions and list(wide)[:plain] == list(targets["unet"])


def test_convolutions_are_those_of_resnets_and_samplers(family: str) -> None:
    """Found here by class instead of by table, at full size."""
    from diffusers.models.downsampling import Downsample2D
    from diffusers.models.resnet import ResnetBlock2D
    from diffusers.models.transformers.transformer_2d import Transformer2DModel
    from diffusers.models.upsampling import Upsample2D

    unet = full_size_model(family, "meta").unet
    wanted = {
        f"{path}.{inner}"
        for path, block in unet.named_modules()
        if isinstance(block, (Transformer2DModel, ResnetBlock2D, Downsample2D, Upsample2D))
        for inner, module in block.named_modules()
        if isinstance(module, (torch.nn.Linear, torch.nn.Conv2d))
    }
    table = unet_layers(unet.config, sai=family_of(family).sai_lora, convolutions=True)
    assert set(table.values()) == wanted
    if family == "sdxl":
        names = {name.removeprefix("lora_unet_") for name in table}
        assert {"input_blocks_3_0_op", "output_blocks_2_2_conv", "input_blocks_4_0_skip_connection",
                "middle_block_2_out_layers_3", "output_blocks_8_0_emb_layers_1"} <= names  # fmt: skip


# --- a small one ---


def trained(family: str, model: Components, **values: Any) -> TrainedLora:
    """A LoRA with weights that matter, as after a training."""
    lora = build(Settings(**{"rank": 4, "alpha": 2.0, **values}), model, family_of(family), seed=1)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in lora.parameters():
            weight.copy_(torch.empty(weight.shape).normal_(std=0.2, generator=generator))
    lora.train(False)
    return lora


def predict(family: str, model: Components) -> Tensor:
    noisy = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    return family_of(family).predict(model, noisy, torch.tensor([10, 700]), cond_of(model, family)).detach()


@pytest.mark.parametrize("values", [{}, CONVOLUTIONS], ids=["linear", "convolutions"])
def test_no_effect_at_the_start_and_only_its_weights_train(family: str, values: dict[str, Any]) -> None:
    model = tiny_model(family)
    before = predict(family, model)
    weights = {part: {name: value.clone() for name, value in module.state_dict().items()}
               for part, module in model.modules().items()}  # fmt: skip
    lora = build(Settings(rank=4, alpha=2.0, **values), model, family_of(family), seed=1)
    assert torch.equal(predict(family, model), before)
    assert lora.parts == {"unet", *family_of(family).text_parts}
    rates = dict.fromkeys(lora.parts, 0.1)
    optimizer = torch.optim.SGD(lora.parameter_groups(rates), lr=0.1)
    for _ in range(2):
        cond = cond_of(model, family)
        noisy, steps = torch.randn(2, 4, 8, 8), torch.tensor([10, 700])
        (family_of(family).predict(model, noisy, steps, cond) - 1).square().mean().backward()
        untouched = [name for name in lora.network.layers if lora.network.layer(name).up.grad is None]
        assert len(untouched) <= 12, "SDXL reads the layer before the last: only the last layers learn nothing"
        optimizer.step()
        optimizer.zero_grad()
    assert not torch.equal(predict(family, model), before)
    for part, module in model.modules().items():
        assert all(torch.equal(value, weights[part][name]) for name, value in module.state_dict().items())
    lora.remove()
    assert torch.equal(predict(family, model), before)


@pytest.mark.parametrize("values", [{}, CONVOLUTIONS], ids=["linear", "convolutions"])
def test_its_file_is_kohyas_and_can_be_gone_on_from(family: str, values: dict[str, Any], tmp_path: Path) -> None:
    model = tiny_model(family)
    lora = trained(family, model, **values)
    wanted = predict(family, model)
    lora.export(tmp_path / "lora.safetensors", {}, torch.float32)
    lora.remove()
    again = build(Settings(rank=8, network_weights=str(tmp_path / "lora.safetensors")), model, family_of(family))
    again.train(False)
    assert torch.equal(predict(family, model), wanted)
    one, two = lora.state_dict(), again.state_dict()
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)
    said = again.metadata()
    assert said["ss_network_dim"] == "4" and said["ss_network_alpha"] == "2.0"
    arguments = {"conv_dim": "2", "conv_alpha": "1.0"}
    assert said["ss_network_args"] == (json.dumps(arguments) if values else "None")


# --- other programs' files ---


def modules_of(lora: TrainedLora, family: str, model: Components) -> dict[str, tuple[str, str, str]]:
    """kohya's name → part, the module's path in the library's file, and in an LDM file (of the UNet)."""
    from trainer.models import keys

    ldm = {path: name for name, path in keys.unet_modules(model.unet.config).items()}
    paths = {module: name for name, module in model.unet.named_modules()}
    found = {}
    for part, names in lora.network.parts.items():
        if part != "unet":
            paths = {module: name for name, module in getattr(model, part).named_modules()}
        for name in names:
            path = paths[lora.network.layer(name).base]
            full = path if part == "unet" or path.startswith("text_model.") else f"text_model.{path}"
            found[name] = part, full, ldm.get(path, "")
    return found


Spelling = Callable[[str, str, str, str], str]  # part, path, LDM path, "down" or "up"


def diffusers_new(part: str, path: str, ldm: str, end: str) -> str:
    return f"{part}.{path}.lora_{'A' if end == 'down' else 'B'}.weight"


def diffusers_old(part: str, path: str, ldm: str, end: str) -> str:
    if part != "unet":
        return f"{part}.{path}.lora_linear_layer.{end}.weight"
    if ".attn" in path:
        block, _, module = path.partition(".to_")
        return f"unet.{block}.processor.to_{module.removesuffix('.0')}_lora.{end}.weight"
    return f"unet.{path}.lora.{end}.weight"


def kohya_with_diffusers_names(part: str, path: str, ldm: str, end: str) -> str:
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}[part]
    return f"{prefix}_{path.replace('.', '_')}.lora_{end}.weight"


def onetrainer(part: str, path: str, ldm: str, end: str) -> str:
    """The format that it shares with others: the original names of the UNet, with dots."""
    prefix = {"unet": "unet", "text_encoder": "clip_l", "text_encoder_2": "clip_g"}[part]
    return f"{prefix}.{ldm if part == 'unet' else path}.lora_{end}.weight"


def onetrainer_plain(part: str, path: str, ldm: str, end: str) -> str:
    prefix = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}[part]
    return f"{prefix}.{path}.lora_{end}.weight"


def lycoris(part: str, path: str, ldm: str, end: str) -> str:
    """What LyCORIS' own wrapper around a UNet gives; text encoders as kohya's programs have them."""
    if part != "unet":
        return kohya_with_diffusers_names(part, path, ldm, end)
    return f"lycoris_{path.replace('.', '_')}.lora_{end}.weight"


def diffusers_oldest(part: str, path: str, ldm: str, end: str) -> str:
    """Attention processors of a UNet saved on its own: nothing says that they are the UNet's."""
    return diffusers_old(part, path, ldm, end).removeprefix("unet.")


SPELLINGS = (
    diffusers_new, diffusers_old, diffusers_oldest, kohya_with_diffusers_names, onetrainer, onetrainer_plain, lycoris,
)  # fmt: skip


def respelled(lora: TrainedLora, family: str, model: Components, spelling: Spelling, alpha: bool) -> dict[str, Tensor]:
    tensors = {}
    for name, (part, path, ldm) in modules_of(lora, family, model).items():
        layer = lora.network.layer(name)
        tensors[spelling(part, path, ldm, "down")] = layer.down.detach().clone()
        tensors[spelling(part, path, ldm, "up")] = layer.up.detach().clone()
        if alpha:
            tensors[f"{spelling(part, path, ldm, 'down').rsplit('.', 2)[0]}.alpha"] = torch.tensor(float(layer.alpha))
    return tensors


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_every_spelling_is_understood(family: str, spelling: Spelling, tmp_path: Path) -> None:
    model = tiny_model(family)
    plain = spelling in (diffusers_old, diffusers_oldest)
    lora = trained(family, model, alpha=4.0, **({} if plain else CONVOLUTIONS | {"conv_alpha": 2.0}))
    wanted = predict(family, model)
    path, version = tmp_path / "theirs.safetensors", family_of(family).base_version
    tensors = respelled(lora, family, model, spelling, alpha=spelling in (onetrainer, onetrainer_plain, lycoris))
    save_adapter(path, tensors, {"ss_base_model_version": version}, torch.float32)
    lora.remove()
    again = build(Settings(network_weights=str(path)), model, family_of(family))
    again.train(False)
    assert torch.equal(predict(family, model), wanted)
    assert set(again.state_dict()) == set(lora.state_dict()), "it is written with kohya's names"


def test_what_diffusers_itself_writes(family: str, tmp_path: Path) -> None:
    """With PEFT's layers in a pipeline, and alpha in the header alone."""
    from peft import LoraConfig, get_peft_model_state_dict

    model = tiny_model(family)
    pipe = pipeline_of(family, model)
    unet_config = LoraConfig(r=4, lora_alpha=2, target_modules=["to_q", "to_k", "to_v", "to_out.0", "proj_in"])
    text_config = LoraConfig(r=4, lora_alpha=1, target_modules=["q_proj", "v_proj", "fc1"])
    given: dict[str, Any] = {"unet_lora_adapter_metadata": unet_config.to_dict(), "unet_lora_layers": None}
    wanted, count = _with_peft(family, model, unet_config, text_config)
    given["unet_lora_layers"] = get_peft_model_state_dict(model.unet)
    for part in family_of(family).text_parts:
        given[f"{part}_lora_layers"] = get_peft_model_state_dict(getattr(model, part))
        given[f"{part}_lora_adapter_metadata"] = text_config.to_dict()
    type(pipe).save_lora_weights(tmp_path, **given)
    fresh = tiny_model(family)
    (path,) = tmp_path.glob("*.safetensors")
    again = build(Settings(rank=4, network_weights=str(path)), fresh, family_of(family))
    again.train(False)
    assert sum(bool(again.network.layer(name).up.any()) for name in again.network.layers) == count
    torch.testing.assert_close(predict(family, fresh), wanted, atol=1e-5, rtol=1e-4)


def _with_peft(family: str, model: Components, unet_config: Any, text_config: Any) -> tuple[Tensor, int]:
    """Put PEFT's layers into the model, give them weights; what it predicts then, and how many there are."""
    from peft import inject_adapter_in_model

    inject_adapter_in_model(unet_config, model.unet)
    for part in family_of(family).text_parts:
        inject_adapter_in_model(text_config, getattr(model, part))
    count = 0
    generator = torch.Generator().manual_seed(2)
    for module in model.modules().values():
        for name, weight in module.named_parameters():
            if "lora_" in name:
                weight.data.copy_(torch.empty(weight.shape).normal_(std=0.2, generator=generator))
                count += "lora_B" in name
    return predict(family, model), count


@pytest.mark.parametrize(
    ("family", "part"), [("sd1", "unet"), ("sd1", "text_encoder"), ("sd2", "text_encoder"), ("sdxl", "unet")]
)
def test_what_peft_itself_writes(family: str, part: str, tmp_path: Path) -> None:
    """One part in a folder: `adapter_model.safetensors`, and alpha in `adapter_config.json`."""
    from peft import LoraConfig, get_peft_model

    model = tiny_model(family)
    targets = ["to_q", "to_v", "proj_out"] if part == "unet" else ["q_proj", "fc2"]
    wrapped = get_peft_model(getattr(model, part), LoraConfig(r=4, lora_alpha=3, target_modules=targets))
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            weight.data.normal_(std=0.2)
    wanted = predict(family, model)
    wrapped.save_pretrained(tmp_path)
    fresh = tiny_model(family)
    settings = Settings(rank=4, network_weights=str(tmp_path / "adapter_model.safetensors"))
    build(settings, fresh, family_of(family)).train(False)
    torch.testing.assert_close(predict(family, fresh), wanted, atol=1e-5, rtol=1e-4)


WHOLE = "down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_v"


@pytest.mark.parametrize(
    ("ranks", "alphas"),
    [
        ({"attn2.to_q": 2}, {"to_q": 5, WHOLE: 7}),
        ({r".*attn2\.to_[qk]": 2}, {r"(down|mid)_blocks?\..*\.to_v": 5, r"up_blocks\.\d+.*": 7}),
        ({}, {r"^down_blocks\..*": 9, r"attn2\.to_(q|v)": 7, "to_q": 5}),  # the first counts; PEFT writes them sorted
        ({}, {"o_q": 5, "down_blocks": 7, "blocks.0.*": 9}),  # a part of a name's piece is not matched
        ({}, {"to_.": 5, "attn2..to_q": 7}),  # a dot that is no name's
    ],
)
@pytest.mark.parametrize("stabilised", [False, True])
def test_what_peft_says_of_single_layers(
    stabilised: bool, ranks: dict[str, int], alphas: dict[str, int], tmp_path: Path
) -> None:
    """Ranks and alphas by regular expressions for the end of a layer's name, divided by the rank or by its root."""
    from peft import LoraConfig, get_peft_model

    model = tiny_model("sd1")
    patterns = {"rank_pattern": ranks, "alpha_pattern": alphas}
    config = LoraConfig(r=4, lora_alpha=3, target_modules=["to_q", "to_v"], use_rslora=stabilised, **patterns)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it tells of patterns that fit no layer
        wrapped = get_peft_model(model.unet, config)
    for name, weight in wrapped.named_parameters():
        if "lora_" in name:
            weight.data.normal_(std=0.2)
    wanted = predict("sd1", model)
    wrapped.save_pretrained(tmp_path)
    fresh = tiny_model("sd1")
    settings = Settings(rank=4, network_weights=str(tmp_path / "adapter_model.safetensors"))
    build(settings, fresh, family_of("sd1")).train(False)
    torch.testing.assert_close(predict("sd1", fresh), wanted, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pattern", ["(.+)+x|" * 100, "to_(q", r"(.+)(.+)(.+)(.+)(.+)(.+)(.+)\3\4\5[XY]"])
def test_alphas_by_patterns_that_are_not_read_are_refused(pattern: str, tmp_path: Path) -> None:
    model = tiny_model("sd1")
    lora = trained("sd1", model)
    tensors = respelled(lora, "sd1", model, diffusers_new, alpha=False)
    lora.remove()
    says = json.dumps({"unet.lora_alpha": 4, "unet.alpha_pattern": {pattern: 8}})
    path = tmp_path / "theirs.safetensors"
    save_adapter(path, tensors, {"lora_adapter_metadata": says, "ss_base_model_version": "sd_v1"}, torch.float32)
    with pytest.raises(BadInput, match="one is not read here") as caught:
        build(Settings(network_weights=str(path)), model, family_of("sd1"))
    assert "kohya's format" in str(caught.value)


# --- its rank ---


def test_a_higher_rank_begins_with_the_same_effect(family: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    lora = trained(family, model, **CONVOLUTIONS)
    wanted = predict(family, model)
    lora.export(tmp_path / "lora.safetensors", {}, torch.float32)
    lora.remove()
    begun = {"weights_rank": "set", "network_weights": str(tmp_path / "lora.safetensors")}
    settings = Settings(rank=8, alpha=3.0, conv_rank=4, conv_alpha=1.0, **begun)
    again = build(settings, model, family_of(family))
    again.train(False)
    torch.testing.assert_close(predict(family, model), wanted, atol=1e-4, rtol=1e-3)
    ranks = {tuple(value.shape[:1]) for name, value in again.state_dict().items() if name.endswith("down.weight")}
    assert ranks == {(8,), (4,)} and again.metadata()["ss_network_alpha"] == "3.0"
    down = again.network.layer(next(iter(again.network.layers))).down
    assert down[4:].abs().sum() > 0, "what is new can learn"


def test_a_lower_rank_keeps_what_is_strongest(tmp_path: Path) -> None:
    """The error of each layer is the root of the sum of the squares of the singular values that were dropped."""
    model = tiny_model("sd1")
    lora = trained("sd1", model, rank=8, alpha=4.0, **CONVOLUTIONS)
    lora.export(tmp_path / "lora.safetensors", {}, torch.float32)
    lora.remove()
    before = {name: _update(lora, name) for name in lora.network.layers}
    begun = {"weights_rank": "set", "network_weights": str(tmp_path / "lora.safetensors")}
    settings = Settings(rank=3, alpha=1.0, conv_rank=1, **begun)
    again = build(settings, model, family_of("sd1"))
    for name, update in before.items():
        kept = again.network.layer(name).rank
        dropped = torch.linalg.svdvals(update)[kept:].square().sum().sqrt()
        torch.testing.assert_close(torch.linalg.norm(update - _update(again, name)), dropped, atol=1e-4, rtol=1e-3)


def _update(lora: TrainedLora, name: str) -> Tensor:
    layer = lora.network.layer(name)
    return (layer.up.flatten(1) @ layer.down.flatten(1)).detach() * (layer.alpha / layer.rank)


# --- what is refused ---


def change(path: Path, goal: Path, how: Callable[[dict[str, Tensor]], dict[str, Tensor]], family: str) -> Path:
    save_adapter(goal, how(read_file(path)), {"ss_base_model_version": family_of(family).base_version}, torch.float32)
    return goal


def first_ends(tensors: dict[str, Tensor], old: str, new: str) -> dict[str, Tensor]:
    name = next(name for name in tensors if name.endswith(old))
    return {(key.replace(old, new) if key == name else key): value for key, value in tensors.items()}


@pytest.mark.parametrize(
    ("how", "words"),
    [
        (lambda tensors: first_ends(tensors, "lora_up.weight", "lora_mid.weight"), "1 of its"),
        (lambda tensors: first_ends(tensors, "lora_up.weight", "dora_scale"), "kind dora"),
        (lambda tensors: first_ends(tensors, "lora_down.weight", "hada_w1_a"), "kind loha"),
        (lambda tensors: {name: value for name, value in list(tensors.items())[:-1]}, "1 of its"),
        (lambda tensors: {name.replace("_attn1_", "_attn7_"): value for name, value in tensors.items()}, "have no place"),
        (lambda tensors: {name: value[..., :2] if value.dim() == 2 else value for name, value in tensors.items()}, "no pl"),
    ],
    ids=["half", "dora", "loha", "cut", "strangers", "sizes"],
)
def test_nothing_of_a_file_is_lost_in_silence(family: str, how: Any, words: str, tmp_path: Path) -> None:
    model = tiny_model(family)
    lora = trained(family, model)
    lora.export(tmp_path / "lora.safetensors", {}, torch.float32)
    lora.remove()
    before = predict(family, model)
    path = change(tmp_path / "lora.safetensors", tmp_path / "odd.safetensors", how, family)
    with pytest.raises(BadInput, match=words):
        build(Settings(network_weights=str(path)), model, family_of(family))
    assert torch.equal(predict(family, model), before), "the model is as it was"


def test_a_lora_of_another_family_is_refused(tmp_path: Path) -> None:
    for name in FAMILIES:
        lora = trained(name, tiny_model(name))
        lora.export(tmp_path / f"{name}.safetensors", {"ss_base_model_version": family_of(name).base_version}, torch.float32)
        for other in FAMILIES:
            if other != name and (tmp_path / f"{other}.safetensors").exists():
                with pytest.raises(BadInput, match="LoRA made for"):
                    settings = Settings(network_weights=str(tmp_path / f"{other}.safetensors"))
                    build(settings, tiny_model(name), family_of(name))
