"""SNR definitions against the formulas of the papers and Sionna's ebnodb2no."""

import numpy as np
import pytest
from sionna.phy.ofdm import ResourceGrid
from sionna.phy.utils import ebnodb2no

from linksim.errors import InvalidInput
from linksim.link.link import Link
from linksim.link.scenario import load_scenario
from linksim.snr import SNR_DEFINITIONS, LinkBudget, no_to_snr_db, snr_db_to_no


def test_formulas_of_the_papers():
    budget = LinkBudget(num_rx=64, num_streams=16, num_bits_per_symbol=4, channel_power=1 / 64)
    # [Pratik21]: N0 = (Nt/Nr) 10^(-SNR/10); [Arvinte20]: E|H|_F^2/N0, in its code 1/N0
    assert snr_db_to_no("rx", 9.0, budget) == pytest.approx(16 / 64 * 10**-0.9)
    assert snr_db_to_no("frobenius", 9.0, budget) == pytest.approx(16 * 10**-0.9)
    assert snr_db_to_no("esno", 9.0, budget) == pytest.approx(10**-0.9)


@pytest.mark.parametrize("m", [2, 4, 6])
def test_without_a_grid_both_ebno_are_that_of_sionna(m):
    budget = LinkBudget(4, 3, m, coderate=0.5)
    expected = ebnodb2no(5.0, m, 0.5)
    for name in ("ebno", "ebno_grid"):
        assert snr_db_to_no(name, 5.0, budget) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("users, streams", [(1, 4), (2, 4), (4, 4), (1, 1)])
@pytest.mark.parametrize("pilots", [[2, 11], []])
def test_ebno_grid_is_that_of_sionna_with_a_grid(users, streams, pilots):
    """A notebook's `ebnodb2no(ebno_db, m, coderate, resource_grid)` at the same axis."""
    scenario = load_scenario("cdl-c-8x4-qam16").replace(
        system={"num_streams": streams},
        channel={"num_users": users},
        ofdm={"cyclic_prefix_ratio": 0.25, "pilot_symbols": pilots},
        code={"num_info_bits": 0, "rate": 0.4},
    )
    link = Link(scenario)
    grid = ResourceGrid(
        num_ofdm_symbols=14,
        fft_size=12,
        subcarrier_spacing=30e3,
        num_tx=users,
        num_streams_per_tx=streams // users,
        cyclic_prefix_length=3,
        pilot_pattern="kronecker" if pilots else "empty",
        pilot_ofdm_symbol_indices=pilots or None,
    )
    expected = float(ebnodb2no(5.0, 4, link.code.coderate, grid))
    assert snr_db_to_no("ebno_grid", 5.0, link.budget) == pytest.approx(expected, rel=1e-5)
    # The other convention has every stream's power
    other = snr_db_to_no("ebno", 5.0, link.budget)
    assert other == pytest.approx(expected * (streams // users), rel=1e-5)


def test_detnet_noise_is_that_of_its_real_system(rng):
    """With integer symbols the real noise has the variance tr(H'H)/K/SNR."""
    for m, energy, real in ((1, 1, True), (2, 2, False), (4, 10, False), (6, 42, False)):
        h = rng.normal(size=(60, 30)) + (0 if real else 1j * rng.normal(size=(60, 30)))
        stacked = h if real else np.block([[h.real, -h.imag], [h.imag, h.real]])
        sigma2 = np.trace(stacked.T @ stacked) / stacked.shape[1] / 10**1.2
        power = np.mean(np.abs(h) ** 2)  # this realisation's
        no = snr_db_to_no("detnet", 12.0, LinkBudget(60, 30, m, channel_power=power))
        assert no / 2 * energy == pytest.approx(sigma2, rel=1e-9)


@pytest.mark.parametrize("name", SNR_DEFINITIONS)
def test_inverse_and_refusals(name):
    budget = LinkBudget(8, 4, 4, 0.5, 0.7, 0.8)
    for snr in (-20.0, 0.0, 33.3):
        assert no_to_snr_db(name, snr_db_to_no(name, snr, budget), budget) == pytest.approx(
            snr
        )
    for bad in (float("nan"), float("inf"), 1e9, "3"):
        with pytest.raises(InvalidInput, match="snr_db"):
            snr_db_to_no(name, bad, budget)
    with pytest.raises(InvalidInput, match="no: got 0"):
        no_to_snr_db(name, 0, budget)


def test_unknown_definition_is_refused():
    with pytest.raises(InvalidInput, match="'snr'.*ebno.*esno"):
        snr_db_to_no("snr", 0.0, LinkBudget(1, 1, 2))


def test_per_realization_noise_follows_each_channel():
    link = Link(load_scenario("wesnet-8x8-qam4"))
    batch = link.draw(link.keys(0, 10.0, 0), link.no(10.0), 0, 50)
    h = batch.h.numpy()[:, 0]
    expected = np.sum(np.abs(h) ** 2, axis=(1, 2)) / 8 / 10
    np.testing.assert_allclose(batch.no.numpy()[:, 0], expected, rtol=1e-4)
