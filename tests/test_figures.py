"""Figures: curves that can be told apart, legends in their order, labels that can be read."""

import itertools

import numpy as np
import pytest

from linksim.figures import (
    empty_figure,
    label_points,
    new_figure,
    ordered_legend,
    save_figure,
    set_title,
)
from linksim.montecarlo.output import curve_style


def test_curves_of_one_colour_differ_in_marker_fill_and_line():
    styles = [curve_style(i) for i in range(20)]
    assert len({s["color"] for s in styles[:10]}) == 10
    for a, b in itertools.combinations(styles, 2):
        if a["color"] == b["color"]:
            assert a["marker"] != b["marker"] and a["linestyle"] != b["linestyle"]
            hollow = [s["markerfacecolor"] != s["color"] for s in (a, b)]
            assert hollow == [False, True]
    seen = {tuple(curve_style(i).values()) for i in range(40)}
    assert len(seen) == 40


def falling(shift, end, axes, label, errorbar=True):
    """A curve that falls by a decade in 4 dB; at -shift dB it is 1."""
    x = np.arange(0.0, end + 1)
    y = 10 ** (-(x + shift) / 4)
    if errorbar:
        axes.errorbar(x, y, yerr=y / 10, label=label)
    else:
        axes.plot(x, y, label=label)


@pytest.mark.parametrize("errorbar", [False, True])
def test_legends_have_the_order_of_the_curves(errorbar):
    shifts = {"c": -2, "e": 3, "a": -6, "d": 0.5, "b": -3}
    for ends in ([9] * 5, [9, 6, 12, 8, 11]):  # the better a curve, the sooner it may end
        _, axes = new_figure(4, 3)
        for (name, shift), end in zip(shifts.items(), ends):
            falling(shift, end, axes, name, errorbar)
        handles, labels = ordered_legend(axes)
        assert labels == ["a", "b", "c", "d", "e"]
        assert [h.get_label() for h in handles] == labels


def test_legends_of_reversed_axes_and_of_curves_without_points():
    _, axes = new_figure(4, 3)
    axes.plot([0, 1, 2], [1.0, 0.5, 0.1], label="top at the left")
    axes.plot([], [], label="empty")
    axes.plot([0, 1, 2], [0.2, 0.3, 0.4], label="top at the right")
    assert ordered_legend(axes)[1] == ["top at the right", "top at the left", "empty"]
    axes.invert_xaxis()
    assert ordered_legend(axes)[1] == ["top at the left", "top at the right", "empty"]


def test_legends_of_throughputs_name_the_best_first():
    """Curves that meet at the top, some of which end before the others."""
    _, axes = new_figure(4, 3)
    x = np.arange(-4.0, 8.0)
    for name, shift, end in (("b", 0.5, 12), ("c", 1.0, 12), ("a", 0.0, 9), ("d", 1.6, 10)):
        y = 1e7 / (1 + np.exp(-1.5 * (x - shift)))
        y[0] *= name != "a"  # nothing at all may be delivered
        axes.errorbar(x[:end], y[:end], yerr=y[:end] / 10, label=name)
    assert ordered_legend(axes, rising=True)[1] == ["a", "b", "c", "d"]
    # In the order of what is left to the top at the right end it would be another
    assert ordered_legend(axes)[1] != ["a", "b", "c", "d"]


@pytest.mark.parametrize("seed", range(5))
def test_labels_of_points_are_inside_and_over_nothing_else(seed, tmp_path):
    rng = np.random.default_rng(seed)
    figure = empty_figure(5, 4)
    axes = figure.add_subplot()
    # Some of the points lie close together, and some at the frame
    x = 10 ** np.concatenate([rng.uniform(0, 3, 8), 0.02 * rng.uniform(size=3)])
    y = 10 ** -np.concatenate([rng.uniform(0, 2, 8), 0.1 * rng.uniform(size=3)])
    points = [(a, b, b / 1.3, b * 1.3, f"detector-{i}") for i, (a, b) in enumerate(zip(x, y))]
    axes.plot(x, y, "o")
    axes.set_xscale("log")
    axes.set_yscale("log")
    label_points(axes, points)
    save_figure(figure, tmp_path / "labels.png")
    boxes = {t.get_text(): t.get_window_extent() for t in axes.texts if t.get_text()}
    assert len(boxes) == len(points)
    frame = axes.bbox.padded(0.5)
    for box in boxes.values():
        assert frame.contains(box.x0, box.y0) and frame.contains(box.x1, box.y1)
    for a, b in itertools.combinations(boxes.values(), 2):
        assert not a.overlaps(b)
    for place in axes.transData.transform(np.stack([x, y], -1)):
        assert not any(box.contains(*place) for box in boxes.values())


def test_a_long_title_is_inside_of_the_figure_and_above_the_axes():
    text = "5G PUSCH, UMi, four users and an interferer, 16x4, " * 3
    heights = []
    for title in ("Short", text):
        figure, axes = new_figure(8.0, 5.0)
        set_title(figure, title)
        figure.canvas.draw()
        box = figure._suptitle.get_window_extent()
        assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 and box.y1 <= figure.bbox.y1
        assert box.y0 >= axes.bbox.y1
        heights.append(box.height)
    assert heights[1] > 1.9 * heights[0]
