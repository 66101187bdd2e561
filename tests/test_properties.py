"""Properties of every detector and quantizer, on systems that hypothesis invents.

Whatever the shape, the modulation and the scale of y, H and N0, and however singular H
is, the output is finite; what cannot be detected is refused with `InvalidInput`.

Sionna's detectors (`sionna-...`) promise neither. `sdr-cvxpy` is left out: a vector
takes a general solver up to seconds, and `sdr` solves the same problem.
"""

import functools
import itertools

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from linksim.constellation import qam_points
from linksim.errors import InvalidInput
from linksim.quantization.registry import create_quantizer, list_quantizers
from linksim.registry import create_detector, list_detectors

DETECTORS = [
    n for n in list_detectors() if not n.startswith("sionna-") and n != "sdr-cvxpy"
]
# No more than what keeps a layer of every kind small
OPTIONS = {
    "kbest": {"k": 6},
    "sphere": {"max_visits": 40},
    "amp": {"num_iterations": 6},
    "ep": {"num_iterations": 4},
    "oamp": {"num_iterations": 4},
    "sdr": {"num_sweeps": 4},
    "oampnet": {"num_iterations": 3},
    "oampnet2": {"num_iterations": 3},
    "wes-oampnet": {"num_iterations": 2, "hidden_size": 8},
    "rwes-oampnet": {"num_iterations": 2, "hidden_size": 8},
    "mmnet": {"num_layers": 3},
    "mmnet-iid": {"num_layers": 3},
    "remimo": {"num_blocks": 2, "state_size": 8, "num_heads": 2},
    "hypermimo": {"num_layers": 2, "hidden_size": 8},
    "hypermimo-lr": {"network_options": {"num_layers": 2}},
    "nndet-l": {"hidden_sizes": (12, 8), "num_blocks": 2},
    "nndet-p": {"hidden_sizes": (12, 8), "num_blocks": 2, "structure": "residual"},
    **dict.fromkeys(
        ("detnet", "wesnet-hf", "wesnet-l", "l-wesnet", "r-wesnet"),
        {"num_layers": 3, "hidden_size": 12, "auxiliary_size": 6},
    ),
    "detnet-fc": {"network_options": {"num_layers": 2, "hidden_size": 12}},
    **dict.fromkeys(
        ("eqnet-l", "eqnet-p", "eqnet-l-qr", "eqnet-l-sic", "eqnet-p-sic"),
        {"width": 12, "decoder_width": 6},
    ),
}
CHANNELS = ("random", "zero", "rank one", "a zero column", "equal columns", "weak column")
RECEIVED = ("noisy", "noise free", "foreign", "zero")
# Decimal exponents: 240 dB to both sides of what is usual
EXPONENTS = st.one_of(st.just(0), st.integers(-12, 12), st.sampled_from([-12, 12]))

quick = settings(
    max_examples=6, derandomize=True, deadline=None, database=None,
    suppress_health_check=list(HealthCheck),
)
thorough = settings(quick, max_examples=250)


@functools.lru_cache(maxsize=None)
def detector(name, streams, m, output, hard_out, demapping, num_rx):
    """One layer for each number of antennas: some have weights for it."""
    keras.utils.set_random_seed(1)
    return create_detector(
        name, num_streams=streams, num_bits_per_symbol=m, output=output,
        hard_out=hard_out, demapping_method=demapping, **OPTIONS.get(name, {}),
    )


@st.composite
def vectors(draw):
    """What one vector of a batch is like."""
    return {
        "channel": draw(st.sampled_from(CHANNELS)),
        "received": draw(st.sampled_from(RECEIVED)),
        "gain": draw(EXPONENTS),
        "size": draw(EXPONENTS),  # of a foreign y
        "no": draw(EXPONENTS),
        "weak": draw(st.integers(-12, 0)),
    }


def complex_normal(rng, *shape):
    return (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)


def system(rng, kind, num_rx, streams, m):
    """y [M], H [M, K] and N0 of one vector."""
    h = complex_normal(rng, num_rx, streams)
    if kind["channel"] == "zero":
        h = 0 * h
    elif kind["channel"] == "rank one":
        h = h[:, :1] * complex_normal(rng, streams)
    elif kind["channel"] == "a zero column":
        h[:, -1] = 0
    elif kind["channel"] == "equal columns":
        h[:] = h[:, :1]
    elif kind["channel"] == "weak column":
        h[:, 0] *= 10.0 ** kind["weak"]
    h = h * 10.0 ** kind["gain"]
    no = 10.0 ** kind["no"]
    x = qam_points(m)[rng.integers(0, 2**m, streams)]
    y = {
        "noisy": h @ x + np.sqrt(no) * complex_normal(rng, num_rx),
        "noise free": h @ x,
        "foreign": complex_normal(rng, num_rx) * 10.0 ** kind["size"],
        "zero": np.zeros(num_rx),
    }[kind["received"]]
    return y, h, no


@st.composite
def calls(draw, max_streams=2, max_rx=3, orders=(1, 2, 4)):
    """The shape of a call, its options, and tensors."""
    streams, num_rx = draw(st.integers(1, max_streams)), draw(st.integers(1, max_rx))
    m = draw(st.sampled_from(orders))
    lead = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    count = int(np.prod(lead))
    kinds = draw(st.lists(vectors(), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    parts = [system(rng, kinds[i % len(kinds)], num_rx, streams, m) for i in range(count)]
    y, h, no = (np.array(part) for part in zip(*parts))
    noise = draw(st.sampled_from(["per vector", "one", "white", "coloured"]))
    s = no.astype(np.float32).reshape(lead)
    if noise == "one":
        s = np.float32(no[0])
    if noise in ("white", "coloured"):
        root = np.eye(num_rx, dtype=complex) * np.ones((count, 1, 1))
        if noise == "coloured":
            root = root + complex_normal(rng, count, num_rx, num_rx)
        s = root @ np.conj(np.swapaxes(root, -1, -2)) * no[:, None, None]
        s = s.astype(np.complex64).reshape(lead + (num_rx, num_rx))
    return {
        "streams": streams, "m": m, "num_rx": num_rx, "lead": lead, "kinds": kinds,
        "output": draw(st.sampled_from(["bit", "symbol"])),
        "hard_out": draw(st.booleans()),
        "demapping": draw(st.sampled_from([None, "app", "maxlog"])),
        "args": (
            y.astype(np.complex64).reshape(lead + (num_rx,)),
            h.astype(np.complex64).reshape(lead + (num_rx, streams)),
            s,
        ),
    }


def check_detector(name, call):
    """Finite output of the promised shape, or `InvalidInput`."""
    streams, m, output, hard = (call[k] for k in ("streams", "m", "output", "hard_out"))
    try:
        layer = detector(name, streams, m, output, hard, call["demapping"], call["num_rx"])
        out = np.asarray(layer(*call["args"]))
    except InvalidInput as error:
        refusable = ("demapping_method", "receive antennas for", "EQ-Net needs QAM")
        assert any(text in str(error) for text in refusable), error
        return
    last = (streams,) if output == "symbol" and hard else (
        streams, m if output == "bit" else 2**m
    )
    assert out.shape == call["lead"] + last
    assert np.isfinite(out).all()
    if hard:
        assert out.min() >= 0 and out.max() < (2 if output == "bit" else 2**m)


@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_are_finite(name):
    given(calls())(quick(lambda call: check_detector(name, call)))()


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_are_finite_thoroughly(name):
    orders = (1, 2, 4, 6) if name in ("ml", "sphere") else (1, 2, 4, 6, 8)
    given(calls(3, 5, orders))(thorough(lambda call: check_detector(name, call)))()
