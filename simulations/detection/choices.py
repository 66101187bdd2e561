"""Which receiver of a track to take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .tracks import TARGETS

# Receivers whose SNR are this near are as good as each other, and the fastest is named
NEAR_DB = 0.1
# What is still a short time for a block, as a multiple of that of `mmse`
SHORT = 2.0

# {what somebody wants: which rows can have it}
WANTED: dict[str, Callable[[dict[str, Any]], bool]] = {
    "least SNR": lambda row: True,
    "least SNR in one pass": lambda row: row["passes"] == 1,
    f"least SNR in at most {SHORT:g} times the time of `mmse`": lambda row: (
        row["block_ratio"] <= SHORT
    ),
}


def choices_of(data: dict[str, Any]) -> dict[str, str | None]:
    """{what somebody wants: the receiver to take, or None if no receiver has it}.

    It is the fastest of those whose SNR at the first of `TARGETS` is at most `NEAR_DB` above
    the least.

    Args:
        data: contents of a track's file.
    """
    reached = {
        name: row
        for name, row in data["receivers"].items()
        if snr_of(row) is not None and row["block_ratio"]
    }
    found: dict[str, str | None] = {}
    for wanted, can in WANTED.items():
        rows = {name: row for name, row in reached.items() if can(row)}
        least = min(map(snr_of, rows.values()), default=0.0)
        near = [name for name, row in rows.items() if snr_of(row) <= least + NEAR_DB]
        found[wanted] = min(near, key=lambda name: rows[name]["block_ratio"], default=None)
    return found


def needs(row: dict[str, Any], with_time: bool = True) -> str:
    """What a receiver needs: SNR, and time of a block as a multiple of that of `mmse`."""
    snr_db = snr_of(row)
    text = "BLER not reached" if snr_db is None else f"{snr_db:.2f} dB"
    return f"{text}, {row['block_ratio']:.2g} x" if with_time else text


def snr_of(row: dict[str, Any]) -> Any:
    """SNR in dB at the first of `TARGETS`, or None."""
    return row["at"][f"{TARGETS[0]:g}"]["snr_db"]
