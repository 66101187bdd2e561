#!/usr/bin/env python3
"""Compare `pep`, `lord` and `pepnet`, which are this project's own, with EP, K-Best and ML.

The script writes into results/papers/pepnet/:

- coded/<link>/ (results.json, results.csv, bler.png, ser.png, ber.png): coded links
- uncoded/<link>/, the same: systems without a code, up to 64 antennas
- ep_sweep.json: information of expectation propagation against iterations and damping
- soft_output.json and calibration.png: whether LLRs mean what they say
- times.json: time of 1000 vectors, all detectors in turn
- ablations.json: trainings of `pepnet` without some of its parts
- README.md, the page with all tables

No part of the training of `pepnet` has a system and channel of these links.
"""

import argparse
import sys

from common import (
    available,
    chosen,
    gap_text,
    load_json_if_made,
    load_results,
    run_paper,
    simulate_figure,
    symbol_error_gap,
)
from pepnet_ablations import ablations, ablations_tables
from soft_output import simulate_rates, some_vectors

from linksim.files import save_json, write_atomically
from linksim.link.scenario import load_scenario
from simulations.markdown import table

EP10 = "ep(damping=0.9, num_iterations=10)"
EP4 = "ep(damping=0.5, num_iterations=4)"
OWN = ["pep", "lord", "pepnet"]
REMIMO = {  # trained on the kind of channel
    "small-16x8-qam16": "remimo-lmmse@small-16x8-qam16",
    "small-16x8-qam16-corr-rx": "remimo-pic@small-16x8-qam16-corr-rx",
    "massive-64x16-qam16": "remimo-lmmse@massive-64x32-qam16",
    "massive-64x16-qam16-corr-rx": "remimo-pic@massive-64x32-qam16-corr-rx",
    "massive-64x32-qam16": "remimo-lmmse@massive-64x32-qam16",
    "massive-64x32-qam16-corr-rx": "remimo-pic@massive-64x32-qam16-corr-rx",
}
# {link: (detectors beside ours, reference, SNR in dB)}
CODED = {
    "cdl-c-8x4-qam16": (
        ["mmse", "ep", EP10, "kbest", "ml"],
        "ml",
        [2, 3, 4, 5, 6, 7, 8, 10, 12],
    ),
    "rayleigh-4x4-qam16": (["mmse", "ep", EP10, "kbest", "ml"], "ml", [3, 4, 5, 6, 7, 8, 9]),
    "rayleigh-2x2-qam64": (
        ["mmse", "ep", EP10, "kbest", "ml"],
        "ml",
        [11, 12, 13, 14, 15, 16, 17],
    ),
    "cdl-a-2x2-qam64": (
        ["mmse", "ep", EP10, "kbest", "ml"],
        "ml",
        [16, 19, 22, 25, 28, 31, 34, 37],
    ),
    "cdl-c-16x8-qam16": (["mmse", "ep", EP10, "kbest"], "kbest", [4, 6, 8, 10, 12, 14]),
    "massive-64x16-qam16-corr-rx": (["mmse", "ep"], "ep", [1, 2, 3, 4]),
    "massive-64x32-qam16": (["mmse", "ep"], "ep", [4, 5, 6, 7]),
    "massive-64x32-qam16-corr-rx": (["mmse", "ep"], "ep", [6, 7, 8, 9]),
}
UNCODED = {
    "rayleigh-8x8-qam16": (
        ["mmse", "ep", EP4, "kbest"],
        EP4,
        [12, 14, 16, 18, 20, 22, 24, 26, 28],
    ),
    "small-16x8-qam16": (["mmse", "ep", EP4], EP4, [7, 9, 11, 13, 15]),
    "small-16x8-qam16-corr-rx": (["mmse", "ep", EP4], EP4, [11, 13, 15, 17, 19]),
    "massive-64x16-qam16": (["mmse", "ep", EP4], EP4, [7, 9, 11, 13]),
    "massive-64x16-qam16-corr-rx": (["mmse", "ep", EP4], EP4, [9, 11, 13]),
    "massive-64x32-qam16": (["mmse", "ep", EP4], EP4, [9, 11, 13]),
    "massive-64x32-qam16-corr-rx": (["mmse", "ep", EP4], EP4, [13, 15, 17]),
    "massive-64x16-qam64-corr-rx": (["mmse", "ep", EP4], EP4, [16, 18, 20]),
}
TARGET_BLER, FEW_BLER, TARGET_SER = 0.1, 0.01, 1e-3
# {link: SNR in dB} at which information and calibration are measured
SOFT = {
    "cdl-c-8x4-qam16": [6.0, 8.0],
    "rayleigh-4x4-qam16": [5.0],
    "rayleigh-2x2-qam64": [13.0],
    "cdl-a-2x2-qam64": [20.0],
    "cdl-c-16x8-qam16": [14.0],
    "small-16x8-qam16-corr-rx": [8.0],
    "massive-64x32-qam16-corr-rx": [9.0],
    "massive-64x16-qam64": [16.0],
    "kronecker-4x2-qpsk": [4.0],
    "cdl-c-4x4-qam16-ls": [12.0],
}
SOFT_BITS = 150_000
DAMPINGS, MOST_UPDATES = (0.0, 0.3, 0.5, 0.7, 0.9), 9
# {link: (M, K, m, N0)} of the times
TIMED = {"8x4 16-QAM": (8, 4, 4, 0.2), "16x8 16-QAM": (16, 8, 4, 0.2)}
TIMED_DETECTORS = ["mmse", "ep", EP10, "kbest", *OWN, "ml"]
TIMED_BATCH, TIMED_REPEATS = 1000, 21


def coded(name, args, console):
    """Simulate the coded links, with gaps at two block error rates."""
    from linksim.montecarlo.engine import simulate

    for link in chosen(args, CODED):
        console.print(f"{name}, {link}")
        detectors, reference, points = CODED[link]
        run = {"min_bler": 1e-3, "gap_bler": TARGET_BLER}

        def few(results, arguments, reference=reference, run=run):
            # The same counts, compared at another rate
            scenario = arguments.pop("scenario").replace(run={**run, "gap_bler": FEW_BLER})
            return {"few_gaps": simulate(scenario, reference=reference, **arguments)["gaps"]}

        scenario = _with_code(load_scenario(link)).replace(run=run)
        simulate_figure(
            f"{name}/{link}",
            scenario,
            [*detectors, *_learned(link), *_own(scenario)],
            points,
            args,
            console,
            reference=[reference],
            more=few,
        )


def uncoded(name, args, console):
    """Simulate the links without a code, whose blocks are single vectors."""
    more = {"max_blocks": 30 * args.max_blocks}
    more["target_block_errors"] = 5 * args.target_block_errors
    args = argparse.Namespace(**{**vars(args), **more})
    for link in chosen(args, UNCODED):
        console.print(f"{name}, {link}")
        detectors, reference, points = UNCODED[link]
        scenario = load_scenario(link)
        simulate_figure(
            f"{name}/{link}",
            scenario.replace(run={"min_bler": 0.0}),
            [*detectors, *_learned(link), *_own(scenario)],
            points,
            args,
            console,
            reference=[reference],
            rates=("ser", "ber"),
        )


def _with_code(scenario):
    """The scenario with the 802.11n code if it has none."""
    if scenario.code.type != "none":
        return scenario
    title = f"{scenario.title}, 802.11n code"
    return scenario.replace(title=title, code={"type": "802.11n"})


def _learned(link):
    """The RE-MIMO of a link, if there is one."""
    return [REMIMO[link]] if link in REMIMO else []


def _own(scenario):
    """Our detectors; with many streams `lord` is slow."""
    return OWN if scenario.system.num_streams <= 8 else ["pep", "pepnet"]


def ep_sweep(name, args, console):
    """Measure the information of expectation propagation against its settings."""
    from linksim.constellation import pam_logits_to_llrs
    from linksim.detectors.real import complex_to_real_channel
    from linksim.training.losses import mutual_information

    data = {}
    for link, points in SOFT.items():
        console.print(f"{name}, {link}")
        y, h, no, bits, detector = some_vectors(
            load_scenario(link), points[-1], args.seed, SOFT_BITS
        )
        y, h = complex_to_real_channel(y, h)
        h = h[..., : detector.num_dims]
        m = detector.num_bits_per_symbol
        for damping in DAMPINGS:
            states = _cavities(detector.points, damping)(y, h, no)
            for method in ("app", "maxlog"):
                data.setdefault(link, []).extend(
                    {
                        "damping": damping,
                        "num_iterations": updates + 1,
                        "demapping_method": method,
                        "rate": float(
                            mutual_information(pam_logits_to_llrs(logits, m, method), bits)
                        ),
                    }
                    for updates, logits in enumerate(states)
                )
    save_json(args.output / "ep_sweep.json", data)


def _cavities(points, damping):
    """A function of a real system: the logits after each number of updates."""
    from linksim.backend import compiled
    from linksim.detectors.ep import ep_states

    def cavities(y, h, no):
        return [s.logits for s in ep_states(y, h, no, points, MOST_UPDATES, damping)]

    return compiled(cavities)


def soft_output(name, args, console):
    """Measure information and calibration of the LLRs."""
    from linksim.link.link import Link

    data = load_json_if_made(args.output / "soft_output.json") or {}
    for link in chosen(args, SOFT):
        console.print(f"{name}, {link}")
        scenario = load_scenario(link)
        system = scenario.system
        wanted = ["mmse", "ep", EP10, "pep", "pepnet"]
        if system.num_streams <= 8:  # these are slow for more
            wanted += ["lord", "kbest"]
        if system.num_streams * system.num_bits_per_symbol <= 16:
            wanted += ["ml"]
        per_batch = scenario.run.batch_size * Link(scenario).num_symbols
        per_batch *= system.num_bits_per_symbol
        data[link] = simulate_rates(
            scenario,
            available(wanted, scenario, console),
            SOFT[link],
            num_batches=max(1, round(SOFT_BITS / per_batch)),
            seed=args.seed,
        )
        save_json(args.output / "soft_output.json", data)
    _plot_calibration(data, args.output / "calibration.png")


def _plot_calibration(data, path):
    """The factor by which LLRs should be multiplied, per link; 1 is calibrated."""
    from linksim.figures import new_figure, save_figure
    from linksim.montecarlo.output import curve_style

    figure, axes = new_figure(8.0, 4.2)
    links = [f"{link}, {row:g} dB" for link in data for row in SOFT[link]]
    names = ["mmse", "ep", EP10, "pep", "lord", "kbest", "pepnet"]
    for index, name in enumerate(names):
        rows = {
            f"{link}, {r['snr_db']:g} dB": r["factor"]
            for link, found in data.items()
            for r in found
            if r["detector"] == name
        }
        where = [links.index(link) for link in rows]
        style = {**curve_style(index), "linestyle": "none"}
        axes.plot(where, list(rows.values()), label=name, **style)
    axes.axhline(1.0, color="black", linewidth=0.8)
    axes.set_yscale("log")
    axes.set_xticks(range(len(links)), links, rotation=30, ha="right", fontsize=7)
    axes.set_ylabel("Best factor of the LLRs")
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    save_figure(figure, path)


def times(name, args, console):
    """Time the detectors on 1000 vectors, in turn."""
    from linksim.complexity.latency import compile_detector, measure_latency
    from linksim.link.receiver import create_receiver
    from simulations.benchmark import draw_vectors

    data = {}
    for link, (num_rx, streams, m, no) in TIMED.items():
        console.print(f"{name}, {link}")
        base = load_scenario("small-16x8-qam16")
        scenario = base.replace(
            system={"num_rx": num_rx, "num_streams": streams, "num_bits_per_symbol": m}
        )
        inputs = draw_vectors(num_rx, streams, m, TIMED_BATCH, no)
        wanted = [d for d in TIMED_DETECTORS if d != "ml" or streams <= 4]
        functions = {
            d: compile_detector(create_receiver(d, scenario).detector)
            for d in available(wanted, scenario, console)
        }
        data[link] = measure_latency(functions, inputs, TIMED_REPEATS)
    save_json(args.output / "times.json", {"batch": TIMED_BATCH, "links": data})


# --- the page -------------------------------------------------------------------------


def page_text(folder):
    """The text of README.md.

    Args:
        folder: where the figures' files are.
    """
    lines = [INTRO.strip(), "", "## Coded links"]
    for link, (_, reference, _) in CODED.items():
        lines += _coded_table(folder, link, reference)
    lines += ["", "## Without a code"]
    for link, (_, reference, _) in UNCODED.items():
        lines += _uncoded_table(folder, link, reference)
    lines += _soft_table(load_json_if_made(folder / "soft_output.json") or {})
    lines += ablations_tables(load_json_if_made(folder / "ablations.json"))
    lines += _times_table(load_json_if_made(folder / "times.json"))
    lines += _sweep_table(load_json_if_made(folder / "ep_sweep.json") or {})
    return "\n".join(lines) + "\n"


INTRO = """
# Expectation propagation with pairs and hypotheses

`pep`, `lord` and `pepnet` are this project's own detectors. All three begin with a few steps
of expectation propagation [Cespedes14]. `pep` corrects its marginals by the joint posteriors
of pairs of dimensions [Cseke11] [Opper13]. `lord` follows every level of every dimension
through the other dimensions [Siti06] and compares the candidates. `pepnet` weighs both with
two small networks, whose one set of weights serves every number of streams and antennas, every
modulation and every channel. Its training used no combination of system and channel that is shown
below. The last table says how the setting of `ep` was chosen; `ep(damping=0.9,num_iterations=10)`
is what Sionna's detector does.

`simulations/papers/pepnet.py` makes everything here. Gaps at a BLER are from paired blocks,
with 95 % intervals; a positive gap means that a detector needs more SNR than the reference.
"""


def _coded_table(folder, link, reference):
    results = load_results(folder, f"coded/{link}")
    if results is None or not results["gaps"]:
        return []
    few = {gap["detector"]: gap for gap in results.get("few_gaps", [])}
    head = f"gap to `{reference}`"
    lines = ["", f"### {results['scenario']['title']}", ""]
    lines += [f"| detector | {head} at BLER {TARGET_BLER:g} | at BLER {FEW_BLER:g} |"]
    lines += ["|---|---|---|"]
    for gap in results["gaps"]:
        other = few.get(gap["detector"])
        cell = gap_text(other) if other else "-"
        lines.append(f"| `{gap['detector']}` | {gap_text(gap)} | {cell} |")
    return [*lines, "", f"![BLER](coded/{link}/bler.png)"]


def _uncoded_table(folder, link, reference):
    results = load_results(folder, f"uncoded/{link}")
    if results is None:
        return []
    lines = ["", f"### {results['scenario']['title']}", ""]
    points = sorted({r["snr_db"] for r in results["records"]})
    header = ["detector", f"gap to `{reference}` at SER {TARGET_SER:g}"]
    header += [f"SER at {p:g} dB" for p in points]
    rows = []
    by_key = {(r["detector"], r["snr_db"]): r for r in results["records"]}
    for name in dict.fromkeys(r["detector"] for r in results["records"]):
        gap = symbol_error_gap(results, name, reference, TARGET_SER)
        cells = [
            f"{by_key[name, p]['ser']:.2e}" if (name, p) in by_key else "-" for p in points
        ]
        cell = "reference" if name == reference else gap_text(gap)
        rows.append([f"`{name}`", cell, *cells])
    return lines + table(header, rows)


def _soft_table(data):
    if not data:
        return []
    lines = ["", "## Information and calibration", ""]
    lines += [
        "Bits of mutual information per coded bit, and in brackets the best factor of the"
    ]
    lines += ["LLRs, which is 1 where they are calibrated.", ""]
    names = list(dict.fromkeys(r["detector"] for rows in data.values() for r in rows))
    found = []
    for link, rows in data.items():
        for snr_db in dict.fromkeys(r["snr_db"] for r in rows):
            by_name = {r["detector"]: r for r in rows if r["snr_db"] == snr_db}
            cells = [
                f"{by_name[n]['rate']:.4f} ({by_name[n]['factor']:.2f})"
                if n in by_name
                else "-"
                for n in names
            ]
            found.append([f"{link}, {snr_db:g} dB", *cells])
    lines += table(["link", *(f"`{n}`" for n in names)], found)
    return [*lines, "", "![Calibration](calibration.png)"]


def _times_table(data):
    if data is None:
        return []
    links = data["links"]
    lines = ["", f"## Time of {data['batch']} vectors", ""]
    lines += ["Medians in milliseconds, all detectors in turn in one process.", ""]
    times = []
    names = list(dict.fromkeys(name for rows in links.values() for name in rows))
    for name in names:
        cells = [f"{r[name]['median_ms']:.1f}" if name in r else "-" for r in links.values()]
        times.append([f"`{name}`", *cells])
    return lines + table(["detector", *links], times)


def _sweep_table(data):
    if not data:
        return []
    best = {link: max(r["rate"] for r in rows) for link, rows in data.items()}
    settings = {}
    for link, rows in data.items():
        for r in rows:
            # One iteration has no damping
            if r["demapping_method"] == "app" and (
                r["num_iterations"] > 1 or not r["damping"]
            ):
                key = r["num_iterations"], r["damping"]
                settings.setdefault(key, []).append(best[link] - r["rate"])
    ranked = sorted(settings, key=lambda key: max(settings[key]))
    wanted = {*ranked[:6], (2, 0.3), (10, 0.9), (4, 0.5), (3, 0.5), (1, 0.0)}
    lines = ["", "## Settings of expectation propagation", ""]
    lines += [
        f"Information lost to the best setting of each of {len(best)} links, in bits per"
    ]
    lines += [
        "coded bit: the largest loss over the links, and the mean. One iteration is LMMSE.",
        "",
    ]
    lines += ["| iterations | damping | largest loss | mean loss |", "|---|---|---|---|"]
    for key in ranked:
        if key in wanted:
            lost = settings[key]
            lines.append(
                f"| {key[0]} | {key[1]:g} | {max(lost):.4f} | {sum(lost) / len(lost):.4f} |"
            )
    return lines


def page(name, args, console):
    """Write README.md."""
    write_atomically(args.output / "README.md", page_text(args.output))
    console.print(f"{args.output}/README.md")


def main(argv=None):
    functions = {"coded": coded, "uncoded": uncoded, "ep-sweep": ep_sweep}
    functions.update({"soft-output": soft_output, "times": times})
    functions["ablations"] = lambda *run: ablations(*run, SOFT, SOFT_BITS)
    functions["page"] = page
    panels = [*dict.fromkeys([*CODED, *UNCODED, *SOFT])]
    return run_paper(
        argv,
        __doc__,
        "pepnet",
        functions,
        panels=panels,
        max_blocks=1500,
    )


if __name__ == "__main__":
    sys.exit(main())
