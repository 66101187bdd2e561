"""Work on some of the blocks of a batch: parts of equal size, and the time they take."""

import time

import numpy as np
import tensorflow as tf

from linksim.backend import wait_for

# Open blocks are detected in parts of a batch divided by this, so that one compiled graph
# serves any number of them
_PARTS = 8


def part_size(batch_size):
    """How many blocks a part has."""
    return -(-batch_size // _PARTS)


def parts_of(blocks, batch_size):
    """Divide blocks into parts of `part_size`.

    Args:
        blocks: their numbers, int [n].
        batch_size: blocks of the batch that they are from.

    Yields:
        The blocks of a part, int tensor [part_size], and how many of them are meant: at the
        end of the last part the first block stands for those that are missing.
    """
    size = part_size(batch_size)
    for first in range(0, len(blocks), size):
        part = blocks[first : first + size]
        padded = np.pad(part, (0, size - len(part)), constant_values=part[0])
        yield tf.constant(padded), len(part)


class TimedCalls:
    """Calls functions and says how long it took, without their compilation."""

    def __init__(self):
        self._warm = set()

    def timed(self, function, *args):
        """The result of a function of tensors, and the seconds it took."""
        key = function, tf.nest.map_structure(lambda x: tuple(x.shape), args)
        if key not in self._warm:
            function(*args)
            self._warm.add(key)
        start = time.perf_counter()
        result = function(*args)
        wait_for(tf.nest.flatten(result))
        return result, time.perf_counter() - start
