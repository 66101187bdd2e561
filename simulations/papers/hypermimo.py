#!/usr/bin/env python3
"""Make every figure of the HyperMIMO paper, [Goutay20].

The script writes into results/papers/hypermimo/:

- fig4.png: the user drops
- fig5/<panel>/ (results.json, results.csv, ser.png, bler.png, ber.png): the 200 fixed
  channels that MMNet was trained for, and new channels
- fig6a/<panel>/ and fig6b/<panel>/ (results.json, ser.png, bler.png): mobility
- claims.md

SER and BLER come from the same coded blocks. Detectors without shipped weights are left
out, and named on the console.
"""

import sys

import numpy as np
from common import (
    HIGH_RATE_CODE,
    chosen,
    gaps_text,
    load_json_if_made,
    run_paper,
    simulate_figure,
    simulate_sweep,
    sweep_table,
    write_claims,
)
from pages import full_verdicts

from linksim.link.scenario import load_scenario

SCENARIO = "local-scattering-12x6-qpsk"
DETECTORS = ["mmse", "ep", "oamp", "oampnet", "hypermimo", "ml"]
# SNR in dB: the coded waterfall, and further up to a SER of 1e-3
POINTS = [-5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 6, 8, 10, 12]
PANELS = {
    "fixed": (f"{SCENARIO}-fixed", [*DETECTORS, "mmnet"]),
    "random": (SCENARIO, DETECTORS),
}
# {figure: (mobility, displacements, label of the axis)}
MOBILITY = {
    "fig6a": ("angular", (0, 1, 2, 4, 6, 8, 10), "Displacement (degrees)"),
    "fig6b": ("2d", (0, 5, 10, 20, 30, 40, 50), "Displacement (m), from a distance of 250 m"),
}
# {panel: SNR in dB}: one to compare SER at, and one in the coded waterfall
SWEEPS = {"6db": 6.0, "coded": -2.0}
TARGET_BLER = 0.1
BATCH_SIZE = 100


def coded(name, title, **tables):
    """A shipped scenario with a code of rate 5/6, under a title of its own."""
    return load_scenario(name).replace(
        code=HIGH_RATE_CODE,
        # No detector drops out: its SER is of interest where its BLER is zero
        run={"min_bler": 0.0, "gap_bler": TARGET_BLER, "batch_size": BATCH_SIZE},
        title=title,
        **tables,
    )


def drops(name, args, console):
    """Draw where the users of the ten drops are (Fig. 4)."""
    from linksim.channels import channel_of
    from linksim.figures import empty_figure, save_figure

    channel = channel_of(load_scenario(SCENARIO))
    figure = empty_figure(10.0, 4.0)
    rows = 2
    grid = figure.subplots(rows, -(-len(channel.drops_deg) // rows), squeeze=False)
    for number, (axes, angles) in enumerate(zip(grid.flat, np.deg2rad(channel.drops_deg))):
        edge = np.deg2rad(np.linspace(-60, 60, 61))
        sector = [np.concatenate([[0], f(edge), [0]]) for f in (np.sin, np.cos)]
        axes.plot(*sector, color="0.7", linewidth=0.8)
        axes.plot(np.sin(angles), np.cos(angles), "o", markersize=4)
        axes.set_title(f"Drop {number + 1}", fontsize=9)
        axes.set_aspect("equal")
        axes.set_axis_off()
    save_figure(figure, args.output / "fig4.png")


def error_rates(name, args, console):
    """Simulate SER and coded BLER against SNR (Fig. 5)."""
    for panel in chosen(args, PANELS):
        scenario, detectors = PANELS[panel]
        console.print(f"{name}, {panel}")
        simulate_figure(
            f"{name}/{panel}",
            coded(scenario, load_scenario(scenario).title),
            detectors,
            POINTS,
            args,
            console,
            reference=["hypermimo", "mmse"],
        )


def mobility(name, args, console):
    """Simulate SER and coded BLER against how far the users have moved (Fig. 6)."""
    kind, displacements, label = MOBILITY[name]
    for panel in chosen(args, SWEEPS):
        console.print(f"{name}, {panel}")
        scenarios = {
            value: coded(
                SCENARIO,
                f"HyperMIMO: {kind} mobility",
                channel={"mobility": kind, "displacement": float(value)},
            )
            for value in displacements
        }
        simulate_sweep(
            f"{name}/{panel}", scenarios, DETECTORS, SWEEPS[panel], args, console, label=label
        )


def claims_text(folder):
    """The text of claims.md: the verdicts, and what was measured for H1 and H2.

    Args:
        folder: where the figures' files are.
    """
    lines = ["# Claims of the HyperMIMO paper: what was measured", *full_verdicts("hypermimo")]
    lines += ["", "## Tables", ""]
    lines += ["Gaps at a SER take the points as independent; those at a BLER are from paired"]
    lines += [
        "blocks. Intervals are 95 %; a positive gap means that a detector needs more SNR"
    ]
    lines += [
        "than HyperMIMO. H1 says -0.65 dB for `mmnet`, +1.85 dB for `oampnet` and +2.85 dB"
    ]
    lines += ["for `mmse` (fig5/fixed)."]
    for panel in PANELS:
        lines += gaps_text(folder, f"fig5/{panel}")
    for figure in MOBILITY:
        for panel, snr_db in SWEEPS.items():
            data = load_json_if_made(folder / figure / panel / "results.json")
            if data is None:
                continue
            for rate in ("ser", "bler"):
                lines += ["", f"## H2: {figure}, {rate.upper()} at {snr_db:g} dB", ""]
                lines += sweep_table(data, rate)
            lines += _worse_text(data)
    return "\n".join(lines) + "\n"


def claims(name, args, console):
    """Write claims.md."""
    write_claims(claims_text(args.output), args, console)


def _worse_text(data):
    """Say where HyperMIMO's SER is above that of MMSE or OAMP-Net, beyond the intervals."""
    by_key = {(r["detector"], r["value"]): r for r in data["records"]}
    values = list(dict.fromkeys(r["value"] for r in data["records"]))
    lines = []
    for other in ("mmse", "oampnet"):
        both = [v for v in values if {("hypermimo", v), (other, v)} <= by_key.keys()]
        if not both:
            continue
        worse = [
            f"{v:g}"
            for v in both
            if by_key["hypermimo", v]["ser_low"] > by_key[other, v]["ser_high"]
        ]
        found = f"at {', '.join(worse)}" if worse else "nowhere"
        lines += [
            "",
            f"HyperMIMO's SER is above that of `{other}`, beyond the intervals: {found}.",
        ]
    return lines


def main(argv=None):
    functions = {
        "fig4": drops,
        "fig5": error_rates,
        "fig6a": mobility,
        "fig6b": mobility,
        "claims": claims,
    }
    panels = [*PANELS, *SWEEPS]
    return run_paper(argv, __doc__, "hypermimo", functions, panels=panels, max_blocks=2000)


if __name__ == "__main__":
    sys.exit(main())
