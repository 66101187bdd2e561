"""Channels whose users interfere within groups only."""

from keras import ops

from linksim.channels.base import Channel, check_power
from linksim.channels.random import complex_normal
from linksim.errors import InvalidInput, check_int


class GroupedChannel(Channel):
    """Groups of users that are orthogonal to each other and mixed within.

    This is the controlled experiment of [Pratik21], Section V-D.2. It draws K orthogonal
    vectors in random directions and multiplies those of every `group_size` consecutive
    users by a mixing matrix. The paper does not say how it draws mixing matrices; here
    their entries are independent, CN(0, 1/group_size). Every channel use has a new matrix.

    Args:
        num_rx: receive antennas M, at least K.
        num_streams: streams K.
        group_size: users of a group, a divisor of K.
        power: E|h_ij|^2.

    Raises:
        InvalidInput: a value out of range.
    """

    def __init__(self, num_rx, num_streams, group_size=4, power=1.0):
        super().__init__(num_rx, num_streams)
        check_int("channel.group_size", group_size)
        check_power(power)
        if num_streams % group_size or num_streams > num_rx:
            raise InvalidInput(
                f"channel (grouped): got {num_streams} streams for {num_rx} antennas and "
                f"group_size = {group_size}, expected a multiple of it, at most {num_rx}"
            )
        self.group_size = group_size
        self.power = power

    def sample(self, key, num_blocks, num_uses, first_block=0):
        m, k, size = self.num_rx, self.num_streams, self.group_size
        lead = (num_blocks, num_uses)
        draws = complex_normal(key, (*lead, m * k + k * size))
        basis, _ = ops.qr(ops.reshape(draws[..., : m * k], (*lead, m, k)))
        # Mixed within each group
        mixing = ops.reshape(draws[..., m * k :], (*lead, k // size, size, size))
        groups = ops.reshape(basis, (*lead, m, k // size, size))
        h = ops.einsum("...mgi,...gij->...mgj", groups, mixing)
        scale = (m * self.power / size) ** 0.5
        return ops.reshape(h, (*lead, m, k)) * scale
