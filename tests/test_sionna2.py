"""Detectors in links of Sionna 2.x, which is written in PyTorch, beside its own.

Both sides detect the same received slots, at an SNR where some blocks fail.
"""

from importlib.metadata import PackageNotFoundError, version

import keras
import numpy as np
import pytest

try:
    MAJOR = int(version("sionna-no-rt").partition(".")[0])
except PackageNotFoundError:
    MAJOR = 0
if keras.backend.backend() != "torch" or MAJOR < 2:
    pytest.skip("needs PyTorch and Sionna 2.x", allow_module_level=True)

import sionna.phy
import torch
from sionna.phy.channel import OFDMChannel, RayleighBlockFading
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import BinarySource, Mapper
from sionna.phy.mimo import EPDetector, LinearDetector, StreamManagement
from sionna.phy.nr import PUSCHConfig, PUSCHReceiver, PUSCHTransmitter
from sionna.phy.ofdm import LSChannelEstimator, OFDMDetector, ResourceGrid, ResourceGridMapper

import linksim

BITS = 4
# Our EP as Sionna's does it
SIONNA_EP = {"num_iterations": 10, "damping": 0.9, "demapping_method": "maxlog"}


def pairs(num_streams):
    """{name: (our detector, Sionna's)}, of the same algorithm."""
    system = {"num_streams": num_streams, "num_bits_per_symbol": BITS}
    qam = {"constellation_type": "qam", "num_bits_per_symbol": BITS}
    ep = EPDetector("bit", BITS, l=10, beta=0.9)
    # Sionna 2.2 starts from the sample variance of the levels, a sum over L - 1 of them. With
    # damping a trace of that is left after ten iterations; Sionna 1.2 has their mean square
    levels = 2 ** (BITS // 2)
    ep._es = ep._es * (levels - 1) / levels
    return {
        "mmse": (
            linksim.create_detector("mmse", **system),
            LinearDetector("lmmse", "bit", "app", **qam),
        ),
        "ep": (
            linksim.create_detector("ep", **system, **SIONNA_EP),
            ep,
        ),
    }


class OFDMLink:
    """Four users and eight antennas, Rayleigh block fading, LS estimates, 5G LDPC."""

    num_streams = 4

    def __init__(self, batch_size, no):
        self.grid = ResourceGrid(
            num_ofdm_symbols=14,
            fft_size=12,
            subcarrier_spacing=30e3,
            num_tx=4,
            num_streams_per_tx=1,
            cyclic_prefix_length=6,
            pilot_pattern="kronecker",
            pilot_ofdm_symbol_indices=[2, 11],
        )
        self.management = StreamManagement(np.ones([1, 4]), 1)
        coded = int(self.grid.num_data_symbols) * BITS
        encoder = LDPC5GEncoder(coded // 2, coded)
        self.decoder = LDPC5GDecoder(encoder, hard_out=True)
        self.bits = BinarySource()([batch_size, 4, 1, coded // 2])
        x = ResourceGridMapper(self.grid)(Mapper("qam", BITS)(encoder(self.bits)))
        channel = RayleighBlockFading(num_rx=1, num_rx_ant=8, num_tx=4, num_tx_ant=1)
        self.no = torch.tensor(no)
        self.y = OFDMChannel(channel, self.grid)(x, self.no)
        estimate = LSChannelEstimator(self.grid, interpolation_type="nn")
        self.h, self.err_var = estimate(self.y, self.no)

    def llrs(self, detector):
        receiver = OFDMDetector(detector, "bit", self.grid, self.management)
        return receiver(self.y, self.h, self.err_var, self.no)

    def failures(self, llrs):
        """Which blocks fail, of all users and slots."""
        decoded = self.decoder(llrs)
        return (decoded != self.bits).any(-1).flatten().numpy()


@pytest.fixture(scope="module")
def link():
    sionna.phy.config.seed = 1
    with torch.no_grad():
        return OFDMLink(16, no=0.55)


@pytest.mark.parametrize("name", ["mmse", "ep"])
def test_ofdm_as_sionna_does_it(link, name):
    ours, theirs = pairs(link.num_streams)[name]
    with torch.no_grad():
        a, b = link.llrs(ours), link.llrs(theirs)
        failures = link.failures(a), link.failures(b)
    close = np.mean(np.abs(a.numpy() - b.numpy()) <= 1e-2 * (1 + np.abs(b.numpy())))
    assert close > 0.999, close
    assert 0.02 < failures[1].mean() < 0.9, failures[1].mean()
    assert abs(failures[0].mean() - failures[1].mean()) <= 0.01


def test_trained_weights_serve_sionna_2(link):
    system = {"num_streams": 4, "num_bits_per_symbol": BITS}
    pepnet = linksim.create_detector("pepnet", **system, pretrained=True)
    with torch.no_grad():
        ours = link.failures(link.llrs(pepnet))
        lmmse = link.failures(link.llrs(pairs(4)["mmse"][1]))
    assert ours.mean() < lmmse.mean()


@pytest.mark.parametrize("name", ["mmse", "ep"])
def test_pusch_as_sionna_does_it(name):
    """Two users of two antennas and one layer each, with codebook precoding."""
    sionna.phy.config.seed = 2
    configs = []
    for ports in ([0], [1]):
        config = PUSCHConfig(num_antenna_ports=2, num_layers=1, precoding="codebook", tpmi=1)
        config.carrier.n_size_grid = 2
        config.dmrs.dmrs_port_set = ports
        config.dmrs.additional_position = 1
        config.tb.mcs_index = 14
        configs.append(config)
    transmitter = PUSCHTransmitter(configs)
    management = StreamManagement(np.ones([1, 2], bool), 1)
    channel = RayleighBlockFading(num_rx=1, num_rx_ant=4, num_tx=2, num_tx_ant=2)
    no = torch.tensor(0.25)
    with torch.no_grad():
        x, bits = transmitter(16)
        y = OFDMChannel(channel, transmitter.resource_grid, normalize_channel=True)(x, no)
        rates = []
        for detector in pairs(2)[name]:
            whole = OFDMDetector(detector, "bit", transmitter.resource_grid, management)
            decoded = PUSCHReceiver(transmitter, mimo_detector=whole)(y, no)
            rates.append((decoded != bits).any(-1).float().mean().item())
    assert 0.02 < rates[1] < 0.9, rates
    assert abs(rates[0] - rates[1]) <= 0.02, rates
