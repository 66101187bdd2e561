"""EXIT charts of scenarios: measured, and as files, tables and figures."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from linksim.errors import InvalidInput, as_list, check_int, check_real
from linksim.files import as_path, make_folder, save_json
from linksim.link.exit import ExitMeter, Information
from linksim.link.scenario import Scenario, load_scenario, scenario_from_dict
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.output import curve_style
from linksim.names import parse_receiver, with_passes
from linksim.provenance import provenance
from linksim.snr import SNR_DEFINITIONS

# What is told at the points of a curve, in bits. LLRs that tell all would be infinite
POINTS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.999)


def exit_chart(
    scenario: Scenario | str | Path,
    detectors: Iterable[str],
    snr_db: float,
    *,
    num_blocks: int = 20,
    num_passes: int = 4,
    points: Sequence[float] = POINTS,
    seed: int = 0,
    xla: str = "auto",
    on_progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure what detectors and decoder of a scenario tell each other.

    `linksim.link.exit` says what is measured, and what the numbers mean.

    Args:
        scenario: a `Scenario`, a name of `list_scenarios()`, or a TOML path.
        detectors: names of receivers of one pass, whose detectors can use a prior.
        snr_db: the SNR in dB, in the scenario's definition.
        num_blocks: blocks that are drawn.
        num_passes: passes of the loop.
        points: what is told at the points of a curve, in bits, in [0, 1).
        seed: of all draws.
        xla: "auto", "on" or "off".
        on_progress: called with what is being measured.

    Returns:
        A dictionary: `scenario`, `provenance`, `snr_db`, `blocks`, and the curve of the
        `decoder`, rows with `told`, `information` and its standard `error`, in bits. Each
        of `detectors` has its name, `detector`, such a `curve`, and a row of the `loop` for
        each pass: `blocks`, `detector` and `decoder`, with `detector_error` and
        `decoder_error`.

    Raises:
        InvalidInput: an unknown name, a detector without use for a prior, a scenario without
            a code or with two kinds of decoders, or a number out of range.
    """
    started = time.perf_counter()
    scenario = load_scenario(scenario) if not isinstance(scenario, Scenario) else scenario
    names = with_loops(as_list("detectors", detectors, "names of receivers"), num_passes)
    check_real("snr_db", snr_db, low=-200, high=200)
    if scenario.loop.cn_update not in ("", scenario.code.cn_update):
        raise InvalidInput(
            f'loop.cn_update: got "{scenario.loop.cn_update}" with code.cn_update = '
            f'"{scenario.code.cn_update}", expected the same: a chart has one curve of the '
            "decoder for all passes"
        )
    check_int("num_blocks", num_blocks, 2)
    check_int("seed", seed, 0)
    points = as_list("points", points, "numbers")
    for point in points:
        check_real("points", point, low=0, high=0.9999)
    batches = math.ceil(num_blocks / scenario.run.batch_size)
    drawn = scenario.replace(run={"batch_size": math.ceil(num_blocks / batches)})
    simulator = LinkSimulator(drawn, xla)
    for name in names.values():
        simulator.add_detector(name)
    say = on_progress or (lambda text: None)
    meter = ExitMeter(simulator, snr_db, batches, seed)
    say("decoder")
    # The decoder's curve is steep, and takes little time
    between = (np.add(points[1:], points[:-1]) / 2).tolist()
    decoder = _curve(meter.decoder, sorted({*points, *between}))
    found = []
    for name, looping in names.items():
        say(name)
        steps = [
            {
                "blocks": step.blocks,
                "detector": step.detector.mean,
                "detector_error": step.detector.error,
                "decoder": step.decoder.mean,
                "decoder_error": step.decoder.error,
            }
            for step in meter.loop(looping)
        ]
        curve = _curve(functools.partial(meter.detector, looping), points)
        found.append({"detector": name, "curve": curve, "loop": steps})
    return {
        "scenario": scenario.to_dict(),
        "provenance": provenance(simulator, seed, started, complete=True),
        "snr_db": float(snr_db),
        "blocks": batches * drawn.run.batch_size,
        "decoder": decoder,
        "detectors": found,
    }


def with_loops(detectors: Iterable[str], num_passes: int) -> dict[str, str]:
    """{name of a receiver of one pass: that of the one with `num_passes`}.

    Raises:
        InvalidInput: there is no name, one is unknown, has passes of its own, or its detector
            has no use for a prior.
    """
    check_int("passes", num_passes, 2, 100)
    names = {}
    for text in detectors:
        spec = parse_receiver(text)
        if spec.num_passes > 1:
            raise InvalidInput(
                f"detectors: got {text!r}, expected a name without passes, which are the same "
                "for all detectors of a chart"
            )
        names[spec.text] = parse_receiver(with_passes(spec.text, num_passes)).text
    if not names:
        raise InvalidInput("detectors: got none, expected the name of a receiver or more")
    return names


def _curve(
    measure: Callable[[float], Information], points: Iterable[float]
) -> list[dict[str, float]]:
    rows = []
    for told in points:
        found = measure(told)
        rows.append(
            {"told": float(told), "information": found.mean, "error": found.error},
        )
    return rows


# --- output ---------------------------------------------------------------------------


def write_exit_chart(results: dict[str, Any], folder: str | Path) -> None:
    """Write `results.json` and `exit.png`.

    Args:
        results: what `exit_chart` returned.
        folder: where to write them; it is created if it is missing.

    Raises:
        ResultFileError: a file cannot be written.
    """
    folder = as_path("folder", folder)
    make_folder(folder)
    save_json(folder / "results.json", results)
    plot_exit_chart(results, folder / "exit.png")


def loop_table(results: dict[str, Any]) -> Table:
    """A table for the terminal of what was told in each pass."""
    table = Table(
        title="Bits of information per coded bit, pass by pass", title_justify="left"
    )
    for column in ("detector", "pass", "blocks", "tells the decoder", "is told by it"):
        table.add_column(column, justify="left" if column == "detector" else "right")
    for entry in results["detectors"]:
        for number, step in enumerate(entry["loop"], start=1):
            table.add_row(
                Text(entry["detector"] if number == 1 else ""),
                str(number),
                str(step["blocks"]),
                *(
                    f"{step[k]:.3f} ± {step[f'{k}_error']:.3f}"
                    for k in ("detector", "decoder")
                ),
            )
    return table


def plot_exit_chart(results: dict[str, Any], path: str | Path) -> None:
    """Write a PNG file: curves of the detectors, that of the decoder with its axes
    exchanged, and the loops as steps between them."""
    from linksim.figures import literal, new_figure, save_figure, set_title

    scenario = scenario_from_dict(results["scenario"])
    figure, axes = new_figure(7.6, 6.0)
    rows = results["decoder"]
    told, tells = ([r[k] for r in rows] for k in ("told", "information"))
    axes.plot(tells, told, color="black", linewidth=1.6, label="decoder")
    for index, entry in enumerate(results["detectors"]):
        style: dict[str, Any] = curve_style(index)
        rows = entry["curve"]
        told, tells = ([r[k] for r in rows] for k in ("told", "information"))
        axes.errorbar(
            told,
            tells,
            [r["error"] for r in rows],
            label=literal(entry["detector"]),
            linewidth=1.4,
            markersize=4,
            capsize=2,
            **style,
        )
        x, y = stairs(entry["loop"])
        axes.plot(x, y, color=style["color"], linewidth=0.9, linestyle=":")
        # The last pass, beyond which nothing was measured
        axes.plot(x[-1:], y[-1:], color=style["color"], marker="x", markersize=7)
    axes.set_xlim(-0.02, 1.02)
    # From where the decoder begins to find something, or below all detectors
    lowest = min(r["information"] for e in results["detectors"] for r in e["curve"])
    silent = max(
        (r["told"] for r in results["decoder"] if r["information"] < 0.1), default=0.0
    )
    axes.set_ylim(max(min(lowest, silent) - 0.05, -0.02), 1.02)
    axes.set_xlabel("The decoder tells the detector (bits per coded bit)")
    axes.set_ylabel("The detector tells the decoder (bits per coded bit)")
    definition = SNR_DEFINITIONS[scenario.snr.definition].label
    title = f"{literal(scenario.description)}\n{definition}: {results['snr_db']:g}"
    set_title(figure, title, fontsize=10)
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right center", fontsize=9, frameon=False)
    save_figure(figure, path)


def stairs(steps: Iterable[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """The path of a loop in a chart: what the decoder tells, and what the detector tells.

    It goes up to what the detector tells in a pass, then aside to what the decoder makes of it.
    """
    x, y = [0.0], [0.0]
    for step in steps:
        x += [x[-1], step["decoder"]]
        y += [step["detector"], step["detector"]]
    return np.array(x), np.array(y)
