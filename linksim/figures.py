"""Matplotlib figures that need no display and are written in one step."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.container import Container
from matplotlib.figure import Figure
from matplotlib.transforms import Bbox
from PIL import Image

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
    figure, panels = new_panels(1, width, height)
    return figure, panels[0]


def new_panels(count: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure and its axes side by side with one vertical scale, as `new_figure`."""
    figure = empty_figure(width, height)
    panels = list(figure.subplots(1, count, sharey=True, squeeze=False)[0])
    for axes in panels:
        axes.grid(True, which="major", color="0.8", linewidth=0.7)
        axes.grid(True, which="minor", color="0.92", linewidth=0.4)
    return figure, panels


def set_title(figure: Figure, text: str, fontsize: float = 11) -> None:
    """Give a figure a title, in as many lines as its width needs.

    Args:
        figure: the figure.
        text: what Matplotlib draws; a user's text is made so by `literal`.
        fontsize: in points.
    """
    figure.suptitle(text, fontsize=fontsize, wrap=True)


def ordered_legend(axes: Axes, rising: bool = False) -> tuple[list[Any], list[str]]:
    """Handles and labels of a legend, from top to bottom as the eye meets the curves.

    That is their order at the right end. Curves that end at different places, as error
    rates do, are ordered at the level that most of them cross: the one that crosses it last
    is at the top.

    A curve without a point comes last.

    Args:
        axes: with the curves.
        rising: whether curves rise and meet at the right end, as throughputs do: the one that
            crosses a level in the middle first is then at the top.

    Returns:
        What `Axes.legend` and `Figure.legend` take as their first arguments.
    """
    handles, labels = axes.get_legend_handles_labels()
    curves: list[tuple[np.ndarray, np.ndarray]] = []
    for handle in handles:
        line: Any = handle[0] if isinstance(handle, Container) else handle
        x, y = np.asarray(line.get_xdata(), float), np.asarray(line.get_ydata(), float)
        if axes.xaxis_inverted():
            x = -x
        ascending = np.argsort(x)
        curves.append((x[ascending], y[ascending]))
    ends = [y[-1] if len(y) else -math.inf for _, y in curves]
    ranks: list[tuple[float, float]] = [(0.0, end) for end in ends]
    if rising:  # seen from the right they fall
        curves = [(-x[::-1], y[::-1]) for x, y in curves]
    if rising or len({x[-1] for x, _ in curves if len(x)}) > 1:
        values = np.concatenate([y for _, y in curves])
        levels = np.geomspace(max(values.min(), 1e-12), max(values.max(), 1e-12), 50)
        if rising:
            levels = np.linspace(values.min(), values.max(), 51)[1:]
            levels = levels[np.argsort(np.abs(levels - levels[24]), kind="stable")]
        places = [[_last_crossing(x, y, level) for x, y in curves] for level in levels]
        ranks = list(zip(max(places, key=lambda row: sum(map(math.isfinite, row))), ends))
    order = sorted(range(len(ranks)), key=lambda i: ranks[i], reverse=True)
    return [handles[i] for i in order], [labels[i] for i in order]


def _last_crossing(x, y, level):
    """Where a curve falls below a level for good; inf if it never does, -inf if it always
    is."""
    above = np.flatnonzero(y >= level)
    if not len(above):
        return -math.inf
    i = above[-1]
    if i == len(y) - 1:
        return math.inf
    share = np.log(y[i] / level) / np.log(y[i] / max(y[i + 1], 1e-12))
    return float(x[i] + share * (x[i + 1] - x[i]))


# Where a label may be, beside its point: away from it in points, by growing distance
_SIDES = [(1, 1), (1, -1), (-1, 1), (-1, -1), (1, 0), (-1, 0), (0, 1), (0, -1)]
_STEEP = [(0.4, 1), (0.4, -1), (-0.4, 1), (-0.4, -1)]
_PLACES = [(float(r * x), float(r * y)) for r in (5, 9) for x, y in _SIDES]
_PLACES += [(r * x, r * y) for r in (16, 26, 38, 52, 70) for x, y in (*_SIDES, *_STEEP)]
_MARKER = 4  # half of a marker, in points


def label_points(axes: Axes, points: Sequence[tuple[float, float, float, float, str]]) -> None:
    """Write a label beside each point, inside of the axes and over nothing else.

    A label that has to go some way is tied to its point by a thin line. The figure has to
    have everything else already: its layout is fixed from here on.

    Args:
        axes: the axes, with their final scales.
        points: the position, both ends of an error bar and the text, `(x, y, low, high,
            text)`, of all points.
    """
    figure: Any = axes.figure
    figure.canvas.draw()
    figure.set_layout_engine("none")
    scale = figure.dpi / 72
    taken = []
    for x, y, low, high, _ in points:
        (left, bottom), (_, top) = axes.transData.transform([(x, low), (x, high)])
        height = axes.transData.transform((x, y))[1]
        taken.append(
            Bbox(
                [
                    (left - _MARKER * scale, min(bottom, height - _MARKER * scale)),
                    (left + _MARKER * scale, max(top, height + _MARKER * scale)),
                ]
            )
        )
    for x, y, _, _, text in points:
        label = axes.annotate(
            text, (x, y), xytext=(0, 0), textcoords="offset points", fontsize=8
        )
        label.set_parse_math(False)
        tried = []
        for place in _PLACES:
            _move(label, place)
            box = label.get_window_extent()
            # First of all it is inside; then it hides as little as possible
            tried.append((_outside(box, axes.bbox), sum(_shared(box, t) for t in taken)))
            if tried[-1] == (0, 0):
                break
        place = _PLACES[tried.index(min(tried))]
        _move(label, place)
        taken.append(label.get_window_extent().padded(1.5 * scale))
        if math.hypot(*place) > 20:
            axes.annotate(
                "",
                (x, y),
                xytext=place,
                textcoords="offset points",
                arrowprops={"arrowstyle": "-", "color": "0.6", "linewidth": 0.6},
            )


def _move(label, place):
    label.set_position(place)
    label.set_ha({1: "left", -1: "right", 0: "center"}[np.sign(place[0])])
    label.set_va({1: "bottom", -1: "top", 0: "center"}[np.sign(place[1])])


def _outside(box, frame):
    """By how many pixels a box leaves a frame."""
    return sum(
        max(0.0, d)
        for d in (frame.x0 - box.x0, box.x1 - frame.x1, frame.y0 - box.y0, box.y1 - frame.y1)
    )


def _shared(one, other):
    """The area that two boxes have in common, in pixels."""
    both = Bbox.intersection(one, other)
    return both.width * both.height if both else 0.0


def front(rows: Iterable[dict[str, Any]], cost: str) -> list[dict[str, Any]]:
    """The rows that no other row beats in both error rate and cost, ascending in cost."""
    best, kept = float("inf"), []
    for row in sorted((r for r in rows if r[cost]), key=lambda r: (r[cost], r["bler"])):
        if row["bler"] < best:
            best = row["bler"]
            kept.append(row)
    return kept


def draw_front(axes: Axes, rows: Sequence[dict[str, Any]], cost: str) -> list[tuple[Any, ...]]:
    """Draw the error rates of detectors against a cost, on log axes, with a line through the
    rows that no other row beats in both.

    Args:
        axes: the axes.
        rows: records with `cost`, "detector" and the BLER.
        cost: a key.

    Returns:
        What `label_points` takes, those of the line first, as they choose their places first.
    """
    axes.grid(True, which="major", color="0.85", linewidth=0.7)
    best = front(rows, cost)
    steps = [r[cost] for r in best], [r["bler"] for r in best]
    axes.step(*steps, where="post", color="0.6", zorder=1)
    for row in rows:
        color = "C0" if row in best else "C7"
        error = [[row["bler"] - row["bler_low"]], [row["bler_high"] - row["bler"]]]
        axes.errorbar(row[cost], row["bler"], error, marker="o", color=color, capsize=2)
    axes.margins(x=0.1)
    axes.set_xscale("log")
    axes.set_yscale("log")
    keys = (cost, "bler", "bler_low", "bler_high", "detector")
    return [tuple(r[k] for k in keys) for r in sorted(rows, key=lambda r: r not in best)]


def save_figure(figure: Figure, path: str | Path, num_colors: int | None = None) -> None:
    """Write a figure to a PNG file.

    Args:
        figure: the figure.
        path: of the file.
        num_colors: colours of a palette, up to 256, with which a file is a third as large.
            None keeps all colours.

    Raises:
        ResultFileError: the file cannot be written.
    """
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    if num_colors is not None:
        image = Image.open(buffer).convert("RGB").quantize(num_colors)
        buffer = io.BytesIO()
        image.save(buffer, "PNG", optimize=True)
    write_atomically(path, buffer.getvalue())
