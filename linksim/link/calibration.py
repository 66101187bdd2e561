"""Draws of a channel from which a receiver learns its statistics before a run begins."""

import numpy as np
import tensorflow as tf

from linksim.channels.random import stream_keys

# In place of a run's seed, SNR point and batch (`Link.keys`); no run has a point below 800000
_CALIBRATION = (2**31 - 1, 7, 0)
# At most this many slots, and fewer where slots are large. A slot has one direction of
# movement, on which its whole bias depends: where users are fast, a thousand slots leave an
# uncertainty of four percent, and elsewhere of one or two
_MAX_SLOTS, _MIN_SLOTS, _SLOT_BUDGET = 1024, 64, 2**28
# Elements, of channels or of the rays that make them, that are worked on at once
_CHUNK = 2**24
# Elements of channels that are kept for a second pass, and not drawn again
_KEPT = 2**24


class Calibration:
    """Draws of the channel from which estimators learn, the same in every run.

    Args:
        channels: function of a key [2], a number of slots and the number of the first, to
            their channels, complex64 [slots, T, F, M, K].
        shape: (T, F, M, K).
        pilots: what the streams send as pilots, complex64 [K, T, F], zero elsewhere.
    """

    def __init__(self, channels, shape, pilots):
        symbols, subcarriers, num_rx, streams = shape
        # Rays of a CDL, about 500 for each pair of antennas, cost as much as subcarriers
        cost = symbols * num_rx * streams * (500 + subcarriers)
        slots = int(np.clip(_SLOT_BUDGET // cost, _MIN_SLOTS, _MAX_SLOTS))
        self._chunk = int(np.clip(_CHUNK // cost, 1, slots))
        self._chunks = -(-slots // self._chunk)
        self._keep = slots * np.prod(shape) <= _KEPT
        self._kept = {}  # {number of a chunk: its channels}
        self._channels = tf.function(channels, autograph=False)
        self.shape, self.pilots = shape, pilots

    def forget(self):
        """Free what is kept for a second pass."""
        self._kept.clear()

    def __iter__(self):
        """Channels [b, T, F, M, K] and what is received of the pilots without noise,
        complex64 [b, T, F, M], in parts whose b is always the same."""
        for number, key in enumerate(stream_keys(self._chunks, *_CALIBRATION)):
            h = self._kept.get(number)
            if h is None:
                first = tf.constant(number * self._chunk, tf.int32)
                h = self._channels(tf.constant(key), self._chunk, first)
            if self._keep:
                self._kept[number] = h
            yield h, tf.einsum("btfmk,ktf->btfm", h, self.pilots)
