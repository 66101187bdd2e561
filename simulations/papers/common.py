"""What the scripts of the papers share.

Import it first: it prepares TensorFlow's environment and finds the checkout.
"""

import argparse
import json
import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# It takes the compilation of ten detectors for the retracing of one
logging.getLogger("tensorflow").setLevel(logging.ERROR)
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from rich.console import Console

from linksim.errors import InvalidInput
from linksim.models import list_models


def run_paper(
    argv, doc, paper, functions, *, panels=(), target_block_errors=100, max_blocks=3000
):
    """The command line of a paper: some of its figures, or all.

    Args:
        argv: command-line arguments, None for those of the process.
        doc: the script's docstring.
        paper: its name, of the folder below results/papers/.
        functions: {figure: function of (name, args, console)}, in their order.
        panels: names that `--panel` takes, of scripts whose figures have panels.
        target_block_errors, max_blocks: defaults of the stop rule.
    """
    parser = argparse.ArgumentParser(description=doc.split("\n\n")[0])
    add = parser.add_argument
    add("--only", choices=list(functions), action="append", help="one figure; may be repeated")
    if panels:
        add("--panel", choices=panels, action="append", help="one panel; may be repeated")
    add("--output", default=f"results/papers/{paper}", metavar="DIR", type=Path)
    add("--target-block-errors", type=int, default=target_block_errors, metavar="N")
    add("--max-blocks", type=int, default=max_blocks, metavar="N")
    add("--seed", type=int, default=0, metavar="N")
    add("--fresh", action="store_true", help="set earlier counts aside")
    args = parser.parse_args(argv)
    args.paper = paper
    args.output.mkdir(parents=True, exist_ok=True)
    console = Console()
    console.print(f"trained models: {', '.join(list_models())}", soft_wrap=True)
    try:
        for name in args.only or functions:
            console.print(f"[bold]{name}[/]")
            functions[name](name, args, console)
    except KeyboardInterrupt:
        print(f"{paper}: interrupted; the same command continues", file=sys.stderr)
        return 130
    return 0


def available(detectors, scenario, console):
    """Those detectors whose weights exist; the others are named on the console."""
    from linksim.link.receiver import Receiver

    kept = []
    for name in detectors:
        try:
            Receiver(name, scenario)
        except InvalidInput as error:
            console.print(f"left out: {name}: {error}", soft_wrap=True)
        else:
            kept.append(name)
    return kept


def simulate_figure(name, scenario, detectors, points, args, console, *, reference, more=None):
    """Simulate the curves of a figure, or of one panel, into its folder.

    Every finished point is written. Raw counts are not committed; each figure has its
    own, so that it holds the points it asks for and no other figure's.

    Args:
        name: of the figure, "<figure>" or "<figure>/<panel>".
        scenario: the `Scenario`.
        detectors: those without weights are left out, and named.
        points: SNR in dB.
        args: of `run_paper`.
        reference: detectors that gaps are measured against: the first that is available.
        more: None, or a function of the results and the arguments of `simulate` that
            returns what else the file holds, a dictionary.

    Returns:
        The results, as of `linksim.simulate`.

    Raises:
        KeyboardInterrupt: after writing what there was when it came.
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
        on_point=lambda r: write_results(r, folder),
    )
    complete = results["provenance"]["complete"]
    if more is not None and complete:
        results.update(more(results, {"scenario": scenario, **arguments}))
    write_results(results, folder)
    table = gap_table(results)
    if table is not None:
        console.print(table)
    if not complete:
        raise KeyboardInterrupt
    return results


def load_results(folder, figure):
    """The results of a simulated figure, or None if it was not made yet."""
    return load_json(folder / figure / "results.json")


def load_json(file):
    """What a JSON file holds, or None if it was not made yet."""
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def gap_text(gap):
    """'+0.25 dB [+0.11, +0.39]' of an entry of `gaps`."""
    if gap["gap_db"] is None:
        return "no crossing"
    if gap["gap_db_low"] is None:
        return f"{gap['gap_db']:+.2f} dB"
    return f"{gap['gap_db']:+.2f} dB [{gap['gap_db_low']:+.2f}, {gap['gap_db_high']:+.2f}]"


def symbol_error_gap(results, detector, reference, target, rate="ser"):
    """dB that a detector needs beyond a reference at a symbol error rate.

    Args:
        results: of `simulate_figure`.
        target: the rate.
        rate: "ser", or another of the records' rates.

    Returns:
        As of `linksim.montecarlo.statistics.gap_of_curves`.
    """
    from linksim.montecarlo.statistics import gap_of_curves

    curves = {
        name: sorted(
            (r["snr_db"], r[rate], r[f"{rate}_low"], r[f"{rate}_high"])
            for r in results["records"]
            if r["detector"] == name
        )
        for name in (detector, reference)
    }
    return gap_of_curves(curves[detector], curves[reference], target)
