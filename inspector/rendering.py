"""The inspector's templates, its static files, and the words in which pages tell times and nested values."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape

from storage.digest import JSON, digest_bytes

ASSET_TYPES = {"css": "text/css", "js": "text/javascript", "svg": "image/svg+xml"}


def templates() -> Environment:
    """The inspector's templates: everything put into them is escaped, a missing name is an error."""
    environment = Environment(
        loader=ChoiceLoader([PackageLoader("inspector"), PackageLoader("inspector", "static")]),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["seconds"] = as_time
    environment.globals["asset"] = asset_address
    return environment


@cache
def asset_bytes() -> dict[str, bytes]:
    """The static files by name; nothing else is ever served as one."""
    folder = files("inspector") / "static"
    return {one.name: one.read_bytes() for one in folder.iterdir() if one.name.rsplit(".", 1)[-1] in ASSET_TYPES}


def asset_address(name: str) -> str:
    """Where a static file is; changes with its content, so that browsers may keep it."""
    return f"/static/{name}?v={digest_bytes(asset_bytes()[name])[:8]}"


def flat(value: JSON, *, prefix: str = "") -> list[tuple[str, Any]]:
    """Nested parameters as (dotted name, value), in their order."""
    if not isinstance(value, dict):
        return [(prefix, value)]
    return [
        pair for name, inner in value.items() for pair in flat(inner, prefix=f"{prefix}.{name}" if prefix else name)
    ]


def as_time(seconds: float) -> str:
    """Seconds as people read them: 4.2 s, 3 min 05 s, 1 h 02 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"
