"""The devices that TensorFlow computes on."""

from __future__ import annotations

import tensorflow as tf


def find_devices() -> list[str]:
    """Names of the CPUs and GPUs that TensorFlow sees; the first call initialises them."""
    return [device.name for device in tf.config.list_physical_devices()]


def gpus_in_float32() -> list[str]:
    """Names of the GPUs, which compute in float32 from here on.

    By default TensorFlow lets GPUs since NVIDIA's Ampere round the factors of float32 and
    complex64 products to the ten bits of TensorFloat-32. The error of y = Hx is then 70 dB
    below y, and the Gram matrix of nearly parallel channels is too coarse to be inverted.
    Nothing changes on a CPU.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        tf.config.experimental.enable_tensor_float_32_execution(False)
    return [
        tf.config.experimental.get_device_details(gpu).get("device_name", gpu.name)
        for gpu in gpus
    ]
