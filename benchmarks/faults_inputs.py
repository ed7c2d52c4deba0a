"""Bad and odd inputs made on the spot: pictures of every kind that reaches an ingest, and COCO JSON of every kind.

Each picture says what must become of it: "ok", or a part of the reason that stands in its quarantined row.
"""

from __future__ import annotations

import io
import json
import os
import random
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from storage.digest import JSON

OK = "ok"
_SIDE = 48


def picture(seed: int = 0, *, mode: str = "RGB", size: tuple[int, int] = (_SIDE, _SIDE)) -> Image.Image:
    """A picture of soft noise."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    levels = np.random.default_rng(seed).integers(0, 256, (6, 6, channels), dtype=np.uint8)
    small = Image.fromarray(levels[..., 0] if channels == 1 else levels, mode="L" if channels == 1 else mode)
    return small.resize(size, Image.Resampling.BICUBIC)


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """A picture's file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)  # type: ignore[arg-type]
    return buffer.getvalue()


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(4, size=(64, 32)), exif=exif)


def _with_thumbnail_cut_off() -> bytes:
    """A truncated JPEG whose embedded thumbnail is whole, end marker included."""
    inner = encoded(picture(5))
    whole = encoded(picture(6), exif=b"Exif\0\0" + inner)
    return whole[: len(whole) - 40]


def huge_png(width: int, height: int) -> bytes:
    """A few bytes of PNG that claim a size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 100)), (b"IEND", b""))
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


def huge_chunk_png() -> bytes:
    """A small PNG of which one chunk claims to be 4 GB long."""
    data = encoded(picture(25), "PNG")
    at = data.index(b"IDAT")
    return data[: at - 4] + b"\xff\xff\xff\xf0" + data[at:]


def huge_jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose frame header claims a size."""
    data = bytearray(encoded(picture(7)))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(data)


def hidden_huge_jpeg() -> bytes:
    """A JPEG with a marker without length before its frame: who takes what follows for a length misses the frame."""
    data = huge_jpeg(60000, 60000)
    small = encoded(picture(8))
    frame = small[small.index(b"\xff\xc0") :][: 2 + 17]
    return data[:2] + b"\xff\x01" + data[2:].replace(b"\xff\xda", frame + b"\xff\xda", 1)


def many_scans() -> bytes:
    """A progressive JPEG with its last scan a thousand times: small, and hours to decode at a large size."""
    data = encoded(picture(9), progressive=True)
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * 1000 + data[-2:]


def pictures() -> Iterator[tuple[bytes, bytes, str]]:
    """(file name, content, what must become of it) of odd and bad pictures."""
    jpeg, png = encoded(picture(1)), encoded(picture(2), "PNG")
    grey16 = Image.fromarray(np.arange(_SIDE * _SIDE, dtype=np.uint16).reshape(_SIDE, _SIDE) * 20)
    yield b"plain.jpg", jpeg, OK
    yield b"plain-png.png", png, OK
    yield b"truncated.jpg", jpeg[: len(jpeg) // 2], "truncated"
    yield b"truncated-png.png", png[: len(png) // 2], "truncated"
    yield b"thumbnail.jpg", _with_thumbnail_cut_off(), "truncated"
    yield b"flipped.png", png[:60] + bytes([png[60] ^ 4]) + png[61:], "picture:"
    yield b"cmyk.jpg", encoded(picture(3, mode="CMYK")), OK
    yield b"sixteen-bit.png", encoded(grey16, "PNG"), OK
    yield b"grey.jpg", encoded(picture(10, mode="L")), OK
    yield b"grey-png.png", encoded(picture(11, mode="L"), "PNG"), OK
    yield b"alpha.png", encoded(picture(12, mode="RGBA"), "PNG"), OK
    yield b"palette.png", encoded(picture(13).quantize(8), "PNG"), OK
    yield b"rotated.jpg", _rotated(), OK
    yield b"animated-png.png", encoded(picture(14), "PNG", save_all=True, append_images=[picture(15)]), OK
    yield b"animated.jpg", encoded(picture(16), "GIF", save_all=True, append_images=[picture(17)]), "expected a JPEG"
    yield b"zero.jpg", b"", "empty file"
    yield b"huge-png.png", huge_png(200_000, 200_000), "at most"
    yield b"huge.jpg", huge_jpeg(60000, 60000), "at most"
    yield b"hidden-huge.jpg", hidden_huge_jpeg(), "at most"
    yield b"many-scans.jpg", many_scans(), "scans"
    yield b"huge-chunk.png", huge_chunk_png(), "truncated"
    yield b"no-size.png", huge_png(0, 0), "picture:"
    yield b"really-a-png.jpg", encoded(picture(18), "PNG"), OK
    yield b"really-a-jpeg.png", encoded(picture(19)), OK
    yield b"really-webp.jpg", encoded(picture(20), "WEBP"), "expected a JPEG"
    yield b"text.jpg", b"no picture at all", "expected a JPEG"
    yield b"trailer.jpg", encoded(picture(21)) + os.urandom(100_000), OK
    yield b"with space, 100 % & \xc3\xa9.jpg", encoded(picture(22)), OK
    yield b"not-utf8-\xff\xfe.jpg", encoded(picture(23)), "expected UTF-8"
    yield b"l" * 240 + b".jpg", encoded(picture(24)), "at most 200 bytes"


def write_pictures(folder: Path) -> dict[str, str]:
    """The pictures as files of a folder; returns what must become of each by its name, escaped where it is no text."""
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for name, data, outcome in pictures():
        Path(os.fsdecode(os.fsencode(folder) + b"/" + name)).write_bytes(data)
        expected[name.decode("utf-8", "backslashreplace")] = outcome
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    return expected


def odd_values(draw: random.Random) -> JSON:
    """A value that a field of a JSON file may have and should not."""
    return draw.choice(
        [
            *(None, True, "", "x", "\ud800", "\0", "a" * 5000, -1, 0, 2**31, 2**63, 10**30, 1e308, -0.5),
            *(float("nan"), float("inf"), [], {}, [None], [[1]], {"id": 1}, "../../etc/passwd", "folder", 10**400),
        ]
    )


def coco(*, images: int, draw: random.Random, odd: float) -> dict[str, JSON]:
    """A COCO listing of `images` pictures, of whose fields a share `odd` has odd values or is missing."""
    listing: dict[str, JSON] = {
        "images": [{"id": n, "file_name": f"{n}.jpg", "width": _SIDE, "height": _SIDE} for n in range(images)],
        "annotations": [
            {"id": 2 * n + k, "image_id": n, "category_id": 1 + k, "bbox": [4, 4 + 10 * k, 20, 9], "point_xy": [14, 8]}
            for n in range(images)
            for k in range(2)
        ],
        "categories": [{"id": k, "name": f"sku{k}", "sku_name": f"sku{k}"} for k in (1, 2)],
    }
    for name in ("images", "annotations"):
        listing[name] = [_disturbed(one, draw=draw, odd=odd) for one in listing[name]]
    return listing


def _disturbed(entry: dict[str, JSON], *, draw: random.Random, odd: float) -> JSON:
    if draw.random() < odd / 5:
        return odd_values(draw)
    kept = {name: value for name, value in entry.items() if draw.random() > odd / 4}
    changed = {name: _changed(value, draw=draw) if draw.random() < odd else value for name, value in kept.items()}
    return {**changed, **({str(odd_values(draw)): odd_values(draw)} if draw.random() < odd else {})}


def _changed(value: JSON, *, draw: random.Random) -> JSON:
    if isinstance(value, list) and draw.random() < 0.7:
        return [odd_values(draw) if draw.random() < 0.4 else one for one in value]
    return draw.choice([odd_values(draw), -value if isinstance(value, int) else value, 0])


def dataset(folder: Path) -> Path:
    """An RPC data set of a few good pictures in every split."""
    names = {"train": "instances_train2019.json", "val": "instances_val2019.json", "test": "instances_test2019.json"}
    for split, name in names.items():
        listing = coco(images=4, draw=random.Random(0), odd=0.0)
        if split == "train":
            listing["annotations"] = listing["annotations"][::2]
        (folder / f"{split}2019").mkdir(parents=True)
        for number in range(4):
            seed = number + 100 * len(split)
            (folder / f"{split}2019" / f"{number}.jpg").write_bytes(encoded(picture(seed)))
        (folder / name).write_text(json.dumps(listing))
    (folder / "pool2019").mkdir()
    (folder / "pool2019" / "0.jpg").write_bytes(encoded(picture(999)))
    return folder
