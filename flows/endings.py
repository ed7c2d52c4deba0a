"""How every command ends: the errors that a user can cause become one clear line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cyclopts import CycloptsError, UnusedCliTokensError
from pydantic import ValidationError
from rich.console import Console

from flows.interruption import EXIT_INTERRUPTED, INTERRUPTED
from flows.refusals import refusal, trouble

EXIT_FAILED, EXIT_USAGE, EXIT_DAMAGED = 1, 2, 3


def end_with_code(command: Callable[[], object], *, name: str = "tally") -> None:
    """Run `command`; where it fails say why in one line and end the process with the code that belongs to it.

    `name`: what a user types to start it, for the way to its help.
    """
    console = Console(stderr=True)
    try:
        command()
    except KeyboardInterrupt:
        console.print(INTERRUPTED)
        sys.exit(EXIT_INTERRUPTED)
    except (ValueError, CycloptsError) as error:
        console.print(
            f"error: {_message(error, name=name)}", style="red", highlight=False, markup=False, soft_wrap=True
        )
        sys.exit(EXIT_USAGE)
    except (NotADirectoryError, IsADirectoryError) as error:
        # A place that was named wrongly: no disk could do better.
        console.print(f"error: {trouble(error)}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(EXIT_USAGE)
    except (RuntimeError, OSError) as error:
        console.print(f"failed: {trouble(error)}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(EXIT_FAILED)


def _message(error: Exception, *, name: str) -> str:
    """What is wrong; for options that pydantic refused one line each: the key, what was expected, what it got."""
    refused = next((one for one in (error, error.__cause__) if isinstance(one, ValidationError)), None)
    if refused is not None:
        return refusal(refused)
    if not isinstance(error, CycloptsError):
        return str(error)
    said = str(error)
    if isinstance(error, UnusedCliTokensError):
        left = " ".join(error.unused_tokens or ())
        said = f"expected no further words, got {left}; options begin with --, globs are quoted."
    return f"{said} `{' '.join((name, *(error.command_chain or ())))} --help` tells what there is."
