"""Properties of every detector and quantizer, on systems that hypothesis invents.

The output is finite whatever the shape, the modulation and the scale of y, H and N0, and
however singular H is. Other input is refused with `InvalidInput`.

Sionna's detectors (`sionna-...`) promise neither. `sdr-cvxpy` is left out because a general
solver takes up to seconds for a vector; `sdr` solves the same problem.
"""

import functools

import keras
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import ops

from linksim.constellation import pam_points, pam_posterior, qam_points
from linksim.detectors.real import complex_to_real_channel, into_range, small_interleaved_qr
from linksim.errors import InvalidInput
from linksim.quantization.registry import create_quantizer, list_quantizers
from linksim.registry import create_detector, list_detectors
from tests.conftest import slow_but

DETECTORS = [n for n in list_detectors() if not n.startswith("sionna-") and n != "sdr-cvxpy"]
# These run the same code as another name, with other weights, profiles or depths
ALIKE = ("eqnet-p", "eqnet-p-sic", "wesnet-l", "r-wesnet", "rwes-oampnet")
# Options that keep a layer of every kind small
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
    **dict.fromkeys(
        ("remimo", "remimo-mf", "remimo-lmmse", "remimo-pic"),
        {"num_blocks": 2, "state_size": 8, "num_heads": 2},
    ),
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
        ("eqnet-l", "eqnet-p", "eqnet-l-qr", "eqnet-l-sic", "eqnet-p-sic", "eqnet-l-prior"),
        {"width": 12, "decoder_width": 6},
    ),
}
CHANNELS = ("random", "zero", "rank one", "a zero column", "equal columns", "weak column")
RECEIVED = ("noisy", "noise free", "foreign", "zero")
# Decimal exponents, which reach 240 dB to both sides of usual values
EXPONENTS = st.one_of(st.just(0), st.integers(-12, 12), st.sampled_from([-12, 12]))

quick = settings(
    max_examples=3,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
thorough = settings(quick, max_examples=250)


@functools.cache
def detector(name, streams, m, output, hard_out, demapping, num_rx):
    """One layer for each number of antennas, for which some have weights."""
    keras.utils.set_random_seed(1)
    return create_detector(
        name,
        num_streams=streams,
        num_bits_per_symbol=m,
        output=output,
        hard_out=hard_out,
        demapping_method=demapping,
        **OPTIONS.get(name, {}),
    )


@st.composite
def vectors(draw):
    """The properties of one vector of a batch."""
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
    """A call: its shape, its options and its tensors."""
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
        "streams": streams,
        "m": m,
        "num_rx": num_rx,
        "lead": lead,
        "kinds": kinds,
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
    """Check that the output is finite and has its shape, or the input is refused."""
    streams, m, output, hard = (call[k] for k in ("streams", "m", "output", "hard_out"))
    try:
        layer = detector(name, streams, m, output, hard, call["demapping"], call["num_rx"])
        out = np.asarray(layer(*call["args"]))
    except InvalidInput as error:
        refusable = ("demapping_method", "receive antennas for", "EQ-Net needs QAM")
        assert any(text in str(error) for text in refusable), error
        return
    last = (
        (streams,)
        if output == "symbol" and hard
        else (streams, m if output == "bit" else 2**m)
    )
    assert out.shape == call["lead"] + last
    assert np.isfinite(out).all()
    if hard:
        assert out.min() >= 0 and out.max() < (2 if output == "bit" else 2**m)


@pytest.mark.parametrize("name", slow_but(set(DETECTORS) - set(ALIKE), DETECTORS))
def test_detectors_are_finite(name):
    given(calls())(quick(lambda call: check_detector(name, call)))()


@quick
@given(
    name=st.sampled_from(["zf", "ml", "kbest", "oamp", "remimo"]),
    call=calls(),
    which=st.sampled_from("yhs"),
    value=st.sampled_from([np.nan, np.inf, -np.inf]),
    where=st.integers(0, 2**16),
)
def test_one_nan_is_refused_by_name(name, call, which, value, where):
    args = [np.array(x) for x in call["args"]]
    spoiled = args["yhs".index(which)]
    spoiled.reshape(-1)[where % spoiled.size] = value
    layer = detector(name, call["streams"], call["m"], "bit", False, None, call["num_rx"])
    refused = f"{which} contains NaN or inf|receive antennas for"
    with pytest.raises(InvalidInput, match=refused):
        layer(*args)


def test_singular_covariances_are_refused():
    y, h = np.ones((1, 3), np.complex64), np.eye(3, 2, dtype=np.complex64)[None]
    layer = create_detector("mmse", num_streams=2, num_bits_per_symbol=4)
    for s, message in (
        (np.ones((3, 3)), "s is not positive definite"),
        (np.diag([1, 1, -0.5]), "s is not positive definite"),
        (np.zeros((3, 3)), "expected > 0"),
    ):
        with pytest.raises(InvalidInput, match=message):
            layer(y, h, s[None].astype(np.complex64))


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_detectors_are_finite_thoroughly(name):
    orders = (1, 2, 4, 6) if name in ("ml", "sphere") else (1, 2, 4, 6, 8)
    given(calls(3, 5, orders))(thorough(lambda call: check_detector(name, call)))()


@pytest.mark.slow
@pytest.mark.parametrize("name", DETECTORS)
def test_compiled_detectors_are_finite(name):
    """In a graph and, where that is the default, with XLA; one trace for many batches."""
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("traces TensorFlow graphs")
    layer = detector(name, 2, 4, "bit", False, None, 3)
    graph = tf.function(
        lambda *args: layer(*args),
        autograph=False,
        jit_compile=layer.xla_on_cpu,
    )

    def check(kinds, seed):
        rng = np.random.default_rng(seed)
        y, h, no = (np.array(x) for x in zip(*(system(rng, k, 3, 2, 4) for k in kinds)))
        args = y.astype(np.complex64), h.astype(np.complex64), no.astype(np.float32)
        assert np.isfinite(graph(*map(tf.constant, args)).numpy()).all()

    batches = st.lists(vectors(), min_size=8, max_size=8)
    given(batches, st.integers(0, 2**32 - 1))(thorough(check))()


# --- defects of the past, one plain case each -----------------------------------------


def systems(rng, count=40):
    h = complex_normal(rng, count, 4, 3)
    y = complex_normal(rng, count, 4) * 2
    return y.astype(np.complex64), h.astype(np.complex64), np.full(count, 0.1, np.float32)


def test_ordinary_vectors_are_left_untouched(rng):
    """They keep every bit, also beside extreme vectors, which are rescaled exactly."""
    y, h, no = systems(rng, 3)
    y, h = (ops.convert_to_numpy(x) for x in complex_to_real_channel(y, h))
    got = into_range(y, h, no, 3)
    for a, b in zip(got, (y, h, no)):
        np.testing.assert_array_equal(ops.convert_to_numpy(a), b)
    scale = np.float32(2.0**40)
    mixed = into_range(
        np.concatenate([y, y * scale]),
        np.concatenate([h, h * scale]),
        np.concatenate([no, no * scale**2]),
        3,
    )
    mixed = [ops.convert_to_numpy(x) for x in mixed]
    for a, b in zip(mixed, (y, h, no)):
        np.testing.assert_array_equal(a[:3], b)
    # The others are the same systems at the scale of H
    ratio = mixed[1][3:, :1, :1] / h[:, :1, :1]
    np.testing.assert_allclose(mixed[1][3:], h * ratio, rtol=1e-6)
    np.testing.assert_allclose(mixed[0][3:], y * ratio[..., 0], rtol=1e-6)
    np.testing.assert_allclose(mixed[2][3:], no * ratio[:, 0, 0] ** 2, rtol=1e-6)
    assert 0.5 < np.abs(mixed[1][3:]).max() < 2.1


@pytest.mark.parametrize(
    "name", ["mf", "mmse", "zf-sic", "vblast-mmse", "ml", "kbest", "ep", "amp"]
)
@pytest.mark.parametrize("scale", [2.0**-40, 2.0**40])
def test_scale_is_no_information(rng, name, scale):
    """Gains over- and underflowed with 240 dB more or less of everything."""
    y, h, no = systems(rng)
    layer = create_detector(name, num_streams=3, num_bits_per_symbol=2)
    expected = np.asarray(layer(y, h, no))
    args = y * np.complex64(scale), h * np.complex64(scale), no * np.float32(scale**2)
    np.testing.assert_allclose(np.asarray(layer(*args)), expected, rtol=1e-3, atol=1e-3)


def test_saturated_observations_keep_their_sign():
    """Beyond 1e8 float32 rounded the levels away, and LLRs became 0; beyond 1e19, NaN."""
    points = pam_points(4)
    z = np.array([3.0, 1e6, 1e10, 1e25, -1e10, -1e25], np.float32)
    logits, mean, variance = (
        np.asarray(x) for x in pam_posterior(z, np.full(6, 0.1, np.float32), points)
    )
    assert np.isfinite(logits).all()
    outer = points[[points.argmax()] * 4 + [points.argmin()] * 2]
    np.testing.assert_array_equal(points[logits.argmax(-1)], outer)
    np.testing.assert_allclose(mean, outer, rtol=1e-5)
    np.testing.assert_allclose(variance, 0, atol=1e-5)
    # Within 30 standard deviations nothing is limited
    variance = np.float32([1e-3, 1.0, 1e3, 1e6, 1e9])
    z = 30 * np.sqrt(variance)
    exact = -((z[:, None] - points.astype(float)) ** 2) / (2 * variance[:, None])
    got = np.asarray(pam_posterior(z, variance, points)[0])
    np.testing.assert_allclose(got, exact, rtol=1e-5)


def test_vblast_forgets_streams_that_are_decided():
    """Their logits were infinite, and 0 times that is NaN."""
    y = np.array([[1.0, 1.0]], np.complex64)
    h = np.array([[[1.0, 1e-12], [1.0, -1e-12]]], np.complex64)
    for name in ("vblast-zf", "vblast-mmse"):
        for no in (1e-12, 1e-20):
            layer = create_detector(name, num_streams=2, num_bits_per_symbol=4)
            assert np.isfinite(np.asarray(layer(y, h, np.array([no], np.float32)))).all()


def test_vblast_in_singular_channels():
    """Rounding made error variances negative, and each removal made them larger."""
    rng = np.random.default_rng(5)
    h = np.repeat(complex_normal(rng, 30, 5, 1), 3, axis=-1).astype(np.complex64)
    y = complex_normal(rng, 30, 5).astype(np.complex64)
    for scale, noise in ((1.0, 1e-24), (1.0, 1.0), (1e-11, 1.0)):
        layer = create_detector("vblast-zf", num_streams=3, num_bits_per_symbol=4)
        args = y, h * np.complex64(scale), np.full(30, noise, np.float32)
        assert np.isfinite(np.asarray(layer(*args))).all()


def test_ml_between_two_levels_at_high_snr():
    """Rounding took another level for the nearest, and an exponential overflowed."""
    y = np.array([0.04105078 + 0.5228942j], np.complex64)
    h = np.array([[0.08890469 + 0.4528472j, -0.09341224 + 0.07417558j]], np.complex64)
    layer = create_detector("ml", num_streams=2, num_bits_per_symbol=4)
    llrs = np.asarray(layer(y, h, np.float32(1e-10)))
    maxlog = create_detector(
        "ml", num_streams=2, num_bits_per_symbol=4, demapping_method="maxlog"
    )
    assert np.isfinite(llrs).all()
    np.testing.assert_array_equal(llrs > 0, np.asarray(maxlog(y, h, np.float32(1e-10))) > 0)


@pytest.mark.parametrize("m", [2, 4])
def test_ml_at_extreme_snr(m):
    """Rounding left nothing of the nearest level, whose logarithm was minus infinity."""
    rng = np.random.default_rng(6)
    y, h = (complex_normal(rng, 200, 4, *k).astype(np.complex64) for k in ((), (2,)))
    no = np.float32(10.0) ** np.linspace(-12, -6, 200, dtype=np.float32)
    app, maxlog = (
        create_detector("ml", num_streams=2, num_bits_per_symbol=m, demapping_method=method)
        for method in ("app", "maxlog")
    )
    # Sums over levels differ from their largest terms by less than log(4) for each dimension
    np.testing.assert_allclose(app(y, h, no), maxlog(y, h, no), rtol=1e-4, atol=10)


def test_gram_schmidt_of_a_weak_singular_channel(rng):
    """The rest of a dependent column underflowed when squared, so it had no unit vector."""
    column = complex_normal(rng, 20, 3, 1) * 1e-12
    h = (column * complex_normal(rng, 20, 1, 2)).astype(np.complex64)
    y = complex_normal(rng, 20, 3).astype(np.complex64)
    z, r = small_interleaved_qr(*complex_to_real_channel(y, h), 2, False)
    assert np.abs(np.asarray(r)).max() < 1e-10
    assert np.abs(np.asarray(z)).max() < 10


# --- quantizers -----------------------------------------------------------------------


@st.composite
def llr_batches(draw):
    """A quantizer, LLRs to fit it to, and LLRs to quantize."""
    streams, m = draw(st.integers(1, 2)), draw(st.sampled_from([2, 4]))
    bits = draw(st.integers(1, 5))
    size = draw(st.sampled_from([40, 200]))
    lead = tuple(draw(st.lists(st.integers(1, 3), max_size=3)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))

    def llrs(*shape):
        scale = 10.0 ** draw(st.integers(-37, 37))
        kind = draw(st.sampled_from(["normal", "constant", "two values", "heavy tails"]))
        x = {
            "normal": rng.normal(size=shape),
            "constant": np.ones(shape),
            "two values": np.sign(rng.normal(size=shape)),
            "heavy tails": np.clip(rng.standard_cauchy(shape), -10, 10),
        }[kind]
        return (x * scale).astype(np.float32)

    return streams, m, bits, llrs(size, streams, m), llrs(*lead, streams, m)


def check_quantizer(name, batch):
    streams, m, bits, training, llrs = batch
    keras.utils.set_random_seed(1)
    quantizer = create_quantizer(name, num_streams=streams, num_bits_per_symbol=m, bits=bits)
    quantizer.fit(training)
    out = np.asarray(quantizer(llrs))
    assert out.shape == llrs.shape and np.isfinite(out).all()
    np.testing.assert_array_equal(quantizer.restore(quantizer.store(llrs)), out)
    cells = np.asarray(quantizer.quantize_llrs(llrs))
    assert cells.min() >= 0 and cells.max() < 2**bits


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", list_quantizers())
def test_quantizers_are_finite(name):
    given(llr_batches())(quick(lambda batch: check_quantizer(name, batch)))()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", list_quantizers())
def test_quantizers_are_finite_thoroughly(name):
    given(llr_batches())(thorough(lambda batch: check_quantizer(name, batch)))()
