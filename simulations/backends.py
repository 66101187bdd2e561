#!/usr/bin/env python3
"""Compare all detectors between TensorFlow, JAX and PyTorch: LLRs, time, compilation.

Every backend computes in a process of its own, with the same inputs and weights, on one
thread of the CPU. The processes are called by turns. What OUTPUT/results.json has already is
not measured again; the page is OUTPUT/README.md.
"""

import sys
import tempfile
from datetime import datetime, timezone
from pathlib import Path

if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np

import linksim
from linksim.cli.common import Parser, make_console, run_command
from linksim.errors import InvalidInput, check_choice, check_int
from linksim.files import load_json, make_folder, save_json, write_atomically
from linksim.provenance import describe_machine, git_commit
from simulations.by_backend.agreement import agreement
from simulations.by_backend.cases import case_of, compared_detectors
from simulations.by_backend.page import markdown
from simulations.by_backend.processes import BackendProcess, lacks
from simulations.by_backend.worker import REFERENCE, RUNNERS

OUTPUT = Path("results/backends")
ROUNDS = 9
# Processor time of the calls of one process in one round
TURN_SECONDS = 0.1
# A detector that has not answered by then is given up
LIMIT_SECONDS = 600.0


def parse_arguments(argv):
    parser = Parser(
        prog="backends.py",
        description=__doc__.split("\n\n")[0],
        epilog="Example: backends.py --python torch=.venv-torch/bin/python",
    )
    add = parser.add_argument
    add(
        "--python",
        action="append",
        default=[],
        metavar="BACKEND=PATH",
        help="the interpreter of a backend (tensorflow, jax or torch); by default this one",
    )
    add("--only", choices=("page",), help="measure nothing; write the page again")
    add("--detectors", metavar="A,B,C", help="compare only these; default: all")
    others = [runner for runner in RUNNERS if runner != REFERENCE]
    add("--runners", metavar="A,B,C", help=f"of {', '.join(others)}; default: all")
    add("--batch", type=int, metavar="N", help="vectors of a call")
    add("--rounds", type=int, default=ROUNDS, metavar="N", help="turns of each process")
    add("--limit", type=float, default=LIMIT_SECONDS, metavar="S", help="of a compilation")
    add("--fresh", action="store_true", help="measure again what is there already")
    add("--output", type=Path, default=OUTPUT, metavar="DIR")
    return parser.parse_args(argv)


def chosen(name, text, known):
    """The names in an option's comma-separated text, or all that are known."""
    if text is None:
        return list(known)
    names = text.split(",")
    for one in names:
        check_choice(name, one, known)
    return names


def interpreters(given, runners):
    """{backend: interpreter} for some runners.

    Raises:
        InvalidInput: an unknown backend, or an interpreter without it.
    """
    backends = {RUNNERS[runner][0] for runner in (REFERENCE, *runners)}
    found = dict.fromkeys(sorted(backends), sys.executable)
    for text in given:
        backend, sign, path = text.partition("=")
        if not sign or backend not in {backend for backend, _ in RUNNERS.values()}:
            raise InvalidInput(
                f"python: got {text!r}, expected BACKEND=PATH with tensorflow, jax or torch"
            )
        # An environment is known by the path of its interpreter, which is a link
        found[backend] = str(Path(path).absolute())
    for backend in backends:
        if reason := lacks(found[backend], backend):
            raise InvalidInput(
                f"python: {found[backend]} cannot run Keras on {backend} ({reason}); name one "
                f"that can with --python {backend}=PATH, or choose others with --runners"
            )
    return found


def compare(case, runners, pythons, args):
    """Compare one detector: {runner: row} of the reference and of some runners."""
    rows, processes = {}, []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            for runner in (REFERENCE, *runners):
                python = pythons[RUNNERS[runner][0]]
                process = BackendProcess(runner, python, folder / "cache")
                processes.append(process)
                request = {"prepare": case, "folder": str(folder)}
                rows[runner] = process.ask(request, args.limit)
                if "error" in rows[REFERENCE]:
                    raise InvalidInput(
                        f"{case['detector']}: {REFERENCE} fails: {rows[REFERENCE]['error']}"
                    )
            expected = np.load(folder / f"{REFERENCE}.npy", allow_pickle=False)
            for runner in runners:
                if "error" not in rows[runner]:
                    llrs = np.load(folder / f"{runner}.npy", allow_pickle=False)
                    rows[runner] |= agreement(llrs, expected)
            seconds = {p.runner: [] for p in processes if "error" not in rows[p.runner]}
            for _ in range(args.rounds):
                for process in processes:
                    if process.runner not in seconds:
                        continue
                    answer = process.ask({"time": TURN_SECONDS}, args.limit)
                    if "error" in answer:
                        rows[process.runner] = answer
                        del seconds[process.runner]
                    else:
                        seconds[process.runner].append(answer["seconds"])
        finally:
            for process in processes:
                process.close()
    for runner, times in seconds.items():
        rows[runner] |= times_of(np.array(times), np.array(seconds[REFERENCE]), case["batch"])
    return rows


def times_of(seconds, reference, batch):
    """Microseconds a vector, and the quartiles of the ratios of the rounds."""
    low, middle, high = np.quantile(seconds / reference, [0.25, 0.5, 0.75])
    return {
        "us": 1e6 * float(np.median(seconds)) / batch,
        "ratio": float(middle),
        "ratio_low": float(low),
        "ratio_high": float(high),
    }


def run(args, console):
    """Compare the detectors, and write results and page."""
    file = args.output / "results.json"
    data = load_json(file, detectors=dict) if file.exists() else {"detectors": {}}
    if args.only == "page":
        if not file.exists():
            raise InvalidInput(
                f"output: there is no {file}, expected results of an earlier run"
            )
        write_atomically(args.output / "README.md", markdown(data))
        return 0
    check_int("rounds", args.rounds)
    if args.batch is not None:
        check_int("batch", args.batch)
    known = compared_detectors()
    names = chosen("detectors", args.detectors, known)
    others = [runner for runner in RUNNERS if runner != REFERENCE]
    wanted = chosen("runners", args.runners, others)
    pythons = interpreters(args.python, wanted)
    made = {"linksim": linksim.__version__, "git_commit": git_commit(), **describe_machine()}
    make_folder(args.output)
    for name in names:
        case = case_of(name, args.batch)
        entry = data["detectors"].get(name)
        if entry is None or entry["case"] != case:
            entry = {"case": case, "runners": {}}
        missing = [r for r in wanted if args.fresh or r not in entry["runners"]]
        if not missing:
            continue
        with console.status(name):
            rows = compare(case, missing, pythons, args)
        now = datetime.now(timezone.utc).isoformat(timespec="seconds")
        for runner, row in rows.items():
            entry["runners"][runner] = {**row, "made": {**made, "at": now}}
        data["detectors"][name] = entry
        # In the registry's order
        data["detectors"] = {n: data["detectors"][n] for n in known if n in data["detectors"]}
        save_json(file, data)
        write_atomically(args.output / "README.md", markdown(data))
        console.print(line_of(name, rows), markup=False, soft_wrap=True)
    return 0


def line_of(name, rows):
    """One line of what was found."""
    parts = [
        f"{runner} {row['error'][:60]}" if "error" in row else f"{runner} {row['ratio']:.2f}"
        for runner, row in rows.items()
    ]
    return f"{name}: {', '.join(parts)}"


def main(argv=None):
    args = parse_arguments(argv)
    return run_command("backends.py", lambda: run(args, make_console()))


if __name__ == "__main__":
    sys.exit(main())
