#!/usr/bin/env python3
"""Make every figure of the HyperMIMO-LR paper, [Zilberstein21].

The script writes into results/papers/hypermimo_lr/:

- fig4a/<panel>/ (results.json, results.csv, ser.png, bler.png, ber.png): the sequences of
  the paper's text, and those of its published code, whose innovations have twice the power
- fig4bc/<panel>/ (results.json, ser.png, bler.png): error rates against hops
- general/, as fig4a: channels such as the sequences start from, a new one for every use
- claims.md

SER and BLER come from the same blocks; in fig4a a block is one codeword over the five hops
of a sequence. Detectors without shipped weights are left out, and named on the console.
"""

import sys

from common import (
    HIGH_RATE_CODE,
    chosen,
    gaps_text,
    load_json_if_made,
    load_results,
    rate_text,
    run_paper,
    simulate_figure,
    simulate_sweep,
    sweep_table,
    write_claims,
)
from pages import full_verdicts

from linksim.link.scenario import load_scenario

SEQUENCES, GENERAL = "gauss-markov-4x2-qpsk", "kronecker-4x2-qpsk"
DETECTORS = [
    *("mmse", f"mmnet@{SEQUENCES}", f"detnet-fc@{SEQUENCES}", f"detnet@{GENERAL}"),
    *(f"hypermimo@{GENERAL}", f"hypermimo-lr@{GENERAL}-beta0"),
    *(f"hypermimo-lr@{GENERAL}-beta01", f"hypermimo-lr@{GENERAL}"),
    # Not in the paper: for each channel the teacher of the nearest channel
    f"mmnet@{SEQUENCES}-561",
    # Not in the paper: DetNet in the place of MMNet, with and without teachers
    *(f"hypermimo-lr@{GENERAL}-detnet", f"hypermimo-lr@{GENERAL}-detnet-beta0"),
    f"detnet-fc@{SEQUENCES}-561",
    "ml",
]
# The detectors that are not trained for certain channels
ANY_CHANNEL = [name for name in DETECTORS if SEQUENCES not in name]
# SNR in dB: the coded waterfall, and the 5 to 10 dB of the paper
POINTS = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16]
# {panel: E|e_ij|^2 relative to E|h_ij|^2}
PANELS = {"text": 1.0, "code": 2.0}
# {panel: SNR in dB}: those of Fig. 4b and 4c, and one in the coded waterfall
SWEEPS = {"5db": 5.0, "10db": 10.0, "coded": 7.0}
TARGET_SER = 1e-2
TARGET_BLER = 0.1
BATCH_SIZE = 100


def sequences(innovation_power, hop=-1):
    """The scenario of the sequences with a code of rate 5/6.

    Args:
        innovation_power: E|e_ij|^2 relative to E|h_ij|^2.
        hop: the hop of all channel uses, or -1 for all hops.
    """
    what = "all hops" if hop < 0 else "by hop"
    return load_scenario(SEQUENCES).replace(
        channel={"innovation_power": innovation_power, "hop": hop},
        code=HIGH_RATE_CODE,
        # No detector drops out: its SER is of interest where its BLER is zero
        run={"min_bler": 0.0, "gap_bler": TARGET_BLER, "batch_size": BATCH_SIZE},
        title=f"Gauss-Markov sequences, innovations of power {innovation_power:g}, {what}",
    )


def error_rates(name, args, console):
    """Simulate SER and coded BLER against SNR, over all hops (Fig. 4a)."""
    for panel in chosen(args, PANELS):
        console.print(f"{name}, {panel}")
        simulate_figure(
            f"{name}/{panel}",
            sequences(PANELS[panel]),
            DETECTORS,
            POINTS,
            args,
            console,
            reference=["ml"],
        )


def hops(name, args, console):
    """Simulate SER and coded BLER against the hops from H_0 (Fig. 4b and 4c)."""
    count = load_scenario(SEQUENCES).channel.get("num_hops", 4)
    for panel in chosen(args, PANELS):
        scenarios = {hop: sequences(PANELS[panel], hop) for hop in range(count + 1)}
        for sweep in chosen(args, SWEEPS):
            console.print(f"{name}, {panel}, {sweep}")
            simulate_sweep(
                f"{name}/{panel}-{sweep}",
                scenarios,
                DETECTORS,
                SWEEPS[sweep],
                args,
                console,
                label="Hops from the first channel",
            )


def any_channel(name, args, console):
    """Simulate SER and coded BLER on channels of no sequence, which the paper does not."""
    console.print(name)
    scenario = load_scenario(GENERAL).replace(
        code=HIGH_RATE_CODE,
        run={"min_bler": 0.0, "gap_bler": TARGET_BLER, "batch_size": BATCH_SIZE},
    )
    simulate_figure(name, scenario, ANY_CHANNEL, POINTS, args, console, reference=["ml"])


def claims_text(folder):
    """The text of claims.md: the verdicts, and what was measured for L1.

    Args:
        folder: where the figures' files are.
    """
    lines = ["# Claims of the HyperMIMO-LR paper: what was measured"]
    lines += [*full_verdicts("hypermimo_lr"), "", "## Tables", ""]
    lines += ["Gaps at a SER take the points as independent; those at a BLER are from paired"]
    lines += [
        "blocks, each one codeword over all hops. Intervals are 95 %; a positive gap means"
    ]
    lines += ["that a detector needs more SNR than exact ML."]
    for panel in PANELS:
        lines += gaps_text(folder, f"fig4a/{panel}", TARGET_SER)
        lines += _ranking(folder, f"fig4a/{panel}")
    lines += gaps_text(folder, "general", TARGET_SER)
    lines += _ranking(folder, "general")
    for panel in PANELS:
        for sweep, snr_db in SWEEPS.items():
            data = load_json_if_made(folder / "fig4bc" / f"{panel}-{sweep}" / "results.json")
            if data is None:
                continue
            for rate in ("ser", "bler"):
                title = (
                    f"## L1: hops, innovations of the {panel}, {rate.upper()} at {snr_db:g} dB"
                )
                lines += ["", title, ""]
                lines += sweep_table(data, rate)
    return "\n".join(lines) + "\n"


def claims(name, args, console):
    """Write claims.md."""
    write_claims(claims_text(args.output), args, console)


def _ranking(folder, figure):
    """List the detectors by their SER over all channels, at the two SNRs of Fig. 4."""
    results = load_results(folder, figure)
    if results is None:
        return []
    lines = []
    for snr_db in (5.0, 10.0):
        rows = [r for r in results["records"] if r["snr_db"] == snr_db]
        if not rows:
            continue
        lines += ["", f"SER at {snr_db:g} dB, best first:", ""]
        lines += [
            f"- `{r['detector']}` {rate_text(r, 'ser')}"
            for r in sorted(rows, key=lambda r: r["ser"])
        ]
    return lines


def main(argv=None):
    functions = {"fig4a": error_rates, "fig4bc": hops}
    functions.update(general=any_channel, claims=claims)
    panels = [*PANELS, *SWEEPS]
    return run_paper(argv, __doc__, "hypermimo_lr", functions, panels=panels, max_blocks=2000)


if __name__ == "__main__":
    sys.exit(main())
