#!/usr/bin/env python3
"""Compare detectors on the frozen tracks of a benchmark: SNR, soft output and cost.

Every track is a link under a name and a version. For each receiver the script finds the SNR
at a block error rate, with its interval and a rank, the information and the calibration of
its LLRs, and its time as a multiple of that of `mmse`. Receivers that a track's file has
already are not measured again, and what was measured stays when a detector of yours comes to
it. The results go to OUTPUT/<track>.json, the pages of all to README.md and index.html.
"""

import logging
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# TensorFlow warns of retracing when several detectors are compiled one after the other
logging.getLogger("tensorflow").setLevel(logging.ERROR)
if __package__ in (None, ""):  # run as a script: prefer the checkout around it
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from linksim.cli.common import (
    load_user_code,
    make_console,
    make_parser,
    run_command,
    start_keras,
)
from linksim.errors import InvalidInput, check_choice, check_int
from linksim.files import make_folder, write_atomically
from linksim.names import parse_receiver, split_names
from simulations.detection.tracks import load_tracks

OUTPUT = Path("results/benchmark")
RUNS = Path("results/runs/benchmark")


def parse_arguments(argv):
    parser = make_parser(
        "benchmark_detection.py", __doc__, "--track iid-4x4-qam16 --detectors mmse,ep,ml"
    )
    add = parser.add_argument
    add("--track", action="append", metavar="NAME", help="a track; may be repeated")
    add(
        "--detectors",
        metavar="A,B,C",
        help="names of receivers (default: all that can run on a track)",
    )
    add("--quick", action="store_true", help="a fifth of the blocks; into results/runs")
    add(
        "--seed",
        type=int,
        metavar="N",
        help="other draws than those of the track; into results/runs",
    )
    add("--fresh", action="store_true", help="measure again what a track's file has already")
    add("--pages", action="store_true", help="measure nothing; compare and write pages again")
    add("--list", action="store_true", help="list the tracks and exit")
    add("--output", type=Path, metavar="DIR", help=f"folder of the results ({OUTPUT})")
    return parser.parse_args(argv)


def chosen_tracks(args):
    """The tracks of a command line, as they are run, and the folder of their results.

    Raises:
        InvalidInput: a name is unknown, or a track's numbers would not be those of its
            version.
    """
    tracks = load_tracks()
    for name in args.track or ():
        check_choice("track", name, list(tracks))
    chosen = [track for name, track in tracks.items() if name in (args.track or tracks)]
    output = OUTPUT
    for track in chosen:
        track.check_frozen()
    if args.quick:
        chosen, output = [track.quick() for track in chosen], RUNS / "quick"
    if args.seed is not None:
        check_int("seed", args.seed, minimum=0)
        chosen = [track.with_seed(args.seed) for track in chosen]
        output = RUNS / f"{'quick-' if args.quick else ''}seed-{args.seed}"
    return chosen, args.output or output


def main(argv=None):
    args = parse_arguments(argv)
    return run_command(
        "benchmark_detection.py",
        lambda: _run(args, make_console()),
        "interrupted; the same command continues",
    )


def _run(args, console):
    from simulations.detection.results import compare_again

    if args.list:
        for track in load_tracks().values():
            console.print(
                f"{track.name}, version {track.version}: {track.title}", markup=False
            )
        return 0
    chosen, output = chosen_tracks(args)
    make_folder(output)
    start_keras("tensorflow")
    load_user_code(args)
    if args.pages:
        for track in chosen:
            compare_again(track, output)
    else:
        taking_part = _taking_part(chosen, args, console)
        for track in chosen:
            names, absent = taking_part[track.name]
            if names:
                _measure(track, names, absent, args, output, console)
    _write_pages(output, console)
    return 0


def _taking_part(tracks, args, console):
    """{track: (names of receivers, {detector: why it does not take part})}.

    Raises:
        InvalidInput: of the receivers that were named, none can run on any of the tracks.
    """
    from simulations.detection.receivers import able_on, receivers_of

    if args.detectors is None:
        return {track.name: receivers_of(track) for track in tracks}
    wanted = [parse_receiver(name).text for name in split_names(args.detectors)]
    found = {track.name: able_on(track, wanted) for track in tracks}
    refused = [
        f"{track}: {name} cannot run: {why}"
        for track, (_, unable) in found.items()
        for name, why in unable.items()
    ]
    if not any(names for names, _ in found.values()):
        also = ", nor on any other track" if len(tracks) > 1 else ""
        raise InvalidInput(f"detectors: {refused[0]}{also}")
    for line in refused:
        console.print(line, markup=False, soft_wrap=True)
    # What somebody names is no part of a track's list of all that could take part
    return {track: (names, {}) for track, (names, _) in found.items()}


def _measure(track, names, absent, args, output, console):
    from simulations.detection.results import run_track

    console.print(f"{track.name}: {', '.join(names)}", markup=False, soft_wrap=True)
    todo = run_track(track, names, absent, output, RUNS / "counts", args.fresh)
    text = f"{len(todo)} of {len(names)} receivers were measured"
    console.print(f"{output}/{track.name}.json: {text}", markup=False)


def _write_pages(output, console):
    from simulations.detection.pages import page_text
    from simulations.detection.results import load_results
    from simulations.detection.web import web_page

    results = load_results(output, load_tracks())
    for name, text in (("README.md", page_text(results)), ("index.html", web_page(results))):
        write_atomically(output / name, text)
        console.print(f"{output}/{name}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
