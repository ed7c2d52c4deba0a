"""The token that an HTTP service asks for, out of a file: never on a command line, where others could read it."""

from __future__ import annotations

from pathlib import Path


def read_token(path: Path | None) -> str | None:
    """The token in a file, None without a file.

    Raises:
        ValueError: the file is empty, or not there.
    """
    try:
        token = path.read_text().strip() if path else None
    except OSError as error:
        raise ValueError(f"token: expected a file with a token, got {path} ({error.strerror})") from error
    if token == "":
        raise ValueError(f"token: expected a token in {path}, got an empty file")
    return token
