"""Weight scaling [Mohammad20]: networks that can be cut after training.

A non-increasing profile scales the units of a layer. Training makes the first units matter
most, so the others can be left out.
"""

import keras
import numpy as np
from keras import ops

from linksim.backend import Float32Layer, constant
from linksim.errors import InvalidInput, check_choice, check_int, check_real

PROFILES = ("uniform", "linear", "half-exponential")


def profile_coefficients(profile, size):
    """The profile functions of WeSNet [Mohammad20].

    Args:
        profile: "uniform", which is 1; "linear", which is 1 - i/N for i = 1..N (eq. 16);
            or "half-exponential", which is 1 for i <= N/2, then exp(N/2 - i - 1) (eq. 17).
        size: N.

    Returns:
        float64 [size], non-increasing, in [0, 1].

    Raises:
        InvalidInput: another profile, or a size below 1.
    """
    check_choice("profile", profile, PROFILES)
    check_int("size", size)
    i = np.arange(1, size + 1)
    if profile == "linear":
        return 1.0 - i / size
    if profile == "half-exponential":
        return np.where(i <= size / 2, 1.0, np.exp(np.minimum(size / 2 - i - 1, 0.0)))
    return np.ones(size)


def num_kept(size, fraction):
    """The number of `size` units that a fraction keeps, rounded, at least 1."""
    check_real("fraction", fraction, low=0, high=1, open_low=True)
    return max(1, round(fraction * size))


@keras.saving.register_keras_serializable("linksim")
class WeightScaling(Float32Layer):
    """A layer that scales its input by a non-increasing profile [Mohammad20].

    A weight-scaled product z_j = sum_i beta_i W_ji x_i + b_j (eq. 15) is any product with
    this layer's output, such as `dense(scaling(x))` or `ops.matmul(scaling(x), w)`. The
    coefficients beyond `fraction` would be zero, so the output has only the first `kept`
    entries, and the product's weight as many.

    A learnable profile (L-WeSNet, eq. 24) starts at the named one. beta_i is the sum of the
    steps from i to the last, divided by sqrt(N). A constraint sets negative steps to zero,
    so the profile stays monotone and non-negative whatever the optimizer does. (If steps
    were exponentials, those of a flat profile would have no gradient and stay near zero.)
    The division by sqrt(N) keeps one step of Adam in proportion for the first coefficient,
    which is a sum of all steps, and for the last one.

    Args:
        size: N, the number of entries without the cut.
        profile: see `profile_coefficients`.
        fraction: the share of entries that are kept, in (0, 1].
        learnable: train the profile.

    Call arguments:
        x: float32 [..., size], or [..., kept].

    Returns:
        float32 [..., kept].

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    def __init__(self, size, profile="uniform", fraction=1.0, learnable=False, **kwargs):
        super().__init__(**kwargs)
        self.kept = num_kept(size, fraction)
        self.fixed = profile_coefficients(profile, size)[: self.kept].astype(np.float32)
        if not isinstance(learnable, bool):
            raise InvalidInput(f"learnable: got {learnable!r}, expected True or False")
        self.size, self.profile, self.fraction = int(size), profile, float(fraction)
        self.learnable = learnable
        # Python numbers, because torch.compile can neither branch on a NumPy array nor read one
        self._scales = not bool(np.all(self.fixed == 1.0))
        self._fixed = tuple(self.fixed.tolist())
        if learnable:
            steps = -np.sqrt(self.size) * np.diff(self.fixed.astype(np.float64), append=0.0)
            self.steps = self.add_weight(
                name="steps",
                shape=(self.kept,),
                initializer=lambda shape, dtype=None: ops.convert_to_tensor(steps, dtype),
                constraint="non_neg",
                autocast=False,
            )
        self.built = True

    def coefficients(self):
        """The beta of the entries that are kept, float32 [kept]."""
        if not self.learnable:
            return constant(self._fixed)
        return ops.flip(ops.cumsum(ops.flip(self.steps))) / self.size**0.5

    def call(self, x):
        """Cut and scale the entries of x."""
        x = x[..., : self.kept]
        if not self.learnable and not self._scales:
            return x
        return x * self.coefficients()

    def compute_output_spec(self, x):
        """The shape and dtype of the result, as Keras asks for them."""
        return keras.KerasTensor(tuple(x.shape[:-1]) + (self.kept,), dtype=x.dtype)

    def get_config(self):
        return {
            **super().get_config(),
            "size": self.size,
            "profile": self.profile,
            "fraction": self.fraction,
            "learnable": self.learnable,
        }


class WeightScaled:
    """Mixin of detectors with weight scaling, which comes before `Detector` in their bases.

    A subclass makes its `WeightScaling` layers with `scaling`, and implements `depth`,
    `by_layer` and `layer_norms`. `depth_option` names its option that gives the number of
    unfolded layers.

    Args:
        profile: "uniform" (no scaling), "linear" or "half-exponential".
        fraction: the share of the scaled units that are kept, in (0, 1].
        learnable_profile: train the profiles, of which each scaled layer has one.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    weight_scaled = True
    depth_option = "num_layers"

    def __init__(
        self, *args, profile="uniform", fraction=1.0, learnable_profile=False, **kwargs
    ):
        super().__init__(*args, **kwargs)
        check_choice("profile", profile, PROFILES)
        check_real("fraction", fraction, low=0, high=1, open_low=True)
        if not isinstance(learnable_profile, bool):
            raise InvalidInput(
                f"learnable_profile: got {learnable_profile!r}, expected True or False"
            )
        self.profile = profile
        self.fraction = float(fraction)
        self.learnable_profile = learnable_profile

    def scaling(self, size, **kwargs):
        """A `WeightScaling` of `size` entries with this detector's options."""
        return WeightScaling(
            size, self.profile, self.fraction, self.learnable_profile, **kwargs
        )

    def by_layer(self):
        """The parts of each unfolded layer.

        Returns:
            A list with the Keras layers of each unfolded layer, where the last unfolded
            layer may have fewer; and a list of weights whose first axis is the unfolded
            layer.
        """
        raise NotImplementedError

    def layer_norms(self):
        """`sum_k |beta_k W_k|` of each unfolded layer, for the log-L1 penalty.

        Returns:
            list of float32 scalars [Mohammad20, eq. 23].
        """
        raise NotImplementedError

    def slim(self, fraction=None, num_layers=None):
        """A smaller copy, to choose the complexity after training.

        The copy computes what this detector would compute with all coefficients beyond
        `fraction` set to zero, and ends at the unfolded layer `num_layers`. It has no
        weights that it does not use.

        Args:
            fraction: at most this detector's own, which None stands for.
            num_layers: at most this detector's own, which None stands for.

        Returns:
            A new detector of the same class and name.

        Raises:
            InvalidInput: a value out of range.
        """
        depth = self.depth
        fraction = self.fraction if fraction is None else fraction
        num_layers = depth if num_layers is None else num_layers
        check_real("fraction", fraction, low=0, high=self.fraction, open_low=True)
        check_int("num_layers", num_layers)
        if num_layers > depth:
            raise InvalidInput(f"num_layers: got {num_layers}, there are {depth}")
        config = {**self.get_config(), "fraction": fraction, self.depth_option: num_layers}
        smaller = type(self).from_config(config)
        (mine, stacked), (theirs, their_stacked) = self.by_layer(), smaller.by_layer()
        for old_layers, new_layers in zip(mine, theirs):
            for old, new in zip(old_layers, new_layers):
                for source, target in zip(old.weights, new.weights):
                    _copy_leading(source, target)
        for source, target in zip(stacked, their_stacked):
            _copy_leading(source, target)
        return smaller

    def get_config(self):
        """The options, from which `from_config` makes the layer again."""
        return {
            **super().get_config(),
            "profile": self.profile,
            "fraction": self.fraction,
            "learnable_profile": self.learnable_profile,
        }


def _copy_leading(source, target):
    """Give `target` the leading entries of `source` along every axis."""
    value = ops.convert_to_numpy(source)
    if target.name == "steps" and target.shape != source.shape:
        # beta_i sums all steps from i on, so the last step that stays takes in those that
        # are cut off
        last = target.shape[0] - 1
        value = value.copy()
        value[last] = np.sum(value[last:], dtype=np.float64)
    target.assign(value[tuple(slice(0, n) for n in target.shape)])


def scaled_norm(kernel, *coefficients):
    """`|beta W|`, the sum of the absolute values of a scaled kernel.

    Args:
        kernel: float32 [inputs, units].
        coefficients: those of the inputs, then those of the units, float32 or None.

    Returns:
        A float32 scalar.
    """
    for axis, beta in enumerate(coefficients):
        if beta is not None:
            kernel = kernel * ops.expand_dims(beta, 1 - axis)
    return ops.sum(ops.abs(kernel))
