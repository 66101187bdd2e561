"""The capabilities of detectors, which are declared, so that nobody probes for them."""

from linksim.errors import InvalidInput

# The detectors whose `accepts_prior` is true, by their names in the registry
ACCEPT_PRIOR: tuple[str, ...] = (
    *("mmse", "ml", "sphere", "kbest", "ep", "pep", "lord", "pepnet", "amp", "oamp"),
    *("eqnet-l-prior", "oampnet", "oampnet2", "wes-oampnet", "rwes-oampnet"),
    *("remimo-mf", "remimo-lmmse", "remimo-pic", "sionna-mmse-pic", "sionna-ml"),
)


class Capabilities:
    """The capabilities that receivers, training and exports ask for, with their defaults.

    `Detector` inherits them, and so can any other class that is used like a detector. A
    class that can do more overrides the attribute, and the methods that go with it. The
    methods here raise `InvalidInput`.

    For detection:
        accepts_prior: the call takes a-priori LLRs or logits, and `detect` the PAM logits
            that they make.
        any_num_streams: the weights do not depend on K, and zero columns of H are
            absent streams. Such a detector also takes an `h` of fewer columns than
            `num_streams`, or of an unknown number, and returns as many streams as `h`
            has.
        needs_full_column_rank: M >= K is required.
        built_for_num_rx: the number of receive antennas that the weights fit, or None
            for any.
        eager_only: the detector cannot be traced into a graph.
        xla_on_cpu: a hint that on CPU the detector is faster with XLA.
        weight_scaled: `slim` makes a smaller copy, and `layer_norms` gives the norms for
            the log-L1 penalty.
        latent_bits: the bits of each latent component, of a detector that quantizes its
            latents; else None.

    For training:
        trained_weights: the weights that training makes.
        factored: `all_logits` gives the logits of PAM levels; if False, those of symbols.
        depth: the number of unfolded layers that `layer_norms` or `all_estimates` has
            entries for; else 1.
        has_estimates: there is `all_estimates`.
        fixed_channels: the weights belong to fixed channels. There are `set_channels`
            and `all_logits_by_channel`.
        num_drops: the number of user drops with networks of their own; else 0. There are
            `set_drops` and `all_logits_by_drop`.
        makes_networks: a hypernetwork makes the weights of another detector. There are
            `made_weights` and `weights_of_teachers`.
    """

    accepts_prior = False
    any_num_streams = False
    needs_full_column_rank = False
    eager_only = False
    xla_on_cpu = False
    weight_scaled = False
    latent_bits = None
    factored = True
    depth = 1
    has_estimates = False
    fixed_channels = False
    num_drops = 0
    makes_networks = False

    @property
    def built_for_num_rx(self):
        """The number of receive antennas that the weights fit, or None for any."""
        return None

    @property
    def trained_weights(self):
        """The weights that training makes, without those that are fitted later."""
        return self.weights

    def slim(self, fraction=None, num_layers=None):
        """A smaller copy; see `WeightScaled.slim`."""
        raise self._lacks("operating points")

    def layer_norms(self):
        """Norms of the scaled weights of each layer; see `WeightScaled.layer_norms`."""
        raise self._lacks("weight-scaled layers")

    def all_estimates(self, y, h, no):
        """Estimates of the sent levels, float32 [B, N], in a list: one of each unfolded
        layer, or of the last one alone. Arguments are those of `Detector.detect`, the
        prior only where `accepts_prior` is set."""
        raise self._lacks("estimates of its layers")

    def set_channels(self, h):
        """Set the fixed channels; see `ChannelNetworks.set_channels`."""
        raise self._lacks("networks per channel")

    def all_logits_by_channel(self, y, h, no):
        """Logits of a batch that is ordered by channel; see `ChannelNetworks`."""
        raise self._lacks("networks per channel")

    def set_drops(self, covariances):
        """Set the user drops; see `HyperMIMODetector.set_drops`."""
        raise self._lacks("networks per user drop")

    def all_logits_by_drop(self, y, h, no):
        """Logits of a batch in which drops alternate; see `HyperMIMODetector`."""
        raise self._lacks("networks per user drop")

    def made_weights(self, h, no):
        """Weights made for channels; see `HyperDetector.made_weights`."""
        raise self._lacks("hypernetwork to teach")

    def weights_of_teachers(self, teachers):
        """What `made_weights` should make; see `HyperDetector.weights_of_teachers`."""
        raise self._lacks("hypernetwork to teach")

    def _lacks(self, what):
        return InvalidInput(f"{type(self).__name__} has no {what}")
