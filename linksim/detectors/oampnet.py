"""OAMP-Net and OAMP-Net2: orthogonal AMP with a few learned scalars per iteration."""

import math

import keras
from keras import ops

from linksim.backend import Float32Layer, constant
from linksim.constellation import pam_posterior
from linksim.detectors.base import Detector
from linksim.detectors.oamp import linear_step, matched_system, start_of_iterations
from linksim.detectors.real import diagonal, matvec
from linksim.detectors.weight_scaling import WeightScaled, scaled_norm
from linksim.errors import InvalidInput, check_choice, check_int, check_real

# Start of gamma, theta, phi and xi, with which the network is OAMP
_INITIAL = (1.0, 1.0, 1.0, 0.0)


@keras.saving.register_keras_serializable("linksim")
class OAMPNetDetector(Detector):
    """OAMP-Net: OAMP with two learned step sizes per layer [He18].

    In each layer `linksim.detectors.oamp.linear_step` gives r and tau2 with the layer's
    gamma and theta, and x <- phi (E[x | r, tau2] - xi r). OAMP-Net has phi = 1 and
    xi = 0; OAMP-Net2 [He20], the baseline of [Pratik21] and [Arvinte20], learns them too.
    The output is the posterior of the last layer given r and tau2, so the last phi and xi
    act on `estimate` alone.

    With a prior, x starts at its mean, and each posterior includes it.

    An untrained network is exactly `OAMPDetector`. The scalars do not depend on M and K,
    and permuting the streams permutes the result.

    Args:
        num_iterations: the number of layers.
        num_parameters: 2 (gamma, theta) or 4 (gamma, theta, phi, xi) per layer.
        lagged_variance: use v2 of the previous layer in W, as the published code of
            OAMP-Net2 does. The default is the current one, as in the papers.
        no_grid: N0 values in ascending order, each with a set of scalars of its own.
            Every vector uses the set whose N0 is nearest to its own on a log scale.
            [Arvinte20], Section V-B, learns "separate step sizes for each particular SNR
            value". The default is one set for all, as in the other papers.

    Weights:
        scalars: float32 [num_iterations, num_parameters], or
            [len(no_grid), num_iterations, num_parameters].

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    accepts_prior = True
    has_estimates = True

    def __init__(
        self,
        *args,
        num_iterations=10,
        num_parameters=2,
        lagged_variance=False,
        no_grid=None,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        check_int("num_iterations", num_iterations)
        check_choice("num_parameters", num_parameters, (2, 4))
        if not isinstance(lagged_variance, bool):
            raise InvalidInput(
                f"lagged_variance: got {lagged_variance!r}, expected True or False"
            )
        self.num_iterations = int(num_iterations)
        self.num_parameters = int(num_parameters)
        self.lagged_variance = lagged_variance
        self.no_grid = _check_grid(no_grid)
        points = () if self.no_grid is None else (len(self.no_grid),)
        self.scalars = self.add_weight(
            name="scalars",
            shape=points + (self.num_iterations, self.num_parameters),
            initializer=_initial_scalars,
            autocast=False,
        )
        self.built = True  # no weight depends on the data

    def detect(self, y, h, no, prior=None):
        return self._unfold(y, h, no, prior)[0][-1]

    def estimate(self, y, h, no, prior=None):
        """The x of the last layer, for the squared-error loss that trains OAMP-Net.

        Args:
            y, h, no, prior: real tensors, as in `detect`.

        Returns:
            float32 [B, N], real parts of all streams, then imaginary parts.
        """
        return self._unfold(y, h, no, prior)[1][-1]

    def all_estimates(self, y, h, no, prior=None):
        """The estimate of the last layer, in a list: training looks at no other."""
        return [self.estimate(y, h, no, prior)]

    def _unfold(self, y, h, no, prior=None):
        """Two lists, the logits [B, N, L] and the x [B, N] of every layer."""
        s2, matched = matched_system(y, h, no)
        x, v2 = start_of_iterations(matched[0], prior, self.levels)
        scalars = self._scalars_at(no)
        all_logits, all_x = [], []
        for t in range(self.num_iterations):
            gamma, theta, *correction = [
                scalars[:, t, i : i + 1] for i in range(self.num_parameters)
            ]
            lagged = v2 if self.lagged_variance else None
            r, tau2, v2 = linear_step(y, h, s2, matched, x, lagged, gamma, theta)
            r = self._seen_by_estimator(t, r, tau2, x, matched)
            logits, x, _ = pam_posterior(r, tau2, self.levels, prior)
            if correction:
                phi, xi = correction
                x = phi * (x - xi * r)
            all_logits.append(logits)
            all_x.append(x)
        return all_logits, all_x

    def _seen_by_estimator(self, t, r, tau2, x, matched):
        """The r that the estimator of layer t takes; a subclass may correct it."""
        return r

    def _scalars_at(self, no):
        """The scalars of every vector [B, T, p], or [1, T, p] if all share them."""
        scalars = ops.convert_to_tensor(self.scalars)
        if self.no_grid is None:
            return scalars[None]
        grid = constant(tuple(math.log(no) for no in self.no_grid))
        distance = ops.abs(ops.log(no)[:, None] - grid)
        # A product has a dense gradient; on TensorFlow that of a gather is sparse
        nearest = ops.one_hot(ops.argmin(distance, axis=-1), len(self.no_grid))
        return ops.einsum("bg,gtp->btp", nearest, scalars)

    def get_config(self):
        return {
            **super().get_config(),
            "num_iterations": self.num_iterations,
            "num_parameters": self.num_parameters,
            "lagged_variance": self.lagged_variance,
            "no_grid": self.no_grid,
        }


@keras.saving.register_keras_serializable("linksim")
class OAMPNet2Detector(OAMPNetDetector):
    """OAMP-Net2: OAMP with four learned scalars per layer [He20].

    It is `OAMPNetDetector` with `num_parameters=4`; see there.
    """

    def __init__(self, *args, num_parameters=4, **kwargs):
        check_choice("num_parameters", num_parameters, (4,))
        super().__init__(*args, num_parameters=num_parameters, **kwargs)


@keras.saving.register_keras_serializable("linksim")
class WeSOAMPNetDetector(WeightScaled, OAMPNetDetector):
    """WeS-OAMP-Net: OAMP-Net with a weight-scaled sublayer before each estimator.

    [Mohammad20], Section VI-F, adds "a NN sub-layer design before the estimator and
    introduc[es] the weight profiling", but does not say what it looks like. Here it is
    like the sublayers of WeSNet: with g = tr(H'H)/N,
    u = beta ReLU(W1 [H'y/g, H'H x/g, x, r, log tau2] + b1), and the estimator takes
    r + W2 u + b2. W2 starts at zero, so an untrained network is OAMP. The weights fit
    any M, but one K.

    Args:
        num_iterations: the number of layers.
        hidden_size: entries of u; by default 8N.
        profile, fraction, learnable_profile: those of `WeightScaled`.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    depth_option = "num_iterations"

    @property
    def depth(self):
        return self.num_iterations

    def __init__(self, *args, hidden_size=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.hidden_size = 8 * self.num_dims if hidden_size is None else hidden_size
        check_int("hidden_size", self.hidden_size)
        if self.no_grid is not None:
            raise InvalidInput("no_grid: the sublayers of this network have none")
        self.sublayers = [
            _Sublayer(self, name=f"sublayer_{t}") for t in range(self.num_iterations)
        ]
        self.built = True

    def by_layer(self):
        return [[layer] for layer in self.sublayers], [self.scalars]

    def layer_norms(self):
        return [layer.norm() for layer in self.sublayers]

    def all_logits(self, y, h, no, training=None, prior=None):
        return self._unfold(y, h, no, prior)[0]

    def all_estimates(self, y, h, no, prior=None):
        """The x of every layer: list of float32 [B, N]."""
        return self._unfold(y, h, no, prior)[1]

    def _seen_by_estimator(self, t, r, tau2, x, matched):
        hty, gram = matched
        gain = ops.mean(diagonal(gram), axis=-1, keepdims=True)
        inputs = [hty / gain, matvec(gram, x) / gain, x, r, ops.log(tau2)]
        return r + self.sublayers[t](ops.concatenate(inputs, axis=-1))

    def get_config(self):
        return {**super().get_config(), "hidden_size": self.hidden_size}


class _Sublayer(Float32Layer):
    """A hidden layer of scaled units, and the correction of r that it gives."""

    def __init__(self, detector, **kwargs):
        super().__init__(**kwargs)
        dims = detector.num_dims
        self.scaling = detector.scaling(detector.hidden_size)
        self.hidden = keras.layers.Dense(self.scaling.kept, activation="relu", dtype="float32")
        self.hidden.build((None, 4 * dims + 1))
        self.correction = keras.layers.Dense(dims, kernel_initializer="zeros", dtype="float32")
        self.correction.build((None, self.scaling.kept))
        self.built = True

    def call(self, x):
        return self.correction(self.scaling(self.hidden(x)))

    def norm(self):
        beta = self.scaling.coefficients()
        return scaled_norm(self.hidden.kernel, None, beta) + scaled_norm(
            self.correction.kernel
        )


def _initial_scalars(shape, dtype=None):
    values = ops.convert_to_tensor(_INITIAL[: shape[-1]], dtype=dtype)
    # PyTorch's broadcast is a view of fewer numbers, which no optimizer could change
    return values * ops.ones(shape, dtype=dtype)


def _check_grid(no_grid):
    if no_grid is None:
        return None
    if not isinstance(no_grid, (list, tuple)) or not no_grid:
        raise InvalidInput(
            f"no_grid: got {no_grid!r}, expected a list of noise variances N0, or None"
        )
    for value in no_grid:
        check_real("no_grid", value, low=0, open_low=True)
    if any(a >= b for a, b in zip(no_grid, no_grid[1:])):
        raise InvalidInput(f"no_grid: got {no_grid!r}, expected ascending values")
    return tuple(float(value) for value in no_grid)
