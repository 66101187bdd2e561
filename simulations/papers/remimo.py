#!/usr/bin/env python3
"""Make every figure of the RE-MIMO paper, [Pratik21].

The script writes into results/papers/remimo/:

- <figure>/<panel>/ (results.json, results.csv, ser.png, bler.png, ber.png): the simulated
  figures
- fig13.png and fig14.png, with their numbers as .json
- information.json: the mutual information of the networks
- claims.md

The paper has 64 antennas; there is also a system of a quarter of that size, with 16
antennas and 4 to 8 users, and CDL channels that nothing was trained for. Detectors without
shipped weights are left out, and named on the console.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
from common import (
    TARGET_SER,
    available,
    curve_of,
    gap_text,
    load_json_if_made,
    load_results,
    run_paper,
    simulate_figure,
    symbol_error_gap,
    write_claims,
)
from pages import full_verdicts

from linksim.detectors.amp import AMPDetector
from linksim.files import save_json
from linksim.link.scenario import load_scenario
from linksim.registry import register_detector
from simulations.markdown import table

# The waterfalls fall by two decades in a decibel: 1e-2 would need ten times the blocks
TARGET_BLER = 0.1
# The paper's "MMSE" is `mmse-biased`, the biased filter with half the noise
CLASSICAL = ["mmse-biased", "mmse", "zf-pic", "amp", "sdr", "ep", "oamp"]
# Not in the paper: tokens with linear estimates
OURS = ["remimo-mf", "remimo-lmmse"]
NETS = ["oampnet", "oampnet2", "remimo", *OURS]
SMALL = "small-16x8-qam16"
MASSIVE = "massive-64x32-qam16"
# Trained on 4 to 8 users, and on 4, 6 and 8 only
RANGES = [f"{name}@{SMALL}" for name in ("remimo", *OURS)]
RANGES += [f"{name}@{SMALL}-even" for name in ("remimo", "remimo-lmmse")]
CORRELATED = ["mmse", "ep", "oamp", "oampnet", "oampnet2"]
# Trained on receive-correlated channels; the second one at the SNR of uncoded links
PIC_RX = [f"remimo-pic@{MASSIVE}-corr-rx", f"remimo-pic@{MASSIVE}-corr-rx-high"]
# {antennas: networks of receive-correlated channels}
CORR_RX = {
    16: [f"{name}@{SMALL}-corr-rx" for name in ("remimo", "remimo-lmmse", "remimo-pic")],
    64: [*(f"{name}@{MASSIVE}-corr-rx" for name in ("remimo", "remimo-lmmse")), *PIC_RX],
}


def _points(low, high, first, last):
    """SNR in dB: every decibel of the coded waterfall, every second one of the uncoded."""
    return [*range(low, high + 1), *range(first, last + 1, 2)]


# {figure: {panel: (scenario, changes to its tables, detectors, SNR points in dB)}}
FIGURES = {
    "fig7": {
        "64x16": (
            "massive-64x16-qam16",
            {},
            CLASSICAL + ["detnet"] + NETS,
            _points(0, 4, 7, 13),
        ),
        "64x32": (
            "massive-64x32-qam16",
            {},
            CLASSICAL + ["detnet"] + NETS,
            _points(4, 9, 11, 17),
        ),
        "16x4": ("small-16x4-qam16", {}, CLASSICAL + NETS, _points(0, 3, 6, 14)),
        "16x6": ("small-16x6-qam16", {}, CLASSICAL + NETS, _points(2, 5, 8, 16)),
        "16x8": ("small-16x8-qam16", {}, CLASSICAL + NETS, _points(4, 8, 10, 18)),
    },
    "fig8": {
        f"64x{k}": (f"massive-64x{k}-qam64", {}, [*CLASSICAL, *NETS, "remimo-pic"], points)
        for k, points in ((16, _points(4, 7, 13, 19)), (32, _points(9, 13, 16, 22)))
    },
    "fig9": {
        f"64x{k}-rho{rho}": (
            f"massive-64x{k}-qam16-corr-full",
            {"channel": {"rho_rx": rho, "rho_tx": rho}},
            # PIC_RX was trained with correlation at the receiver only
            CORRELATED
            + [f"{name}@{MASSIVE}-corr-full" for name in ("remimo", "remimo-pic")]
            + (PIC_RX if k == 16 else []),
            points,
        )
        for k, rho, points in (
            (16, 0.6, _points(5, 8, 11, 19)),
            (16, 0.7, _points(7, 10, 13, 21)),
            (32, 0.6, _points(10, 13, 16, 24)),
            (32, 0.7, _points(12, 15, 18, 26)),
        )
    },
    "fig10": {
        f"{m}x{k}-rho{rho}": (
            f"{size}-{m}x{k}-qam16-corr-rx",
            {"channel": {"rho_rx": rho}},
            CORRELATED + CORR_RX[m],
            points,
        )
        for size, m, k, rho, points in (
            ("massive", 64, 16, 0.7, _points(2, 6, 9, 15)),
            ("massive", 64, 16, 0.8, _points(3, 7, 10, 16)),
            ("massive", 64, 32, 0.7, _points(7, 11, 13, 19)),
            ("massive", 64, 32, 0.8, _points(9, 13, 16, 22)),
            ("small", 16, 4, 0.7, _points(1, 5, 8, 18)),
            ("small", 16, 4, 0.8, _points(2, 6, 9, 19)),
            ("small", 16, 6, 0.7, _points(4, 8, 11, 19)),
            ("small", 16, 6, 0.8, _points(6, 10, 13, 21)),
            ("small", 16, 8, 0.7, _points(7, 11, 14, 22)),
            ("small", 16, 8, 0.8, _points(9, 13, 16, 24)),
        )
    },
    "fig11": {
        panel: (
            scenario,
            {"csi": {"type": "noisy", "error_snr_db": 20.0}},
            ["mmse", "ep", "oamp", *NETS],
            points,
        )
        for panel, scenario, points in (
            ("64x16", "massive-64x16-qam16", _points(0, 5, 8, 16)),
            ("64x32", "massive-64x32-qam16", _points(4, 9, 12, 18)),
            ("16x8", "small-16x8-qam16", _points(4, 9, 12, 20)),
        )
    },
    "fig12": {
        f"16x{k}": (
            SMALL,
            {"system": {"num_streams": k}},
            ["mmse", "oamp"] + RANGES,
            points,
        )
        for k, points in (
            (5, _points(1, 4, 7, 15)),
            (7, _points(3, 7, 9, 17)),
            (9, _points(6, 10, 12, 20)),
            (10, _points(7, 12, 14, 22)),
        )
    },
    # Not in the paper: channels that nothing was trained for
    "cdl": {
        "64x16": (
            "cdl-c-64x16-qam16",
            {},
            ["mmse", "zf-pic", "ep", "oamp"]
            + [f"{net}@massive-64x16-qam16" for net in ("detnet", "oampnet", "oampnet2")]
            + [f"{net}@massive-64x16-qam16-corr-rx" for net in ("oampnet", "oampnet2")]
            + [f"remimo-lmmse@{MASSIVE}", f"remimo-pic@{MASSIVE}-corr-rx"],
            _points(5, 8, 14, 18),
        ),
        "16x8": (
            "cdl-c-16x8-qam16",
            # RE-MIMO depends on the scale of the channels that it was trained on
            {"channel": {"power": 1 / 16}, "snr": {"definition": "rx"}},
            ["mmse", "zf-pic", "ep", "oamp", f"oampnet@{SMALL}", f"oampnet2@{SMALL}"]
            + [f"{name}@{SMALL}" for name in ("remimo", *OURS)]
            + [f"remimo-lmmse@{SMALL}-corr-rx"],
            _points(13, 18, 20, 28),
        ),
    },
}
# The other OAMP-Nets of 64 antennas, uncoded and coded
FIGURES["others"] = {
    f"64x{k}-qam{size}{kind}": (
        f"massive-64x{k}-qam{size}{kind}",
        {},
        ["mmse", "ep", "oampnet", "oampnet2"],
        points,
    )
    for k, size, kind, points in (
        (24, 16, "", _points(2, 6, 9, 15)),
        (24, 16, "-corr-rx", _points(4, 8, 11, 17)),
        (24, 16, "-corr-full", _points(7, 11, 13, 21)),
        (24, 64, "", _points(6, 10, 14, 20)),
        (16, 64, "-corr-rx", _points(6, 10, 15, 21)),
        (24, 64, "-corr-rx", _points(9, 13, 17, 23)),
        (32, 64, "-corr-rx", _points(12, 17, 19, 25)),
        (16, 64, "-corr-full", _points(9, 13, 17, 25)),
        (24, 64, "-corr-full", _points(12, 16, 19, 27)),
        (32, 64, "-corr-full", _points(15, 19, 22, 30)),
    )
}
# The paper's tokens, normalized and trained with another optimizer
FIGURES["muon"] = {
    f"16x{k}": (
        f"small-16x{k}-qam16",
        {},
        ["mmse", "ep", "oampnet2", f"remimo@{SMALL}", f"remimo@{SMALL}-muon"],
        points,
    )
    for k, points in (
        (4, _points(0, 3, 6, 14)),
        (6, _points(2, 5, 8, 16)),
        (8, _points(4, 8, 10, 18)),
    )
}
CHANNELS = {
    "fig7": "i.i.d. Rayleigh",
    "fig8": "i.i.d. Rayleigh",
    "fig9": "both sides correlated",
    "fig10": "receive-correlated",
    "fig11": "i.i.d. Rayleigh",
    "fig12": "i.i.d. Rayleigh",
    "cdl": "CDL-C 100 ns",
}
KINDS = {"": "i.i.d. Rayleigh", "-corr-rx": "receive-correlated"}
KINDS["-corr-full"] = "both sides correlated"


def _published_rates():
    """{(users, SNR in dB): {detector: SER}}, as published in Fig. 7."""
    found = {}
    for users in (16, 32):
        path = PUBLISHED_FOLDER / f"remimo-64x{users}.json"
        data = json.loads(path.read_text(encoding="utf-8"))
        for detector, points in {**data["receivers"], **data["others"]}.items():
            for point in points:
                key = users, float(point["snr_db"])
                found.setdefault(key, {})[detector] = point["ser"]
    return found


PUBLISHED_FOLDER = Path(__file__).resolve().parents[2] / "tests" / "published"
PUBLISHED = _published_rates()
# AMP as published, which does not scale its channels; OAMPNet-2 is published as a curve
BESIDE_PUBLISHED = ["amp-unscaled", "oampnet2"]
BATCH_SIZE = 100
LATENCY_USERS = (4, 8, 16, 24, 32)
LATENCY_BATCH = 16


def simulated(name, args, console):
    """Simulate all panels of a figure: SER and coded BLER come from the same blocks."""
    for panel, (_, _, detectors, points) in FIGURES[name].items():
        if args.panel and panel not in args.panel:
            continue
        console.print(f"{name}, {panel}")
        reference = [d for d in detectors if d.startswith("oampnet2")] + ["oamp"]
        simulate_figure(
            f"{name}/{panel}",
            scenario_of(name, panel),
            detectors,
            points,
            args,
            console,
            reference=reference,
        )


def published(name, args, console):
    """Simulate the published points, with ten times the blocks of a panel."""
    most = 10 * args.max_blocks
    args = argparse.Namespace(
        **{**vars(args), "target_block_errors": most, "max_blocks": most}
    )
    for users in sorted({users for users, _ in PUBLISHED}):
        panel = f"64x{users}"
        if args.panel and panel not in args.panel:
            continue
        console.print(f"{name}, {panel}")
        points = {snr_db: values for (k, snr_db), values in PUBLISHED.items() if k == users}
        detectors = {detector: None for values in points.values() for detector in values}
        register_detector("amp-unscaled", UnscaledAMP, replace=True)
        simulate_figure(
            f"{name}/{panel}",
            scenario_of("fig7", panel),
            [*detectors, *BESIDE_PUBLISHED],
            list(points),
            args,
            console,
            reference=["oampnet2"],
            rates=("ser",),
        )


class UnscaledAMP(AMPDetector):
    """AMP as in the published comparison, which does not scale the channels."""

    def __init__(self, *args, normalize=False, **kwargs):
        super().__init__(*args, normalize=normalize, **kwargs)


def scenario_of(name, panel):
    """The scenario of a panel, with a title; channels without OFDM get the 802.11n code."""
    scenario_name, changes, _, _ = FIGURES[name][panel]
    scenario = load_scenario(scenario_name)
    size = 2**scenario.system.num_bits_per_symbol
    if scenario.ofdm is None:
        changes = {**changes, "code": {"type": "802.11n"}}
    channel = CHANNELS.get(name) or KINDS[scenario_name.partition(f"-qam{size}")[2]]
    return scenario.replace(
        **changes,
        # No detector drops out: its SER is of interest where its BLER is zero
        run={"min_bler": 0.0, "gap_bler": TARGET_BLER, "batch_size": BATCH_SIZE},
        title=f"{channel}, {_panel_text(panel)}, {size}-QAM",
    )


def _panel_text(panel):
    """What a title says of a panel: "64x16, rho 0.7" for "64x16-rho0.7"."""
    return panel.partition("-qam")[0].replace("-rho", ", rho ")


# --- Fig. 13 and 14 -------------------------------------------------------------------


def attention(name, args, console, vectors=2000):
    """Draw the attention of the third block (of the last if there are fewer) beside the
    alignment of the channels (Fig. 13)."""
    from linksim.figures import save_figure
    from linksim.link.receiver import create_receiver
    from linksim.training.source import VALIDATION, VectorSource

    scenario = load_scenario("grouped-32x12-qam16")
    names = available(["remimo", *OURS], scenario, console)
    if not names:
        return
    source = VectorSource(scenario, (15.0, 15.0), vectors, seed=args.seed)
    batch = source.draw(source.keys(VALIDATION, 10**6))
    h = np.asarray(batch["h"])
    h = h / np.linalg.norm(h, axis=1, keepdims=True)
    alignment = np.abs(np.einsum("bmi,bmj->bij", h.conj(), h)).mean(0)
    users, size = alignment.shape[0], scenario.channel["group_size"]
    group = np.arange(users) // size
    same = group[:, None] == group
    others = same & ~np.eye(users, dtype=bool)
    data = {"snr_db": 15.0, "vectors": vectors, "share_of_users": []}
    data["share_outside_if_uniform"] = 1 - size / users
    images = {}
    for detector_name in names:
        detector = create_receiver(detector_name, scenario).detector
        maps = detector.attention_maps(batch["y"], batch["h"], batch["no"])
        maps = [np.asarray(m)[:, 0].mean(0) for m in maps]
        data["share_of_users"] += [
            {
                "detector": detector_name,
                "block": number + 1,
                "own": float(np.trace(a) / users),
                "others_of_group": float((a * others).sum(-1).mean()),
                "outside": float((a * ~same).sum(-1).mean()),
            }
            for number, a in enumerate(maps)
        ]
        block = min(3, len(maps))
        images[f"{detector_name}: attention of block {block}, mean"] = maps[block - 1]
    save_json(args.output / "fig13.json", data)
    images["Channel alignment, mean"] = alignment
    save_figure(_heat_maps(images), args.output / "fig13.png")


def _heat_maps(images):
    from linksim.figures import empty_figure

    figure = empty_figure(5.0 * len(images), 4.4)
    for axes, (title, image) in zip(figure.subplots(1, len(images)), images.items()):
        shown = axes.imshow(image, cmap="viridis", vmin=0.0)
        ticks = np.arange(len(image))
        axes.set_xticks(ticks, ticks + 1)
        axes.set_yticks(ticks, ticks + 1)
        axes.set_xlabel("User j")
        axes.set_ylabel("User i")
        axes.set_title(title, fontsize=10)
        figure.colorbar(shown, ax=axes)
    return figure


def latency(name, args, console, repeats=20):
    """Time a call against the number of users, at 64 antennas (Fig. 14).

    RE-MIMO has the paper's size. Its weights are random, which takes the same time. Both
    detectors run as graphs without XLA at every size, so that the sizes can be compared.
    """
    import tensorflow as tf

    from linksim.complexity import count_flops, measure_latency
    from linksim.figures import new_figure, save_figure
    from linksim.registry import build_detector, create_detector

    num_rx, rows = 64, []
    rng = np.random.default_rng(args.seed)
    for users in LATENCY_USERS:
        functions, flops = {}, {}
        for detector_name in ("remimo", "oampnet2"):
            detector = create_detector(detector_name, num_streams=users, num_bits_per_symbol=4)
            build_detector(detector, num_rx)
            functions[detector_name] = tf.function(detector.llrs_and_symbols, autograph=False)
            flops[detector_name] = count_flops(detector, num_rx).flops
        shape = (LATENCY_BATCH, num_rx, users)
        h = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2 * num_rx)
        y = h.sum(-1)
        inputs = [tf.constant(v, tf.complex64) for v in (y, h)]
        inputs.append(tf.constant(np.full(LATENCY_BATCH, 0.05, np.float32)))
        for detector_name, times in measure_latency(functions, inputs, repeats).items():
            rows.append(
                {
                    "detector": detector_name,
                    "num_streams": users,
                    "flops": flops[detector_name],
                    **times,
                }
            )
    data = {"num_rx": num_rx, "batch_size": LATENCY_BATCH, "xla": False, "rows": rows}
    save_json(args.output / "fig14.json", data)
    figure, axes = new_figure(6.5, 4.2)
    for detector_name, marker in (("remimo", "o"), ("oampnet2", "s")):
        mine = [r for r in rows if r["detector"] == detector_name]
        median = np.array([r["median_ms"] for r in mine])
        error = [
            median - [r["low_ms"] for r in mine],
            np.array([r["high_ms"] for r in mine]) - median,
        ]
        axes.errorbar(
            LATENCY_USERS, median, yerr=error, marker=marker, capsize=2.5, label=detector_name
        )
    axes.set_yscale("log")
    axes.set_xlabel(f"Users, {num_rx} receive antennas")
    axes.set_ylabel(f"Milliseconds per call of {LATENCY_BATCH} vectors")
    axes.legend(frameon=False)
    save_figure(figure, args.output / "fig14.png")


# --- information ----------------------------------------------------------------------


def information(name, args, console, batches=32):
    """Measure the mutual information of every shipped RE-MIMO on the distribution that it
    was trained on, and of classical detectors on the same draws, which no training saw."""
    from linksim.backend import compiled
    from linksim.models import list_models
    from linksim.registry import create_detector
    from linksim.training.build import load_layer
    from linksim.training.loop import source_of
    from linksim.training.losses import mutual_information
    from linksim.training.recipe import load_recipe
    from linksim.training.source import VALIDATION

    rows = []
    for path in (p for p in list_models() if p.startswith("remimo")):
        recipe = load_recipe(path)
        scenario = load_scenario(recipe.data.scenario)
        source = source_of(recipe, scenario)
        layers = {path: load_layer(path, "model")}
        for other in ("mmse", "ep", "oamp"):
            layers[other] = create_detector(
                other,
                num_streams=source.num_streams,
                num_bits_per_symbol=source.num_bits_per_symbol,
            )
        draw = compiled(source.draw)
        rates = {
            layer: compiled(
                lambda b, f=f: mutual_information(
                    f(b["y"], b["h"], b["no"]), b["bits"], b["present"]
                )
            )
            for layer, f in layers.items()
        }
        values = {layer: [] for layer in rates}
        for index in range(batches):
            batch = draw(source.keys(VALIDATION, 10**6 + index))
            for layer, rate in rates.items():
                values[layer].append(float(rate(batch)))
        own = np.array(values[path])
        row = {"model": path, "batches": batches, "batch_size": source.batch_size}
        for layer, found in values.items():
            ahead = own - found
            row["itself" if layer == path else layer] = float(np.mean(found))
            if layer != path:
                half = 1.96 * ahead.std(ddof=1) / batches**0.5
                row[f"ahead_of_{layer}"] = [float(ahead.mean()), float(half)]
        console.print(row)
        rows.append(row)
        save_json(args.output / "information.json", {"seed": recipe.seed, "rows": rows})


# --- claims ---------------------------------------------------------------------------


def claims_text(folder):
    """The text of claims.md: the verdicts, and what was measured for R1 to R7.

    Args:
        folder: where the figures' files are.
    """
    lines = ["# Claims of the RE-MIMO paper: what was measured", *full_verdicts("remimo")]
    lines += ["", "## Tables", ""]
    lines += [
        f"Gaps at SER {TARGET_SER:g} take the points as independent; those at a BLER are"
    ]
    lines += ["from paired blocks. Intervals are 95 %; a negative gap is better than the"]
    lines += [
        "reference. R1 and R2 are about fig7 and fig8, R3 about fig9 and fig10, R4 about"
    ]
    lines += ["fig11, R5 about fig12."]
    for figure in FIGURES:
        lines += _gap_tables(folder, figure)
    lines += _information_text(folder)
    lines += ["", "## Published SER (Fig. 7)", ""]
    lines.append("| users | SNR | detector | published | measured | 95 % interval | ratio |")
    lines.append("|---|---|---|---|---|---|---|")
    for (users, snr_db), values in PUBLISHED.items():
        results = load_results(folder, f"published/64x{users}") or {"records": []}
        for detector, value in values.items():
            for r in results["records"]:
                like = r["detector"].removesuffix("-unscaled") == detector
                if like and r["snr_db"] == snr_db:
                    lines.append(
                        f"| {users} | {snr_db:g} dB | `{r['detector']}` | {value:g} | "
                        f"{r['ser']:.3e} | {r['ser_low']:.3e} to {r['ser_high']:.3e} | "
                        f"{r['ser'] / value:.3f} |"
                    )
    lines += _published_gaps(folder)
    lines += _attention_text(folder) + _latency_text(folder)
    return "\n".join(lines) + "\n"


def claims(name, args, console):
    """Write claims.md."""
    write_claims(claims_text(args.output), args, console)


def _gap_tables(folder, figure):
    """The gaps of a figure as two tables, at the SER and at the BLER, with a row per
    detector and a column per panel; and the detectors without weights."""
    found = {p: load_results(folder, f"{figure}/{p}") for p in FIGURES[figure]}
    found = {p: r for p, r in found.items() if r and r["gaps"]}
    if not found:
        return []
    names = dict.fromkeys(g["detector"] for r in found.values() for g in r["gaps"])
    panels = [panel.replace("-rho", ", rho ") for panel in found]
    reference = next(iter(found.values()))["gaps"][0]["reference"].partition("@")[0]
    lines = []
    for title in (f"SER {TARGET_SER:g}", f"BLER {TARGET_BLER:g}"):
        lines += ["", f"## {figure}, {title}", ""]
        rows = []
        for name in names:
            cells = [f"`{name}`"]
            for results in found.values():
                gap = next((g for g in results["gaps"] if g["detector"] == name), None)
                if gap is None:
                    cells.append("")
                    continue
                if title.startswith("SER"):
                    gap = symbol_error_gap(results, name, gap["reference"], TARGET_SER)
                cells.append(gap_text(gap).replace(" dB", ""))
            rows.append(cells)
        lines += table([f"dB to `{reference}`", *panels], rows)
    incomplete = [p for p, r in found.items() if not r["provenance"]["complete"]]
    if incomplete:
        lines += [
            "",
            "The run was interrupted, some points are missing: " + ", ".join(incomplete) + ".",
        ]
    simulated = {r["detector"] for results in found.values() for r in results["records"]}
    asked = dict.fromkeys(d for p in found for d in FIGURES[figure][p][2])
    missing = [f"`{name}`" for name in asked if name not in simulated]
    if missing:
        lines += ["", "Without weights: " + ", ".join(missing) + "."]
    return lines


def _information_text(folder):
    data = load_json_if_made(folder / "information.json")
    if data is None:
        return []
    lines = ["", "## Mutual information", ""]
    lines += [
        "In bits per coded bit, on the distribution that each network was trained on, from"
    ]
    lines += ["draws that it did not see. Leads are from the same draws, with 95 % intervals."]
    lines += ["", "| model | itself | MMSE | EP | OAMP | ahead of MMSE | ahead of EP |"]
    lines.append("|---" * 7 + "|")
    for row in data["rows"]:
        rates = " | ".join(f"{row[k]:.3f}" for k in ("itself", "mmse", "ep", "oamp"))
        ahead = " | ".join(
            "{:+.4f} ± {:.4f}".format(*row[f"ahead_of_{k}"]) for k in ("mmse", "ep")
        )
        lines.append(f"| `{row['model']}` | {rates} | {ahead} |")
    return lines


def _published_gaps(folder, target=2e-3):
    """The gaps to RE-MIMO's published curve, at a SER that all of the curve covers."""
    from linksim.montecarlo.statistics import gap_of_curves

    lines = ["", f"## RE-MIMO to its published curve, at SER {target:g}", ""]
    for users in sorted({users for users, _ in PUBLISHED}):
        published = [
            (snr_db, *3 * [values["remimo"]])
            for (k, snr_db), values in PUBLISHED.items()
            if k == users
        ]
        results = load_results(folder, f"fig7/64x{users}") or {"records": []}
        for name in ("remimo", *OURS):
            curve = curve_of(results, name)
            if curve:
                text = gap_text(gap_of_curves(curve, published, target))
                lines.append(f"- `{name}`, {users} users: {text}")
    return lines if lines[-1] else []


def _attention_text(folder):
    data = load_json_if_made(folder / "fig13.json")
    if data is None:
        return []
    lines = ["", "## R6: attention (Fig. 13)", ""]
    uniform = data["share_outside_if_uniform"]
    lines += ["Shares of a user's attention, averaged over users and vectors. With uniform"]
    lines += [f"attention the share outside the group would be {uniform:.2f}."]
    lines += ["", "| detector | block | itself | others of its group | outside |"]
    lines.append("|---|---|---|---|---|")
    for s in data["share_of_users"]:
        lines.append(
            f"| `{s['detector']}` | {s['block']} | {s['own']:.3f} | "
            f"{s['others_of_group']:.3f} | {s['outside']:.3f} |"
        )
    return lines


def _latency_text(folder):
    data = load_json_if_made(folder / "fig14.json")
    if data is None:
        return []
    lines = ["", f"## R7: time of a call of {data['batch_size']} vectors (Fig. 14)", ""]
    lines += ["| users | detector | median ms | quartiles | FLOPs per vector |"]
    lines.append("|---|---|---|---|---|")
    for r in data["rows"]:
        lines.append(
            f"| {r['num_streams']} | `{r['detector']}` | {r['median_ms']:.1f} | "
            f"{r['low_ms']:.1f} to {r['high_ms']:.1f} | {r['flops']:.3g} |"
        )
    return lines


def main(argv=None):
    functions = {name: simulated for name in FIGURES}
    functions.update(published=published, fig13=attention, fig14=latency)
    functions.update(information=information, claims=claims)
    panels = sorted({panel for panels in FIGURES.values() for panel in panels})
    return run_paper(argv, __doc__, "remimo", functions, panels=panels, max_blocks=1000)


if __name__ == "__main__":
    sys.exit(main())
