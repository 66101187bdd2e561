"""Results as files, tables and figures for people to read."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from linksim.errors import InvalidInput, check_choice
from linksim.files import as_path, make_folder, save_json, write_atomically
from linksim.link.scenario import Scenario, scenario_from_dict
from linksim.snr import SNR_DEFINITIONS
from linksim.tables import check_table

# Records of transport blocks have the first two of these, too, and those of HARQ the others
THROUGHPUTS = {
    "throughput": "Throughput (Mbit/s)",
    "spectral_efficiency": "bit/s/Hz",
    "bits_per_use": "Throughput (bit per channel use)",
    "transmissions": "Transmissions of a block",
}
RATES = {"bler": "Block error rate", "ber": "Bit error rate", "ser": "Symbol error rate"}


def write_results(
    results: dict[str, Any], folder: str | Path, rates: Iterable[str] = ("bler", "ber")
) -> None:
    """Write `results.json`, `results.csv` and a figure of each rate, such as `bler.png`.

    Results of transport blocks or HARQ also get a figure of the throughput, `throughput.png`. Each
    file that exists is replaced in one step. `linksim.files.load_json` reads `results.json`
    and checks it.

    Args:
        results: what `linksim.simulate` returned.
        folder: where to write them; it is created if it is missing.
        rates: the rates to plot, some of "bler", "ber" and "ser".

    Raises:
        InvalidInput: a rate is unknown, or the results are something else.
        ResultFileError: a file cannot be written.
    """
    rates = tuple(rates)
    for rate in rates:
        check_choice("rates", rate, RATES)
    check_table("results", results)
    for key, kind in (("scenario", dict), ("records", list), ("gaps", list)):
        if not isinstance(results.get(key), kind):
            raise InvalidInput(f"results: got no {key}, expected what `simulate` returned")
    folder = as_path("folder", folder)
    make_folder(folder)
    save_json(folder / "results.json", results)
    write_atomically(folder / "results.csv", to_csv(results["records"]))
    for rate in rates:
        plot(results, rate, folder / f"{rate}.png")
    if throughput_key(results):
        plot_throughput(results, folder / "throughput.png")


def throughput_key(results: dict[str, Any]) -> str:
    """The key of records that says what is delivered, one of `THROUGHPUTS`; "" without any."""
    for key in ("throughput", "bits_per_use"):
        if any(key in record for record in results["records"]):
            return key
    return ""


def throughput_bounds(record: dict[str, Any], key: str) -> list[float]:
    """A throughput, or another of `THROUGHPUTS`, and its bounds in the unit of its label."""
    unit = 1e6 if key == "throughput" else 1.0
    return [record[f"{key}{end}"] / unit for end in ("", "_low", "_high")]


def to_csv(records: Sequence[dict[str, Any]]) -> str:
    """The records of results as CSV text, one row for each."""
    text = io.StringIO()
    if records:
        writer = csv.DictWriter(text, fieldnames=list(records[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
    return text.getvalue()


def rate_tables(results: dict[str, Any], rate: str = "bler", width: int = 100) -> list[Table]:
    """Tables for the terminal, with a row per SNR point and a column per detector.

    Args:
        results: what `linksim.simulate` returned.
        rate: "bler", "ber" or "ser", or one of `THROUGHPUTS` that the records have.
        width: of the terminal, in characters; detectors that do not fit beside the others
            get a further table.
    """
    records = results["records"]
    definition = SNR_DEFINITIONS[results["scenario"]["snr"]["definition"]]
    detectors = list(dict.fromkeys(r["detector"] for r in records))
    by_key = {(r["snr_db"], r["detector"]): r for r in records}
    # A rate and its interval take up to 23 characters, a frame and spaces three
    fitting = max(1, (width - len(definition.text) - 4) // 26)
    tables = []
    for start in range(0, len(detectors), fitting):
        names = detectors[start : start + fitting]
        title = RATES.get(rate) or THROUGHPUTS[rate]
        table = Table(title=f"{title}, 95 % interval", title_justify="left")
        table.add_column(definition.text, justify="right", no_wrap=True)
        for name in names:
            table.add_column(Text(name), justify="right", no_wrap=True)
        for snr in sorted({r["snr_db"] for r in records}):
            cells = [_cell(by_key.get((snr, name)), rate) for name in names]
            if any(cells):
                table.add_row(f"{snr:g}", *cells)
        tables.append(table)
    return tables


def _cell(record, rate):
    if record is None:
        return ""
    if rate in THROUGHPUTS:
        value, low, high = throughput_bounds(record, rate)
        return f"{value:.3g} [{low:.3g}, {high:.3g}]"
    return interval_text(*(record[k] for k in (rate, f"{rate}_low", f"{rate}_high")))


def interval_text(value: float, low: float, high: float) -> str:
    """A rate with its interval, or its upper bound where there was no error.

    Example:
        >>> interval_text(0.98, 0.96, 0.999)
        '0.98 [0.96, 1.00]'
        >>> interval_text(5e-4, 6e-5, 1.8e-3)
        '5e-4 [6e-5, 1.8e-3]'
        >>> interval_text(0.0, 0.0, 3.7e-3)
        '< 3.7e-3'
    """
    if not value:
        return f"< {rate_text(high)}"
    return f"{rate_text(value)} [{rate_text(low)}, {rate_text(high)}]"


def rate_text(rate: float) -> str:
    """A rate with two or three digits, as "0.12", "0.012" or "1.2e-3"."""
    if rate >= 0.0995:
        return f"{rate:.2f}"
    if rate >= 0.00995:
        return f"{rate:.3f}"
    if not rate:
        return "0"
    mantissa, exponent = f"{rate:.1e}".split("e")
    return f"{mantissa.removesuffix('.0')}e{int(exponent)}"


def shown_rates(scenario: Scenario) -> tuple[str, ...]:
    """The rates that say something about a run, the one to look at first in front.

    Without a code a block is a packet of symbols, so its error rate says little.
    """
    return ("ser", "ber") if scenario.code.type == "none" else ("bler", "ber")


def gap_table(results: dict[str, Any]) -> Table | None:
    """A table for the terminal of the gaps in dB to the reference; None without gaps."""
    gaps = results["gaps"]
    if not gaps:
        return None
    table = Table(
        # As a text without markup, like all names of receivers here
        title=Text(
            f"SNR needed beyond {gaps[0]['reference']} at BLER "
            f"{gaps[0]['target_bler']:g} (negative is better)"
        ),
        title_justify="left",
    )
    for column in ("detector", "gap (dB)", "95 % interval"):
        table.add_column(column, justify="left" if column == "detector" else "right")
    for gap in gaps:
        if gap["gap_db"] is None:
            table.add_row(Text(gap["detector"]), "no crossing", "")
            continue
        bounds = "open"
        if gap["gap_db_low"] is not None:
            bounds = f"{gap['gap_db_low']:+.2f}..{gap['gap_db_high']:+.2f}"
        table.add_row(Text(gap["detector"]), f"{gap['gap_db']:+.2f}", bounds)
    return table


def plot(results: dict[str, Any], rate: str, path: str | Path) -> None:
    """Write a PNG file with the curves of one rate and their intervals, on a log axis."""
    lowest = min((r[rate] for r in results["records"] if r[rate] > 0), default=1.0)

    def points_of(rows):
        rows = [r for r in rows if r[rate] > 0]
        return rows, [r[rate] for r in rows], error_bars(rows, rate)

    def scale(axes):
        axes.set_yscale("log")
        axes.set_ylim(max(lowest / 3, 1e-9), 1.3)

    _plot(results, RATES[rate], points_of, scale, path)


def plot_throughput(results: dict[str, Any], path: str | Path) -> None:
    """Write a PNG file with the throughput of transport blocks or HARQ and its intervals."""
    key = throughput_key(results)

    def points_of(rows):
        value, low, high = zip(*(throughput_bounds(r, key) for r in rows))
        below = [v - bound for v, bound in zip(value, low)]
        return rows, value, (below, [bound - v for v, bound in zip(value, high)])

    _plot(
        results,
        THROUGHPUTS[key],
        points_of,
        lambda axes: axes.set_ylim(bottom=0.0),
        path,
        rising=True,
    )


def _plot(results, label, points_of, scale, path, rising=False):
    """Write a PNG file with a curve of each detector over the SNR.

    Args:
        results: what `linksim.simulate` returned.
        label: of the y axis.
        points_of: from the records of a detector to those that are shown, their values, and
            how far their intervals reach below and above them.
        scale: function of the axes that sets the y axis.
        path: of the file.
        rising: whether the curves rise.
    """
    from matplotlib.ticker import MaxNLocator

    from linksim.figures import literal, new_figure, ordered_legend, save_figure, set_title

    scenario, records = results["scenario"], results["records"]
    figure, axes = new_figure(8.0, 5.6)
    detectors = list(dict.fromkeys(r["detector"] for r in records))
    for index, name in enumerate(detectors):
        rows, value, (below, above) = points_of([r for r in records if r["detector"] == name])
        if not rows:
            continue
        style: dict[str, Any] = curve_style(index)
        axes.errorbar(
            [r["snr_db"] for r in rows],
            value,
            yerr=[below, above],
            label=literal(name),
            capsize=2.5,
            linewidth=1.4,
            markersize=5,
            **style,
        )
    scale(axes)
    axes.xaxis.set_major_locator(MaxNLocator(10, integer=True))
    axes.set_xlabel(SNR_DEFINITIONS[scenario["snr"]["definition"]].label)
    axes.set_ylabel(label)
    # Centred on the whole figure: beside a long legend the axes are too narrow for it
    set_title(figure, literal(scenario_from_dict(scenario).description))
    if axes.containers:  # there is a point above zero
        legend = ordered_legend(axes, rising)
        figure.legend(*legend, loc="outside right center", fontsize=9, frameon=False)
    save_figure(figure, path)


def error_bars(
    records: Iterable[dict[str, Any]], rate: str
) -> tuple[list[float], list[float]]:
    """How far the intervals of positive rates reach below and above them, on a log axis.

    Returns:
        The lengths below, and the lengths above.
    """
    # A log axis has no zero: an interval that reaches down to it ends a decade below its
    # point
    below = [r[rate] - max(r[f"{rate}_low"], r[rate] / 10) for r in records]
    return below, [r[f"{rate}_high"] - r[rate] for r in records]


_COLOURS = (
    "#0072b2",
    "#d55e00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#e69f00",
    "#000000",
    "#8c564b",
    "#7b3fb5",
    "#8f9a1c",
)
_MARKERS = "osD^vP*X<"
_LINES = ("-", "--", ":", "-.")


def curve_style(index: int) -> dict[str, str]:
    """The look of curve number `index`, as Matplotlib's keywords: "color", "marker",
    "markerfacecolor" and "linestyle".

    Curves that share a colour differ in marker and line, and those after the first ten have
    hollow markers.
    """
    # Colours and markers repeat after different numbers of curves
    turn, colour = index // len(_COLOURS), _COLOURS[index % len(_COLOURS)]
    return {
        "color": colour,
        "marker": _MARKERS[index % len(_MARKERS)],
        "markerfacecolor": "white" if turn % 2 else colour,
        "linestyle": _LINES[turn % len(_LINES)],
    }
