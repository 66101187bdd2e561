"""The page of the benchmark of detection, as Markdown."""

from __future__ import annotations

from typing import Any

from linksim.registry import describe_detector, list_detectors
from simulations.markdown import table

from .cells import COLUMNS, best_of, rows_of
from .choices import NEAR_DB, WANTED, choices_of, needs
from .receivers import NOWHERE
from .tracks import TARGETS

INTRO = """
# Benchmark of MIMO detection

Detectors on frozen tracks, each a link under a name and a version.
`python simulations/benchmark_detection.py` makes everything here, and adds
[a detector of yours](../../simulations/README.md#the-benchmark-of-detection) to it;
[index.html](index.html) has the same tables to sort and to filter, with a picture for each track.
"""
CHOICE = f"""
Each cell has a receiver, the SNR that it needs for a block error rate (BLER) of {TARGETS[0]:g}, and how
many times as long as with `mmse` a block takes, decoding included. The last column has that time in
milliseconds, on the CPU that measured it. A receiver `NAME/2` makes two passes: the decoder tells the
detector what it has found, and the detector tries again. Where a decoder cannot do that, "in one pass" is
the column to read. Of receivers within {NEAR_DB:g} dB the fastest is named.
"""
MEANINGS = f"""
## What the tables have

- **rank**: receivers of one rank are not told apart. A new rank begins where the paired intervals
  say of every receiver so far that it is ahead of every one that follows, at a BLER of
  {TARGETS[0]:g}. A receiver of fewer blocks has the best rank of those that it is not told apart
  from.
- **SNR** and **gap**: the SNR at a BLER, by the track's definition, and how many dB more than the
  bound a receiver needs. Intervals are 95 %; those of gaps are paired, on common draws. `> 18`
  means that the BLER was not reached up to there. A point without errors counts as half of one.
- **bits a coded bit**: mutual information of coded bits and LLRs, which are taken at their word.
  **calibration**: the factor by which LLRs had to be multiplied to be calibrated; 1 is right, less
  than 1 is too sure of itself.
- **time, detector**: of the detector alone, and **time, block**: of detection and decoding at the
  SNR that is named, both as multiples of those of `mmse` in the same run. The time of the
  detector and the FLOPs of a receiver of two passes are those of the first.
- **FLOPs** are of one vector, and missing where a graph does not say how often a loop runs. **kB**
  are those of the files of weights. **trained on**: what weights were trained on; empty for what
  is not learned.
"""


def page_text(results: dict[str, dict[str, Any]]) -> str:
    """The text of README.md.

    Args:
        results: {track: contents of its file}.
    """
    lines = [INTRO.strip(), ""]
    if not results:
        return "\n".join([*lines, "No track was run yet."]) + "\n"
    lines += _choice(results)
    lines += ["", *MEANINGS.strip().splitlines(), "", "## Least SNR for the time", ""]
    lines += ["The receivers of each track that no other one beats in both SNR and time of a"]
    lines += ["block, by time; in brackets the gap to the bound in dB, and the time.", ""]
    lines += ["| track | bound | receivers |", "|---|---|---|"]
    for name, data in results.items():
        rows = rows_of(data)
        fronts = [
            f"`{_plain(r)}` ({rows[r]['gap'].text}, {rows[r]['block_ratio'].text})"
            for r in best_of(data)
        ]
        link = f"[{data['track']['title']}](#{name})"
        lines.append(f"| {link} | `{data['track']['bound']}` | {', '.join(fronts)} |")
    lines += ["", *_overview(results)]
    for name, data in results.items():
        lines += _track(name, data)
    lines += ["", "## What takes part in no track", ""]
    lines += [
        f"- `{name}{'...' if name.endswith('-') else ''}`: {why}"
        for name, why in NOWHERE.items()
    ]
    return "\n".join(lines) + "\n"


def _choice(results):
    """Which receiver to take on each track, and what its detector is."""
    lines = ["## Which receiver to take", "", *CHOICE.strip().splitlines(), ""]
    named, chosen = {}, []
    for name, data in results.items():
        rows, cells = data["receivers"], []
        for receiver in choices_of(data).values():
            if receiver is not None:
                named.setdefault(receiver.split("/")[0], rows[receiver])
                receiver = f"`{_plain(receiver)}`, {needs(rows[receiver])}"
            cells.append(receiver or "none")
        mmse = rows.get("mmse")
        cells.append(
            f"{needs(mmse, False)}, {mmse['ms_per_block']:.3g} ms" if mmse else "none"
        )
        link = f"[{data['track']['title']}](#{name})"
        chosen.append([link, *cells])
    lines += table(["link", *WANTED, "`mmse`"], chosen)
    known = list_detectors()
    lines.append("")
    for detector, row in named.items():
        if detector in known:
            learned = f"; learned, {row['kb']:.0f} kB of weights" if row["kb"] else ""
            lines.append(f"- `{detector}`: {describe_detector(detector)}{learned}")
    return lines


def _overview(results):
    """Ranks of all receivers on all tracks."""
    ranks = {name: rows_of(data) for name, data in results.items()}
    receivers = dict.fromkeys(r for data in results.values() for r in data["receivers"])
    lines = ["## Ranks", ""]
    lines += ["`-` is for a receiver that does not take part, `x` for one that does not reach"]
    lines += [f"a BLER of {TARGETS[0]:g}.", ""]
    rows = []
    for receiver in receivers:
        cells = []
        for name in results:
            row = ranks[name].get(receiver)
            cells.append(
                "-" if row is None else "x" if row["rank"].value is None else row["rank"].text
            )
        rows.append([f"`{_plain(receiver)}`", *cells])
    return lines + table(["receiver", *(f"[{name}](#{name})" for name in results)], rows)


def _track(name, data):
    track = data["track"]
    lines = [
        "",
        f"## {name}",
        "",
        f"{track['description']}. Version {track['version']}, up to",
    ]
    lines += [
        f"{track['blocks']} blocks a point; SNR as `{track['definition']}`. The bound is"
    ]
    lines += [
        f"`{track['bound']}`, {track['bound_is']}. Bits, calibration and the time of a block"
    ]
    lines += [f"are those at {track['snr_db']:g} dB."]
    unit = data["receivers"].get("mmse")
    if unit is not None:
        lines += [
            f"`mmse` takes {unit['us']:.3g} us a vector, and {unit['ms_per_block']:.3g} ms a"
        ]
        lines += ["block with decoding."]
    few = [f"`{d}`" for d in track["few"] if d in data["receivers"]]
    if few:
        lines += [f"{', '.join(few)}: up to {track['few_blocks']} blocks, as they are costly."]
    cells = (
        [f"`{_plain(receiver)}`"]
        + [_plain(f"{row[c].text} {row[c].detail}".strip()) for c in COLUMNS]
        for receiver, row in rows_of(data).items()
    )
    lines += ["", *table(["receiver", *COLUMNS.values()], cells)]
    lines += ["", f"Made by linksim {_made(data)}."]
    if track["absent"]:
        lines += ["", "<details><summary>Not on this track</summary>", ""]
        reasons: dict[str, list[str]] = {}
        for detector, why in track["absent"].items():
            reasons.setdefault(why, []).append(f"`{_plain(detector)}`")
        lines += [f"- {', '.join(names)}: {why}" for why, names in reasons.items()]
        lines += ["", "</details>"]
    return lines


def _made(data):
    """Versions, commits and machines behind a track's rows."""
    made = {
        f"{m['linksim']} ({(m['git_commit'] or 'no commit')[:10]}) on "
        f"{m['machine'].get('processor', 'an unknown machine')}"
        for m in (row["made"] for row in data["receivers"].values())
    }
    return "; ".join(sorted(made))


def _plain(text):
    """A text that cannot end a cell of a table or a span of code."""
    return text.replace("|", "\\|").replace("`", "'")
