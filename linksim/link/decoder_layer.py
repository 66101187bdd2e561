"""Deinterleaver and channel decoder of a scenario as one Keras layer."""

import keras

from linksim.backend import Float32Layer
from linksim.link.link import Link
from linksim.link.scenario import Scenario, scenario_from_dict


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
