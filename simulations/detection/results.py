"""The results of a track: a JSON file that further receivers are added to."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from linksim.errors import ResultFileError
from linksim.files import load_json, save_json
from linksim.link.link import Link
from linksim.link.receiver import create_receiver
from linksim.names import split_passes
from linksim.registry import DETECTORS

from .measure import measure
from .ranking import compare, unpack
from .tracks import TARGETS, Track


def run_track(
    track: Track,
    names: Sequence[str],
    absent: dict[str, str],
    output: Path,
    counts: Path,
    fresh: bool = False,
) -> list[str]:
    """Measure the receivers of a track that its file does not have yet, and write the file.

    Args:
        track: the `Track`.
        names: of receivers.
        absent: {detector: why it does not take part}, for the page.
        output: folder of the file, `<track>.json`.
        counts: folder of raw counts, which a run that was killed goes on from.
        fresh: whether to measure all of them again.

    Returns:
        The names that were measured: those that are missing in the file, or were measured
        with other weights.
    """
    path, scenario = output / f"{track.name}.json", track.make_scenario()
    data = _earlier(path, track)
    known = {} if fresh else data["receivers"]
    keys = {name: create_receiver(name, scenario).key for name in names}
    todo = [name for name in names if known.get(name, {}).get("key") != keys[name]]
    if todo:
        data["receivers"] |= measure(track, todo, counts / f"{track.name}-{track.frozen}")
    absent = {**data["track"].get("absent", {}), **absent}
    # A receiver that was measured is not absent, whatever an earlier run said of it
    absent = {name: why for name, why in absent.items() if name not in data["receivers"]}
    data["track"]["absent"] = absent
    order = {name: number for number, name in enumerate(DETECTORS.names())}
    data["receivers"] = dict(
        sorted(
            data["receivers"].items(),
            key=lambda item: (order.get(item[0].split("(")[0].split("/")[0], 999), item[0]),
        )
    )
    if "blocks_per_slot" not in data["track"]:
        data["track"]["blocks_per_slot"] = Link(scenario).blocks_per_slot
    _rank(data, track)
    save_json(path, data)
    return todo


def compare_again(track: Track, output: Path) -> None:
    """Compare the receivers of a track's file again, if it is one of these draws."""
    if _earlier(output / f"{track.name}.json", track)["receivers"]:
        run_track(track, [], {}, output, output)


def load_results(output: Path, tracks: dict[str, Track]) -> dict[str, dict[str, Any]]:
    """{track: contents of its file} of the tracks that were run, in their order.

    Raises:
        ResultFileError: a file is damaged.
    """
    paths = {name: output / f"{name}.json" for name in tracks}
    kinds = {"track": dict, "receivers": dict}
    return {name: load_json(path, **kinds) for name, path in paths.items() if path.exists()}


def _earlier(path, track):
    """What a file has of these draws; nothing if it is of another version."""
    about = {
        key: value
        for key, value in dataclasses.asdict(track).items()
        if key not in ("changes", "without")
    }
    scenario = track.make_scenario()
    about["description"] = scenario.description
    about["definition"] = scenario.snr.definition
    if path.exists():
        data = load_json(path, track=dict, receivers=dict)
        if data["track"]["frozen"] == track.frozen:
            return {"track": {**data["track"], **about}, "receivers": data["receivers"]}
    return {"track": about, "receivers": {}}


def _rank(data, track):
    """Compare all receivers of a file, those of earlier runs with those of this one."""
    failed: dict[str, dict[float, Any]] = {}
    for name, row in data["receivers"].items():
        try:
            failed[name] = {
                p["snr_db"]: unpack(p["failed"], p["blocks"]) for p in row["points"]
            }
        except ValueError as error:
            raise ResultFileError(f"{track.name}: {name}: {error}") from None
    in_slot = data["track"]["blocks_per_slot"]
    few = [name for name in failed if split_passes(name)[0] in track.few]
    for row in data["receivers"].values():
        row["at"] = {}
    for target in TARGETS:
        found = compare(failed, track.bound, target, few, blocks_per_slot=in_slot)
        for name, values in found.items():
            data["receivers"][name]["at"][f"{target:g}"] = values
