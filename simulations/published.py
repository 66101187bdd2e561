#!/usr/bin/env python3
"""Hold the link against published error rates: tests/published/*.json.

Every file has the source, the setting, the scenario of ours that has it, and the numbers as
they were published: of receivers of ours, and of "others" for comparison, where those of "beside" are
simulated, too; "vectors" are the channel uses behind a symbol error rate. The script simulates these points and writes results/published/:
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
from simulations.markdown import table

FOLDER = ROOT / "tests" / "published"
# The scenario that a file changes, unless it names another as "base"
BASE = "awgn-siso-qam4"
# How much better ours may be, where it is known to differ: our `amp` scales each channel
BETTER = {"amp": 0.25}
# Deviations that two measurements of one rate may be apart; one pair of some 4600 is further
MOST = 3.7
# With fewer errors than this a rate is not normally distributed
FEW = 10
# When a point of a code is done, unless a base has fewer blocks; SER are of as many channel uses
BLOCK_ERRORS, MOST_BLOCKS, USES = 150, 30000, 40000


def published_files():
    """{name: contents} of all files."""
    paths = sorted(FOLDER.glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in paths}


def scenario_of(data):
    """The scenario of a file."""
    scenario = load_scenario(data.get("base", BASE))
    if "base" in data:
        return scenario
    snr = {"definition": data.get("definition", "ebno"), "points": points_of(data)}
    run = {"batch_size": 500, "max_blocks": MOST_BLOCKS}
    return scenario.replace(**data["scenario"], snr=snr, run=run)


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
        deviations of their difference ours is above theirs; None where so few errors are
        expected that this would say nothing.
    """
    found = _scenario_rates(data)
    rows = []
    for receiver, points in receivers_of(data).items():
        for point in points:
            row = {"receiver": receiver, "snr_db": _snr(point)}
            beside = _beside(found(receiver, point), point, data.get("vectors"))
            rows.append({**row, **beside})
    return rows


def compare_with_others(data):
    """Simulate the receivers of "beside" at the points of "others".

    Returns:
        A dictionary for each other receiver and point: "other", "snr_db", "theirs", and "ours",
        {receiver: ["rate", "low", "high"]}. Nothing has to agree.
    """
    found, rows = _scenario_rates(data), []
    for other, points in data.get("others", {}).items():
        for point in points:
            rates = {name: found(name, point) for name in data["beside"]}
            ours = {name: [r["ours"], r["low"], r["high"]] for name, r in rates.items()}
            rows.append(
                {"other": other, "snr_db": _snr(point), "theirs": point["ser"], "ours": ours}
            )
    return rows


def _scenario_rates(data):
    """A function of a receiver and a point: "rate", "ours", "low", "high", and for blocks
    "errors", "blocks" and "wide", see `widened`."""
    from linksim.link.link import Link
    from linksim.montecarlo.engine import simulate

    scenario = scenario_of(data)
    clustered = Link(scenario).blocks_per_slot > 1

    def rates(receiver, point):
        uncoded = "ser" in point
        (record,) = simulate(
            scenario,
            [receiver],
            snr_db=_snr(point),
            target_block_errors=10**9 if uncoded else BLOCK_ERRORS,
            max_blocks=USES if uncoded else min(MOST_BLOCKS, scenario.run.max_blocks),
        )["records"]
        rate = "ser" if uncoded else "bler"
        ours = {"rate": rate, "ours": record[rate]}
        ours |= {"low": record[f"{rate}_low"], "high": record[f"{rate}_high"]}
        if not uncoded:
            ours |= {"errors": record["block_errors"], "blocks": record["blocks"]}
            ours["wide"] = widened(record) if clustered else 1.0
        return ours

    return rates


def widened(record):
    """By how much the variance of a BLER is larger than with independent codewords, as its
    interval has it: those of a slot share a channel, and fail together."""
    rate, width = record["bler"], record["bler_high"] - record["bler_low"]
    independent = rate * (1 - rate) / record["blocks"]
    return max(1.0, (width / 3.92) ** 2 / independent) if independent else 1.0


def _beside(ours, point, vectors):
    """What is published beside ours, and how far they are apart; a SER is published of so
    many vectors."""
    if "ser" in point:
        # Where they do not say of how many: as many as ours, so that it is as uncertain
        share = USES / (vectors or USES)
        deviation = math.sqrt(1 + share) * (ours["high"] - ours["low"]) / 3.92
        return {
            **ours,
            "theirs": point["ser"],
            "deviations": (ours["ours"] - point["ser"]) / deviation,
        }
    wide = ours.pop("wide")
    # Codewords that fail together are fewer, for ours and for theirs
    counts = ours.pop("errors") / wide, ours.pop("blocks") / wide
    published = point["block_errors"] / wide, point["blocks"] / wide
    theirs = point["block_errors"] / point["blocks"]
    few = theirs * counts[1] < FEW and counts[0] < FEW
    apart = None if few else deviations(*counts, *published)
    return {**ours, "theirs": theirs, "deviations": apart}


def deviations(errors, blocks, other_errors, other_blocks):
    """How far two rates are apart, in standard deviations of their difference."""
    rate = (errors + other_errors) / (blocks + other_blocks)
    deviation = math.sqrt(rate * (1 - rate) * (1 / blocks + 1 / other_blocks))
    return (errors / blocks - other_errors / other_blocks) / deviation


def holds(row):
    """Whether ours is theirs within what both are uncertain of, or is better where it may."""
    if row["deviations"] is None:
        return row["low"] <= row["theirs"]
    better = BETTER.get(row["receiver"], 0.0)
    if better and row["deviations"] < 0:
        return row["high"] > (1 - better) * row["theirs"]
    return abs(row["deviations"]) < MOST


# --- the page -------------------------------------------------------------------------

INTRO = """
# Published error rates, and ours

`python simulations/published.py` makes this page from
[tests/published](../../tests/published), whose files have the sources and the settings; a slow
test holds the same points. Intervals are 95 % intervals of our rates. The last column is our rate
minus the published one, in standard deviations of this difference; both rates count as uncertain.
It is missing where too few errors are expected. Some sources do not say how many vectors their SER
is from; the page then assumes as many as ours.

MMNet [Khani20] and the two OAMP-Nets [He18, He20] are missing as their authors measured them: their
papers have figures without numbers, and the code that they published prints none. The OAMP-Net below
is the one that [Pratik21] trained.

`simulations/conformance.py` has the requirements of TS 38.104.
"""


OTHERS = "The source also has a learned detector. Here it stands beside one of this project:"

HEADER = ("receiver", "SNR", "rate", "published", "ours", "95 % interval", "deviations")


def page_text(results):
    """The text of README.md.

    Args:
        results: {name of a file: {"source", "setting", "rows"} and "others", if there are}.
    """
    lines = [INTRO.strip()]
    for name, found in results.items():
        lines += ["", f"## {name}", "", f"{found['source']}. {found['setting']}.", ""]
        lines += table(HEADER, map(_cells, found["rows"]))
        if found.get("others"):
            lines += ["", OTHERS, "", *_others_table(found["others"])]
    return "\n".join(lines) + "\n"


def _others_table(rows):
    ours = list(rows[0]["ours"])
    header = ["published", "SNR", "SER", *(f"`{name}`, SER" for name in ours)]
    cells = []
    for row in rows:
        rates = (row["ours"][name] for name in ours)
        theirs = f"`{row['other']}`", f"{row['snr_db']:g} dB", f"{row['theirs']:.3g}"
        cells.append(
            [*theirs, *(f"{r:.3g} [{low:.3g}, {high:.3g}]" for r, low, high in rates)]
        )
    return table(header, cells)


def _cells(r):
    """A row of the table below `HEADER`."""
    return [
        *(f"`{r['receiver']}`", f"{r['snr_db']:g} dB", r["rate"].upper()),
        *(f"{r['theirs']:.3g}", f"{r['ours']:.3g}"),
        f"[{r['low']:.3g}, {r['high']:.3g}]",
        "few errors" if r["deviations"] is None else f"{r['deviations']:+.1f}",
    ]


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
                rows, others = compare(data), compare_with_others(data)
            known[name] = {"file": digest, "source": data["source"]}
            known[name] |= {"setting": data["setting"], "rows": rows}
            if "others" in data:
                known[name]["others"] = others
            known = {key: known[key] for key in files if key in known}
            save_json(path, known)
            apart = [row for row in rows if not holds(row)]
            console.print(f"{name}: {len(apart)} of {len(rows)} are apart", markup=False)
    write_atomically(args.output / "README.md", page_text(known))
    console.print(f"{args.output}/README.md", markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
