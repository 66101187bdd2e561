"""Training data of `VectorSource`; these tests run on any backend."""

import keras
import numpy as np
import pytest

from linksim.channels.random import stream_keys
from linksim.constellation import qam_points
from linksim.errors import InvalidInput
from linksim.link.scenario import load_scenario
from linksim.registry import create_detector
from linksim.training.source import TRAINING, VALIDATION, VectorSource

QPSK = load_scenario("rayleigh-2x2-qam64").replace(system={"num_bits_per_symbol": 2})
QAM16 = load_scenario("rayleigh-2x2-qam64").replace(system={"num_bits_per_symbol": 4})


def to_numpy(batch):
    return {k: np.asarray(keras.ops.convert_to_numpy(v)) for k, v in batch.items()}


def test_a_batch_is_a_function_of_seed_and_index():
    source = VectorSource(QAM16, (0, 10), 64, teacher="mmse", seed=3)
    a = to_numpy(source.draw(source.keys(TRAINING, 5)))
    b = to_numpy(
        VectorSource(QAM16, (0, 10), 64, teacher="mmse", seed=3).draw(source.keys(TRAINING, 5))
    )
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])
    for other in (source.keys(TRAINING, 6), source.keys(VALIDATION, 5)):
        assert not np.array_equal(to_numpy(source.draw(other))["y"], a["y"])


def test_snr_is_uniform_in_db():
    source = VectorSource(QAM16, (3, 7), 4096, seed=1)
    snr = -10 * np.log10(to_numpy(source.draw(source.keys(TRAINING, 0)))["no"])
    assert snr.min() > 3 - 1e-4 and snr.max() < 7 + 1e-4
    assert abs(snr.mean() - 5) < 4 * (4 / 12**0.5) / 64


def test_noise_has_the_variance_handed_out():
    source = VectorSource(QPSK, (6, 6), 20000, seed=1)
    batch = to_numpy(source.draw(source.keys(TRAINING, 0)))
    x = qam_points(2)[batch["symbols"]]
    noise = batch["y"] - np.einsum("bmk,bk->bm", batch["h"], x)
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(10**-0.6, rel=0.03)


@pytest.mark.parametrize("scenario", [QPSK, QAM16])
def test_symmetric_copies_have_the_llrs_of_the_teacher(scenario):
    source = VectorSource(scenario, (5, 12), 240, teacher="ml", seed=2, copies=8)
    batch = to_numpy(source.draw(source.keys(TRAINING, 0)))
    m = scenario.system.num_bits_per_symbol
    detector = create_detector("ml", num_streams=2, num_bits_per_symbol=m)
    again = np.asarray(detector(batch["y"], batch["h"], batch["no"]))
    np.testing.assert_allclose(batch["llr"], again, rtol=1e-3, atol=1e-3)
    # The copies differ from the original, and what was sent follows
    assert len(np.unique(batch["h"].reshape(240, -1), axis=0)) > 120
    weights = 2 ** np.arange(m - 1, -1, -1)
    np.testing.assert_array_equal(batch["bits"] @ weights, batch["symbols"])
    signs = np.sign(2 * batch["bits"] - 1)
    assert np.mean(signs == np.sign(batch["llr"])) > 0.8


@pytest.mark.parametrize(
    "change",
    [
        {"snr_db": (5, 3)},
        {"snr_db": (5,)},
        {"batch_size": 0},
        {"batch_size": 10, "copies": 3},
        {"seed": -1},
        {"num_channels": 3},
        {"num_channels": -1},
        {"num_channels": 2, "copies": 2},
        {"num_channels": 2, "streams": (1, 2)},
        {"streams": (1, 3)},
        {"streams": (0, 2)},
        {"streams": 2.0},
        {"streams_step": 2},
        {"streams": (1, 2), "streams_step": 2},
        {"streams": (1, 2), "streams_step": 0},
        {"num_channels": 2, "rho": (0.1, 0.2)},
        {
            "scenario": QPSK.replace(csi={"type": "noisy", "error_snr_db": 20.0}),
            "num_channels": 2,
        },
        {"rho": (0.5, 0.7)},  # not a Kronecker channel
        {"scenario": load_scenario("massive-64x16-qam16-corr-rx"), "rho": (0.7, 0.5)},
    ],
)
def test_bad_sources_are_refused(change):
    with pytest.raises(InvalidInput):
        VectorSource(**{"scenario": QPSK, "snr_db": (0, 5), "batch_size": 8, **change})


def test_grids_are_refused():
    with pytest.raises(InvalidInput, match="grid"):
        VectorSource(load_scenario("cdl-c-8x4-qam16"), (0, 5), 8)


def test_keys_of_old_purposes_stay():
    """Appending a purpose must not change the draws of trained models."""
    keys = VectorSource(QPSK, (0, 5), 8, seed=3).keys(1, 7)
    np.testing.assert_array_equal(keys[:7], stream_keys(7, 3, 1, 7))


def test_number_of_users_is_drawn_per_batch():
    """P(K) is proportional to K, columns of absent users are zero, and the SNR follows K."""
    scenario = load_scenario("rayleigh-4x4-qam16")
    source = VectorSource(scenario, (6, 6), 2, seed=5, streams=(2, 4), snr_db_per_stream=0.5)
    counts = []
    for i in range(300):
        batch = to_numpy(source.draw(source.keys(1, i)))
        present = (batch["h"] != 0).any(1)
        count = int(present[0].sum())
        assert (present == (np.arange(4) < count)).all()
        # esno: N0 = 10^(-SNR/10)
        np.testing.assert_allclose(batch["no"], 10 ** (-(6 + 0.5 * count) / 10), rtol=1e-4)
        counts.append(count)
    shares = np.bincount(counts, minlength=5)[2:] / 300
    np.testing.assert_allclose(shares, np.array([2, 3, 4]) / 9, atol=0.09)


def test_some_numbers_of_users_are_left_out():
    scenario = load_scenario("rayleigh-4x4-qam16")
    source = VectorSource(scenario, (6, 6), 2, seed=5, streams=(2, 4), streams_step=2)
    batches = [to_numpy(source.draw(source.keys(1, i))) for i in range(300)]
    counts = np.array([batch["present"][0].sum() for batch in batches])
    assert set(counts) == {2, 4} and np.mean(counts == 4) == pytest.approx(2 / 3, abs=0.08)


def test_noise_follows_the_number_of_users_where_the_definition_does():
    scenario = load_scenario("massive-64x16-qam16")
    source = VectorSource(scenario, (10, 10), 2, seed=5, streams=(8, 16))
    for i in range(4):
        batch = to_numpy(source.draw(source.keys(1, i)))
        count = (batch["h"][0] != 0).any(0).sum()
        np.testing.assert_allclose(batch["no"], count / 64 / 10, rtol=1e-4)


def test_absent_users_stay_absent_with_noisy_csi():
    scenario = load_scenario("rayleigh-4x4-qam16").replace(
        csi={"type": "noisy", "error_snr_db": 10.0}
    )
    source = VectorSource(scenario, (6, 6), 4, seed=5, streams=(2, 4))
    for i in range(6):
        batch = to_numpy(source.draw(source.keys(1, i)))
        np.testing.assert_array_equal((batch["h"] != 0).any(1), batch["present"] > 0)


def test_noise_per_realisation_counts_the_users():
    """DetNet's N0 follows the energy of each channel, whatever the number of users."""
    scenario = load_scenario("rayleigh-4x4-qam16").replace(snr={"definition": "detnet"})
    source = VectorSource(scenario, (6, 6), 8, seed=5, streams=(2, 4))
    for i in range(6):
        batch = to_numpy(source.draw(source.keys(1, i)))
        count = batch["present"][0].sum()
        power = (np.abs(batch["h"]) ** 2).sum((1, 2))
        np.testing.assert_allclose(batch["no"], 2 / 10 * power / count * 10**-0.6, rtol=1e-4)


def test_correlation_is_drawn_per_batch():
    scenario = load_scenario("massive-64x16-qam16-corr-full")
    source = VectorSource(scenario, (10, 10), 16, seed=5, rho=(0.5, 0.9))
    found = []
    for i in range(100):
        h = to_numpy(source.draw(source.keys(1, i)))["h"]
        rx = np.mean(h[:, 1:] * h[:, :-1].conj()).real / np.mean(np.abs(h) ** 2)
        tx = np.mean(h[..., 1:] * h[..., :-1].conj()).real / np.mean(np.abs(h) ** 2)
        assert rx == pytest.approx(tx, abs=0.1)
        found.append(rx)
    # A triangular distribution with its mode at the upper end has its mean at two thirds
    assert 0.45 < min(found) and max(found) < 0.95
    assert np.mean(found) == pytest.approx(0.5 + 0.4 * 2 / 3, abs=0.03)


def test_fixed_channels():
    source = VectorSource(QPSK, (6, 6), 12, seed=5, num_channels=3)
    assert source.channels.shape[0] == 3
    batches = [to_numpy(source.draw(source.keys(1, i))) for i in range(2)]
    for batch in batches:
        np.testing.assert_array_equal(batch["h"], np.repeat(source.channels, 4, axis=0))
    assert np.abs(batches[0]["y"] - batches[1]["y"]).min() > 0
    again = VectorSource(QPSK, (6, 6), 12, seed=5, num_channels=3)
    np.testing.assert_array_equal(again.channels, source.channels)
