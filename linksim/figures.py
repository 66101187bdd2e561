"""Matplotlib figures without a display, written in one step."""

import io

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from linksim.files import write_atomically


def empty_figure(width, height):
    """A figure of that many inches, without axes."""
    figure = Figure(figsize=(width, height), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def new_figure(width, height):
    """A figure of that many inches, and its axes with a light grid."""
    figure = empty_figure(width, height)
    axes = figure.add_subplot()
    axes.grid(True, which="major", color="0.8", linewidth=0.7)
    axes.grid(True, which="minor", color="0.92", linewidth=0.4)
    return figure, axes


def save_figure(figure, path):
    """Replace a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    write_atomically(path, buffer.getvalue())
