"""The cells of a page's tables: gaps, costs and provenance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from linksim.errors import InvalidInput
from linksim.montecarlo.output import throughput_bounds, throughput_key
from linksim.montecarlo.statistics import crossing
from linksim.names import split_passes
from linksim.report.runs import ReportRun


@dataclass(frozen=True)
class Cell:
    """A text, a smaller one beside it, and the number by which the column is sorted."""

    text: str
    detail: str = ""
    value: float | None = None


NOTHING = Cell("–")


def target_bler_of(run: ReportRun) -> float:
    """The BLER at which gaps are measured."""
    gaps = run.results["gaps"]
    return gaps[0]["target_bler"] if gaps else run.scenario.run.gap_bler


def reference_of(run: ReportRun) -> str | None:
    """The detector that gaps are measured against, or None."""
    gaps = run.results["gaps"]
    return gaps[0]["reference"] if gaps else None


def gap_cells(run: ReportRun) -> dict[str, Cell]:
    """{detector: cell of its gap in dB}."""
    cells = {name: NOTHING for name in run.detectors}
    reference = reference_of(run)
    if reference in cells:
        cells[reference] = Cell("0", "reference", 0.0)
    for gap in run.results["gaps"]:
        if gap["gap_db"] is None:
            cells[gap["detector"]] = Cell("no crossing")
            continue
        bounds = "interval open"
        if gap["gap_db_low"] is not None:
            bounds = f"[{gap['gap_db_low']:+.2f}, {gap['gap_db_high']:+.2f}]"
        cells[gap["detector"]] = Cell(f"{gap['gap_db']:+.2f}", bounds, gap["gap_db"])
    return cells


def crossing_cells(run: ReportRun, definition: str) -> dict[str, Cell]:
    """{detector: cell of the SNR in dB at which it reaches the target BLER}."""
    axis, cells = run.snr_db[definition], {}
    for name in run.detectors:
        records = run.records(name)
        snr = [axis[r["snr_db"]] for r in records]
        found = crossing(snr, [r["bler"] for r in records], target_bler_of(run))
        cells[name] = NOTHING if found is None else Cell(f"{found:.2f}", "", found)
    return cells


def point_cells(run: ReportRun, snr_db: float) -> dict[str, dict[str, Cell]]:
    """{detector: {"bler", "ms", "throughput"}}, the cells of the BLER, of the time per block
    and of what transport blocks or HARQ deliver, at one point."""
    delivered = throughput_key(run.results)
    cells = {}
    for name in run.detectors:
        record = next((r for r in run.records(name) if r["snr_db"] == snr_db), None)
        if record is None:
            cells[name] = dict.fromkeys(("bler", "ms", "throughput"), NOTHING)
            continue
        low, high = record["bler_low"], record["bler_high"]
        counts = f"{record['block_errors']:,} of {record['blocks']:,}"
        text = f"{record['bler']:.3g}" if record["bler"] else f"< {high:.2g}"
        bler = Cell(text, f"[{low:.2g}, {high:.2g}], {counts}", record["bler"])
        ms = 1e3 * record["seconds"] / record["blocks"]
        cells[name] = {
            "bler": bler,
            "ms": Cell(f"{ms:.3g}", "", ms),
            "throughput": _throughput(record, delivered),
        }
    return cells


def _throughput(record, key):
    """The cell of the throughput, in the unit of its label, where the run has one."""
    if not key:
        return NOTHING
    value, low, high = throughput_bounds(record, key)
    details = [f"[{low:.3g}, {high:.3g}]"]
    if "spectral_efficiency" in record:
        details.append(f"{record['spectral_efficiency']:.3g} bit/s/Hz")
    if "transmissions" in record:
        details.append(f"{record['transmissions']:.3g} transmissions")
    return Cell(f"{value:.3g}", ", ".join(details), value)


def points_of(run: ReportRun) -> list[float]:
    """The SNR points, the "snr_db" of the records, in ascending order."""
    return sorted({r["snr_db"] for r in run.results["records"]})


def first_point(run: ReportRun) -> float | None:
    """The SNR point to show first, or None without points.

    It is the one at which most detectors have errors; of several such points, the highest.
    """
    points = points_of(run)
    if not points:
        return None
    failing = [
        sum(r["snr_db"] == p and r["block_errors"] > 0 for r in run.results["records"])
        for p in points
    ]
    return max(zip(failing, points))[1]


def measured_costs(run: ReportRun, repeats: int = 0) -> dict[str, dict[str, Any]]:
    """{detector: what `linksim.link.costs.detector_costs` returns for it}.

    Detectors that cannot be made here are missing, and so are those whose weights are not
    the ones of the run.

    Args:
        run: the run.
        repeats: how often to call each detector to time it, on 1000 vectors of the
            scenario's channel; with 0 there is no time.
    """
    from linksim.link.costs import detector_costs
    from linksim.link.receiver import create_receiver

    made = run.results["provenance"]
    known, earlier = made.get("weights", {}), made.get("earlier", {})
    names = []
    for name in run.detectors:
        try:
            receiver = create_receiver(name, run.scenario)
        except InvalidInput:
            continue
        if name in earlier:
            same = receiver.key == earlier[name]
        else:
            same = receiver.weights == known.get(name, {})
        if same:
            names.append(name)
    inputs = _vectors(run) if repeats and names else None
    return detector_costs(run.scenario, names, inputs, repeats)


_VECTORS = 1000


def _vectors(run):
    """y, H and N0 of up to 1000 vectors of one batch."""
    from linksim.link.link import Link

    link, snr_db = Link(run.scenario), first_point(run)
    blocks = min(run.scenario.run.batch_size, -(-_VECTORS // link.num_uses))
    batch = link.draw(link.keys(0, snr_db, 0), link.no(snr_db), 0, blocks)
    return [
        x.numpy().reshape(-1, *x.shape[2:])[:_VECTORS]
        for x in (batch.y, batch.h_hat, batch.no)
    ]


def cost_cells(
    run: ReportRun, costs: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Cell]]:
    """{detector: {"flops", "parameters", "us"}}, the cells of what `measured_costs` found."""
    cells: dict[str, dict[str, Cell]] = {}
    for name in run.detectors:
        cost = costs.get(name, {})
        limits = ", ".join(_limits(name)) if cost else ""
        cells[name] = {}
        for key in ("flops", "parameters", "us"):
            value = cost.get(key)
            if value is None:
                cells[name][key] = NOTHING
                continue
            text = f"{value:.3g}" if key == "us" else f"{value:,}"
            # Parameters are those of all parts, see `detector_costs`
            cells[name][key] = Cell(text, "" if key == "parameters" else limits, value)
    return cells


def _limits(name):
    """What the operations and the time of a receiver leave out, see `detector_costs`."""
    one_pass, num_passes = split_passes(name)
    if num_passes > 1:
        yield "of one pass"
    if "+" in one_pass and "+latent" not in one_pass:
        yield "without its quantizer"


def provenance_rows(run: ReportRun) -> list[tuple[str, str]]:
    """How the run was made, as pairs of a heading and a text."""
    made = run.results["provenance"]
    machine = made.get("machine", {})
    weights = [
        f"{path} (SHA-256 {digest[:12]}…)"
        for path, digest in {
            pair for models in made.get("weights", {}).values() for pair in models.items()
        }
    ]
    rows = [
        ("Link", run.scenario.description),
        ("SNR definition", run.definition),
        ("Finished", made.get("finished_at")),
        (
            "Complete",
            {True: "yes", False: "no, it was interrupted"}.get(made.get("complete")),
        ),
        ("Command", " ".join(made.get("command", []))),
        ("linksim", made.get("linksim")),
        ("Git commit", made.get("git_commit")),
        ("Versions", ", ".join(f"{k} {v}" for k, v in made.get("versions", {}).items())),
        ("Machine", ", ".join([*_texts(machine), *machine.get("gpus", [])])),
        ("Workers", _workers_text(made.get("workers"))),
        ("Seed", made.get("seed")),
        ("Batch size (blocks)", made.get("batch_size")),
        ("XLA", made.get("xla")),
        ("Fingerprint of the draws", made.get("fingerprint")),
        ("Weights", ", ".join(sorted(weights))),
        ("Simulated by earlier commands", ", ".join(made.get("earlier", {}).values())),
        ("Wall time", f"{made['wall_seconds']:,} s" if "wall_seconds" in made else None),
        ("File", str(run.path)),
    ]
    return [(what, str(text)) for what, text in rows if text not in (None, "")]


def _workers_text(workers):
    """The worker processes that computed the batches, or None if there were none."""
    if not workers:
        return None
    machines = ", ".join(f"{n} on {text}" for text, n in workers["machines"].items())
    return f"{workers['number']} with {workers['threads']} threads each ({machines})"


def _texts(values):
    return [v for v in values.values() if isinstance(v, str)]


def scenario_text(run: ReportRun) -> str:
    """The scenario as indented JSON."""
    return json.dumps(run.results["scenario"], indent=2)
