"""What each detector computes in the comparison of backends: its system, weights and sizes."""

from __future__ import annotations

from typing import Any

from linksim.models import list_models
from linksim.registry import is_learned, list_detectors

#: Of what is not learned, and of learned detectors without weights
SYSTEM = {"num_rx": 8, "num_streams": 4, "num_bits_per_symbol": 4}
BATCH = 1000
#: Vectors in a call of what takes longer than seconds for a thousand
SMALLER_BATCH = {"sphere": 100, "sdr": 100}
#: N0 by the bits of a symbol
NO = {1: 0.5, 2: 0.3, 4: 0.2, 6: 0.05}
#: {detector: why it is not compared}
LEFT_OUT = {"sdr-cvxpy": "it is `sdr`, solved on the host, one vector at a time"}


def compared_detectors() -> list[str]:
    """The names of linksim's own detectors that are compared, in the registry's order."""
    own = (name for name in list_detectors() if not name.startswith("sionna-"))
    return [name for name in own if name not in LEFT_OUT]


def case_of(name: str, batch: int | None = None) -> dict[str, Any]:
    """The system, the weights and the sizes that a detector is compared with.

    A learned detector has its trained weights of the smallest system; what has none is
    compared on `SYSTEM`.

    Args:
        name: of a detector.
        batch: vectors of a call, or None for the usual number.

    Returns:
        {detector, num_rx, num_streams, num_bits_per_symbol, weights (a configuration, or
        ""), batch, no}.
    """
    system, weights = SYSTEM, ""
    cards = list_models(name) if is_learned(name) else {}
    if cards:
        path = min(cards, key=lambda p: (cards[p]["num_rx"] or 0, p))
        weights = path.partition("/")[2]
        if cards[path]["num_rx"]:
            system = {key: cards[path][key] for key in SYSTEM}
    return {
        "detector": name,
        **system,
        "weights": weights,
        "batch": batch or SMALLER_BATCH.get(name, BATCH),
        "no": NO.get(system["num_bits_per_symbol"], 0.2),
    }
