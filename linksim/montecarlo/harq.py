"""What retransmissions deliver, from which blocks had failed after each of them."""

from __future__ import annotations

from typing import Any

import numpy as np

from linksim.link.link import Link
from linksim.montecarlo.statistics import Counts, clustered_interval, ratio_interval


def harq_record(failed: np.ndarray, link: Link) -> dict[str, Any]:
    """The entries of a record that a link with HARQ has in addition to the others.

    Args:
        failed: whether each block had failed after each transmission, bool [T, blocks], as
            `CountStore.failed_after` has it.
        link: the `Link`, whose blocks of a slot follow each other.

    Returns:
        {name: number}, each with its bounds `_low` and `_high`:

        * `bler_1`, `bler_2`, ...: the block error rate after so many transmissions;
        * `transmissions`: their mean number;
        * what `Link.throughput_of` says of the share of transmissions that are lost. Every
          transmission ends in a decoded block or is lost, so this share is one less the
          blocks that are delivered over the transmissions that all blocks took.
    """
    most, slots = len(failed), failed.shape[1] // link.blocks_per_slot
    by_slot = failed.reshape(most, slots, -1).sum(axis=2)
    record: dict[str, Any] = {}

    def note(name, value, bounds):
        record.update({name: value, f"{name}_low": bounds[0], f"{name}_high": bounds[1]})

    for number, lost in enumerate(by_slot, 1):
        counts = Counts(blocks=failed.shape[1], block_errors=int(lost.sum()))
        in_slots = lost if link.blocks_per_slot > 1 else None
        note(f"bler_{number}", counts.bler, counts.bler_interval(in_slots))
    # A block that failed is sent again, unless that was its last transmission
    again = by_slot[:-1].sum(axis=0)
    possible = (most - 1) * failed.shape[1]
    squares = int(np.sum(np.square(again, dtype=np.int64)))
    bounds = clustered_interval(int(again.sum()), squares, possible, slots)
    note(
        "transmissions",
        1 + float(again.sum()) / failed.shape[1],
        [1 + (most - 1) * bound for bound in bounds],
    )
    lost, sent = by_slot.sum(axis=0), again + link.blocks_per_slot
    interval = ratio_interval(lost, sent)
    return {**record, **link.throughput_of(float(lost.sum() / sent.sum()), interval)}
