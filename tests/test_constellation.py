"""Labels and demapping against Sionna and against sums written out."""

import numpy as np
import pytest
from scipy.special import logsumexp
from sionna.phy.mapping import Constellation

from linksim import constellation as c
from linksim.errors import InvalidInput


@pytest.mark.parametrize("m", [1, 2, 4, 6, 8, 10])
def test_points_are_those_of_sionna_with_unit_power(m):
    points = c.qam_points(m)
    kind = "pam" if m == 1 else "qam"
    np.testing.assert_allclose(points, Constellation(kind, m)().numpy(), atol=1e-6)
    assert np.mean(np.abs(points) ** 2) == pytest.approx(1, abs=1e-5)
    assert len(set(np.round(points, 5))) == 2**m


@pytest.mark.parametrize("m", [0, 3, 5, 12, 2.0, True, "4"])
def test_bad_number_of_bits_is_refused(m):
    with pytest.raises(InvalidInput, match="num_bits_per_symbol"):
        c.pam_num_bits(m)


@pytest.mark.parametrize("m", [1, 2, 4, 6])
def test_llrs_of_pam_logits_equal_sums_over_symbols(rng, m):
    streams = 3
    dims = streams * (1 if m == 1 else 2)
    logits = rng.normal(size=(5, dims, len(c.pam_points(m)))).astype(np.float32) * 4
    symbol = np.asarray(c.pam_logits_to_symbol_logits(logits, m))
    labels = c.bit_labels(m).astype(bool)
    for method, reduce in (("app", logsumexp), ("maxlog", np.max)):
        expected = np.stack(
            [
                reduce(symbol[..., labels[:, i]], axis=-1)
                - reduce(symbol[..., ~labels[:, i]], axis=-1)
                for i in range(m)
            ],
            -1,
        )
        llrs = c.pam_logits_to_llrs(logits, m, method).numpy()
        np.testing.assert_allclose(llrs, expected, atol=1e-4)
        np.testing.assert_allclose(
            c.logits_to_llrs(symbol, method).numpy(), expected, atol=1e-4
        )
    np.testing.assert_array_equal(
        np.asarray(c.pam_logits_to_symbol_indices(logits, m)), symbol.argmax(-1)
    )


@pytest.mark.parametrize("n", [1, 2, 6])
def test_symbol_logits_of_llrs_invert(rng, n):
    llrs = rng.normal(size=(4, 3, n)).astype(np.float32) * 5
    logits = c.llrs_to_symbol_logits(llrs)
    np.testing.assert_allclose(c.logits_to_llrs(logits).numpy(), llrs, atol=1e-4)
    np.testing.assert_allclose(logsumexp(logits.numpy(), axis=-1), 0, atol=1e-5)


def test_pam_posterior_moments(rng):
    points = c.pam_points(4).astype(float)
    z, v = rng.normal(size=200) * 2, rng.uniform(0.01, 3, 200)
    weight = np.exp(-((z[:, None] - points) ** 2) / (2 * v[:, None]))
    weight /= weight.sum(-1, keepdims=True)
    mean = weight @ points
    variance = weight @ points**2 - mean**2
    _, got_mean, got_variance = c.pam_posterior(
        z.astype(np.float32), v.astype(np.float32), c.pam_points(4)
    )
    np.testing.assert_allclose(got_mean.numpy(), mean, atol=1e-5)
    np.testing.assert_allclose(got_variance.numpy(), variance, atol=1e-5)


def test_unknown_method_is_refused():
    with pytest.raises(InvalidInput, match="method.*'sum'.*app, maxlog"):
        c.logits_to_llrs(np.zeros((1, 4), np.float32), "sum")
