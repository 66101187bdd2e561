"""Node updates of belief propagation for Sionna's LDPC decoder, without ragged sums.

Sionna hands the messages of a node over as a row of a ragged tensor and adds them up by
scattering, one edge after the other. Nodes of the same degree are a dense block instead.
"""

import numpy as np
import tensorflow as tf

from linksim.errors import InvalidInput

# tanh(x/2) is 1 in float32 beyond about 16.6: what Sionna's "boxplus" is clipped to
_LARGEST = 1 - 1e-7


class Rows:
    """Edges sorted by node: reduces the edges of every node, and repeats nodes by edge.

    Args:
        nodes: node of each edge, ascending, int [edges].

    Raises:
        InvalidInput: a node has no edge.
    """

    def __init__(self, nodes):
        nodes = np.asarray(nodes)
        degrees = np.bincount(nodes)
        if not degrees.all():
            raise InvalidInput(f"nodes: {np.argmin(degrees)} has no edge")
        starts = np.cumsum(degrees) - degrees
        self.node_of_edge = nodes.astype(np.int32)
        self._blocks, order = [], []
        for degree in np.unique(degrees):
            block = np.flatnonzero(degrees == degree)
            self._blocks.append((starts[block] + np.arange(degree)[:, None]).astype(np.int32))
            order.append(block)
        self._order = np.argsort(np.concatenate(order)).astype(np.int32)

    def reduce(self, values, combine):
        """[nodes, ...] of values [edges, ...]; `combine` is + or * of two tensors."""
        reduced = []
        for block in self._blocks:
            total = tf.gather(values, block[0])
            for edges in block[1:]:
                total = combine(total, tf.gather(values, edges))
            reduced.append(total)
        return tf.gather(tf.concat(reduced, axis=0), self._order)

    def by_edge(self, values):
        """[edges, ...] of values [nodes, ...]."""
        return tf.gather(values, self.node_of_edge)


def boxplus_update(check_of_edge):
    """Sionna's "boxplus" check-node update; "boxplus-phi" is the same function of the
    messages, in other rounding.

    Args:
        check_of_edge: check of each edge, ascending.

    Returns:
        A function for `LDPCBPDecoder(cn_update=...)`.
    """
    rows = Rows(check_of_edge)

    def update(messages, llr_max):
        factors = tf.tanh(0.5 * messages.flat_values)
        # Messages of 0 stay invertible, and come out as 0 again
        factors = tf.where(tf.equal(factors, 0.0), 1e-12, factors)
        others = rows.by_edge(rows.reduce(factors, tf.multiply)) / factors
        others = tf.where(tf.abs(others) < 1e-7, 0.0, others)
        others = tf.clip_by_value(others, -_LARGEST, _LARGEST)
        # log, where atanh is not vectorised by XLA on CPU
        result = tf.math.log((1.0 + others) / (1.0 - others))
        return messages.with_flat_values(tf.clip_by_value(result, -llr_max, llr_max))

    return update


def sum_update(bit_of_edge):
    """Sionna's variable-node update.

    Args:
        bit_of_edge: bit of each edge, ascending.

    Returns:
        A function for `LDPCBPDecoder(vn_update=...)`.
    """
    rows = Rows(bit_of_edge)

    def update(messages, llrs, llr_max):
        incoming = messages.flat_values
        total = rows.reduce(incoming, tf.add) + llrs
        others = tf.clip_by_value(rows.by_edge(total) - incoming, -llr_max, llr_max)
        total = tf.clip_by_value(total, -llr_max, llr_max)
        return messages.with_flat_values(others), total

    return update
