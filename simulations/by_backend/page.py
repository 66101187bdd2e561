"""The page of the comparison of backends, from its results."""

from __future__ import annotations

from typing import Any

from simulations.markdown import table

from .agreement import LIMIT
from .cases import LEFT_OUT
from .worker import REFERENCE

#: {runner: title}, of those that have columns
TITLES = {
    "tf-xla": "TensorFlow, XLA",
    "jax-jit": "JAX, jit",
    "torch-eager": "PyTorch",
    "torch-compile": "torch.compile",
}
INTRO = f"""# Detectors by backend

Made by `python simulations/backends.py`, which compares each detector on TensorFlow in graph mode
with the other backends of Keras: the same inputs and weights, a process for each backend, one
thread of the CPU, all called by turns. A dash was not measured.

- **difference**: the largest difference of an LLR from TensorFlow's, over its magnitude plus a
  tenth of the range of all LLRs plus 0.05; in brackets the share of LLRs beyond {LIMIT:g}, if any.
  Differences up to there are rounding. Beyond are detectors that decide on the way: where two
  hypotheses are level, rounding chooses.
- **time**: processor time of a call over that of TensorFlow's graph, the median of the rounds with
  quartiles; less than 1 is faster.
- **first call**: seconds of compilation and the first call, on a machine that did other work, too.
- **graphs**: what `torch.compile` makes of a call. "one" compiles with `fullgraph=True`; a number is
  how often it falls back to Python. It then still computes the same.
"""
KIND = {1: "BPSK", 2: "QPSK", 4: "16-QAM", 6: "64-QAM"}


def markdown(data: dict[str, Any]) -> str:
    """The page as Markdown.

    Args:
        data: what results.json holds: {"detectors": {name: {"case", "runners": {runner: row}}}}.
    """
    entries = data["detectors"]
    parts = [INTRO, versions(entries), "", *agreement_table(entries), ""]
    parts += [*time_table(entries), "", *compile_table(entries), "", *problems(entries), ""]
    parts += ["## Left out", "", *(f"- `{name}`: {why}" for name, why in LEFT_OUT.items())]
    return "\n".join(parts) + "\n"


def versions(entries):
    """What computed, one line for each backend."""
    found = {}
    for entry in entries.values():
        for row in entry["runners"].values():
            for package, version in row.get("versions", {}).items():
                found.setdefault(package, set()).add(version)
    return ", ".join(f"{name} {', '.join(sorted(v))}" for name, v in sorted(found.items()))


def system_text(case):
    """As in "8x4 16-QAM, 1000"."""
    bits = case["num_bits_per_symbol"]
    kind = KIND.get(bits, f"{2**bits}-QAM")
    return f"{case['num_rx']}x{case['num_streams']} {kind}, {case['batch']}"


def section(title, header, rows):
    """A section with a table."""
    return [f"## {title}", "", *table(header, rows)]


def cell(row, key, text):
    """A cell, which is a dash for what was not measured and "fails" for an error."""
    if row is None:
        return "–"
    if "error" in row:
        return "fails"
    return text(row) if key in row else "–"


def agreement_table(entries):
    def text(row):
        share = f" ({100 * row['share_beyond']:.2g} %)" if row["share_beyond"] else ""
        return f"{row['largest']:.1e}{share}"

    rows = []
    for name, entry in entries.items():
        found = [cell(entry["runners"].get(r), "largest", text) for r in TITLES]
        weights = f"`{entry['case']['weights']}`" if entry["case"]["weights"] else ""
        rows.append([f"`{name}`", system_text(entry["case"]), weights, *found])
    header = ["detector", "system, vectors a call", "weights", *TITLES.values()]
    return section("Difference", header, rows)


def time_table(entries):
    def text(row):
        return f"{row['ratio']:.2f} [{row['ratio_low']:.2f}, {row['ratio_high']:.2f}]"

    rows = []
    for name, entry in entries.items():
        found = [cell(entry["runners"].get(r), "ratio", text) for r in TITLES]
        us = cell(entry["runners"].get(REFERENCE), "us", lambda row: f"{row['us']:.3g}")
        rows.append([f"`{name}`", us, *found])
    return section(
        "Time", ["detector", "TensorFlow, graph: us a vector", *TITLES.values()], rows
    )


def compile_table(entries):
    def seconds(row):
        return f"{row['first_seconds']:.1f}"

    rows = []
    for name, entry in entries.items():
        runners = entry["runners"]
        found = [cell(runners.get(r), "first_seconds", seconds) for r in (REFERENCE, *TITLES)]
        rows.append([f"`{name}`", graphs_text(runners), *found])
    titles = [f"{title}: s" for title in ("TensorFlow, graph", *TITLES.values())]
    return section(
        "First call, and graphs of torch.compile", ["detector", "graphs", *titles], rows
    )


def graphs_text(runners):
    """ "one", or the number of breaks; generated code does not change it."""
    for runner in ("torch-compile", "torch-trace"):
        row = runners.get(runner, {})
        if "breaks" in row:
            breaks = row["breaks"]
            return "one" if not breaks else f"{breaks} break{'s' if breaks > 1 else ''}"
    return "–"


def problems(entries):
    """What fails, and what cuts graphs."""
    lines = ["## What fails, and what cuts graphs", ""]
    for name, entry in entries.items():
        for runner, row in entry["runners"].items():
            if "error" in row:
                lines.append(f"- `{name}`, {runner}: {one_line(row['error'])}")
        reasons = sorted(
            {
                one_line(reason)
                for runner in ("torch-trace", "torch-compile")
                for reason in entry["runners"].get(runner, {}).get("reasons", [])
            }
        )
        if reasons:
            lines.append(f"- `{name}`, torch.compile: {', '.join(reasons)}")
    return lines if len(lines) > 2 else [*lines, "Nothing."]


def one_line(text):
    """The first line of a message, as text of Markdown."""
    first = text.strip().splitlines()[0][:200]
    return "`" + first.replace("`", "'") + "`"
