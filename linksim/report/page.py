"""One or several runs as one HTML page that needs nothing else."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import jinja2
from plotly.offline import get_plotlyjs

import linksim
from linksim.errors import check_choice, check_int
from linksim.files import as_path, make_folder, write_atomically
from linksim.montecarlo.output import RATES, THROUGHPUTS, throughput_key
from linksim.report import cells, curves
from linksim.report.runs import ReportRun, read_runs
from linksim.snr import SNR_DEFINITIONS

_TEMPLATES = Path(__file__).resolve().parent / "templates"


def write_report(
    paths: Iterable[str | Path], output: str | Path, *, rate: str = "bler", repeats: int = 0
) -> None:
    """Write an HTML page with the curves, gaps, costs and provenance of runs.

    The page holds its scripts, styles and data, so it can be mailed and opened offline.

    Args:
        paths: `results.json` files as `linksim.write_results` writes them, or the folders
            that hold them.
        output: the HTML file, which is replaced in one step; its folder is created.
        rate: the rate that the page shows first, "bler", "ber" or "ser".
        repeats: how often to call each detector to time it on this machine; with 0 the
            page has only the times of the runs.

    Raises:
        InvalidInput: there is no path, a path is given twice, or the rate is unknown.
        ResultFileError: a result file is unreadable, damaged, edited or something else,
            or the page cannot be written.
    """
    output = as_path("output", output)
    text = build_page(read_runs(paths), rate=rate, repeats=repeats)
    make_folder(output.parent)
    write_atomically(output, text)


def build_page(runs: Sequence[ReportRun], *, rate: str = "bler", repeats: int = 0) -> str:
    """The HTML text of a page; `write_report` describes the arguments.

    The floating-point operations are counted now, with the detectors of this version.

    Raises:
        InvalidInput: the rate is unknown, or `repeats` is negative.
    """
    check_choice("rate", rate, RATES)
    check_int("repeats", repeats, minimum=0)
    definition = runs[0].definition
    definitions = [d for d in SNR_DEFINITIONS if any(d in run.snr_db for run in runs)]
    costs = [cells.measured_costs(run, repeats) for run in runs]
    shown = [_run(run, cost, definition) for run, cost in zip(runs, costs)]
    data = {
        "figure": json.loads(curves.curve_figure(runs, rate, definition).to_json()),
        "rate": rate,
        "rates": {
            name: {"label": RATES[name], "range": span}
            for name, span in curves.rate_ranges(runs).items()
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
        template_environment()
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
            styles=curves.style_of(runs),
            dashes=curves.run_dashes(runs),
            runs=shown,
            machine=f"{platform.machine()}, {os.cpu_count()} cores" if repeats else None,
        )
    )


def template_environment(*folders: Path) -> jinja2.Environment:
    """Where pages find their templates: what a page is given is escaped, and must exist.

    Args:
        folders: to look in first, before the folder of the report's templates.
    """
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader([*folders, _TEMPLATES]),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def _run(run, costs, definition):
    """What the page shows of a run besides its curves."""
    first = cells.first_point(run)
    # Keys are texts, because JSON turns numbers into texts
    points = {f"{snr:g}": cells.point_cells(run, snr) for snr in cells.points_of(run)}
    crossings = {name: cells.crossing_cells(run, name) for name in run.snr_db}
    gaps, cost = cells.gap_cells(run), cells.cost_cells(run, costs)
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
        "target": f"{cells.target_bler_of(run):g}",
        "reference": cells.reference_of(run),
        "rows": rows,
        "throughput": THROUGHPUTS.get(throughput_key(run.results), ""),
        "provenance": cells.provenance_rows(run),
        "scenario": cells.scenario_text(run),
    }


def _plain(value):
    """Nested dictionaries with every cell as a dictionary, for JSON."""
    if isinstance(value, cells.Cell):
        return dataclasses.asdict(value)
    return {key: _plain(part) for key, part in value.items()}
