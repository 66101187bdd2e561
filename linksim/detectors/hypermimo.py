"""HyperMIMO: hypernetworks that make a detector's weights for each channel."""

import itertools
import math

import keras
import numpy as np
from keras import ops

from linksim.backend import Float32Layer, constant
from linksim.detectors.base import Detector
from linksim.detectors.mmnet import MMNetDetector, UnfoldedDetector, complex_matrix
from linksim.detectors.perchannel import (
    NETWORKS,
    ChannelNetworks,
    logits_of_networks,
    template_of,
    trained_of,
)
from linksim.detectors.real import stacked_qr
from linksim.errors import InvalidInput, check_choice, check_int

_MIN_PSI = 1e-3
# Share of uncorrelated power that is added to the covariances of the drops
_DIAGONAL_LOAD = 0.01
RESIDUAL_NOISES = ("rx", "streams")
MADE_NETWORKS = {"mmnet": MMNetDetector, **NETWORKS}


@keras.saving.register_keras_serializable("linksim")
class HyperMIMODetector(UnfoldedDetector):
    """HyperMIMO: a hypernetwork makes the weights of an MMNet from the channel [Goutay20].

    With H = QR, an MMNet detects from y* = Q'y and R (eq. 7 to 10). Its layers share one
    matrix up to a scale per column, Theta_t = Theta (I + diag theta_t) (eq. 11). The
    hypernetwork sees the upper triangle of R and sqrt(N0), and gives Theta, all theta_t
    and all psi_t. It is three dense layers: one with as many units as inputs and one with
    `hidden_size`, both with ELU, then a linear one. Each psi is the absolute value of its
    output plus a small constant. Soft output is the posterior of the last layer given z
    and tau. The diagonal of R is positive here, which makes R unique.

    The paper trains one hypernetwork for one user drop, that is for one set of
    covariances. This layer holds those of `num_drops` drops. For every vector it takes
    the drop under whose covariances (`set_drops`) H is most likely. The noise should be
    white, because whitening changes H.

    Args:
        num_layers: T.
        hidden_size: the number of units of the second dense layer.
        num_drops: the number of hypernetworks.
        residual_noise: the noise that is subtracted from |y* - R x|^2 in eq. 9, "rx" for
            M N0, as printed, or "streams" for K N0, which is the noise in y*.

    Weights:
        hypernetwork: kernels float32 [num_drops, inputs, units] and biases.
        roots: float32 [num_drops, K, 2M, 2M], inverse square roots of the covariances;
            not trained, and there only with several drops.
        log_volumes: float32 [num_drops], sums of the covariances' log-determinants; not
            trained, and there only with several drops.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    def __init__(
        self,
        *args,
        num_layers=5,
        hidden_size=75,
        num_drops=1,
        residual_noise="rx",
        **kwargs,
    ):
        super().__init__(*args, num_layers=num_layers, **kwargs)
        check_int("hidden_size", hidden_size)
        check_int("num_drops", num_drops)
        check_choice("residual_noise", residual_noise, RESIDUAL_NOISES)
        self.hidden_size = int(hidden_size)
        self.num_drops = int(num_drops)
        self.residual_noise = residual_noise
        k = self.num_streams
        entries = k * (k + 1) // 2 * (1 if self.is_real else 2)
        self.roots = self.log_volumes = None
        # Numbers in Theta, in theta and in psi of all layers
        self._sizes = (k * self.num_dims, self.num_layers * k, self.num_layers * k)
        sizes = (entries + 1, entries + 1, self.hidden_size, sum(self._sizes))
        self.hypernetwork = Hypernetwork(sizes, self.num_drops, name="hypernetwork")
        if self.num_drops == 1:
            self.built = True

    def build(self, y_shape, h_shape, s_shape):
        """Create the weights of the drops' covariances, for one number of antennas."""
        if self.num_drops == 1:
            return
        rows = 2 * y_shape[-1]

        def fixed(name, shape):
            return self.add_weight(
                name=name, shape=shape, initializer="zeros", trainable=False, autocast=False
            )

        self.roots = fixed("roots", (self.num_drops, self.num_streams, rows, rows))
        self.log_volumes = fixed("log_volumes", (self.num_drops,))

    @property
    def built_for_num_rx(self):
        return None if self.roots is None else self.roots.shape[-1] // 2

    def set_drops(self, covariances):
        """Set the covariances by which drops are recognised.

        Args:
            covariances: complex [num_drops, K, M, M] of the users' channels.

        Raises:
            InvalidInput: another shape, or the layer is not built yet.
        """
        if self.num_drops == 1:
            return
        if self.built_for_num_rx is None:
            raise InvalidInput("covariances: the layer is not built yet; call it first")
        covariances = np.asarray(covariances)
        num_rx = self.built_for_num_rx
        expected = (self.num_drops, self.num_streams, num_rx, num_rx)
        if covariances.shape != expected:
            raise InvalidInput(
                f"covariances: got shape {covariances.shape}, expected {expected}"
            )
        values, vectors = np.linalg.eigh(covariances)
        power = np.maximum(values.mean(-1, keepdims=True), 1e-12)
        values = np.maximum(values, 0.0) + _DIAGONAL_LOAD * power
        adjoint = np.swapaxes(vectors.conj(), -1, -2)
        root = (vectors / np.sqrt(values)[..., None, :]) @ adjoint
        parts = np.stack([root.real, root.imag], -1).astype(np.float32)
        self.roots.assign(complex_matrix(ops.convert_to_tensor(parts), False))
        self.log_volumes.assign(np.log(values).sum((-2, -1)).astype(np.float32))

    def drop_of(self, h):
        """The most likely drop int32 [B] of each channel h [B, 2M, N]."""
        columns = ops.swapaxes(h[..., : self.num_streams], -1, -2)  # [B, K, 2M]
        columns = ops.swapaxes(columns, 0, 1)[None]  # [1, K, B, 2M]
        white = ops.matmul(columns, self.roots)  # from the right: roots are symmetric
        energy = ops.sum(ops.square(white), axis=(1, 3))  # [drops, B]
        return ops.cast(ops.argmin(energy + self.log_volumes[:, None], axis=0), "int32")

    def detect(self, y, h, no):
        return self.all_logits(y, h, no)[-1]

    def all_logits(self, y, h, no, training=None):
        reduced, r = stacked_qr(y, h, self.num_streams)
        made = self.hypernetwork(self.features(r, no)[None])  # [drops, B, outputs]
        if self.num_drops == 1:
            made = made[0]
        else:
            count = ops.shape(made)[1]
            index = self.drop_of(h) * count + ops.arange(count, dtype="int32")
            made = ops.take(ops.reshape(made, (-1, made.shape[-1])), index, axis=0)
        return self._logits(made, reduced, r, no, y.shape[-1])

    def all_logits_by_drop(self, y, h, no):
        """`all_logits` of a batch in which drops alternate.

        Vector i belongs to drop i mod num_drops, as `LocalScatteringChannel` draws them.
        """
        drops = self.num_drops
        if y.shape[0] is None or y.shape[0] % drops:
            raise InvalidInput(
                f"y: batch size {y.shape[0]}, expected a multiple of num_drops = {drops}"
            )
        reduced, r = stacked_qr(y, h, self.num_streams)
        features = self.features(r, no)
        features = ops.reshape(features, (-1, drops, features.shape[-1]))
        made = ops.swapaxes(self.hypernetwork(ops.swapaxes(features, 0, 1)), 0, 1)
        made = ops.reshape(made, (-1, made.shape[-1]))
        return self._logits(made, reduced, r, no, y.shape[-1])

    def features(self, r, no):
        """The inputs of the hypernetwork: the upper triangle of R, and sqrt(N0)."""
        k = self.num_streams
        parts = [ops.reshape(r[:, :k, :k], (-1, k * k))]
        if not self.is_real:
            parts.append(ops.reshape(r[:, k:, :k], (-1, k * k)))
        above = constant(tuple(i * k + j for i in range(k) for j in range(i, k)), "int32")
        upper = [ops.take(p, above, axis=-1) for p in parts]
        return ops.concatenate(upper + [ops.sqrt(no)[:, None]], axis=-1)

    def _logits(self, made, y, r, no, num_dims):
        k, layers = self.num_streams, self.num_layers
        # `ops.split` reads the ends from a tensor on PyTorch, which torch.compile cannot trace
        ends = list(itertools.accumulate(self._sizes, initial=0))
        theta, scales, psi = (made[:, a:b] for a, b in zip(ends, ends[1:]))
        theta = ops.reshape(theta, (-1, k, k, self.num_dims // k))
        theta = theta[..., 0] if self.is_real else complex_matrix(theta, False)
        scales = ops.reshape(scales, (-1, layers, k))
        psi = ops.abs(ops.reshape(psi, (-1, layers, k))) + _MIN_PSI
        if not self.is_real:
            scales, psi = (ops.concatenate([p, p], axis=-1) for p in (scales, psi))
        noise_dims = num_dims if self.residual_noise == "rx" else None
        return self._unfold((theta, scales, psi), y, r, no, noise_dims)

    def _linear(self, layer, parameters, h):
        theta, scales, psi = parameters
        return theta * (1.0 + scales[:, layer, None]), psi[:, layer]

    def get_config(self):
        return {
            **super().get_config(),
            "hidden_size": self.hidden_size,
            "num_drops": self.num_drops,
            "residual_noise": self.residual_noise,
        }


@keras.saving.register_keras_serializable("linksim")
class HyperDetector(Detector):
    """HyperMIMO-LR: a hypernetwork makes the weights of any detector [Zilberstein21].

    Three dense layers, all with ELU, map H to all trained weights of a network, by default
    an MMNet on y and H (Sections 3 and 4.2). As in the published code, the first layer has
    as many units as the real 2M x 2K matrix has entries. Here H is given once, as 2MK
    numbers, and the W that is made is complex. The loss "teacher-distance" of
    `DetectorTask` trains with learned regularizers (eq. 3).

    Args:
        network: "mmnet", "detnet" or "oampnet2".
        network_options: dictionary of options of that detector, such as `num_layers`.
        hidden_sizes: numbers of units of all dense layers but the last; by default
            (4MK, 100).
        noise_input: give sqrt(N0) to the hypernetwork too, as [Goutay20] does. The
            teachers' weights do not depend on it.

    Weights:
        hypernetwork: kernels float32 [1, inputs, units] and biases.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    xla_on_cpu = True
    makes_networks = True

    def __init__(
        self,
        *args,
        network="mmnet",
        network_options=None,
        hidden_sizes=None,
        noise_input=False,
        **kwargs,
    ):
        super().__init__(*args, **kwargs)
        if hidden_sizes is not None:
            if not isinstance(hidden_sizes, (list, tuple)) or not hidden_sizes:
                raise InvalidInput(
                    f"hidden_sizes: got {hidden_sizes!r}, expected a list of integers"
                )
            for size in hidden_sizes:
                check_int("hidden_sizes", size)
        if not isinstance(noise_input, bool):
            raise InvalidInput(f"noise_input: got {noise_input!r}, expected True or False")
        self.hidden_sizes = None if hidden_sizes is None else list(hidden_sizes)
        self.noise_input = noise_input
        template = template_of(self, MADE_NETWORKS, network, network_options)
        if template.fixed_channels and template.num_channels > 1:
            raise InvalidInput("network_options.num_channels: expected 1, or nothing")
        # Inside a function Keras does not see the template, whose weights are not used
        self._template = lambda: template

    def build(self, y_shape, h_shape, s_shape):
        """Create all weights, which fit one number of antennas."""
        template = self._template()
        trained = trained_of(template, y_shape, h_shape, s_shape)
        self._num_rx = y_shape[-1]
        # The weights of networks for fixed channels have the channels' axis in front
        one = 1 if template.fixed_channels else 0
        self._shapes = [tuple(w.shape[one:]) for w in trained]
        entries = 2 * self._num_rx * self.num_streams
        hidden = self.hidden_sizes or [2 * entries, 100]
        inputs = entries + (1 if self.noise_input else 0)
        outputs = sum(math.prod(s) for s in self._shapes)
        self.hypernetwork = Hypernetwork(
            (inputs, *hidden, outputs), last="elu", name="hypernetwork"
        )

    @property
    def built_for_num_rx(self):
        return self._num_rx if self.built else None

    def detect(self, y, h, no):
        return self.all_logits(y, h, no)[-1]

    def all_logits(self, y, h, no, training=None):
        made = self.made_weights(h, no)
        ends = list(itertools.accumulate(math.prod(s) for s in self._shapes))
        parameters = [
            ops.reshape(made[:, end - math.prod(shape) : end], (-1, *shape))
            for end, shape in zip(ends, self._shapes)
        ]
        return logits_of_networks(self._template(), parameters, y, h, no)

    def made_weights(self, h, no):
        """The weights of the networks for h [B, 2M, N] and no [B]: float32 [B, P]."""
        columns = h[..., : self.num_streams]
        size = columns.shape[-2] * columns.shape[-1]
        features = ops.reshape(columns, (-1, size))
        if self.noise_input:
            features = ops.concatenate([features, ops.sqrt(no)[:, None]], axis=-1)
        return self.hypernetwork(features[None])[0]

    def weights_of_teachers(self, teachers):
        """The weights of trained networks, [C, P], in the order of `made_weights`.

        Args:
            teachers: a built `ChannelNetworks`.

        Raises:
            InvalidInput: the teachers are not networks of the kind that this layer makes.
        """
        per_channel = isinstance(teachers, ChannelNetworks)
        shapes = teachers.network_shapes if per_channel else None
        if shapes != self._shapes:
            raise InvalidInput(
                f"teachers: weights of shapes {shapes}, expected those of this layer's "
                f"{self.network}, {self._shapes}"
            )
        flat = [
            ops.reshape(w, (teachers.num_channels, -1)) for w in teachers.trainable_variables
        ]
        return ops.concatenate(flat, axis=-1)

    def get_config(self):
        return {
            **super().get_config(),
            "network": self.network,
            "network_options": self.network_options,
            "hidden_sizes": self.hidden_sizes,
            "noise_input": self.noise_input,
        }


class Hypernetwork(Float32Layer):
    """Several networks of dense layers, which are computed together.

    Args:
        sizes: the number of inputs, then the number of units of each layer.
        num_networks: the number of networks, each with weights of its own.
        last: activation of the last layer; the others have ELU.

    Call arguments:
        x: float32 [num_networks, n, inputs], or [1, n, inputs] for all networks.

    Returns:
        float32 [num_networks, n, units of the last layer].
    """

    def __init__(self, sizes, num_networks=1, last="linear", **kwargs):
        super().__init__(**kwargs)
        self._activations = ["elu"] * (len(sizes) - 2) + [last]
        self.kernels, self.biases = [], []
        for i, (inputs, units) in enumerate(itertools.pairwise(sizes)):
            limit = (
                6.0 / (inputs + units)
            ) ** 0.5  # Glorot's; Keras would count the networks in
            self.kernels.append(
                self.add_weight(
                    name=f"kernel_{i}",
                    shape=(num_networks, inputs, units),
                    initializer=keras.initializers.RandomUniform(-limit, limit),
                    autocast=False,
                )
            )
            self.biases.append(
                self.add_weight(
                    name=f"bias_{i}",
                    shape=(num_networks, 1, units),
                    initializer="zeros",
                    autocast=False,
                )
            )
        self.built = True

    def call(self, x):
        """Apply each network to its inputs."""
        for kernel, bias, activation in zip(self.kernels, self.biases, self._activations):
            x = ops.matmul(x, kernel) + bias
            if activation == "elu":
                x = ops.elu(x)
        return x
