import importlib.util
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import pytest

from linksim.constellation import qam_points


@pytest.fixture
def rng():
    return np.random.default_rng(2026)


@pytest.fixture
def models(tmp_path, monkeypatch):
    """An empty folder of models."""
    import linksim.models
    import linksim.training.publish

    for module in (linksim.models, linksim.training.publish):
        monkeypatch.setattr(module, "model_folder", lambda: tmp_path)
    monkeypatch.setattr(linksim.training.publish, "_CODEBOOK_USES", 1024)
    return tmp_path


def draw_system(rng, batch, num_rx, num_streams, m, no, correlation=0.0):
    """Random symbols, channels and received vectors of `y = Hx + n`."""
    symbols = rng.integers(0, 2**m, (batch, num_streams))
    shape = (batch, num_rx, num_streams)
    h = (rng.normal(size=shape) + 1j * rng.normal(size=shape)) / np.sqrt(2)
    if correlation:
        lag = np.abs(np.arange(num_rx)[:, None] - np.arange(num_rx))
        h = np.linalg.cholesky(correlation**lag) @ h
    noise = rng.normal(size=(batch, num_rx)) + 1j * rng.normal(size=(batch, num_rx))
    x = qam_points(m)[symbols]
    y = np.einsum("bmk,bk->bm", h, x) + noise * np.sqrt(no / 2)
    return (
        symbols,
        y.astype(np.complex64),
        h.astype(np.complex64),
        np.full(batch, no, np.float32),
    )


def slow_but(quick, values):
    """Parameters of a test: values that are not among the quick ones are marked slow."""
    return [v if v in quick else pytest.param(v, marks=pytest.mark.slow) for v in values]


def load_script(path):
    """The module of a script, which is not run: it is not called `__main__`."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
