"""The contract of every detector: one Keras layer called `(y, h, s)`."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from linksim.backend import Float32Layer, Tensor, check_floatx, concrete
from linksim.constellation import (
    DEMAPPING_METHODS,
    llrs_to_pam_logits,
    mean_square,
    pam_levels,
    pam_logits_to_llrs,
    pam_logits_to_symbol_indices,
    pam_logits_to_symbol_logits,
    pam_num_bits,
    pam_points,
    symbol_logits_to_pam_logits,
)
from linksim.detectors.capabilities import ACCEPT_PRIOR, Capabilities
from linksim.detectors.inputs import (
    broadcastable,
    cast_hint,
    check_finite,
    check_hermitian,
    check_noise_variance,
    check_system,
    check_tensors,
    compatible,
    leading,
    not_positive_definite,
    number_as_tensor,
    trailing,
)
from linksim.detectors.real import (
    complex_to_real_channel,
    into_range,
    stacked_matrix,
    whiten,
    with_zeros,
)
from linksim.errors import InvalidInput, check_choice, check_int

OUTPUTS = ("bit", "symbol")
# A-priori LLRs and logits are clipped here: no decoder is more certain, and sums stay finite
MOST_PRIOR = 100.0


class Detector(Capabilities, Float32Layer):
    """Base class of all detectors of `y = H x + n`.

    Args:
        num_streams: K, the number of transmitted streams.
        num_bits_per_symbol: m; 1 is BPSK, even numbers are square QAM.
        output: "bit" or "symbol".
        hard_out: return decisions instead of soft values.
        demapping_method: how bit LLRs are formed from the posterior of the symbols,
            "app" or "maxlog".

    Call arguments:
        y: complex64 [..., M], received vectors.
        h: complex64 [..., M, K], channel matrices.
        s: complex64 [..., M, M], noise covariances as Sionna passes them; or
            float32 [...] (or a scalar, also a Python number), the noise variances N0.
        prior: None, or what is known of the symbols beforehand: float32 [..., K, m], LLRs
            of independent bits, or float32 [..., K, 2^m], logits of the symbols. LLRs
            are clipped to a magnitude of 100, and logits to 100 below the largest. Detectors
            use the marginals of the logits over the real and the imaginary part.

    The leading dimensions of `y` are those of the result. Those of `h`, `s` and `prior`
    may be fewer or 1, as in a covariance [M, M] of all vectors; they are broadcast by the
    usual rules. There may be no vectors at all.

    Soft output is a-posteriori: it includes the prior. What the channel adds is the
    difference of output and prior. A prior of zeros changes nothing.

    Returns:
        - output "bit": LLRs `log p(b=1)/p(b=0)`, float32 [..., K, m], or with
          `hard_out` the bits, float32 [..., K, m];
        - output "symbol": logits, float32 [..., K, 2^m], or with `hard_out` the
          symbol indices, int32 [..., K].

    Raises:
        InvalidInput: (a `ValueError`) wrong ranks, shapes or dtypes, also of what a
            subclass returns; a prior for a detector that cannot use one, see
            `Capabilities.accepts_prior`; in an eager call also NaN or inf in `y`, `h` or
            `s`, NaN in `prior`, N0 <= 0, and a covariance that is not Hermitian or not positive
            definite.

    For all other inputs the output is finite, whatever their scale and however
    singular H is; see `linksim.detectors.real.into_range`.

    All is computed in float32, whatever Keras' global dtype policy is.

    A subclass implements `detect` on real tensors, whose fourth argument is the prior if
    the subclass declares `accepts_prior`. Class attributes declare what it can do; see
    `Capabilities`. `demapping_methods` are those that make sense for it, the default first.

    Attributes:
        points: float32 [L], the levels of one real dimension.
        levels: the same as a tuple of Python numbers, which a tracer knows.
        pam_energy: E, their mean square.
        is_real: symbols have no imaginary part (BPSK).
        num_dims: N, the number of real dimensions: 2K, or K for BPSK.
    """

    demapping_methods: tuple[str, ...] = DEMAPPING_METHODS

    def __init__(
        self,
        num_streams: int,
        num_bits_per_symbol: int,
        output: str = "bit",
        hard_out: bool = False,
        demapping_method: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        check_int("num_streams", num_streams)
        self._num_pam_bits = pam_num_bits(num_bits_per_symbol)
        check_choice("output", output, OUTPUTS)
        if not isinstance(hard_out, bool):
            raise InvalidInput(f"hard_out: got {hard_out!r}, expected True or False")
        if demapping_method is None:
            demapping_method = self.demapping_methods[0]
        check_choice("demapping_method", demapping_method, self.demapping_methods)
        self.num_streams = int(num_streams)
        self.num_bits_per_symbol = int(num_bits_per_symbol)
        self.output_type = output
        self.hard_out = hard_out
        self.demapping_method = demapping_method
        self.points = pam_points(num_bits_per_symbol)
        self.levels = pam_levels(num_bits_per_symbol)
        self.pam_energy = mean_square(self.levels)
        self.is_real = num_bits_per_symbol == 1
        self.num_dims = self.num_streams * (1 if self.is_real else 2)
        self.supports_masking = False

    @property
    def _who(self):
        """Its name in messages."""
        return type(self).__name__

    @property
    def has_layers(self):
        """Whether `all_logits` gives more than `detect`, which a subclass declares by
        overriding it."""
        return type(self).all_logits is not Detector.all_logits

    # --- what a subclass provides -------------------------------------------

    def detect(self, y: Tensor, h: Tensor, no: Tensor, prior: Tensor | None = None) -> Tensor:
        """PAM logits of the real system.

        A subclass without `accepts_prior` has the first three arguments only.

        Args:
            y: float32 [B, 2M], `[Re; Im]`.
            h: float32 [B, 2M, N]; N = 2K, `[[Re, -Im], [Im, Re]]`, or N = K for
                BPSK, whose symbols have no imaginary part.
            no: float32 [B], noise variance N0 per complex dimension; each real
                dimension has N0/2.
            prior: float32 [B, N, L], log-probabilities of the levels up to a constant, or
                None where all are equally likely.

        Returns:
            float32 [B, N, L], log-probabilities up to a constant, those of the prior
            included.
        """
        raise InvalidInput(
            f"{self._who} has no `detect`; expected a method detect(self, y, h, no) "
            "that returns PAM logits [B, N, L]"
        )

    def all_logits(
        self,
        y: Tensor,
        h: Tensor,
        no: Tensor,
        training: bool | None = None,
        prior: Tensor | None = None,
    ) -> list[Tensor]:
        """Logits of every unfolded layer, for training. The last ones are `detect`'s.

        Args:
            y, h, no, prior: as in `detect`.
            training: whether layers such as dropout are in training mode. None takes the
                mode of the Keras call that this runs in. Stateless calls, by which JAX
                trains, have no such mode, so training passes it.

        Returns:
            list of float32 [B, N, L], with one entry for a detector without layers.
        """
        return [self.detect(*_given(y, h, no, prior))]

    def detect_llrs(
        self, y: Tensor, h: Tensor, no: Tensor, prior: Tensor | None = None
    ) -> Tensor:
        """LLRs [B, K, m]. Override it where they do not come from PAM logits."""
        return self._llrs(self._detected(y, h, no, prior))

    def detect_both(
        self, y: Tensor, h: Tensor, no: Tensor, prior: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """LLRs [B, K, m] and symbol indices int32 [B, K], from one detection."""
        logits = self._detected(y, h, no, prior)
        return self._llrs(logits), self._symbols(logits)

    def symbol_logits(
        self, y: Tensor, h: Tensor, no: Tensor, prior: Tensor | None = None
    ) -> Tensor:
        """Symbol logits [B, K, 2^m].

        Override it, and `symbol_indices` with it, where the two PAMs of a symbol are
        not independent a posteriori.
        """
        logits = self._detected(y, h, no, prior)
        return pam_logits_to_symbol_logits(logits, self.num_bits_per_symbol)

    def symbol_indices(
        self, y: Tensor, h: Tensor, no: Tensor, prior: Tensor | None = None
    ) -> Tensor:
        """Decided symbols int32 [B, K], those with the largest `symbol_logits`."""
        return self._symbols(self._detected(y, h, no, prior))

    def _detected(self, y, h, no, prior):
        """What `detect` returns, checked."""
        expected = (self.num_dims, len(self.levels))
        return self._returned("detect", self.detect(*_given(y, h, no, prior)), y, *expected)

    def _returned(self, method, out, y, *shape, dtype="float32"):
        """What a method of a subclass returns, if it is a tensor [B, *shape]."""
        got = f"a {type(out).__name__}"
        if ops.is_tensor(out) or isinstance(out, np.ndarray):
            found = keras.backend.standardize_dtype(out.dtype)
            got = f"{found} {tuple(out.shape)}"
            fits = compatible(out.shape, (y.shape[0], *shape))
            if fits and found != dtype and "float" in found and "float" in dtype:
                return ops.cast(out, dtype)
            if fits and found == dtype:
                return out
        wanted = ", ".join(map(str, ("B", *shape)))
        raise InvalidInput(
            f"{self._who}: `{method}` returned {got}, expected {dtype} ({wanted}) "
            f"with B = {y.shape[0]}"
        )

    # --- calls --------------------------------------------------------------

    def __call__(
        self,
        y: Tensor,
        h: Tensor,
        s: Tensor | float,
        prior: Tensor | None = None,
        **kwargs: Any,
    ) -> Tensor:
        # Keras refuses Python numbers as positional arguments
        s = number_as_tensor(s)
        check_tensors(self._who, y=y, h=h, s=s)
        if prior is None:
            return super().__call__(y, h, s, **kwargs)
        check_tensors(self._who, prior=prior)
        return super().__call__(y, h, s, prior, **kwargs)

    def call(self, y: Tensor, h: Tensor, s: Tensor, prior: Tensor | None = None) -> Tensor:
        """Detect the streams; arguments and results are those of the class."""
        streams = self._streams_of(h)
        system, lead = self._to_real(y, h, s, prior)
        if self.output_type == "bit":
            out = self._checked_llrs(self.detect_llrs(*system), system[0])
            if self.hard_out:
                out = ops.cast(out > 0, "float32")
        elif self.hard_out:
            out = self._checked_indices(self.symbol_indices(*system), system[0])
        else:
            size = (self.num_streams, 2**self.num_bits_per_symbol)
            logits = self.symbol_logits(*system)
            out = self._returned("symbol_logits", logits, system[0], *size)
        return self._arranged_as(out, lead, streams)

    def llrs_and_symbols(
        self, y: Tensor, h: Tensor, s: Tensor, prior: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Soft bits and hard symbols for the price of one detection.

        Returns:
            LLRs float32 [..., K, m] and symbol indices int32 [..., K].
        """
        streams = self._streams_of(h)
        system, lead = self._to_real(y, h, s, prior)
        llrs, symbols = self.detect_both(*system)
        return (
            self._arranged_as(self._checked_llrs(llrs, system[0]), lead, streams),
            self._arranged_as(self._checked_indices(symbols, system[0]), lead, streams),
        )

    def _checked_llrs(self, llrs, y):
        size = (self.num_streams, self.num_bits_per_symbol)
        return self._returned("detect_llrs", llrs, y, *size)

    def _checked_indices(self, indices, y):
        return self._returned("symbol_indices", indices, y, self.num_streams, dtype="int32")

    def llrs_of_parts(
        self, y_real: Tensor, y_imag: Tensor, h_real: Tensor, h_imag: Tensor, no: Tensor
    ) -> Tensor:
        """LLRs for formats without complex numbers, such as ONNX.

        The noise is white, and the input is not checked.

        Args:
            y_real, y_imag: float32 [B, M].
            h_real, h_imag: float32 [B, M, K].
            no: float32 [B], N0.

        Returns:
            LLRs float32 [B, K, m].
        """
        y = ops.concatenate([y_real, y_imag], axis=-1)
        h = stacked_matrix(h_real, h_imag)
        return self.detect_llrs(y, h[..., : self.num_dims], no)

    def _streams_of(self, h):
        """The number of streams of a call: an integer, or a tensor if it is unknown."""
        if not self.any_num_streams or not len(h.shape):
            return self.num_streams
        return ops.shape(h)[-1]

    def _arranged_as(self, out, lead, streams):
        """Reshape `out` [B, num_streams, ...] to lead + [streams, ...]."""
        if self.any_num_streams:
            out = out[:, :streams]
        return arranged_as(out, lead, streams, *out.shape[2:])

    def _llrs(self, logits):
        return pam_logits_to_llrs(logits, self.num_bits_per_symbol, self.demapping_method)

    def _symbols(self, logits):
        return pam_logits_to_symbol_indices(logits, self.num_bits_per_symbol)

    def _to_real(self, y, h, s, prior=None):
        """Check, broadcast, flatten and whiten a call's arguments.

        Returns:
            A tuple of the real tensors that `detect` takes, and the leading shape. Where
            there are no vectors, `detect` gets one of zeros, which `arranged_as` leaves
            out: no detector has to think of empty tensors.
        """
        y, h = ops.convert_to_tensor(y), ops.convert_to_tensor(h)
        if isinstance(s, (int, float)):
            s = ops.convert_to_tensor(s, dtype="float32")
        s = ops.convert_to_tensor(s)
        covariance = self._check(y, h, s)
        if prior is not None:
            prior = self._pam_prior(y, h, prior)
        lead = tuple(ops.shape(y)[:-1])
        num_rx, own = y.shape[-1], 2 if covariance else 0
        h = _flattened(h, y, 2)
        if _is_shared(s, y, own):  # so that it is whitened once
            s = ops.reshape(s, (1, *trailing(s, own)))
        else:
            s = _flattened(s, y, own)
        y = ops.reshape(y, (-1, num_rx))
        if _is_empty(lead):
            y, h, s = _with_silent_vector(y, h, s)
        if h.shape[-1] != self.num_streams:
            h = self._with_absent_streams(h)
        y, h = complex_to_real_channel(y, h)
        if self.is_real:
            h = h[..., : self.num_streams]
        if covariance:
            y, h, no = self._whitened(y, h, s)
        else:
            no = ops.broadcast_to(s, ops.shape(y)[:1]) if s.shape[0] == 1 else s
        self._check_values(y, h, no)
        return _given(*into_range(y, h, no, self.num_streams), prior), lead

    def _pam_prior(self, y, h, prior):
        """The prior of a call as PAM logits [B, N, L]."""
        prior = ops.convert_to_tensor(prior)
        self._check_prior(y, h, prior)
        value = concrete(prior)
        if value is not None and np.any(np.isnan(value)):
            raise InvalidInput(f"{self._who}: prior contains NaN")
        absent = self.num_streams - ops.shape(prior)[-2]
        prior = ops.reshape(_flattened(prior, y, 2), (-1, *trailing(prior, 2)))
        if _is_empty(tuple(y.shape[:-1])):
            prior = with_zeros(prior)
        if prior.shape[-2] != self.num_streams:
            none = ops.zeros((ops.shape(prior)[0], absent, prior.shape[-1]))
            prior = ops.concatenate([prior, none], axis=-2)
            prior = ops.reshape(prior, (-1, self.num_streams, prior.shape[-1]))
        if prior.shape[-1] == self.num_bits_per_symbol:
            prior = ops.clip(prior, -MOST_PRIOR, MOST_PRIOR)
            return llrs_to_pam_logits(prior, self.num_bits_per_symbol)
        largest = 3.4028234663852886e38  # of float32
        prior = ops.clip(prior, -largest, largest)  # the difference of two infinities is NaN
        prior = prior - ops.amax(prior, axis=-1, keepdims=True)
        prior = ops.maximum(prior, -MOST_PRIOR)
        return symbol_logits_to_pam_logits(prior, self.num_bits_per_symbol)

    def _check_prior(self, y, h, prior):
        """Check the dtype and the static shape of a prior."""
        who = self._who
        if not self.accepts_prior:
            raise InvalidInput(
                f"{who}: prior: this detector cannot use what is known beforehand; those "
                f"that can are {', '.join(ACCEPT_PRIOR)}"
            )
        dtype = keras.backend.standardize_dtype(prior.dtype)
        if dtype != "float32":
            raise InvalidInput(
                f"{who}: prior has dtype {dtype}, expected float32{cast_hint(dtype)}"
            )
        sizes = self.num_bits_per_symbol, 2**self.num_bits_per_symbol
        streams = h.shape[-1] if self.any_num_streams else self.num_streams
        lead = tuple(y.shape[:-1])
        if (
            prior.shape[-1:] not in [(size,) for size in sizes]
            or not compatible(prior.shape[-2:-1], (streams,))
            or not broadcastable(leading(prior, 2), lead)
        ):
            shape = ", ".join(str(size) for size in (*lead, streams))
            raise InvalidInput(
                f"{who}: prior has shape {tuple(prior.shape)}, expected ({shape}, {sizes[0]}) "
                f"for LLRs or ({shape}, {sizes[1]}) for logits beside y {tuple(y.shape)}, or "
                "what broadcasts to that"
            )

    def _whitened(self, y, h, s):
        """`whiten`, which refuses a singular covariance in an eager call."""
        check_finite(self._who, y=y, h=h, s=s)
        check_hermitian(self._who, s)
        try:
            y, h, no = whiten(y, h, s)
        except Exception as error:  # its type depends on the backend
            if concrete(s) is None:
                raise
            reason = error
        else:
            finite = [concrete(x) for x in (y, h)]
            if finite[0] is None or all(np.all(np.isfinite(x)) for x in finite):
                return y, h, no
            reason = None
        raise not_positive_definite(self._who) from reason

    def _with_absent_streams(self, h):
        """Append zero columns to h [B, M, K] up to `num_streams`."""
        batch, num_rx, streams = ops.shape(h)
        # `_check` has refused a known number of streams that is too large. An unknown
        # one makes the size negative here, which the backend refuses.
        absent = ops.zeros((batch, num_rx, self.num_streams - streams), h.dtype)
        h = ops.concatenate([h, absent], axis=-1)
        return ops.reshape(h, (-1, h.shape[1], self.num_streams))

    def _check(self, y, h, s):
        """Check dtypes and static shapes; return whether `s` is a covariance."""
        check_floatx(self._who)
        return check_system(self._who, self, y, h, s)

    def _check_values(self, y, h, no):
        check_finite(self._who, y=y, h=h, s=no)
        check_noise_variance(self._who, no)

    # --- Keras --------------------------------------------------------------

    def compute_output_spec(self, y, h, s, prior=None):
        """The shape and dtype of the result, as Keras asks for them."""
        self._check(y, h, s)
        if prior is not None:
            self._check_prior(y, h, prior)
        lead = tuple(y.shape[:-1])
        lead += (h.shape[-1] if self.any_num_streams else self.num_streams,)
        if self.output_type == "bit":
            shape = lead + (self.num_bits_per_symbol,)
            return keras.KerasTensor(shape, dtype="float32")
        if self.hard_out:
            return keras.KerasTensor(lead, dtype="int32")
        shape = lead + (2**self.num_bits_per_symbol,)
        return keras.KerasTensor(shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "num_streams": self.num_streams,
            "num_bits_per_symbol": self.num_bits_per_symbol,
            "output": self.output_type,
            "hard_out": self.hard_out,
            "demapping_method": self.demapping_method,
        }


def _given(y, h, no, prior):
    """The arguments of `detect`: those without `accepts_prior` have no fourth one."""
    return (y, h, no) if prior is None else (y, h, no, prior)


def arranged_as(out, lead, *own):
    """Results [B, *own] of vectors in leading dimensions `lead`: [*lead, *own]."""
    if _is_empty(lead):
        out = out[:0]  # of the vector that `_with_silent_vector` has put in
    return ops.reshape(out, (*lead, *own))


def _with_silent_vector(y, h, s):
    """Append one vector of zeros to y [0, M], h [0, M, K] and s [0] or [0, M, M]."""
    num_rx = y.shape[-1]
    y, h = with_zeros(y), with_zeros(h)
    if s.shape[0] != 1:
        one = ops.ones((1,)) if len(s.shape) == 1 else ops.eye(num_rx, dtype=s.dtype)[None]
        s = ops.concatenate([s, one])
    return y, h, s


def _is_empty(lead):
    """Whether a leading shape is known to have no vectors."""
    return any(isinstance(size, int) and size == 0 for size in lead)


def _is_shared(s, y, own):
    """Whether all vectors of y [..., M] are known to have the same s [..., *own]."""
    lead = leading(s, own)
    return all(size == 1 for size in lead) and lead != tuple(y.shape[:-1])


def _flattened(x, y, own):
    """`x` with the leading dimensions of y [..., M], all in one, before its last `own`."""
    lead, last = tuple(y.shape[:-1]), tuple(ops.shape(x)[len(x.shape) - own :])
    if leading(x, own) != lead or None in lead:
        # Nothing is copied where an unknown size turns out to be equal
        x = ops.broadcast_to(x, (*ops.shape(y)[:-1], *last))
    return ops.reshape(x, (-1, *last))
