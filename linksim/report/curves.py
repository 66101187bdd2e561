"""The curves of a page as a Plotly figure with a trace per run, detector and rate."""

from __future__ import annotations

import html
import itertools
import math
from collections.abc import Sequence

import plotly.graph_objects as go

from linksim.montecarlo.output import RATES, curve_style, error_bars
from linksim.report.runs import COUNTS, ReportRun
from linksim.snr import SNR_DEFINITIONS

# Matplotlib's markers, as `curve_style` gives them: Plotly's name, and similar characters,
# filled and hollow
_SYMBOLS = {
    "o": ("circle", "●", "○"),
    "s": ("square", "■", "□"),
    "D": ("diamond", "◆", "◇"),
    "^": ("triangle-up", "▲", "△"),
    "v": ("triangle-down", "▼", "▽"),
    "P": ("cross", "✚", "✛"),
    "*": ("star", "★", "☆"),
    "X": ("x", "✖", "✕"),
    "<": ("triangle-left", "◀", "◁"),
}
_DASHES = {"-": "solid", "--": "dash", ":": "dot", "-.": "dashdot"}
_RUN_DASHES = (*_DASHES.values(), "longdash", "longdashdot")


def style_of(runs: Sequence[ReportRun]) -> dict[str, dict[str, str]]:
    """How the curves look: {detector: {"color", "symbol", "glyph", "dash"}}.

    A detector looks the same in every run. If there is one run, it looks as in the PNG
    files of `linksim.write_results`.
    """
    names = dict.fromkeys(itertools.chain.from_iterable(run.detectors for run in runs))
    styles = {}
    for index, name in enumerate(names):
        style = curve_style(index)
        symbol, filled, hollow = _SYMBOLS[style["marker"]]
        is_hollow = style["markerfacecolor"] != style["color"]
        styles[name] = {
            "color": style["color"],
            "symbol": f"{symbol}-open" if is_hollow else symbol,
            "glyph": hollow if is_hollow else filled,
            "dash": _DASHES[style["linestyle"]],
        }
    return styles


def run_dashes(runs: Sequence[ReportRun]) -> list[str | None]:
    """The dash of each run's curves; None for a single run, whose detectors have their own."""
    if len(runs) == 1:
        return [None]
    return [_RUN_DASHES[i % len(_RUN_DASHES)] for i in range(len(runs))]


def curve_figure(runs: Sequence[ReportRun], rate: str, definition: str) -> go.Figure:
    """The figure with the curves of all rates, of which one is visible.

    Every trace has a `meta` for the script of the page: the index of its `run`, its
    `detector` and `rate`, and in `definitions` its x values by each SNR definition that
    the run has. Points without an error are in traces of their own, as arrows at the
    upper end of the interval.

    Args:
        runs: the runs of the page.
        rate: the visible rate, "bler", "ber" or "ser".
        definition: the SNR definition of the x axis, a key of `SNR_DEFINITIONS`.
    """
    styles, dashes = style_of(runs), run_dashes(runs)
    figure = go.Figure()
    for index, run in enumerate(runs):
        where = f" · {run.label}" if len(runs) > 1 else ""
        for detector in run.detectors:
            style = {**styles[detector]}
            style["dash"] = dashes[index] or style["dash"]
            for name in RATES:
                records = run.records(detector)
                with_errors = [r for r in records if r[name] > 0]
                without = [r for r in records if not r[name]]
                for kind, part in (("curve", with_errors), ("bound", without)):
                    if not part:
                        continue
                    x = _x_values(run, part)
                    meta = {
                        "run": index,
                        "detector": detector,
                        "rate": name,
                        "definitions": x,
                    }
                    trace = _trace(where, meta, part, kind, style)
                    shown = name == rate and definition in x
                    trace.update(x=x.get(definition), visible=shown)
                    figure.add_trace(trace)
    figure.update_layout(_layout(runs, rate, definition))
    return figure


def _x_values(run, records):
    """{SNR definition: the SNR in dB of each record}."""
    return {key: [axis[r["snr_db"]] for r in records] for key, axis in run.snr_db.items()}


def _literal(text):
    """A user's text for Plotly, which reads HTML in it, and variables after a percent sign."""
    return html.escape(text).replace("%", "&#37;")


def _trace(where, meta, records, kind, style):
    detector, rate = meta["detector"], meta["rate"]
    common = {
        "name": _literal(detector),
        "meta": meta,
        "text": [_hover(r, rate) for r in records],
        # Without Plotly's extra box, which a phone would cut off
        "hovertemplate": f"<b>{_literal(detector)}</b>{_literal(where)}<br>"
        "%{x:.4~g} dB · %{text}<extra></extra>",
        "hoverlabel": {"bordercolor": style["color"]},
    }
    if kind == "bound":
        return go.Scatter(
            mode="markers",
            y=[r[f"{rate}_high"] for r in records],
            marker={"symbol": "arrow-down-open", "size": 11, "color": style["color"]},
            **common,
        )
    below, above = error_bars(records, rate)
    return go.Scatter(
        mode="lines+markers",
        y=[r[rate] for r in records],
        error_y={
            "type": "data",
            "symmetric": False,
            "array": above,
            "arrayminus": below,
            "thickness": 1.2,
            "width": 3,
        },
        line={"color": style["color"], "dash": style["dash"], "width": 2},
        marker={"symbol": style["symbol"], "size": 8},
        **common,
    )


def _hover(record, rate):
    """The text with the rate, the interval and the counts of a point."""
    total, errors = COUNTS[rate]
    low, high = record[f"{rate}_low"], record[f"{rate}_high"]
    value = f"{record[rate]:.3g} [{low:.2g}, {high:.2g}]" if record[rate] else f"< {high:.2g}"
    lines = [
        f"N<sub>0</sub> = {record['no']:.4g}",
        f"<b>{rate.upper()} {value}</b>",
        f"{record[errors]:,} errors in {record[total]:,} {total}",
    ]
    if rate != "bler":
        lines.append(f"{record['block_errors']:,} of {record['blocks']:,} blocks wrong")
    if "throughput" in record:
        lines.append(f"{record['throughput'] / 1e6:.3g} Mbit/s")
    if "transmissions" in record:
        lines.append(f"{record['transmissions']:.3g} transmissions of a block")
    return "<br>".join(lines)


def rate_ranges(runs: Sequence[ReportRun]) -> dict[str, list[float]]:
    """{rate: the range of its axis, in exponents of ten}."""
    ranges = {}
    for rate in RATES:
        records = [r for run in runs for r in run.results["records"]]
        values = [r[rate] or r[f"{rate}_high"] for r in records]
        lowest = max(min(values, default=1e-3) / 3, 1e-9)
        ranges[rate] = [math.log10(lowest), math.log10(1.3)]
    return ranges


def _layout(runs, rate, definition):
    grid = {
        "gridcolor": "#e3e6ea",
        "zeroline": False,
        "linecolor": "#8a929c",
        "ticks": "outside",
    }
    return {
        "template": "none",
        "font": {
            "family": "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif",
            "size": 13,
        },
        "showlegend": False,
        "hovermode": "closest",
        "hoverlabel": {"align": "left", "bgcolor": "#fff", "font": {"color": "#1d2530"}},
        "margin": {"l": 10, "r": 12, "t": 12, "b": 10},
        "xaxis": {
            "title": {"text": SNR_DEFINITIONS[definition].html},
            "nticks": 14,
            "automargin": True,
            **grid,
        },
        "yaxis": {
            "title": {"text": RATES[rate]},
            "type": "log",
            "range": rate_ranges(runs)[rate],
            "dtick": 1,
            "exponentformat": "power",
            "minor": {"showgrid": True, "gridcolor": "#f3f4f6", "dtick": "D1"},
            "automargin": True,
            **grid,
        },
    }
