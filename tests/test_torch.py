"""What is particular to PyTorch; `make test-torch` runs these."""

import keras
import numpy as np
import pytest

torch = pytest.importorskip("torch")
if keras.backend.backend() != "torch":
    pytest.skip("Keras runs on another backend", allow_module_level=True)

from torch._dynamo.utils import counters

import linksim
from linksim.backend import concrete, constant
from linksim.training.loop import Trainer
from tests.conftest import draw_system
from tests.short_networks import OPTIONS
from tests.test_detector_training import file_of, recipe, ten_steps
from tests.trainings import trainer
from tests.vectors import STEPS, TRAINED

# Those whose graph has no breaks
WHOLE = ["mmse", "zf", "ep", "eqnet-l"]
# One of each kind that an array of NumPy had cut, or that was compiled anew in every call
MENDED = ["vblast-zf", "wesnet-l", "nndet-l", "remimo", "sdr"]


LOWER = torch.tril(torch.ones(4, 4), -1)


class Module(torch.nn.Module):
    """A detector as a module whose arguments are tensors."""

    def __init__(self, detector):
        super().__init__()
        self.detector = detector

    def forward(self, y, h, no):
        return self.detector(y, h, no)


def module_and_inputs(name, rng):
    _, y, h, no = draw_system(rng, 6, 4, 2, 4, 0.1)
    inputs = tuple(torch.from_numpy(x) for x in (y, h, no))
    system = {"num_streams": 2, "num_bits_per_symbol": 4}
    options = {**OPTIONS, "sdr": {"num_sweeps": 3}}.get(name, {})
    detector = linksim.create_detector(name, **system, **options)
    with torch.no_grad():
        return Module(detector), inputs, detector(*inputs)


@pytest.mark.parametrize("name", [*WHOLE, pytest.param("pepnet", marks=pytest.mark.slow)])
def test_compiles_into_one_graph(name, rng):
    module, inputs, expected = module_and_inputs(name, rng)
    torch._dynamo.reset()
    # Tracing is what can fail; generating code for it takes a minute and a compiler
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*inputs), expected)
        # Values are not looked at in a graph, which returns what they make
        y, h, no = inputs
        assert torch.isnan(compiled(y * float("nan"), h, no)).any()


@pytest.mark.parametrize("name", MENDED)
def test_is_compiled_once(name, rng):
    module, inputs, expected = module_and_inputs(name, rng)
    torch._dynamo.reset()
    counters.clear()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    with torch.no_grad():
        for _ in range(3):
            torch.testing.assert_close(compiled(*inputs), expected, rtol=1e-4, atol=1e-4)
    assert counters["stats"]["unique_graphs"] == 1


@pytest.mark.parametrize("name", ["mmse", "zf", "ep", "pepnet", "eqnet-l"])
def test_exports_with_any_batch_size(name, rng):
    module, inputs, expected = module_and_inputs(name, rng)
    batch = torch.export.Dim("batch", min=2)
    made = torch.export.export(module, inputs, dynamic_shapes=({0: batch},) * 3).module()
    torch.testing.assert_close(made(*(x[:3] for x in inputs)), expected[:3])


def test_coloured_noise_compiles_too(rng):
    module, (y, h, no), _ = module_and_inputs("mmse", rng)
    white = (no[:, None, None] * torch.eye(4)).to(torch.complex64)
    coloured = white + 0.05 * torch.ones(4, 4)
    torch._dynamo.reset()
    compiled = torch.compile(module, fullgraph=True, backend="eager")
    with torch.no_grad():
        for s in (white, coloured):
            torch.testing.assert_close(
                compiled(y, h, s), module(y, h, s), rtol=1e-4, atol=1e-4
            )


def test_white_covariances_are_their_variances(rng):
    module, (y, h, no), expected = module_and_inputs("mmse", rng)
    eye = torch.eye(4, dtype=torch.complex64)
    with torch.no_grad():
        white = no[:, None, None] * eye
        torch.testing.assert_close(module(y, h, white), expected)
        torch.testing.assert_close(module(y, h, no[:1, None, None] * eye), expected)
        # Neither other powers nor an imaginary part of one of the vectors is overlooked
        for change in (0.05 * torch.diag(torch.tensor([1.0, -1, 1, -1])), 0.02j * LOWER):
            coloured = white.clone()
            coloured[-1] += change + change.conj().T if change.is_complex() else change
            found = module(y, h, coloured)
            assert not torch.allclose(found[-1], expected[-1], rtol=1e-3)
            torch.testing.assert_close(found[:-1], expected[:-1], rtol=1e-4, atol=1e-4)


def test_constants_are_made_once_and_can_be_trained_with():
    numbers = (0.125, 0.25)
    with torch.inference_mode():
        first = constant(numbers)
    assert constant(numbers) is first and constant(numbers, "int32") is not first
    weight = torch.ones(2, requires_grad=True)
    (weight * constant(numbers)).sum().backward()
    assert weight.grad.tolist() == [0.125, 0.25]


def test_values_of_weights_are_known():
    assert concrete(torch.ones(2, requires_grad=True)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize("name", TRAINED)
def test_trains_as_tensorflow_does(name):
    losses = np.load(file_of(STEPS, name), allow_pickle=False)["losses"]
    ours = ten_steps(STEPS, name)
    assert ours[-1] < ours[0]
    # The autoencoder's noise, which is small, is another
    np.testing.assert_allclose(ours, losses, rtol=2e-3)


def test_a_training_resumes_without_tensorboard(tmp_path, caplog):
    plan = recipe("oampnet2", steps=4, validate_every=2)
    made = trainer(plan, tmp_path, tensorboard=True)
    assert isinstance(made, Trainer) and len(made.run()) == 3
    assert "no logs for TensorBoard" in caplog.text
    again = trainer(plan, tmp_path)
    assert [e["loss"] for e in again.run()] == [e["loss"] for e in made.history]
