"""What is wrong with a value that a user gave, in one form everywhere: "key: expected …, got …".

And what is wrong with a machine that a program needs: a disk, a permission, a service, with what to do about it.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

MAX_PORT = 65535
_EXPECTED = {
    "missing": "a value",
    "extra_forbidden": "no such key",
    "literal_error": "{expected}",
    "string_pattern_mismatch": "text that matches {pattern}",
    "greater_than_equal": "at least {ge}",
    "greater_than": "more than {gt}",
    "less_than_equal": "at most {le}",
    "less_than": "less than {lt}",
    "multiple_of": "a multiple of {multiple_of}",
}


Options = TypeVar("Options", bound=BaseModel)


def checked(model: type[Options], values: Mapping[str, Any]) -> Options:
    """The options that `values` stand for.

    Raises:
        ValueError: one line for each value that is wrong.
    """
    try:
        return model(**values)
    except ValidationError as error:
        raise ValueError(refusal(error)) from error


def require_within(key: str, value: float | None, *, least: float, most: float) -> None:
    """Refuse a number of the command line that is out of bounds; None is none.

    Raises:
        ValueError: it is.
    """
    if value is not None and not least <= value <= most:
        raise ValueError(f"{key}: expected {least:g} to {most:g}, got {value:g}")


def refusal(error: ValidationError) -> str:
    """One line for each value that was refused."""
    return "\n".join(_line(one) for one in error.errors(include_url=False))


def _line(wrong: Mapping[str, Any]) -> str:
    if wrong["type"] == "value_error":
        # Raised by our own validators, which write whole lines.
        return str(wrong["ctx"]["error"])
    key = ".".join(map(str, wrong["loc"])) or "options"
    pattern = _EXPECTED.get(wrong["type"])
    if pattern is None:
        expected = wrong["msg"].removeprefix("Input should be ").removeprefix("a valid ")
    else:
        expected = pattern.format(**wrong.get("ctx", {}))
    got = "nothing" if wrong["type"] == "missing" else repr(wrong["input"])
    return f"{key}: expected {expected}, got {got}"


_REMEDIES = {
    errno.ENOSPC: "make room (`tally gc` tells what can go) and run the same command again",
    errno.EDQUOT: "make room within your quota (`tally gc` tells what can go) and run the same command again",
    errno.EROFS: "the file system is read-only: mount it for writing, or name another --store or --runs",
    errno.EACCES: "give this user the permission, or name another --store or --runs",
    errno.EPERM: "give this user the permission, or name another --store or --runs",
    errno.ENOTDIR: "a file lies where a folder belongs: name another place",
    errno.EISDIR: "a folder lies where a file belongs: name the file",
    errno.EIO: "the disk could not do it: look at the system's log, then run the same command again",
    errno.EMFILE: "raise the limit of open files (ulimit -n) and run the same command again",
}


def trouble(error: Exception) -> str:
    """What went wrong and what to do about it, in one line."""
    if not isinstance(error, OSError):
        return str(error)
    where = f"{error.filename}: " if error.filename else ""
    # Errors of services have no number, or text of their own behind it.
    what = error.strerror or str(error)
    remedy = _REMEDIES.get(error.errno or 0, "what is finished is kept: run the same command again to go on from here")
    return f"{where}{what}; {remedy}"
