"""What made a result: versions, source, machine."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
import time
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import linksim
from linksim.data import scenario_folder

PACKAGES = ("tensorflow", "keras", "sionna", "numpy", "scipy")
# The same code with less around it: no GPU kernels, no ray tracer
_OTHER_BUILDS = {"tensorflow": ("tensorflow-cpu",), "sionna": ("sionna-no-rt",)}
# What results depend on; weights do not count here, results have their hashes
_SOURCE = ("linksim", "simulations")


def provenance(
    simulator: Any,
    seed: int,
    started: float,
    complete: bool,
    workers: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """How a result was made, for `results.json`.

    Args:
        simulator: the `LinkSimulator`.
        seed: of the run.
        started: `time.perf_counter()` at the start of the run.
        complete: whether the run reached its end.
        workers: what computed the batches (`Pool.workers`), or None if this process did.
    """
    scenario = simulator.scenario
    return {
        "linksim": linksim.__version__,
        "git_commit": git_commit(),
        "versions": {"python": platform.python_version(), **package_versions()},
        "machine": {**describe_machine(), "gpus": simulator.gpus},
        "workers": workers,
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "fingerprint": scenario.fingerprint(),
        "seed": seed,
        "batch_size": scenario.run.batch_size,
        "xla": simulator.xla,
        "weights": {name: w for name, w in simulator.weights.items() if w},
        "wall_seconds": round(time.perf_counter() - started, 1),
        "finished_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "complete": complete,
    }


def software() -> dict[str, str]:
    """What has to be equal in all processes that compute parts of one run.

    Returns:
        Versions, and a hash of linksim's source and scenarios; tests and documents may
        differ.
    """
    return {
        "linksim": linksim.__version__,
        "source": _source_hash(),
        "python": ".".join(platform.python_version_tuple()[:2]),
        "backend": os.environ.get("KERAS_BACKEND", "tensorflow"),
        **package_versions(),
    }


def _source_hash():
    package, digest = Path(linksim.__file__).resolve().parent, hashlib.sha256()
    for folder, pattern in ((package, "**/*.py"), (scenario_folder(), "*.toml")):
        for path in sorted(folder.glob(pattern)):
            digest.update(f"{path.relative_to(folder).as_posix()}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


def describe_machine() -> dict[str, str]:
    """The platform and the processor of this machine."""
    return {
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
    }


def package_versions() -> dict[str, str]:
    """{package: version} of the installed packages that results depend on."""
    versions = {package: package_version(package) for package in PACKAGES}
    return {package: version for package, version in versions.items() if version}


def package_version(package: str) -> str | None:
    """The version of a package, whichever build of it is installed, or None."""
    for name in (package, *_OTHER_BUILDS.get(package, ())):
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return None


def git_commit() -> str | None:
    """The commit of the checkout that linksim runs from, or None without a checkout.

    "-dirty" is added if linksim or the scripts differ from the commit; results that are
    being written do not count.
    """
    checkout = Path(linksim.__file__).resolve().parent.parent
    if not (checkout / ".git").exists():
        return None  # installed, perhaps inside a repository of something else
    commit = _git(checkout, "rev-parse", "HEAD")
    changed = _git(checkout, "status", "--porcelain", "--", *_SOURCE)
    if commit is None or changed is None:
        return None
    return commit + ("-dirty" if changed else "")


def _git(checkout, *arguments):
    """The output of a git command, or None if it fails."""
    try:
        done = subprocess.run(
            # If a git that holds a lock is killed, the lock stays and refuses every commit
            ["git", "--no-optional-locks", *arguments],
            cwd=checkout,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
