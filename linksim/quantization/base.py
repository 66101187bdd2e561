"""The contract of every LLR quantizer: a transform, scalar quantizers, the inverse.

The LLRs of one channel use, [K, m], are transformed to D real components. Each component
has its own scalar quantizer with its own number of bits, and the levels are transformed
back. A quantizer of single LLRs has the identity as its transform, and D = K m; EQ-Net
[Arvinte20], Section IV, has an autoencoder, and D = 3 K.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import math
import os
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import keras
import numpy as np
from keras import ops

from linksim.backend import Float32Layer, Tensor, check_floatx, concrete
from linksim.constellation import pam_num_bits
from linksim.eqnet.codebook import ScalarCodebook
from linksim.errors import InvalidInput, ResultFileError, check_int
from linksim.files import as_path, load_arrays, save_arrays

FILE_FORMAT = "linksim-quantizer-1"

#: {class name: class} of the quantizers that `load_quantizer_file` knows; see `register`.
QUANTIZER_CLASSES: dict[str, type[LLRQuantizer]] = {}
_BUILT_IN = ("linksim.quantization.eqnet", "linksim.quantization.scalar")

_FIT_CHUNK = 2**16
_MAGIC = b"LSLQ"
_VERSION = 1
_DIGEST_BYTES = 16
# Settings of a layer that do not change what it computes
_NOT_IDENTITY = ("name", "trainable", "dtype")

_Class = TypeVar("_Class", bound=type)


def register(cls: _Class) -> _Class:
    """Class decorator that lets Keras and `load_quantizer_file` find a quantizer."""
    QUANTIZER_CLASSES[cls.__name__] = cls
    return keras.saving.register_keras_serializable("linksim")(cls)


class LLRQuantizer(Float32Layer):
    """Base class of all LLR quantizers.

    Args:
        num_streams: K, the number of transmitted streams.
        num_bits_per_symbol: m; 1 is BPSK, even numbers are square QAM.
        bits: bits per component, 1 to 12: one integer for all, or D integers.

    Call arguments:
        llrs: float32 [..., K, m], `log p(b=1)/p(b=0)`; finite.

    Returns:
        float32 [..., K, m], the LLRs after quantization.

    Raises:
        InvalidInput: (a `ValueError`) for a wrong rank, shape or dtype; when called
            eagerly also for NaN or inf, and before `fit`. In a graph, NaN falls into
            the lowest cell, and a quantizer without a codebook returns NaN.

    A subclass has `@register` above it and implements `fit_component`. If it transforms
    the LLRs, it also implements `num_components`, `encode` and `decode`. The constructor
    reads `num_components`, so what this depends on, other than `num_streams` and
    `num_bits_per_symbol`, is set before `super().__init__`. A subclass makes its weights
    and builds its layers in `__init__` or in `build`.

    The two halves of `call` are `quantize_llrs` and `dequantize`, because every Keras
    layer already has a method `quantize`, which quantizes its weights.
    """

    def __init__(
        self,
        num_streams: int,
        num_bits_per_symbol: int,
        bits: int | Sequence[int] = 3,
        **kwargs: Any,
    ):
        # Without autocast a policy of lower precision does not round the LLRs
        super().__init__(autocast=False, **kwargs)
        check_int("num_streams", num_streams)
        pam_num_bits(num_bits_per_symbol)
        self.num_streams = int(num_streams)
        self.num_bits_per_symbol = int(num_bits_per_symbol)
        self.codebook = ScalarCodebook(
            self.num_components, bits, owner=type(self).__name__, name="codebook"
        )
        self.bits = self.codebook.bits
        self.supports_masking = False

    # --- what a subclass provides -------------------------------------------

    @property
    def num_components(self) -> int:
        """D, the number of real components of one channel use."""
        return self.num_streams * self.num_bits_per_symbol

    def encode(self, llrs: Tensor) -> Tensor:
        """Components float32 [..., D] of LLRs float32 [..., K, m].

        `quantize_llrs` and `fit` call it with one leading dimension.
        """
        lead = tuple(ops.shape(llrs)[:-2])
        return ops.reshape(llrs, lead + (self.num_components,))

    def decode(self, components: Tensor) -> Tensor:
        """LLRs float32 [..., K, m] of components float32 [..., D].

        `dequantize` calls it with one leading dimension.
        """
        lead = tuple(ops.shape(components)[:-1])
        return ops.reshape(components, lead + self._llr_shape)

    def fit_component(
        self, samples: np.ndarray, bits: int, index: int
    ) -> tuple[np.ndarray, np.ndarray]:
        """Fit the scalar quantizer of one component.

        Args:
            samples: float32 [N], N >= 2^bits, finite.
            bits: number of bits of the component.
            index: which component it is, 0 to D - 1.

        Returns:
            Thresholds [2^bits - 1] in ascending order, and levels [2^bits].
        """
        raise NotImplementedError

    @property
    def trained_weights(self) -> list[Any]:
        """The weights of the transform, without those of the codebook."""
        return []

    # --- rates ----------------------------------------------------------------

    @property
    def bits_per_use(self) -> int:
        """How many bits store the LLRs of one channel use."""
        return sum(self.bits)

    @property
    def bits_per_llr(self) -> float:
        """Stored bits per LLR, which is `bits_per_use / (K m)`."""
        return self.bits_per_use / (self.num_streams * self.num_bits_per_symbol)

    @property
    def _llr_shape(self):
        return (self.num_streams, self.num_bits_per_symbol)

    # --- codebook -------------------------------------------------------------

    @property
    def is_fitted(self) -> bool:
        """Whether there is a codebook."""
        return bool(ops.convert_to_numpy(self.codebook.fitted) > 0)

    @property
    def thresholds(self) -> Tensor:
        """Thresholds of all components, float32 [D, 2^max(bits) - 1]; rows of components
        with fewer bits are padded at the end."""
        return self.codebook.thresholds

    @property
    def levels(self) -> Tensor:
        """Levels of all components, float32 [D, 2^max(bits)]; rows of components with
        fewer bits are padded at the end."""
        return self.codebook.levels

    def fit(self, llrs: Tensor) -> LLRQuantizer:
        """Fit the scalar quantizers to LLRs; other weights stay as they are.

        Args:
            llrs: floating point [..., K, m], NumPy array or tensor, finite. It needs at
                least 2^max(bits) channel uses, and a good fit some hundred times more.

        Returns:
            The quantizer itself.

        Raises:
            InvalidInput: a shape, dtype or value is wrong, or there are too few.
        """
        samples = self._fit_samples(llrs)
        self._ensure_built()
        # In chunks, because an encoder may need many times the memory of its input
        components = np.concatenate(
            [
                ops.convert_to_numpy(self.encode(samples[i : i + _FIT_CHUNK]))
                for i in range(0, len(samples), _FIT_CHUNK)
            ]
        )
        tables = [
            self.fit_component(np.ascontiguousarray(components[:, d]), bits, d)
            for d, bits in enumerate(self.bits)
        ]
        return self.set_codebook(*zip(*tables))

    def _fit_samples(self, llrs):
        samples = np.asarray(ops.convert_to_numpy(llrs))
        if samples.dtype.kind != "f":
            raise self._error("llrs", f"dtype {samples.dtype}", "a floating point type")
        self._check_shape("llrs", samples.shape, self._llr_shape)
        samples = samples.astype(np.float32).reshape(-1, *self._llr_shape)
        self._check_finite("llrs", samples)
        needed = 2 ** max(self.bits)
        if len(samples) < needed:
            raise self._error(
                "llrs", f"{len(samples)} channel uses", f"at least {needed} to fit"
            )
        return samples

    def set_codebook(
        self, thresholds: Sequence[Sequence[float]], levels: Sequence[Sequence[float]]
    ) -> LLRQuantizer:
        """Set thresholds and levels.

        Args:
            thresholds: for each of the D components 2^bits - 1 finite numbers in
                ascending order; the cell between equal ones stays empty.
            levels: for each component 2^bits finite numbers.

        Returns:
            The quantizer itself.

        Raises:
            InvalidInput: a number of rows, a shape or a value is wrong.
        """
        self.codebook.set(thresholds, levels)
        return self

    # --- calls ----------------------------------------------------------------

    def call(self, llrs: Tensor) -> Tensor:
        return self.dequantize(self.quantize_llrs(llrs))

    def quantize_llrs(self, llrs: Tensor) -> Tensor:
        """Cell indices int32 [..., D] of LLRs float32 [..., K, m].

        An index is the number of thresholds strictly below the component.
        """
        llrs = self._checked_llrs(llrs)
        self._ensure_built()
        self.codebook.check_fitted()
        lead = tuple(ops.shape(llrs)[:-2])
        components = self.encode(ops.reshape(llrs, (-1, *self._llr_shape)))
        index = self.codebook.cells(components)
        return ops.reshape(index, lead + (self.num_components,))

    def dequantize(self, indices: Tensor) -> Tensor:
        """LLRs float32 [..., K, m] of cell indices int32 [..., D]."""
        self._ensure_built()
        self.codebook.check_fitted()
        indices = self._checked_indices(indices)
        lead = tuple(ops.shape(indices)[:-1])
        indices = ops.reshape(indices, (-1, self.num_components))
        llrs = self.decode(self.codebook.values(indices))
        return ops.reshape(llrs, lead + self._llr_shape)

    def _ensure_built(self):
        if not self.built:
            self.build((None, *self._llr_shape))

    # --- storage --------------------------------------------------------------

    def pack(self, indices: Tensor) -> bytes:
        """Pack cell indices, component d into `bits[d]` bits, the most significant first.

        Args:
            indices: integers [..., D], NumPy array or tensor.

        Returns:
            ceil(uses * bits_per_use / 8) bytes; the last is filled up with zero bits.

        Raises:
            InvalidInput: a shape or dtype is wrong, or an index out of range.
        """
        indices = ops.convert_to_numpy(self._checked_indices(indices))
        indices = indices.reshape(-1, self.num_components)
        component, shift = self._bit_layout()
        bits = (indices[:, component] >> shift) & 1
        return np.packbits(bits.astype(np.uint8)).tobytes()

    def unpack(self, data: bytes, num_uses: int) -> np.ndarray:
        """The indices that `pack` packed, int32 [num_uses, D].

        Raises:
            InvalidInput: `data` is not exactly as long as `pack` makes it, or the bits
                that fill up its last byte are not zero.
        """
        check_int("num_uses", num_uses, minimum=0)
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise self._error("data", f"a {type(data).__name__}", "bytes")
        expected = self._packed_size(num_uses)
        if len(data) != expected:
            raise self._error(
                "data", f"{len(data)} bytes", f"{expected} for {num_uses} channel uses"
            )
        bits: np.ndarray = np.unpackbits(np.frombuffer(data, np.uint8))
        total = num_uses * self.bits_per_use
        if np.any(bits[total:]):
            raise self._error("data", "filling bits that are not zero", "zeros")
        bits = bits[:total].reshape(num_uses, self.bits_per_use).astype(np.int32)
        component, shift = self._bit_layout()
        starts = np.flatnonzero(np.diff(component, prepend=-1))
        return np.add.reduceat(bits << shift, starts, axis=1, dtype=np.int32)

    def _packed_size(self, num_uses):
        return -(-num_uses * self.bits_per_use // 8)

    def _bit_layout(self):
        """Component and shift of each bit of one channel use, [bits_per_use]."""
        component = np.repeat(np.arange(self.num_components), self.bits)
        shift = np.concatenate([np.arange(b - 1, -1, -1) for b in self.bits])
        return component, shift.astype(np.int32)

    def store(self, llrs: Tensor) -> bytes:
        """Quantize LLRs and pack them into bytes, for instance for a HARQ buffer.

        A header holds the leading shape and a hash of the quantizer, so that another
        quantizer refuses the bytes, and a checksum reveals damage. Both together take
        26 bytes and another 8 for each leading dimension.

        Args:
            llrs: float32 [..., K, m].
        """
        indices = ops.convert_to_numpy(self.quantize_llrs(llrs))
        lead = indices.shape[:-1]
        header = _MAGIC + struct.pack(">B", _VERSION) + self._digest()
        header += struct.pack(f">B{len(lead)}Q", len(lead), *lead)
        data = header + self.pack(indices)
        return data + struct.pack(">I", zlib.crc32(data))

    def restore(self, data: bytes) -> np.ndarray:
        """The LLRs in the bytes of `store`, float32 [..., K, m]; `call` returns the same.

        Raises:
            InvalidInput: the bytes are damaged, or another quantizer made them.
        """
        self.codebook.check_fitted()
        lead, packed = self._read_header(data)
        indices = self.unpack(packed, math.prod(lead))
        indices = indices.reshape(*lead, self.num_components)
        return np.asarray(ops.convert_to_numpy(self.dequantize(indices)))

    def _read_header(self, data):
        """Leading shape and packed indices."""
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise self._error("data", f"a {type(data).__name__}", "bytes")
        data = bytes(data)
        fixed = len(_MAGIC) + 1 + _DIGEST_BYTES + 1
        if len(data) < fixed + 4 or data[:4] != _MAGIC:
            raise self._error("data", "other bytes", "those of `store`")
        if data[4] != _VERSION:
            raise self._error("data", f"version {data[4]}", f"version {_VERSION}")
        if zlib.crc32(data[:-4]) != struct.unpack(">I", data[-4:])[0]:
            raise self._error("data", "damaged bytes", "those of `store`")
        if data[5 : 5 + _DIGEST_BYTES] != self._digest():
            raise self._error(
                "data", "bytes of another quantizer", "the codebook they were made with"
            )
        rank = data[fixed - 1]
        start = fixed + 8 * rank
        if len(data) < start + 4:
            raise self._error("data", "a header cut short", "those of `store`")
        return struct.unpack(f">{rank}Q", data[fixed:start]), data[start:-4]

    def _digest(self):
        arrays = [ops.convert_to_numpy(w) for w in self.weights]
        name = type(self).__name__
        return _sha256(name, self._identity(), arrays).digest()[:_DIGEST_BYTES]

    def _identity(self):
        config = self.get_config()
        return {k: v for k, v in config.items() if k not in _NOT_IDENTITY}

    def save(self, path: str | Path) -> None:
        """Write the configuration and all weights to one `.npz` file, in one step.

        An existing file is replaced. `load_quantizer_file` reads the file with every
        backend, and without pickle.
        """
        self._ensure_built()
        arrays = [np.asarray(ops.convert_to_numpy(w)) for w in self.weights]
        name, config = type(self).__name__, self._identity()
        header = {
            "format": FILE_FORMAT,
            "class": name,
            "config": config,
            "digest": _sha256(name, config, arrays).hexdigest(),
        }
        save_arrays(
            as_path("path", path), {f"weight_{i}": a for i, a in enumerate(arrays)}, header
        )

    # --- checks ---------------------------------------------------------------

    def _error(self, name, got, expected):
        return InvalidInput(f"{type(self).__name__}: {name}: got {got}, expected {expected}")

    def _check_shape(self, name, shape, last):
        shape = tuple(shape)
        if len(shape) < len(last) or shape[-len(last) :] != last:
            listed = ", ".join(str(n) for n in last)
            raise self._error(name, f"shape {shape}", f"[..., {listed}]")

    def _check_finite(self, name, value):
        if not np.all(np.isfinite(value)):
            raise self._error(name, "NaN or inf", "finite numbers")

    def _check_llr_spec(self, llrs):
        check_floatx(type(self).__name__)
        dtype = keras.backend.standardize_dtype(llrs.dtype)
        if dtype != "float32":
            raise self._error("llrs", f"dtype {dtype}", "float32")
        self._check_shape("llrs", llrs.shape, self._llr_shape)

    def _checked_llrs(self, llrs):
        if not hasattr(llrs, "dtype"):
            llrs = ops.convert_to_tensor(llrs)
        # Checked before the conversion, which JAX would use to turn float64 into float32
        self._check_llr_spec(llrs)
        llrs = ops.convert_to_tensor(llrs)
        value = concrete(llrs)
        if value is not None:
            self._check_finite("llrs", value)
        return llrs

    def _checked_indices(self, indices):
        if not hasattr(indices, "dtype"):
            indices = np.asarray(indices)
        dtype = keras.backend.standardize_dtype(indices.dtype)
        if not dtype.startswith(("int", "uint")):
            raise self._error("indices", f"dtype {dtype}", "int32")
        self._check_shape("indices", indices.shape, (self.num_components,))
        value = concrete(indices)
        if value is not None and value.size:
            wrong = (value < 0) | (value > self.codebook.last_cells)
            if np.any(wrong):
                where = int(np.argwhere(wrong)[0][-1])
                raise self._error(
                    f"indices[..., {where}]",
                    f"{value[wrong][0]}",
                    f"0 to {self.codebook.last_cells[where]} ({self.bits[where]} bits)",
                )
        return ops.cast(indices, "int32")

    # --- Keras ----------------------------------------------------------------

    def compute_output_spec(self, llrs):
        self._check_llr_spec(llrs)
        return keras.KerasTensor(llrs.shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_streams": self.num_streams,
            "num_bits_per_symbol": self.num_bits_per_symbol,
            "bits": list(self.bits),
        }


@keras.saving.register_keras_serializable("linksim")
class Unquantized(Float32Layer):
    """The transform of a quantizer and its inverse, without quantization in between.

    It is called with LLRs, as the quantizer is.

    Args:
        quantizer: the `LLRQuantizer`.
    """

    def __init__(self, quantizer: LLRQuantizer, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.quantizer = quantizer

    def build(self, llrs_shape):
        if not self.quantizer.built:
            self.quantizer.build(llrs_shape)

    def call(self, llrs):
        return self.quantizer.decode(self.quantizer.encode(llrs))

    def compute_output_spec(self, llrs):
        return keras.KerasTensor(llrs.shape, dtype="float32")

    def get_config(self):
        quantizer = keras.saving.serialize_keras_object(self.quantizer)
        return {**super().get_config(), "quantizer": quantizer}

    @classmethod
    def from_config(cls, config):
        quantizer = keras.saving.deserialize_keras_object(config.pop("quantizer"))
        return cls(quantizer, **config)


def load_quantizer_file(path: str | Path) -> LLRQuantizer:
    """Read the quantizer that `LLRQuantizer.save` wrote to a file.

    Raises:
        InvalidInput: there is no such file.
        ResultFileError: the file is damaged, edited, or something else.
    """
    path = as_path("path", path)
    if not os.path.isfile(path):
        raise InvalidInput(f"path: got {str(path)!r}, expected a file; there is none")
    try:
        named, header, _ = load_arrays(path)
        arrays = [named[f"weight_{i}"] for i in range(len(named))]
        name, config = header["class"], header["config"]
        known = header["format"], header["digest"]
    except ResultFileError:
        raise
    except Exception as error:  # each part of a damaged archive fails in its own way
        raise ResultFileError(
            f"{path}: not a quantizer file of linksim, or damaged ({error!r})"
        ) from None
    # The hash that `load_arrays` checks does not cover the configuration
    if known != (FILE_FORMAT, _sha256(name, config, arrays).hexdigest()):
        raise ResultFileError(
            f"{path}: its checksum is wrong; it was edited, or written by another version"
        )
    for module in _BUILT_IN:  # importing a module registers its classes
        importlib.import_module(module)
    if name not in QUANTIZER_CLASSES:
        raise ResultFileError(
            f"{path}: holds a {name!r}, expected one of: {', '.join(sorted(QUANTIZER_CLASSES))}"
        )
    try:
        quantizer = QUANTIZER_CLASSES[name].from_config(config)
    except (TypeError, ValueError) as error:
        raise ResultFileError(f"{path}: {name} refuses its settings: {error}") from None
    quantizer._ensure_built()
    shapes = [tuple(w.shape) for w in quantizer.weights]
    found = [a.shape for a in arrays]
    if found != shapes:
        raise ResultFileError(f"{path}: weights of shapes {found}, expected {shapes}")
    quantizer.set_weights(arrays)
    return quantizer


def _sha256(name, config, arrays):
    """Hash of a class name, a JSON configuration, and arrays with their shapes."""
    digest = hashlib.sha256(json.dumps([name, config], sort_keys=True).encode())
    for array in arrays:
        array = np.ascontiguousarray(array)
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(array.tobytes())
    return digest
