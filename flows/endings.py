"""How every command ends: the errors that a user can cause become one clear line and an exit code."""

from __future__ import annotations

import sys
from collections.abc import Callable

from cyclopts import CycloptsError
from pydantic import ValidationError
from rich.console import Console

from flows.interruption import EXIT_INTERRUPTED, INTERRUPTED
from flows.refusals import refusal, trouble

EXIT_FAILED, EXIT_USAGE, EXIT_DAMAGED = 1, 2, 3


def end_with_code(command: Callable[[], object]) -> None:
    """Run `command`; where it fails say why in one line and end the process with the code that belongs to it."""
    console = Console(stderr=True)
    try:
        command()
    except KeyboardInterrupt:
        console.print(INTERRUPTED)
        sys.exit(EXIT_INTERRUPTED)
    except (ValueError, CycloptsError) as error:
        console.print(f"error: {_message(error)}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(EXIT_USAGE)
    except (RuntimeError, OSError) as error:
        console.print(f"failed: {trouble(error)}", style="red", highlight=False, markup=False, soft_wrap=True)
        sys.exit(EXIT_FAILED)


def _message(error: Exception) -> str:
    """What is wrong; for options that pydantic refused one line each: the key, what was expected, what it got."""
    refused = next((one for one in (error, error.__cause__) if isinstance(one, ValidationError)), None)
    return str(error) if refused is None else refusal(refused)
