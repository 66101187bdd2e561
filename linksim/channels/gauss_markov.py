"""Gauss-Markov sequences of channels that start from one initial channel."""

import numpy as np
from keras import ops

from linksim.channels.base import Channel
from linksim.channels.fading import exponential_correlation, symmetric_root
from linksim.channels.random import complex_normal
from linksim.errors import InvalidInput, check_int, check_real


class GaussMarkovChannel(Channel):
    """H_t = rho H_(t-1) + sqrt(1 - rho^2) e_t, t = 0..num_hops, from a fixed H_0.

    These are the channels of [Zilberstein21], eq. 4 and 5. H_0 is one draw of a Kronecker
    channel, the same for the whole run. Each block is a new sequence, over whose hops
    its channel uses are spread evenly. Coefficients have power 1/M, so the received SNR
    is K/(M N0), eq. 6.

    That is a mean over the draws of H_0. A run has one H_0, with the energy that its seed
    gave it, and with rho near 1 its sequences stay near it: their energy is `drawn_power`.
    The default system of 4x2 has 1.1 dB more than 1/M on its sequences and 1.4 dB more at
    H_0. With another `innovation_power` the energy changes from hop to hop, too.

    Args:
        num_rx: receive antennas M.
        num_streams: streams K.
        rho: correlation from hop to hop, in [0, 1].
        num_hops: hops after H_0.
        rho_k: exponential correlation of H_0 on both sides, in [0, 1).
        h0_seed: seed of H_0.
        innovation_power: E|e_ij|^2 relative to E|h_ij|^2. With 1 the sequence is
            stationary, as the paper's model is. In the published sequences real and
            imaginary part of e have a standard deviation of 1/2, which is a relative
            power of `0.5 * num_rx`, so their energy grows from hop to hop.
        hop: the hop that all channel uses are in, or -1 for all hops.

    Attributes:
        h0: the initial channel, complex64 [M, K], NumPy.

    Raises:
        InvalidInput: a value out of range.
    """

    def __init__(
        self,
        num_rx,
        num_streams,
        rho=0.98,
        num_hops=4,
        rho_k=0.6,
        h0_seed=0,
        innovation_power=1.0,
        hop=-1,
    ):
        super().__init__(num_rx, num_streams)
        check_real("channel.rho", rho, low=0, high=1)
        check_int("channel.num_hops", num_hops, minimum=0, maximum=10000)
        check_real("channel.rho_k", rho_k, low=0, high=0.9999)
        check_int("channel.h0_seed", h0_seed, minimum=0)
        check_real("channel.innovation_power", innovation_power, low=0, high=1e9)
        check_int("channel.hop", hop, minimum=-1)
        if hop > num_hops:
            raise InvalidInput(f"channel.hop: got {hop}, expected at most {num_hops} or -1")
        self.rho = rho
        self.hop = hop
        self.num_hops = num_hops
        self.innovation_power = innovation_power
        self.power = 1.0 / num_rx
        rng = np.random.Generator(np.random.Philox(h0_seed))
        white = rng.normal(size=(2, num_rx, num_streams)) * np.sqrt(self.power / 2)
        left = symmetric_root(exponential_correlation(num_rx, rho_k))
        right = symmetric_root(exponential_correlation(num_streams, rho_k))
        self.h0 = (left @ (white[0] + 1j * white[1]) @ right).astype(np.complex64)

    @property
    def drawn_power(self):
        """E|h_ij|^2 of sequences that start from this H_0, a mean over the hops in use."""
        kept = self.rho ** (2 * np.arange(self.num_hops + 1))
        first = float(np.mean(np.abs(self.h0) ** 2))
        of_hops = kept * first + (1 - kept) * self.power * self.innovation_power
        return float(of_hops[self.hop] if self.hop >= 0 else np.mean(of_hops))

    def hop_of_use(self, num_uses):
        """The hop, 0 to `num_hops`, of each channel use of a block: int [num_uses]."""
        if self.hop >= 0:
            return np.full(num_uses, self.hop)
        return np.arange(num_uses) * (self.num_hops + 1) // num_uses

    def fixed(self, key, num_channels):
        """H_0, followed by the hops of as many sequences as give `num_channels` matrices.

        [Zilberstein21] has 561 matrices: H_0 and 140 sequences of 4 hops.

        Raises:
            InvalidInput: a number that whole sequences do not give.
        """
        sequences, rest = divmod(num_channels - 1, max(self.num_hops, 1))
        if rest or (sequences and not self.num_hops):
            raise InvalidInput(
                f"num_channels: got {num_channels}, expected 1 and a multiple of num_hops "
                f"= {self.num_hops}"
            )
        first = ops.convert_to_tensor(self.h0)[None]
        if not sequences:
            return first
        hops = self._sequences(key, sequences)[:, 1:]
        hops = ops.reshape(hops, (-1, self.num_rx, self.num_streams))
        return ops.concatenate([first, hops], axis=0)

    def sample(self, key, num_blocks, num_uses, first_block=0):
        return ops.take(self._sequences(key, num_blocks), self.hop_of_use(num_uses), axis=1)

    def _sequences(self, key, num_blocks):
        """H_t of all hops, complex64 [num_blocks, num_hops + 1, M, K]."""
        shape = (num_blocks, self.num_hops + 1, self.num_rx, self.num_streams)
        innovations = complex_normal(key, shape, self.power * self.innovation_power)
        h = ops.broadcast_to(ops.convert_to_tensor(self.h0), shape[:1] + shape[2:])
        sequence = [h]
        fresh = (1.0 - self.rho**2) ** 0.5
        for t in range(1, self.num_hops + 1):
            h = self.rho * h + fresh * innovations[:, t]
            sequence.append(h)
        return ops.stack(sequence, axis=1)
