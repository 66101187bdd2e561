"""The GPU of this process: what it is, what it holds, and how it rounds products."""

from __future__ import annotations

import os
import subprocess
from typing import Any

import keras

from linksim.provenance import package_version


def describe_device() -> dict[str, Any]:
    """The first GPU that Keras' backend sees, with the versions around it.

    Returns:
        {"name": or "" where there is none, "backend", "software"} and what the backend and
        `nvidia-smi` say of it; "lacks" is why there can be none.
    """
    backend = keras.backend.backend()
    names = (backend, "keras", "sionna", "ray", *(("jaxlib",) if backend == "jax" else ()))
    versions = {name: package_version(name) for name in names}
    found = {"name": "", "backend": backend} | _ASKED[backend]()
    found["software"] = ", ".join(f"{k} {v}" for k, v in versions.items() if v)
    return found | (_driver() if found["name"] else {})


def _tensorflow():
    import tensorflow as tf

    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        lacking = not tf.test.is_built_with_gpu_support()
        return {"lacks": "this build has no code for GPUs"} if lacking else {}
    details = tf.config.experimental.get_device_details(gpus[0])
    build = tf.sysconfig.get_build_info()
    return {
        "name": details.get("device_name", gpus[0].name),
        "capability": ".".join(map(str, details.get("compute_capability", ()))),
        "libraries": ", ".join(
            f"{key.removesuffix('_version')} {build[key]}"
            for key in ("cuda_version", "cudnn_version", "rocm_version")
            if build.get(key)
        ),
    }


def _torch():
    import torch

    if not torch.cuda.is_available():
        built = torch.version.cuda or torch.version.hip
        return {} if built else {"lacks": "this build has no code for GPUs"}
    return {
        "name": torch.cuda.get_device_name(0),
        "capability": ".".join(map(str, torch.cuda.get_device_capability(0))),
        "libraries": f"cuda {torch.version.cuda}",
    }


def _jax():
    import jax

    device = jax.devices()[0]
    return {} if device.platform == "cpu" else {"name": device.device_kind}


_ASKED = {"tensorflow": _tensorflow, "torch": _torch, "jax": _jax}


def _driver():
    """What `nvidia-smi` says of the driver and the memory, if there is one."""
    first = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")[0] or "0"
    ask = ["nvidia-smi", "-i", first, "--query-gpu=driver_version,memory.total"]
    try:
        said = subprocess.run(
            [*ask, "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        ).stdout
        driver, memory = said.strip().splitlines()[0].split(", ")
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {}
    return {"driver": driver, "memory": memory}


def kind_of(tensor: Any) -> str:
    """ "gpu" or "cpu", where a tensor is; "" for an array of NumPy."""
    if hasattr(tensor, "devices"):  # JAX
        return "cpu" if all(d.platform == "cpu" for d in tensor.devices()) else "gpu"
    device = str(getattr(tensor, "device", "")).lower()
    if not device or device == "cpu" and not hasattr(tensor, "is_cuda"):
        return ""  # arrays of NumPy 2 have a device, too
    return "gpu" if "gpu" in device or "cuda" in device else "cpu"


def allow_tf32(allowed: bool) -> None:
    """Let a GPU round the factors of float32 products to TensorFloat-32, or forbid it."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(allowed)
    elif backend == "torch":
        import torch

        torch.backends.cuda.matmul.allow_tf32 = allowed
    else:
        import jax

        precision = "tensorfloat32" if allowed else "float32"
        jax.config.update("jax_default_matmul_precision", precision)


def memory(new_peak: bool = False) -> tuple[int, int] | None:
    """Bytes of tensors on the GPU, now and at most; None without a GPU.

    Args:
        new_peak: count the most from now on. JAX cannot, and counts from its start.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        if not torch.cuda.is_available():
            return None
        if new_peak:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated()
    if backend == "jax":
        import jax

        found = jax.devices()[0].memory_stats() or {}
        if "bytes_in_use" not in found:
            return None
        return found["bytes_in_use"], found["peak_bytes_in_use"]
    import tensorflow as tf

    if not tf.config.list_logical_devices("GPU"):
        return None
    if new_peak:
        tf.config.experimental.reset_memory_stats("GPU:0")
    found = tf.config.experimental.get_memory_info("GPU:0")
    return found["current"], found["peak"]
