"""The link of Sionna's tutorial "Introduction to Iterative Detection and Decoding", rebuilt.

Four users of one antenna send 16-QAM to sixteen antennas. Each has a codeword of 2304 bits on
an OFDM grid of 48 subcarriers, whose channel is i.i.d. Rayleigh, the same on the whole grid,
and known. The detector is left open, and so are the passes of detector and decoder.
"""

import numpy as np
import tensorflow as tf
from sionna.phy import config
from sionna.phy.channel import OFDMChannel, RayleighBlockFading
from sionna.phy.fec.ldpc import LDPC5GDecoder, LDPC5GEncoder
from sionna.phy.mapping import BinarySource, Mapper
from sionna.phy.mimo import StreamManagement
from sionna.phy.ofdm import (
    OFDMDetector,
    OFDMDetectorWithPrior,
    ResourceGrid,
    ResourceGridMapper,
)
from sionna.phy.utils import ebnodb2no

from linksim.registry import create_detector

USERS, ANTENNAS, BITS, CODERATE = 4, 16, 4, 0.5
ITERATIONS = 12
# {receiver of the tutorial: (detector of ours, passes)}
OURS = {
    "lmmse": ("mmse", 1),
    "mmse-pic/2": ("mmse", 2),
    "ep": ("ep", 1),
    "kbest": ("kbest", 1),
}
# What the tutorial's detectors are set to
OPTIONS = {
    "mmse": {"demapping_method": "maxlog"},
    "ep": {"num_iterations": 10, "damping": 0.9, "demapping_method": "maxlog"},
    "kbest": {"k": 64},
}


class IDDLink:
    """Draws grids, and decodes them with receivers of one pass or several.

    Args:
        detectors: {name: detector}, called `(y, h, s)`, and `(y, h, s, prior)` after the
            first pass; its LLRs are a-posteriori.
        passes: {name: numbers of passes after which errors are counted}, ascending.
    """

    def __init__(self, detectors, passes):
        grid = ResourceGrid(
            num_ofdm_symbols=14,
            fft_size=48,
            subcarrier_spacing=30e3,
            num_tx=USERS,
            pilot_pattern="kronecker",
            pilot_ofdm_symbol_indices=[2, 11],
        )
        management = StreamManagement(np.ones([1, USERS]), 1)
        n = int(grid.num_data_symbols) * BITS
        self._num_info = int(n * CODERATE)
        self._source = BinarySource()
        self._encoder = LDPC5GEncoder(self._num_info, n, num_bits_per_symbol=BITS)
        self._mapper, self._grid_mapper = Mapper("qam", BITS), ResourceGridMapper(grid)
        fading = RayleighBlockFading(num_rx=1, num_rx_ant=ANTENNAS, num_tx=USERS, num_tx_ant=1)
        self._channel = OFDMChannel(fading, grid, normalize_channel=True, return_channel=True)
        self._decoder = LDPC5GDecoder(
            self._encoder,
            cn_update="minsum",
            hard_out=False,
            return_infobits=False,
            return_state=True,
            num_iter=ITERATIONS,
        )
        # The last decoder of the tutorial's loop gets cn_type="minsum", a keyword that Sionna
        # ignores without a word, so that it has the default update. With one pass it is min-sum
        self._one_pass, self._last = (
            LDPC5GDecoder(
                self._encoder, cn_update=update, return_state=True, num_iter=ITERATIONS
            )
            for update in ("minsum", "boxplus-phi")
        )
        self._passes = passes
        self._draw = tf.function(self._drawn)
        self._receive = {
            name: tf.function(
                self._receiver(
                    OFDMDetector(detector, "bit", grid, management),
                    OFDMDetectorWithPrior(
                        detector,
                        "bit",
                        grid,
                        management,
                        constellation_type="qam",
                        num_bits_per_symbol=BITS,
                    ),
                    passes[name],
                )
            )
            for name, detector in detectors.items()
        }

    def _drawn(self, batch_size, ebno_db):
        no = ebnodb2no(ebno_db, BITS, CODERATE)
        bits = self._source([batch_size, USERS, 1, self._num_info])
        y, h = self._channel(self._grid_mapper(self._mapper(self._encoder(bits))), no)
        return bits, y, h, no

    def _receiver(self, first, again, counted):
        def receive(bits, y, h, no):
            """Whether codewords are wrong after each of the passes, bool [B, users] each."""
            llrs, messages, wrong = first(y, h, 0.0, no), None, []
            for number in range(1, max(counted) + 1):
                if number in counted:
                    decoder = self._one_pass if number == 1 else self._last
                    decided, _ = decoder(llrs, msg_v2c=messages)
                    wrong.append(tf.reduce_any(decided != bits, axis=[-2, -1]))
                if number < max(counted):
                    prior, messages = self._decoder(llrs, msg_v2c=messages)
                    llrs = again(y, h, prior, 0.0, no) - prior
            return wrong

        return receive

    def count(self, ebno_db, num_batches, batch_size, seed=0, names=None):
        """Block errors of all receivers on the same draws.

        Returns:
            {(name, passes): wrong codewords of each grid, int [num_batches * batch_size]}.
        """
        config.seed = seed
        found = {}
        for _ in range(num_batches):
            drawn = self._draw(batch_size, tf.constant(ebno_db, tf.float32))
            for name in names or self._receive:
                wrong = self._receive[name](*drawn)
                for passes, x in zip(self._passes[name], wrong):
                    found.setdefault((name, passes), []).append(x.numpy().sum(-1))
        return {key: np.concatenate(x) for key, x in found.items()}


def tutorial_link(*names):
    """The `IDDLink` with detectors of ours, keys of `OPTIONS`; `mmse` has up to three passes."""
    detectors = {}
    for name in names:
        layer = create_detector(
            name, num_streams=USERS, num_bits_per_symbol=BITS, **OPTIONS[name]
        )
        compiled = tf.function(layer, jit_compile=True) if layer.xla_on_cpu else layer
        detectors[name] = compiled
    passes = {name: (1, 2, 3) if name == "mmse" else (1,) for name in names}
    return IDDLink(detectors, passes)


def spread(wrong):
    """By how much the variance of a rate is larger than with independent codewords.

    Args:
        wrong: wrong codewords of each grid, of `USERS`.
    """
    rate = wrong.mean() / USERS
    independent = USERS * rate * (1 - rate)
    return max(1.0, wrong.var(ddof=1) / independent) if independent else 1.0
