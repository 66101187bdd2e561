"""The tables of a page: gaps, costs and provenance, as texts and numbers to sort by."""

import json
from dataclasses import dataclass

from linksim.errors import InvalidInput
from linksim.montecarlo.statistics import crossing


@dataclass(frozen=True)
class Cell:
    """A text, a smaller one beside it, and what the column is sorted by."""

    text: str
    detail: str = ""
    value: float | None = None


NOTHING = Cell("–")


def target_of(run):
    """The BLER that gaps are taken at."""
    gaps = run.results["gaps"]
    return gaps[0]["target_bler"] if gaps else run.scenario.run.gap_bler


def reference_of(run):
    """The detector that gaps are measured against, or None."""
    gaps = run.results["gaps"]
    return gaps[0]["reference"] if gaps else None


def gap_cells(run):
    """{detector: `Cell`} of the gaps in dB."""
    cells = {name: NOTHING for name in run.detectors}
    if reference_of(run) in cells:
        cells[reference_of(run)] = Cell("0", "reference", 0.0)
    for gap in run.results["gaps"]:
        if gap["gap_db"] is None:
            cells[gap["detector"]] = Cell("no crossing")
            continue
        bounds = "interval open"
        if gap["gap_db_low"] is not None:
            bounds = f"[{gap['gap_db_low']:+.2f}, {gap['gap_db_high']:+.2f}]"
        cells[gap["detector"]] = Cell(f"{gap['gap_db']:+.2f}", bounds, gap["gap_db"])
    return cells


def crossing_cells(run, definition):
    """{detector: `Cell`} of the SNR in dB at which the target BLER is reached."""
    axis, cells = run.snr_db[definition], {}
    for name in run.detectors:
        records = run.records(name)
        snr = [axis[r["snr_db"]] for r in records]
        found = crossing(snr, [r["bler"] for r in records], target_of(run))
        cells[name] = NOTHING if found is None else Cell(f"{found:.2f}", "", found)
    return cells


def point_cells(run, snr_db):
    """{detector: {"bler", "ms": `Cell`}} at one point: its BLER and time of a block."""
    cells = {}
    for name in run.detectors:
        record = next((r for r in run.records(name) if r["snr_db"] == snr_db), None)
        if record is None:
            cells[name] = {"bler": NOTHING, "ms": NOTHING}
            continue
        low, high = record["bler_low"], record["bler_high"]
        counts = f"{record['block_errors']:,} of {record['blocks']:,}"
        text = f"{record['bler']:.3g}" if record["bler"] else f"< {high:.2g}"
        bler = Cell(text, f"[{low:.2g}, {high:.2g}], {counts}", record["bler"])
        ms = 1e3 * record["seconds"] / record["blocks"]
        cells[name] = {"bler": bler, "ms": Cell(f"{ms:.3g}", "", ms)}
    return cells


def points_of(run):
    """SNR points, ascending, as "snr_db" of the records."""
    return sorted({r["snr_db"] for r in run.results["records"]})


def first_point(run):
    """The point to begin with: the highest at which most detectors have errors."""
    points = points_of(run)
    if not points:
        return None
    failing = [
        sum(r["snr_db"] == p and r["block_errors"] > 0 for r in run.results["records"])
        for p in points
    ]
    return max(zip(failing, points))[1]


def measured_costs(run, repeats=0):
    """{detector: what `linksim.complexity.detector_costs` says}.

    Left out: detectors that cannot be made here, or whose weights are others than those
    of the run.

    Args:
        run: the `Run`.
        repeats: 0, or how often to call each detector to take its time, on 1000 vectors
            of the scenario's channel.
    """
    from linksim.complexity import detector_costs
    from linksim.link.receiver import create_receiver

    known = run.results["provenance"].get("weights", {})
    names = []
    for name in run.detectors:
        try:
            same = create_receiver(name, run.scenario).weights == known.get(name, {})
        except InvalidInput:
            same = False
        if same:
            names.append(name)
    inputs = _vectors(run) if repeats and names else None
    return detector_costs(run.scenario, names, inputs, repeats)


_VECTORS = 1000


def _vectors(run):
    """y, H and N0 of as many vectors as there are in a batch, at most 1000."""
    from linksim.link.link import Link

    link, snr_db = Link(run.scenario), first_point(run)
    blocks = min(run.scenario.run.batch_size, -(-_VECTORS // link.num_uses))
    batch = link.draw(link.keys(0, snr_db, 0), link.no(snr_db), 0, blocks)
    return [
        x.numpy().reshape(-1, *x.shape[2:])[:_VECTORS]
        for x in (batch.y, batch.h_hat, batch.no)
    ]


def cost_cells(run, costs):
    """{detector: {"flops", "parameters", "us": `Cell`}}."""
    cells = {}
    for name in run.detectors:
        cost = costs.get(name, {})
        detail = "without its quantizer" if "+" in name and "+latent" not in name else ""
        cells[name] = {}
        for key in ("flops", "parameters", "us"):
            value = cost.get(key)
            text = (
                NOTHING.text
                if value is None
                else f"{value:.3g}"
                if key == "us"
                else f"{value:,}"
            )
            cells[name][key] = Cell(text, detail if value else "", value)
    return cells


def provenance_rows(run):
    """(what, text) pairs: how the run was made."""
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
        ("Blocks of a batch", made.get("batch_size")),
        ("XLA", made.get("xla")),
        ("Draws", made.get("fingerprint")),
        ("Weights", ", ".join(sorted(weights))),
        ("Wall time", f"{made['wall_seconds']:,} s" if "wall_seconds" in made else None),
        ("File", str(run.path)),
    ]
    return [(what, str(text)) for what, text in rows if text not in (None, "")]


def _workers_text(workers):
    """What computed the batches, where it was not the process itself."""
    if not workers:
        return None
    machines = ", ".join(f"{n} on {text}" for text, n in workers["machines"].items())
    return f"{workers['number']}, {workers['threads']} threads each ({machines})"


def _texts(values):
    return [v for v in values.values() if isinstance(v, str)]


def scenario_text(run):
    """The scenario as indented JSON."""
    return json.dumps(run.results["scenario"], indent=2)
