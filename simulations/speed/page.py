"""The page of the benchmark of speed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from simulations.markdown import table

from .rows import HEADER, cells

COMMAND = (
    "python simulations/benchmark.py --json results/benchmark/speed.json "
    "--markdown results/benchmark/speed.md"
)
INTRO = f"""
# Benchmark of speed

`{COMMAND}` makes this page in one run; `--sionna2 PYTHON`, or the environment variable
LINKSIM_SIONNA2, names a Python with Sionna 2.x for the rows that need one.

Times are median milliseconds per vector, codeword or block; those of `run-...` are of whole
simulations, compilation included. Both sides are called by turns with the same inputs, and in
brackets are the quartiles of the ratio. On TensorFlow each side takes the faster of graph mode and
XLA, unless the row names one; Sionna 2.x takes the faster of its eager call and of what
torch.compile makes of it.
"""
NOTES = """
## What is not equal work

- `ml-...` and `sionna2-ml-...`: Sionna goes through all vectors of symbols. Ours decides the last
  stream of each in closed form, which gives the same LLRs.
- `kbest-...` keeps 64 paths of the tree of real dimensions on both sides. In `sionna2-kbest-...`
  Sionna's tree is the complex one, which has half as many levels of four times as many branches:
  with real dimensions Sionna 2.2.0 misses the most likely vector even where its list holds all
  vectors. The LLRs of bits that no path decides are clipped, and differ.
- `oamp-...` and `pepnet-...`: the algorithms are different ones, so that LLRs are too. The rival is
  what one would take of Sionna's instead.
- `...-lmmse-...` and `...-ep-...`: Sionna takes a covariance of the noise and whitens it. Ours gets N0
  where the row says so or runs on TensorFlow, and otherwise the same covariances, which it finds
  to be white. EP of Sionna 2.x starts from another variance of the levels. After ten damped
  iterations its LLRs still differ a little, so decisions are compared.
- `sionna2-...` compares two frameworks, too: ours runs on TensorFlow. In `torch-...` both run on
  PyTorch, in a process each.
- `decode-...` and `sionna2-ldpc-...`: our decoder stops at parity, Sionna's has no such option. How
  much that saves depends on the SNR, and on how many codewords share a batch.
- `idd-...` and `pusch-...`: both sides have our loop and our decoder; only the detector differs.
- `run-2x2-qam64`: `sim_ber` simulates one detector after the other; ours draws once for all.
"""


def page_text(data: Mapping[str, Any]) -> str:
    """The text of speed.md.

    Args:
        data: what the script writes to a JSON file: "machine", "rows", and "missing", the
            names of rows that the run did not reach.
    """
    lines = [INTRO.strip(), "", *made_on(data["machine"], data)]
    lines += ["", *row_table(data["rows"])]
    return "\n".join([*lines, "", NOTES.strip()]) + "\n"


def made_on(facts: Mapping[str, Any], data: Mapping[str, Any]) -> list[str]:
    """Lines that say on what, and when, rows were measured, and what the run did not reach.

    Args:
        facts: {what: value} of the machine; empty values are left out.
        data: with "rows" and "missing", as for `page_text`.
    """
    line = ", ".join(f"{key}: {value}" for key, value in facts.items() if value) + "."
    times = [row["measured_at"] for row in data["rows"]]
    if times:
        line += f" Measured from {min(times)} to {max(times)}."
    if not data["missing"]:
        return [line]
    return [line, "", f"The run did not get to {', '.join(data['missing'])}."]


def row_table(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """The lines of the table of rows."""
    return table(HEADER, ([c.replace("|", "\\|") for c in cells(r)] for r in rows))
