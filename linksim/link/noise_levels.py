"""What an estimator measures at some levels of N0, at any N0 between them."""

import numpy as np
import tensorflow as tf


def noise_levels(power, low_db, high_db, step_db):
    """Levels of N0 in equal steps, float32 [L].

    Args:
        power: mean energy E|h_ij|^2 of the channel.
        low_db, high_db, step_db: first and last N0 over `power`, and the step, in dB.
    """
    count = round((high_db - low_db) / step_db) + 1
    return (power * 10 ** (np.linspace(low_db, high_db, count) / 10)).astype(np.float32)


def between_levels(no, levels, values):
    """Interpolate linearly in dB of N0; beyond the levels what is nearest holds.

    Args:
        no: N0, float32 [].
        levels: those of `noise_levels`, at least two.
        values: what was measured at the levels, float32 or complex64 [L, ...].

    Returns:
        Of the type of `values`, [...].
    """
    top = len(levels) - 1
    position = tf.math.log(tf.maximum(no, levels[0]) / levels[0])
    position = tf.minimum(position / np.log(levels[1] / levels[0]), top * 1.0)
    below = tf.minimum(tf.cast(position, tf.int32), top - 1)
    near = tf.gather(values, [below, below + 1])
    share = tf.cast(position - tf.cast(below, tf.float32), near.dtype)
    return (1.0 - share) * near[0] + share * near[1]
