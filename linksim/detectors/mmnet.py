"""MMNet: iterative soft thresholding with a linear step learned for each channel."""

import keras
from keras import ops

from linksim.constellation import pam_posterior
from linksim.detectors.base import Detector
from linksim.detectors.perchannel import ChannelNetworks
from linksim.detectors.real import matvec
from linksim.errors import check_int

_MIN_VARIANCE = 1e-9
MIN_SCALE = 1e-6


class UnfoldedDetector(Detector):
    """What the MMNets share: layers of `z = x + W (y - Hx)`, x = E[. | z].

    Per layer, in N real dimensions with s2 = N0/2 (Khani et al., IEEE TWC 19, 2020;
    002_d77fd6388d485033.txt, eq. 8 to 10): v2 = (|y - Hx|^2 - 2M s2)/tr(H'H);
    tau2 = theta (v2 |I - WH|^2 + s2 |W|^2)/N; x is the posterior mean of z at tau2.

    A subclass implements `_linear`.
    """

    xla_on_cpu = True

    def __init__(self, *args, num_layers=10, **kwargs):
        super().__init__(*args, **kwargs)
        check_int("num_layers", num_layers)
        self.num_layers = int(num_layers)

    def _linear(self, layer, parameters, h):
        """W [B or 1 or C, N, 2M] of a layer, and theta beside z."""
        raise NotImplementedError

    def _unfold(self, parameters, y, h, no, noise_dims=None):
        """PAM logits of every layer, list of [B, N, L] or [C, n, N, L].

        Args:
            parameters: handed on to `_linear`.
            y: [B, 2M], one vector for each h; or [C, n, 2M], n for each.
            h: [B, 2M, N] or [C, 2M, N].
            no: [B] or [C, n].
            noise_dims: real dimensions whose noise is taken off |y - Hx|^2; 2M unless
                said.
        """
        s2 = no[..., None] / 2.0
        noise = (noise_dims or y.shape[-1]) * s2
        power = _beside(ops.sum(ops.square(h), axis=(-2, -1)), y)
        power = ops.maximum(power, 1e-8 * s2)  # a zero channel says nothing
        x = ops.zeros(tuple(ops.shape(y)[:-1]) + (self.num_dims,))
        every = []
        for layer in range(self.num_layers):
            residual = y - _product(h, x)
            error = ops.sum(ops.square(residual), axis=-1, keepdims=True)
            v2 = ops.maximum((error - noise) / power, _MIN_VARIANCE)
            w, theta = self._linear(layer, parameters, h)
            spread = ops.square(ops.eye(self.num_dims) - ops.matmul(w, h))
            spread = _beside(ops.sum(spread, axis=(-2, -1)), y)
            gain = _beside(ops.sum(ops.square(w), axis=(-2, -1)), y)
            tau2 = theta * (v2 * spread + s2 * gain) / self.num_dims
            tau2 = ops.maximum(tau2, _MIN_VARIANCE)
            logits, x, _ = pam_posterior(x + _product(w, residual), tau2, self.points)
            every.append(logits)
        return every

    def get_config(self):
        return {**super().get_config(), "num_layers": self.num_layers}


@keras.saving.register_keras_serializable("linksim")
class MMNetIIDDetector(UnfoldedDetector):
    """MMNet-iid (Khani et al., IEEE TWC 19, 2020): W = w H' with two numbers a layer.

    w scales the matched filter and theta the variance, one of each per layer, so that
    one network serves any channel of the distribution it was trained on. It starts
    at w = theta = 1, where H'H is near I for coefficients of power 1/M.

    Args:
        num_layers: layers.

    Weights:
        scalars: float32 [num_layers, 2], w and theta.
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
        return w * ops.swapaxes(h, -1, -2), ops.abs(theta) + MIN_SCALE


@keras.saving.register_keras_serializable("linksim")
class MMNetDetector(ChannelNetworks, UnfoldedDetector):
    """MMNet (Khani et al., IEEE TWC 19, 2020): its own W for every layer and channel.

    One layer holds the networks of `num_channels` channels, see
    `linksim.detectors.perchannel.ChannelNetworks`. W is complex,
    [[Re, -Im], [Im, Re]], and theta is one number per real dimension.
    In the published code tau2 is divided by theta, and W starts at N(0, 0.01^2);
    here theta multiplies, as in 002_d77fd6388d485033.txt, eq. 9, and is |theta|.

    Args:
        num_layers: layers.
        num_channels: channels that the layer has networks for.

    Weights:
        linear: float32 [num_channels, num_layers, K, M, 2], real and imaginary part
            of W.
        theta: float32 [num_channels, num_layers, N].
        channels: float32 [num_channels, 2M, N], the channels; not trained.

    Raises:
        InvalidInput: (a `ValueError`) for options out of range.
    """

    def build(self, y_shape, h_shape, s_shape):
        """Create all weights; they fit one number of antennas."""
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
        theta = ops.abs(theta) + MIN_SCALE
        if len(y.shape) == 3:
            theta = theta[:, :, None]
        return self._unfold((weights, theta), y, h, no)

    def _linear(self, layer, parameters, h):
        weights, theta = parameters
        return weights[:, layer], theta[:, layer]


def complex_matrix(parts, is_real):
    """[[Re, -Im], [Im, Re]] of parts [..., I, J, 2]; for BPSK the upper half."""
    real, imag = parts[..., 0], parts[..., 1]
    matrix = ops.concatenate([real, -imag], axis=-1)
    if is_real:
        return matrix
    return ops.concatenate([matrix, ops.concatenate([imag, real], axis=-1)], axis=-2)


def _product(a, x):
    """a [B, I, J] times x [B, J], or a [C, I, J] times each of x [C, n, J]."""
    if len(x.shape) == 2:
        return matvec(a, x)
    return ops.matmul(x, ops.swapaxes(a, -1, -2))


def _beside(value, y):
    """One number per matrix, [B] or [C], shaped to multiply vectors like y."""
    return ops.reshape(value, (-1,) + (1,) * (len(y.shape) - 1))
