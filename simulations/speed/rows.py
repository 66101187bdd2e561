"""A row of the benchmark of speed: the times of two sides, and how well they agree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np


def row_of(
    name: str,
    ours: str,
    rival: str,
    seconds: Mapping[str, np.ndarray],
    per: Mapping[str, float],
    agreement: str,
) -> dict[str, Any]:
    """A row, from the seconds of the calls and the number of vectors in one call.

    Args:
        name: of the row.
        ours, rival: what the sides are.
        seconds: {side: seconds of each call}; "rival" may be missing.
        per: {side: what the time of a call is divided by}.
        agreement: in words.
    """
    mine = seconds["ours"] / per["ours"]
    row = {
        "row": name,
        "ours": ours,
        "ours_ms": 1e3 * float(np.median(mine)),
        "rival": rival,
        "agreement": agreement,
    }
    if "rival" in seconds:
        theirs = seconds["rival"] / per["rival"]
        low, middle, high = np.quantile(theirs / mine, [0.25, 0.5, 0.75])
        row |= {
            "rival_ms": 1e3 * float(np.median(theirs)),
            "ratio": float(middle),
            "ratio_low": float(low),
            "ratio_high": float(high),
        }
    return row


def absent_row(name: str, rival: str, why: str) -> dict[str, Any]:
    """A row of which nothing was measured."""
    return {"row": name, "ours": "", "rival": rival, "agreement": why}


def agreement_of(ours: np.ndarray, theirs: np.ndarray, same: bool) -> str:
    """How well LLRs agree, in words.

    Args:
        ours, theirs: float32 of the same shape.
        same: both are the same detector, so that their LLRs should be equal.
    """
    if same:
        close = np.mean(np.abs(ours - theirs) <= 1e-3 * (1 + np.abs(theirs)))
        return f"{100 * close:.2f} % of LLRs within 1e-3 (1 + |LLR|)"
    return f"{100 * np.mean((ours > 0) == (theirs > 0)):.2f} % of bits decided alike"


HEADER = ["row", "ours", "ms", "rival", "ms", "times faster", "agreement"]


def cells(row: Mapping[str, Any]) -> list[str]:
    """The cells of a row as texts, in the order of `HEADER`."""
    ratio = rival_ms = ours_ms = ""
    if "ours_ms" in row:
        ours_ms = f"{row['ours_ms']:.4g}"
    if "ratio" in row:
        ratio = f"{row['ratio']:.3g} [{row['ratio_low']:.3g}, {row['ratio_high']:.3g}]"
        rival_ms = f"{row['rival_ms']:.4g}"
    texts = [row["row"], row["ours"], ours_ms, row["rival"], rival_ms, ratio]
    return [*texts, row["agreement"]]
