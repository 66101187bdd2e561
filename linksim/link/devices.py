"""The devices that TensorFlow computes on."""

from __future__ import annotations

import tensorflow as tf


def find_devices() -> list[str]:
    """Names of the CPUs and GPUs that TensorFlow sees; the first call initialises them."""
    return [device.name for device in tf.config.list_physical_devices()]
