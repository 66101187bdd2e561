"""Deinterleaver and channel decoder of a scenario as one Keras layer, alone or in a loop with
the detector."""

import keras

from linksim.backend import Float32Layer
from linksim.link.link import Link
from linksim.link.scenario import Scenario, scenario_from_dict
from linksim.link.turbo import Exchange, decode_in_passes
from linksim.registry import build_detector


@keras.saving.register_keras_serializable("linksim")
class BitDecoder(Float32Layer):
    """Decides the information bits of the blocks of a scenario.

    Args:
        scenario: the `Scenario`, or the dictionary of its `to_dict`.
        stopping: end the decoding of a codeword when its parity checks hold, as
            simulations do. False gives every codeword all iterations, in one plain loop.

    Call arguments:
        llrs: float32 [B, U, K, m], `log p(b=1)/p(b=0)` of the U channel uses of a block.

    Returns:
        float32 [B, k], 0 or 1.
    """

    def __init__(self, scenario, stopping=True, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not isinstance(scenario, Scenario):
            scenario = scenario_from_dict(scenario)
        self.scenario = scenario
        self.stopping = stopping
        # Keras tracks attributes but not what a function holds, and a link has no weights
        link = Link(scenario)
        self._link = lambda: link

    @property
    def link(self):
        """The `Link` of the scenario."""
        return self._link()

    def call(self, llrs):
        if self.stopping:
            return self.link.decode(llrs)
        return self.link.code.decode_without_stopping(self.link.codeword_llrs(llrs))

    def compute_output_spec(self, llrs):
        return keras.KerasTensor((llrs.shape[0], self.link.num_info_bits), "float32")

    def get_config(self):
        return {
            **super().get_config(),
            "scenario": self.scenario.to_dict(),
            "stopping": self.stopping,
        }


@keras.saving.register_keras_serializable("linksim")
class IterativeReceiver(Float32Layer):
    """Decides the information bits of the blocks of a scenario, in several passes.

    Every block gets all passes, while a simulation makes no more once parity holds. The
    bits are the same: those of the first pass after which it holds.

    Args:
        scenario: the `Scenario`, or the dictionary of its `to_dict`.
        detector: a detector layer with `accepts_prior`.
        num_passes: passes of detector and decoder.
        quantizer: a layer that is called with the extrinsic LLRs, or None.

    Call arguments:
        y, h, s: of the U channel uses of a block, [B, U, ...], as the detector takes them.

    Returns:
        float32 [B, k], 0 or 1.
    """

    def __init__(self, scenario, detector, num_passes, quantizer=None, **kwargs):
        super().__init__(autocast=False, **kwargs)
        if not isinstance(scenario, Scenario):
            scenario = scenario_from_dict(scenario)
        self.scenario = scenario
        self.detector = detector
        self.num_passes = num_passes
        self.quantizer = quantizer
        # Keras tracks attributes but not what a function holds, and a link has no weights
        link = Link(scenario)
        self._link = lambda: link

    @property
    def link(self):
        """The `Link` of the scenario."""
        return self._link()

    def build(self, y_shape, h_shape=None, s_shape=None):
        if not self.detector.built:
            build_detector(self.detector, y_shape[-1])

    def call(self, y, h, s):
        exchange = Exchange(self.link, self.detector)
        quantize = (lambda llrs: llrs) if self.quantizer is None else self.quantizer
        llrs, _ = self.detector.llrs_and_symbols(y, h, s)
        return decode_in_passes(exchange, quantize, y, h, s, llrs, self.num_passes)

    def compute_output_spec(self, y, h, s):
        return keras.KerasTensor((y.shape[0], self.link.num_info_bits), "float32")

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            **super().get_config(),
            "scenario": self.scenario.to_dict(),
            "detector": serialize(self.detector),
            "num_passes": self.num_passes,
            "quantizer": None if self.quantizer is None else serialize(self.quantizer),
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for key in ("detector", "quantizer"):
            if config[key] is not None:
                config[key] = keras.saving.deserialize_keras_object(config[key])
        return cls(**config)
