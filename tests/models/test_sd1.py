"""Loading, using and saving SD 1.x: any sizes, any of its file layouts, and nothing lost on the way."""

from __future__ import annotations

import json
import math
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.tiny import TINY_UNET, TINY_VAE, save_tiny_file, save_tiny_folder, tiny_sd1
from trainer.errors import BadInput
from trainer.models import keys, libraries, plans
from trainer.models.configs import Rules, unet_config, vae_config
from trainer.models.header import inspect_file
from trainer.models.protocol import Components, Cond
from trainer.models.safetensors_file import ITEM_BYTES, read_header
from trainer.models.sd1 import FAMILY
from trainer.models.tensor_file import read_file, write_file


@pytest.fixture(scope="module")
def reference() -> Components:
    return tiny_sd1()


@pytest.fixture(scope="module")
def tiny_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_file(tmp_path_factory.mktemp("file"))


@pytest.fixture(scope="module")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_folder(tmp_path_factory.mktemp("folder"))


def assert_same(one: Components, other: Components) -> None:
    assert one.modules().keys() == other.modules().keys()
    for part, module in one.modules().items():
        first, second = module.state_dict(), other.modules()[part].state_dict()
        assert first.keys() == second.keys()
        assert all(torch.equal(first[name], second[name]) for name in first), part


def rewrite(path: Path, goal: Path, rename: Any = None, drop: Any = None) -> Path:
    """A copy of a file with tensors renamed, reshaped or left out, and its config beside it."""
    rows = []
    for name, tensor in read_file(path).items():
        new, changed = rename(name, tensor) if rename else (name, tensor)
        if not (drop and drop(name)):
            rows.append((new, tuple(changed.shape), "F32", lambda changed=changed: changed))
    write_file(goal, rows, {})
    goal.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes())
    return goal


def test_a_file_round_trips(reference: Components, tiny_file: Path) -> None:
    loaded = FAMILY.load(tiny_file)
    assert_same(reference, loaded)
    assert loaded.prediction == "epsilon"
    for module in loaded.modules().values():
        assert not module.training
        assert all(not weight.requires_grad and weight.device.type == "cpu" for weight in module.parameters())
        assert all(not buffer.is_meta for buffer in module.buffers())


def test_a_diffusers_folder_holds_the_same(reference: Components, tiny_folder: Path) -> None:
    assert_same(reference, FAMILY.load(tiny_folder))


def test_names_and_shapes_in_an_ldm_file(tiny_file: Path) -> None:
    shapes = read_header(tiny_file).shapes
    assert shapes["model.diffusion_model.input_blocks.1.1.proj_in.weight"] == (32, 32, 1, 1)
    assert shapes["model.diffusion_model.input_blocks.2.0.op.weight"] == (32, 32, 3, 3)
    assert shapes["model.diffusion_model.output_blocks.1.1.conv.weight"] == (64, 64, 3, 3)
    assert shapes["first_stage_model.encoder.mid.attn_1.q.weight"] == (16, 16, 1, 1)
    assert shapes["first_stage_model.decoder.up.3.block.0.conv1.weight"] == (16, 16, 3, 3)
    name = "cond_stage_model.transformer.text_model.encoder.layers.2.self_attn.q_proj.weight"
    assert shapes[name] == (32, 32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_files_and_weights(reference: Components, tmp_path: Path, dtype: torch.dtype) -> None:
    path = save_tiny_file(tmp_path, dtype=dtype)
    as_floats = FAMILY.load(path)
    as_halves = FAMILY.load(path, dtype=dtype)
    wanted = reference.unet.conv_in.weight.to(dtype)
    assert torch.equal(as_halves.unet.conv_in.weight, wanted)
    assert torch.equal(as_floats.unet.conv_in.weight, wanted.float())
    assert as_halves.text_encoder.embeddings.position_ids.dtype == torch.int64


def test_only_the_parts_asked_for_are_read(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.models import loading

    read: list[str] = []
    real = loading._read_part
    monkeypatch.setattr(loading, "_read_part", lambda plan, *rest: read.append(plan.part) or real(plan, *rest))
    loaded = FAMILY.load(tiny_file, parts={"vae"})
    assert read == ["vae"] and loaded.unet is None and loaded.text_encoder is None and loaded.tokenizer is None


def test_reading_leaves_no_thread(tiny_file: Path) -> None:
    FAMILY.load(tiny_file, parts={"vae"})
    readers = [thread for thread in threading.enumerate() if "read-model" in thread.name]
    for thread in readers:
        thread.join(5)
    assert not any(thread.is_alive() for thread in readers)


def test_the_early_name_of_the_text_encoder(reference: Components, tiny_file: Path, tmp_path: Path) -> None:
    path = rewrite(
        tiny_file, tmp_path / "early.safetensors", lambda name, tensor: (name.replace(".text_model.", "."), tensor)
    )
    assert_same(reference, FAMILY.load(path))


# --- sizes ---


def test_full_size_configs_are_read_from_the_shapes() -> None:
    """Names and shapes of the real SD 1.5 give its real config, head counts and groups by rule."""
    with torch.device("meta"):
        unet = libraries.unet_class()(cross_attention_dim=768, sample_size=64)
        vae = libraries.vae_class()(
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
        )
    modules = {ours: theirs for theirs, ours in keys.unet_modules(unet.config).items()}
    shapes = {
        f"{modules[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tuple(weight.shape)
        for name, weight in unet.state_dict().items()
    }
    assert len(shapes) == 686
    config = unet_config(shapes, Rules())
    for key, value in config.items():
        wanted = unet.config[key]
        assert (list(wanted) if isinstance(wanted, tuple) else wanted) == value, key
    assert shapes["input_blocks.3.0.op.weight"] == (320, 320, 3, 3)
    assert shapes["output_blocks.8.2.conv.weight"] == (640, 640, 3, 3)
    assert shapes["output_blocks.2.1.conv.weight"] == (1280, 1280, 3, 3)
    named = {ours: theirs for theirs, ours in keys.vae_modules(vae.config).items()}
    vae_shapes = {
        f"{named[name.rpartition('.')[0]]}.{name.rpartition('.')[2]}": tuple(weight.shape)
        for name, weight in vae.state_dict().items()
    }
    found = vae_config(vae_shapes, Rules())
    assert found["block_out_channels"] == [128, 256, 512, 512] and found["layers_per_block"] == 2
    assert found["norm_num_groups"] == 32 and found["scaling_factor"] == 0.18215


def test_our_names_are_those_of_a_converted_model(tiny_file: Path, reference: Components) -> None:
    """An independent reader of LDM files, diffusers', finds the same weights in ours."""
    from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint

    tensors = read_file(tiny_file)
    unet = convert_ldm_unet_checkpoint(dict(tensors), dict(reference.unet.config))
    assert unet.keys() == reference.unet.state_dict().keys()
    assert all(torch.equal(unet[name], weight) for name, weight in reference.unet.state_dict().items())
    vae = convert_ldm_vae_checkpoint(dict(tensors), dict(reference.vae.config))
    theirs = {keys.modern_vae_name(name): weight for name, weight in vae.items()}
    for name, weight in reference.vae.state_dict().items():
        assert torch.equal(theirs[name].reshape(weight.shape), weight), name


def test_odd_sizes_say_so_in_a_file_beside(tiny_file: Path, tmp_path: Path) -> None:
    assert json.loads(tiny_file.with_suffix(".json").read_text(encoding="utf-8")) == {"vae": {"norm_num_groups": 4}}
    with torch.random.fork_rng(devices=[]):
        unet = libraries.unet_class()(**{**TINY_UNET, "attention_head_dim": 4, "norm_num_groups": 16})
        vae = libraries.vae_class()(**{**TINY_VAE, "scaling_factor": 0.3, "norm_num_groups": 2})
    parts = tiny_sd1()
    path = tmp_path / "odd.safetensors"
    FAMILY.save(Components(unet, vae, parts.text_encoder, prediction="v_prediction"), path)
    loaded = FAMILY.load(path)
    assert loaded.unet.config.attention_head_dim == 4 and loaded.unet.config.norm_num_groups == 16
    assert loaded.vae.config.scaling_factor == 0.3 and loaded.prediction == "v_prediction"


def test_a_yaml_beside_has_the_last_word(tiny_file: Path, tmp_path: Path) -> None:
    text = (
        "model:\n  params:\n    scale_factor: 0.25\n"
        "    unet_config: {params: {model_channels: 32, channel_mult: [1, 2], num_head_channels: 16}}\n"
    )
    path = rewrite(tiny_file, tmp_path / "yaml.safetensors", drop=lambda name: name.startswith("first_stage_model"))
    path.with_suffix(".json").unlink()
    path.with_suffix(".yaml").write_text(text, encoding="utf-8")
    assert FAMILY.load(path, parts={"unet"}).unet.config.attention_head_dim == [2, 4]
    from trainer.models.configs import config_beside

    assert config_beside(path)["vae"] == {"scaling_factor": 0.25}


# --- separate VAE ---


def vae_variants(tiny_file: Path, tiny_folder: Path, folder: Path) -> dict[str, Path]:
    """The same VAE in every form in which it is passed around."""
    beside = {"vae": {"norm_num_groups": 4}}

    def old_names(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
        for old, new in (("query", "to_q"), ("key", "to_k"), ("value", "to_v"), ("proj_attn", "to_out.0")):
            name = name.replace(f".{new}.", f".{old}.")
        return name, tensor

    diffusers = tiny_folder / "vae/diffusion_pytorch_model.safetensors"
    diffusers.with_suffix(".json").write_text(json.dumps(beside), encoding="utf-8")
    with_prefix = rewrite(tiny_file, folder / "prefix.safetensors", drop=lambda n: not n.startswith(keys.LDM_VAE))
    plain = rewrite(with_prefix, folder / "plain.safetensors", lambda n, t: (n.removeprefix(keys.LDM_VAE), t))
    old = rewrite(diffusers, folder / "old.safetensors", old_names)
    return {
        "whole model": tiny_file,
        "LDM with prefix": with_prefix,
        "LDM": plain,
        "diffusers file": diffusers,
        "diffusers file, old names": old,
        "diffusers VAE folder": tiny_folder / "vae",
        "diffusers model folder": tiny_folder,
    }


def test_a_separate_vae_in_every_form(tiny_folder: Path, tmp_path: Path) -> None:
    model = save_tiny_file(tmp_path, "model", seed=1)
    other = save_tiny_file(tmp_path, "other", seed=0)
    wanted = tiny_sd1(0).vae.state_dict()
    for form, path in vae_variants(other, tiny_folder, tmp_path).items():
        loaded = FAMILY.load(model, vae=path, parts={"vae"})
        got = loaded.vae.state_dict()
        assert all(torch.equal(got[name], weight) for name, weight in wanted.items()), form


def test_a_model_without_vae_needs_one(tiny_file: Path, tmp_path: Path) -> None:
    bare = rewrite(tiny_file, tmp_path / "bare.safetensors", drop=lambda name: name.startswith(keys.LDM_VAE))
    with pytest.raises(BadInput, match="no VAE inside"):
        FAMILY.load(bare)
    assert FAMILY.load(bare, parts={"unet"}).unet is not None
    assert FAMILY.load(bare, vae=tiny_file).vae is not None


# --- what is refused ---


def test_a_model_of_other_sizes_than_its_config_is_refused(tiny_file: Path, tmp_path: Path) -> None:
    gone = f"{keys.LDM_UNET}middle_block.0.in_layers.2.bias"
    torn = rewrite(tiny_file, tmp_path / "torn.safetensors", drop=lambda name: name == gone)
    with pytest.raises(BadInput, match=r"1 tensors of the unet .* mid_block\.resnets\.0\.conv1\.bias"):
        FAMILY.load(torn)

    def halve(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
        return name, tensor[:16] if name == gone else tensor

    with pytest.raises(BadInput, match="of another size"):
        FAMILY.load(rewrite(tiny_file, tmp_path / "half.safetensors", halve))


def test_a_small_vocabulary_is_refused(tiny_file: Path, tmp_path: Path) -> None:
    def cut(name: str, tensor: torch.Tensor) -> tuple[str, torch.Tensor]:
        return name, tensor[:1000] if name.endswith("token_embedding.weight") else tensor

    with pytest.raises(BadInput, match="knows 1000 tokens"):
        FAMILY.load(rewrite(tiny_file, tmp_path / "cut.safetensors", cut))


def test_a_file_that_shrinks_while_it_is_read(tiny_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from trainer.models import loading

    def fail(*args: Any) -> None:
        raise EOFError("x: ends within a tensor")

    monkeypatch.setattr(loading, "read_tensor", fail)
    with pytest.raises(BadInput, match="became shorter"):
        FAMILY.load(tiny_file)


# --- text ---


def test_one_chunk_is_what_the_library_gives(reference: Components) -> None:
    captions = ["a photo of a red cat", ""]
    theirs = reference.tokenizer(captions, padding="max_length", max_length=77, truncation=True, return_tensors="pt")
    hidden = reference.text_encoder(input_ids=theirs["input_ids"], output_hidden_states=True)
    assert torch.equal(FAMILY.encode_text(reference, captions).states, hidden.last_hidden_state)
    skipped = reference.text_encoder.final_layer_norm(hidden.hidden_states[-2])
    assert torch.equal(FAMILY.encode_text(reference, captions, clip_skip=2).states, skipped)
    assert not torch.equal(FAMILY.encode_text(reference, captions, clip_skip=3).states, skipped)


@pytest.mark.parametrize("clip_skip", [1, 2])
def test_longer_captions_join_their_chunks(reference: Components, clip_skip: int) -> None:
    words = [f"word{number}" for number in range(40)]
    caption = " ".join(words)
    long = FAMILY.encode_text(reference, [caption], clip_skip, 225).states
    assert long.shape == (1, 227, 32)
    ids = reference.tokenizer(caption, add_special_tokens=False)["input_ids"]
    assert len(ids) > 75
    first = FAMILY.encode_text(reference, [caption], clip_skip, 75).states
    torch.testing.assert_close(long[:, :76], first[:, :76])
    rest = torch.tensor([[49406, *(ids[75:] + [49407] * 75)[:75], 49407]])
    reader = FAMILY.text_encoders[0].reader(reference.text_encoder, clip_skip)
    second, _ = reader.run(rest, torch.tensor([min(len(ids) - 75, 75) + 1]))
    torch.testing.assert_close(long[:, 76:151], second[:, 1:76])
    empty = FAMILY.encode_text(reference, [""], clip_skip, 75).states
    torch.testing.assert_close(long[:, 151:227], empty[:, 1:77])


def test_gradients_reach_the_text_encoder() -> None:
    components = tiny_sd1()
    weight = components.text_encoder.embeddings.token_embedding.weight.requires_grad_()
    FAMILY.encode_text(components, ["cat"], 2, 150).states.square().sum().backward()
    assert weight.grad is not None and weight.grad.abs().sum() > 0


# --- pictures ---


def test_latents_are_scaled_and_come_back(reference: Components) -> None:
    pixels = torch.rand(2, 3, 64, 48) * 2 - 1
    mean, deviation = FAMILY.encode_pictures(reference.vae, pixels)
    assert mean.shape == deviation.shape == (2, 4, 8, 6)
    theirs = reference.vae.encode(pixels).latent_dist
    torch.testing.assert_close(mean, theirs.mean * 0.18215)
    torch.testing.assert_close(deviation, theirs.std * 0.18215)
    picture = FAMILY.decode(reference.vae, mean)
    torch.testing.assert_close(picture, reference.vae.decode(theirs.mean).sample)


def test_prediction_is_the_unets(reference: Components) -> None:
    noisy, cond = torch.randn(2, 4, 8, 8), torch.randn(2, 77, 32)
    steps = torch.tensor([3, 900])
    theirs = reference.unet(noisy, steps, encoder_hidden_states=cond).sample
    assert torch.equal(FAMILY.predict(reference, noisy, steps, Cond(cond)), theirs)


@pytest.mark.parametrize("kind", ["sdpa", "plain"])
def test_attention_kernels_agree(kind: Any) -> None:
    components = tiny_sd1()
    noisy, cond, steps = torch.randn(1, 4, 8, 8), Cond(torch.randn(1, 77, 32)), torch.tensor([5])
    before = FAMILY.predict(components, noisy, steps, cond)
    FAMILY.set_attention(components, kind)
    torch.testing.assert_close(FAMILY.predict(components, noisy, steps, cond), before, atol=1e-4, rtol=1e-4)


def test_checkpointing_changes_memory_and_not_gradients() -> None:
    gradients = []
    for recompute in (False, True):
        components = tiny_sd1()
        if recompute:
            FAMILY.checkpoint_gradients(components, ("unet", "text_encoder"))
        text = components.text_encoder.encoder.layers[0].mlp.fc1.weight.requires_grad_()
        unet = components.unet.conv_in.weight.requires_grad_()
        calls = 0

        def count(*args: Any) -> None:
            nonlocal calls
            calls += 1

        components.text_encoder.encoder.layers[0].mlp.fc1.register_forward_hook(count)
        cond = FAMILY.encode_text(components, ["a cat"])
        torch.manual_seed(0)
        FAMILY.predict(components, torch.randn(1, 4, 8, 8), torch.tensor([5]), cond).square().sum().backward()
        assert calls == (2 if recompute else 1)
        gradients.append((text.grad.clone(), unet.grad.clone()))
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def hollow(path: Path, goal: Path, change: Any) -> Path:
    """A file with the same names whose numbers are all zero; `change` gives each tensor's dtype and shape."""
    from trainer.models.safetensors_file import header_bytes

    rows = {name: change(name, info.dtype, info.shape) for name, info in read_header(path).tensors.items()}
    head = header_bytes(rows, {})
    size = sum(ITEM_BYTES[dtype] * math.prod(shape) for dtype, shape in rows.values())
    with goal.open("wb") as handle:
        handle.write(head)
        handle.truncate(len(head) + size)
    goal.with_suffix(".json").write_bytes(path.with_suffix(".json").read_bytes())
    return goal


@pytest.mark.parametrize("dtype", ["I8", "U8", "I64", "BOOL", "C64"])
@pytest.mark.parametrize("prefix", [keys.LDM_UNET, keys.LDM_VAE, keys.LDM_CLIP])
def test_weights_that_are_no_plain_numbers_are_refused(tiny_file: Path, tmp_path: Path, dtype: str, prefix: str) -> None:
    """What programs that only draw pack weights into."""
    path = hollow(tiny_file, tmp_path / "x.safetensors", lambda name, own, shape: (
        dtype if name.startswith(prefix) and not name.endswith("position_ids") else own, shape))  # fmt: skip
    facts = inspect_file(path)
    assert facts.kind == "base" and f"are quantised ({dtype.lower()})" in str(facts.problem)
    with pytest.raises(BadInput, match="fp16"):
        FAMILY.load(path)
    part = {keys.LDM_UNET: "unet", keys.LDM_VAE: "vae", keys.LDM_CLIP: "text_encoder"}[prefix]
    with pytest.raises(BadInput, match=f"of the kind {dtype}"):
        plan_alone(path, part)


def plan_alone(path: Path, part: str) -> Any:
    """A part that is taken from a file of whatever kind."""
    if part == "unet":
        return plans.plan_unet(path, FAMILY.rules)
    if part == "vae":
        return plans.plan_vae(path, FAMILY.rules)
    return plans.plan_text(path, FAMILY.text_encoders[0], FAMILY.rules)


def test_scales_of_packed_weights_are_seen(tiny_file: Path, tmp_path: Path) -> None:
    """fp8 with a scale for each weight: read without them, the numbers would be wrong and nobody would know."""
    tensors = {**read_file(tiny_file), f"{keys.LDM_UNET}input_blocks.0.0.scale_weight": torch.ones(())}
    rows = [(name, tuple(tensor.shape), "F32", lambda tensor=tensor: tensor) for name, tensor in tensors.items()]
    write_file(tmp_path / "x.safetensors", rows, {})
    facts = inspect_file(tmp_path / "x.safetensors")
    assert facts.kind == "unknown" and "are quantised (fp8)" in str(facts.problem)


def test_the_vaes_attention_of_another_size(tiny_file: Path, tmp_path: Path) -> None:
    name = f"{keys.LDM_VAE}decoder.mid.attn_1.q.weight"
    path = hollow(
        tiny_file, tmp_path / "x.safetensors", lambda other, own, shape: (own, (16, 16, 3, 3) if other == name else shape)
    )
    with pytest.raises(BadInput, match="of another size"):
        FAMILY.load(path, parts={"vae"})


@pytest.mark.parametrize("value", ["x", [1], {}, None, 1e30])
def test_configs_that_the_libraries_refuse_in_their_own_ways(tmp_path: Path, value: Any) -> None:
    folder = save_tiny_folder(tmp_path / "x")
    path = folder / "text_encoder" / "config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**said, "intermediate_size": value}), encoding="utf-8")
    with pytest.raises(BadInput) as raised:
        FAMILY.load(folder, parts={"text_encoder"})
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("part", "name", "value"),
    [("unet", "layers_per_block", 10**30), ("unet", "transformer_layers_per_block", [1, 10**30]),
     ("vae", "layers_per_block", 10**30), ("text_encoder", "num_hidden_layers", 1e30),
     ("text_encoder", "num_attention_heads", -1)],
)  # fmt: skip
def test_a_config_of_endless_layers(tiny_file: Path, tmp_path: Path, part: str, name: str, value: Any) -> None:
    path = shutil.copyfile(tiny_file, tmp_path / "x.safetensors")
    said = json.loads(tiny_file.with_suffix(".json").read_text(encoding="utf-8"))
    said[part] = {**said.get(part, {}), name: value}
    path.with_suffix(".json").write_text(json.dumps(said), encoding="utf-8")
    with pytest.raises(BadInput, match="more layers than any model"):
        plan_alone(path, part)
