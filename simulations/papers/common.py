"""What the scripts of the papers share.

A script imports this module first: it sets TensorFlow's environment and finds the checkout.
"""

import argparse
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow warns of retracing when several detectors are compiled one after the other
logging.getLogger("tensorflow").setLevel(logging.ERROR)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from linksim import files
from linksim.cli.common import make_console, run_command
from linksim.errors import InvalidInput, ResultFileError
from linksim.models import list_models
from simulations.markdown import table

TARGET_SER = 1e-3
# With a code of rate 1/2, QPSK decodes at SNRs where some papers' networks were not trained
HIGH_RATE_CODE = {"type": "5g", "num_info_bits": 540, "num_coded_bits": 648}


def run_paper(
    argv, doc, paper, functions, *, panels=(), target_block_errors=100, max_blocks=3000
):
    """Run the command line of a paper's script: some of its figures, or all.

    Args:
        argv: command-line arguments; None takes those of the process.
        doc: the script's docstring.
        paper: the name of the paper's folder below results/papers/.
        functions: {figure: function of (name, args, console)}, in the order they run.
        panels: names that `--panel` takes, if the script's figures have panels.
        target_block_errors, max_blocks: defaults of the stop rule.

    Returns:
        The exit code.
    """
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    add = parser.add_argument
    add("--only", choices=list(functions), action="append", help="a figure; may be repeated")
    if panels:
        add("--panel", choices=panels, action="append", help="a panel; may be repeated")
    add("--output", default=f"results/papers/{paper}", metavar="DIR", type=Path)
    errors, blocks = target_block_errors, max_blocks
    add("--target-block-errors", type=int, default=errors, metavar="N", help="at a point")
    add("--max-blocks", type=int, default=blocks, metavar="N", help="at a point")
    add("--seed", type=int, default=0, metavar="N", help="of all draws")
    add("--fresh", action="store_true", help="set earlier counts aside and start again")
    args = parser.parse_args(argv)
    args.paper = paper
    return run_command(
        paper,
        lambda: _make_figures(args, functions),
        "interrupted; the same command continues",
        mendable=(ResultFileError,),
    )


def _make_figures(args, functions):
    console = make_console()
    files.make_folder(args.output)
    console.print(f"trained models: {', '.join(list_models())}", soft_wrap=True)
    for name in args.only or functions:
        console.print(f"[bold]{name}[/]")
        functions[name](name, args, console)
    return 0


def chosen(args, panels):
    """The panels that `--panel` names, or all of them if it names none of these."""
    return [p for p in panels if p in (args.panel or ())] or list(panels)


def available(detectors, scenario, console):
    """The detectors whose weights exist; the others are named on the console."""
    from linksim.link.receiver import create_receiver

    kept = []
    for name in detectors:
        try:
            create_receiver(name, scenario)
        except InvalidInput as error:
            console.print(f"left out: {name}: {error}", soft_wrap=True, markup=False)
        else:
            kept.append(name)
    return kept


def simulate_figure(
    name,
    scenario,
    detectors,
    points,
    args,
    console,
    *,
    reference,
    more=None,
    rates=("ser", "bler", "ber"),
):
    """Simulate the curves of a figure, or of one panel, into its folder.

    The results are written after every point. Raw counts are not committed. Every figure
    has counts of its own, so that it holds the points it asks for and no others.

    Args:
        name: "<figure>" or "<figure>/<panel>".
        scenario: the `Scenario`.
        detectors: names; those without weights are left out, and named on the console.
        points: SNR in dB.
        args: as parsed by `run_paper`.
        reference: names of detectors; gaps are measured against the first available one.
        more: None, or a function of the results and of the arguments of `simulate` that
            returns a dictionary of further contents of the file.
        rates: the rates that are drawn.

    Returns:
        The results, as `linksim.simulate` returns them.

    Raises:
        KeyboardInterrupt: the run was interrupted; what there was has been written.
    """
    from linksim.montecarlo.engine import simulate
    from linksim.montecarlo.output import gap_table, write_results

    folder = args.output / name
    counts = Path("results/runs/papers") / args.paper
    kept = available(detectors, scenario, console)
    arguments = {
        "detectors": kept,
        "snr_db": points,
        "target_block_errors": args.target_block_errors,
        "max_blocks": args.max_blocks,
        "seed": args.seed,
        "store_path": counts / f"{name.replace('/', '-')}-{args.seed}.jsonl",
    }
    results = simulate(
        scenario,
        **arguments,
        fresh=args.fresh,
        reference=next(name for name in reference if name in kept),
        on_point=lambda r: write_results(r, folder, rates),
    )
    complete = results["provenance"]["complete"]
    if more is not None and complete:
        results.update(more(results, {"scenario": scenario, **arguments}))
    write_results(results, folder, rates)
    table = gap_table(results)
    if table is not None:
        console.print(table)
    if not complete:
        raise KeyboardInterrupt
    return results


def simulate_sweep(name, scenarios, detectors, snr_db, args, console, *, label):
    """Simulate several scenarios at one SNR, and draw the error rates against their values.

    Writes `results.json`, with a "value" in every record, `ser.png` and `bler.png`.

    Args:
        name: "<figure>" or "<figure>/<panel>".
        scenarios: {value: `Scenario`}.
        detectors: names; those without weights are left out, and named on the console.
        snr_db: the SNR in dB.
        args: as parsed by `run_paper`.
        label: label of the axis of values.

    Returns:
        The contents of `results.json`.

    Raises:
        KeyboardInterrupt: the run was interrupted; what there was has been written.
    """
    from linksim.montecarlo.engine import simulate

    folder = args.output / name
    files.make_folder(folder)
    kept = available(detectors, next(iter(scenarios.values())), console)
    records = []
    for value, scenario in scenarios.items():
        file = f"{name.replace('/', '-')}-{value}-{args.seed}.jsonl"
        results = simulate(
            scenario,
            kept,
            snr_db=[snr_db],
            target_block_errors=args.target_block_errors,
            max_blocks=args.max_blocks,
            seed=args.seed,
            store_path=Path("results/runs/papers") / args.paper / file,
            fresh=args.fresh,
        )
        records += [{"value": value, **r} for r in results["records"]]
        data = {"label": label, "provenance": results["provenance"], "records": records}
        files.save_json(folder / "results.json", data)
        for rate in ("ser", "bler"):
            _plot_sweep(data, rate, f"{scenario.title}, {snr_db:g} dB", folder / f"{rate}.png")
        if not results["provenance"]["complete"]:
            raise KeyboardInterrupt
    return data


def _plot_sweep(data, rate, title, path):
    from linksim.figures import literal, new_figure, ordered_legend, save_figure, set_title
    from linksim.montecarlo.output import curve_style

    figure, axes = new_figure(7.5, 4.5)
    for index, name in enumerate(dict.fromkeys(r["detector"] for r in data["records"])):
        rows = [r for r in data["records"] if r["detector"] == name and r[rate] > 0]
        if not rows:
            continue
        below = [r[rate] - max(r[f"{rate}_low"], r[rate] / 10) for r in rows]
        above = [r[f"{rate}_high"] - r[rate] for r in rows]
        x, y = [r["value"] for r in rows], [r[rate] for r in rows]
        axes.errorbar(
            x, y, yerr=[below, above], capsize=2.5, label=literal(name), **curve_style(index)
        )
    axes.set_yscale("log")
    axes.set_xlabel(data["label"])
    axes.set_ylabel({"ser": "Symbol error rate", "bler": "Block error rate"}[rate])
    set_title(figure, literal(title))
    if axes.containers:
        legend = ordered_legend(axes)
        figure.legend(*legend, loc="outside right center", fontsize=9, frameon=False)
    save_figure(figure, path)


def sweep_table(data, rate):
    """A sweep as lines of a Markdown table: a row per detector, a column per value."""
    values = list(dict.fromkeys(r["value"] for r in data["records"]))
    by_key = {(r["detector"], r["value"]): r for r in data["records"]}
    return table(
        [data["label"], *(f"{v:g}" for v in values)],
        (
            [f"`{name}`", *(rate_text(by_key.get((name, v)), rate) for v in values)]
            for name in dict.fromkeys(r["detector"] for r in data["records"])
        ),
    )


def rate_text(record, rate):
    """A record's rate as '1.2e-02 [1.1e-02, 1.3e-02]', or '-' if there is no record."""
    if record is None:
        return "-"
    low, high = record[f"{rate}_low"], record[f"{rate}_high"]
    if not record[rate]:
        return f"< {high:.1e}"
    return f"{record[rate]:.2e} [{low:.1e}, {high:.1e}]"


def gaps_text(folder, figure, target_ser=TARGET_SER, detectors=()):
    """The gaps of a simulated figure at a SER and at its BLER, and which of `detectors` it
    lacks, as lines of Markdown; an empty list if the figure was not made."""
    results = load_results(folder, figure)
    if results is None or not results["gaps"]:
        return []
    reference, target = (results["gaps"][0][key] for key in ("reference", "target_bler"))
    lines = ["", f"## {figure}: {results['scenario']['title']}, gaps to `{reference}`", ""]
    if not results["provenance"]["complete"]:
        lines += ["The run was interrupted: some points are missing.", ""]
    names = {r["detector"] for r in results["records"]}
    missing = [f"`{name}`" for name in detectors if name not in names]
    if missing:
        lines += ["Without weights: " + ", ".join(missing) + ".", ""]
    lines += [f"| detector | SER {target_ser:g} | BLER {target:g} |", "|---|---|---|"]
    for gap in results["gaps"]:
        name = gap["detector"]
        uncoded = symbol_error_gap(results, name, reference, target_ser)
        lines.append(f"| `{name}` | {gap_text(uncoded)} | {gap_text(gap)} |")
    return lines


def write_claims(text, args, console):
    """Write the text of claims.md into the paper's folder."""
    files.write_atomically(args.output / "claims.md", text)
    console.print(f"{args.output}/claims.md", markup=False)


def load_results(folder, figure):
    """The results of a simulated figure, or None if it was not made yet."""
    return load_json_if_made(folder / figure / "results.json")


def load_json_if_made(file):
    """The contents of a JSON file, or None if it was not made yet."""
    return files.load_json(file) if file.exists() else None


def gap_text(gap):
    """An entry of `gaps` as '+0.25 dB [+0.11, +0.39]'."""
    if gap["gap_db"] is None:
        return "no crossing"
    if gap["gap_db_low"] is None:
        return f"{gap['gap_db']:+.2f} dB"
    return f"{gap['gap_db']:+.2f} dB [{gap['gap_db_low']:+.2f}, {gap['gap_db_high']:+.2f}]"


def symbol_error_gap(results, detector, reference, target, rate="ser"):
    """How many dB more than a reference a detector needs for a symbol error rate.

    Args:
        results: as `simulate_figure` returns them.
        detector, reference: names of detectors in the results.
        target: the error rate at which the curves are compared.
        rate: "ser", or another rate of the records.

    Returns:
        The gap, as `linksim.montecarlo.statistics.gap_of_curves` returns it.
    """
    from linksim.montecarlo.statistics import gap_of_curves

    curves = (curve_of(results, name, rate) for name in (detector, reference))
    return gap_of_curves(*curves, target)


def curve_of(results, detector, rate="ser"):
    """A detector's points as (SNR in dB, rate, low, high), ascending in SNR."""
    return sorted(
        (r["snr_db"], r[rate], r[f"{rate}_low"], r[f"{rate}_high"])
        for r in results["records"]
        if r["detector"] == detector
    )
