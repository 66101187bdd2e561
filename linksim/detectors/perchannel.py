"""Detectors whose networks belong to one fixed channel each."""

import functools

import keras
from keras import ops

from linksim.backend import compiled, is_eager_tensorflow
from linksim.detectors.base import Detector
from linksim.detectors.detnet import DetNetDetector
from linksim.detectors.oampnet import OAMPNet2Detector
from linksim.detectors.real import complex_to_real_matrix, with_zeros
from linksim.errors import InvalidInput, check_choice, check_int
from linksim.factories import check_options


class ChannelNetworks(Detector):
    """Base class of layers that hold the networks of `num_channels` channels.

    `set_channels` sets the channels, which are zero before. `all_logits_by_channel` trains
    all networks at once as one batched model. A call is that of any detector: it gives
    each vector to the network whose channel is nearest to the vector's H in Frobenius
    norm. The noise should be white, because whitening changes H.

    Every trainable weight has `num_channels` as its first axis. A subclass creates the
    weights in `build`, where it also calls `_add_channels`, and implements
    `logits_of_networks`.

    Args:
        num_channels: the number of channels that the layer has networks for.

    Weights:
        channels: float32 [num_channels, 2M, N], the channels; not trained.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    fixed_channels = True

    def __init__(self, *args, num_channels=1, **kwargs):
        super().__init__(*args, **kwargs)
        check_int("num_channels", num_channels)
        self.num_channels = int(num_channels)

    def logits_of_networks(self, parameters, y, h, no):
        """PAM logits of every layer of networks with given weights.

        Args:
            parameters: the trainable weights, a list of [C, ...] with one network for
                each matrix, or of [1, ...] with one for all.
            y: [B, 2M], one vector for each of C = B matrices, or [C, n, 2M], n for each.
            h: [B, 2M, N] or [C, 2M, N].
            no: [B] or [C, n].

        Returns:
            list of [B, N, L] or [C, n, N, L].
        """
        raise NotImplementedError

    def _add_channels(self, num_rx):
        self.channels = self.add_weight(
            name="channels",
            shape=(self.num_channels, 2 * num_rx, self.num_dims),
            initializer="zeros",
            trainable=False,
        )

    @property
    def built_for_num_rx(self):
        return self.channels.shape[1] // 2 if self.built else None

    @property
    def network_shapes(self):
        """The shapes of the trained weights of one network."""
        return [tuple(w.shape[1:]) for w in self.trainable_variables]

    def set_channels(self, h):
        """Set the channels that the networks belong to.

        Args:
            h: complex64 [num_channels, M, K].

        Raises:
            InvalidInput: another shape, or the layer has no weights yet.
        """
        if not self.built:
            raise InvalidInput("h: the layer has no weights yet; call or build it first")
        h = ops.convert_to_tensor(h)
        num_rx = self.channels.shape[1] // 2
        expected = (self.num_channels, num_rx, self.num_streams)
        if tuple(h.shape) != expected:
            raise InvalidInput(f"h: got shape {tuple(h.shape)}, expected {expected}")
        self.channels.assign(complex_to_real_matrix(h)[..., : self.num_dims])

    def warm_start(self, other):
        """Copy the networks of another layer with as many channels, to train on from them.

        In sequences of channels `other` has the networks of the hop before.

        Raises:
            InvalidInput: `other` is another kind of layer, its weights have other shapes,
                or one of the two has no weights yet. Nothing is copied then.
        """
        if type(other) is not type(self):
            raise InvalidInput(
                f"other: got {type(other).__name__}, expected {type(self).__name__}"
            )
        if not (self.built and other.built):
            raise InvalidInput("other: a layer has no weights yet; call or build both first")
        sources, targets = other.trainable_variables, self.trainable_variables
        if len(sources) != len(targets):
            raise InvalidInput(
                f"other: it has {len(sources)} weights, expected {len(targets)}"
            )
        for source, target in zip(sources, targets):
            if source.shape != target.shape:
                raise InvalidInput(
                    f"other: {target.name} has shape {tuple(source.shape)}, expected "
                    f"{tuple(target.shape)}"
                )
        for source, target in zip(sources, targets):
            target.assign(source)

    def detect(self, y, h, no):
        return self.all_logits(y, h, no)[-1]

    def all_logits(self, y, h, no, training=None):
        parameters = [ops.convert_to_tensor(w) for w in self.trainable_variables]
        if self.num_channels > 1:
            nearest = self.nearest_channel(h)
            parameters = [ops.take(w, nearest, axis=0) for w in parameters]
        return self.logits_of_networks(parameters, y, h, no)

    def all_logits_by_channel(self, y, h, no):
        """`all_logits` of a batch that is ordered by channel.

        The first B/num_channels vectors go to the first network, the next to the second,
        and so on. The H of a network's first vector is taken for all of its vectors.
        """
        count = self.num_channels
        if y.shape[0] is None or y.shape[0] % count:
            raise InvalidInput(
                f"y: batch size {y.shape[0]}, expected a multiple of num_channels = {count}"
            )
        parameters = [ops.convert_to_tensor(w) for w in self.trainable_variables]
        y, h, no = (ops.reshape(x, (count, -1) + tuple(x.shape[1:])) for x in (y, h, no))
        every = self.logits_of_networks(parameters, y, h[:, 0], no)
        return [ops.reshape(x, (-1,) + tuple(x.shape[2:])) for x in every]

    def nearest_channel(self, h):
        """The index int32 [B] of the channel nearest to each h [B, 2M, N]."""
        size = h.shape[-2] * h.shape[-1]
        stored = ops.reshape(self.channels, (self.num_channels, size))
        products = ops.matmul(ops.reshape(h, (-1, size)), ops.transpose(stored))
        distance = ops.sum(ops.square(stored), axis=-1) - 2.0 * products
        return ops.argmin(distance, axis=-1)

    def get_config(self):
        return {**super().get_config(), "num_channels": self.num_channels}


# Detectors of which there can be one network per channel, by the names that options use
NETWORKS = {"detnet": DetNetDetector, "oampnet2": OAMPNet2Detector}


def template_of(detector, networks, network, options):
    """The detector whose weights a layer holds or makes.

    Args:
        detector: the layer. Its `network` and `network_options` are set.
        networks: {name: class}.
        network: one of the names.
        options: a dictionary of that class's options, or None.

    Returns:
        A detector of that class for as many streams and bits as `detector`.

    Raises:
        InvalidInput: another name, or options that the class does not take.
    """
    check_choice("network", network, networks)
    if options is not None and not isinstance(options, dict):
        raise InvalidInput(f"network_options: got {options!r}, expected a dictionary")
    detector.network, detector.network_options = network, dict(options or {})
    check_options("network_options", networks[network], detector.network_options)
    return networks[network](
        detector.num_streams, detector.num_bits_per_symbol, **detector.network_options
    )


@keras.saving.register_keras_serializable("linksim")
class FixedChannelDetector(ChannelNetworks):
    """DetNet for fixed channels [Samuel17], or another network, one for each channel.

    The DetNet-FC of [Zilberstein21], Sections 1 and 4.3, is `detnet` on one channel. The
    networks of many channels are teachers for a hypernetwork
    (`linksim.detectors.hypermimo.HyperDetector`). All networks start from the same random
    weights, so that those of similar channels stay similar.

    Args:
        network: "detnet" or "oampnet2".
        network_options: dictionary of options of that detector.
        num_channels: the number of channels that the layer has networks for.

    Weights:
        stacked: the trained weights of the network, each with an axis of `num_channels`
            in front.
        channels: float32 [num_channels, 2M, N], the channels; not trained.

    Raises:
        InvalidInput: (a `ValueError`) an option is out of range.
    """

    xla_on_cpu = True

    def __init__(self, *args, network="detnet", network_options=None, **kwargs):
        super().__init__(*args, **kwargs)
        template = template_of(self, NETWORKS, network, network_options)
        # Inside a function Keras does not see the template, whose weights are not used
        self._template = lambda: template

    def build(self, y_shape, h_shape, s_shape):
        """Create all weights, which fit one number of antennas."""
        self.stacked = [
            self.add_weight(
                name=f"stacked_{i}",
                shape=(self.num_channels, *weight.shape),
                initializer=_repeated(weight),
                autocast=False,
            )
            for i, weight in enumerate(trained_of(self._template(), y_shape, h_shape, s_shape))
        ]
        self._add_channels(y_shape[-1])

    def logits_of_networks(self, parameters, y, h, no):
        return logits_of_networks(self._template(), parameters, y, h, no)

    def get_config(self):
        return {
            **super().get_config(),
            "network": self.network,
            "network_options": self.network_options,
        }


def _repeated(weight):
    """An initializer that gives every channel the value of one weight."""
    # PyTorch's broadcast is a view of fewer numbers, which no optimizer could change
    return lambda shape, dtype=None: ops.convert_to_tensor(weight) * ops.ones(shape, dtype)


def trained_of(network, y_shape, h_shape, s_shape):
    """The trained weights of a detector, which is built for these shapes if need be.

    Raises:
        InvalidInput: the detector has other weights too, such as moving averages, which
            no channel determines.
    """
    if not network.built:
        network.build(y_shape, h_shape, s_shape)
    own = {"channels"} if isinstance(network, ChannelNetworks) else set()
    others = [w.name for w in network.non_trainable_variables if w.name not in own]
    if others:
        raise InvalidInput(
            f"network: {type(network).__name__} has weights that are not trained "
            f"({', '.join(others)}), which cannot be made for a channel"
        )
    return network.trainable_variables


def logits_of_networks(network, parameters, y, h, no):
    """`ChannelNetworks.logits_of_networks` for networks that are any detector.

    Args:
        network: a built `Detector`, whose own weights are not used.
        parameters: values for its trainable weights, each with an axis in front.
        y, h, no: as there.
    """
    if isinstance(network, ChannelNetworks):
        return network.logits_of_networks(parameters, y, h, no)
    arguments = network, list(parameters), y, h, no
    # In an eager call every network would be a step of Python
    if is_eager_tensorflow():
        return _in_turn_compiled()(*arguments)
    return _in_turn(*arguments)


@functools.cache
def _in_turn_compiled():
    return compiled(_in_turn, xla=True)


def _in_turn(network, parameters, y, h, no):
    weights = network.trainable_variables

    def with_weights(values, y, h, no):
        with keras.StatelessScope(state_mapping=list(zip(weights, values))):
            return network.all_logits(y, h, no)

    each = len(y.shape) == 2
    if each and parameters[0].shape[0] == 1:
        return with_weights([p[0] for p in parameters], y, h, no)
    if each:
        y, no = y[:, None], no[:, None]

    def of_one(elements):
        values, y, h, no = elements
        h = ops.broadcast_to(h, (ops.shape(y)[0], *h.shape))
        return with_weights(values, y, h, no)

    # Not vectorised: TensorFlow's vectorized_map of these products crashes in oneDNN
    elements = (parameters, y, h, no)
    if unknown := y.shape[0] is None:
        elements = ([with_zeros(p) for p in parameters], *map(with_zeros, (y, h, no)))
    every = [x[:-1] if unknown else x for x in ops.map(of_one, elements)]
    return [x[:, 0] for x in every] if each else every
