"""The one draw: simulation and training get the same tensors from the same keys."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf

import linksim
from linksim.constellation import bit_labels, qam_points
from linksim.link import link as link_module
from linksim.link.draw import LinkBatch
from linksim.link.link import Link
from linksim.link.scenario import Loop, list_scenarios, load_scenario
from linksim.training import source as source_module
from linksim.training.source import TRAINING, VectorSource

SCENARIOS = {name: load_scenario(name) for name in list_scenarios()}
OFDM = [name for name, s in SCENARIOS.items() if s.ofdm is not None or s.pusch is not None]
# Trainings have no interference
FLAT = [n for n, s in SCENARIOS.items() if n not in OFDM and s.interference is None]
CSI = {
    "perfect": {"type": "perfect", "error_snr_db": 0.0},
    "noisy": {"type": "noisy", "error_snr_db": 17.0},
    "ls": {"type": "ls", "error_snr_db": 0.0},
}
BLOCKS = 3


def vectors_of(scenario, csi):
    """The scenario as training sees it: one uncoded channel use per block."""
    snr = {"definition": "esno"} if scenario.snr.definition == "ebno" else {}
    code = {"type": "none", "num_info_bits": 0, "num_coded_bits": 0, "uses_per_block": 1}
    code.update(per_stream=False, interleaver="")
    # Without a code there is no loop either
    return scenario.replace(code=code, csi=CSI[csi], snr=snr, loop=vars(Loop()))


class Repeating:
    """A sender that sends what another one has sent."""

    def __init__(self, link, batch):
        self.points = link.sender.points
        self._symbols = batch.symbols
        self._labels = bit_labels(link.num_bits_per_symbol).astype(np.float32)

    def send(self, keys, num_blocks):
        return tf.gather(self._labels, self._symbols), self._symbols


def draw_from_both_doors(scenario, **options):
    """A batch of `Link` and one of `VectorSource`, from the same keys, N0 and symbols."""
    link = Link(scenario)
    source = VectorSource(scenario, (9, 9), BLOCKS, seed=4, **options)
    keys = source.keys(TRAINING, 0)
    by_purpose = dict(zip(source_module._PURPOSES, keys))
    link_keys = link.keys(0, 9.0, 0)
    for row, purpose in enumerate(link_module._PURPOSES):
        link_keys[row] = by_purpose.get(purpose, link_keys[row])
    no = source._draw_no(by_purpose["snr"], BLOCKS, 0, link.num_streams)
    np.testing.assert_allclose(no, np.full((BLOCKS, 1), link.no(9.0)), rtol=1e-4)
    simulated = link.draw(link_keys, no, 0, BLOCKS)
    source.sender = Repeating(link, simulated)
    return simulated, source.draw(keys)


@pytest.mark.parametrize("name", FLAT)
def test_simulation_and_training_draw_the_same(name):
    for csi in ("perfect", "noisy"):
        scenario = vectors_of(SCENARIOS[name], csi)
        simulated, trained = draw_from_both_doors(scenario)
        expected = {"y": "y", "h": "h_hat", "no": "no", "symbols": "symbols"}
        for theirs, ours in expected.items():
            np.testing.assert_array_equal(
                trained[theirs].numpy(), getattr(simulated, ours).numpy()[:, 0], err_msg=csi
            )
        exact = np.array_equal(simulated.h_hat.numpy(), simulated.h.numpy())
        assert exact == (csi == "perfect")


@pytest.mark.parametrize("name", ["rayleigh-4x4-qam16", "wesnet-20x10-bpsk", *OFDM])
def test_csi_changes_nothing_but_what_the_receiver_knows(name):
    """Bits, channels and noise are the same whatever the kind of CSI."""
    scenario, batches = SCENARIOS[name], {}
    kinds = ("perfect", "noisy")
    if name in OFDM:
        kinds += ("ls",)
        code = {"type": "none", "num_info_bits": 0, "num_coded_bits": 0}
        small = {"ofdm": {"num_subcarriers": 16}, "code": code}
        if scenario.pusch is not None:
            small = {"pusch": {"num_prbs": 1}}
        scenario = scenario.replace(**small)
    for csi in kinds:
        link = Link(scenario.replace(csi=CSI[csi]))
        no = link.no(9.0)
        batch = link.draw(link.keys(0, 9.0, 0), no, 0, BLOCKS)
        batches[csi] = LinkBatch(*(t.numpy() for t in batch))
    for batch in batches.values():
        for field in ("bits", "symbols", "h", "y"):
            np.testing.assert_array_equal(
                getattr(batch, field), getattr(batches["perfect"], field)
            )
    perfect, noisy = batches["perfect"], batches["noisy"]
    np.testing.assert_array_equal(perfect.h_hat, perfect.h)
    np.testing.assert_array_equal(noisy.no, perfect.no)
    error = np.mean(np.abs(noisy.h_hat - noisy.h) ** 2)
    power = link.channel.power
    assert error == pytest.approx(power * 10**-1.7, rel=8 / np.sqrt(noisy.h.size) + 0.01)
    if "ls" in batches:
        told = batches["ls"].no
        if np.iscomplexobj(told):  # the covariance of noise and interference
            told = np.diagonal(told, axis1=-2, axis2=-1).real
        assert (told > no).all()


def test_errors_of_real_channels_are_real():
    """As E||H||^2/E||W||^2 says, whichever door a batch comes from."""
    scenario = vectors_of(SCENARIOS["wesnet-20x10-bpsk"], "noisy")
    for batch in draw_from_both_doors(scenario):
        h_hat = batch["h"] if isinstance(batch, dict) else batch.h_hat
        assert not np.imag(h_hat).any()
    source = VectorSource(scenario, (9, 9), 500)
    known = VectorSource(scenario.replace(csi=CSI["perfect"]), (9, 9), 500)
    keys = source.keys(TRAINING, 0)
    error = source.draw(keys)["h"].numpy() - known.draw(keys)["h"].numpy()
    assert np.mean(np.abs(error) ** 2) == pytest.approx(10**-1.7, rel=0.03)


@pytest.mark.parametrize("m", [1, 2, 4, 6, 8, 10])
def test_both_doors_send_the_same_points(m):
    """Sionna rounds the last bit of some otherwise; labels are the same."""
    scenario = SCENARIOS["awgn-siso-qam4"].replace(system={"num_bits_per_symbol": m})
    points = Link(scenario.replace(code={"type": "none", "num_info_bits": 0})).sender.points
    assert points.dtype == np.complex64
    np.testing.assert_allclose(points, qam_points(m), rtol=0, atol=2e-7)


def test_nothing_else_draws_channels_or_noise():
    """Gaussian samples come from the channels and from the one draw."""
    root = Path(linksim.__file__).parent
    callers = set()
    for path in root.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call):
                function = node.func
                name = getattr(function, "id", getattr(function, "attr", ""))
                if name in ("complex_normal", "sample", "sample_grid", "add_noise"):
                    callers.add(path.relative_to(root).as_posix())
    outside = {path for path in callers if not path.startswith("channels/")}
    # Interference is a part of the fronts' draw, with keys of its own
    assert outside == {"link/draw.py", "link/ofdm.py", "link/interference.py"}


def test_draw_needs_neither_tensorflow_nor_sionna():
    """Training on another backend loads neither."""
    pytest.importorskip("jax")
    code = (
        "import sys; import numpy as np; from linksim.link.scenario import load_scenario; "
        "from linksim.training.source import VectorSource; "
        "source = VectorSource(load_scenario('rayleigh-4x4-qam16'), (0, 9), 4); "
        "assert source.draw(source.keys(1, 0))['y'].shape == (4, 4); "
        "loaded = {'tensorflow', 'sionna'} & set(sys.modules); "
        "sys.exit(f'loaded {loaded}' if loaded else 0)"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert done.returncode == 0, done.stderr[-2000:]
