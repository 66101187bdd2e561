"""The runs of a page: result files, checked, labelled and converted to common SNR axes."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from linksim.errors import InvalidInput, ResultFileError, as_list
from linksim.files import as_path, check_kinds, load_json
from linksim.link.scenario import Scenario, scenario_from_dict
from linksim.montecarlo.output import RATES, THROUGHPUTS
from linksim.montecarlo.statistics import bound_by_blocks
from linksim.snr import SNR_DEFINITIONS, no_to_snr_db

# {rate: (key of the number counted, key of the number of errors)}
COUNTS = {
    "bler": ("blocks", "block_errors"),
    "ber": ("bits", "bit_errors"),
    "ser": ("symbols", "symbol_errors"),
}


@dataclass(frozen=True)
class ReportRun:
    """One run on a page.

    Attributes:
        label: its name on the page; no other run of the page has the same.
        path: its `results.json`.
        results: what `linksim.simulate` returned.
        scenario: the `Scenario`.
        snr_db: {SNR definition: {"snr_db" of a record: SNR in dB by that definition}};
            the run's own definition is among them.
        note: why there are no other definitions, or "".
    """

    label: str
    path: Path
    results: dict[str, Any]
    scenario: Scenario
    snr_db: dict[str, dict[float, float]]
    note: str

    @property
    def definition(self) -> str:
        """The SNR definition of the run."""
        return self.scenario.snr.definition

    @property
    def detectors(self) -> list[str]:
        """Names of the detectors, in the order of the records."""
        return list(dict.fromkeys(r["detector"] for r in self.results["records"]))

    def records(self, detector: str) -> list[dict[str, Any]]:
        """The records of a detector, in ascending order of the SNR."""
        return [r for r in self.results["records"] if r["detector"] == detector]


def read_runs(paths: Iterable[str | Path]) -> list[ReportRun]:
    """Read and check result files.

    Args:
        paths: `results.json` files, or the folders that hold them.

    Returns:
        One run for each file.

    Raises:
        InvalidInput: there is no path, or a file is given twice.
        ResultFileError: a file is unreadable, damaged, edited or something else.
    """
    listed = as_list("results", paths, "paths")
    if not listed:
        raise InvalidInput("results: empty, expected at least one results.json or its folder")
    given = [as_path("results", path) for path in listed]
    files = [path / "results.json" if os.path.isdir(path) else path for path in given]
    known = set()
    for file in files:
        if file.resolve() in known:
            raise InvalidInput(f"results: {file} is given twice")
        known.add(file.resolve())
    loaded = [(file, *_read(file)) for file in files]
    labels = _labels(files, [scenario.name for _, _, scenario in loaded])
    runs = []
    for label, (file, results, scenario) in zip(labels, loaded):
        snr_db, note = _snr_axes(scenario, results["records"])
        runs.append(ReportRun(label, file, results, scenario, snr_db, note))
    return runs


def _read(file):
    results = load_json(file)
    if "label" in results and "scenario" not in results:
        raise ResultFileError(
            f"{file}: a sweep over {results['label']!r}, expected results over SNR"
        )
    check_kinds(file, results, scenario=dict, provenance=dict, records=list, gaps=list)
    for record in results["records"]:
        _check_record(file, record)
    points = [(r["detector"], r["snr_db"]) for r in results["records"]]
    if len(set(points)) < len(points):
        raise ResultFileError(f"{file}: a detector has two records at one SNR")
    for gap in results["gaps"]:
        if not isinstance(gap, dict) or not _GAP_KEYS <= set(gap):
            raise ResultFileError(f"{file}: got the gap {gap!r}, expected {sorted(_GAP_KEYS)}")
    # Files of earlier versions have wider bounds where there is no error
    by_snr = sorted(results["records"], key=lambda r: r["snr_db"])
    results["records"] = [
        record
        for name in dict.fromkeys(r["detector"] for r in results["records"])
        for record in bound_by_blocks([r for r in by_snr if r["detector"] == name])
    ]
    try:
        return results, scenario_from_dict(results["scenario"])
    except (InvalidInput, TypeError) as error:
        raise ResultFileError(
            f"{file}: its scenario is not one of this version: {error}"
        ) from None


_GAP_KEYS = {"detector", "reference", "target_bler", "gap_db", "gap_db_low", "gap_db_high"}


def _check_record(file, record):
    """Refuse a record whose rates do not follow from its counts."""
    if not isinstance(record, dict) or not isinstance(record.get("detector"), str):
        raise ResultFileError(
            f"{file}: got the record {record!r}, expected one with a detector"
        )
    where = f"{file}: {record['detector']} at {record.get('snr_db')} dB"
    keys = ["snr_db", "no", "seconds"]
    keys += [key for rate in RATES for key in (rate, f"{rate}_low", f"{rate}_high")]
    keys += [key for pair in COUNTS.values() for key in pair]
    for key in keys:
        value = record.get(key)
        if not isinstance(value, (int, float)) or not math.isfinite(value):
            raise ResultFileError(f"{where}: {key} is {value!r}, expected a finite number")
    for rate, (total, errors) in COUNTS.items():
        total, errors, low, high = (
            record[k] for k in (total, errors, f"{rate}_low", f"{rate}_high")
        )
        if not 0 <= errors <= total or total < 1 or record["no"] <= 0:
            raise ResultFileError(f"{where}: {errors} errors of {total}, N0 {record['no']}")
        if not math.isclose(record[rate], errors / total, rel_tol=1e-9, abs_tol=1e-300):
            raise ResultFileError(
                f"{where}: {rate} is {record[rate]}, but there are {errors} errors of {total}"
            )
        if not low <= record[rate] <= high:
            raise ResultFileError(f"{where}: {rate} lies outside of its interval")
    for key in set(THROUGHPUTS) & set(record):
        bounds = [record.get(f"{key}{end}") for end in ("_low", "", "_high")]
        numbers = [x for x in bounds if isinstance(x, (int, float)) and math.isfinite(x)]
        if len(numbers) < 3 or not 0 <= numbers[0] <= numbers[1] <= numbers[2]:
            raise ResultFileError(f"{where}: {key} lies outside of its interval: {bounds}")


def _labels(files, names):
    """The names of the scenarios; where one repeats, the ends of the paths instead."""
    labels = []
    for file, name in zip(files, names):
        same = [f for f, n in zip(files, names) if n == name and f != file]
        parts = file.resolve().parts
        depth = 2  # the folder and the file
        while any(f.resolve().parts[-depth:] == parts[-depth:] for f in same):
            depth += 1
        # The name results.json says nothing about a run
        end = parts[-depth:-1] if file.name == "results.json" else parts[-depth:]
        labels.append("/".join(end) if same else name)
    return labels


def _snr_axes(scenario, records):
    """The SNR of the points by each definition to which they can be converted, and why
    there are no others."""
    # Here and not above, because it loads Sionna
    from linksim.link.link import Link

    own = scenario.snr.definition
    points = sorted({(r["snr_db"], r["no"]) for r in records})
    axes = {own: {snr: snr for snr, _ in points}}
    if SNR_DEFINITIONS[own].per_realization:
        return axes, (
            "N0 differs from channel to channel, so a point has no SNR by another definition."
        )
    try:
        link = Link(scenario)
        same = all(math.isclose(link.no(snr), no, rel_tol=1e-6) for snr, no in points)
    except InvalidInput as error:
        return axes, (
            f"There are no other SNR definitions, because the link cannot be built here: {error}."
        )
    if not same:
        return axes, (
            "There are no other SNR definitions, because this version takes another N0 for "
            "these points."
        )
    for name, definition in SNR_DEFINITIONS.items():
        if name == "ebno_grid" and link.budget.streams_per_transmitter == 1:
            continue  # the axis of "ebno"
        if name != own and not definition.per_realization:
            axes[name] = {
                snr: round(no_to_snr_db(name, no, link.budget), 6) for snr, no in points
            }
    return axes, ""
