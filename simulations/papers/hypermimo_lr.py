#!/usr/bin/env python3
"""Every figure of the HyperMIMO-LR paper (003_a2d4684ab4cda01d.txt).

Writes results/papers/hypermimo_lr/: fig4a/<panel>/ (results.json, results.csv, ser.png,
bler.png, ber.png), on sequences of the paper's text and of its code, whose innovations
have twice the power; fig4bc/<panel>/ (results.json, ser.png, bler.png) against hops;
general/ as fig4a, on the channels that sequences start from, a new one every time;
claims.md. SER and BLER come from the same blocks, one codeword over the five hops of a
sequence in fig4a. Detectors without shipped weights are left out, and named.
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
)

from linksim.files import write_atomically
from linksim.link.scenario import load_scenario

SEQUENCES, GENERAL = "gauss-markov-4x2-qpsk", "kronecker-4x2-qpsk"
DETECTORS = [
    *("mmse", f"mmnet@{SEQUENCES}", f"detnet-fc@{SEQUENCES}", f"detnet@{GENERAL}"),
    *(f"hypermimo@{GENERAL}", f"hypermimo-lr@{GENERAL}-beta0"),
    *(f"hypermimo-lr@{GENERAL}-beta01", f"hypermimo-lr@{GENERAL}"),
    # Not in the paper: of all teachers the one of the nearest channel
    f"mmnet@{SEQUENCES}-561",
    # Not in the paper: another network than MMNet, with and without teachers
    *(f"hypermimo-lr@{GENERAL}-detnet", f"hypermimo-lr@{GENERAL}-detnet-beta0"),
    f"detnet-fc@{SEQUENCES}-561",
    "ml",
]
# Of these, those that are not of certain channels
ANY_CHANNEL = [name for name in DETECTORS if SEQUENCES not in name]
# SNR in dB: the coded waterfall, and the paper's 5 to 10
POINTS = [3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16]
# Panel: E|e_ij|^2 relative to E|h_ij|^2
PANELS = {"text": 1.0, "code": 2.0}
# SNR in dB: those of Fig. 4b and 4c, and one in the coded waterfall
SWEEPS = {"5db": 5.0, "10db": 10.0, "coded": 7.0}
TARGET_SER = 1e-2
TARGET_BLER = 0.1
BATCH_SIZE = 100


def sequences(innovation_power, hop=-1):
    """The scenario with a code of rate 5/6; SER is wanted where BLER is zero already."""
    what = "all hops" if hop < 0 else "by hop"
    return load_scenario(SEQUENCES).replace(
        channel={"innovation_power": innovation_power, "hop": hop},
        code=HIGH_RATE_CODE,
        run={"min_bler": 0.0, "gap_bler": TARGET_BLER, "batch_size": BATCH_SIZE},
        title=f"Gauss-Markov sequences, innovations of power {innovation_power:g}, {what}",
    )


def error_rates(name, args, console):
    """SER and coded BLER against SNR, over all hops (Fig. 4a)."""
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
    """SER and coded BLER against hops from H_0 (Fig. 4b and 4c)."""
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
    """SER and coded BLER on channels that are in no sequence: not in the paper."""
    console.print(name)
    scenario = load_scenario(GENERAL).replace(
        code=HIGH_RATE_CODE,
        run={"min_bler": 0.0, "gap_bler": TARGET_BLER, "batch_size": BATCH_SIZE},
    )
    simulate_figure(name, scenario, ANY_CHANNEL, POINTS, args, console, reference=["ml"])


def claims(name, args, console):
    """Write claims.md: what was measured for L1, from the figures' files."""
    lines = ["# Claims of the HyperMIMO-LR paper: what was measured", ""]
    lines.append("Gaps at a SER take points as independent; those at a BLER are from paired")
    lines.append(
        "blocks, each one codeword over all hops. 95 % intervals; positive needs more"
    )
    lines.append("SNR than exact ML.")
    for panel in PANELS:
        lines += gaps_text(args.output, f"fig4a/{panel}", TARGET_SER)
        lines += _ranking(args.output, f"fig4a/{panel}")
    lines += gaps_text(args.output, "general", TARGET_SER)
    lines += _ranking(args.output, "general")
    for panel in PANELS:
        for sweep, snr_db in SWEEPS.items():
            data = load_json_if_made(
                args.output / "fig4bc" / f"{panel}-{sweep}" / "results.json"
            )
            if data is None:
                continue
            for rate in ("ser", "bler"):
                title = (
                    f"## L1: hops, innovations of the {panel}, {rate.upper()} at {snr_db:g} dB"
                )
                lines += ["", title, ""]
                lines += sweep_table(data, rate)
    write_atomically(args.output / "claims.md", "\n".join(lines) + "\n")
    console.print(f"{args.output}/claims.md")


def _ranking(folder, figure):
    """Detectors by their SER over all channels, at the two SNR of Fig. 4."""
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
