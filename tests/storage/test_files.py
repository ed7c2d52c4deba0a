"""Files of a store on disk as several processes write them side by side."""

from pathlib import Path

import pytest

from storage.files import sync_tree


def test_sync_tree__another_writers_file_is_gone_before_its_turn(tmp_path: Path) -> None:
    folder = tmp_path / "stage" / "key"
    folder.mkdir(parents=True)
    (folder / "photo.jpg").write_bytes(b"photo")
    # A name that is listed and can't be opened, as after the other writer's rename.
    (folder / ".manifest.parquet.07d626e7").symlink_to("gone")

    sync_tree(folder, root=tmp_path)

    assert (folder / "photo.jpg").read_bytes() == b"photo"


def test_sync_tree__a_file_of_the_folder_that_cannot_be_made_durable_is_an_error(tmp_path: Path) -> None:
    folder = tmp_path / "key"
    folder.mkdir()
    (folder / "photo.jpg").symlink_to("gone")

    with pytest.raises(FileNotFoundError, match=r"photo\.jpg"):
        sync_tree(folder, root=tmp_path)
