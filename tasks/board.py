"""Stage `board`: empty boards recovered from the pool, and the look of the pool's photos.

Rows: "board/00" (the board that most photos show), "board/01", …: PNG at the size of the pool's photos. Attributes:
`photos` (how many it was made of), `holes`, `looks` (one per photo, `tasks.look.PhotoLook`), `blobs` ((long, short)
sides of single products), `tones` (percentiles of the products' colours), `places` (where products lie),
`jpeg_quality` (of the files). Photos of the empty board that the user gives take the place of
recovered boards, each where it fits best, under the recovered board's light. Without
a pool and without such photos, the board is a plain grey one, and its row has no looks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from storage.images import decode_rgb, encode_png
from storage.manifest import Manifest, ManifestRow
from tasks.empty_board import EmptyBoard, board_groups, recover_board, shrink
from tasks.light import Floats, fit_surface, light_gain, surface_terms
from tasks.look import (
    PhotoLook,
    detail_share,
    jpeg_quality_of,
    noise_level,
    places_of,
    product_mask,
    product_score,
    shadow_profile,
    shadow_reach,
    single_blobs,
    tone_levels,
)
from tasks.params import BoardParams
from tasks.stage import stage

if TYPE_CHECKING:
    from tasks.context import StageContext

Photos = NDArray[np.uint8]
Mask = NDArray[np.bool_]


def photo_look(photo_HW3: Photos, *, light_C6: Floats, departure_hw3: Floats, products_hw: Mask) -> PhotoLook:
    """The look of one photo whose board and light are known."""
    height, width = photo_HW3.shape[:2]
    bare_hw = np.abs(departure_hw3).max(-1) < 0.05
    grey_HW = cv2.cvtColor(photo_HW3, cv2.COLOR_RGB2GRAY).astype(np.float32)
    ambient, directed, angle = shadow_profile(departure_hw3, products_hw=products_hw)
    return PhotoLook(
        light_C6=[[round(float(value), 5) for value in row] for row in light_C6],
        noise=round(noise_level(photo_HW3, bare_HW=_enlarged(bare_hw, height=height, width=width)), 4),
        detail=round(detail_share(grey_HW, mask_HW=_well_inside(products_hw, height=height, width=width)), 5),
        ambient=round(ambient, 4),
        directed=round(directed, 4),
        angle=round(angle, 4),
        reach=round(shadow_reach(departure_hw3, products_hw=products_hw, angle=angle), 3),
    )


def _well_inside(products_hw: Mask, *, height: int, width: int) -> Mask:
    """The products at the photo's size without a rim, which may show board."""
    core_hw = cv2.erode(products_hw.astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    return _enlarged(core_hw, height=height, width=width)


def levelled_colours(photo_HW3: Photos, *, light_C6: Floats, products_hw: Mask, most: int = 4000) -> Floats:
    """Colours of the products as they would be under the board's own light, float32 [M, 3]."""
    height, width = photo_HW3.shape[:2]
    rows_M, columns_M = np.nonzero(_well_inside(products_hw, height=height, width=width))
    some = slice(None, None, max(1, len(rows_M) // most))
    gain_HW3 = light_gain(light_C6, height=height, width=width)
    levelled_M3 = photo_HW3[rows_M[some], columns_M[some]] / gain_HW3[rows_M[some], columns_M[some]]
    return levelled_M3.astype(np.float32)


def _enlarged(mask_hw: Mask, *, height: int, width: int) -> Mask:
    return np.asarray(cv2.resize(mask_hw.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST) > 0)


def board_attributes(photos_PHW3: Photos, *, board: EmptyBoard, saliency: Floats | None) -> dict[str, Any]:
    """Everything that a board's row says about the photos it was made of."""
    height, width = photos_PHW3.shape[1:3]
    looks, blobs, masks, pixels = [], [], [], []
    for index, (photo_HW3, light_C6) in enumerate(zip(photos_PHW3, board.lights_PC6, strict=True)):
        departure_hw3 = board.departures_Phw3[index]
        score_hw = product_score(departure_hw3, saliency_hw=None if saliency is None else saliency[index])
        products_hw = product_mask(score_hw)
        looks.append(photo_look(photo_HW3, light_C6=light_C6, departure_hw3=departure_hw3, products_hw=products_hw))
        blobs.append(single_blobs(score_hw, height=height, width=width))
        masks.append(products_hw)
        pixels.append(levelled_colours(photo_HW3, light_C6=light_C6, products_hw=products_hw))
    return {
        "photos": len(photos_PHW3),
        "holes": round(board.holes, 5),
        "looks": [look.to_json() for look in looks],
        "blobs": [[round(float(long), 2), round(float(short), 2)] for long, short in np.concatenate(blobs)],
        "tones": tone_levels(np.concatenate(pixels)) if sum(map(len, pixels)) >= 100 else [],
        "places": [[round(float(value), 6) for value in row] for row in places_of(masks)],
    }


def fitting_board(given: Sequence[Photos], *, board_HW3: Floats) -> Photos:
    """The given photo of an empty board that is most like the recovered one, at its size and under its light."""
    return min((_levelled(one_HW3, board_HW3=board_HW3) for one_HW3 in given), key=lambda fit: fit[1])[0]


def _levelled(given_HW3: Photos, *, board_HW3: Floats) -> tuple[Photos, float]:
    """A given photo at the board's size, its light made that of the board; and how much still differs."""
    height, width = board_HW3.shape[:2]
    sized_HW3 = np.asarray(cv2.resize(given_HW3, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    small_hw3, target_hw3 = shrink(sized_HW3), shrink(np.clip(np.rint(board_HW3), 0, 255).astype(np.uint8))
    ratios_M3 = (np.log(np.maximum(target_hw3, 1)) - np.log(np.maximum(small_hw3, 1))).reshape(-1, 3)
    terms_M6 = surface_terms(*small_hw3.shape[:2]).reshape(-1, 6)
    light_C6 = fit_surface(terms_M6, ratios_M3)
    lit_HW3 = np.clip(np.rint(sized_HW3 * light_gain(light_C6, height=height, width=width)), 0, 255)
    return lit_HW3.astype(np.uint8), float(np.abs(ratios_M3 - terms_M6 @ light_C6.T).mean())


def chosen_rows(pool: Manifest, *, most: int) -> list[ManifestRow]:
    """At most `most` usable photos of the pool's most common size, spread over its order (cameras drift in time)."""
    sizes: dict[tuple[int | None, int | None], list[ManifestRow]] = {}
    for row in pool.ok:
        sizes.setdefault((row.width, row.height), []).append(row)
    if not sizes:
        raise ValueError(f"pool: expected at least one usable photo in {pool.url}, got none")
    rows = max(sizes.values(), key=len)
    return [rows[index] for index in np.unique(np.linspace(0, len(rows) - 1, min(most, len(rows))).round().astype(int))]


def saliency_predictor(context: StageContext, network: Manifest, *, working_size: int) -> Callable[[Photos], Floats]:
    """Function photo -> probability of a product at the working size of board recovery."""
    from tasks.saliency import predict_saliency, read_network

    loaded = read_network(context, network)

    def predict(photo_HW3: Photos) -> Floats:
        salient_HW = predict_saliency(loaded, photo_HW3, working_size=working_size)
        return np.asarray(shrink((salient_HW * 255).astype(np.uint8)) / 255, np.float32)

    return predict


def plain_board(side: int) -> Photos:
    """A light grey board that is a little darker towards its edges, uint8 [side, side, 3]."""
    across = np.linspace(-1, 1, side, dtype=np.float32)
    light_HW = 165 - 20 * (np.square(across)[:, None] + np.square(across)[None, :])
    return np.repeat(np.rint(light_HW).astype(np.uint8)[..., None], 3, axis=-1)


def _publish_unseen(context: StageContext, *, params: BoardParams, own: Manifest | None) -> None:
    """Boards when there is no pool to learn from: the user's, or a plain one."""
    context.log("no pool photos: boards say nothing about light, sizes and colours there")
    pictures = [plain_board(params.plain_side)] if own is None else [context.read_rgb(row) for row in own.ok]
    for number, picture_HW3 in enumerate(pictures):
        _publish(context, picture_HW3, number=number, parents=(), attributes={"photos": 0})


def _publish(
    context: StageContext, picture_HW3: Photos, *, number: int, parents: tuple[str, ...], attributes: dict[str, Any]
) -> None:
    row = ManifestRow(
        item_id=f"board/{number:02d}",
        media_type="image/png",
        width=picture_HW3.shape[1],
        height=picture_HW3.shape[0],
        parents=parents,
        attributes=attributes,
    )
    context.put(encode_png(picture_HW3), path=f"{number:02d}.png", row=row)


@stage(BoardParams)
def board(
    context: StageContext,
    *,
    params: BoardParams,
    pool: Manifest,
    network: Manifest | None = None,
    own: Manifest | None = None,
) -> None:
    """Recover the boards; see the module's docstring. `own`: photos of the empty board by the user."""
    if not pool.ok:
        _publish_unseen(context, params=params, own=own)
        return
    rows = chosen_rows(pool, most=params.photos)
    files = list(context.map(context.read, rows, what="pool photos"))
    photos_PHW3 = np.stack(list(context.map(decode_rgb, files, what="pool photos decoded")))
    qualities = [quality for quality in map(jpeg_quality_of, files) if quality is not None]
    predict = None if network is None else saliency_predictor(context, network, working_size=params.working_size)
    saliency = None if predict is None else list(context.map(predict, list(photos_PHW3), what="saliency"))
    given = [] if own is None else [context.read_rgb(row) for row in own.ok]
    for number, group in enumerate(board_groups(photos_PHW3, most=params.boards)):
        maps = None if saliency is None else np.stack([saliency[index] for index in group])
        found = recover_board(photos_PHW3[group], products_Phw=maps)
        attributes = board_attributes(photos_PHW3[group], board=found, saliency=maps)
        attributes["jpeg_quality"] = int(np.median(qualities)) if qualities else None
        picture_HW3 = np.clip(np.rint(found.board_HW3), 0, 255).astype(np.uint8)
        if given:
            picture_HW3 = fitting_board(given, board_HW3=found.board_HW3)
        parents = tuple(rows[index].item_id for index in group)
        _publish(context, picture_HW3, number=number, parents=parents, attributes=attributes)
        context.report(**{f"holes_{number:02d}": found.holes, f"photos_{number:02d}": float(len(group))})
