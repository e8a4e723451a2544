"""A model of diffusers on the hub of the tests: its files, and which of them are wanted."""

from __future__ import annotations

import json
import random
from pathlib import Path

REPO = "someone/tiny-model"
INDEX = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "X"], "vae": ["diffusers", "X"],
         "text_encoder": ["transformers", "X"], "safety_checker": [None, None]}  # fmt: skip


def weights(seed: int, num_bytes: int = 300_000) -> bytes:
    return random.Random(seed).randbytes(num_bytes)


DIFFUSERS = {
    "model_index.json": json.dumps(INDEX).encode(),
    "README.md": b"# A model",
    "v1-pruned.safetensors": weights(1),
    "v1-pruned.ckpt": weights(2),
    "unet/config.json": b'{"in_channels": 4}',
    "unet/diffusion_pytorch_model.safetensors": weights(3),
    "unet/diffusion_pytorch_model.fp16.safetensors": weights(4),
    "unet/diffusion_pytorch_model.non_ema.safetensors": weights(5),
    "unet/diffusion_pytorch_model.bin": weights(6),
    "vae/config.json": b"{}",
    "vae/diffusion_pytorch_model.bin": weights(7),
    "text_encoder/config.json": b'{"_": 1}',
    "text_encoder/model.safetensors": weights(8),
    "text_encoder/pytorch_model.bin": weights(9),
    "safety_checker/model.safetensors": weights(10),
    "tokenizer/vocab.json": b'{"a": 0}',
    "tokenizer/merges.txt": b"#version: 0.2",
    "tokenizer/special_tokens_map.json": b'{"pad_token": "a"}',
    "tokenizer/README.md": b"# Words",
    "tokenizer_2/tokenizer_config.json": b"{}",
    "scheduler/scheduler_config.json": b'{"prediction_type": "epsilon"}',
    "unet/model.onnx": weights(11),
}
TAKEN = [
    "model_index.json", "scheduler/scheduler_config.json", "text_encoder/config.json", "text_encoder/model.safetensors",
    "tokenizer/merges.txt", "tokenizer/special_tokens_map.json", "tokenizer/vocab.json",
    "unet/config.json", "unet/diffusion_pytorch_model.fp16.safetensors", "vae/config.json",
    "vae/diffusion_pytorch_model.bin",
]  # fmt: skip


def quiet(done: int, total: int) -> None: ...


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
