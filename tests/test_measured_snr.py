"""Every SNR definition, measured on draws of every scenario."""

import dataclasses
import math

import numpy as np
import pytest

from linksim.channels import create_channel
from linksim.link.draw import FlatFront
from linksim.link.link import Link
from linksim.link.scenario import list_scenarios, load_scenario
from linksim.snr import SNR_DEFINITIONS, no_to_snr_db

USES = 3000
NOISY = {"type": "noisy", "error_snr_db": 20.0}

# What shipped scenarios leave out: {name: (scenario, changes)}
VARIANTS = {
    "cdl-c": ("cdl-c-8x4-qam16", {"normalize": False}),
    "cdl-d, dual, turned, two users": (
        "cdl-c-8x4-qam16",
        {
            "normalize": False,
            "model": "D",
            "power": 0.3,
            "num_users": 2,
            "rx_polarization": "dual",
            "tx_polarization": "dual",
            "tx_pattern": "38.901",
            "rx_orientation_deg": [30, 20, 40],
            "tx_orientation_deg": [170, -10, 50],
        },
    ),
    "cdl-b, flat": ("cdl-a-2x2-qam64", {"normalize": False, "model": "B"}),
}


def drawn(link, no, per_realization=False, at_least=1):
    """Energies by block, {what: float64 [B]}, of x, Hx, H, noise and error of the CSI."""
    blocks = max(at_least, -(-USES // link.num_uses))
    if per_realization:
        link.front = FlatFront(link.channel, per_realization=True)
    batch = link.draw(link.keys(7, 0.0, 0), no, 0, blocks)
    h, h_hat = batch.h.numpy(), batch.h_hat.numpy()
    x = link.sender.points[batch.symbols.numpy()]
    hx = np.einsum("bumk,buk->bum", h, x)
    noise = batch.y.numpy() - hx
    scale = np.sum(np.abs(h) ** 2, axis=(-2, -1), keepdims=True)[..., 0]
    arrays = {
        "x": x,
        "hx": hx,
        "h": h,
        "noise": noise,
        "error": h_hat - h,
        "noise over h": noise / np.sqrt(scale),
    }
    return {
        k: np.mean(np.abs(v) ** 2, axis=tuple(range(1, v.ndim))) for k, v in arrays.items()
    }


def ratio_db(above, below):
    """A ratio of two means over blocks in dB, and its standard error."""
    spread = [np.std(e) / np.mean(e) / math.sqrt(len(e)) for e in (above, below)]
    error = 10 / math.log(10) * math.hypot(*spread)
    return 10 * math.log10(np.mean(above) / np.mean(below)), error


def measured(name, link, energies):
    """The SNR of a definition and its standard error, from energies."""
    scenario, streams, db = link.scenario, link.num_streams, lambda x: 10 * math.log10(x)
    if name == "rx":
        return ratio_db(energies["hx"], energies["noise"])
    if name == "frobenius":
        snr, error = ratio_db(energies["h"], energies["noise"])
        return snr + db(link.num_rx * streams), error
    snr, error = ratio_db(energies["x"], energies["noise"])
    if name in ("ebno", "ebno_grid"):
        # All resources of the grid are sent, with their prefixes, for the bits of the block
        sent, grid = link.num_uses, scenario.ofdm
        if grid is not None:
            sent = grid.num_symbols * grid.num_subcarriers * (1 + grid.cyclic_prefix_ratio)
        elif scenario.pusch is not None:
            # A slot lasts as long as 15 symbols without prefixes
            sent = 15 * 12 * scenario.pusch.num_prbs
        snr += db(sent * streams / link.num_info_bits)
        if name == "ebno_grid" and (grid is not None or scenario.pusch is not None):
            snr -= db(streams // scenario.channel.get("num_users", 1))
    return snr, error


def check(link, no, energies, apart_from=()):
    off = 10 * math.log10(link.channel.drawn_power / link.channel.power)
    for name, definition in SNR_DEFINITIONS.items():
        if definition.per_realization or name in apart_from:
            continue
        snr, error = measured(name, link, energies)
        expected = no_to_snr_db(name, no, link.budget)
        expected += off if name in ("rx", "frobenius") else 0.0
        assert error < 0.3, name
        assert abs(snr - expected) < 4.5 * error + 0.01, (name, snr, expected, error)
    if link.scenario.csi.type == "noisy":
        snr, error = ratio_db(energies["h"], energies["error"])
        expected = link.scenario.csi.error_snr_db + off
        assert error < 0.3 and abs(snr - expected) < 4.5 * error + 0.01, (snr, expected)


@pytest.mark.parametrize("name", list_scenarios())
def test_every_definition_is_what_draws_have(name):
    # SNRs are of noise alone; tests/test_interference.py measures what comes on top
    scenario = dataclasses.replace(load_scenario(name), interference=None)
    csi = {} if scenario.csi.type == "ls" else NOISY
    link = Link(scenario.replace(snr={"definition": "esno"}, csi=csi))
    # Codewords do not fill the last channel use
    padded = link.code.num_coded_bits % (link.num_streams * link.num_bits_per_symbol)
    check(link, 0.1, drawn(link, 0.1), ("ebno", "ebno_grid") if padded else ())
    if scenario.ofdm is None and scenario.pusch is None:
        energies = drawn(link, 0.1, per_realization=True)
        order = 2**link.num_bits_per_symbol
        energy = 1.0 if order == 2 else 2 * (order - 1) / 3  # of an integer symbol
        # The real noise has half of the variance of the complex one
        snr, error = ratio_db(np.ones(1), energies["noise over h"])
        snr += 10 * math.log10(2 / (energy * link.num_streams))
        expected = no_to_snr_db("detnet", 0.1, link.budget)
        assert error < 0.2 and abs(snr - expected) < 4.5 * error + 0.01


@pytest.mark.parametrize("variant", VARIANTS)
def test_channels_that_are_not_normalized(variant):
    name, channel = VARIANTS[variant]
    link = Link(load_scenario(name).replace(channel=channel, csi=NOISY))
    assert abs(link.channel.power - channel.get("power", 1.0)) > 0.05
    check(link, 0.1, drawn(link, 0.1, at_least=500))


def test_what_is_drawn_once_has_an_energy_of_its_own():
    """On the sequences 10 dB by "rx" are 11.3, because H_0 drew 1.4 dB more than 1/M."""
    channel = Link(load_scenario("gauss-markov-4x2-qpsk")).channel
    off = 10 * math.log10(channel.drawn_power / channel.power)
    assert channel.power == 0.25 and off == pytest.approx(1.30, abs=0.01)
    # A mean over the draws of H_0 has no such luck
    luck = [
        np.mean(np.abs(create_channel("gauss-markov", 4, 2, h0_seed=seed).h0) ** 2) / 0.25
        for seed in range(400)
    ]
    assert np.mean(luck) == pytest.approx(1.0, abs=4.5 * float(np.std(luck)) / 20)
    for options in ({"hop": 3}, {"innovation_power": 2.0, "rho": 0.7}, {"num_hops": 0}):
        channel = create_channel("gauss-markov", 4, 2, **options)
        h = np.asarray(channel.sample(np.array([1, 2], np.int32), 3000, 10))
        assert np.mean(np.abs(h) ** 2) == pytest.approx(channel.drawn_power, rel=0.02)
