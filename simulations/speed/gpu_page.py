"""The page of the benchmark on a GPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..by_backend.agreement import LIMIT
from .gpu import DRAW_LIMIT, MOST_BEYOND, MOST_FLIPPED, SCALE
from .page import made_on, row_table

INTRO = """
# Benchmark: {device}

{origin}

Times are median milliseconds per vector, codeword, block or run, until the result is computed;
it stays on the GPU. Both sides are processes, or functions of one process, and are called by
turns; in brackets are the quartiles of the ratio.
"""
ORIGIN = """
`python simulations/benchmark.py --gpu` makes this page and its JSON file, which hold what one
machine measured; both can be committed. A run that is killed goes on with the rows that it has.
"""
TRIAL = """
No GPU computed here: `--device cpu` puts the CPU in its place, to try the code. Nothing of this is
to be committed.
"""
NOTES = f"""
## How to read it

- `llrs-...`: a detector on the GPU with {SCALE} times the vectors that the CPU gets, and its LLRs on
  those that both have. Differences are relative to |LLR| plus a tenth of the range of all. At most
  {100 * MOST_BEYOND:g} % may be beyond {LIMIT:g}: sums in another order change the last digits, and
  K-Best, EP and AMP amplify that in a few vectors, on two compilers of one CPU as well. The GPU takes
  the faster of its modes.
- `tf32-...`: products of factors that are rounded to the ten bits of TensorFloat-32, beside those in
  full float32 on the same GPU. All other rows are in full float32: the simulator forbids
  TensorFloat-32, which TensorFlow and JAX otherwise use on NVIDIA's Ampere and later, and PyTorch
  does not. `DIFFERS` is what one expects of these rows; they say why it is forbidden.
- `draw-...`: the generators are counter-based, so that both sides draw the same blocks; received
  vectors may differ by {DRAW_LIMIT:g} of their root mean square.
- `decoder-...` and `counts-...`: {100 * MOST_FLIPPED:g} % of the blocks may come out otherwise, for a block
  at the edge falls on either side. Counts are those of a receiver on one batch, with its draw.
- `workers-2`: two processes share the GPU. They take memory as they need it, and their counts have to
  be those of one. The time has their start in it.
- The other rows compare with Sionna's on the same GPU, and are those of the benchmark of speed.
- "At most so many MB" is the most that tensors took in a call, with inputs and weights; what each
  further call keeps should be 0 B.
"""


def gpu_page_text(data: Mapping[str, Any]) -> str:
    """The text of a page of results/benchmark/gpu.

    Args:
        data: what the script writes to a JSON file, see `page_text`; "machine" has the
            "device" and what was "left_out".
    """
    facts, rows = dict(data["machine"]), data["rows"]
    left_out, trial = facts.pop("left_out"), facts.pop("trial", False)
    origin = (TRIAL if trial else ORIGIN).strip()
    lines = [INTRO.strip().format(device=facts["device"], origin=origin), ""]
    facts["version"] = data["made"]["version"] or "of no commit"
    lines += made_on(facts, data)
    if left_out:
        lines += ["", f"Left out: {left_out}."]
    lines += ["", verdict(rows), "", *row_table(rows)]
    return "\n".join([*lines, "", NOTES.strip()]) + "\n"


def verdict(rows: list[Mapping[str, Any]]) -> str:
    """In one sentence, whether results agree with the CPU's."""
    judged = [row for row in rows if "agrees" in row and not row["row"].startswith("tf32-")]
    unlike = [row["row"] for row in judged if not row["agrees"]]
    failed = [row["row"] for row in rows if "ours_ms" not in row]
    text = (
        f"{len(judged) - len(unlike)} of {len(judged)} comparisons agree within the tolerances"
    )
    for found, names in (("not", unlike), ("not measured", failed)):
        if names:
            text += f"; {found}: {', '.join(names)}"
    return text + "."
