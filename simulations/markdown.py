"""Tables of the pages in results/, as Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any


def table(header: Sequence[Any], rows: Iterable[Iterable[Any]]) -> list[str]:
    """The lines of a table.

    Args:
        header: titles of the columns.
        rows: the cells of each row, as many; texts of a user without a "|".
    """
    return [_line(header), "|---" * len(header) + "|", *map(_line, rows)]


def _line(cells):
    return "| " + " | ".join(map(str, cells)) + " |"
