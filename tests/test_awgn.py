"""Every detector without interference: one stream, and columns that are orthogonal.

Nothing is left to detect there, and the symbol error rate is that of the AWGN channel.
Networks that have to be trained are left out; an untrained OAMP-Net is OAMP.
"""

import functools

import numpy as np
import pytest
from scipy.stats import norm

from linksim.constellation import pam_points, qam_points
from linksim.registry import create_detector, is_learned, list_detectors
from tests.conftest import draw_system, slow_but
from tests.systems import run

# `mmse-biased` slices with its bias, as its docstring says, and `sdr-cvxpy` is `sdr`, slowly
NAMES = [
    n
    for n in list_detectors()
    if not n.startswith("sionna-")
    and n not in ("mmse-biased", "sdr-cvxpy")
    and (not is_learned(n) or n in ("oampnet", "oampnet2"))
]
# N0 at which about every tenth symbol is wrong
NOISE = {1: 0.6, 2: 0.3, 4: 0.07, 6: 0.017, 8: 0.004}
SYSTEMS = [(1, 1), (4, 3)]  # M and K


OPTIONS = {
    "kbest": {"k": 16},
    **dict.fromkeys(("amp", "oamp", "oampnet", "oampnet2"), {"num_iterations": 4}),
}


@functools.cache
def make(name, num_streams, m, **options):
    options = {**OPTIONS.get(name, {}), **options}
    return create_detector(name, num_streams=num_streams, num_bits_per_symbol=m, **options)


def exact_rate(m, no):
    """Symbol error rate of BPSK and square QAM of unit power on the AWGN channel."""
    levels = np.sort(pam_points(m).astype(float))
    half = (levels[1] - levels[0]) / 2
    wrong = 2 * (1 - 1 / len(levels)) * norm.sf(half / np.sqrt(no / 2))
    return wrong if m == 1 else 1 - (1 - wrong) ** 2


def without_interference(rng, batch, num_rx, streams, m):
    """Symbols, y, h with columns of length 1.5 that are orthogonal, and N0."""
    symbols, _, h, _ = draw_system(rng, batch, num_rx, streams, m, 0.1)
    h = np.linalg.qr(h)[0]
    no = NOISE[m]
    noise = rng.normal(size=(batch, num_rx, 2)) @ [1, 1j] * np.sqrt(no / 2)
    y = np.einsum("bmk,bk->bm", h, qam_points(m)[symbols]) + noise
    y, h = (1.5 * y).astype(np.complex64), (1.5 * h).astype(np.complex64)
    return symbols, y, h, np.full(batch, 1.5**2 * no, np.float32)


def matched(y, h):
    """What a filter matched to each column gives."""
    return np.einsum("bmk,bm->bk", h.conj(), y) / (np.abs(h) ** 2).sum(1)


@pytest.mark.parametrize("m", NOISE)
@pytest.mark.parametrize("num_rx, streams", SYSTEMS)
def test_references_have_the_exact_rate(rng, num_rx, streams, m):
    symbols, y, h, _ = without_interference(rng, 20000, num_rx, streams, m)
    z = matched(y, h)
    decided = np.abs(z[..., None] - qam_points(m)).argmin(-1)
    expected = exact_rate(m, NOISE[m])
    deviation = np.sqrt(expected * (1 - expected) / symbols.size)
    assert 0.02 < expected < 0.3
    assert abs(np.mean(decided != symbols) - expected) < 4 * deviation


@pytest.mark.parametrize("m", slow_but((1, 4), NOISE))
@pytest.mark.parametrize("name", NAMES)
def test_decisions_are_those_of_the_matched_filter(rng, name, m):
    """So that the symbol error rate is the exact one."""
    for num_rx, streams in SYSTEMS:
        if name == "ml" and 2 ** (m * streams) > 2**16:
            continue
        _, y, h, no = without_interference(rng, 300, num_rx, streams, m)
        decided = np.abs(matched(y, h)[..., None] - qam_points(m)).argmin(-1)
        detector = make(name, streams, m, output="symbol", hard_out=True)
        different = np.mean(run(detector, y, h, no) != decided)
        assert different < 0.004, (num_rx, streams)
