#!/usr/bin/env python3
"""Throughput of a 5G uplink against SNR, over MCS, with HARQ and without.

Each MCS is simulated with all transmissions of the scenario. What it would deliver without
HARQ follows from the same blocks after their first transmission. A run that was killed goes on
where it was.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

from linksim.cli.common import make_console, run_command
from linksim.errors import InvalidInput, ResultFileError, check_int
from linksim.files import (
    check_folder,
    check_rows,
    load_json,
    make_folder,
    save_json,
    write_atomically,
)

SCENARIO = "pusch-cdl-c-4x2-mcs16-harq"
COUNTS = Path("results/runs/harq")
# Of the first table of [TS38214], with the bits of their symbols
MCS = {4: 2, 10: 4, 16: 4, 22: 6}
SNR_DB = tuple(range(-8, 21, 2))
# What results.json has of an MCS
CURVE = ("mcs", "modulation", "coderate", "most", "scenario", "provenance", "records")
# The share of the most that an MCS can deliver, as conformance tests have it [TS38104]
SHARE = 0.7


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--scenario", default=SCENARIO, metavar="NAME", help="one with [pusch] and [harq]")
    add("--detector", default="mmse", metavar="NAME")
    add("--max-blocks", type=int, default=200, metavar="N", help="of each point")
    add("--snr", type=float, nargs="+", default=SNR_DB, metavar="DB")
    add("--mcs", type=int, nargs="+", default=tuple(MCS), choices=tuple(MCS), metavar="INDEX")
    add("--seed", type=int, default=0, metavar="N")
    add("--output", type=Path, default=Path("results/harq"), metavar="DIR")
    add("--counts", type=Path, default=COUNTS, metavar="DIR", help="where raw counts stay")
    add("--redraw", action="store_true", help="simulate nothing; draw what is in DIR again")
    return parser.parse_args(argv)


def scenario_of(args, mcs):
    """The scenario with another MCS."""
    from linksim.link.scenario import load_scenario

    scenario = load_scenario(args.scenario)
    if scenario.code.type != "transport-block" or scenario.harq.max_transmissions == 1:
        raise InvalidInput(
            f"scenario: {scenario.name} does not send transport blocks again, expected one "
            'with code.type = "transport-block" and harq.max_transmissions > 1'
        )
    return scenario.replace(
        pusch={"mcs_index": mcs, "mcs_table": 1},
        system={"num_bits_per_symbol": MCS[mcs]},
        # Throughput is of interest where no block is lost after all transmissions, too
        run={"min_bler": 0.0},
    )


def curve_of(args, mcs):
    """The records of an MCS, and what it delivers at most, in bit/s/Hz."""
    from linksim.link.link import Link
    from linksim.montecarlo.engine import simulate

    scenario = scenario_of(args, mcs)
    results = simulate(
        scenario,
        [args.detector],
        snr_db=args.snr,
        # All points have all blocks: few errors are not little to know about throughput
        target_block_errors=args.max_blocks,
        max_blocks=args.max_blocks,
        seed=args.seed,
        store_path=args.counts / f"mcs{mcs}" / "counts.jsonl",
    )
    # The estimator, which takes long to prepare, changes nothing here
    link = Link(scenario.replace(csi={"type": "perfect"}))
    return {
        "mcs": mcs,
        "modulation": f"{2 ** MCS[mcs]}-QAM" if MCS[mcs] > 2 else "QPSK",
        "coderate": link.code.coderate,
        "most": link.throughput_of(0.0, (0.0, 0.0))["spectral_efficiency"],
        "scenario": results["scenario"],
        "provenance": results["provenance"],
        "records": results["records"],
    }


def efficiencies(curve, harq):
    """SNR in dB and what is delivered in bit/s/Hz, with its bounds: four arrays."""
    records = curve["records"]
    if harq:
        keys = ("spectral_efficiency", "spectral_efficiency_low", "spectral_efficiency_high")
        values = [[r[key] for r in records] for key in keys]
    else:
        keys = ("bler_1", "bler_1_high", "bler_1_low")
        values = [[curve["most"] * (1 - r[key]) for r in records] for key in keys]
    return [np.array(x) for x in ([r["snr_db"] for r in records], *values)]


def reaches(curve, harq):
    """SNR in dB at which a curve reaches `SHARE` of the most, interpolated; None if not."""
    snr, value, _, _ = efficiencies(curve, harq)
    target = SHARE * curve["most"]
    above = np.flatnonzero(value >= target)
    if not len(above) or not above[0]:
        return None
    last = above[0]
    return float(np.interp(target, value[last - 1 : last + 1], snr[last - 1 : last + 1]))


def plot(data, path):
    """Curves of all MCS, those with HARQ drawn through."""
    from matplotlib.lines import Line2D

    from linksim.figures import literal, new_figure, save_figure, set_title
    from linksim.link.scenario import scenario_from_dict
    from linksim.montecarlo.output import curve_style
    from linksim.snr import SNR_DEFINITIONS

    figure, axes = new_figure(8.0, 5.2)
    handles = []
    for index, curve in enumerate(data["curves"]):
        style = curve_style(index)
        for harq in (True, False):
            snr, value, low, high = efficiencies(curve, harq)
            look = {**style, "linestyle": "-" if harq else "--"}
            look["markerfacecolor"] = style["color"] if harq else "white"
            bars = [value - low, high - value]
            axes.errorbar(
                snr, value, yerr=bars, capsize=2, linewidth=1.3, markersize=4.5, **look
            )
        label = f"MCS {curve['mcs']}: {curve['modulation']}, rate {curve['coderate']:.2f}"
        handles.append(Line2D([], [], label=label, **{**style, "linestyle": "-"}))
    most = scenario_from_dict(data["curves"][0]["scenario"]).harq.max_transmissions
    for text, line in ((f"up to {most} transmissions", "-"), ("one transmission", "--")):
        handles.append(Line2D([], [], color="0.3", linestyle=line, label=text))
    scenario = scenario_from_dict(data["curves"][0]["scenario"])
    axes.set_xlabel(SNR_DEFINITIONS[scenario.snr.definition].label)
    axes.set_ylabel("Spectral efficiency (bit/s/Hz)")
    axes.set_ylim(bottom=0.0)
    axes.legend(handles=handles, fontsize=9, loc="upper left")
    set_title(figure, literal(f"{scenario.title}: {data['detector']}"))
    save_figure(figure, path)


def page(data):
    """The page of the results, as Markdown."""
    from linksim.link.scenario import scenario_from_dict

    first = data["curves"][0]
    scenario = scenario_from_dict(first["scenario"])
    blocks = max(r["blocks"] for r in first["records"])
    versions = ", ".join(map(str, scenario.harq.versions))
    lines = [
        "# Throughput with HARQ",
        "",
        "Made by `python simulations/harq.py`.",
        "",
        f"{scenario.title}, `{data['detector']}`, "
        f"{scenario.csi.type.upper()} channel estimation, {scenario.pusch.num_prbs} PRBs; up to "
        f"{scenario.harq.max_transmissions} transmissions of a transport block, redundancy "
        f"versions {versions}, and {blocks} blocks a point. Each transmission has a channel of its "
        "own. Bars are 95 % intervals; `results.json` has the numbers.",
        "",
        "![](throughput.png)",
        "",
        f"SNR in dB at which an MCS delivers {100 * SHARE:.0f} % of what it can deliver at most:",
        "",
        "| MCS | modulation | code rate | most (bit/s/Hz) | one transmission | "
        f"up to {scenario.harq.max_transmissions} | gain (dB) |",
        "|---|---|---|---|---|---|---|",
    ]
    for curve in data["curves"]:
        one, several = (reaches(curve, harq) for harq in (False, True))
        gain = "" if None in (one, several) else f"{one - several:.1f}"
        cells = ["" if x is None else f"{x:.1f}" for x in (one, several)]
        lines.append(
            f"| {curve['mcs']} | {curve['modulation']} | {curve['coderate']:.2f} | "
            f"{curve['most']:.2f} | {cells[0]} | {cells[1]} | {gain} |"
        )
    return "\n".join(lines) + "\n"


def main(argv=None):
    args = parse_arguments(argv)
    return run_command("harq.py", lambda: _run(args, make_console()))


def _run(args, console):
    file = args.output / "results.json"
    if args.redraw:
        data = load_json(file, detector=str, curves=list)
        check_rows(file, data["curves"], CURVE)
        if not data["curves"]:
            raise ResultFileError(f"{file}: has no curves, expected those of an earlier run")
    else:
        # Before anything is simulated
        check_int("--max-blocks", args.max_blocks)
        check_folder(args.output, "--output")
        check_folder(args.counts, "--counts")
        data = {"detector": args.detector, "curves": []}
        for mcs in args.mcs:
            with console.status(f"MCS {mcs}"):
                data["curves"].append(curve_of(args, mcs))
        make_folder(args.output)
        save_json(file, data)
    plot(data, args.output / "throughput.png")
    text = page(data)
    write_atomically(args.output / "README.md", text)
    console.print(text, markup=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
