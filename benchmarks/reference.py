"""Writes docs/reference.md out of the code: commands with their options, settings of the stages, presets, environment.

    python -m benchmarks.reference [--out docs/reference.md]

A test compares the page with what this writes, so that nothing is undocumented.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Iterator, Mapping
from inspect import Parameter
from pathlib import Path
from typing import get_args

from cyclopts import App
from cyclopts.argument import Argument
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from flows.cli import app
from flows.endings import end_with_code
from flows.presets import PRESETS, Preset
from storage.digest import JSON
from tasks.params import LevelParams, RefineParams, StageParams, View

PAGE = Path(__file__).parents[1] / "docs" / "reference.md"
_HEAD = """# Reference

Every command, option, setting, preset and variable of the environment. Written by `python -m benchmarks.reference`; a
test holds it equal to the code.

- [Commands](#commands) · [Settings of the stages](#settings-of-the-stages) · [Presets](#presets) ·
  [Environment](#environment)
"""
_SETTINGS = """## Settings of the stages

What a preset fills in, and what enters a stage's key. `seed` is a setting of all of them. A preset of your own is a
function in `flows/presets.py` that changes what differs; values are checked when it is made.
"""
_PRESETS = """## Presets

What each sets otherwise than the defaults above. `train` and `select` have settings for each rung of the ladder; those
of the first are shown, and the steps of all.
"""
_GROUPS: tuple[tuple[type[BaseModel], str], ...] = (
    (RefineParams, "`refine` of `saliency` and `segment`"),
    (LevelParams, "`levels` of `compose`"),
    (View, "`view` of `predict`"),
)
_ENVIRONMENT = {
    "TALLY_STORE": "the artifact store where none is named (`--store`)",
    "TALLY_CACHE": "folder for what was read from a remote store; `~/.cache/tally`",
    "TALLY_CACHE_GIGABYTES": "most of it; 20",
    "TALLY_HOME": "working directory of deployed flows: relative paths of their parameters start there",
    "TALLY_INSPECTOR_URL": "where links in Prefect's artifacts lead; `http://127.0.0.1:8420`",
    "TALLY_TRAINING_LIMIT": "the Prefect concurrency limit that a training holds a slot of; none when unset",
    "TALLY_PROCESSES": "processes of a training; one a GPU, or one",
    "TALLY_NODES": "machines that train together; 1",
    "TALLY_RENDEZVOUS": "`host:port` of the first of them; needed from 2 on",
    "PREFECT_API_URL": "a Prefect server; without one a run starts Prefect inside itself",
    "PREFECT_API_AUTH_STRING": "user and password of that server",
    "AWS_ENDPOINT_URL": "an S3 service other than Amazon's; `AWS_ENDPOINT_URL_S3` goes before it",
    "AWS_ENDPOINT_URL_S3": "the same",
}


def page() -> str:
    """The whole page."""
    parts = [_HEAD, "## Commands\n", *_commands(app, words=("tally",)), _SETTINGS, *_stages(), _PRESETS, *_presets()]
    rows = ((f"`{name}`", text) for name, text in _ENVIRONMENT.items())
    environment = ["## Environment\n", _table(("variable", "meaning"), rows)]
    return "\n".join([*parts, *environment])


def documented_variables() -> set[str]:
    """The variables of the environment that the page names."""
    return set(_ENVIRONMENT)


def _commands(command: App, *, words: tuple[str, ...]) -> Iterator[str]:
    """A section for each command, with those under it."""
    names = [name for name in command if not name.startswith("-")]
    for name in names:
        yield from _commands(command[name], words=(*words, name))
    if names:
        return
    arguments = [one for one in command.assemble_argument_collection(parse_docstring=True) if one.show]
    yield f"### `{' '.join(words)}`\n\n{_summary(command)}\n"
    rows = [
        (_names(one), _value(_told_default(one), required=one.required), _sentence(one.parameter.help))
        for one in arguments
    ]
    if rows:
        yield _table(("option", "default", "meaning"), rows)


def _summary(command: App) -> str:
    """The first paragraphs of a command's help, in one line each."""
    paragraphs = [" ".join(part.split()) for part in command.help.split("\n\n")]
    return "\n\n".join(one for one in paragraphs if one and not one.startswith(("Args:", "Raises:")))


def _names(argument: Argument) -> str:
    """What to write: a value in its place, or the option; of a switch the way that it is not set already."""
    if argument.index is not None and argument.required:
        return f"`{argument.name.lstrip('-').upper()}`"
    switched = [name for name in argument.names if name.startswith("--no-") == (argument.field_info.default is True)]
    return f"`{(switched or argument.names)[0]}`"


def _told_default(argument: Argument) -> object:
    """What is not said is meant; of a switch the option itself tells."""
    default = argument.field_info.default
    return None if isinstance(default, bool) else default


def _value(value: object, *, required: bool) -> str:
    if required:
        return "required"
    nothing = isinstance(value, (str, tuple, dict)) and not value
    return "" if nothing or value is None or value is Parameter.empty else f"`{value}`"


def _sentence(text: str | None) -> str:
    return " ".join((text or "").split()).rstrip(".").replace("|", "\\|")


def _stages() -> Iterator[str]:
    """A table of settings for each stage, and for the groups of settings in them."""
    for params in _stage_classes(StageParams):
        shared = {name for base in params.__mro__[1:] for name in getattr(base, "model_fields", {})}
        own = {name: field for name, field in params.model_fields.items() if name not in shared}
        parent = params.__mro__[1]
        also = f" All settings of `{parent.stage}`, and:" if parent is not StageParams else ""
        yield f"### `{params.stage}`\n\n{_first_line(params)}{also}\n"
        if own:
            yield _field_table(own)
    for group, where in _GROUPS:
        yield f"### {where}\n\n{_first_line(group)}\n"
        yield _field_table(group.model_fields)


def _stage_classes(base: type[StageParams]) -> Iterator[type[StageParams]]:
    for one in base.__subclasses__():
        # Subclasses made elsewhere, by tests for instance, are no stages of the product.
        if one.__module__ == StageParams.__module__:
            yield one
            yield from _stage_classes(one)


def _first_line(model: type[BaseModel]) -> str:
    return (model.__doc__ or "").split("\n\n")[0].replace("\n    ", " ").strip()


def _field_table(fields: Mapping[str, FieldInfo]) -> str:
    rows = [
        (f"`{name}`", _default(field), _sentence(field.description) + _choices(field)) for name, field in fields.items()
    ]
    return _table(("setting", "default", "meaning"), rows)


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    if isinstance(field.default, BaseModel):
        return "see below"
    value = field.default
    if isinstance(value, dict) and any(isinstance(one, BaseModel) for one in value.values()):
        return "; ".join(f"{name}: {', '.join(f'{key} {part}' for key, part in one)}" for name, one in value.items())
    return _value(value, required=False)


def _choices(field: FieldInfo) -> str:
    """The values that a setting may have, where they are listed."""
    values = [one for one in get_args(field.annotation) if isinstance(one, str)]
    return f" ({', '.join(values)})" if values else ""


def _presets() -> Iterator[str]:
    defaults = {name: field.default for name, field in Preset.model_fields.items()}
    for name, make in PRESETS.items():
        preset = make()
        changed = dict(_changes(preset, defaults=defaults))
        yield f"### `{name}`\n\n{(make.__doc__ or '').strip()}\n"
        yield _table(("setting", "value"), ((f"`{key}`", f"`{value}`") for key, value in changed.items()))


def _changes(preset: Preset, *, defaults: Mapping[str, object]) -> Iterator[tuple[str, JSON]]:
    for name, value in preset:
        if name == "name":
            continue
        if isinstance(value, dict):
            first = next(iter(value.values()))
            yield from _differences(first, type(first)(), prefix=name)
            for rung, one in value.items():
                if hasattr(one, "steps"):
                    yield f"{name}.{rung}.steps", one.steps
        elif isinstance(value, BaseModel):
            default = defaults[name]
            assert isinstance(default, BaseModel), f"preset.{name} has no default"
            yield from _differences(value, default, prefix=name)
        elif value != defaults[name]:
            yield name, value


def _differences(value: BaseModel, default: BaseModel, *, prefix: str) -> Iterator[tuple[str, JSON]]:
    for name, one in value:
        other = getattr(default, name)
        if isinstance(one, BaseModel) and isinstance(other, BaseModel):
            yield from _differences(one, other, prefix=f"{prefix}.{name}")
        elif one != other and (prefix, name) != ("train", "steps"):
            yield f"{prefix}.{name}", one


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows)]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PAGE, help="the file")
    parser.parse_args().out.write_text(page())


if __name__ == "__main__":
    end_with_code(main)
