"""DPSNet with everything around it in the graph: a photo of any size in, its products and its shopping list out.

What `tasks.detection` and `tasks.fusion` do with OpenCV and numpy is written here in tensors, so that one exported file
needs no other code: fitting the photo into the network's square, reading boxes back into photo pixels, the counting
view's say in the scores, and the list at the threshold. Made to be traced: sizes stay tensors.

Shapes: H×W the photo's pixels, S the network's side, K taps of the resizing, L lines of V values, N detections, C
products of the catalog.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from models.dpsnet import COUNT_STRIDE, DPSNet, padded_size

_LEAST_SIDE = 1.0
_EDGE = 1e-6


class PhotoNetwork(nn.Module):
    """A photo to `boxes` [N, 4], `scores` [N], `labels` [N] (0..C-1), `products` int64 [C] and `count`.

    Boxes are xyxy in the photo's pixels, float32; scores are those of both views, best first, down to the network's
    floor; `products` is the shopping list: how many of each product have a score of at least `threshold`; `count` is
    the number of products by the counting view.
    """

    def __init__(self, network: DPSNet, *, image_size: int, threshold: float, count_scale: float) -> None:
        """Wrap a trained network, with what val chose for it."""
        super().__init__()
        self.network = network
        self.image_size = image_size
        self.fitting = Fitting(image_size=image_size, side=padded_size(image_size))
        self.threshold, self.count_scale = threshold, count_scale
        self.eval()

    def forward(self, photo_HW3: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """What is in one photo, uint8 RGB [H, W, 3]."""
        return self.read(*self.fitting(photo_HW3))

    def read(self, fitted_13SS: Tensor, size_2: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """The same of a photo of `size_2` (height, width, float64) that has been fitted already."""
        (found,), density_1Chw = self.network(fitted_13SS)
        factor = self.image_size / size_2.max()
        boxes_N4, on_photo_N = boxes_in_photo(found["boxes"], size_2=size_2, factor=factor)
        count = self.count_scale * count_on_photo(density_1Chw, size_2=size_2, factor=factor)
        scores_N = fused_scores(found["scores"][on_photo_N], count=count)
        labels_N = found["labels"][on_photo_N] - 1
        listed_N = (scores_N >= self.threshold).long()
        classes = self.network.config.classes
        products_C = torch.zeros(classes, dtype=torch.long).scatter_add(0, labels_N, listed_N)
        return boxes_N4[on_photo_N], scores_N, labels_N, products_C, count.float()


class Fitting(nn.Module):
    """A photo to the network's square, and its size."""

    def __init__(self, *, image_size: int, side: int) -> None:
        """`image_size`: longer side of the scaled photo, `side`: of the square, pixels."""
        super().__init__()
        self.image_size, self.side = image_size, side

    def forward(self, photo_HW3: Tensor) -> tuple[Tensor, Tensor]:
        """(float32 [1, 3, S, S] in [0, 1], float64 [2]: height and width) of a photo, uint8 RGB [H, W, 3]."""
        size_2 = torch._shape_as_tensor(photo_HW3)[:2].double()
        return fit(photo_HW3, size_2=size_2, image_size=self.image_size, side=self.side), size_2


class HalfBackbone(nn.Module):
    """A backbone that computes in bfloat16 and hands on float32 maps."""

    def __init__(self, backbone: nn.Module) -> None:
        """Wrap a backbone."""
        super().__init__()
        self.backbone = backbone

    def forward(self, photos_B3HW: Tensor) -> list[Tensor]:
        """The backbone's maps, float32."""
        with torch.autocast(photos_B3HW.device.type, dtype=torch.bfloat16, cache_enabled=False):
            maps = self.backbone(photos_B3HW)
        return [one.float() for one in maps]


def fit(photo_HW3: Tensor, *, size_2: Tensor, image_size: int, side: int) -> Tensor:
    """The photo as the network sees it, float32 [1, 3, S, S] in [0, 1]: its longer side scaled to `image_size`.

    Averages of areas where it shrinks and linear interpolation where it grows, rounded to whole grey levels, as
    OpenCV's INTER_AREA and INTER_LINEAR do it; the rest of the square repeats the photo's last row and column.
    """
    scaled_2 = (size_2 * (image_size / size_2.max())).round().clamp(min=1)
    shrinks = size_2.max() > image_size
    (rows_SK, row_weights_SK), (columns_SK, column_weights_SK) = (
        taps(size_2[axis], scaled=scaled_2[axis], shrinks=shrinks, side=side) for axis in (0, 1)
    )
    height, width = photo_HW3.shape[0], photo_HW3.shape[1]
    low_SV = resampled(photo_HW3.reshape(height, width * 3), index_SK=rows_SK, weights_SK=row_weights_SK)
    turned_WV = low_SV.reshape(side, width, 3).transpose(0, 1).reshape(width, side * 3)
    small_SV = resampled(turned_WV, index_SK=columns_SK, weights_SK=column_weights_SK)
    small_SS3 = small_SV.reshape(side, side, 3).transpose(0, 1)
    # Halves are rounded up: OpenCV does so where it halves a photo, the one case in which they are common.
    return (small_SS3 + 0.5).floor().clamp(0, 255).div(255).permute(2, 0, 1)[None]


def taps(length: Tensor, *, scaled: Tensor, shrinks: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """Which pixels of a line of `length` make each of `side` pixels, int64 [S, K], and with what weights, float32."""
    step = length / scaled
    place_S1 = torch.minimum(torch.arange(side, dtype=torch.float64), scaled - 1)[:, None]
    # A pixel is averaged from [place, place + 1) steps; a larger one lies between the two nearest pixel centres.
    start_S1 = torch.where(shrinks, place_S1 * step, (place_S1 + 0.5) * step - 0.5)
    pixel_SK = start_S1.floor() + torch.arange(torch.ceil(step).long() + 1)
    covered_SK = (torch.minimum(pixel_SK + 1, start_S1 + step) - torch.maximum(pixel_SK, start_S1)).clamp(min=0) / step
    near_SK = (1 - (start_S1 - pixel_SK).abs()).clamp(min=0)
    index_SK = torch.minimum(pixel_SK.clamp(min=0), length - 1).long()
    return index_SK, torch.where(shrinks, covered_SK, near_SK).float()


def resampled(lines_LV: Tensor, *, index_SK: Tensor, weights_SK: Tensor) -> Tensor:
    """S weighted sums of K lines each, float32 [S, V], out of L lines of V values."""
    return torch.matmul(weights_SK[:, None], lines_LV[index_SK].float())[:, 0]


def boxes_in_photo(boxes_N4: Tensor, *, size_2: Tensor, factor: Tensor) -> tuple[Tensor, Tensor]:
    """The square's boxes in the photo's pixels, clipped, and which of them lie on the photo, bool [N]."""
    limit_4 = size_2.flip(0).repeat(2).float()
    boxes_N4 = torch.minimum((boxes_N4 / factor.float()).clamp(min=0), limit_4)
    return boxes_N4, (boxes_N4[:, 2:] - boxes_N4[:, :2] >= _LEAST_SIDE).all(dim=1)


def count_on_photo(density_1Chw: Tensor, *, size_2: Tensor, factor: Tensor) -> Tensor:
    """The density's sum over the cells that lie on the photo and not on its frame, float64."""
    rows, columns = torch.ceil(size_2 * factor / COUNT_STRIDE)
    height, width = density_1Chw.shape[-2:]
    on_rows_h1 = (torch.arange(height) < rows)[:, None]
    on_columns_w = torch.arange(width) < columns
    return (density_1Chw.double() * on_rows_h1 * on_columns_w).sum()


def fused_scores(scores_N: Tensor, *, count: Tensor) -> Tensor:
    """Scores, best first, after the counting view's say, float32: `tasks.fusion` explains it."""
    rank_N = torch.arange(scores_N.shape[0], dtype=torch.float64)
    inner_N = scores_N.double().clamp(_EDGE, 1 - _EDGE)
    moved_N = torch.log(inner_N / (1 - inner_N)) + (count - rank_N - 0.5).clamp(-1, 1)
    return torch.sigmoid(moved_N).float()
