#!/usr/bin/env python3
"""Compare what detectors cost with their error rates, and show how the cost grows.

"pareto" reads the results of a scenario and compares each detector's block error rate at
one SNR with its time and its floating-point operations for a vector. "growth" times every
detector over numbers of streams, antennas, bits and vectors, and fits a slope to each in
a log-log plot: 1 is linear, 2 quadratic. Times are medians; all detectors are called by
turns, each in graph mode or with XLA, whichever it declares to be faster.
"""

import argparse
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from benchmark import draw_vectors, timed_on

from linksim.cli.common import make_console, run_command
from linksim.errors import InvalidInput
from linksim.files import check_folder, load_json, make_folder, save_json, write_atomically

PARETO_RESULTS = Path("results/cdl-c-8x4-qam16/results.json")
PARETO_BATCH = 1000
# What a detector assumes, for the table of "pareto"
ASSUMPTIONS = {
    "ml": "few streams: the work grows with 2^(m (K - 1)); nothing else",
    "kbest": "M >= K; a list of 64 finds the other hypothesis of every bit",
    "ep": "N0 is known; channels may be correlated",
    "pep": "N0 is known; channels may be correlated",
    "lord": "N0 is known; channels may be correlated",
    "pepnet": "N0 is known; its weights are for every K, M and m, and any channel",
    "eqnet-l-sic": "weights for these K and m, here those of i.i.d. 4x4 channels",
    "mmse": "N0 is known",
    "zf": "M >= K, and a well-conditioned channel",
    "vblast-zf": "M >= K; its LLRs take the cancelled streams as right",
    "vblast-mmse": "N0 is known; its LLRs take the cancelled streams as right",
    "oamp": "large i.i.d. channels, which this one is not",
    "zf-sic": "M >= K; its LLRs take the cancelled streams as right",
    "zf-pic": "M >= K; its LLRs take the cancelled streams as right",
}
# The system that growth starts from, and the values of each axis
BASE = {"num_streams": 4, "num_rx": 16, "num_bits_per_symbol": 4, "batch": 1000}
GROWTH = {
    "num_streams": (2, 4, 8),
    "num_rx": (8, 16, 32, 64),
    "num_bits_per_symbol": (2, 4, 6),
    "batch": (10, 100, 1000, 4000),
}
# The rows of the figure of growth: {title: files of linksim/detectors}
FAMILIES = {
    "Linear detection and interference cancellation": ("linear", "sic"),
    "Search and relaxation": ("ml", "sphere", "kbest", "sdr"),
    "Message passing": ("ep", "pep", "lord", "amp", "oamp"),
    "Learned message passing": ("oampnet", "mmnet", "pepnet"),
    "Learned gradient descent": ("detnet", "perchannel"),
    "Learned LLRs": ("eqnet", "nndet"),
    "Learned attention and hypernetworks": ("remimo", "hypermimo"),
    "Sionna's": ("sionna_detectors",),
}
OTHERS = "Others"
# A call that takes longer, or more memory, is left out, and so are larger sizes
LONGEST_SECONDS = 5.0
LARGEST_BYTES = 6 * 2**30
NO = 0.2


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add(
        "--only",
        choices=("pareto", "growth"),
        action="append",
        help="one part; may be repeated",
    )
    add(
        "--results",
        type=Path,
        default=PARETO_RESULTS,
        metavar="FILE",
        help="results that pareto reads",
    )
    add(
        "--snr-db",
        type=float,
        metavar="DB",
        help="SNR point of pareto; by default the highest at which all have errors",
    )
    add(
        "--detectors",
        nargs="+",
        metavar="NAME",
        help="for growth: time only these, and keep the others in DIR; by default all",
    )
    add("--repeats", type=int, default=5, metavar="N")
    add(
        "--redraw",
        action="store_true",
        help="measure nothing; draw the figures of the numbers in DIR again",
    )
    add("--output", type=Path, default=Path("results/cost"), metavar="DIR")
    return parser.parse_args(argv)


# --- pareto ---------------------------------------------------------------------------


def pareto(args, console):
    """Write pareto.json and pareto.png."""
    from linksim.link.costs import detector_costs
    from linksim.link.scenario import load_scenario, scenario_from_dict

    if args.redraw:
        data = load_json(args.output / "pareto.json", scenario=str, rows=list)
        _plot_pareto(data, load_scenario(data["scenario"]), args.output / "pareto.png")
        return
    results = load_json(args.results, scenario=dict, records=list)
    # The points at which all detectors have errors: better ones drop out at a lower SNR
    by_detector = {r["detector"]: set() for r in results["records"]}
    for r in results["records"]:
        if r["block_errors"]:
            by_detector[r["detector"]].add(r["snr_db"])
    points = sorted(set.intersection(*by_detector.values()))
    snr_db = points[-1] if args.snr_db is None and points else args.snr_db
    if snr_db not in points:
        raise InvalidInput(f"snr-db: got {snr_db}, all detectors have errors at {points}")
    # Quantizers are compared elsewhere
    records = [
        r for r in results["records"] if r["snr_db"] == snr_db and "+" not in r["detector"]
    ]
    scenario = scenario_from_dict(results["scenario"])
    system = scenario.system
    inputs = draw_vectors(
        system.num_rx, system.num_streams, system.num_bits_per_symbol, PARETO_BATCH, NO
    )
    kept = ("detector", "bler", "bler_low", "bler_high", "block_errors", "blocks")
    names = [r["detector"] for r in records]
    costs = detector_costs(scenario, names, inputs, args.repeats)
    rows = []
    for record in records:
        cost = costs[record["detector"]]
        rows.append(
            {**{key: record[key] for key in kept}, "flops": cost["flops"], "us": cost["us"]}
        )
    data = {
        "scenario": scenario.name,
        "snr_db": snr_db,
        "batch": PARETO_BATCH,
        "machine": timed_on(),
        "rows": rows,
    }
    make_folder(args.output)
    save_json(args.output / "pareto.json", data)
    _plot_pareto(data, scenario, args.output / "pareto.png")
    console.print(f"{args.output}/pareto.png", markup=False)


def _plot_pareto(data, scenario, path):
    from linksim.figures import (
        draw_front,
        empty_figure,
        label_points,
        literal,
        save_figure,
        set_title,
    )

    figure = empty_figure(11, 4.6)
    labels = {"us": "Microseconds per vector", "flops": "Floating-point operations per vector"}
    drawn = []
    for number, (cost, label) in enumerate(labels.items(), start=1):
        axes = figure.add_subplot(1, 2, number)
        rows = [r for r in data["rows"] if r[cost]]
        drawn.append((axes, draw_front(axes, rows, cost)))
        axes.set_xlabel(label)
        axes.set_ylabel(f"BLER at {data['snr_db']:g} dB, 95 % interval")
    title = literal(scenario.title or scenario.name)
    set_title(figure, f"{title}; blue: no other beats it in both", fontsize=10)
    for axes, points in drawn:
        label_points(axes, points)
    save_figure(figure, path)


# --- growth ---------------------------------------------------------------------------


def growth(args, console):
    """Write growth.json and growth.png."""
    from linksim.registry import list_detectors

    if args.redraw:
        _plot_growth(
            load_json(args.output / "growth.json", rows=list), args.output / "growth.png"
        )
        return
    names = args.detectors or list_detectors()
    order = {name: number for number, name in enumerate(list_detectors())}
    rows = _known_rows(args.output / "growth.json", names)
    for name in names:
        rows = [r for r in rows if r["detector"] != name]
        for axis, values in GROWTH.items():
            for value in values:
                with console.status(f"{name}, {axis} = {value}"):
                    system = {**BASE, axis: value}
                    known = [
                        r for r in rows if r["detector"] == name and r["system"] == system
                    ]
                    seconds = known[0]["seconds"] if known else seconds_of(name, system, args)
                if seconds is None:
                    break
                rows.append(
                    {"detector": name, "axis": axis, "system": system, "seconds": seconds}
                )
        make_folder(args.output)
        rows.sort(key=lambda r: order[r["detector"]])
        data = {"machine": timed_on(), "rows": rows, "slopes": slopes(rows)}
        save_json(args.output / "growth.json", data)
    _plot_growth(data, args.output / "growth.png")
    console.print(f"{args.output}/growth.png", markup=False)


def _known_rows(path, wanted):
    """Rows of an earlier run, which stay until their detector is timed again.

    Raises:
        InvalidInput: some detectors are not `wanted` again, and were timed on another
            machine.
    """
    rows, facts = [], timed_on()
    if path.exists():
        data = load_json(path, machine=dict, rows=list)
        if data["machine"] == facts:
            rows = data["rows"]
        elif others := {r["detector"] for r in data["rows"]} - set(wanted):
            raise InvalidInput(
                f"detectors: {path} has {', '.join(sorted(others))} of another machine, "
                f"{data['machine']}, expected {facts}: time all, or choose another --output"
            )
    return rows


def seconds_of(name, system, args):
    """Median seconds of a call, or None if the detector refuses the sizes, or needs too
    much time or memory."""
    import keras

    from linksim.complexity import compile_detector, interleaved_seconds, peak_memory
    from linksim.registry import build_detector, create_detector

    k, m = system["num_streams"], system["num_bits_per_symbol"]
    inputs = draw_vectors(system["num_rx"], k, m, system["batch"], NO)
    try:
        detector = create_detector(name, num_streams=k, num_bits_per_symbol=m)
        if isinstance(detector, keras.layers.Layer):
            build_detector(detector, system["num_rx"])  # weights cannot be made by XLA
        call = compile_detector(detector)
        if hasattr(call, "get_concrete_function"):
            if peak_memory(call.get_concrete_function(*inputs)) > LARGEST_BYTES:
                return None
        if detector.eager_only:
            start = time.perf_counter()
            np.asarray(call(*[x[:1] for x in inputs]))
            per_vector = time.perf_counter() - start
            if per_vector * system["batch"] > LONGEST_SECONDS:
                return None
        np.asarray(call(*inputs))
        start = time.perf_counter()
        np.asarray(call(*inputs))
        if time.perf_counter() - start > LONGEST_SECONDS:
            return None
        seconds = interleaved_seconds({name: lambda: call(*inputs)}, args.repeats)[name]
    except (InvalidInput, ValueError):
        return None  # sizes that the detector refuses
    return float(np.median(seconds))


def slopes(rows):
    """{detector: {axis: slope of log seconds over log of the axis' values}}.

    For the modulation the axis is the number of constellation points, 2^m.
    """
    found = {}
    for name in dict.fromkeys(r["detector"] for r in rows):
        found[name] = {}
        for axis in GROWTH:
            mine = [r for r in rows if r["detector"] == name and r["axis"] == axis]
            if len(mine) > 1:
                x = [_size(axis, r["system"][axis]) for r in mine]
                y = [r["seconds"] for r in mine]
                found[name][axis] = float(np.polyfit(np.log(x), np.log(y), 1)[0])
    return found


def _size(axis, value):
    return 2**value if axis == "num_bits_per_symbol" else value


def _plot_growth(data, path):
    from linksim.figures import empty_figure, ordered_legend, save_figure

    labels = {
        "num_streams": "Streams",
        "num_rx": "Receive antennas",
        "num_bits_per_symbol": "Constellation points",
        "batch": "Vectors of a call",
    }
    groups = families(data["slopes"])
    figure = empty_figure(13, 2.7 * len(groups))
    figure.set_dpi(90)  # as it is so tall
    rows = figure.subfigures(len(groups), 1, squeeze=False)[:, 0]
    for row, (title, names) in zip(rows, groups.items()):
        row.suptitle(title, fontsize=10)
        for axes, axis in zip(row.subplots(1, len(GROWTH), sharey=True), GROWTH):
            _plot_axis(axes, data["rows"], axis, names)
            axes.set_xlabel(labels[axis])
        row.axes[0].set_ylabel("Microseconds per vector")
        # Beside the last axes, in the order of the curves there
        legend = ordered_legend(row.axes[-1])
        row.legend(*legend, loc="outside right", fontsize=8, frameon=False)
    save_figure(figure, path, num_colors=256)


def families(names):
    """{title: names of its detectors}, in the order of `FAMILIES`."""
    from linksim.registry import DETECTORS

    found = {title: [] for title in [*FAMILIES, OTHERS]}
    for name in names:
        target = DETECTORS.entry(name).target
        module = target.split(":")[0] if isinstance(target, str) else target.__module__
        file = module.split(".")[-1]
        title = next((t for t, files in FAMILIES.items() if file in files), OTHERS)
        found[title].append(name)
    return {title: members for title, members in found.items() if members}


def _plot_axis(axes, rows, axis, names):
    """Time against the values of one axis of `GROWTH`."""
    from linksim.figures import literal
    from linksim.montecarlo.output import curve_style

    axes.grid(True, which="major", color="0.85", linewidth=0.7)
    for index, name in enumerate(names):
        mine = [r for r in rows if r["detector"] == name and r["axis"] == axis]
        x = [_size(axis, r["system"][axis]) for r in mine]
        y = [1e6 * r["seconds"] / r["system"]["batch"] for r in mine]
        style = curve_style(index)
        axes.plot(x, y, label=literal(name), linewidth=1, markersize=4, **style)
    axes.set_xscale("log")
    axes.set_yscale("log")
    sizes = [_size(axis, value) for value in GROWTH[axis]]
    axes.set_xticks(sizes, labels=sizes)
    axes.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)


# --- the report -----------------------------------------------------------------------


def report(folder):
    """The page of the results in a folder, as Markdown."""
    lines = ["# What detectors cost", "", "Made by `python simulations/cost.py`.", ""]
    file = folder / "pareto.json"
    if file.exists():
        data = load_json(file)
        lines += [
            f"## Error rate against cost: {data['scenario']} at {data['snr_db']:g} dB",
            "",
        ]
        lines += [_machine_text(data["machine"]), "", "![](pareto.png)", ""]
        lines += ["FLOPs are missing where the graph does not say how often a loop runs.", ""]
        lines += [
            "| detector | BLER | us per vector | FLOPs per vector | what it assumes |",
            "|---|---|---|---|---|",
        ]
        for r in sorted(data["rows"], key=lambda r: r["bler"]):
            flops = "" if r["flops"] is None else f"{r['flops']:,}"
            interval = f"{r['bler']:.2e} [{r['bler_low']:.1e}, {r['bler_high']:.1e}]"
            assumes = ASSUMPTIONS.get(r["detector"], "")
            lines.append(
                f"| `{r['detector']}` | {interval} | {r['us']:.3g} | {flops} | {assumes} |"
            )
        lines.append("")
    file = folder / "growth.json"
    if file.exists():
        data = load_json(file)
        base = ", ".join(f"{key} {value}" for key, value in BASE.items())
        lines += ["## Growth", "", _machine_text(data["machine"]), "", "![](growth.png)", ""]
        lines += [f"Slopes in log-log plots around {base}; the time is that of a whole call."]
        lines += ["A slope is missing where a detector refuses the sizes, or where a call"]
        lines += [
            f"takes more than {LONGEST_SECONDS:g} s or {LARGEST_BYTES / 2**30:g} GiB.",
            "",
        ]
        lines += ["| detector | streams | antennas | constellation points | vectors |"]
        lines += ["|---|---|---|---|---|"]
        for name, mine in data["slopes"].items():
            texts = [f"{mine[axis]:.2f}" if axis in mine else "" for axis in GROWTH]
            lines.append(f"| `{name}` | " + " | ".join(texts) + " |")
        lines.append("")
    return "\n".join(lines)


def _machine_text(facts):
    return ", ".join(f"{key}: {value}" for key, value in facts.items() if value)


def main(argv=None):
    args = parse_arguments(argv)
    return run_command("cost.py", lambda: _run(args, make_console()))


def _run(args, console):
    check_folder(args.output, "--output")
    parts = {"pareto": pareto, "growth": growth}
    for name in args.only or parts:
        parts[name](args, console)
    write_atomically(args.output / "README.md", report(args.output))
    return 0


if __name__ == "__main__":
    sys.exit(main())
