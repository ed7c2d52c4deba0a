"""What the report's sections are made of: figures with their text alternatives, in rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from inspector.pictures import data_uri
from storage.images import Picture
from storage.store import DamagedArtifactError


@dataclass(frozen=True, slots=True, kw_only=True)
class Figure:
    """One picture with its text alternative; `source` is a data URI, "" where the picture can't be shown."""

    source: str
    alt: str
    caption: str
    status: str = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """Figures in numbers; the first cell of a row names it, and the row `marked` stands out."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    marked: int = -1


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """One part of the report: figures in rows, each row read from left to right, and perhaps a table before them."""

    identifier: str
    title: str
    text: str
    rows: list[list[Figure]] = field(default_factory=list)
    table: Table | None = None


def figure(make: Callable[[], Picture], *, alt: str, caption: str, status: str = "ok") -> Figure:
    """The figure of a picture that is made here; one that can't be made says why in its caption."""
    try:
        return Figure(source=data_uri(make()), alt=alt, caption=caption, status=status)
    except (DamagedArtifactError, ValueError) as error:
        return Figure(source="", alt=alt, caption=f"{caption} (cannot be shown: {error})", status=status)
