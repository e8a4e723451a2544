"""A tagger whose answers can be worked out by hand: the means of blue, green and red, each as a share of 255.

    row  tag            category   probability
    0-3  the ratings    9          0.1, 0.2, 0.6, 0.1
    4    long_hair      0          mean blue
    5    ^_^            0          mean green
    6    a, "b" (c)     0          mean red
    7    saber_(fate)   4          mean blue
    8    faint          0          mean red ÷ 10
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

SIZE = 8
ROWS = (
    ("general", 9), ("sensitive", 9), ("questionable", 9), ("explicit", 9),
    ("long_hair", 0), ("^_^", 0), ('a, "b" (c)', 0), ("saber_(fate)", 4), ("faint", 0),
)  # fmt: skip
BLUE, GREEN, RED = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
WEIGHTS = np.array([*[(0, 0, 0)] * 4, BLUE, GREEN, RED, BLUE, (0, 0, 0.1)], np.float32).T / 255
BIAS = np.array([0.1, 0.2, 0.6, 0.1, 0, 0, 0, 0, 0], np.float32)


def save_model(folder: Path, *, v3: bool = False, scale: float = 1.0, batch: Any = None, layout: str = "NHWC") -> Path:
    """Write model.onnx and selected_tags.csv. v2-like: any batch; v3-like: another input name, a fixed batch of 3."""
    folder.mkdir(parents=True, exist_ok=True)
    name, size = ("input", 3) if v3 else ("input_1:0", "N")
    size = batch if batch is not None else size
    shape = [size, SIZE, SIZE, 3] if layout == "NHWC" else [size, 3, SIZE, SIZE]
    axes = [1, 2] if layout == "NHWC" else [2, 3]
    nodes = [
        helper.make_node("ReduceMean", [name], ["means"], axes=axes, keepdims=0),
        helper.make_node("Gemm", ["means", "weights", "bias"], ["scores"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [size, len(ROWS)])],
        [numpy_helper.from_array(WEIGHTS * np.float32(scale), "weights"), numpy_helper.from_array(BIAS, "bias")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
    save_labels(folder)
    return folder


def save_labels(folder: Path, rows: tuple[tuple[str, int], ...] = ROWS) -> None:
    with (folder / "selected_tags.csv").open("w", encoding="utf-8", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(("tag_id", "name", "category", "count"))
        writer.writerows((number, name, category, 100) for number, (name, category) in enumerate(rows))


def save_picture(path: Path, colour: tuple[int, ...] = (0, 0, 255), size: tuple[int, int] = (8, 4)) -> Path:
    """A picture of one colour. The usual one, 8 × 4 pure blue, is half white once padded: blue 1, green ½, red ½."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = "RGBA" if len(colour) == 4 else "RGB"
    Image.new(mode, size, colour).save(path)
    return path
