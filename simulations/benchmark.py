#!/usr/bin/env python3
"""Time linksim side by side with what one would use instead.

Every row calls both sides by turns. It gives the median times per vector (or per
simulation), their ratio with its quartiles over the repeats, and how well the results
agree. Where a function runs in graph mode and with XLA, each side takes the faster one.

With --gpu it compares a GPU with the CPU, and with Sionna on the same GPU.
"""

import argparse
import logging
import os
import platform
import sys
import time
from datetime import datetime, timezone
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow warns of retracing when several functions are compiled one after the other
logging.getLogger("tensorflow").setLevel(logging.ERROR)
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from rich.markup import escape
from rich.table import Table

from linksim.cli.common import make_console, run_command
from linksim.errors import InvalidInput, check_choice, check_int
from linksim.files import load_json, make_folder, save_json, write_atomically
from linksim.provenance import git_commit
from linksim.start import backend_of_keras
from linksim.workers import share_gpus
from simulations.speed import sionna2
from simulations.speed.gpu import QUICK as GPU_QUICK
from simulations.speed.gpu import ROWS as GPU_ROWS
from simulations.speed.gpu import GpuBenchmark
from simulations.speed.gpu_page import gpu_page_text
from simulations.speed.page import page_text
from simulations.speed.rows import HEADER, agreement_of, cells, row_of
from simulations.speed.sionna2 import SIONNA_EP
from simulations.speed.vectors import MODES, draw_vectors, faster

# {row: (ours, options, rival, options, num_rx, num_streams, bits, batch, N0)}. A row whose
# name ends in a mode compares both sides in that mode.
DETECTORS = {
    "ml-2x2-qam64-app": ("ml", {}, "sionna-ml", {}, 2, 2, 6, 2000, 0.05),
    "ml-2x2-qam64-maxlog": (
        *("ml", {"demapping_method": "maxlog"}),
        *("sionna-ml", {"demapping_method": "maxlog"}),
        *(2, 2, 6, 2000, 0.05),
    ),
    "ml-4x4-qam16-app": ("ml", {}, "sionna-ml", {}, 4, 4, 4, 100, 0.2),
    "ml-4x4-qam16-maxlog": (
        *("ml", {"demapping_method": "maxlog"}),
        *("sionna-ml", {"demapping_method": "maxlog"}),
        *(4, 4, 4, 100, 0.2),
    ),
    **{
        # Sionna has no OAMP; its EP solves the same problem in as many iterations
        f"{ours}-64x16-qam16-{mode}": (ours, options, rival, {}, 64, 16, 4, 1000, 5.0)
        for ours, options, rival in (
            ("mmse", {}, "sionna-lmmse"),
            ("oamp", {}, "sionna-ep"),
            ("ep", SIONNA_EP, "sionna-ep"),
        )
        for mode in ("graph", "xla")
    },
    "kbest-4x4-qam16": ("kbest", {"k": 64}, "sionna-kbest", {"k": 64}, 4, 4, 4, 1000, 0.2),
    # What one would take of Sionna's where its exact detector is too slow
    "pepnet-8x4-qam16": (
        *("pepnet", {"pretrained": True}, "sionna-kbest", {"k": 64}),
        *(8, 4, 4, 1000, 0.2),
    ),
    "pepnet-16x8-qam16": (
        *("pepnet", {"pretrained": True}, "sionna-kbest", {"k": 64}),
        *(16, 8, 4, 500, 0.2),
    ),
    "ml-2x2-qam256-maxlog": (
        *("ml", {"demapping_method": "maxlog"}),
        *("sionna-ml", {"demapping_method": "maxlog"}),
        *(2, 2, 8, 100, 0.01),
    ),
    # Sionna's detector cannot hold the 2^24 hypotheses
    "ml-4x4-qam64-maxlog": (
        *("ml", {"demapping_method": "maxlog"}, None, {}),
        *(4, 4, 6, 4, 0.05),
    ),
}
# Sionna's names for the same detectors, where they are not "sionna-" and ours
SAME = {"mmse": "sionna-lmmse"}
# {row: (num_rx, num_streams, bits, our batch, vectors of the reference, N0)}
RELAXATIONS = {
    "sdr-60x30-bpsk": (60, 30, 1, 1000, 3, 12.0),
    "sdr-64x16-qam16": (64, 16, 4, 1000, 2, 4.0),
}
# {row: (scenario, detector, SNR in dB where its BLER is about 1e-2, blocks)}: the scenario's
# batch, and larger ones, in which the decoder's lanes stay full for longer
DECODING = {
    f"decode-{code}-{blocks}": (scenario, "ml", snr_db, blocks)
    for code, scenario, snr_db, batches in (
        ("802.11n", "rayleigh-2x2-qam64", 14.0, (100, 500, 2000)),
        ("5g", "cdl-c-8x4-qam16", 7.8, (50, 500)),
    )
    for blocks in batches
}
# {row: (scenario, ours, rival, SNR in dB)}: receivers with their decoder on a batch of blocks.
# Both sides have our loop, and our decoder
RECEIVERS = {
    "idd-8x4-qam16": ("cdl-c-8x4-qam16", "mmse/2", "sionna-mmse-pic/2", 6.0),
    "idd-2x2-qam64": ("rayleigh-2x2-qam64", "mmse/2", "sionna-mmse-pic/2", 13.0),
    "pusch-4x2-qam16": ("pusch-cdl-c-4x2-mcs14", "mmse", "sionna-lmmse", 6.0),
}
DEFAULT_RUN = "run-default"
RUN = "run-2x2-qam64"
RUN_SCENARIO, RUN_POINTS = "rayleigh-2x2-qam64", (12, 13, 14, 15)
# Blocks per point: at a BLER of 1e-2 the 95 % interval is then 0.5 to 1.8 times the BLER
RUN_BLOCKS = 1000
# Blocks per batch; with 500, Sionna's ML would need more than 10 GB
RUN_BATCH = {"ours": 500, "rival": 100}
# Five detectors, called as records do, and their counterparts in Sionna
RUN_DETECTORS = {
    "mmse": "sionna-lmmse",
    "ep(damping=0.9, demapping_method=maxlog, num_iterations=10)": "sionna-ep",
    "kbest": "sionna-kbest",
    "ml": "sionna-ml",
    "oamp": "sionna-mmse-pic",
}
ROWS = (*DETECTORS, *RELAXATIONS, *DECODING, *RECEIVERS, *sionna2.ROWS, RUN, DEFAULT_RUN)
# Those that a GPU is measured on, too: what has a rival, and the default run
ON_GPU = (*(name for name, row in DETECTORS.items() if row[2]), *DECODING, *RECEIVERS)
ON_GPU += (RUN, DEFAULT_RUN)

# A trial on the CPU must never lie there
GPU_OUTPUT, TRIAL_OUTPUT = Path("results/benchmark/gpu"), Path("results/runs/gpu-trial")

# With --quick: one or two rows of a kind, as compiling in two modes takes seconds
QUICK = ["ml-2x2-qam64-app", "ml-4x4-qam16-app", "mmse-64x16-qam16-xla"]
QUICK += ["ep-64x16-qam16-xla", "kbest-4x4-qam16"]


def parse_arguments(argv):
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    add = parser.add_argument
    rows = (*ROWS, *GPU_ROWS)
    add("--only", choices=rows, metavar="ROW", action="append", help="may be repeated")
    add("--list", action="store_true", help="list the rows, and end")
    add(
        "--gpu",
        action="store_true",
        help="measure a GPU; without --json and --markdown the files go to --output",
    )
    add(
        "--device",
        choices=("gpu", "cpu"),
        default="gpu",
        help="with --gpu: what takes its place; cpu is a trial of the code, small with --quick",
    )
    add("--output", type=Path, metavar="DIR", help=f"with --gpu; by default {GPU_OUTPUT}")
    add(
        "--json",
        metavar="FILE",
        help="write the rows to this file, which a run that was killed goes on with",
    )
    add("--markdown", metavar="FILE", help="write a table to this file")
    add(
        "--quick",
        action="store_true",
        help="small batches, three repeats, and a few detectors only",
    )
    add(
        "--sionna2",
        metavar="PYTHON",
        default=os.environ.get("LINKSIM_SIONNA2", ""),
        help="an interpreter with Sionna 2.x, or the variable LINKSIM_SIONNA2",
    )
    add("--repeats", type=int, default=9, metavar="N", help="calls of each side")
    # What batches are multiplied with; a GPU gets larger ones
    parser.set_defaults(scale=1)
    return parser.parse_args(argv)


def detector_row(name, args):
    from linksim.complexity import interleaved_seconds
    from linksim.registry import create_detector

    ours, options, rival, rival_options, num_rx, k, m, batch, no = DETECTORS[name]
    batch = max(4, batch // 10) if args.quick else batch * args.scale
    inputs = draw_vectors(num_rx, k, m, batch, no)
    system = {"num_streams": k, "num_bits_per_symbol": m}
    ending = name.rpartition("-")[2]
    choice = {mode: x for mode, x in MODES.items() if mode.lower() == ending} or None
    functions, modes = {}, {}
    modes["ours"], functions["ours"] = faster(
        create_detector(ours, **system, **options), inputs, choice
    )
    agreement = "nothing to compare with"
    if rival:
        modes["rival"], functions["rival"] = faster(
            create_detector(rival, **system, **rival_options), inputs, choice
        )
        a, b = (np.asarray(f(*inputs)) for f in functions.values())
        agreement = agreement_of(a, b, same=rival == SAME.get(ours, f"sionna-{ours}"))
    calls = {side: lambda f=f: f(*inputs) for side, f in functions.items()}
    seconds = interleaved_seconds(calls, args.repeats)
    theirs = f"{rival} ({modes['rival']})" if rival else "none can hold it"
    per = dict.fromkeys(calls, batch)
    return row_of(name, f"{ours} ({modes['ours']})", theirs, seconds, per, agreement)


def relaxation_row(name, args):
    from linksim.complexity import interleaved_seconds
    from linksim.registry import create_detector

    num_rx, k, m, batch, few, no = RELAXATIONS[name]
    inputs = draw_vectors(num_rx, k, m, batch, no)
    system = {"num_streams": k, "num_bits_per_symbol": m, "output": "symbol", "hard_out": True}
    mode, ours = faster(create_detector("sdr", **system), inputs)
    reference = create_detector("sdr-cvxpy", **system)
    some = [x[:few] for x in inputs]
    same = np.mean(ours(*inputs).numpy()[:few] == np.asarray(reference(*some)))
    calls = {"ours": lambda: ours(*inputs), "rival": lambda: reference(*some)}
    seconds = interleaved_seconds(calls, min(args.repeats, 3))
    agreement = f"{100 * same:.1f} % of {few * k} decisions equal"
    per = {"ours": batch, "rival": few}
    return row_of(name, f"sdr ({mode})", "sdr-cvxpy", seconds, per, agreement)


def decoding_row(name, args):
    """Compare decoding that stops with Sionna's decoder, which runs all iterations."""
    import tensorflow as tf

    from linksim.complexity import interleaved_seconds
    from linksim.link.scenario import load_scenario
    from linksim.link.simulator import LinkSimulator

    scenario_name, detector, snr_db, blocks = DECODING[name]
    simulator = LinkSimulator(load_scenario(scenario_name).replace(run={"batch_size": blocks}))
    simulator.add_detector(detector)
    link = simulator.link
    drawn = simulator.draw(0, snr_db, 0)
    llrs = link.codeword_llrs(simulator.detect(detector, drawn)[0])
    functions = {
        side: tf.function(decode, autograph=False, jit_compile=True)
        for side, decode in (("ours", link.code.decode), ("rival", link.code.decode_fully))
    }
    a, b = (f(llrs).numpy() for f in functions.values())
    same = np.mean((a == b).all(1))
    bler = np.mean((b != drawn.bits.numpy()).any(1))
    calls = {side: lambda f=f: f(llrs) for side, f in functions.items()}
    seconds = interleaved_seconds(calls, args.repeats)
    agreement = f"{100 * same:.1f} % of codewords equal, at BLER {bler:.3f}"
    labels = ("stops at parity (XLA)", f"{link.scenario.code.num_iterations} iterations (XLA)")
    return row_of(name, *labels, seconds, dict.fromkeys(calls, blocks), agreement)


def receiver_row(name, args):
    """Compare detection and decoding of blocks, of all passes that are made."""
    from linksim.complexity import interleaved_seconds
    from linksim.link.scenario import load_scenario
    from linksim.link.simulator import LinkSimulator

    scenario_name, ours, rival, snr_db = RECEIVERS[name]
    simulator = LinkSimulator(load_scenario(scenario_name))
    receivers = {"ours": ours, "rival": rival}
    for receiver in receivers.values():
        simulator.add_detector(receiver)
    drawn = simulator.draw(0, snr_db, 0)
    calls = {
        side: lambda r=receiver: simulator.errors(r, drawn)[0]
        for side, receiver in receivers.items()
    }
    failed = {side: call() > 0 for side, call in calls.items()}
    seconds = interleaved_seconds(calls, args.repeats)
    same = 100 * np.mean(failed["ours"] == failed["rival"])
    rates = " and ".join(f"{found.mean():.2f}" for found in failed.values())
    agreement = f"{same:.1f} % of blocks alike, at BLER {rates}"
    per = {side: len(found) for side, found in failed.items()}
    return row_of(name, ours, rival, seconds, per, agreement)


def default_run_row(name, args):
    """Time the main job as it is without options; nothing of Sionna's has all of it."""
    from linksim.cli.common import DEFAULT_SCENARIO
    from linksim.montecarlo.engine import simulate

    start = time.perf_counter()
    results = simulate(DEFAULT_SCENARIO)
    seconds = {"ours": np.array([time.perf_counter() - start])}
    blocks = sum(r["blocks"] for r in results["records"])
    detectors = len({r["detector"] for r in results["records"]})
    ours = f"{DEFAULT_SCENARIO}: {detectors} receivers, {blocks} blocks"
    return row_of(name, ours, "none has all of it", seconds, {"ours": 1}, "")


def run_row(name, args):
    """Compare whole simulations: all detectors at four points, compilation included.

    The rival simulates the same blocks, with Sionna's own decoder.
    """
    import tensorflow as tf
    from sionna.phy.utils import sim_ber

    from linksim.link.link import Link
    from linksim.link.scenario import load_scenario
    from linksim.montecarlo.engine import simulate
    from linksim.registry import create_detector

    size = RUN_BATCH["rival"]
    scenario = load_scenario(RUN_SCENARIO).replace(
        run={"min_bler": 0.0, "batch_size": RUN_BATCH["ours"]}
    )
    options = {"detectors": list(RUN_DETECTORS), "target_block_errors": 10**9}
    start = time.perf_counter()
    simulate(scenario, **options, snr_db=RUN_POINTS[0], max_blocks=1)  # one batch
    ours_first = time.perf_counter() - start
    start = time.perf_counter()
    results = simulate(scenario, **options, snr_db=RUN_POINTS, max_blocks=RUN_BLOCKS)
    ours = time.perf_counter() - start
    bler = {(r["detector"], r["snr_db"]): r["bler"] for r in results["records"]}

    link, system = Link(scenario), scenario.system
    largest = rival_first = 0.0
    start = time.perf_counter()
    for mine, rival in RUN_DETECTORS.items():
        detector = create_detector(
            rival,
            num_streams=system.num_streams,
            num_bits_per_symbol=system.num_bits_per_symbol,
        )
        batches = iter(range(10**9))

        @tf.function(autograph=False, jit_compile=True)
        def model(keys, no, batch, detector=detector):
            drawn = link.draw(keys, no, batch * size, size)
            llrs = link.codeword_llrs(detector(drawn.y, drawn.h_hat, drawn.no))
            return drawn.bits, link.code.decode_fully(llrs)

        def mc_fun(batch_size, ebno_db, model=model, batches=batches):
            nonlocal rival_first
            # What sim_ber calls Eb/N0 is the SNR of the scenario
            batch, snr_db = next(batches), float(ebno_db)
            keys = tf.constant(link.keys(0, snr_db, batch))
            no = tf.constant(link.no(snr_db), tf.float32)
            began = time.perf_counter()
            result = model(keys, no, tf.constant(batch, tf.int32))
            if not batch:
                rival_first += time.perf_counter() - began
            return result

        _, theirs = sim_ber(
            mc_fun,
            np.array(RUN_POINTS, np.float32),
            batch_size=size,
            max_mc_iter=RUN_BLOCKS // size,
            early_stop=False,
            verbose=False,
        )
        if mine != "oamp":  # Sionna's MMSE-PIC is there for its cost only
            for point, value in zip(RUN_POINTS, theirs.numpy()):
                largest = max(largest, abs(value - bler[mine, point]))
    rival = time.perf_counter() - start
    agreement = f"largest difference of BLER {largest:.3f} (other draws)"
    seconds = {"ours": np.array([ours]), "rival": np.array([rival])}
    blocks = RUN_BLOCKS * len(RUN_POINTS) * len(RUN_DETECTORS)
    labels = (
        f"simulate, {blocks} blocks; {ours_first:.0f} s for first batches",
        f"sim_ber, Sionna's detectors, XLA; {rival_first:.0f} s for first batches",
    )
    return row_of(name, *labels, seconds, {"ours": 1, "rival": 1}, agreement)


def timed_on():
    """The machine and the versions that the times belong to."""
    import sionna
    import tensorflow as tf

    gpus = [d.name for d in tf.config.list_physical_devices("GPU")]
    versions = {"tensorflow": tf.__version__, "sionna": sionna.__version__}
    return {**processor(), "gpus": gpus, **versions}


def processor():
    """The CPU, its cores, and the version of Python."""
    from linksim.workers import num_cores

    cpu = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(x.split(":")[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        pass
    # `taskset` limits the cores
    return {"cpu": cpu, "cores": num_cores(), "python": platform.python_version()}


def main(argv=None):
    args = parse_arguments(argv)
    return run_command("benchmark.py", lambda: _run(args, make_console()))


def _run(args, console):
    check_int("repeats", args.repeats)
    if args.list:
        console.print("\n".join((*GPU_ROWS, *ON_GPU) if args.gpu else ROWS), markup=False)
        return 0
    if args.quick:
        args.repeats = 3
    if args.gpu:
        rows, quick, facts, measure, page = _on_gpu(args)
    else:
        rows, quick, facts, page = ROWS, QUICK, timed_on(), page_text

        def measure(name):
            return row_maker(name)(name, args)

    names = list(args.only or (quick if args.quick else rows))
    for name in names:
        check_choice("only", name, rows)
    made = {"version": made_by(), "quick": args.quick, "repeats": args.repeats}
    rows = known_rows(args.json, {"machine": facts, "made": made})
    for name in names:
        if name not in rows:
            with console.status(name):
                rows[name] = measure(name)
            rows[name]["measured_at"] = datetime.now(timezone.utc).isoformat(
                timespec="minutes"
            )
        # A run that is killed keeps the rows that it has
        data = {"machine": facts, "made": made}
        data["missing"] = [other for other in names if other not in rows]
        data["rows"] = [rows[other] for other in names if other in rows]
        if args.json:
            save_json(Path(args.json), data)
        if args.markdown:
            write_atomically(Path(args.markdown), page(data))
    table = Table(*HEADER)
    for name in names:
        table.add_row(*map(escape, cells(rows[name])))
    console.print(table)
    return 0


def _on_gpu(args):
    """What `_run` needs of the benchmark on a GPU; the files are named by the device."""
    share_gpus()  # this process only needs what Keras brings along
    backend = backend_of_keras()
    benchmark = GpuBenchmark(backend, args.device, ON_GPU)
    trial = args.device == "cpu"
    folder = args.output or (TRIAL_OUTPUT if trial else GPU_OUTPUT)
    if trial and folder.resolve() == GPU_OUTPUT.resolve():
        raise InvalidInput(
            f"output: {folder} is for results of GPUs, expected another folder for a trial"
        )
    make_folder(folder)
    args.json = args.json or str(folder / f"{benchmark.file_name}.json")
    args.markdown = args.markdown or str(folder / f"{benchmark.file_name}.md")
    facts = {**benchmark.facts, **processor(), "left_out": benchmark.left_out}
    quick = [name for name in GPU_QUICK if name in benchmark.rows]
    return (
        benchmark.rows,
        quick,
        facts,
        lambda name: benchmark.measure(name, args),
        gpu_page_text,
    )


def row_maker(name):
    """The function that measures a row."""
    makers = {
        detector_row: DETECTORS,
        relaxation_row: RELAXATIONS,
        decoding_row: DECODING,
        receiver_row: RECEIVERS,
        sionna2.sionna2_row: sionna2.ROWS,
        default_run_row: (DEFAULT_RUN,),
        run_row: (RUN,),
    }
    return next(make for make, names in makers.items() if name in names)


def made_by():
    """The version whose rows these are, or None where its source is not that of a commit."""
    commit = git_commit()
    return None if commit is None or commit.endswith("-dirty") else commit


def known_rows(path, expected):
    """{row: what a run that did not come to its end has measured}; rows of another version or
    machine, and those of a run that did, are measured again."""
    if path is None or not Path(path).exists() or expected["made"]["version"] is None:
        return {}
    data = load_json(Path(path))
    if not data.get("missing") or any(data.get(k) != v for k, v in expected.items()):
        return {}
    return {row["row"]: row for row in data["rows"]}


if __name__ == "__main__":
    sys.exit(main())
