"""MMNet: unfolded layers with a learned linear step."""

import keras
from keras import ops

from linksim.constellation import pam_posterior
from linksim.detectors.base import Detector
from linksim.detectors.perchannel import ChannelNetworks
from linksim.detectors.real import MIN_ERROR_VARIANCE, matvec, stacked_matrix
from linksim.errors import check_int

# Added to |theta|, so that no variance becomes zero
_MIN_SCALE = 1e-6


class UnfoldedDetector(Detector):
    """Base class of the MMNets [Khani20].

    In N real dimensions with s2 = N0/2, a layer computes [Goutay20, eq. 8 to 10]:
        - z = x + W (y - Hx);
        - v2 = (|y - Hx|^2 - 2M s2)/tr(H'H);
        - tau2 = theta (v2 |I - WH|^2 + s2 |W|^2)/N;
        - x is the posterior mean given z with error variance tau2.

    A subclass implements `_linear`.

    Args:
        num_layers: the number of layers.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    xla_on_cpu = True

    def __init__(self, *args, num_layers=10, **kwargs):
        super().__init__(*args, **kwargs)
        check_int("num_layers", num_layers)
        self.num_layers = int(num_layers)

    def _linear(self, layer, parameters, h):
        """W of a layer, [B or 1 or C, N, 2M], and theta, which broadcasts to z."""
        raise NotImplementedError

    def _unfold(self, parameters, y, h, no, noise_dims=None):
        """PAM logits of every layer.

        Args:
            parameters: passed on to `_linear`.
            y: [B, 2M], one vector for each h, or [C, n, 2M], n for each.
            h: [B, 2M, N] or [C, 2M, N].
            no: [B] or [C, n].
            noise_dims: the number of real dimensions whose noise is subtracted from
                |y - Hx|^2; by default 2M.

        Returns:
            list of [B, N, L] or [C, n, N, L].
        """
        s2 = no[..., None] / 2.0
        noise = (noise_dims or y.shape[-1]) * s2
        power = _beside(ops.sum(ops.square(h), axis=(-2, -1)), y)
        power = ops.maximum(power, 1e-8 * s2)  # a channel may be zero
        x = ops.zeros(tuple(ops.shape(y)[:-1]) + (self.num_dims,))
        every = []
        for layer in range(self.num_layers):
            residual = y - _product(h, x)
            error = ops.sum(ops.square(residual), axis=-1, keepdims=True)
            v2 = ops.maximum((error - noise) / power, MIN_ERROR_VARIANCE)
            w, theta = self._linear(layer, parameters, h)
            spread = ops.square(ops.eye(self.num_dims) - ops.matmul(w, h))
            spread = _beside(ops.sum(spread, axis=(-2, -1)), y)
            gain = _beside(ops.sum(ops.square(w), axis=(-2, -1)), y)
            tau2 = theta * (v2 * spread + s2 * gain) / self.num_dims
            tau2 = ops.maximum(tau2, MIN_ERROR_VARIANCE)
            logits, x, _ = pam_posterior(x + _product(w, residual), tau2, self.levels)
            every.append(logits)
        return every

    def get_config(self):
        return {**super().get_config(), "num_layers": self.num_layers}


@keras.saving.register_keras_serializable("linksim")
class MMNetIIDDetector(UnfoldedDetector):
    """MMNet-iid: W = w H', with two learned numbers per layer [Khani20].

    In each layer w scales the matched filter and theta the variance, so one network
    serves all channels of the distribution that it was trained on. Both start at 1,
    which suits coefficients of power 1/M, because H'H is near I then.

    Args:
        num_layers: the number of layers.

    Weights:
        scalars: float32 [num_layers, 2], w and theta.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scalars = self.add_weight(
            name="scalars",
            shape=(self.num_layers, 2),
            initializer="ones",
            autocast=False,
        )
        self.built = True

    def detect(self, y, h, no):
        return self.all_logits(y, h, no)[-1]

    def all_logits(self, y, h, no, training=None):
        return self._unfold(None, y, h, no)

    def _linear(self, layer, parameters, h):
        w, theta = self.scalars[layer, 0], self.scalars[layer, 1]
        return w * ops.swapaxes(h, -1, -2), ops.abs(theta) + _MIN_SCALE


@keras.saving.register_keras_serializable("linksim")
class MMNetDetector(ChannelNetworks, UnfoldedDetector):
    """MMNet: a linear step W learned for every layer and every fixed channel [Khani20].

    The layer holds the networks of `num_channels` channels, see
    `linksim.detectors.perchannel.ChannelNetworks`. W is complex, [[Re, -Im], [Im, Re]],
    and starts at N(0, 0.01^2); theta is one number per real dimension. The published code
    divides tau2 by theta. Here |theta| multiplies it, as in [Goutay20], eq. 9.

    Args:
        num_layers: the number of layers.
        num_channels: the number of channels that the layer has networks for.

    Weights:
        linear: float32 [num_channels, num_layers, K, M, 2], the real and imaginary
            parts of W.
        theta: float32 [num_channels, num_layers, N].
        channels: float32 [num_channels, 2M, N], the channels; not trained.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    def build(self, y_shape, h_shape, s_shape):
        """Create all weights, which fit one number of antennas."""
        num_rx, count = y_shape[-1], self.num_channels
        self.linear = self.add_weight(
            name="linear",
            shape=(count, self.num_layers, self.num_streams, num_rx, 2),
            initializer=keras.initializers.RandomNormal(stddev=0.01),
        )
        self.theta = self.add_weight(
            name="theta",
            shape=(count, self.num_layers, self.num_dims),
            initializer=keras.initializers.RandomNormal(1.0, 0.1),
        )
        self._add_channels(num_rx)

    def logits_of_networks(self, parameters, y, h, no):
        linear, theta = parameters
        weights = complex_matrix(linear, self.is_real)
        theta = ops.abs(theta) + _MIN_SCALE
        if len(y.shape) == 3:
            theta = theta[:, :, None]
        return self._unfold((weights, theta), y, h, no)

    def _linear(self, layer, parameters, h):
        weights, theta = parameters
        return weights[:, layer], theta[:, layer]


def complex_matrix(parts, is_real):
    """[[Re, -Im], [Im, Re]] of parts [..., I, J, 2], and for BPSK its upper half."""
    matrix = stacked_matrix(parts[..., 0], parts[..., 1])
    return matrix[..., : parts.shape[-3], :] if is_real else matrix


def _product(a, x):
    """a [B, I, J] times x [B, J], or a [C, I, J] times each of the n x in [C, n, J]."""
    if len(x.shape) == 2:
        return matvec(a, x)
    return ops.matmul(x, ops.swapaxes(a, -1, -2))


def _beside(value, y):
    """Reshape one number per matrix, [B] or [C], to broadcast to vectors like y."""
    return ops.reshape(value, (-1,) + (1,) * (len(y.shape) - 1))
