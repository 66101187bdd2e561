"""Weight scaling: layers whose first units matter most, so that the others can be cut."""

import keras
import numpy as np
from keras import ops

from linksim.errors import InvalidInput, check_choice, check_int, check_real

PROFILES = ("uniform", "linear", "half-exponential")


def profile_coefficients(profile, size):
    """The profile functions of WeSNet (001_199363b04b6b0fc1.txt).

    Args:
        profile: "uniform", all 1; "linear", 1 - i/N for i = 1..N (eq. 16);
            "half-exponential", 1 for i <= N/2, then exp(N/2 - i - 1) (eq. 17).
        size: N.

    Returns:
        float64 [size], non-increasing, in [0, 1].
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
    """How many of `size` units a fraction keeps: the nearest integer, at least 1."""
    check_real("fraction", fraction, low=0, high=1, open_low=True)
    return max(1, round(fraction * size))


@keras.saving.register_keras_serializable("linksim")
class WeightScaling(keras.layers.Layer):
    """What goes into a product, or comes out of it, times a non-increasing profile.

    z_j = sum_i beta_i W_ji x_i + b_j (001_199363b04b6b0fc1.txt, eq. 15) is a product of
    any kind with this layer's output: `dense(scaling(x))`, `ops.matmul(scaling(x), w)`.
    Beyond `fraction` the coefficients are zero, and what they would multiply does not
    exist: the output has `kept` entries, and so has the product's weight.

    A learnable profile (L-WeSNet, eq. 24) starts at the named one and stays monotone and
    non-negative whatever the optimizer does: beta_i is the sum of the steps from i to the
    last over sqrt(N), and a constraint sets steps below zero to zero. Steps that are
    exponentials or the like would stay where a flat profile has them, next to zero: there
    they have no gradient. By sqrt(N), one step of Adam moves neither the first
    coefficient, a sum of all steps, nor the last one out of proportion.

    Args:
        size: N, entries without the cut.
        profile: see `profile_coefficients`.
        fraction: of the entries that are kept, in (0, 1].
        learnable: train the profile.

    Call arguments:
        x: float32 [..., size], or [..., kept] of a product that makes no others.

    Returns:
        float32 [..., kept].
    """

    def __init__(self, size, profile="uniform", fraction=1.0, learnable=False, **kwargs):
        super().__init__(**kwargs)
        self.kept = num_kept(size, fraction)
        self.fixed = profile_coefficients(profile, size)[: self.kept].astype(np.float32)
        if not isinstance(learnable, bool):
            raise InvalidInput(f"learnable: got {learnable!r}, expected True or False")
        self.size, self.profile, self.fraction = int(size), profile, float(fraction)
        self.learnable = learnable
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
        """beta of the entries that are kept, float32 [kept]."""
        if not self.learnable:
            return ops.convert_to_tensor(self.fixed)
        return ops.flip(ops.cumsum(ops.flip(self.steps))) / self.size**0.5

    def call(self, x):
        x = x[..., : self.kept]
        if not self.learnable and np.all(self.fixed == 1.0):
            return x
        return x * self.coefficients()

    def compute_output_spec(self, x):
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
    """Base of detectors with weight scaling, before `Detector` in their list of bases.

    Args:
        profile: "uniform" (no scaling), "linear" or "half-exponential".
        fraction: of the scaled units, those that are kept.
        learnable_profile: train the profiles, one per scaled layer.

    A subclass makes its `WeightScaling` layers with `scaling` and implements `by_layer`;
    `depth_option` names its option that counts the unfolded layers.
    """

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
        """What belongs to each unfolded layer.

        Returns:
            A list of lists of Keras layers, one entry per unfolded layer (the last may
            be missing), and a list of weights whose first axis counts unfolded layers.
        """
        raise NotImplementedError

    def layer_norms(self):
        """`sum_k |beta_k W_k|` of each unfolded layer, for the log-L1 penalty (eq. 23):
        list of float32 scalars."""
        raise NotImplementedError

    def slim(self, fraction=None, num_layers=None):
        """A physically smaller copy.

        It computes what this layer would if the coefficients beyond `fraction` were zero
        and the output was that of the unfolded layer `num_layers`: complexity is chosen
        after training, and weights that are not used are not there.

        Args:
            fraction: at most this layer's own, None for that.
            num_layers: at most this layer's own, None for that.

        Returns:
            A new detector of the same class and name.

        Raises:
            InvalidInput: a value out of range.
        """
        depth = getattr(self, self.depth_option)
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
        # beta_i sums to the last step: the last one that stays takes those cut off
        last = target.shape[0] - 1
        value = value.copy()
        value[last] = np.sum(value[last:], dtype=np.float64)
    target.assign(value[tuple(slice(0, n) for n in target.shape)])


def scaled_norm(kernel, *coefficients):
    """`|beta W|`, the sum of absolute values of a scaled kernel.

    Args:
        kernel: float32 [inputs, units].
        coefficients: those of the inputs and of the units, each float32 or None.
    """
    for axis, beta in enumerate(coefficients):
        if beta is not None:
            kernel = kernel * ops.expand_dims(beta, 1 - axis)
    return ops.sum(ops.abs(kernel))
