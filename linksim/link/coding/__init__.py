"""Channel codes behind one interface, on Sionna's encoders and decoders.

A code has `num_info_bits` k, `num_coded_bits` n, `coderate`, `encode`, `decode`,
`decode_without_stopping` and `decoder_state`; `linksim.link.coding.ldpc.LDPC` says what they
take and return. `create_code` makes the code of a scenario.

The public names are imported on first use, so that a scenario can tell the sizes of its code
without loading TensorFlow.
"""

from linksim.lazy import lazy_names

_MODULES = {
    "AlistLDPC": "ldpc",
    "LDPC": "ldpc",
    "MatrixLDPC": "ldpc",
    "NRLDPC": "nr",
    "SegmentedNRLDPC": "segments",
    "StreamCodewords": "streams",
    "Uncoded": "uncoded",
    "WiFiLDPC": "ldpc",
    "create_code": "create",
    "systematic_form": "binary",
}

__all__ = sorted(_MODULES)


__getattr__, __dir__ = lazy_names(__name__, _MODULES)
