"""The renderers: each turns one synthetic photo into the look of the pool and leaves every item where it is.

One interface for all: `renderer(photo_HW3, mask_HW, generator) -> photo_HW3` with uint8 RGB photos of one size, the
bool mask of the photo's products, and the photo's own random generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.cyclegan import STRIDE, Generator
from tasks.ahead import Mapped
from tasks.backdrop import to_lab
from tasks.gathering import Gathered
from tasks.render_photos import Mask, Photo, shrink, to_unit
from tasks.tiles import apply_in_tiles

PhotoRenderer = Callable[[Photo, Mask, np.random.Generator], Photo]
Lab = NDArray[np.float32]

_BOARD_FRAME = 0.08
_BOARD_CHROMA_DISTANCE = 8.0
_OUTLINE_SIGMA = 1.5
_LARGEST_GAIN = 1.25


def generator_renderer(network: Generator, *, scale: float, tile: int) -> PhotoRenderer:
    """The renderer of a trained generator, which sees photos at `scale` of their size, in tiles of `tile` pixels.

    What the generator adds is brought back to full size and added to the full-size photo: detail finer than the
    working size (print) passes through untouched. Threads that render at the same time share batches on a GPU.
    """
    residual = _gathered_residual(network.eval())

    def render(photo_HW3: Photo, mask_HW: Mask, generator: np.random.Generator) -> Photo:
        working_HW3 = to_unit(shrink(photo_HW3, scale=scale))
        change_HW3 = apply_in_tiles(
            lambda tile_HW3: residual(torch.from_numpy(tile_HW3.transpose(2, 0, 1))).numpy().transpose(1, 2, 0),
            working_HW3,
            tile=tile,
            margin=network.receptive_radius,
            multiple=STRIDE,
        )
        height, width = photo_HW3.shape[:2]
        if scale != 1.0:
            change_HW3 = np.asarray(cv2.resize(change_HW3, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)
        return _to_bytes(photo_HW3 + 127.5 * change_HW3)

    return render


def chained(first: PhotoRenderer, second: PhotoRenderer) -> PhotoRenderer:
    """The renderer that applies `first`, then `second`."""

    def render(photo_HW3: Photo, mask_HW: Mask, generator: np.random.Generator) -> Photo:
        return second(first(photo_HW3, mask_HW, generator), mask_HW, generator)

    return render


def colour_renderer(synthetic: Sequence[Photo], pool: Sequence[Photo], *, mapped: Mapped = map) -> PhotoRenderer:
    """Match the Lab statistics (Reinhard et al., 2001) of products, those of all photos of a domain taken together.

    One transform for every product, so that products which differ in colour alone still do; statistics of single
    photos would drift with what lies in them. The board is left alone: it comes from the pool. Products are found in
    both domains in the same way (`coloured_items`), so what that misses, it misses on both sides. `mapped` measures
    the photos.
    """
    source, target = (_item_statistics(photos, mapped=mapped) for photos in (synthetic, pool))
    gain_3 = np.clip(target[1] / source[1], 1 / _LARGEST_GAIN, _LARGEST_GAIN)
    offset_3 = target[0] - gain_3 * source[0]

    def render(photo_HW3: Photo, mask_HW: Mask, generator: np.random.Generator) -> Photo:
        # The outline of a product is a mixture with the board: a soft mask keeps it from becoming an edge of its own.
        weight_HW1 = cv2.GaussianBlur(mask_HW.astype(np.float32), (0, 0), _OUTLINE_SIGMA)[..., None]
        lab_HW3 = to_lab(photo_HW3)
        matched_HW3 = lab_HW3 + weight_HW1 * (lab_HW3 * (gain_3 - 1) + offset_3)
        return _to_bytes(np.asarray(cv2.cvtColor(matched_HW3, cv2.COLOR_LAB2RGB), np.float32) * 255)

    return render


def fourier_renderer(pool: Sequence[Photo], *, radius: float) -> PhotoRenderer:
    """Fourier domain adaptation (Yang and Soatto, CVPR 2020): low-frequency amplitudes of a pool photo drawn per photo.

    Frequencies up to `radius` (a fraction of the photo's sides, the paper's beta: 0.01 to 0.09) are exchanged; phases
    stay, and with them where everything is.
    """

    def render(photo_HW3: Photo, mask_HW: Mask, generator: np.random.Generator) -> Photo:
        height, width = photo_HW3.shape[:2]
        other_HW3 = cv2.resize(pool[int(generator.integers(len(pool)))], (width, height))
        # Few low frequencies are two thin matrix products; the others would come back unchanged.
        down_KH, across_LW = (_low_waves(length, radius=radius) for length in (height, width))
        source_3KL, target_3KL = (
            down_KH @ picture_HW3.transpose(2, 0, 1).astype(np.complex64) @ across_LW.T
            for picture_HW3 in (photo_HW3, other_HW3)
        )
        change_3KL = (np.abs(target_3KL) - np.abs(source_3KL)) * np.exp(1j * np.angle(source_3KL))
        change_3HW = (down_KH.conj().T @ change_3KL @ across_LW.conj()).real / (height * width)
        return _to_bytes(photo_HW3 + change_3HW.transpose(1, 2, 0))

    return render


def coloured_items(lab_HW3: Lab) -> Mask:
    """Where products probably lie in an unlabelled photo: colours far from those of the photo's frame, which is board.

    `lab_HW3` is CIE Lab. Only chroma counts, because shadows and light fall-off change lightness; grey products count
    as board, which is good enough for statistics.
    """
    height, width = lab_HW3.shape[:2]
    margin = max(1, round(_BOARD_FRAME * min(height, width)))
    frame_HW = np.ones((height, width), np.bool_)
    frame_HW[margin : height - margin, margin : width - margin] = False
    board_2 = np.median(lab_HW3[frame_HW][:, 1:], axis=0)
    far_HW = np.linalg.norm(lab_HW3[..., 1:] - board_2, axis=2) > _BOARD_CHROMA_DISTANCE
    return cv2.morphologyEx(far_HW.astype(np.uint8), cv2.MORPH_CLOSE, np.ones((7, 7), np.uint8)) > 0


def _low_waves(length: int, *, radius: float) -> NDArray[np.complex64]:
    """Rows of the discrete Fourier transform of `length` samples with frequencies up to `radius`, [K, length]."""
    frequencies_N = np.fft.fftfreq(length)
    frequencies_K = frequencies_N[np.abs(frequencies_N) <= radius]
    return np.exp(-2j * np.pi * np.outer(frequencies_K, np.arange(length))).astype(np.complex64)


def _gathered_residual(network: Generator) -> Callable[[Tensor], Tensor]:
    """The network's change of a picture, float32 [3, H, W] on the CPU."""
    parameter = next(network.parameters())

    def residual(tiles_B3HW: Tensor) -> Tensor:
        tiles_B3HW = tiles_B3HW.to(parameter.device).contiguous(memory_format=torch.channels_last)
        # On a GPU in bfloat16: what is added to a photo is coarser than its error.
        half = torch.autocast(parameter.device.type, dtype=torch.bfloat16, enabled=parameter.is_cuda)
        with torch.inference_mode(), half:
            return network.residual(tiles_B3HW).float().cpu()

    # On a processor threads compute side by side, and a photo's bytes must not depend on who was its neighbour.
    return Gathered(function=residual) if parameter.is_cuda else lambda tile_3HW: residual(tile_3HW[None])[0]


def _item_statistics(photos: Sequence[Photo], *, mapped: Mapped) -> NDArray[np.float32]:
    """Mean and deviation of Lab over the products of all photos, float32 [2, 3]; over everything if none is found."""
    items_7, everything_7 = np.sum([*mapped(_sums_of, photos)], axis=0)
    number, *sums_6 = items_7 if items_7[0] else everything_7
    mean_3, square_3 = np.reshape(sums_6, (2, 3)) / number
    deviation_3 = np.sqrt(np.maximum(square_3 - mean_3**2, 0))
    return np.stack([mean_3, np.maximum(deviation_3, 1.0)]).astype(np.float32)


def _sums_of(photo: Photo) -> NDArray[np.float64]:
    """Number of pixels and sums of their Lab and of its squares, of the products and of everything, [2, 7].

    In double precision: in a single one a sum over the pixels of a thousand photos hardly grows any more.
    """
    lab_HW3 = to_lab(photo)
    return np.stack([_sums(lab_HW3[coloured_items(lab_HW3)]), _sums(lab_HW3.reshape(-1, 3))])


def _sums(lab_N3: Lab) -> NDArray[np.float64]:
    exact_N3 = lab_N3.astype(np.float64)
    return np.concatenate([[len(lab_N3)], exact_N3.sum(axis=0), (exact_N3**2).sum(axis=0)])


def _to_bytes(photo_HW3: NDArray[np.floating]) -> Photo:
    return np.asarray(np.clip(np.rint(photo_HW3), 0, 255), np.uint8)
