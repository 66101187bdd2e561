#!/usr/bin/env python3
"""Make every figure and table of the EQ-Net paper, [Arvinte20].

The script writes results/papers/eqnet/<figure>/ (results.json, results.csv, bler.png,
ber.png) for the simulated figures, fig3.png from the training histories, theorems.json,
latency.json and tables.md, and claims.md. Detectors without shipped weights are left out,
and named on the console.
"""

import csv
import io
import sys

import numpy as np
from common import (
    available,
    gap_text,
    load_json_if_made,
    load_results,
    run_paper,
    simulate_figure,
    simulate_sweep,
    write_claims,
)
from pages import full_verdicts

from linksim.data import model_folder
from linksim.files import save_json, write_atomically
from linksim.link.scenario import load_scenario
from linksim.models import list_models
from simulations.markdown import table

RAYLEIGH_2X2, RAYLEIGH_4X4 = "rayleigh-2x2-qam64", "rayleigh-4x4-qam16"
CDL = "cdl-a-2x2-qam64"
CLASSICAL = ["ml", "ep", "mmse", "zf-sic"]
# Fig. 10 gives the error's variance; these are ratios of the channel's power to it, in dB
CSI_ERRORS_DB = (40, 30, 25, 20, 15)
FIG10_SNR_DB = 14.35

# {figure: (scenario, detectors, SNR points in dB)}
FIGURES = {
    "fig1": (
        RAYLEIGH_2X2,
        ["ml", "zf-sic", "mmse", "ml+eqnet:none", "ml+eqnet-mi:none"]
        + [f"ml+eqnet-mi@{RAYLEIGH_2X2}-d{d}:none" for d in (2, 4, 6, 8)],
        [10, 11, 12, 13, 14, 15, 16, 17, 18],
    ),
    "fig5": (
        RAYLEIGH_2X2,
        CLASSICAL
        + ["eqnet-l", "eqnet-p", "eqnet-l-qr", "eqnet-p-sic", "nndet-l", "nndet-p"]
        + ["oampnet2", "eqnet-p-sic+latent:6"],
        [10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22],
    ),
    "fig6": (
        RAYLEIGH_4X4,
        CLASSICAL + ["eqnet-l", "eqnet-l-sic", "nndet-p", "oampnet2"],
        [3, 4, 5, 6, 7, 8, 9, 10, 12, 14],
    ),
    "fig7": (
        RAYLEIGH_2X2,
        ["ml", "mmse", "ml+eqnet:6", "ml+eqnet:5", "ml+eqnet-mi:6", "ml+eqnet-mi:5"]
        + ["ml+deep-stream:6", "ml+deep-stream:7", "ml+max-mi:3", "ml+max-mi:2"]
        + ["ml+uniform:3"],
        [11, 12, 13, 14, 15, 16],
    ),
    # The paper does not show this at 4x4
    "fig7-4x4": (
        RAYLEIGH_4X4,
        ["ml", "mmse", "ml+eqnet:4", "ml+eqnet-mi:6", "ml+eqnet-mi:4"]
        + ["ml+deep-stream:4", "ml+max-mi:3", "ml+uniform:3"],
        [3, 4, 5, 6, 7, 8],
    ),
    "fig8": (
        CDL,
        ["ml", "ep", "mmse", "zf-sic", "ml+eqnet:none", "ml+eqnet:6", "ml+eqnet-mi:6"],
        [16, 19, 22, 25, 28, 31, 34],
    ),
    "fig9": (
        CDL,
        CLASSICAL + ["eqnet-l", "eqnet-l-qr", "eqnet-p-sic", "nndet-p", "oampnet2"],
        [16, 19, 22, 25, 28, 31, 34],
    ),
}
# BLER of the gaps where only exact ML gets down to the scenario's `gap_bler`
GAP_BLER = {"fig9": 0.25}
# Figures that also get gaps to linear MMSE, which a useful estimator has to beat
ESTIMATION = ("fig5", "fig6")
FIG10 = ["ml", "ep", "mmse", "eqnet-l", "eqnet-l-qr", "eqnet-p-sic", "nndet-p"]
LATENCY_BATCHES = (1, 16, 256, 8192)
TABLES = {
    "table1": (
        RAYLEIGH_2X2,
        ["eqnet-l", "eqnet-p", "eqnet-l-qr", "eqnet-p-sic", "nndet-l", "nndet-p"]
        + ["oampnet2", "mmse", "ep", "ml"],
    ),
    "table2": (
        RAYLEIGH_4X4,
        ["eqnet-l", "eqnet-l-sic", "nndet-p", "oampnet2", "mmse", "ep"],
    ),
}


def simulated(name, args, console):
    """A figure of `FIGURES`."""
    scenario_name, detectors, points = FIGURES[name]
    scenario = load_scenario(scenario_name)
    if name in GAP_BLER:
        scenario = scenario.replace(run={"gap_bler": GAP_BLER[name]})
    more = gaps_to_mmse if name in ESTIMATION else None
    simulate_figure(
        name,
        scenario,
        detectors,
        points,
        args,
        console,
        reference=["ml"],
        more=more,
        rates=("bler", "ber"),
    )


def gaps_to_mmse(results, arguments):
    """The gaps of the same counts to linear MMSE."""
    from linksim.montecarlo.engine import simulate

    return {"gaps_to_mmse": simulate(**arguments, reference="mmse")["gaps"]}


def training_histories(path):
    """A trained model's history as a list of {column: float}, or None if it has none.

    A column that has no value in a row is left out.
    """
    file = model_folder() / path / "history.csv"
    if not file.exists():
        return None
    rows = csv.DictReader(io.StringIO(file.read_text(encoding="utf-8")))
    return [{k: float(v) for k, v in row.items() if v} for row in rows]


def figure3(name, args, console):
    """Draw the validation loss of two-stage and of joint training against steps (Fig. 3)."""
    from linksim.figures import new_figure, save_figure

    figure, axes = new_figure(7.0, 4.5)
    labels = {
        f"eqnet/{RAYLEIGH_2X2}": "stage 1: f_Q and g",
        f"eqnet-l/{RAYLEIGH_2X2}": "stage 2: f_E of EQ-Net-L, g frozen",
        f"eqnet-l/{RAYLEIGH_2X2}-joint": "joint: f_E and g together",
    }
    for path, label in labels.items():
        rows = training_histories(path)
        if rows is None:
            console.print(f"left out: {path} has no history")
            continue
        key = "weighted-squared-error" if "eqnet-l" in path else "loss"
        rows = [r for r in rows if r["step"]]
        axes.plot([r["step"] for r in rows], [r[key] for r in rows], label=label)
    axes.set_yscale("log")
    batch = list_models()[f"eqnet/{RAYLEIGH_2X2}"]["batch_size"]
    axes.set_xlabel(f"Steps of {batch} channel uses")
    axes.set_ylabel("Validation loss (eq. 7)")
    axes.legend(frameon=False)
    save_figure(figure, args.output / "fig3.png")


def figure10(name, args, console):
    """Simulate the BLER at 14.35 dB against the CSI error (Fig. 10)."""
    base = load_scenario(RAYLEIGH_2X2)
    scenarios = {
        error_db: base.replace(
            name=f"{RAYLEIGH_2X2}+csi{error_db}db",
            csi={"type": "noisy", "error_snr_db": float(error_db)},
        )
        for error_db in CSI_ERRORS_DB
    }
    simulate_sweep(
        name, scenarios, FIG10, FIG10_SNR_DB, args, console, label="CSI accuracy (dB)"
    )


def latency(name, args, console, repeats=30):
    """Time calls of all detectors by turns: latency.json, and Tables I and II."""
    import tensorflow as tf

    from linksim.complexity import measure_latency
    from linksim.link.receiver import create_receiver

    tables = {}
    for number, (scenario_name, detectors) in TABLES.items():
        scenario = load_scenario(scenario_name)
        system = scenario.system
        functions = {}
        for name in available(detectors, scenario, console):
            detector = create_receiver(name, scenario).detector
            functions[name] = tf.function(detector.llrs_and_symbols, autograph=False)
        rows = {}
        rng = np.random.default_rng(args.seed)
        for batch in LATENCY_BATCHES:
            shape = (batch, system.num_rx, system.num_streams)
            h = rng.normal(size=shape) + 1j * rng.normal(size=shape)
            y = h.sum(-1).astype(np.complex64)
            inputs = [
                tf.constant(v) for v in (y, h.astype(np.complex64), np.full(batch, 0.1, "f"))
            ]
            for name, times in measure_latency(functions, inputs, repeats).items():
                rows.setdefault(name, {})[str(batch)] = times
        tables[number] = {"scenario": scenario_name, "rows": rows}
    save_json(args.output / "latency.json", tables)
    write_atomically(args.output / "tables.md", latency_text(tables))


def latency_text(tables):
    """Tables I and II as Markdown: median times, and their ratios to the first detector."""
    lines = ["# Latency (Tables I and II)", ""]
    lines.append(
        "Median milliseconds of a call in graph mode on CPU; the detectors were called"
    )
    lines.append("by turns. In brackets: the ratio to the first row, EQ-Net-L.")
    for number, timed in enumerate(tables.values(), 1):
        rows = timed["rows"]
        first = next(iter(rows))
        lines += ["", f"## Table {'I' * number}: {timed['scenario']}", ""]
        times = []
        for name, cells in rows.items():
            texts = [f"`{name}`"]
            for batch in map(str, LATENCY_BATCHES):
                value = cells[batch]["median_ms"]
                texts.append(f"{value:.2f} ({value / rows[first][batch]['median_ms']:.2f})")
            times.append(texts)
        lines += table(["detector", *(f"B={b}" for b in LATENCY_BATCHES)], times)
    return "\n".join(lines) + "\n"


# --- claims ---------------------------------------------------------------------------


def gaps_of(folder, figure, key="gaps"):
    """The gaps of a simulated figure, {detector: text with interval}.

    Args:
        folder: the paper's folder of results.
        figure: name of the figure.
        key: "gaps" (to exact ML) or "gaps_to_mmse".
    """
    results = load_results(folder, figure) or {}
    return {gap["detector"]: gap_text(gap) for gap in results.get(key, [])}


def theorem_errors(seed):
    """The largest LLR error of the exact representations, relative to 1 + |LLR|, as
    {system and solution: error}."""
    from linksim.detectors.representations import (
        ml_llrs,
        ml_representation,
        zf_sic_llrs,
        zf_sic_representation,
    )
    from linksim.registry import create_detector

    rng = np.random.default_rng(seed)
    worst = {}
    for num_rx, k, m in ((2, 2, 6), (4, 4, 2), (4, 3, 4)):
        h = rng.normal(size=(200, num_rx, k)) + 1j * rng.normal(size=(200, num_rx, k))
        h = h.astype(np.complex64)
        y = (rng.normal(size=(200, num_rx)) * 2 + 1j).astype(np.complex64)
        no = np.full(200, 0.1, np.float32)
        args = {"num_streams": k, "num_bits_per_symbol": m}
        z = zf_sic_representation(y, h, no, m)
        pairs = {
            f"ZF-SIC, {z.shape[-1]} reals": (
                zf_sic_llrs(z, m),
                create_detector("zf-sic", **args)(y, h, no),
            )
        }
        z = ml_representation(y, h, no)
        pairs[f"ML, {z.shape[-1]} reals"] = (
            ml_llrs(z, k, m),
            create_detector("ml", **args)(y, h, no),
        )
        for name, (a, b) in pairs.items():
            a, b = np.asarray(a), np.asarray(b)
            error = float(np.max(np.abs(a - b) / (1 + np.abs(b))))
            worst[f"{num_rx}x{k}, {m} bits: {name}"] = error
    return worst


def theorems(name, args, console):
    """Check Theorems 1 and 2 on random channels: theorems.json."""
    data = {"seed": args.seed, "errors": theorem_errors(args.seed)}
    save_json(args.output / "theorems.json", data)


def claims_text(folder):
    """The text of claims.md: the verdicts, and what was measured for E1 to E7.

    Args:
        folder: where the figures' files are.
    """
    lines = ["# Claims of the EQ-Net paper: what was measured", *full_verdicts("eqnet")]
    lines += ["", "## E1: exact representations", ""]
    errors = (load_json_if_made(folder / "theorems.json") or {"errors": {}})["errors"]
    lines += [f"- {k}: largest error {v:.1e} of 1 + |LLR|" for k, v in errors.items()]
    lines += [
        "",
        "In the lists below gaps are in dB to exact ML at BLER 1e-2, in fig9 at 0.25,",
    ]
    lines += ["with 95 % intervals from paired blocks."]
    for claim, figures in (
        ("E2: bottleneck (fig1)", ["fig1"]),
        ("E4: estimation (fig5, fig6)", ["fig5", "fig6"]),
        ("E5: quantization (fig7, fig7-4x4)", ["fig7", "fig7-4x4"]),
        ("E6: CDL-A after training on Rayleigh (fig8, fig9)", ["fig8", "fig9"]),
    ):
        lines += ["", f"## {claim}", ""]
        for figure in figures:
            for name, text in gaps_of(folder, figure).items():
                lines.append(f"- {figure}: `{name}` {text}")
            for name, text in gaps_of(folder, figure, "gaps_to_mmse").items():
                lines.append(f"- {figure}, to linear MMSE: `{name}` {text}")
    lines += ["", "## E3: two-stage against joint training (fig3)", ""]
    for path in (f"eqnet-l/{RAYLEIGH_2X2}", f"eqnet-l/{RAYLEIGH_2X2}-joint"):
        rows = training_histories(path)
        if rows:
            best = min(r["weighted-squared-error"] for r in rows)
            lines.append(f"- `{path}`: {best:.4f} after {rows[-1]['step']:.0f} steps")
    results = load_results(folder, "fig10")
    if results is not None:
        lines += ["", f"## E7: CSI error at {FIG10_SNR_DB} dB (fig10)", ""]
        lines.append("| CSI accuracy | detector | BLER | 95 % interval |")
        lines.append("|---|---|---|---|")
        for r in results["records"]:
            lines.append(
                f"| {r['value']} dB | `{r['detector']}` | {r['bler']:.2e} | "
                f"{r['bler_low']:.1e} to {r['bler_high']:.1e} |"
            )
    return "\n".join(lines) + "\n"


def claims(name, args, console):
    """Write claims.md."""
    write_claims(claims_text(args.output), args, console)


def main(argv=None):
    functions = {name: simulated for name in FIGURES}
    functions.update(fig3=figure3, fig10=figure10, latency=latency)
    functions.update(theorems=theorems, claims=claims)
    return run_paper(argv, __doc__, "eqnet", functions)


if __name__ == "__main__":
    sys.exit(main())
