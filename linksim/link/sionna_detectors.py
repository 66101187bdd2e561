"""Sionna's own detectors behind linksim's call and keywords.

They are what a linksim detector is compared with, under the names `sionna-...`.
"""

import inspect

import numpy as np
import tensorflow as tf
from sionna.phy import Block, Object
from sionna.phy.mimo import (
    EPDetector,
    KBestDetector,
    LinearDetector,
    MaximumLikelihoodDetector,
    MMSEPICDetector,
)

from linksim.constellation import llrs_to_symbol_logits, logits_to_llrs, pam_num_bits
from linksim.detectors.base import MOST_PRIOR, OUTPUTS
from linksim.detectors.capabilities import ACCEPT_PRIOR, Capabilities
from linksim.detectors.inputs import (
    check_covariance,
    check_finite,
    check_noise_variance,
    check_system,
    check_tensors,
    leading,
    number_as_tensor,
)
from linksim.errors import InvalidInput, check_choice, check_int
from linksim.link.draw import symbols_of_bits


def _constellation(num_bits_per_symbol):
    pam_num_bits(num_bits_per_symbol)
    kind = "pam" if num_bits_per_symbol == 1 else "qam"
    return {"constellation_type": kind, "num_bits_per_symbol": num_bits_per_symbol}


def _check_qam(who, num_bits_per_symbol):
    if num_bits_per_symbol == 1:
        raise InvalidInput(f"{who}: Sionna's detector handles QAM only, not BPSK")


class SionnaDetector(Capabilities, Block):
    """A Sionna detector that also accepts the noise variance N0 as `s`.

    Call arguments, results and declared capabilities are those of
    `linksim.detectors.Detector`. Sionna's `MaximumLikelihoodDetector` and
    `MMSEPICDetector` use a prior. The latter needs one, and gets zeros where there is none.
    Its own results are extrinsic: here the prior is added to them, so that they are
    a-posteriori as those of all others.

    Args:
        detector: Sionna's block, with soft bits as its output.
        num_streams: K.
        num_bits_per_symbol: bits of a QAM symbol.

    Raises:
        InvalidInput: (a `ValueError`) a prior for a detector that has no use for one, or of
            the wrong shape or dtype; `y`, `h` and `s` that do not fit together; in an eager
            call also NaN or inf in them, N0 <= 0, and a covariance that is not Hermitian or
            not positive definite.
    """

    xla_on_cpu = True
    # Sionna's blocks have no weights and no names of their own
    weights = ()
    name = None

    def __init__(self, detector, num_streams, num_bits_per_symbol):
        super().__init__()
        check_int("num_streams", num_streams)
        self.detector = detector
        self.num_streams = num_streams
        self.num_bits_per_symbol = num_bits_per_symbol
        self._extrinsic = isinstance(detector, MMSEPICDetector)
        self.accepts_prior = self._extrinsic or isinstance(detector, MaximumLikelihoodDetector)

    def get_config(self):
        """What is known of the block: its settings and the size of the system."""
        return {
            "detector": _settings(self.detector),
            "num_streams": self.num_streams,
            "num_bits_per_symbol": self.num_bits_per_symbol,
        }

    def call(self, y, h, s, prior=None):
        y, h, s = self._checked(y, h, s)
        if prior is not None:
            prior = self._as_sionnas(y, prior)
            out = self.detector(y, h, s, prior)
            return out + prior if self._extrinsic else out
        if self._extrinsic:
            size = self.num_bits_per_symbol
            if _settings(self.detector)["_output"] == "symbol":  # it takes logits then
                size = 2**size
            shape = tf.concat([tf.shape(h)[:-2], [self.num_streams, size]], 0)
            return self.detector(y, h, s, tf.zeros(shape, tf.float32))
        return self.detector(y, h, s)

    def _checked(self, y, h, s):
        """The arguments as Sionna's block takes them, if they are what they should be."""
        who = self.detector.__class__.__name__
        s = number_as_tensor(s)
        check_tensors(who, y=y, h=h, s=s)
        y, h, s = map(tf.convert_to_tensor, (y, h, s))
        covariance = check_system(who, self, y, h, s)
        check_finite(who, y=y, h=h, s=s)
        lead, num_rx = tf.shape(y)[:-1], y.shape[-1]
        if covariance:
            check_covariance(who, s)
            s = _broadcast(s, y, 2)
        else:
            check_noise_variance(who, s)
            s = tf.cast(tf.broadcast_to(s, lead), tf.complex64)
            s = s[..., None, None] * tf.eye(num_rx, dtype=tf.complex64)
        return y, _broadcast(h, y, 2), s

    def _as_sionnas(self, y, prior):
        """The prior of a call in the form that the block takes, that of its output."""
        who = self.detector.__class__.__name__
        settings = _settings(self.detector)
        if not self.accepts_prior:
            raise InvalidInput(
                f"{who}: prior: Sionna's detector cannot use what is known beforehand; those "
                f"that can are {', '.join(ACCEPT_PRIOR)}"
            )
        if self._extrinsic and settings["_hard_out"]:
            raise InvalidInput(
                f"{who}: prior: hard decisions of this detector leave the prior out; make it "
                "with hard_out=False"
            )
        prior = tf.convert_to_tensor(prior)
        sizes = self.num_bits_per_symbol, 2**self.num_bits_per_symbol
        if (
            prior.dtype != tf.float32
            or prior.shape[-2:-1] != (self.num_streams,)
            or prior.shape[-1] not in sizes
        ):
            streams = f"(..., {self.num_streams}"
            raise InvalidInput(
                f"{who}: prior has shape {tuple(prior.shape)} and dtype {prior.dtype.name}, "
                f"expected float32 {streams}, {sizes[0]}) for LLRs or {streams}, {sizes[1]}) "
                "for logits"
            )
        shape = tf.concat([tf.shape(y)[:-1], tf.shape(prior)[-2:]], 0)
        prior = tf.broadcast_to(prior, shape)
        if settings["_output"] == "bit":
            if prior.shape[-1] != self.num_bits_per_symbol:
                prior = logits_to_llrs(prior)
            return tf.clip_by_value(prior, -MOST_PRIOR, MOST_PRIOR)
        if prior.shape[-1] == self.num_bits_per_symbol:
            prior = llrs_to_symbol_logits(tf.clip_by_value(prior, -MOST_PRIOR, MOST_PRIOR))
        prior = prior - tf.reduce_max(prior, axis=-1, keepdims=True)
        return tf.maximum(prior, -MOST_PRIOR)

    def llrs_and_symbols(self, y, h, s, prior=None):
        """LLRs [..., K, m] and the symbol indices of their signs, int32 [..., K]."""
        llrs = self(y, h, s, prior)
        return llrs, symbols_of_bits(llrs > 0)


def _broadcast(x, y, own):
    """`x` with the leading dimensions of y [..., M] before its last `own`."""
    if leading(x, own) == tuple(y.shape[:-1]):
        return x
    return tf.broadcast_to(x, tf.concat([tf.shape(y)[:-1], tf.shape(x)[-own:]], 0))


def _settings(block):
    """The class of a Sionna block and the numbers, texts and functions that it holds,
    including those of the blocks inside it. Sionna's blocks have no `get_config`."""
    kind = type(block)
    found = {"class": f"{kind.__module__}.{kind.__qualname__}"}
    for name, value in vars(block).items():
        if name == "_built":  # the first call changes it
            continue
        if isinstance(value, Object):
            found[name] = _settings(value)
        elif isinstance(value, (bool, int, float, str)):
            found[name] = value
        elif isinstance(value, np.generic):
            found[name] = value.item()
        elif inspect.isroutine(value):
            found[name] = value.__qualname__
    return found


def as_detector(layer, num_streams, num_bits_per_symbol):
    """A Sionna detector as a `SionnaDetector`.

    Args:
        layer: a Sionna block called `(y, h, s)` that returns LLRs.
        num_streams, num_bits_per_symbol: of the system that it was made for.

    Raises:
        InvalidInput: for anything else, or a block that returns something else.
    """
    if not isinstance(layer, Block):
        raise InvalidInput(
            f"detectors: got {layer!r}, expected a name, a detector layer of linksim, or a "
            "Sionna block called (y, h, s)"
        )
    if not isinstance(layer, SionnaDetector):
        layer = SionnaDetector(layer, num_streams, num_bits_per_symbol)
    settings = _settings(layer.detector)
    if settings.get("_output", "bit") != "bit" or settings.get("_hard_out"):
        raise InvalidInput(
            f"detectors: {settings['class']} does not return LLRs; make it with "
            "output='bit' and hard_out=False"
        )
    return layer


def _keywords(output, hard_out, demapping_method):
    check_choice("output", output, OUTPUTS)
    check_choice("demapping_method", demapping_method, ("app", "maxlog"))
    return output, hard_out


def lmmse(
    num_streams,
    num_bits_per_symbol,
    output="bit",
    hard_out=False,
    demapping_method="app",
):
    """Sionna's LinearDetector with the LMMSE equalizer."""
    _keywords(output, hard_out, demapping_method)
    detector = LinearDetector(
        "lmmse",
        output,
        demapping_method,
        hard_out=hard_out,
        **_constellation(num_bits_per_symbol),
    )
    return SionnaDetector(detector, num_streams, num_bits_per_symbol)


def kbest(num_streams, num_bits_per_symbol, output="bit", hard_out=False, k=64):
    """Sionna's KBestDetector, complex-valued tree."""
    _keywords(output, hard_out, "maxlog")
    detector = KBestDetector(
        output, num_streams, k, hard_out=hard_out, **_constellation(num_bits_per_symbol)
    )
    out = SionnaDetector(detector, num_streams, num_bits_per_symbol)
    out.needs_full_column_rank = True
    return out


def ep(num_streams, num_bits_per_symbol, output="bit", hard_out=False, l=10, beta=0.9):  # noqa: E741 (Sionna's name)
    """Sionna's EPDetector (QAM only)."""
    _keywords(output, hard_out, "maxlog")
    _check_qam("sionna-ep", num_bits_per_symbol)
    detector = EPDetector(output, num_bits_per_symbol, hard_out=hard_out, l=l, beta=beta)
    return SionnaDetector(detector, num_streams, num_bits_per_symbol)


def mmse_pic(
    num_streams,
    num_bits_per_symbol,
    output="bit",
    hard_out=False,
    demapping_method="maxlog",
    num_iter=3,
):
    """Sionna's MMSEPICDetector: MMSE with parallel interference cancellation."""
    _keywords(output, hard_out, demapping_method)
    detector = MMSEPICDetector(
        output,
        demapping_method,
        num_iter=num_iter,
        hard_out=hard_out,
        **_constellation(num_bits_per_symbol),
    )
    return SionnaDetector(detector, num_streams, num_bits_per_symbol)


def maximum_likelihood(
    num_streams,
    num_bits_per_symbol,
    output="bit",
    hard_out=False,
    demapping_method="app",
):
    """Sionna's MaximumLikelihoodDetector: all |C|^K vectors."""
    _keywords(output, hard_out, demapping_method)
    if num_bits_per_symbol * num_streams > 16:
        raise InvalidInput(
            f"sionna-ml: {num_streams} streams of {num_bits_per_symbol} bits need "
            f"2^{num_streams * num_bits_per_symbol} hypotheses at once; use ml or sphere"
        )
    detector = MaximumLikelihoodDetector(
        output,
        demapping_method,
        num_streams,
        hard_out=hard_out,
        **_constellation(num_bits_per_symbol),
    )
    return SionnaDetector(detector, num_streams, num_bits_per_symbol)
