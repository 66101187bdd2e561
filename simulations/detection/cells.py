"""The rows of a track's table, as texts and numbers, for both pages."""

from __future__ import annotations

from typing import Any

from linksim.figures import front
from linksim.report.cells import NOTHING, Cell

from .tracks import TARGETS

# {column: title}
COLUMNS = {
    "rank": "rank",
    "snr": f"SNR (dB) at BLER {TARGETS[0]:g}",
    "gap": "gap (dB) to the bound",
    "snr_few": f"SNR (dB) at BLER {TARGETS[1]:g}",
    "gap_few": f"gap (dB) at {TARGETS[1]:g}",
    "information": "bits a coded bit",
    "factor": "calibration",
    "us_ratio": "time, detector",
    "block_ratio": "time, block",
    "flops": "FLOPs",
    "kb": "kB",
    "trained": "trained on",
}


def rows_of(data: dict[str, Any]) -> dict[str, dict[str, Cell]]:
    """{receiver: {column: `Cell`}} of a track's file, the best receiver first."""
    order = sorted(data["receivers"], key=lambda name: _place(data["receivers"][name]))
    return {name: _row(name, data) for name in order}


def best_of(data: dict[str, Any]) -> list[str]:
    """The receivers that no other one beats in both SNR and time of a block, by time."""
    rows = [
        # `front` compares by the key "bler", here it is the SNR
        {"detector": name, "bler": row["at"][f"{TARGETS[0]:g}"]["snr_db"], "time": time}
        for name, row in data["receivers"].items()
        if row["at"][f"{TARGETS[0]:g}"]["snr_db"] is not None and (time := row["block_ratio"])
    ]
    return [row["detector"] for row in front(rows, "time")]


def _place(row):
    snr_db = row["at"][f"{TARGETS[0]:g}"]["snr_db"]
    return (snr_db is None, snr_db if snr_db is not None else -(row["information"] or -9))


def _row(name, data):
    row, track = data["receivers"][name], data["track"]
    first, few = (row["at"][f"{target:g}"] for target in TARGETS)
    rank = first["rank"]
    beyond = (
        Cell(f"> {max(p['snr_db'] for p in row['points']):g}") if row["points"] else NOTHING
    )
    return {
        "rank": NOTHING if rank is None else Cell(str(rank), "", rank),
        "snr": _snr(first, beyond),
        "gap": _gap(first, name == track["bound"]),
        "snr_few": _snr(few, NOTHING),
        "gap_few": _gap(few, name == track["bound"]),
        "information": _number(row["information"], ".3f"),
        "factor": _number(row["factor"], ".2f"),
        "us_ratio": _number(row["us_ratio"], ".3g"),
        "block_ratio": _number(row["block_ratio"], ".3g"),
        "flops": _number(row["flops"], ",d"),
        "kb": _number(row["kb"], ".0f"),
        "trained": Cell(row["trained"]),
    }


def _snr(found, otherwise):
    if found["snr_db"] is None:
        return otherwise
    return Cell(
        f"{found['snr_db']:.2f}", _bounds(found, "low", "high", ".2f"), found["snr_db"]
    )


def _gap(found, is_bound):
    if is_bound:
        return Cell("bound", "", 0.0)
    if found["gap_db"] is None:
        return NOTHING
    bounds = _bounds(found, "gap_low", "gap_high", "+.2f")
    return Cell(f"{found['gap_db']:+.2f}", bounds, found["gap_db"])


def _bounds(found, low, high, how):
    if found[low] is None:
        return "interval open"
    return f"[{found[low]:{how}}, {found[high]:{how}}]"


def _number(value, how):
    return NOTHING if value is None else Cell(f"{value:{how}}", "", float(value))
