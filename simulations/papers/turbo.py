#!/usr/bin/env python3
"""Compare detectors that iterate with the decoder: one, two and four passes.

The script writes into results/papers/turbo/:

- <link>/ (results.json, results.csv, bler.png): all detectors with one, two and four passes
- <link>/pareto.png: their block error rates against the time of a block, where this was measured
- README.md, the page with all tables
"""

import argparse
import sys
from typing import NamedTuple

from common import chosen, gap_text, load_results, run_paper, simulate_figure

from linksim.files import write_atomically
from linksim.link.scenario import load_scenario

PASSES = (1, 2, 4)
DETECTORS = ["mmse", "oamp", "ep", "kbest", "lord", "pep", "pepnet", "ml"]


class Panel(NamedTuple):
    """What is compared on a link."""

    detectors: list
    reference: str
    points: list  # SNR in dB
    timed_at: float  # the one of them that the page has BLER and times of
    scenario: str = ""  # its name, if that is not the panel's
    code: dict | None = None  # that it gets, if it has none
    max_blocks: int = 10**6  # where the command line allows as many
    note: str = ""  # what the page says of it
    is_quick: bool = False  # few blocks, and the machine did other things, too: no times


# {panel: what is compared}
LINKS = {
    "cdl-c-8x4-qam16": Panel(DETECTORS, "ml", [2, 3, 4, 5, 6, 7, 8, 9, 10], 7),
    "rayleigh-4x4-qam16": Panel(DETECTORS, "ml", [2, 3, 4, 5, 6, 7], 5),
    "rayleigh-2x2-qam64": Panel(DETECTORS, "ml", [10, 11, 12, 13, 14, 15], 13),
    "cdl-c-16x8-qam16": Panel(DETECTORS[:-1], "kbest", [3, 4, 5, 6, 7, 8], 6),
    "rayleigh-16x4-qam16-idd": Panel(
        ["mmse", "ep", "kbest", "pepnet"],
        "ep",
        [-9, -8, -7, -6],
        -7,
        max_blocks=256,
        is_quick=True,
        note="Each user has a codeword of its own. As in Sionna's tutorial, the decoder feeds "
        "back all it knows; it is min-sum in the first pass and exact afterwards.",
    ),
    "more-4x4-qam16": Panel(
        ["ep", "oamp", "oampnet2", "amp"],
        "ep",
        [3, 4, 5, 6, 7, 8, 10],
        5,
        "rayleigh-4x4-qam16",
        max_blocks=200,
        is_quick=True,
        note="Further detectors, with fewer blocks. `sphere` finds what `ml` does by max-log, and "
        "takes more than a thousand times as long as `ep` here; it is left out.",
    ),
    "eqnet-2x2-qam64": Panel(
        ["mmse", "ep", "ml", "eqnet-l-prior@rayleigh-2x2-qam64"],
        "ml",
        [11, 12, 13, 14],
        13,
        "rayleigh-2x2-qam64",
        max_blocks=300,
        is_quick=True,
        note="An EQ-Net that was trained with priors, with fewer blocks.",
    ),
    "remimo-16x8-qam16": Panel(
        [
            *("mmse", "ep", "oamp", "remimo-mf@small-16x8-qam16"),
            *("remimo-lmmse", "remimo-pic"),
        ],
        "ep",
        [5, 6, 7, 8],
        7,
        "small-16x8-qam16-corr-rx",
        {"type": "5g", "num_info_bits": 324, "num_coded_bits": 648},
        200,
        "RE-MIMO's system with a code of rate 1/2, with fewer blocks. The networks were trained "
        "without priors, and `remimo-mf` on i.i.d. channels.",
        True,
    ),
}
TARGET_BLER, FEW_BLER = 0.1, 0.01


def loop(name, args, console):
    """Simulate the links, with gaps at two block error rates."""
    from linksim.montecarlo.engine import simulate

    for link in chosen(args, LINKS):
        console.print(f"{name}, {link}")
        panel = LINKS[link]
        run = {"min_bler": 2e-3, "gap_bler": TARGET_BLER}
        scenario = load_scenario(panel.scenario or link)
        if panel.code:
            scenario = scenario.replace(name=link, code=panel.code, run={"batch_size": 20})

        def few(results, arguments, reference=panel.reference, run=run):
            # The same counts, compared at another rate
            scenario = arguments.pop("scenario").replace(run={**run, "gap_bler": FEW_BLER})
            return {"few_gaps": simulate(scenario, reference=reference, **arguments)["gaps"]}

        results = simulate_figure(
            link,
            scenario.replace(run=run),
            [_with(detector, passes) for detector in panel.detectors for passes in PASSES],
            panel.points,
            argparse.Namespace(
                **{**vars(args), "max_blocks": min(args.max_blocks, panel.max_blocks)}
            ),
            console,
            reference=[panel.reference],
            more=few,
            rates=(),
        )
        _plot(results, panel, args.output / link / "bler.png")
        if not panel.is_quick:
            _plot_pareto(results, panel, args.output / link / "pareto.png")


def _with(detector, passes):
    return detector if passes == 1 else f"{detector}/{passes}"


def _plot(results, panel, path):
    """One panel for each number of passes, with the reference in all of them."""
    from linksim.figures import literal, new_panels, save_figure, set_title
    from linksim.link.scenario import scenario_from_dict
    from linksim.montecarlo.output import curve_style, error_bars
    from linksim.snr import SNR_DEFINITIONS

    scenario = scenario_from_dict(results["scenario"])
    reference = panel.reference
    figure, panels = new_panels(len(PASSES), 11.0, 4.4)
    for axes, passes in zip(panels, PASSES):
        for index, detector in enumerate(panel.detectors):
            rows = _rows(results, _with(detector, passes))
            if rows:
                style = {**curve_style(index), "linewidth": 1.3, "markersize": 4}
                snr_db, bler = ([r[k] for r in rows] for k in ("snr_db", "bler"))
                bars = error_bars(rows, "bler")
                axes.errorbar(snr_db, bler, bars, label=detector, capsize=2, **style)
        if passes > 1:
            rows = _rows(results, reference)
            snr_db, bler = ([r[k] for r in rows] for k in ("snr_db", "bler"))
            axes.plot(snr_db, bler, "k:", linewidth=1.0, label=f"{reference}, 1 pass")
        axes.set_title("1 pass" if passes == 1 else f"{passes} passes", fontsize=10)
        axes.set_yscale("log")
        axes.set_ylim(1e-3, 1.3)
        axes.set_xlabel(SNR_DEFINITIONS[scenario.snr.definition].label)
    panels[0].set_ylabel("Block error rate")
    set_title(figure, literal(scenario.description))
    handles = panels[-1].get_legend_handles_labels()
    figure.legend(*handles, loc="outside right center", fontsize=9, frameon=False)
    save_figure(figure, path)


def _plot_pareto(results, panel, path):
    """Error rates at one SNR against the time of detection and decoding."""
    from linksim.figures import (
        draw_front,
        label_points,
        literal,
        new_figure,
        save_figure,
        set_title,
    )

    scenario, snr_db = results["scenario"], panel.timed_at
    rows = [
        {**r, "ms": 1e3 * r["seconds"] / r["blocks"]}
        for r in results["records"]
        if r["snr_db"] == snr_db and r["bler"] > 0
    ]
    figure, axes = new_figure(8.0, 5.0)
    points = draw_front(axes, rows, "ms")
    axes.set_xlabel("Milliseconds of detection and decoding per block")
    axes.set_ylabel(f"BLER at {snr_db:g} dB, 95 % interval")
    title = f"{scenario['title']}; blue: no other beats it in both"
    set_title(figure, literal(title), fontsize=10)
    label_points(axes, points)
    save_figure(figure, path)


def _rows(results, name):
    return [r for r in results["records"] if r["detector"] == name and r["bler"] > 0]


# --- the page -------------------------------------------------------------------------


INTRO = """
# Detectors that iterate with the decoder

The decoder tells the detector what it has found, and the detector tries again those blocks
whose parity checks do not hold. `ep/2` makes two such passes and `ep/4` up to four. Each pass
of the decoder has the iterations that a receiver of one pass has, and goes on where the one
before it ended.

`simulations/papers/turbo.py` makes everything here. Gaps are from paired blocks, with 95 %
intervals; a positive gap means that a receiver needs more SNR than the reference, which has
one pass. Where there are times, they are those of detection and decoding on one machine, in
milliseconds per block; later passes take little because few blocks need them.
"""


def page_text(folder):
    """The text of README.md.

    Args:
        folder: where the links' folders are.
    """
    lines = [INTRO.strip()]
    for link in LINKS:
        lines += _link(folder, link)
    return "\n".join(lines) + "\n"


def _link(folder, link):
    results = load_results(folder, link)
    if results is None:
        return []
    panel = LINKS[link]
    detectors, reference, timed_at = panel.detectors, panel.reference, panel.timed_at
    more = ": more detectors" if panel.scenario in LINKS else ""
    lines = ["", f"## {results['scenario']['title']}{more}"]
    if panel.note:
        lines += ["", panel.note]
    targets = {"gaps": TARGET_BLER, "few_gaps": FEW_BLER}
    if panel.is_quick:
        del targets["few_gaps"]
    for key, target in targets.items():
        gaps = {gap["detector"]: gap for gap in results.get(key, [])}
        lines += ["", f"Gap to `{reference}` at BLER {target:g}:", ""]
        lines += ["| detector | 1 pass | 2 passes | 4 passes |", "|---|---|---|---|"]
        for detector in detectors:
            cells = []
            for passes in PASSES:
                name = _with(detector, passes)
                gap = gaps.get(name)
                cells.append(
                    "reference" if name == reference else gap_text(gap) if gap else "-"
                )
            lines.append(f"| `{detector}` | {' | '.join(cells)} |")
    by_key = {(r["detector"], r["snr_db"]): r for r in results["records"]}
    times = "" if panel.is_quick else ", and in brackets milliseconds per block"
    lines += ["", f"At {timed_at:g} dB, BLER{times}:", ""]
    lines += ["| detector | 1 pass | 2 passes | 4 passes |", "|---|---|---|---|"]
    for detector in detectors:
        rows = [by_key.get((_with(detector, p), float(timed_at))) for p in PASSES]
        cells = [_bler_text(r, not panel.is_quick) for r in rows]
        lines.append(f"| `{detector}` | {' | '.join(cells)} |")
    lines += ["", f"![BLER]({link}/bler.png)"]
    return lines if panel.is_quick else [*lines, "", f"![Time]({link}/pareto.png)"]


def _bler_text(record, has_times):
    if record is None:
        return "-"
    time = f" ({1e3 * record['seconds'] / record['blocks']:.1f})" if has_times else ""
    return f"{record['bler']:.2g}{time}"


def page(name, args, console):
    """Write README.md."""
    write_atomically(args.output / "README.md", page_text(args.output))
    console.print(f"{args.output}/README.md")


def main(argv=None):
    return run_paper(
        argv,
        __doc__,
        "turbo",
        {"loop": loop, "page": page},
        panels=list(LINKS),
        max_blocks=1000,
    )


if __name__ == "__main__":
    sys.exit(main())
