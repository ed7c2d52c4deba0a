"""The decorator of compiled inner loops. They hold no lock, so threads run side by side.

Compiled code is kept beside the source, or in the user's cache folder, so that only the first run waits for it. Such a
cache notices changes of one file, so compiled functions call none of another file's and take their constants from
their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from numba import njit

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def compiled(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """`function` compiled for the types that it is first called with."""
    try:
        made: Callable[Parameters, Result] = njit(cache=True, nogil=True)(function)
    except RuntimeError:
        # Neither folder can be written to: compiled anew in every process.
        made = njit(nogil=True)(function)
    return made
