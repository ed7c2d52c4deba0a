import numpy as np
import pytest

from storage.images import decode_rgb, encode_png
from storage.manifest import ManifestRow
from storage.store import Store
from tasks.board import board, chosen_rows, fitting_board
from tasks.look import PLACES, PhotoLook
from tasks.params import BoardParams
from tasks.stage import run_stage_locally
from tests.tasks.composing_cases import board_picture, committed, pool_of


def test_board__publishes_the_board_and_the_pools_look(tmp_path):
    store = Store.open(str(tmp_path))
    made = run_stage_locally(board, BoardParams(), store=store, pool=pool_of(store, photos=20))
    row = made.row("board/00")
    found = decode_rgb(store.read(row)).astype(float)
    error = found / np.exp(np.mean(np.log(found) - np.log(board_picture()), axis=(0, 1))) - board_picture()
    assert np.abs(error).mean() < 2
    assert row.attributes["photos"] == len(row.attributes["looks"]) == len(row.parents) == 20
    assert PhotoLook(**row.attributes["looks"][0]).directed > 0
    assert abs(row.attributes["jpeg_quality"] - 85) <= 1
    assert np.shape(row.attributes["places"]) == (PLACES, PLACES)
    assert np.shape(row.attributes["tones"])[0] == 3


def test_board__same_bytes_with_any_number_of_workers(tmp_path):
    digests = set()
    for workers in (1, 3):
        store = Store.open(str(tmp_path / str(workers)))
        made = run_stage_locally(board, BoardParams(), store=store, workers=workers, pool=pool_of(store))
        digests.add(made.content_digest)
    assert len(digests) == 1


def test_board__the_users_own_board_takes_the_place_of_the_recovered_one(tmp_path):
    store = Store.open(str(tmp_path))
    mine = np.full((80, 80, 3), 99, np.uint8)
    own = committed(store, "own", [(ManifestRow(item_id="own/a", width=80, height=80), encode_png(mine))])
    made = run_stage_locally(board, BoardParams(), store=store, pool=pool_of(store), own=own)
    picture = decode_rgb(store.read(made.row("board/00")))
    assert picture.shape == board_picture().shape
    # Its own light is even; what it gets is the pool's.
    assert np.abs(picture.astype(int) - board_picture()).mean() < 3
    assert made.row("board/00").attributes["looks"]


def test_fitting_board__the_most_alike_under_the_recovered_light():
    board = board_picture().astype(np.float32)
    stained = board.copy()
    stained[60:90, 60:90] *= 0.8
    ramp = np.linspace(0.7, 1.2, board.shape[1])[None, :, None]
    given = [np.clip(one * ramp, 0, 255).astype(np.uint8) for one in (stained, board)]
    found = fitting_board(given, board_HW3=board)
    assert np.abs(found - board).mean() < 1.5
    assert np.abs(found[70:80, 70:80] - board[70:80, 70:80]).max() < 6


def test_board__without_a_pool_there_is_a_plain_board(tmp_path):
    store = Store.open(str(tmp_path))
    nothing = committed(store, "pool", [(ManifestRow(item_id="pool/1", status="quarantined", reason="broken"), None)])
    made = run_stage_locally(board, BoardParams(plain_side=96), store=store, pool=nothing)
    picture = decode_rgb(store.read(made.row("board/00")))
    assert picture.shape == (96, 96, 3) and picture[48, 48, 0] > picture[0, 0, 0]
    assert "looks" not in made.row("board/00").attributes


def test_chosen_rows__one_size_spread_over_the_pool(tmp_path):
    store = Store.open(str(tmp_path))
    rows = [(ManifestRow(item_id=f"pool/{n:02d}", width=64 if n % 5 else 32, height=64), None) for n in range(25)]
    chosen = chosen_rows(committed(store, "pool", rows), most=5)
    assert {row.width for row in chosen} == {64}
    assert chosen[0].item_id == "pool/01" and chosen[-1].item_id == "pool/24" and len(chosen) == 5
    with pytest.raises(ValueError, match="pool"):
        chosen_rows(committed(store, "empty", [(ManifestRow(item_id="pool/1", status="quarantined"), None)]), most=5)
