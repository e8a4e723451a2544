"""Every kind of picture comes out upright and RGB, and every kind of broken file says why it can't be used."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.data.draw import pixels, save
from trainer.data import pictures
from trainer.data.buckets import Bucket, crop_box
from trainer.data.pictures import CannotUse, check_pixels, is_picture, load_pixels, read_size

RED, GREEN, BLUE, WHITE = (230, 20, 20), (20, 230, 20), (20, 20, 230), (230, 230, 230)


def quarters(picture: np.ndarray[Any, Any]) -> list[tuple[int, ...]]:
    """The colours at the middle of the four quarters: top left, top right, bottom left, bottom right."""
    height, width, _ = picture.shape
    spots = [(y, x) for y in (height // 4, 3 * height // 4) for x in (width // 4, 3 * width // 4)]
    return [tuple(int(value) for value in picture[spot]) for spot in spots]


def looks_like(picture: np.ndarray[Any, Any], colours: list[tuple[int, int, int]], within: int = 30) -> bool:
    return all(abs(a - b) <= within for seen, wanted in zip(quarters(picture), colours, strict=True)
               for a, b in zip(seen, wanted, strict=True))  # fmt: skip


@pytest.mark.parametrize("ending", ["png", "jpg", "jpeg", "webp", "bmp", "avif", "PNG"])
def test_the_usual_formats_are_read(awkward: Path, ending: str) -> None:
    path = save(awkward / f"猫 (1) 🐱.{ending}")
    assert is_picture(path.name) and read_size(path) == (96, 64)
    picture = load_pixels(path)
    assert picture.shape == (64, 96, 3) and picture.dtype == np.uint8
    assert looks_like(picture, [RED, GREEN, BLUE, WHITE])


UPRIGHT = {
    1: [RED, GREEN, BLUE, WHITE],
    2: [GREEN, RED, WHITE, BLUE],
    3: [WHITE, BLUE, GREEN, RED],
    4: [BLUE, WHITE, RED, GREEN],
    5: [RED, BLUE, GREEN, WHITE],
    6: [BLUE, RED, WHITE, GREEN],
    7: [WHITE, GREEN, BLUE, RED],
    8: [GREEN, WHITE, RED, BLUE],
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize("ending", ["jpg", "png", "webp"])
def test_exif_rotation_is_undone_in_size_and_pixels(tmp_path: Path, orientation: int, ending: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(tmp_path / f"a.{ending}", exif=exif)
    size = (64, 96) if orientation >= 5 else (96, 64)
    assert read_size(path) == size
    assert looks_like(load_pixels(path), UPRIGHT[orientation])
    small = load_pixels(path, box=(0, 0, *size), bucket=Bucket(size[0] // 2, size[1] // 2))
    assert small.shape == (size[1] // 2, size[0] // 2, 3)
    assert looks_like(small, UPRIGHT[orientation])


def test_transparency_is_laid_on_the_colour(tmp_path: Path) -> None:
    drawn = Image.fromarray(pixels()).convert("RGBA")
    drawn.putalpha(Image.fromarray(np.repeat([[255] * 48 + [0] * 48], 64, axis=0).astype(np.uint8)))
    drawn.save(tmp_path / "a.png")
    assert looks_like(load_pixels(tmp_path / "a.png"), [RED, (255, 255, 255), BLUE, (255, 255, 255)])
    assert looks_like(load_pixels(tmp_path / "a.png", alpha_colour=(9, 99, 0)), [RED, (9, 99, 0), BLUE, (9, 99, 0)])


def test_palettes_with_and_without_transparency(tmp_path: Path) -> None:
    palette = Image.fromarray(pixels() & 0xF0).quantize(4)  # without the noise: exactly four colours
    palette.save(tmp_path / "a.png")
    assert looks_like(load_pixels(tmp_path / "a.png"), [RED, GREEN, BLUE, WHITE], 40)
    clear = palette.getpixel((20, 20))
    palette.save(tmp_path / "b.png", transparency=clear)
    assert quarters(load_pixels(tmp_path / "b.png"))[0] == (255, 255, 255)


@pytest.mark.parametrize("mode", ["L", "LA", "1", "CMYK", "YCbCr", "I;16"])
def test_modes_that_are_not_rgb(tmp_path: Path, mode: str) -> None:
    ending = "jpg" if mode in ("CMYK", "YCbCr") else "png"
    drawn = Image.fromarray(pixels())
    if mode == "I;16":
        drawn = Image.fromarray(np.asarray(drawn.convert("L")).astype(np.uint16) * 257)
    else:
        drawn = drawn.convert(mode)
    drawn.save(tmp_path / f"a.{ending}")
    picture = load_pixels(tmp_path / f"a.{ending}")
    assert picture.shape == (64, 96, 3)
    if mode in ("CMYK", "YCbCr"):
        assert looks_like(picture, [RED, GREEN, BLUE, WHITE], 40)
    else:
        grey = [quarter[0] for quarter in quarters(picture)]
        expected = [0, 255, 0, 255] if mode == "1" else [82, 143, 44, 230]
        if mode != "1":
            assert all(abs(a - b) < 15 for a, b in zip(grey, expected, strict=True))
        assert all(len(set(quarter)) == 1 for quarter in quarters(picture))


def test_sixteen_bit_colour_png(tmp_path: Path) -> None:
    """Pillow can't write one, so the file is put together by hand."""
    rows = b"".join(b"\0" + (pixels().astype(">u2") * 257)[row].tobytes() for row in range(64))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 96, 64, 16, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    assert looks_like(load_pixels(tmp_path / "a.png"), [RED, GREEN, BLUE, WHITE])


@pytest.mark.parametrize("ending", ["png", "webp"])
def test_the_first_frame_of_an_animation(tmp_path: Path, ending: str) -> None:
    first = Image.fromarray(pixels())
    first.save(tmp_path / f"a.{ending}", save_all=True, append_images=[Image.new("RGB", first.size)] * 3, duration=50)
    assert looks_like(load_pixels(tmp_path / f"a.{ending}"), [RED, GREEN, BLUE, WHITE], 45)


@pytest.mark.parametrize("ending", ["jpg", "png"])
def test_the_crop_is_resized_and_mirrored(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"a.{ending}", 2000, 1000)
    bucket = Bucket(64, 64)
    square = load_pixels(path, box=crop_box((2000, 1000), bucket), bucket=bucket)
    assert square.shape == (64, 64, 3) and looks_like(square, [RED, GREEN, BLUE, WHITE])
    assert looks_like(load_pixels(path, box=(0, 0, 1000, 500), bucket=bucket), [RED] * 4)
    mirrored = load_pixels(path, box=crop_box((2000, 1000), bucket), bucket=bucket, flip=True)
    assert np.array_equal(mirrored, square[:, ::-1])


def test_reducing_while_decoding_hardly_changes_the_picture(tmp_path: Path) -> None:
    waves = np.add.outer(np.sin(np.arange(1600) / 40), np.cos(np.arange(1600) / 55)) * 60 + 128
    Image.fromarray(waves.astype(np.uint8)).convert("RGB").save(tmp_path / "a.jpg", quality=95)
    Image.fromarray(waves.astype(np.uint8)).convert("RGB").save(tmp_path / "a.png")
    box, bucket = (0, 0, 1600, 1600), Bucket(256, 256)
    reduced = load_pixels(tmp_path / "a.jpg", box=box, bucket=bucket).astype(int)
    exact = load_pixels(tmp_path / "a.png", box=box, bucket=bucket).astype(int)
    assert np.abs(reduced - exact).mean() < 1.5


def why(path: Path) -> str:
    """The reason that reading the size gives, else that of decoding."""
    try:
        read_size(path)
    except CannotUse as cannot:
        return str(cannot.why)
    found = check_pixels(path)
    assert found is not None, "the picture is fine"
    with pytest.raises(CannotUse):
        load_pixels(path)
    return str(found)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "avif"])
def test_a_cut_file_is_found_out_by_decoding_at_the_latest(tmp_path: Path, ending: str) -> None:
    path = save(tmp_path / f"a.{ending}", 256, 256)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "broken" in why(path)


def test_broken_pixel_data_behind_a_good_header(tmp_path: Path) -> None:
    path = save(tmp_path / "a.png", 256, 256)
    data = bytearray(path.read_bytes())
    data[len(data) // 2 : len(data) // 2 + 64] = bytes(64)
    path.write_bytes(data)
    assert read_size(path) == (256, 256)
    assert "broken or cut short" in why(path)


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    assert why(tmp_path / "empty.png") == "the file is empty"
    (tmp_path / "text.jpg").write_text("not a picture", encoding="utf-8")
    assert "not a picture" in why(tmp_path / "text.jpg")
    assert why(tmp_path / "gone.png") == "it is gone"
    (tmp_path / "folder.png").mkdir()
    assert "system could not read" in why(tmp_path / "folder.png")


def test_a_huge_picture_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    """A PNG whose header promises 400 million pixels, and one over Pillow's own limit."""
    for side in (14_000, 20_000, 60_000):
        small = io.BytesIO()
        Image.new("1", (8, 8)).save(small, "PNG")
        data = bytearray(small.getvalue())
        data[16:24] = struct.pack(">II", side, side)
        data[29:33] = struct.pack(">I", zlib.crc32(bytes(data[12:29])))
        (tmp_path / "a.png").write_bytes(data)
        assert "larger than 178 million pixels" in why(tmp_path / "a.png")


def test_a_phone_picture_of_108_megapixels_is_fine(tmp_path: Path) -> None:
    Image.new("L", (12_000, 9_000), 90).save(tmp_path / "a.jpg")
    assert read_size(tmp_path / "a.jpg") == (12_000, 9_000)
    assert load_pixels(tmp_path / "a.jpg", box=(0, 0, 12_000, 9_000), bucket=Bucket(64, 48)).shape == (48, 64, 3)


def test_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save(tmp_path / "a.png")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied", os.fspath(path))

    monkeypatch.setattr(pictures.Image, "open", refuse)
    assert why(path) == "there is no permission to read it"


def test_a_kind_whose_reader_is_not_installed_names_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pictures, "_plugins", frozenset)
    (tmp_path / "a.heic").write_bytes(b"something")
    assert "pillow-heif" in why(tmp_path / "a.heic")


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_a_broken_exif_block_does_not_cost_the_picture(tmp_path: Path) -> None:
    path = save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\xff" * 30)
    assert looks_like(load_pixels(path), [RED, GREEN, BLUE, WHITE])


def test_hidden_companions_of_macos_are_no_pictures() -> None:
    assert not is_picture("._a.jpg") and not is_picture("a.txt") and is_picture("A.JPEG")
