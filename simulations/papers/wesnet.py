#!/usr/bin/env python3
"""Make every figure of the WeSNet paper, [Mohammad20].

The script writes into results/papers/wesnet/:

- <simulation>/<panel>/ (results.json, results.csv, ser.png, bler.png, ber.png), and from
  them fig4 to fig9, uncoded and, as -bler, coded
- complexity.json with fig10a to fig12, and latency.json
- soft_output.json: how much information the LLRs carry
- claims.md

The paper's 60x30 BPSK has some of its networks; a system of a third of its size has every
variant and percentage. nndet/ applies weight scaling to a detector that the paper did not
try. Detectors without shipped weights are left out, and named on the console.
"""

import itertools
import sys

import numpy as np
from common import (
    available,
    chosen,
    gap_text,
    gaps_text,
    load_json_if_made,
    load_results,
    run_paper,
    simulate_figure,
    symbol_error_gap,
    write_claims,
)
from pages import full_verdicts
from soft_output import rates_table, simulate_rates

from linksim.files import save_json
from linksim.link.scenario import load_scenario

PERCENTS = (10, 20, 30, 40, 50, 60, 80, 100)
# {system: unfolded layers of its networks}
LAYERS = {"20x10": 30, "60x30": 90, "16x16": 48, "8x8": 10}
SCENARIOS = {
    "20x10": "wesnet-20x10-bpsk",
    "60x30": "wesnet-60x30-bpsk",
    "16x16": "wesnet-16x16-qam4",
    "8x8": "wesnet-8x8-qam4",
}
TARGET_BLER = 0.1


def net(name, size, percent=None, layers=None):
    """The name of a system's network, such as "wesnet-hf@wesnet-20x10-bpsk-20".

    Args:
        name: of the detector.
        size: of the system, a key of `SCENARIOS`.
        percent: percent of the units that it was trained with, or another ending of the
            configuration's name; None for none.
        layers: cuts the network to its first layers; None keeps all.
    """
    text = f"{name}@{SCENARIOS[size]}" + ("" if percent is None else f"-{percent}")
    return text if layers is None else f"{text}:{layers}L"


def kept_layers(size):
    """Numbers of layers to cut a system's networks to: 80, 70, 60, 50, 40, 20 and 5 of 90,
    and as many of others in proportion."""
    total = LAYERS[size]
    return [round(total * (9 - cut) / 9) for cut in (1, 2, 3, 4, 5, 7)] + [max(1, total // 18)]


def _bpsk(size, exact):
    return [
        *("zf", "mmse", "sdr", *exact, net("detnet", size)),
        *(net("wesnet-hf", size, p) for p in PERCENTS),
        *(net("wesnet-l", size, p) for p in PERCENTS),
        *(net("l-wesnet", size, p) for p in (20, 50)),
        net("r-wesnet", size),
        *(net("r-wesnet", size, layers=n) for n in kept_layers(size)),
        *(net("l-wesnet", size, 50, layers=n) for n in kept_layers(size)),
        # The same network without the penalty, to see what the penalty adds
        *(net("wesnet-hf", size, 100, layers=n) for n in kept_layers(size)[:4]),
        # Networks at other fractions of the units than they were trained with
        *(f"{net('r-wesnet', size)}:{p}%" for p in (20, 30, 40, 50)),
        *(f"{net('l-wesnet', size, 50)}:{p}%" for p in (20, 30, 40)),
        # Eq. 18 to the letter
        net("wesnet-hf", size, "20-inputs"),
    ]


_OAMP = ["oampnet@wesnet-8x8-qam4", "oampnet@wesnet-8x8-qam4-5"]
_OAMP += ["wes-oampnet@wesnet-8x8-qam4", "wes-oampnet@wesnet-8x8-qam4-5"]
_OAMP += ["rwes-oampnet@wesnet-8x8-qam4"]
_OAMP += [net("rwes-oampnet", "8x8", layers=n) for n in (7, 6, 5, 4, 3)]
_QAM = ["detnet", "oampnet", "r-wesnet"]
# NN-Det with ten blocks, a detector whose weights the paper did not scale
_NNDET = [net("nndet-p", "20x10", p) for p in (None, 50, 20, "r")]
_NNDET += [net("nndet-p", "20x10", p, layers=n) for p in ("r", None) for n in (8, 6, 4)]
_NNDET += [f"{net('nndet-p', '20x10', 'r')}:{p}%" for p in (50, 20)]

# {simulation: {panel: (detectors, SNR points in dB)}}; the points cover the coded waterfall
# and the uncoded one
FIGURES = {
    "bpsk": {
        "20x10": (_bpsk("20x10", ["ml"]), [1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 15]),
        "60x30": (_bpsk("60x30", ["ep"]), [1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 15]),
    },
    "qam4": {
        "16x16": (
            ["zf", "mmse", "sdr", "ep", *(net(name, "16x16") for name in _QAM)]
            + [net("wesnet-hf", "16x16", 40), net("l-wesnet", "16x16", 40)]
            # A third of the layers is removed, like 30 of 90
            + [net("r-wesnet", "16x16", layers=32)],
            [2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18],
        ),
        "8x8": (
            ["zf", "mmse", "ep", "oamp", "ml", *_OAMP],
            [2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 18],
        ),
    },
    "nndet": {
        "20x10": (
            ["zf", "mmse", "ml", net("detnet", "20x10"), *_NNDET],
            [1, 2, 3, 4, 5, 6, 8, 10, 12, 14],
        ),
    },
}


def simulated(name, args, console):
    """Simulate all panels: SER and coded BLER come from the same blocks."""
    for panel, (detectors, points) in FIGURES[name].items():
        if args.panel and panel not in args.panel:
            continue
        console.print(f"{name}, {panel}")
        simulate_figure(
            f"{name}/{panel}",
            scenario_of(panel),
            detectors,
            points,
            args,
            console,
            reference=[net("detnet", panel), "oampnet@wesnet-8x8-qam4", "mmse"],
        )


def scenario_of(panel):
    """The scenario of a panel, with the 802.11n code; no detector drops out."""
    return load_scenario(SCENARIOS[panel]).replace(
        code={"type": "802.11n"},
        # The SER is of interest where the BLER is zero
        run={"min_bler": 0.0, "gap_bler": TARGET_BLER, "batch_size": 100},
    )


# --- Fig. 4 to 9, from the simulations -------------------------------------------------


def figures_of(size):
    """{figure: detectors whose curves it shows} for a BPSK system."""
    classical = ["zf", "mmse", "sdr", "ep", "ml", net("detnet", size)]
    removed = [net("r-wesnet", size, layers=n) for n in kept_layers(size)]
    shorter = [net("l-wesnet", size, 50, layers=n) for n in kept_layers(size)]
    scaled = {p: net("wesnet-hf", size, p) for p in PERCENTS}
    learned = [net("l-wesnet", size, p) for p in (20, 50)]
    return {
        "fig4": classical
        + [net(name, size, p) for name in ("wesnet-hf", "wesnet-l") for p in PERCENTS],
        "fig6a": [net("detnet", size), scaled[20], scaled[50], scaled[100]]
        + [net("r-wesnet", size), *removed],
        "fig6b": [net("detnet", size), scaled[50], learned[1], *shorter],
        "fig8": [*classical, scaled[20], scaled[50], *learned],
    }


def plots(name, args, console):
    """Draw Fig. 4 to 9 from what was simulated."""
    from linksim.montecarlo.output import plot

    for size in FIGURES["bpsk"]:
        results = load_results(args.output, f"bpsk/{size}")
        if results is None:
            continue
        for figure, detectors in figures_of(size).items():
            shown = _only(results, detectors)
            plot(shown, "ser", args.output / f"{figure}-{size}.png")
            plot(shown, "bler", args.output / f"{figure}-{size}-bler.png")
        percents = {
            name: {p: net(name, size, p) for p in PERCENTS}
            for name in ("wesnet-hf", "wesnet-l")
        }
        _plot_against(
            results, percents, (12, 14), "Kept units (%)", args.output / f"fig5-{size}.png"
        )
        layers = {
            "r-wesnet": _by_layers(size, "r-wesnet", None),
            "l-wesnet, 50 %": _by_layers(size, "l-wesnet", 50),
        }
        _plot_against(
            results, layers, (12, 14, 15), "Layers", args.output / f"fig7-{size}.png"
        )
    for figure, panel in (("fig9a", "8x8"), ("fig9b", "16x16")):
        results = load_results(args.output, f"qam4/{panel}")
        if results is not None:
            plot(results, "ser", args.output / f"{figure}.png")
            plot(results, "bler", args.output / f"{figure}-bler.png")
    results = load_results(args.output, "qam4/8x8")
    if results is not None:
        layers = {n: net("rwes-oampnet", "8x8", layers=n) for n in (3, 4, 5, 6, 7)}
        layers[10] = net("rwes-oampnet", "8x8")
        curves = {"rwes-oampnet": layers}
        _plot_against(results, curves, (12, 14, 16), "Layers", args.output / "fig9c.png")


def _by_layers(size, name, percent):
    cut = {n: net(name, size, percent, layers=n) for n in kept_layers(size)}
    return {LAYERS[size]: net(name, size, percent), **cut}


def _only(results, detectors):
    records = [r for r in results["records"] if r["detector"] in detectors]
    return {**results, "records": records}


def _plot_against(results, curves, snrs, label, path):
    """Draw the SER of detectors at some SNRs, with intervals, against a value of theirs.

    Args:
        results: as `load_results` returns them.
        curves: {name of a curve: {value on the axis: detector}}.
        snrs: SNRs in dB; each gives every curve once.
        label: of the axis.
        path: of the figure.
    """
    from linksim.figures import new_figure, ordered_legend, save_figure
    from linksim.montecarlo.output import curve_style

    records = {(r["detector"], r["snr_db"]): r for r in results["records"]}
    figure, axes = new_figure(7.0, 4.6)
    index = 0
    for name, detectors in curves.items():
        for snr in snrs:
            rows = [(x, records.get((d, snr))) for x, d in sorted(detectors.items())]
            rows = [(x, r) for x, r in rows if r is not None and r["ser"] > 0]
            if rows:
                value = np.array([r["ser"] for _, r in rows])
                low = np.maximum([r["ser_low"] for _, r in rows], value / 10)
                error = [value - low, np.array([r["ser_high"] for _, r in rows]) - value]
                x = [x for x, _ in rows]
                style = curve_style(index)
                axes.errorbar(x, value, error, capsize=2.5, label=f"{name}, {snr} dB", **style)
            index += 1
    axes.set_yscale("log")
    axes.set_xlabel(label)
    axes.set_ylabel("Symbol error rate")
    if axes.containers:
        axes.legend(*ordered_legend(axes), frameon=False, fontsize=8)
    save_figure(figure, path)


# --- Fig. 10 to 12: complexity ---------------------------------------------------------

# {percent of the units: (percent fewer FLOPs, percent fewer parameters)}, as published
PUBLISHED = {50: (51.43, 49.78), 30: (None, 68.73), 20: (None, 79.82)}


def table_2(name, nt, layers, fraction=1.0, iterations=1):
    """FLOPs of a detector by the formulas of Table II, for BPSK and `nt` users."""
    return {
        "zf": 56 / 3 * nt**3 + 38 * nt**2 + 28 / 3 * nt,
        "mmse": 56 / 3 * nt**3 + 40 * nt**2 + 34 / 3 * nt + 1,
        "ml": 2.0**nt * (8 * nt**2 + 8 * nt - 2),
        "sdr": (13 * nt**3 + 25 * nt**2 + 17 * nt + 4) * iterations,
        "wesnet": (fraction * nt * (128 * nt + 5) + 9 * nt) * layers,
        "detnet": nt * (128 * nt - 2) * layers,
    }[name]


def counted(fraction=None, num_layers=4, nt=30, num_rx=60, scaled="units"):
    """What a layer of linksim costs, counted from its graph.

    Args:
        fraction: of the units; None for DetNet.
        num_layers, nt, num_rx: size of the network and of the system.
        scaled: "units" or "inputs", as of the layer.

    Returns:
        {"products": FLOPs of the products of the three sublayers, "flops": all FLOPs,
        "parameters": number of weights}.
    """
    from linksim.complexity import count_flops
    from linksim.registry import create_detector

    options = {"profile": "uniform"} if fraction is None else {"fraction": fraction}
    detector = create_detector(
        "wesnet-hf",
        num_streams=nt,
        num_bits_per_symbol=1,
        num_layers=num_layers,
        scaled=scaled,
        **options,
    )
    cost = count_flops(detector, num_rx)
    return {
        "products": cost.by_operation["MatMul"],
        "flops": cost.flops,
        "parameters": cost.parameters,
    }


def complexity(name, args, console):
    """Count FLOPs and parameters: complexity.json, and Fig. 10 to 12."""
    from linksim.figures import new_figure, ordered_legend, save_figure
    from linksim.montecarlo.output import curve_style

    layers, nt = LAYERS["60x30"], 30
    detnet = counted(num_layers=layers)
    rows = []
    for percent in PERCENTS:
        row = {"percent": percent, **counted(percent / 100, layers)}
        row["table_2"] = table_2("wesnet", nt, layers, percent / 100)
        if percent in (20, 30, 50):
            letter = counted(percent / 100, layers, scaled="inputs")
            row["parameters_of_inputs"] = letter["parameters"]
        rows.append(row)
    data = {
        "detnet": {**detnet, "table_2": table_2("detnet", nt, layers)},
        "rows": rows,
        "table_2": {n: table_2(n, nt, layers) for n in ("zf", "mmse", "ml", "sdr")},
    }
    save_json(args.output / "complexity.json", data)

    users = np.arange(5, 61, 5)
    classical = {
        "ZF": [table_2("zf", k, 0) for k in users],
        "MMSE": [table_2("mmse", k, 0) for k in users],
        "SDR, 100 iterations": [table_2("sdr", k, 0, iterations=100) for k in users],
        "ML": [table_2("ml", int(k), 0) for k in users[:6]],
    }
    networks = {
        f"WeSNet-{p}%": [table_2("wesnet", k, 3 * k, p / 100) for k in users]
        for p in (20, 50, 100)
    }
    shorter = {
        f"R-WeSNet, {cut} of 90 layers removed": [
            table_2("wesnet", k, 3 * k - cut * k / 30) for k in users
        ]
        for cut in (10, 20, 30, 50, 70)
    }
    detnet_curve = {"DetNet": [table_2("detnet", k, 3 * k) for k in users]}
    for file, curves in (
        ("fig10a.png", {**classical, **detnet_curve, **networks}),
        ("fig10b.png", {**detnet_curve, **networks, **shorter}),
    ):
        figure, axes = new_figure(6.5, 4.4)
        for index, (label, curve) in enumerate(curves.items()):
            axes.plot(users[: len(curve)], curve, label=label, **curve_style(index))
        axes.set_yscale("log")
        axes.set_xlabel("Users")
        axes.set_ylabel("FLOPs per vector (Table II)")
        axes.legend(*ordered_legend(axes), frameon=False, fontsize=8)
        save_figure(figure, args.output / file)

    depths = (10, 30, 50, 70, 90)
    for key, label, file in (
        ("flops", "FLOPs per vector", "fig11a.png"),
        ("parameters", "Parameters", "fig11b.png"),
    ):
        figure, axes = new_figure(6.0, 4.0)
        for title, fraction in {
            "DetNet": None,
            "WeSNet-50%": 0.5,
            "WeSNet-20%": 0.2,
        }.items():
            values = [counted(fraction, depth)[key] for depth in depths]
            axes.plot(depths, values, marker="o", label=title)
        axes.set_xlabel("Layers")
        axes.set_ylabel(label)
        axes.legend(*ordered_legend(axes), frameon=False)
        save_figure(figure, args.output / file)
    figure, axes = new_figure(6.0, 4.0)
    for key in ("flops", "parameters"):
        values = [100 * r[key] / detnet[key] for r in rows]
        axes.plot(PERCENTS, values, marker="o", label=key)
    axes.set_xlabel("Kept units (%)")
    axes.set_ylabel("Percent of DetNet")
    axes.legend(*ordered_legend(axes), frameon=False)
    save_figure(figure, args.output / "fig12.png")


def latency(name, args, console, sizes=("20x10", "60x30"), batches=(1, 4096), repeats=15):
    """Time calls of smaller networks beside the full one: latency.json."""
    import tensorflow as tf

    from linksim.complexity import measure_latency
    from linksim.registry import build_detector, create_detector

    rows = []
    for size in sizes:
        system = load_scenario(SCENARIOS[size]).system
        full = create_detector(
            "wesnet-hf",
            num_streams=system.num_streams,
            num_bits_per_symbol=system.num_bits_per_symbol,
            num_layers=LAYERS[size],
        )
        build_detector(full, system.num_rx)
        layers = {
            "100%": full,
            "50%": full.slim(0.5),
            "20%": full.slim(0.2),
            f"{LAYERS[size] // 2} layers": full.slim(num_layers=LAYERS[size] // 2),
        }
        rng = np.random.default_rng(args.seed)
        for batch, compiler in itertools.product(batches, ("graph", "XLA")):
            h = rng.normal(size=(batch, system.num_rx, system.num_streams))
            inputs = [tf.constant(v, tf.complex64) for v in (h.sum(-1), h)]
            inputs.append(tf.ones(batch))
            functions = {
                # A default argument, because a closure would see the last layer only
                label: tf.function(
                    lambda *a, d=detector: d(*a),
                    autograph=False,
                    jit_compile=compiler == "XLA",
                )
                for label, detector in layers.items()
            }
            times = measure_latency(functions, inputs, repeats)
            for label, values in times.items():
                speedup = times["100%"]["median_ms"] / values["median_ms"]
                row = {
                    "system": size,
                    "batch": batch,
                    "compiler": compiler,
                    "network": label,
                }
                rows.append({**row, **values, "speedup": speedup})
                console.print(f"{size}, {batch}, {compiler}, {label}: {speedup:.2f} times")
    save_json(args.output / "latency.json", {"rows": rows})


# SNR in dB: two in the coded waterfall, and one in the range of training
SOFT_POINTS = (2.0, 4.0, 10.0)
SOFT_BATCHES = 5


def soft_output(name, args, console):
    """Measure how much information a decoder could get from the LLRs: soft_output.json."""
    data = load_json_if_made(args.output / "soft_output.json") or {}
    for panel in chosen(args, SCENARIOS):
        scenario = scenario_of(panel)
        wanted = ["mmse", "ep", "ml"] if panel in ("20x10", "8x8") else ["mmse", "ep"]
        if panel == "8x8":
            wanted += _OAMP
        else:
            wanted += [net("detnet", panel), net("wesnet-hf", panel, 20)]
            wanted += [net("wesnet-hf", panel, 40), net("r-wesnet", panel)]
            wanted.append(net("r-wesnet", panel, layers=kept_layers(panel)[3]))
        if panel == "20x10":
            wanted.append(net("nndet-p", panel))
        detectors = available(wanted, scenario, console)
        data[panel] = simulate_rates(
            scenario, detectors, SOFT_POINTS, num_batches=SOFT_BATCHES, seed=args.seed
        )
        save_json(args.output / "soft_output.json", data)


# --- claims ---------------------------------------------------------------------------


def gaps_of_claims():
    """Rows of claims.md: (claim, panel, detector, reference, SER, published dB).

    A negative gap means that the detector needs less SNR than its reference.
    """
    rows = []
    for size in ("60x30", "20x10"):
        total, panel = LAYERS[size], f"bpsk/{size}"
        detnet = net("detnet", size)
        hf = {p: net("wesnet-hf", size, p) for p in PERCENTS}
        linear, full = net("wesnet-l", size, 50), hf[100]
        learned = {p: net("l-wesnet", size, p) for p in (20, 50)}
        left = {c: round(total * (9 - c) / 9) for c in (1, 2, 3)}
        removed = {c: net("r-wesnet", size, layers=n) for c, n in left.items()}
        unpenalised = {c: net("wesnet-hf", size, 100, layers=n) for c, n in left.items()}
        rows += [
            ("W1", panel, hf[10], "zf", 1e-3, -1.68),
            ("W1", panel, hf[10], "mmse", 1e-3, -0.79),
            ("W2", panel, hf[20], detnet, 1e-3, 0.0),
            ("W2", panel, hf[50], detnet, 1e-3, None),
            ("W2", panel, hf[50], "sdr", 1e-3, 0.0),
            ("W2", panel, full, hf[60], 1e-3, 0.0),
            ("W3", panel, hf[50], linear, 1e-5, -0.312),
            ("W3", panel, hf[50], linear, 1e-4, None),
            *(("W4", panel, removed[c], detnet, 1e-3, 0.0) for c in (2, 3)),
            ("W4", panel, removed[1], hf[50], 1e-3, None),
            # Without the penalty
            *(("W4", panel, removed[c], unpenalised[c], 1e-3, None) for c in (1, 2, 3)),
            ("W5", panel, learned[20], detnet, 1e-3, -0.19),
            ("W5", panel, learned[20], hf[20], 1e-3, -0.19),
            ("W5", panel, learned[50], hf[50], 1e-3, -0.22),
            ("W5", panel, learned[50], detnet, 1e-3, -0.69),
        ]
    oampnet = "oampnet@wesnet-8x8-qam4"
    for five in ("wes-oampnet@wesnet-8x8-qam4-5", net("rwes-oampnet", "8x8", layers=5)):
        rows.append(("W7", "qam4/8x8", five, oampnet, 1e-2, 0.0))
    for n in (7, 6, 4, 3):
        cut = net("rwes-oampnet", "8x8", layers=n)
        rows.append(("W7", "qam4/8x8", cut, net("rwes-oampnet", "8x8"), 1e-2, None))
    for name, reference in (
        (net("l-wesnet", "16x16", 40), "sdr"),
        (net("wesnet-hf", "16x16", 40), "sdr"),
        (net("wesnet-hf", "16x16", 40), net("detnet", "16x16")),
        (net("wesnet-hf", "16x16", 40), net("oampnet", "16x16")),
        (net("r-wesnet", "16x16", layers=32), net("wesnet-hf", "16x16", 40)),
    ):
        rows.append(("W8", "qam4/16x16", name, reference, 1e-2, None))
    whole, panel = net("nndet-p", "20x10"), "nndet/20x10"
    rows.append(("NN-Det", panel, whole, net("detnet", "20x10"), 1e-3, None))
    for percent in (50, 20, "r"):
        rows.append(("NN-Det", panel, net("nndet-p", "20x10", percent), whole, 1e-3, None))
    for n in (8, 6, 4):
        cut = net("nndet-p", "20x10", "r", layers=n)
        rows.append(("NN-Det", panel, cut, whole, 1e-3, None))
        # Without the penalty
        bare = net("nndet-p", "20x10", layers=n)
        rows.append(("NN-Det", panel, cut, bare, 1e-3, None))
    for percent in (50, 20):
        cut = f"{net('nndet-p', '20x10', 'r')}:{percent}%"
        rows.append(("NN-Det", panel, cut, whole, 1e-3, None))
    return rows


def claims_text(folder):
    """The text of claims.md: the verdicts, and what was measured for W1 to W8.

    Args:
        folder: where the files of the other figures are.
    """
    lines = ["# Claims of the WeSNet paper: what was measured", *full_verdicts("wesnet")]
    lines += ["", "## Tables", ""]
    lines += [
        "How many dB more than its reference a detector needs (negative is better): for a"
    ]
    lines += [
        "symbol error rate (for BPSK it is the BER), with points taken as independent, and"
    ]
    lines += [
        f"for a coded BLER of {TARGET_BLER:g}. Intervals are 95 %. Detectors without weights"
    ]
    lines += ["are left out."]
    lines += [
        "",
        "| claim | system | detector | reference | SER | published | measured | coded |",
    ]
    lines += ["|---|---|---|---|---|---|---|---|"]
    for claim, panel, detector, reference, ser, published in gaps_of_claims():
        results = load_results(folder, panel)
        names = {r["detector"] for r in results["records"]} if results else set()
        if not {detector, reference} <= names:
            continue
        gap = symbol_error_gap(results, detector, reference, ser)
        coded = symbol_error_gap(results, detector, reference, TARGET_BLER, rate="bler")
        shown = "" if published is None else f"{published:+.2f} dB"
        lines.append(
            f"| {claim} | {panel.split('/')[1]} | `{detector}` | `{reference}` | {ser:g} | "
            f"{shown} | {gap_text(gap)} | {gap_text(coded)} |"
        )
    for simulation, panels in FIGURES.items():
        for panel, (detectors, _) in panels.items():
            figure = f"{simulation}/{panel}"
            lines += gaps_text(folder, figure, detectors=detectors)
    for panel, rows in (load_json_if_made(folder / "soft_output.json") or {}).items():
        lines += ["", f"## {panel}: information in the LLRs, bits per coded bit", ""]
        lines += rates_table(rows)
    lines += _complexity_text(load_json_if_made(folder / "complexity.json"))
    lines += _latency_text(load_json_if_made(folder / "latency.json"))
    return "\n".join(lines) + "\n"


def claims(name, args, console):
    """Write claims.md."""
    write_claims(claims_text(args.output), args, console)


def _complexity_text(data):
    if data is None:
        return []
    detnet = data["detnet"]

    def fewer(row, key):
        return 100 * (1 - row[key] / detnet[key])

    lines = ["", "## W6: complexity at 60x30, L = 90", ""]
    lines += [
        "How many percent fewer than DetNet. Products: those of the three sublayers. All:"
    ]
    lines += ["also H'H, H'H x, residuals and LLRs, which no fraction makes smaller. To the"]
    lines += [
        "letter: the parameters if eq. 18 and 19 cut the inputs of sublayers 1 and 3. The"
    ]
    lines += [
        "published FLOPs are above what Table II itself gives, which cannot pass 50 % at"
    ]
    lines += [
        "half of the units. Rounded to two digits at 30 layers, as it may have been read"
    ]
    lines += [f"off, Table II gives {_rounded_table_2()}"]
    lines += [
        "",
        "| units | published FLOPs | Table II | products | all | published parameters | ",
    ]
    lines[-1] += "parameters | to the letter |"
    lines += ["|---|---|---|---|---|---|---|---|"]
    for row in data["rows"]:
        if row["percent"] not in PUBLISHED:
            continue
        flops, parameters = PUBLISHED[row["percent"]]
        letter = 100 * (1 - row["parameters_of_inputs"] / detnet["parameters"])
        lines.append(
            f"| {row['percent']} % | {'' if flops is None else flops} | "
            f"{fewer(row, 'table_2'):.2f} | {fewer(row, 'products'):.2f} | "
            f"{fewer(row, 'flops'):.2f} | {parameters} | {fewer(row, 'parameters'):.2f} | "
            f"{letter:.2f} |"
        )
    half = next(r for r in data["rows"] if r["percent"] == 50)
    ratios = {name: data["table_2"][name] / half["table_2"] for name in ("sdr", "ml")}
    lines += ["", "By Table II, WeSNet-50% costs as much as SDR with "]
    lines[-1] += (
        f"{1 / ratios['sdr']:.0f} iterations, and ML {ratios['ml']:.1e} times as much."
    )
    return lines


def _rounded_table_2(nt=30, layers=30):
    full, half = table_2("detnet", nt, layers), table_2("wesnet", nt, layers, 0.5)
    full, half = (float(f"{flops:.1e}") for flops in (full, half))
    return f"{full:.2g} and {half:.2g} FLOPs, {100 * (1 - half / full):.2f} % fewer."


def _latency_text(data):
    if data is None:
        return []
    lines = ["", "## Latency of smaller networks", ""]
    lines += ["| system | batch | compiler | network | median ms | quartiles | times faster |"]
    lines += ["|---|---|---|---|---|---|---|"]
    for r in data["rows"]:
        lines.append(
            f"| {r['system']} | {r['batch']} | {r['compiler']} | {r['network']} | "
            f"{r['median_ms']:.2f} | "
            f"{r['low_ms']:.2f} to {r['high_ms']:.2f} | {r['speedup']:.2f} |"
        )
    return lines


def main(argv=None):
    functions = {name: simulated for name in FIGURES}
    functions.update(plots=plots, complexity=complexity, latency=latency)
    functions.update({"soft-output": soft_output, "claims": claims})
    panels = sorted({panel for panels in FIGURES.values() for panel in panels})
    return run_paper(argv, __doc__, "wesnet", functions, panels=panels, max_blocks=10000)


if __name__ == "__main__":
    sys.exit(main())
