import errno
import os

import pytest

from inspector import picture_cache
from inspector.picture_cache import PictureCache


def test_get__makes_a_picture_once(tmp_path):
    cache, made = PictureCache(tmp_path / "cache"), []

    def make():
        made.append(1)
        return b"picture"

    assert [cache.get(["a", 1], make) for _ in range(3)] == [b"picture"] * 3
    assert PictureCache(tmp_path / "cache").get(["a", 1], make) == b"picture"
    assert len(made) == 1
    assert cache.get(["a", 2], lambda: b"other") == b"other"


def test_get__names_nothing_after_what_was_asked(tmp_path):
    PictureCache(tmp_path).get("../../secret", lambda: b"x")
    [path] = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert path.name.isalnum() and len(path.name) == 64


def test_get__a_failure_leaves_nothing(tmp_path):
    cache = PictureCache(tmp_path)
    with pytest.raises(ValueError, match="broken"):
        cache.get("a", lambda: (_ for _ in ()).throw(ValueError("broken")))
    assert cache.get("a", lambda: b"fine") == b"fine"


def test_sweep__removes_the_oldest_until_the_rest_fits(tmp_path):
    cache = PictureCache(tmp_path, most_bytes=25)
    for number in range(4):
        cache.get(number, lambda: bytes(10))
    paths = sorted((path for path in tmp_path.rglob("*") if path.is_file()), key=lambda path: path.stat().st_mtime_ns)
    for age, path in enumerate(paths):
        os.utime(path, (age, age))
    cache.sweep()
    assert [path for path in paths if path.exists()] == paths[2:]


def test_get__a_picture_that_can_not_be_kept_is_shown(tmp_path, monkeypatch, caplog):
    def full(path, data, *, sync):
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(picture_cache, "replace_file", full)
    assert PictureCache(tmp_path / "cache").get(["a"], lambda: b"picture") == b"picture"
    assert "No space left" in caplog.text
