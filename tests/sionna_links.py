"""Script versions of two links of Sionna's tutorials, with the detector left open.

`MIMOOFDMLink` follows "OFDM MIMO Channel Estimation and Detection": four
single-antenna users, sixteen antennas, Rayleigh block fading. `CDLLink` follows
"MIMO OFDM Transmissions over the CDL Channel Model": one user with four antennas.
"""

import numpy as np
import tensorflow as tf
from sionna.phy import Block
from sionna.phy.channel import OFDMChannel, RayleighBlockFading
from sionna.phy.channel.tr38901 import CDL, AntennaArray
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import BinarySource, Mapper
from sionna.phy.mimo import StreamManagement
from sionna.phy.ofdm import (
    LSChannelEstimator,
    OFDMDetector,
    RemoveNulledSubcarriers,
    ResourceGrid,
    ResourceGridMapper,
)
from sionna.phy.utils import ebnodb2no

BITS_PER_SYMBOL = 4
CODERATE = 0.5


class TutorialLink(Block):
    """Coded OFDM uplink; `detector` is called `(y, h, s)`."""

    def __init__(self, channel, num_tx, streams_per_tx, detector, perfect_csi):
        super().__init__()
        self._rg = ResourceGrid(
            num_ofdm_symbols=14,
            fft_size=36,
            subcarrier_spacing=30e3,
            num_tx=num_tx,
            num_streams_per_tx=streams_per_tx,
            cyclic_prefix_length=6,
            pilot_pattern="kronecker",
            pilot_ofdm_symbol_indices=[2, 11],
        )
        management = StreamManagement(np.ones([1, num_tx]), streams_per_tx)
        self._num_coded = int(self._rg.num_data_symbols * BITS_PER_SYMBOL)
        self._num_info = int(self._num_coded * CODERATE)
        self._shape = [num_tx, streams_per_tx, self._num_info]
        self._source = BinarySource()
        self._encoder = LDPC5GEncoder(self._num_info, self._num_coded)
        self._mapper = Mapper("qam", BITS_PER_SYMBOL)
        self._rg_mapper = ResourceGridMapper(self._rg)
        self._channel = OFDMChannel(
            channel, self._rg, normalize_channel=True, return_channel=True
        )
        self._estimator = LSChannelEstimator(self._rg, interpolation_type="nn")
        self._remove_nulled = RemoveNulledSubcarriers(self._rg)
        self._detector = OFDMDetector(detector, "bit", self._rg, management)
        self._decoder = LDPC5GDecoder(self._encoder, hard_out=True)
        self._perfect_csi = perfect_csi

    def call(self, batch_size, ebno_db):
        no = ebnodb2no(ebno_db, BITS_PER_SYMBOL, CODERATE, self._rg)
        bits = self._source([batch_size, *self._shape])
        x = self._rg_mapper(self._mapper(self._encoder(bits)))
        y, h = self._channel(x, no)
        if self._perfect_csi:
            h_hat, err_var = self._remove_nulled(h), 0.0
        else:
            h_hat, err_var = self._estimator(y, no)
        llr = self._detector(y, h_hat, err_var, no)
        llr = tf.reshape(llr, [batch_size, *self._shape[:2], self._num_coded])
        return bits, self._decoder(llr)


def mimo_ofdm_link(detector, perfect_csi):
    channel = RayleighBlockFading(num_rx=1, num_rx_ant=16, num_tx=4, num_tx_ant=1)
    return TutorialLink(channel, 4, 1, detector, perfect_csi)


def cdl_link(detector, perfect_csi):
    carrier = 2.6e9
    arrays = [
        AntennaArray(
            num_rows=1,
            num_cols=columns,
            polarization="dual",
            polarization_type="cross",
            antenna_pattern="38.901",
            carrier_frequency=carrier,
        )
        for columns in (2, 4)
    ]
    channel = CDL("B", 300e-9, carrier, *arrays, direction="uplink", min_speed=10)
    return TutorialLink(channel, 1, 4, detector, perfect_csi)
