"""Results for people: files, tables and figures."""

import csv
import io
import json
from pathlib import Path

from rich.table import Table

from linksim.montecarlo.store import write_atomically
from linksim.snr import SNR_DEFINITIONS

_RATES = {"bler": "Block error rate", "ber": "Bit error rate", "ser": "Symbol error rate"}


def write_results(results, folder):
    """Write `results.json`, `results.csv`, `bler.png` and `ber.png`.

    Every file is replaced in one step.

    Args:
        results: what `linksim.simulate` returns.
        folder: created if missing.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "results.json", json.dumps(results, indent=1) + "\n")
    write_atomically(folder / "results.csv", to_csv(results["records"]))
    for rate in ("bler", "ber"):
        plot(results, rate, folder / f"{rate}.png")


def to_csv(records):
    """The records as CSV text, one row each."""
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    return text.getvalue()


def format_rate(value, low, high):
    """'1.2e-02 [9.8e-03, 1.5e-02]'."""
    return f"{value:.1e} [{low:.1e}, {high:.1e}]"


def rate_table(results, rate="bler"):
    """A rich table: a row per SNR point, a column per detector."""
    records = results["records"]
    detectors = list(dict.fromkeys(r["detector"] for r in records))
    table = Table(title=f"{_RATES[rate]} (95 % interval below)", title_justify="left")
    table.add_column("SNR (dB)", justify="right", no_wrap=True)
    for name in detectors:
        table.add_column(name, justify="right", no_wrap=True)
    by_key = {(r["snr_db"], r["detector"]): r for r in records}
    for snr in sorted({r["snr_db"] for r in records}):
        cells = [f"{snr:g}"]
        for name in detectors:
            r = by_key.get((snr, name))
            if r is None:
                cells.append("")
                continue
            value, low, high = r[rate], r[f"{rate}_low"], r[f"{rate}_high"]
            shown = f"{value:.1e}" if value else f"< {high:.0e}"
            cells.append(f"{shown}\n{low:.0e}..{high:.0e}")
        table.add_row(*cells)
    return table


def gap_table(results):
    """A rich table of the dB gaps to the reference, or None."""
    gaps = results["gaps"]
    if not gaps:
        return None
    table = Table(
        title=f"SNR needed beyond {gaps[0]['reference']} at BLER "
        f"{gaps[0]['target_bler']:g} (negative: better)",
        title_justify="left",
    )
    for column in ("detector", "gap (dB)", "95 % interval"):
        table.add_column(column, justify="left" if column == "detector" else "right")
    for gap in gaps:
        if gap["gap_db"] is None:
            table.add_row(gap["detector"], "no crossing", "")
            continue
        bounds = "open"
        if gap["gap_db_low"] is not None:
            bounds = f"{gap['gap_db_low']:+.2f}..{gap['gap_db_high']:+.2f}"
        table.add_row(gap["detector"], f"{gap['gap_db']:+.2f}", bounds)
    return table


def plot(results, rate, path):
    """Curves of one rate with their intervals, log axis, as a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    scenario, records = results["scenario"], results["records"]
    figure = Figure(figsize=(8.0, 5.6), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    detectors = list(dict.fromkeys(r["detector"] for r in records))
    lowest = 1.0
    for index, name in enumerate(detectors):
        rows = [r for r in records if r["detector"] == name and r[rate] > 0]
        if not rows:
            continue
        snr = [r["snr_db"] for r in rows]
        value = [r[rate] for r in rows]
        # An interval that reaches down to zero has no place on a log axis: it is
        # drawn to a decade below its point
        below = [v - max(r[f"{rate}_low"], v / 10) for v, r in zip(value, rows)]
        above = [r[f"{rate}_high"] - v for v, r in zip(value, rows)]
        axes.errorbar(
            snr,
            value,
            yerr=[below, above],
            label=name,
            capsize=2.5,
            linewidth=1.4,
            markersize=5,
            **_style(index),
        )
        lowest = min(lowest, *value)
    axes.set_yscale("log")
    axes.set_ylim(max(lowest / 3, 1e-9), 1.3)
    axes.set_xlabel(SNR_DEFINITIONS[scenario["snr"]["definition"]].label)
    axes.set_ylabel(_RATES[rate])
    axes.set_title(scenario["title"] or scenario["name"], fontsize=11)
    axes.grid(True, which="major", color="0.8", linewidth=0.7)
    axes.grid(True, which="minor", color="0.92", linewidth=0.4)
    if detectors:
        figure.legend(loc="outside right upper", fontsize=9, frameon=False)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    temporary = Path(path).with_suffix(".png.part")
    temporary.write_bytes(buffer.getvalue())
    temporary.replace(path)


_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#000000",
    "#8c564b",
)
_MARKERS = "osD^vP*X<>"
_LINES = ("-", "--", ":", "-.")


def _style(index):
    # Colour, marker and dash change at different rates: curves that share one
    # differ in the others, also in grey
    return {
        "color": _COLOURS[index % len(_COLOURS)],
        "marker": _MARKERS[index % len(_MARKERS)],
        "linestyle": _LINES[index // len(_COLOURS) % len(_LINES)],
    }
