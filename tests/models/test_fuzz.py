"""Damaged and hostile files give a result or a sentence: no traceback, no hang, no memory, no file, no process.

Byte flips run in a process of their own under an audit hook (`fuzz_child`); hypothesis builds headers, pickles and zips
of valid form and impossible content. The long runs are marked slow.
"""

from __future__ import annotations

import json
import struct
import subprocess
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.models import hostile
from tests.models import shapes as make
from tests.models.hostile import save, zipped
from tests.tiny import save_tiny_file
from trainer.models.header import inspect_file
from trainer.models.opening import NotWeights
from trainer.models.safetensors_file import read_header as read_safetensors
from trainer.models.weights_file import read_header

ROOT = Path(__file__).resolve().parents[2]
MAX_GROWTH_MB = 200


def seeds(folder: Path) -> Path:
    """One small file of every kind, to be damaged."""
    folder.mkdir()
    (folder / "work").mkdir()
    sd1 = read_safetensors(save_tiny_file(folder / "work")).shapes
    for left in (folder / "work").iterdir():
        left.unlink()
    few = {name: shape for name, shape in sd1.items() if "resblocks.1" not in name and "vae" not in name}
    small = {name: tuple(min(size, 4) for size in shape) for name, shape in make.sdxl(few).items()}
    make.write(folder / "base.safetensors", small, {"modelspec.prediction_type": "v", "format": "pt"})
    lora = {
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": (4, 8, 1, 1),
        "lora_unet_down_blocks_0_attentions_0_proj_in.lora_up.weight": (8, 4, 1, 1),
        "lora_te_text_model_encoder_layers_0_mlp_fc1.hada_w1_a": (4, 4),
    }
    make.write(folder / "lora.safetensors", lora, {"ss_network_alpha": "4", "ss_tag_frequency": '{"a": {"b": 1}}'})
    make.write(
        folder / "vae.safetensors", {"encoder.conv_in.weight": (4, 3, 3, 3), "decoder.conv_in.weight": (4, 4, 3, 3)}
    )
    tensors = {"state_dict": {name: torch.zeros(shape) for name, shape in list(lora.items())}, "global_step": 3}
    torch.save(tensors, folder / "zip.ckpt")
    torch.save(tensors, folder / "old.pt", _use_new_zipfile_serialization=False)
    torch.save({"a": torch.zeros(4, 4).t(), "b": [1.5, "x", {"c": None}]}, folder / "five.pth", pickle_protocol=5)
    save(folder / "tar.bin", hostile.tar_of({"a": torch.ones(3, 2).t(), "b": torch.arange(3)}))
    save(folder / "harmful.ckpt", zipped(hostile.imports()["os.system"][1]))
    torch.save({"string_to_param": {"*": torch.zeros(2, 768)}, "name": "x"}, folder / "embedding.pt")
    return folder


def run_child(folder: Path, count: int, seed: int) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.models.fuzz_child", str(folder), str(count), str(seed)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=3000)
    assert done.returncode == 0, done.stderr[-3000:]
    return dict(json.loads(done.stdout))


def judge(report: dict[str, Any]) -> None:
    assert not report["num_findings"], json.dumps(report["findings"], indent=1)[:6000]
    assert report["grown_mb"] < MAX_GROWTH_MB and not report["left"]
    assert len(report["kinds"]) >= 4, report["kinds"]  # the mutations reach beyond the first check


def test_damaged_files(tmp_path: Path) -> None:
    judge(run_child(seeds(tmp_path / "files"), 250, seed=1))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 6))
def test_ten_thousand_damaged_files(tmp_path: Path, seed: int) -> None:
    judge(run_child(seeds(tmp_path / "files"), 2500, seed))


WATCHED = (
    "import json, sys; from pathlib import Path; from tests.models.fuzz_child import Watch, high_water, look\n"
    "watch = Watch(); files = sorted(Path(sys.argv[1]).iterdir()); look(files[0], watch); watch.events.clear()\n"
    "before = high_water(); found = {f.name: wrong for f in files if (wrong := look(f, watch))}\n"
    "print(json.dumps([found, high_water() - before]))"
)


def watched(folder: Path) -> None:
    """Look at each file of a folder in a process under the audit hook: nothing happens, and not for long."""
    command = [sys.executable, "-c", WATCHED, str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    found, grown = json.loads(done.stdout)
    assert not found and grown < MAX_GROWTH_MB, (found, grown)


def test_harmful_files_under_watch(tmp_path: Path) -> None:
    """All of `hostile` as they are: the audit hook sees no import, no process and no file written."""
    for number, (_, content) in enumerate((hostile.imports() | hostile.strange()).values()):
        save(tmp_path / f"{number}.ckpt", zipped(content))
        save(tmp_path / f"{number}.pt", content)
    watched(tmp_path)


@pytest.mark.slow
def test_bombs_under_watch(tmp_path: Path) -> None:
    for name, content in hostile.bombs():
        save(tmp_path / f"{name}.ckpt", zipped(content))
    for name, content in hostile.bombs_of_many():
        save(tmp_path / f"{name}.ckpt", content)
    watched(tmp_path)


def test_a_bomb(tmp_path: Path) -> None:
    save(tmp_path / "first.ckpt", zipped(b"\x80\x02N."))
    for name in (
        "calls in calls", "hash of doubled tuples", "a table in itself", "copies of a long list", "words for doubled lists",
        "copies of a long text",
    ):  # fmt: skip
        save(tmp_path / f"{name}.ckpt", zipped(dict(hostile.bombs())[name]))
    watched(tmp_path)


def test_the_watch_sees_what_it_has_to_see(tmp_path: Path) -> None:
    """The hook itself: a pickle that is really run does raise the alarm."""
    code = (
        "import json, pickle, sys; from tests.models.fuzz_child import Watch\n"
        "watch = Watch(); watch.armed = True\n"
        "pickle.loads(b'cos\\nsystem\\n(S\"true\"\\ntR.')\n"
        "open(sys.argv[1], 'w').close(); watch.armed = False; print(json.dumps(watch.events))"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "written")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=True)
    events = " ".join(json.loads(done.stdout))
    assert "pickle.find_class" in events and "os.system" in events and "open" in events


# --- hypothesis: valid form, impossible content ---

quick = settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
thorough = settings(quick, max_examples=2000)

names = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "model.diffusion_model.input_blocks.0.0.weight", "model.diffusion_model.label_emb.0.0.weight",
            "model.diffusion_model.middle_block.1.proj_in.weight", "first_stage_model.encoder.conv_in.weight",
            "first_stage_model.decoder.conv_in.weight", "encoder.conv_in.weight", "decoder.conv_in.weight",
            "conditioner.embedders.1.model.ln_final.weight", "lora_unet_x.lora_down.weight", "x.hada_w1_b", "emb_params",
            "model.diffusion_model.input_blocks.999999999999.0.op.weight", "768.0.linear.0.weight", "tensor", "<x>",
            "model_ema.diffusion_modelinput_blocks00weight", "input_blocks.0.0.weight", "conv_in.weight",
            "time_embedding.linear_1.weight", "add_embedding.linear_1.weight", "noise_augmentor.data_mean", "v_pred",
            "cond_stage_model.transformer.text_model.embeddings.token_embedding.weight", "clip_g", "1.weight",
            "text_model.encoder.layers.0.x", "lora_te2_x.lora_up.weight", "__metadata__", "3.conv.0.weight",
        ]
    ),
)  # fmt: skip
odd_numbers = st.one_of(
    st.integers(0, 64), st.integers(-(1 << 70), 1 << 70), st.floats(), st.booleans(), st.none(), st.just(1 << 62)
)
entries = st.one_of(
    st.fixed_dictionaries(
        {
            "dtype": st.one_of(st.sampled_from(["F32", "F16", "BF16", "I64", "F77", ""]), odd_numbers),
            "shape": st.one_of(st.lists(odd_numbers, max_size=5), odd_numbers, st.text(max_size=4)),
            "data_offsets": st.one_of(st.lists(odd_numbers, max_size=3), st.text(max_size=2), odd_numbers),
        }
    ),
    odd_numbers,
    st.lists(st.none(), max_size=3),
)
json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
    max_leaves=12,
)


@st.composite
def plain_headers(draw: st.DrawFn) -> dict[str, Any]:
    """Headers whose tensors lie as they should, with any names, shapes and metadata."""
    table: dict[str, Any] = {}
    place = 0
    for name in draw(st.lists(names, max_size=12, unique=True)):
        shape = draw(st.lists(st.integers(0, 5), max_size=5))
        size = 4
        for one in shape:
            size *= one
        table[name] = {"dtype": "F32", "shape": shape, "data_offsets": [place, place + size]}
        place += size
    table["__metadata__"] = draw(st.one_of(st.dictionaries(st.text(max_size=12), json_values, max_size=4), json_values))
    return table


def looked_at(path: Path) -> None:
    """A result or a sentence, soon. Anything raised here fails the test."""
    start = time.process_time()
    facts = inspect_file(path)
    assert str(facts.summary) and facts.kind
    json.dumps(facts.summary.to_json(), ensure_ascii=False).encode("utf-8")
    try:
        read_header(path)
    except NotWeights as error:
        assert str(error)
    assert time.process_time() - start < 2


def headers_with_odd_entries(tmp_path: Path, table: dict[str, Any]) -> None:
    raw = json.dumps(table).encode()
    looked_at(save(tmp_path / "odd.safetensors", struct.pack("<Q", len(raw)) + raw + bytes(64)))


def headers_of_valid_form(tmp_path: Path, table: dict[str, Any]) -> None:
    path = tmp_path / "plain.safetensors"
    del_metadata = {name: entry for name, entry in table.items() if name != "__metadata__"}
    end = max((entry["data_offsets"][1] for entry in del_metadata.values()), default=0)
    raw = json.dumps(table).encode()
    looked_at(save(path, struct.pack("<Q", len(raw)) + raw + bytes(end)))


opcodes = st.sampled_from([bytes([code]) for code in b"(.0123NIJKLMRTUVXabcdeghijlopqrstu}])GBCQP\x80\x81\x82\x85\x86\x87"
                           b"\x88\x89\x8a\x8b\x8c\x8d\x8e\x8f\x90\x91\x92\x93\x94\x95\x96"])  # fmt: skip
globals_of = st.sampled_from(
    [
        b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch\nFloatStorage\n", b"ccollections\nOrderedDict\n", b"ctorch\nSize\n",
        b"ctorch._utils\n_rebuild_tensor_v3\n", b"ctorch._tensor\n_rebuild_from_type_v2\n", b"c_codecs\nencode\n",
        b"cnumpy.core.multiarray\nscalar\n", b"cnumpy\ndtype\n", b"ccopyreg\n_reconstructor\n", b"cbuiltins\ndict\n",
        b"cbuiltins\nset\n", b"cbuiltins\nbytearray\n", b"ctorch\ndevice\n", b"ctorch\nfloat32\n", b"cos\nsystem\n",
        b"ctorch\nTensor\n", b"ctorch._utils\n_rebuild_parameter\n", b"cpathlib\nPosixPath\n",
        b"ccollections\ndefaultdict\n",
    ]
)  # fmt: skip
operands = st.one_of(
    st.binary(max_size=8), st.sampled_from([b"\x01\x00\x00\x00a", b"a\n", b"1\n", b"\x00", b"\xff" * 4])
)
storages = st.sampled_from([hostile.tensor_pickle()[2:-1], hostile.tensor_pickle(name="b", key="9")[2:-1]])
programs = st.lists(
    st.one_of(opcodes, opcodes, globals_of, operands, storages, st.just(b")R"), st.just(b"(N")), max_size=40
)


def random_pickles(tmp_path: Path, program: list[bytes]) -> None:
    content = b"\x80\x02" + b"".join(program) + b"."
    looked_at(save(tmp_path / "x.ckpt", zipped(content, {"data/0": bytes(16)})))
    looked_at(save(tmp_path / "x.pt", content))
    looked_at(save(tmp_path / "y.pt", hostile.legacy(content)))


members = st.dictionaries(
    st.sampled_from(["data/0", "data/1", "byteorder", "version", "constants.pkl", "../x", "x/data.pkl", "data"]),
    st.binary(max_size=40),
    max_size=4,
)


def random_zips(tmp_path: Path, content: dict[str, bytes], compression: int, end: bytes) -> None:
    looked_at(save(tmp_path / "x.ckpt", zipped(hostile.tensor_pickle(), content, compression) + end))


compressions = st.sampled_from([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
configs = st.one_of(st.text(max_size=200), json_values.map(json.dumps), st.sampled_from(
    ["model: &a [*a]", "a: &a {b: 1}\nc: {<<: *a}", "[" * 5000, "{" * 5000, "model: {params: 5}",
     "model: {params: {unet_config: 1}}",
     "model: {params: {unet_config: {params: {num_heads: x}}}}", "- " * 3000, "!!python/object/apply:os.system [true]",
     "model: {params: {scale_factor: []}}"]
))  # fmt: skip


def random_configs(tmp_path: Path, content: str, suffix: str) -> None:
    """What lies beside a model, and the configs of a folder."""
    path = tmp_path / "m.safetensors"
    if not path.exists():
        make.write(path, read_safetensors(save_tiny_file(tmp_path, "whole")).shapes)
    for other in (".json", ".yaml"):
        path.with_suffix(other).unlink(missing_ok=True)
    path.with_suffix(suffix).write_text(content, encoding="utf-8", errors="replace")
    looked_at(path)
    folder = tmp_path / "folder"
    (folder / "unet").mkdir(parents=True, exist_ok=True)
    for name in ("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors.index.json"):
        (folder / name).write_text('{"_class_name": "StableDiffusionPipeline"}', encoding="utf-8")
    for name in ("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors.index.json"):
        (folder / name).write_text(content, encoding="utf-8", errors="replace")
        assert str(inspect_file(folder).summary)


CASES = {
    "odd entries": (headers_with_odd_entries, (st.dictionaries(names, entries, max_size=6),)),
    "valid headers": (headers_of_valid_form, (plain_headers(),)),
    "pickles": (random_pickles, (programs,)),
    "zips": (random_zips, (members, compressions, st.binary(max_size=30))),
    "configs": (random_configs, (configs, st.sampled_from([".json", ".yaml"]))),
}


def run_cases(name: str, profile: settings, folder: Path) -> None:
    check, arguments = CASES[name]

    @profile
    @given(st.tuples(*arguments))
    def every(drawn: tuple[Any, ...]) -> None:
        check(folder, *drawn)

    every()


@pytest.mark.parametrize("name", list(CASES))
def test_generated_files(tmp_path: Path, name: str) -> None:
    run_cases(name, quick, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(CASES))
def test_many_generated_files(tmp_path: Path, name: str) -> None:
    run_cases(name, thorough, tmp_path)


def test_headers_that_would_fill_memory(tmp_path: Path) -> None:
    """16 MB of brackets or commas would be a gigabyte of lists: refused before they are."""
    bodies = {
        "lists": b'{"a":[' + b"[]," * 5_000_000 + b"[]]}",
        "numbers": b'{"a":[' + b"1," * 7_000_000 + b"1]}",
        "tables": b'{"a":[' + b"{}," * 5_000_000 + b"{}]}",
        "escapes": b'{"a":"' + b'\\"' * 7_000_000,
        "entries": b"{"
        + b",".join(b'"%d":{"dtype":"F32","shape":[],"data_offsets":[0,0]}' % n for n in range(250_000))
        + b"}",
        "one long text": b'{"a":"' + b"x" * 15_000_000 + '🐱"}'.encode(),
    }
    code = (
        "import json, sys; from pathlib import Path; from tests.models.fuzz_child import Watch, high_water, look\n"
        "before = high_water(); watch = Watch(); found = {}\n"
        "for f in sorted(Path(sys.argv[1]).iterdir()): found[f.name] = [look(f, watch), high_water() - before]\n"
        "print(json.dumps(found))"
    )
    for name, body in bodies.items():
        save(tmp_path / f"{name}.safetensors", struct.pack("<Q", len(body)) + body + bytes(8))
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name, (wrong, grown) in json.loads(done.stdout).items():
        wrong.pop("events", None)  # what is imported late
        assert not wrong and grown < MAX_GROWTH_MB, (name, wrong, grown)
