"""The page of the benchmark of detection, as one HTML file that needs nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import linksim
from linksim.report.page import template_environment

from .cells import COLUMNS, best_of, rows_of
from .choices import choices_of, needs
from .receivers import FAMILIES, SUBMITTED
from .tracks import TARGETS

_TEMPLATES = Path(__file__).resolve().parent / "templates"
# {cost that a picture can have as its axis: label}
AXES = {
    "block_ratio": "Time of a block, as a multiple of that of mmse",
    "us_ratio": "Time of the detector alone, as a multiple of that of mmse",
    "flops": "Floating-point operations of a vector",
    "kb": "Kilobytes of weights",
}


def web_page(results: dict[str, dict[str, Any]]) -> str:
    """The HTML text of the page.

    Args:
        results: {track: contents of its file}.
    """
    tracks = {name: _track(data) for name, data in results.items()}
    families = [
        family
        for family in (*FAMILIES, SUBMITTED)
        if any(family in track["families"].values() for track in tracks.values())
    ]
    target = f"{TARGETS[0]:g}"
    data = {
        "axes": AXES,
        "target": target,
        "tracks": {name: t["points"] for name, t in tracks.items()},
    }
    return (
        template_environment(_TEMPLATES)
        .get_template("benchmark.html")
        .render(
            columns=COLUMNS,
            tracks=tracks,
            families=families,
            axes=AXES,
            target=target,
            data=data,
            version=linksim.__version__,
        )
    )


def _track(data):
    """What the page shows of a track."""
    rows, first = rows_of(data), f"{TARGETS[0]:g}"
    points = []
    for name in rows:
        row = data["receivers"][name]
        if row["at"][first]["snr_db"] is not None:
            at = {key: row["at"][first][key] for key in ("snr_db", "low", "high")}
            costs = {axis: row[axis] for axis in AXES}
            points.append({"name": name, "family": row["family"], **at, **costs})
    return {
        "about": data["track"],
        "few": [name for name in data["track"]["few"] if name in rows],
        "rows": rows,
        "families": {name: data["receivers"][name]["family"] for name in rows},
        "best": best_of(data),
        "choices": [
            (wanted.replace("`", ""), name, needs(data["receivers"][name]))
            for wanted, name in choices_of(data).items()
            if name is not None
        ],
        "points": points,
    }
