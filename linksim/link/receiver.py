"""What stands between the channel and the decoder: a detector, perhaps a quantizer."""

from linksim.detectors.base import check_column_rank
from linksim.errors import InvalidInput
from linksim.models import find_model
from linksim.quantization.base import Unquantized
from linksim.quantization.registry import create_quantizer
from linksim.registry import LATENT, create_detector, is_learned, parse_receiver


class Receiver:
    """A detector of the registry, with a quantizer of its LLRs where one is named.

    Trained detectors and quantizers come with their shipped weights: those trained
    on a scenario of this name if there are, else the first that fit the system.

    Args:
        name: `DETECTOR[:POINT][+QUANTIZER[:BITS]]` (see `parse_receiver`).
        scenario: the `Scenario`.

    Attributes:
        detector: the layer.
        quantizer: layer called with the LLRs, or None.
        detection: name of the detection alone: receivers that differ in their
            quantizer only have it in common.
        weights: {"<model>/<configuration>": SHA-256} of all weights in use.

    Raises:
        InvalidInput: unknown names, no weights that fit, more streams than receive
            antennas for a detector that cannot take that.
    """

    def __init__(self, name, scenario):
        system = scenario.system
        args = {
            "num_streams": system.num_streams,
            "num_bits_per_symbol": system.num_bits_per_symbol,
        }
        spec = parse_receiver(name)
        self.detection = name if spec.quantizer == LATENT else name.partition("+")[0]
        self.weights = {}
        self.quantizer = None
        options = {}
        if is_learned(spec.detector):
            card = self._model(spec.detector, spec.detector_model, args, scenario)
            options["pretrained"] = card["configuration"]
        if spec.quantizer == LATENT:
            options["latent_bits"] = 6 if spec.bits is None else spec.bits
            self._model(*card["autoencoder"].split("/"), args, scenario)
        elif spec.quantizer is not None:
            self.quantizer, weights = quantizer_of_scenario(
                spec.quantizer, spec.quantizer_model, spec.bits, scenario
            )
            self.weights.update(weights)
        self.detector = create_detector(spec.detector, **args, **options)
        if spec.operating_point:
            if not hasattr(self.detector, "slim"):
                raise InvalidInput(f"detector: {spec.detector} has no operating points")
            self.detector = self.detector.slim(**spec.operating_point)
        check_column_rank(self.detector, system.num_rx, spec.detector)

    def _model(self, name, configuration, args, scenario):
        """Card of the weights to use, noted in `weights`."""
        path, card = find_model(name, **args, configuration=configuration, scenario=scenario)
        self.weights[path] = card["sha256"]
        return card


def quantizer_of_scenario(name, configuration, bits, scenario):
    """A quantizer with its shipped weights, as `Receiver` has it.

    Args:
        name, configuration, bits: of `parse_quantizer`.
        scenario: the `Scenario`.

    Returns:
        A layer called with LLRs, and {"<model>/<configuration>": SHA-256}.

    Raises:
        InvalidInput: no weights that fit, or no codebook of that many bits.
    """
    args = {
        "num_streams": scenario.system.num_streams,
        "num_bits_per_symbol": scenario.system.num_bits_per_symbol,
    }
    path, card = find_model(name, **args, configuration=configuration, scenario=scenario)
    args["pretrained"] = card["configuration"]
    if bits == "none":
        layer = Unquantized(create_quantizer(name, **args))
    else:
        layer = create_quantizer(name, bits=bits, **args)
    return layer, {path: card["sha256"]}
