"""Pictures from bytes and to bytes: the one place that decodes and encodes. RGB order everywhere.

OpenCV returns a half-grey picture for a truncated JPEG without an error, so a JPEG is followed from marker to marker
to its end here. What would cost too much is refused before anything is allocated: by the header's pixel count, by
the number of scans, each of which goes over all pixels, and by the lengths of a PNG's chunks, for each of which OpenCV
makes room (up to 4 GB) before it looks for its bytes.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

MAX_PIXELS = 100_000_000
MAX_SCANS = 100
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_JPEG_START = b"\xff\xd8"
# A marker of a JPEG, as libjpeg looks for it; within a scan restarts (D0 to D7) are part of the data.
_MARKER = re.compile(rb"\xff+([^\x00\xff])", re.DOTALL)
_SCAN_END = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])", re.DOTALL)
_END, _SCAN = 0xD9, 0xDA
_WITHOUT_LENGTH = frozenset({0x01, *range(0xD0, 0xD9)})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
# Largest first: how much smaller a JPEG can be decoded, by dropping frequencies.
_REDUCED = {8: cv2.IMREAD_REDUCED_COLOR_8, 4: cv2.IMREAD_REDUCED_COLOR_4, 2: cv2.IMREAD_REDUCED_COLOR_2}

Picture = NDArray[np.uint8]


def decode_rgb(data: bytes) -> Picture:
    """Decode a JPEG or PNG to uint8 [H, W, 3] in RGB order, turned upright by its EXIF tag.

    Raises:
        ValueError: not a JPEG or PNG, truncated, broken, more than MAX_PIXELS pixels, or a JPEG of more than
            MAX_SCANS scans.
    """
    return _rgb(_decode(data, flags=cv2.IMREAD_COLOR))


def decode_reduced(data: bytes, *, least_side: int) -> Picture:
    """As `decode_rgb`, but a large picture comes at a half, a quarter or an eighth of its size.

    The smallest whose longer side is not below `least_side` is taken. A JPEG is decoded faster so.
    """
    longer = max(picture_size(data))
    divisor = next((one for one in _REDUCED if longer >= one * least_side), 1)
    if divisor == 1 or data.startswith(_JPEG_START):
        return _rgb(_decode(data, flags=_REDUCED.get(divisor, cv2.IMREAD_COLOR)))
    whole_HW3 = decode_rgb(data)
    size = -(-whole_HW3.shape[1] // divisor), -(-whole_HW3.shape[0] // divisor)
    return np.asarray(cv2.resize(whole_HW3, size, interpolation=cv2.INTER_AREA), np.uint8)


def _rgb(picture_HW3: Picture) -> Picture:
    # A third of the time of decoding is saved against turning the axis round in numpy.
    return np.asarray(cv2.cvtColor(picture_HW3, cv2.COLOR_BGR2RGB), np.uint8)


def decode_rgba(data: bytes) -> Picture:
    """Decode a PNG with alpha to uint8 [H, W, 4] in RGBA order. Raises ValueError as `decode_rgb` does."""
    picture = _decode(data, flags=cv2.IMREAD_UNCHANGED)
    if picture.ndim != 3 or picture.shape[2] != 4:
        raise ValueError(f"picture: expected 4 channels (RGBA), got shape {picture.shape}")
    return cv2.cvtColor(picture, cv2.COLOR_BGRA2RGBA)  # type: ignore[return-value]


def decode_grey(data: bytes) -> Picture:
    """Decode to uint8 [H, W]. Raises ValueError as `decode_rgb` does."""
    return _decode(data, flags=cv2.IMREAD_GRAYSCALE)


def _decode(data: bytes, *, flags: int) -> Picture:
    width, height = picture_size(data)
    if width * height > MAX_PIXELS:
        raise ValueError(f"picture: expected at most {MAX_PIXELS} pixels, got {width} x {height}")
    _check_complete(data)
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        raise ValueError(f"picture: cannot be decoded ({error.err})") from error
    if picture is None:
        raise ValueError("picture: cannot be decoded (broken data)")
    if picture.dtype != np.uint8:
        raise ValueError(f"picture: expected 8 bits a channel, got {picture.dtype}")
    return np.asarray(picture, np.uint8)


def picture_size(data: bytes) -> tuple[int, int]:
    """(width, height) as the header of a JPEG or PNG says, read without decoding.

    Raises:
        ValueError: empty, neither JPEG nor PNG, or no size in the header.
    """
    if not data:
        raise ValueError("picture: expected a JPEG or PNG, got an empty file")
    if data.startswith(_PNG_SIGNATURE) and data[12:16] == b"IHDR" and len(data) >= 24:
        width, height = struct.unpack(">II", data[16:24])
        return int(width), int(height)
    if data.startswith(_JPEG_START):
        return _jpeg_size(data)
    raise ValueError(f"picture: expected a JPEG or PNG, got a file that starts with {data[:8]!r}")


def is_png(data: bytes) -> bool:
    """Whether a picture's bytes are those of a PNG."""
    return data.startswith(_PNG_SIGNATURE)


def _jpeg_size(data: bytes) -> tuple[int, int]:
    """The size in the frame header (ITU-T T.81, B.2.2)."""
    for marker, start in _jpeg_markers(data):
        if marker in _FRAMES and start + 7 <= len(data):
            height, width = struct.unpack(">HH", data[start + 3 : start + 7])
            return int(width), int(height)
        if marker in (_SCAN, _END):
            break
    raise ValueError("picture: truncated JPEG (no frame header)")


def _jpeg_markers(data: bytes) -> Iterator[tuple[int, int]]:
    """Every marker of a JPEG behind its first and where its segment starts, as libjpeg comes upon them; ends at EOI."""
    position, pattern = len(_JPEG_START), _MARKER
    while found := pattern.search(data, position):
        marker, position = found[1][0], found.end()
        yield marker, position
        if marker == _END:
            return
        if marker not in _WITHOUT_LENGTH:
            position += max(2, int.from_bytes(data[position : position + 2], "big"))
        pattern = _SCAN_END if marker == _SCAN else _MARKER


def _check_complete(data: bytes) -> None:
    # What some cameras append behind the end is nobody's business.
    if not data.startswith(_JPEG_START):
        if b"IEND" not in _png_chunks(data):
            raise ValueError("picture: truncated PNG (no end chunk)")
        return
    markers = [marker for marker, _ in _jpeg_markers(data)]
    if _END not in markers:
        raise ValueError("picture: truncated JPEG (no end marker)")
    if markers.count(_SCAN) > MAX_SCANS:
        raise ValueError(f"picture: expected at most {MAX_SCANS} scans, got {markers.count(_SCAN)}")


def _png_chunks(data: bytes) -> Iterator[bytes]:
    """The kind of every chunk that lies in a PNG's bytes with its whole length and sum; ends behind IEND."""
    position = len(_PNG_SIGNATURE)
    while position + 12 <= len(data):
        length, kind = struct.unpack(">I4s", data[position : position + 8])
        position += 12 + length
        if position > len(data):
            return
        yield kind
        if kind == b"IEND":
            return


def encode_jpeg(photo_HW3: Picture, *, quality: int = 90) -> bytes:
    """JPEG of a uint8 RGB photo [H, W, 3]; `quality` 1..100."""
    parameters = [cv2.IMWRITE_JPEG_QUALITY, quality]
    return _encoded(".jpg", cv2.cvtColor(photo_HW3, cv2.COLOR_RGB2BGR), parameters)  # type: ignore[arg-type]


def encode_png(picture: Picture, *, compression: int = 2) -> bytes:
    """Lossless PNG of uint8 [H, W] grey, [H, W, 3] RGB or [H, W, 4] RGBA; `compression` 0..9."""
    if picture.ndim == 3:
        code = cv2.COLOR_RGBA2BGRA if picture.shape[2] == 4 else cv2.COLOR_RGB2BGR
        picture = np.asarray(cv2.cvtColor(picture, code), np.uint8)
    return _encoded(".png", picture, [cv2.IMWRITE_PNG_COMPRESSION, compression])


def _encoded(extension: str, picture: Picture, parameters: list[int]) -> bytes:
    done, buffer = cv2.imencode(extension, picture, parameters)
    assert done, f"OpenCV could not encode {picture.shape} {picture.dtype} as {extension}"
    return bytes(buffer.tobytes())
