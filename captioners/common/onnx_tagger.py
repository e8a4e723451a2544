"""Any tagger in ONNX form: opens the model, checks it against its labels, and turns pictures into stored scores.

What differs between taggers is data: a `PictureInput` and the list of labels. onnxruntime is imported when a model is
opened.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy
from PIL import Image

from captioners.catalog import PictureInput
from captioners.common.tags import FLOOR, Label, Scores, TagSettings, caption_tags
from trainer.data.index import hash_files
from trainer.data.memo import FileFacts, Memo
from trainer.errors import BadInput, RunFailed
from trainer.messages import Message, say

if TYPE_CHECKING:
    import onnxruntime

    from trainer.data.pictures import Pixels

READING = numpy.dtype([("row", "<u4"), ("score", "<f4")])
"""A stored reading: the labels' rows and probabilities, see `packed`."""

CPU_PROVIDER = "CPUExecutionProvider"
GPU_PROVIDERS = ("CUDAExecutionProvider", "ROCMExecutionProvider", "DmlExecutionProvider", "CoreMLExecutionProvider")
BATCH_ON_CPU, BATCH_ON_GPU = 2, 8


class OnnxTagger:
    """A tagger in one .onnx file; see `captioners.base.Captioner`. `device` is the name of onnxruntime's provider."""

    def __init__(
        self,
        model: Path,
        labels: Sequence[Label],
        picture: PictureInput,
        settings: TagSettings,
        *,
        logits: bool = False,
        device: str = "auto",
    ) -> None:
        """Know the files without opening the model; raises BadInput if it cannot be read."""
        self._model, self._labels, self._picture, self._settings = model, labels, picture, settings
        self._logits = logits
        self._wanted_device = device
        self.device = ""
        self.batch_size = 0
        self.identity = _identity(model, labels, picture, logits)
        self._categories = numpy.array([label.category for label in labels])

    def open(self) -> Message | None:
        """Open the model; raises BadInput if it is none, or does not fit the labels or the layout."""
        self._session, warning = open_session(self._model, self._wanted_device)
        self.device = self._session.get_providers()[0]
        self._size, self._fixed_batch = self._input_size()
        self.batch_size = self._fixed_batch or (BATCH_ON_CPU if self.device == CPU_PROVIDER else BATCH_ON_GPU)
        shape = self._session.get_outputs()[0].shape
        if shape and isinstance(shape[-1], int):
            self._check_count(shape[-1])
        return warning

    def prepare(self, pixels: Pixels) -> numpy.ndarray:
        """The model's input for an RGB picture (H, W, 3) uint8: (size, size, 3) or (3, size, size), float32."""
        return prepared(pixels, self._picture, self._size)

    def read(self, pictures: Sequence[numpy.ndarray]) -> list[bytes]:
        """Look at up to `batch_size` prepared pictures; one reading each, in their order.

        Raises:
            BadInput: if the model's answers are no probabilities or not one for each label.
        """
        batch = numpy.stack(pictures)
        if len(batch) < self._fixed_batch:
            missing = numpy.zeros((self._fixed_batch - len(batch), *batch.shape[1:]), numpy.float32)
            batch = numpy.concatenate([batch, missing])
        scores = self._scores(batch)[: len(pictures)].reshape(len(pictures), -1)
        self._check_count(scores.shape[1])
        if self._logits:
            scores = 1 / (1 + numpy.exp(-scores))
        if not (scores.min() >= -1e-3 and scores.max() <= 1 + 1e-3):  # also false for NaN
            raise BadInput(
                say("The model's answers are not probabilities between 0 and 1, so they cannot be tags."),
                say("The file may be damaged or of another kind: download it again, or choose another model."),
            )
        return [packed(row, self._categories) for row in scores]

    def caption(self, reading: bytes) -> list[str]:
        """The tags that the settings make of a reading."""
        return caption_tags(self._labels, unpacked(reading), self._settings)

    def _scores(self, batch: numpy.ndarray) -> numpy.ndarray:
        """The model's answer to a batch, float32. Raises RunFailed if onnxruntime gives up."""
        name = self._session.get_inputs()[0].name
        try:
            answers = self._session.run(None, {name: batch})
        except _onnx_errors() as error:
            raise RunFailed(
                say("The model gave up ({reason}).", reason=_first_line(error)),
                say("If memory is short, close other programs; with a graphics card, try the device cpu."),
            ) from error
        return numpy.asarray(answers[0], numpy.float32)

    def _input_size(self) -> tuple[int, int]:
        """Side of the input in pixels and the fixed batch (0: any); raises BadInput for another layout."""
        shape = self._session.get_inputs()[0].shape
        places = {"NHWC": (3, 1), "NCHW": (1, 2)}[self._picture.layout]
        channels, side = (shape[place] for place in places) if len(shape) == 4 else (0, 0)
        if isinstance(channels, int) and channels != 3:
            raise BadInput(
                say(
                    "{file} takes input of the shape {shape}, which is not how this kind of tagger sees pictures.",
                    file=str(self._model),
                    shape=" × ".join(str(part) for part in shape),
                ),
                say("Choose the folder of a model of this kind."),
            )
        batch = shape[0]
        return (
            side if isinstance(side, int) and side > 0 else self._picture.size,
            batch if isinstance(batch, int) and batch > 0 else 0,
        )

    def _check_count(self, count: int) -> None:
        if count != len(self._labels):
            raise BadInput(
                say(
                    "{file} knows {outputs} tags, but the list beside it has {labels}: they do not belong together.",
                    file=str(self._model),
                    outputs=count,
                    labels=len(self._labels),
                ),
                say("Download both files of the same model again."),
            )


def prepared(pixels: Pixels, wanted: PictureInput, size: int) -> numpy.ndarray:
    """RGB (H, W, 3) uint8 as a model's float32 input: padded to a square, resized (bicubic), channels in its order."""
    picture = Image.fromarray(pixels)
    side = max(picture.size)
    square = Image.new("RGB", (side, side), wanted.background)
    square.paste(picture, ((side - picture.width) // 2, (side - picture.height) // 2))
    if side != size:
        square = square.resize((size, size), Image.Resampling.BICUBIC)
    values = numpy.asarray(square, numpy.float32)
    if wanted.colour == "BGR":
        values = values[:, :, ::-1]
    if wanted.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    return numpy.ascontiguousarray(values * numpy.float32(wanted.scale) + numpy.float32(wanted.offset))


def packed(scores: numpy.ndarray, categories: numpy.ndarray) -> bytes:
    """A reading of the scores (n,) of one picture: all ratings and all of FLOOR or more, and of each category also the
    most probable one under it, so that the gap over it (MCut) is known."""
    keep = (scores >= FLOOR) | (categories == "rating")
    for category in ("general", "character"):
        under = numpy.flatnonzero((categories == category) & ~keep)
        if under.size:
            keep[under[scores[under].argmax()]] = True
    rows = numpy.flatnonzero(keep)
    reading = numpy.empty(rows.size, READING)
    reading["row"], reading["score"] = rows, scores[rows]
    return reading.tobytes()


def unpacked(reading: bytes) -> Scores:
    """The scores of a reading by row."""
    rows = numpy.frombuffer(reading, READING)
    return dict(zip(rows["row"].tolist(), rows["score"].tolist(), strict=True))


def open_session(model: Path, device: str) -> tuple[onnxruntime.InferenceSession, Message | None]:
    """An inference session on `device` ("auto", "gpu" or "cpu"), and a warning if a card was there but did not work.

    Raises:
        BadInput: if the file cannot be opened, or "gpu" is asked for and there is none.
    """
    import onnxruntime

    available = onnxruntime.get_available_providers()
    wanted = [name for name in GPU_PROVIDERS if name in available] if device != "cpu" else []
    if device == "gpu" and not wanted:
        raise BadInput(
            say("No graphics card can be used for captions: the installed onnxruntime has only the CPU."),
            say("Choose the device auto, or install onnxruntime-gpu or onnxruntime-directml in its place."),
        )
    if "CUDAExecutionProvider" in wanted:
        import torch  # noqa: F401 - on Windows its folder holds the CUDA libraries that onnxruntime looks for
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: the rest is for onnxruntime's developers
    try:
        session = onnxruntime.InferenceSession(str(model), options, providers=[*wanted, CPU_PROVIDER])
    except _onnx_errors() as error:
        raise BadInput(
            say("{file} cannot be opened as an ONNX model ({reason}).", file=str(model), reason=_first_line(error)),
            say("It may be cut short or damaged: compare its size with the original's, or download it again."),
        ) from error
    fell_back = bool(wanted) and session.get_providers()[0] == CPU_PROVIDER
    return session, say("The graphics card could not be used, so the CPU computes, more slowly.") if fell_back else None


def _identity(model: Path, labels: Sequence[Label], picture: PictureInput, logits: bool) -> str:
    """SHA-256 over the weights, the labels and how a picture is prepared; raises BadInput."""
    try:
        digests, unreadable = hash_files([FileFacts.of(model)], Memo())
    except OSError as error:
        raise _unreadable(model, say("it is gone")) from error
    if unreadable:
        raise _unreadable(model, unreadable[0].why)
    return hashlib.sha256(repr((digests[model], list(labels), picture, logits)).encode("utf-8")).hexdigest()


def _unreadable(model: Path, why: Message) -> BadInput:
    return BadInput(say("{file} cannot be used: {why}.", file=str(model), why=str(why)))


def _onnx_errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: Python's own, and classes of its own that share no base but Exception."""
    from onnxruntime.capi import onnxruntime_pybind11_state as states

    own = [kind for kind in vars(states).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    return (RuntimeError, ValueError, *own)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
