#!/usr/bin/env python3
"""Hold the link against published error rates: tests/published/*.json.

Every file has the source, the setting, the scenario of ours that has it, and the numbers as
they were published. The script simulates these points and writes results/published/:
results.json, and README.md with ours beside theirs. Files that are there already are not
simulated again.
"""

import argparse
import json
import math
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
ROOT = Path(__file__).resolve().parents[1]
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(ROOT))

from linksim.cli.common import make_console, run_command
from linksim.files import json_hash, load_json, make_folder, save_json, write_atomically
from linksim.link.scenario import load_scenario

FOLDER = ROOT / "tests" / "published"
# The scenario that a file changes, unless it names another as "base"
BASE = "awgn-siso-qam4"
# How much better ours may be, where it is known to differ: our `amp` scales each channel
BETTER = {"amp": 0.25}
# Deviations that two measurements of one rate may be apart; one pair of some 4600 is further
MOST = 3.7
# When a point of a code is done; SER are of as many channel uses
BLOCK_ERRORS, MOST_BLOCKS, USES = 150, 30000, 40000


def published_files():
    """{name: contents} of the files that a scenario of ours has; those of a link of
    their own, which tests/ rebuilds, are not among them."""
    files = {}
    for path in sorted(FOLDER.glob("*.json")):
        data = json.loads(path.read_text(encoding="utf-8"))
        if "scenario" in data or "base" in data:
            files[path.stem] = data
    return files


def scenario_of(data):
    """The scenario of a file."""
    scenario = load_scenario(data.get("base", BASE))
    if "base" in data:
        return scenario
    snr = {"definition": data.get("definition", "ebno"), "points": points_of(data)}
    return scenario.replace(**data["scenario"], snr=snr, run={"batch_size": 500})


def points_of(data):
    """SNR points in dB of a file, ascending."""
    return sorted({_snr(p) for points in receivers_of(data).values() for p in points})


def receivers_of(data):
    """{receiver of ours: published points} of a file; codes are on AWGN, where all are ML."""
    return data["receivers"] if "receivers" in data else {"ml": data["points"]}


def _snr(point):
    return point["snr_db"] if "snr_db" in point else point["ebno_db"]


def compare(data):
    """Simulate the points of a file, and compare.

    Returns:
        A dictionary for each receiver and point: "receiver", "snr_db", "rate" ("bler" or
        "ser"), "theirs", "ours", "low", "high" and "deviations", by how many standard
        deviations of their difference ours is above theirs.
    """
    from linksim.montecarlo.engine import simulate

    rows, scenario = [], scenario_of(data)
    for receiver, points in receivers_of(data).items():
        for point in points:
            uncoded = "ser" in point
            (record,) = simulate(
                scenario,
                [receiver],
                snr_db=_snr(point),
                target_block_errors=10**9 if uncoded else BLOCK_ERRORS,
                max_blocks=USES if uncoded else MOST_BLOCKS,
            )["records"]
            rows.append(
                {"receiver": receiver, "snr_db": _snr(point), **_beside(record, point)}
            )
    return rows


def _beside(record, point):
    """What is published, ours, and how far they are apart."""
    rate = "ser" if "ser" in point else "bler"
    row = {"rate": rate, "ours": record[rate]}
    row |= {"low": record[f"{rate}_low"], "high": record[f"{rate}_high"]}
    if rate == "bler":
        counts = record["block_errors"], record["blocks"]
        published = point["block_errors"], point["blocks"]
        row |= {"theirs": published[0] / published[1]}
        return row | {"deviations": deviations(*counts, *published)}
    # They do not say of how many: as many as ours are taken, so that it is as uncertain
    deviation = math.sqrt(2) * (row["high"] - row["low"]) / 3.92
    theirs = point["ser"]
    return row | {"theirs": theirs, "deviations": (row["ours"] - theirs) / deviation}


def deviations(errors, blocks, other_errors, other_blocks):
    """How far two rates are apart, in standard deviations of their difference."""
    rate = (errors + other_errors) / (blocks + other_blocks)
    deviation = math.sqrt(rate * (1 - rate) * (1 / blocks + 1 / other_blocks))
    return (errors / blocks - other_errors / other_blocks) / deviation


def holds(row):
    """Whether ours is theirs within what both are uncertain of, or is better where it may."""
    better = BETTER.get(row["receiver"], 0.0)
    if better and row["deviations"] < 0:
        return row["high"] > (1 - better) * row["theirs"]
    return abs(row["deviations"]) < MOST


# --- the page -------------------------------------------------------------------------

INTRO = """
# Published error rates, and ours

`python simulations/published.py` makes this page from
[tests/published](../../tests/published), whose files have the sources and the settings; a slow
test holds the same points. Intervals are 95 % and ours; the last column says by how many
standard deviations of the difference ours is above theirs, in which the uncertainty of
theirs counts. Where a source does not say how many vectors are behind a SER, as many as
ours are taken.

`simulations/conformance.py` has the requirements of TS 38.104, and
`tests/test_published_loops.py` Sionna's tutorial of iterative detection and decoding.
"""


def page_text(results):
    """The text of README.md.

    Args:
        results: {name of a file: {"source", "setting", "rows"}}.
    """
    lines = [INTRO.strip()]
    for name, found in results.items():
        lines += ["", f"## {name}", "", f"{found['source']}. {found['setting']}.", ""]
        lines += ["| receiver | SNR | rate | published | ours | 95 % interval | deviations |"]
        lines += ["|---|---|---|---|---|---|---|"]
        for r in found["rows"]:
            cells = [
                *(f"`{r['receiver']}`", f"{r['snr_db']:g} dB", r["rate"].upper()),
                *(f"{r['theirs']:.3g}", f"{r['ours']:.3g}"),
                *(f"[{r['low']:.3g}, {r['high']:.3g}]", f"{r['deviations']:+.1f}"),
            ]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--only", choices=list(published_files()), action="append", help="a file")
    add("--fresh", action="store_true", help="simulate files again that are there already")
    add("--output", type=Path, default=Path("results/published"), metavar="DIR")
    args = parser.parse_args(argv)
    return run_command("published.py", lambda: _run(args, make_console()))


def _run(args, console):
    make_folder(args.output)
    path, files = args.output / "results.json", published_files()
    known = load_json(path) if path.exists() else {}
    for name, data in files.items():
        digest = json_hash(data)
        done = known.get(name, {}).get("file") == digest
        if name in (args.only or files) and (args.fresh or not done):
            with console.status(name):
                rows = compare(data)
            known[name] = {"file": digest, "source": data["source"]}
            known[name] |= {"setting": data["setting"], "rows": rows}
            known = {key: known[key] for key in files if key in known}
            save_json(path, known)
            apart = [row for row in rows if not holds(row)]
            console.print(f"{name}: {len(apart)} of {len(rows)} are apart", markup=False)
    write_atomically(args.output / "README.md", page_text(known))
    console.print(f"{args.output}/README.md", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
