"""Any file of weights as a `Header`: safetensors, and what torch.save writes, old and new. Nothing in a file ever runs.

`tensor_file.read_tensor` then reads its tensors plainly, whatever the container.
"""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from trainer.models import safetensors_file, torch_file
from trainer.models.opening import NotWeights, open_plain
from trainer.models.safetensors_file import Header

HEAD_BYTES = 512
WEIGHT_SUFFIXES = (".safetensors", ".sft", ".ckpt", ".pt", ".pth", ".bin", ".pkl")


def read_header(path: Path, *, located: bool = True) -> Header:
    """Read what a file of weights says of its tensors; no weights are read, no code of it runs.

    Args:
        path: a .safetensors file, or a .ckpt, .pt, .pth, .bin of any age.
        located: whether tensors are to be read by it. Without, less of the file is touched: `start` of the tensors in a
            zip is then -1.

    Raises:
        OSError: the file cannot be read.
        NotWeights: it is something else, damaged, hostile or cut short (`cut_short`). The sentence names the file, and
            the import where a pickle asks for one that no model needs.
    """
    with open_plain(path) as handle:
        try:
            return read_header_from(handle, located)
        except NotWeights as error:
            raise error.of(path) from error


def read_header_from(handle: BinaryIO, located: bool = True) -> Header:
    """The same from an open file."""
    head = handle.read(HEAD_BYTES)
    if head.startswith(b"PK\x03\x04"):
        return torch_file.read_zip(handle, located)
    if is_pickle(head):
        return torch_file.read_pickles(handle, located)
    if torch_file.is_tar(head):
        return torch_file.read_tar(handle)
    return safetensors_file.read_header_from(handle)


def is_pickle(head: bytes) -> bool:
    """Whether a file that begins so is a pickle of protocol 2 or later (torch has never written another)."""
    return head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05") and head[8:9] != b"{"
