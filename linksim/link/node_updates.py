"""Faster node updates of belief propagation for Sionna's LDPC decoder.

Sionna passes the messages of a node as a row of a ragged tensor and reduces it by
scattering, edge by edge. Here nodes of the same degree form a dense block instead.
"""

import numpy as np
import tensorflow as tf

from linksim.errors import InvalidInput

# Sionna clips here in its "boxplus" too: in float32 tanh(x/2) is 1 for x above 16.6
_LARGEST = 1 - 1e-7


class Rows:
    """Edges sorted by node, to reduce over the edges of nodes and to repeat nodes.

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
        """Values [nodes, ...] that combine the values [edges, ...] of every node's edges.

        Args:
            values: tensor [edges, ...].
            combine: function of two tensors, associative, such as `tf.add`.
        """
        reduced = []
        for block in self._blocks:
            total = tf.gather(values, block[0])
            for edges in block[1:]:
                total = combine(total, tf.gather(values, edges))
            reduced.append(total)
        return tf.gather(tf.concat(reduced, axis=0), self._order)

    def by_edge(self, values):
        """Values [edges, ...]: those [nodes, ...] of the node of each edge."""
        return tf.gather(values, self.node_of_edge)


def boxplus_update(check_of_edge):
    """Sionna's "boxplus" check-node update.

    Its "boxplus-phi" is the same function of the messages up to rounding.

    Args:
        check_of_edge: check of each edge, ascending, int [edges].

    Returns:
        A function for `LDPCBPDecoder(cn_update=...)`.
    """
    rows = Rows(check_of_edge)

    def update(messages, llr_max):
        factors = tf.tanh(0.5 * messages.flat_values)
        # The small number can be divided by, and the result is clipped to 0 again
        factors = tf.where(tf.equal(factors, 0.0), 1e-12, factors)
        others = rows.by_edge(rows.reduce(factors, tf.multiply)) / factors
        others = tf.where(tf.abs(others) < 1e-7, 0.0, others)
        others = tf.clip_by_value(others, -_LARGEST, _LARGEST)
        # This is 2 atanh(others); XLA vectorizes a logarithm on CPU but no atanh
        result = tf.math.log((1.0 + others) / (1.0 - others))
        return messages.with_flat_values(tf.clip_by_value(result, -llr_max, llr_max))

    return update


def minsum_update(check_of_edge, offset=0.0):
    """Sionna's "minsum" check-node update, or with an offset of 0.5 its "offset-minsum".

    The results are Sionna's, to the bit.

    Args:
        check_of_edge: check of each edge, ascending, int [edges].
        offset: what each magnitude is made smaller by, down to 0.

    Returns:
        A function for `LDPCBPDecoder(cn_update=...)`.
    """
    rows = Rows(check_of_edge)

    def update(messages, llr_max):
        incoming = messages.flat_values
        signs = tf.where(incoming < 0, -1.0, 1.0)
        signs *= rows.by_edge(rows.reduce(signs, tf.multiply))
        sizes = tf.abs(incoming)
        least = rows.reduce(sizes, tf.minimum)
        beyond = sizes - rows.by_edge(least)
        is_least = tf.equal(beyond, 0.0)
        # The smallest of the others, for the edge that has the smallest of all
        further = rows.reduce(tf.where(is_least, np.inf, beyond), tf.minimum)
        alone = tf.equal(rows.reduce(tf.cast(is_least, tf.float32), tf.add), 1.0)
        others = tf.where(alone, further + least, least)
        sizes = tf.where(is_least, rows.by_edge(others), rows.by_edge(least))
        result = signs * tf.maximum(sizes - offset, 0.0)
        return messages.with_flat_values(tf.clip_by_value(result, -llr_max, llr_max))

    return update


def sum_update(bit_of_edge):
    """Sionna's variable-node update.

    Args:
        bit_of_edge: bit of each edge, ascending, int [edges].

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
