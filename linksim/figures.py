"""Matplotlib figures that need no display and are written in one step."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from linksim.files import write_atomically


def literal(text: str) -> str:
    """A user's text so that Matplotlib draws it as it is.

    Two dollar signs would begin and end a formula, and a label that starts with an
    underscore would not be in the legend.
    """
    text = text.replace("$", r"\$")
    # The zero-width space cannot be seen
    return f"\u200b{text}" if text.startswith("_") else text


def empty_figure(width: float, height: float) -> Figure:
    """A figure without axes; its size is in inches."""
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure and its axes, which have a light grid; the size is in inches."""
    figure = empty_figure(width, height)
    axes = figure.add_subplot()
    axes.grid(True, which="major", color="0.8", linewidth=0.7)
    axes.grid(True, which="minor", color="0.92", linewidth=0.4)
    return figure, axes


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a figure to a PNG file.

    Raises:
        ResultFileError: the file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
