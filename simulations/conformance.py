#!/usr/bin/env python3
"""Hold PUSCH links against the requirements of TS 38.104 on base stations.

Each requirement is an SNR at which 70 % of the largest throughput has to be reached. The
script finds the SNR at which detectors reach it, with channels that are known and with two
kinds of estimates, and writes the margins into results/conformance/: conformance.json has
all numbers, README.md the tables. The search begins below the requirement and goes down or
up until the SNR lies between two points. Rows that are there already are kept, and a run
that was killed goes on where it was.
"""

import argparse
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from linksim.cli.common import make_console, run_command
from linksim.files import check_rows, load_json, make_folder, save_json, write_atomically

# Reference channels of [TS38104], A.4 and A.5: {name: (MCS of the 256-QAM table, bits of a
# symbol, layers, subcarrier spacing in kHz, PRBs)}. All have 14 symbols of mapping type A
# with DMRS in symbols 2 and 11, and two CDM groups without data.
CHANNELS = {
    "G-FR1-A4-10": (10, 4, 1, 15, 106),
    "G-FR1-A4-14": (10, 4, 1, 30, 273),
    "G-FR1-A4-24": (10, 4, 2, 15, 106),
    "G-FR1-A4-28": (10, 4, 2, 30, 273),
    "G-FR1-A5-10": (13, 6, 1, 15, 106),
    "G-FR1-A5-14": (13, 6, 1, 30, 273),
}
# {name: its profile of [TS38104], G.2, as `model` and `max_doppler_hz`}
PROFILES = {"TDLC300-100": ("C300", 100.0), "TDLA30-10": ("A30", 10.0)}
# [TS38104], Tables 8.2.1.2-3 (20 MHz) and 8.2.1.2-7 (100 MHz) of version 16.4, low
# correlation, as [Aerial25] has them: {(reference channel, profile): {antennas: SNR in dB}}
REQUIREMENTS = {
    ("G-FR1-A4-14", "TDLC300-100"): {2: 10.2, 4: 6.5, 8: 3.2},
    ("G-FR1-A4-28", "TDLC300-100"): {2: 19.2, 4: 11.6, 8: 7.1},
    ("G-FR1-A5-14", "TDLA30-10"): {2: 13.0, 4: 9.0, 8: 5.8},
    ("G-FR1-A4-10", "TDLC300-100"): {2: 10.0, 4: 6.2, 8: 3.0},
    ("G-FR1-A5-10", "TDLA30-10"): {2: 12.4, 4: 8.6, 8: 5.5},
    ("G-FR1-A4-24", "TDLC300-100"): {2: 18.3, 4: 11.1, 8: 6.9},
}
FRACTION = 0.7
CSI = ("ls", "lmmse", "perfect")
# With one stream they hardly differ
DETECTORS = {1: ("mmse",), 2: ("mmse", "ep", "pepnet")}
# SNR points in dB, from the requirement, and where the search begins
OFFSETS, FIRST_OFFSET = range(-7, 3), -2
# What the standard allows, [TS38104], 8.2.1.1
HARQ = {"max_transmissions": 4, "redundancy_versions": [0, 2, 3, 1]}
PRBS = 24
# What conformance.json has of a requirement
ROW = ("channel", "num_rx", "csi", "num_prbs", "required_db", "info_bits", "whole")
ROW += ("reached", "scenario", "records")
SETTINGS = ("seed", "target_block_errors", "max_blocks")


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    add("--only", choices=list(CHANNELS), action="append", help="a channel; may be repeated")
    antennas = sorted({num_rx for found in REQUIREMENTS.values() for num_rx in found})
    add("--num-rx", type=int, choices=antennas, action="append", help="may be repeated")
    add("--csi", choices=CSI, action="append", help="channel knowledge; may be repeated")
    add("--harq", action="store_true", help="with up to four transmissions, as the standard")
    add("--prbs", type=int, default=PRBS, metavar="N", help="PRBs, in place of all")
    add("--target-block-errors", type=int, default=60, metavar="N", help="at a point")
    add("--max-blocks", type=int, default=200, metavar="N", help="at a point")
    add("--seed", type=int, default=0, metavar="N", help="of all draws")
    add("--fresh", action="store_true", help="set earlier counts aside and start again")
    add("--output", type=Path, default=Path("results/conformance"), metavar="DIR")
    return parser.parse_args(argv)


def scenario_of(channel, profile, num_rx, csi, num_prbs, harq=False):
    """The scenario of a requirement.

    Args:
        channel, profile: a key of `REQUIREMENTS`.
        num_rx: receive antennas.
        csi: one of `CSI`.
        num_prbs: PRBs that are simulated.
        harq: whether blocks are sent up to four times.
    """
    from linksim.link.scenario import scenario_from_dict

    mcs, bits, layers, spacing, _ = CHANNELS[channel]
    model, doppler = PROFILES[profile]
    return scenario_from_dict(
        {
            "name": f"{channel.lower()}-{num_rx}-{csi}{'-harq' if harq else ''}",
            "title": f"{channel}, {profile} low, {num_rx} antennas",
            **({"harq": HARQ} if harq else {}),
            "system": {
                "num_rx": num_rx,
                "num_streams": layers,
                "num_bits_per_symbol": bits,
            },
            "channel": {
                "type": "tdl",
                "model": model,
                "max_doppler_hz": doppler,
                "subcarrier_spacing_khz": float(spacing),
            },
            "pusch": {
                "mcs_index": mcs,
                "mcs_table": 2,
                "num_prbs": num_prbs,
                "num_layers": layers,
            },
            "code": {"type": "transport-block"},
            "csi": {"type": csi},
            # That of [TS38104], 8.1: all layers together, at one antenna
            "snr": {"definition": "rx", "points": [REQUIREMENTS[channel, profile][num_rx]]},
            "run": {"detectors": DETECTORS[layers], "batch_size": 25, "min_bler": 0.1},
        }
    )


def sizes_of(scenario):
    """Information bits and LDPC codewords of a transport block."""
    from linksim.link.link import Link

    code = Link(scenario.replace(csi={"type": "perfect"})).code
    return {"info_bits": code.block_size, "codewords": code.num_segments // code.num_blocks}


def most_of(channel, info_bits):
    """The throughput of a reference channel without errors in bit/s, from those of a slot."""
    return info_bits / (15e-3 / CHANNELS[channel][3])  # a slot of 1 ms at 15 kHz


def lost_of(record, most):
    """The share of the throughput that is lost, with its bounds.

    Args:
        record: of `simulate`.
        most: the throughput without errors in bit/s.
    """
    keys = ("throughput", "throughput_high", "throughput_low")
    return tuple(1 - record[key] / most for key in keys)


def curve_of(records, detector, most):
    """The share of the throughput that is lost, as `crossing_of_curve` takes curves."""
    found = [(r["snr_db"], *lost_of(r, most)) for r in records if r["detector"] == detector]
    return sorted(found)


def next_point(points, first, detectors, most):
    """The function by which `simulate` looks for the SNR that is sought.

    It begins at a point and goes down, and then up, until the outer points are beyond the
    target with their intervals, for all detectors.

    Args:
        points: ascending SNR in dB.
        first: one of them.
        detectors: names.
        most: the throughput without errors in bit/s.
    """

    def chosen(records):
        if not records:
            return first
        curves = [curve_of(records, name, most) for name in detectors]
        place = points.index(curves[0][0][0])
        if place and any(curve[0][2] <= 1 - FRACTION for curve in curves):
            return points[place - 1]
        place = points.index(curves[0][-1][0])
        if place + 1 < len(points) and any(c[-1][3] >= 1 - FRACTION for c in curves):
            return points[place + 1]
        return None

    return chosen


def measure(channel, profile, num_rx, csi, args, console):
    """Simulate one requirement with one kind of channel knowledge.

    Returns:
        A row of conformance.json.
    """
    from linksim.montecarlo.engine import simulate
    from linksim.montecarlo.statistics import crossing_of_curve

    scenario = scenario_of(channel, profile, num_rx, csi, args.prbs, args.harq)
    required, detectors = REQUIREMENTS[channel, profile][num_rx], scenario.run.detectors
    sizes = sizes_of(scenario)
    most = most_of(channel, sizes["info_bits"])
    store = Path("results/runs/conformance") / f"{scenario.name}-{args.prbs}-{args.seed}.jsonl"
    make_folder(store.parent)
    points = [float(required + offset) for offset in OFFSETS]
    begin = min(points, key=lambda point: abs(point - required - FIRST_OFFSET))
    with console.status(f"{scenario.title}, {csi}"):
        results = simulate(
            scenario,
            snr_db=points,
            target_block_errors=args.target_block_errors,
            max_blocks=args.max_blocks,
            seed=args.seed,
            store_path=store,
            fresh=args.fresh,
            next_point=next_point(points, begin, detectors, most),
        )
    if not results["provenance"]["complete"]:
        raise KeyboardInterrupt
    found = {
        name: crossing_of_curve(curve_of(results["records"], name, most), 1 - FRACTION)
        for name in detectors
    }
    whole = scenario_of(channel, profile, num_rx, csi, CHANNELS[channel][-1])
    return {
        "channel": channel,
        "profile": profile,
        "num_rx": num_rx,
        "csi": csi,
        "num_prbs": args.prbs,
        **({"harq": True} if args.harq else {}),
        "required_db": required,
        **sizes,
        "whole": sizes_of(whole),
        "reached": found,
        **{key: results[key] for key in ("scenario", "provenance", "records")},
    }


# --- the page -------------------------------------------------------------------------

INTRO = """
# Requirements of TS 38.104 on PUSCH

A base station has to reach 70 % of the largest throughput at an SNR that [TS38104], 8.2.1.2,
names. Here are the margins of receivers of linksim: how many dB less they need for it, with 95 %
intervals. The SNR is that of all layers together at one antenna (`snr.definition = "rx"`),
channels have low correlation, and the requirements are those of version 16.4 as [Aerial25] has
them. `python simulations/conformance.py` makes everything here.

What is the same and what is not:

- Slots are those of the standard: 14 symbols of mapping type A, DMRS in symbols 2 and 11, two CDM
  groups without data, transport blocks with CRCs.
- Blocks are sent once. The standard allows four transmissions with redundancy versions 0, 2, 3, 1,
  which makes 70 % of the throughput a block error rate of about 0.4 at the first of them; without,
  it is 0.3. So the link here has to pass a slightly harder test of the same number. Where a table
  says so (`--harq`), blocks are sent up to four times, each time through another channel.
- The requirements leave room for what an implementation loses, and for synchronisation, which is
  perfect here. They are a bound that a receiver should pass with a margin, and no curve to meet.
- `ls` interpolates linearly between the DMRS. `lmmse` takes the covariance of the channel as known,
  where a base station would estimate it, and `perfect` knows the channel. N0 is known.
- The reference channels A3 are missing: their rate is below 1/5, which Sionna's transport blocks,
  unlike codewords of their own, do not have.
"""


def page_text(data):
    """The text of README.md, from what conformance.json holds."""
    rows = data["rows"]
    once = [r for r in rows if not r.get("harq")]
    usual = [r for r in once if r["num_prbs"] == data["usual_prbs"]]
    lines = [INTRO.strip(), *(_sizes(usual) if usual else ())]
    for layers, title in ((1, "One layer"), (2, "Two layers")):
        kept = [r for r in usual if _layers(r) == layers]
        if kept:
            lines += ["", f"## {title}", "", *_margins(kept, layers)]
    again = [r for r in rows if r.get("harq") and r["num_prbs"] == data["usual_prbs"]]
    if again:
        lines += ["", "## With up to four transmissions", "", *_margins_again(again, usual)]
    others = [r for r in once if r["num_prbs"] != data["usual_prbs"]]
    if others:
        lines += [
            "",
            "## With other numbers of PRBs",
            "",
            *_other_sizes(others, usual, data["usual_prbs"]),
        ]
    whole = sum(len(requirements) for requirements in REQUIREMENTS.values())
    done = len({(r["channel"], r["num_rx"]) for r in once})
    if done < whole:
        lines += ["", f"{done} of the script's {whole} requirements were simulated so far."]
    return "\n".join(lines) + "\n"


def _layers(row):
    return CHANNELS[row["channel"]][2]


def _sizes(rows):
    """What the reduction of PRBs does to transport blocks."""
    by_channel = {r["channel"]: r for r in rows}
    lines = [
        f"- Slots have {rows[0]['num_prbs']} PRBs, where the standard fills the carrier. Transport "
        "blocks are shorter",
        "  for it: fewer codewords have to be right at once, which is easier, but codewords may be",
        "  shorter and a slot sees less of a channel that is selective in frequency, which is harder.",
        "  As a measure of how much that may be: with 106 PRBs of 15 kHz the standard's own",
        "  requirements are 0.2 to 0.9 dB lower than with 273 of 30 kHz.",
        "",
        "| reference channel | standard: PRBs | bits | codewords | here: PRBs | bits | codewords |",
        "|---|---|---|---|---|---|---|",
    ]
    for channel in CHANNELS:
        row = by_channel.get(channel)
        if row is not None:
            whole, prbs = row["whole"], CHANNELS[channel][-1]
            cells = (channel, prbs, whole["info_bits"], whole["codewords"], row["num_prbs"])
            lines.append(_line(*cells, row["info_bits"], row["codewords"]))
    return lines


def _margins(rows, layers):
    detectors = DETECTORS[layers]
    by_key = {(r["channel"], r["num_rx"], r["csi"]): r for r in rows}
    lines = []
    if len(detectors) == 1:
        lines = [
            f"By `{detectors[0]}`. With one stream LLRs of `ep` are the same within one percent, and",
            "those of `pepnet` within 15.",
        ]
    else:
        lines = ["From one user, with the same channels for all detectors."]
    lines += ["", "| reference channel | profile | antennas | required | detector | "]
    lines[-1] += " | ".join(f"`{csi}`" for csi in CSI) + " |"
    lines += ["|---" * (5 + len(CSI)) + "|"]
    for channel, profile in REQUIREMENTS:
        for num_rx, required in REQUIREMENTS[channel, profile].items():
            found = [by_key.get((channel, num_rx, csi)) for csi in CSI]
            for detector in detectors if any(found) else ():
                cells = [margin_text(row, detector) for row in found]
                place = (channel, profile, num_rx, f"{required:g} dB", f"`{detector}`")
                lines.append(_line(*place, *cells))
    return lines


def _margins_again(again, once):
    """Rows with HARQ beside those of the same link without."""
    by_key = {(r["channel"], r["num_rx"], r["csi"]): r for r in once}
    lines = [
        "The test as the standard has it, beside the margin of one transmission:",
        "",
        "| reference channel | profile | antennas | required | detector | channel knowledge | "
        "up to four | once |",
        "|---" * 8 + "|",
    ]
    for row in again:
        same = by_key.get((row["channel"], row["num_rx"], row["csi"]))
        for detector in row["reached"]:
            place = (row["channel"], row["profile"], row["num_rx"])
            place += (f"{row['required_db']:g} dB", f"`{detector}`", f"`{row['csi']}`")
            lines.append(
                _line(*place, margin_text(row, detector), margin_text(same, detector))
            )
    return lines


def _other_sizes(others, usual, usual_prbs):
    by_key = {(r["channel"], r["num_rx"], r["csi"]): r for r in usual}
    lines = ["The same margins, with the PRBs of the standard or closer to them:", ""]
    lines += [
        "| reference channel | antennas | channel knowledge | detector | PRBs | margin | "
    ]
    lines[-1] += f"with {usual_prbs} PRBs |"
    lines += ["|---" * 7 + "|"]
    for row in others:
        same = by_key.get((row["channel"], row["num_rx"], row["csi"]))
        for detector in row["reached"]:
            place = (row["channel"], row["num_rx"], f"`{row['csi']}`", f"`{detector}`")
            margins = margin_text(row, detector), margin_text(same, detector)
            lines.append(_line(*place, row["num_prbs"], *margins))
    return lines


def margin_text(row, detector):
    """A margin as '+2.1 dB [2.0, 2.2]', '-' where there is none to give."""
    if row is None:
        return "-"
    reached, required = row["reached"][detector], row["required_db"]
    if reached["snr_db"] is None:
        points = [r["snr_db"] - required for r in row["records"] if r["detector"] == detector]
        most = most_of(row["channel"], row["info_bits"])
        curve = curve_of(row["records"], detector, most)
        if min(lost for _, lost, *_ in curve) > 1 - FRACTION:
            return f"below {-max(points):+.1f} dB"
        return f"over {-min(points):+.1f} dB"
    margin = f"{required - reached['snr_db']:+.2f} dB"
    if reached["snr_db_low"] is None:
        return margin
    bounds = (required - reached[key] for key in ("snr_db_high", "snr_db_low"))
    return f"{margin} [{', '.join(f'{bound:+.2f}' for bound in bounds)}]"


def _line(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def main(argv=None):
    args = parse_arguments(argv)
    return run_command(
        "conformance.py",
        lambda: _run(args, make_console()),
        "interrupted; the same command continues",
    )


def _run(args, console):
    make_folder(args.output)
    file = args.output / "conformance.json"
    settings = {key: getattr(args, key) for key in SETTINGS}
    rows = load_json(file, rows=list)["rows"] if file.exists() else []
    check_rows(file, rows, ROW)
    rows = {_key(row): row for row in rows}
    for (channel, profile), requirements in REQUIREMENTS.items():
        if channel not in (args.only or CHANNELS):
            continue
        for num_rx in requirements:
            for csi in CSI:
                if num_rx not in (args.num_rx or requirements) or csi not in (args.csi or CSI):
                    continue
                key = channel, num_rx, csi, args.prbs, args.harq
                if not args.fresh and rows.get(key, {}).get("settings") == settings:
                    continue
                row = measure(channel, profile, num_rx, csi, args, console)
                rows[key] = {**row, "settings": settings}
                data = {"usual_prbs": PRBS, "rows": [rows[key] for key in sorted(rows)]}
                save_json(file, data)
                write_atomically(args.output / "README.md", page_text(data))
                for detector in row["reached"]:
                    console.print(*key, detector, margin_text(row, detector), markup=False)
    return 0


def _key(row):
    return row["channel"], row["num_rx"], row["csi"], row["num_prbs"], row.get("harq", False)


if __name__ == "__main__":
    sys.exit(main())
