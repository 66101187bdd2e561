"""Runs as one HTML page that needs nothing else."""

import dataclasses
import json
import os
import platform
import re
from pathlib import Path

import jinja2
from plotly.offline import get_plotlyjs

import linksim
from linksim.errors import check_choice, check_int
from linksim.files import write_atomically
from linksim.montecarlo.output import RATES
from linksim.report import figure, tables
from linksim.report.runs import read_runs
from linksim.snr import SNR_DEFINITIONS

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_report(paths, output, *, rate="bler", repeats=0):
    """Write the page of result files.

    Args:
        paths: `results.json` files, or the folders they lie in.
        output: the HTML file, replaced in one step; its folder is created.
        rate, repeats: of `build_page`.

    Raises:
        InvalidInput: no path, the same twice, an unknown rate.
        ResultFileError: unreadable, damaged, edited or foreign file.
    """
    output = Path(output)
    text = build_page(read_runs(paths), rate=rate, repeats=repeats)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(output, text)


def build_page(runs, *, rate="bler", repeats=0):
    """The text of the page.

    Floating-point operations are counted here, from the detectors of this version.

    Args:
        runs: list of `Run`.
        rate: shown first, "bler", "ber" or "ser".
        repeats: calls of each detector to take its time on this machine; 0 shows the
            time of the runs alone.

    Returns:
        HTML with scripts, styles and data inside; it makes no request.
    """
    check_choice("rate", rate, RATES)
    check_int("repeats", repeats, minimum=0)
    definition = runs[0].definition
    definitions = [d for d in SNR_DEFINITIONS if any(d in run.snr_db for run in runs)]
    costs = [tables.measured_costs(run, repeats) for run in runs]
    shown = [_run(run, cost, definition) for run, cost in zip(runs, costs)]
    data = {
        "figure": json.loads(figure.curves(runs, rate, definition).to_json()),
        "rate": rate,
        "rates": {
            name: {"label": RATES[name], "range": span}
            for name, span in figure.rate_ranges(runs).items()
        },
        "definition": definition,
        "definitions": {
            name: {
                "html": SNR_DEFINITIONS[name].html,
                "source": SNR_DEFINITIONS[name].source,
            }
            for name in definitions
        },
        "runs": [{k: r[k] for k in ("label", "axes", "crossings", "points")} for r in shown],
    }
    names = list(dict.fromkeys(run.scenario.name for run in runs))
    return (
        _environment()
        .get_template("report.html")
        .render(
            title=" · ".join(names) if len(names) < 3 else f"{len(runs)} runs",
            version=linksim.__version__,
            data=data,
            plotly_js=get_plotlyjs(),
            rates=RATES,
            definitions={
                name: re.sub("<.*?>", "", SNR_DEFINITIONS[name].html) for name in definitions
            },
            definition_source=SNR_DEFINITIONS[definition].source,
            rate=rate,
            definition=definition,
            styles=figure.style_of(runs),
            dashes=figure.run_dashes(runs),
            runs=shown,
            machine=f"{platform.machine()}, {os.cpu_count()} cores" if repeats else None,
        )
    )


def _environment():
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _run(run, costs, definition):
    """What the page shows of a run beside its curves."""
    first = tables.first_point(run)
    # JSON has no keys that are numbers
    points = {f"{snr:g}": tables.point_cells(run, snr) for snr in tables.points_of(run)}
    crossings = {name: tables.crossing_cells(run, name) for name in run.snr_db}
    gaps, cost = tables.gap_cells(run), tables.cost_cells(run, costs)
    at_start = crossings.get(definition) or crossings[run.definition]
    rows = {
        name: {
            "crossing": at_start[name],
            "gap": gaps[name],
            **(points[f"{first:g}"][name] if first is not None else {}),
            **cost[name],
        }
        for name in run.detectors
    }
    return {
        "label": run.label,
        "description": run.scenario.description,
        "complete": run.results["provenance"].get("complete", True),
        "note": run.note,
        "definition": run.definition,
        "axes": {
            name: {f"{snr:g}": f"{value:.4g}" for snr, value in axis.items()}
            for name, axis in run.snr_db.items()
        },
        "first": None if first is None else f"{first:g}",
        "crossings": _plain(crossings),
        "points": _plain(points),
        "target": f"{tables.target_of(run):g}",
        "reference": tables.reference_of(run),
        "rows": rows,
        "provenance": tables.provenance_rows(run),
        "scenario": tables.scenario_text(run),
    }


def _plain(cells):
    """Nested dictionaries of cells, for JSON."""
    if isinstance(cells, tables.Cell):
        return dataclasses.asdict(cells)
    return {key: _plain(value) for key, value in cells.items()}
