import pytest

from flows.token_file import read_token


def test_read_token__one_line_or_a_clear_error(tmp_path):
    (tmp_path / "token").write_text("secret\n")
    (tmp_path / "empty").write_text(" \n")
    assert (read_token(tmp_path / "token"), read_token(None)) == ("secret", None)
    for name, message in (("empty", "got an empty file"), ("none", "expected a file with a token")):
        with pytest.raises(ValueError, match=message):
            read_token(tmp_path / name)
