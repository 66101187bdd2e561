"""EQ-Net's Theorems 1 and 2: the LLRs from 3 K and K (K + 2) numbers."""

import keras
import numpy as np
import pytest

from linksim.detectors import MaximumLikelihoodDetector, ZFSICDetector
from linksim.detectors import representations as t
from linksim.errors import InvalidInput
from tests.conftest import draw_system

CASES = [
    (1, 1, 4, 0.1),
    (1, 3, 6, 0.1),
    (2, 2, 2, 0.5),
    (2, 2, 4, 0.02),
    (2, 4, 6, 0.05),
    (3, 3, 2, 0.2),
    (3, 5, 1, 0.5),
    (4, 4, 2, 0.1),
]


def numpy_of(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def check_equal(got, expected):
    got, expected = numpy_of(got), numpy_of(expected)
    assert got.shape == expected.shape and got.dtype == np.float32
    # float32 rounds exponents of up to a few hundred
    np.testing.assert_allclose(got, expected, rtol=2e-3, atol=5e-3)


@pytest.mark.parametrize("num_streams, num_rx, m, no", CASES)
def test_zf_sic_llrs_from_3k_numbers(rng, num_streams, num_rx, m, no):
    _, y, h, no = draw_system(rng, 40, num_rx, num_streams, m, no)
    z = t.zf_sic_representation(y, h, no, m)
    assert tuple(z.shape) == (40, 3 * num_streams) == (40, t.zf_sic_dimension(num_streams))
    check_equal(t.zf_sic_llrs(z, m), ZFSICDetector(num_streams, m)(y, h, no))


@pytest.mark.parametrize("num_streams, num_rx, m, no", [*CASES, (3, 2, 2, 0.2)])
def test_ml_llrs_from_k_times_k_plus_2_numbers(rng, num_streams, num_rx, m, no):
    _, y, h, no = draw_system(rng, 40, num_rx, num_streams, m, no)
    z = t.ml_representation(y, h, no)
    size = num_streams * (num_streams + 2)
    assert tuple(z.shape) == (40, size) == (40, t.ml_dimension(num_streams))
    expected = MaximumLikelihoodDetector(num_streams, m)(y, h, no)
    check_equal(t.ml_llrs(z, num_streams, m), expected)


def test_ml_representation_is_the_complex_qr_decomposition(rng):
    _, y, h, no = draw_system(rng, 6, 5, 3, 4, 0.3)
    q, r = np.linalg.qr(h.astype(np.complex128))
    phase = np.exp(1j * np.angle(np.einsum("bkk->bk", r)))
    r = r / phase[..., None]
    rotated = np.einsum("bmk,bm->bk", (q * phase[:, None]).conj(), y)
    above = r[(slice(None), *np.triu_indices(3, 1))]
    diagonal = np.einsum("bkk->bk", r).real
    parts = [rotated.real, rotated.imag, diagonal, above.real, above.imag]
    expected = np.concatenate(parts, -1) / np.sqrt(0.3)
    np.testing.assert_allclose(numpy_of(t.ml_representation(y, h, no)), expected, atol=1e-4)


def test_first_numbers_of_the_last_stream_need_no_decision(rng):
    _, y, h, no = draw_system(rng, 6, 4, 2, 4, 0.3)
    sic = numpy_of(t.zf_sic_representation(y, h, no, 4))
    ml = numpy_of(t.ml_representation(y, h, no))
    # The last stream shares Re, Im and r_KK, every stream shares r_kk
    np.testing.assert_allclose(sic[:, 3:], ml[:, [1, 3, 5]], atol=1e-5)
    np.testing.assert_allclose(sic[:, 2], ml[:, 4], atol=1e-5)
    assert np.abs(sic[:, 0] - ml[:, 0]).max() > 0.1


def test_leading_dimensions_scalar_noise_and_covariance(rng):
    _, y, h, _ = draw_system(rng, 6, 3, 2, 2, 0.2)
    flat_sic = numpy_of(t.zf_sic_representation(y, h, 0.2, 2))
    flat_ml = numpy_of(t.ml_representation(y, h, 0.2))
    y, h = y.reshape(3, 2, 3), h.reshape(3, 2, 3, 2)
    s = np.broadcast_to(0.2 * np.eye(3), (3, 2, 3, 3)).astype(np.complex64)
    for noise in (np.full((3, 2), 0.2, np.float32), s):
        sic = numpy_of(t.zf_sic_representation(y, h, noise, 2))
        ml = numpy_of(t.ml_representation(y, h, noise))
        assert sic.shape == (3, 2, 6) and ml.shape == (3, 2, 8)
        np.testing.assert_allclose(sic.reshape(6, 6), flat_sic, atol=1e-5)
        np.testing.assert_allclose(ml.reshape(6, 8), flat_ml, atol=1e-5)
        assert tuple(t.zf_sic_llrs(sic, 2).shape) == (3, 2, 2, 2)
        assert tuple(t.ml_llrs(ml, 2, 2).shape) == (3, 2, 2, 2)
    one = t.ml_representation(y[0, 0], h[0, 0], 0.2)
    np.testing.assert_allclose(numpy_of(one), flat_ml[0], atol=1e-5)


def zf_sic(y, h, no):
    return t.zf_sic_llrs(t.zf_sic_representation(y, h, no, 2), 2)


def ml(y, h, no):
    return t.ml_llrs(t.ml_representation(y, h, no), 2, 2)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="tf.function")
@pytest.mark.parametrize("function", [zf_sic, pytest.param(ml, marks=pytest.mark.slow)])
def test_graph_and_xla_with_unknown_batch(rng, function):
    import tensorflow as tf

    _, y, h, no = draw_system(rng, 9, 2, 2, 2, 0.2)
    spec = [
        tf.TensorSpec((None, 2), tf.complex64),
        tf.TensorSpec((None, 2, 2), tf.complex64),
        tf.TensorSpec((None,), tf.float32),
    ]
    for options in ({"input_signature": spec}, {"jit_compile": True}):
        check_equal(tf.function(function, **options)(y, h, no), function(y, h, no))


def test_wrong_input_is_refused(rng):
    _, y, h, no = draw_system(rng, 4, 2, 3, 2, 0.2)
    with pytest.raises(InvalidInput, match="at least as many antennas"):
        t.zf_sic_representation(y, h, no, 2)
    with pytest.raises(InvalidInput, match="N0 is"):
        t.ml_representation(y, h, 0 * no)
    with pytest.raises(InvalidInput, match="h: got shape"):
        t.ml_representation(y, y[0], no)
    with pytest.raises(InvalidInput, match="z: got shape"):
        t.zf_sic_llrs(np.zeros((4, 5), np.float32), 2)
    with pytest.raises(InvalidInput, match=r"expected \[\.\.\., 8\] for 2"):
        t.ml_llrs(np.zeros((4, 7), np.float32), 2, 2)
    with pytest.raises(InvalidInput, match="num_streams"):
        t.ml_dimension(0)
