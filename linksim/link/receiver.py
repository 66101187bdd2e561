"""What stands between the channel and the decoder: a detector, perhaps a quantizer."""

from linksim.detectors.base import check_column_rank
from linksim.errors import InvalidInput
from linksim.models import find_model
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
        quantizer: function of the LLRs, or None.
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
            self._set_quantizer(spec, args, scenario)
        self.detector = create_detector(spec.detector, **args, **options)
        if spec.operating_point:
            if not hasattr(self.detector, "slim"):
                raise InvalidInput(f"detector: {spec.detector} has no operating points")
            self.detector = self.detector.slim(**spec.operating_point)
        check_column_rank(self.detector, system.num_rx, spec.detector)

    def _set_quantizer(self, spec, args, scenario):
        card = self._model(spec.quantizer, spec.quantizer_model, args, scenario)
        args = {**args, "pretrained": card["configuration"]}
        if spec.bits != "none":
            self.quantizer = create_quantizer(spec.quantizer, bits=spec.bits, **args)
            return
        layer = create_quantizer(spec.quantizer, **args)
        self.quantizer = lambda llrs: layer.decode(layer.encode(llrs))

    def _model(self, name, configuration, args, scenario):
        """Card of the weights to use, noted in `weights`."""
        path, card = find_model(
            name, **args, configuration=configuration, scenario=scenario
        )
        self.weights[path] = card["sha256"]
        return card
