"""At which SNR receivers reach a block error rate, and which of them are apart."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from linksim.montecarlo.statistics import (
    CONFIDENCE,
    interval_of_samples,
    resampled_crossings,
)

Failed = Mapping[str, Mapping[float, np.ndarray]]


def pack(failed: np.ndarray) -> str:
    """Which blocks failed, bool [blocks], as a text."""
    return base64.b64encode(zlib.compress(np.packbits(failed).tobytes(), 9)).decode()


def unpack(text: str, blocks: int) -> np.ndarray:
    """What `pack` made a text of, bool [blocks].

    Raises:
        ValueError: the text is damaged, or is that of fewer blocks.
    """
    bits = np.unpackbits(np.frombuffer(zlib.decompress(base64.b64decode(text)), np.uint8))
    if len(bits) < blocks:
        raise ValueError(f"{len(bits)} blocks, expected {blocks}")
    return bits[:blocks].astype(bool)


def compare(
    failed: Failed,
    bound: str,
    target: float,
    few: Sequence[str] = (),
    *,
    blocks_per_slot: int = 1,
) -> dict[str, dict[str, Any]]:
    """The SNR of every receiver at a target BLER, its gap to a bound, and its rank.

    Receivers of a rank are not told apart: going up in SNR, a new rank begins where the
    paired 95 % intervals say of every receiver so far that it is ahead of every one that
    follows. Receivers that do not reach the target have no rank.

    Args:
        failed: {receiver: {snr_db: bool [blocks]}}, block i the same draw for all.
        bound: the receiver that gaps are measured against; without it there are none.
        target: BLER.
        few: receivers of fewer blocks than others. They are compared on the blocks that they
            have, so that what the blocks have in common cancels. Each has the best rank of
            those that it is not told apart from.
        blocks_per_slot: see `linksim.montecarlo.statistics.paired_gaps`.

    Returns:
        {receiver: {"snr_db", "low", "high", "gap_db", "gap_low", "gap_high", "rank"}}, None
        where there is nothing to say.
    """
    few = [name for name in few if name in failed]
    whole = _crossings(failed, target, blocks_per_slot)
    common = _crossings(_cut(failed, few), target, blocks_per_slot) if few else whole

    def pair(one, other):
        samples = common if one in few or other in few else whole
        return samples[one], samples[other]

    reached = [name for name in failed if not np.isnan(whole[name][0])]
    reached.sort(key=lambda name: whole[name][0])
    middle = np.mean([point for curve in failed.values() for point in curve])

    def ahead(one, other):
        return _ahead(*pair(one, other), middle)

    ranks = _ranks([name for name in reached if name not in few], ahead)
    costly = [name for name in reached if name in few]
    before = dict(ranks)
    for name, rank in before.items():
        group = [other for other in before if before[other] == rank]
        ranks[name] += sum(all(ahead(c, other) for other in group) for c in costly)
    for name in costly:
        ranks[name] = _rank_among(ranks, name, ahead, few)
    found = {}
    for name in failed:
        row = dict.fromkeys(("snr_db", "low", "high", "gap_db", "gap_low", "gap_high"))
        if name in ranks:
            row["snr_db"], row["low"], row["high"] = interval_of_samples(whole[name])
        if bound in ranks and name in ranks and name != bound:
            gap = np.subtract(*pair(name, bound))
            if not np.isnan(gap[0]):
                row["gap_db"], row["gap_low"], row["gap_high"] = interval_of_samples(gap)
        found[name] = {**row, "rank": ranks.get(name)}
    return found


def _cut(failed, few):
    """The blocks that all of the receivers `few` have, at each point."""
    most: dict[float, int] = {}
    for name in few:
        for point, mask in failed[name].items():
            most[point] = min(len(mask), most.get(point, len(mask)))
    return {
        name: {point: mask[: most.get(point, len(mask))] for point, mask in curve.items()}
        for name, curve in failed.items()
    }


def _crossings(failed, target, blocks_per_slot):
    return resampled_crossings(
        failed, target, blocks_per_slot=blocks_per_slot, half_errors=True
    )


def _ranks(ordered, ahead):
    """{receiver: rank}, of receivers ascending in SNR."""
    ranks, rank, reach = {}, 1, -1
    for i, name in enumerate(ordered):
        if i > reach:
            rank = i + 1
        # The last receiver that one so far is not told apart from
        others = range(len(ordered) - 1, reach, -1)
        reach = max(reach, next((j for j in others if not ahead(name, ordered[j])), reach))
        ranks[name] = rank
    return ranks


def _rank_among(ranks, name, ahead, few):
    """The rank of a receiver of few blocks: the best one of those that it is not told apart
    from. It holds no others together, as its own interval is wide."""
    others = [other for other in ranks if other not in few]
    alike = [ranks[o] for o in others if not ahead(o, name) and not ahead(name, o)]
    return min(alike, default=1 + sum(ahead(other, name) for other in others))


def _ahead(one, other, middle):
    """Whether one receiver certainly needs less SNR than another.

    A resample that does not cross does so beyond the end of the curve that is nearer.
    """
    one, other = (
        np.where(np.isnan(x), np.inf if x[0] > middle else -np.inf, x) for x in (one, other)
    )
    # Where both are beyond an end, nothing is known
    behind = np.mean(one[1:] >= other[1:])
    return bool(np.isfinite(one[0]) and behind <= (1 - CONFIDENCE) / 2)
