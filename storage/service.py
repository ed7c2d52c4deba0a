"""What is wrong with object storage, told as OSErrors: a service that does not answer, no credentials, no permission.

Clients of such services raise exceptions of their own; who uses a store need not know them.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_CLIENTS = ("botocore", "aiobotocore", "aiohttp")
# What callers tell apart by its class.
_KNOWN = (FileNotFoundError, FileExistsError, IsADirectoryError)


class _Answering:
    """A file system (fsspec) of a service. Its errors say which address they are about."""

    def __init__(self, inner: Any) -> None:  # noqa: ANN401 - any fsspec file system
        self._inner = inner

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the file system has
        found = getattr(self._inner, name)
        return _told(found) if callable(found) and not name.startswith("_") else found


def answering(fs: Any) -> Any:  # noqa: ANN401 - any fsspec file system
    """The file system `fs`, whose calls raise OSErrors where its service fails them.

    Raises, from any of its methods:
        ConnectionError: the service did not answer, broke off, or refused to talk (no credentials).
        OSError: it answered that something is wrong; the kind of error stays (PermissionError, errno).
    """
    return _Answering(fs)


def _told(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(*arguments: Any, **options: Any) -> Any:  # noqa: ANN401 - whatever the method takes and gives
        try:
            return method(*arguments, **options)
        except _KNOWN as error:
            raise type(error)(f"{_about(arguments)}: {error}") from error
        except Exception as error:
            # Some of the clients' own errors are OSErrors too, of classes that can't be made of a number and a text.
            if type(error).__module__.partition(".")[0] in _CLIENTS:
                text = f"{_about(arguments)}: the object storage did not answer as it should ({error})"
                raise ConnectionError(text) from error
            if not isinstance(error, OSError):
                raise
            kind = next(one for one in type(error).__mro__ if one.__module__ == "builtins")
            raise kind(error.errno, f"{_about(arguments)}: {error.strerror or error}") from error

    return call


def _about(arguments: tuple[Any, ...]) -> str:
    return str(arguments[0]) if arguments else "object storage"
