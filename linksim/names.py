"""What a receiver's name means, parsed once.

A receiver is a detector, perhaps with a quantizer of its LLRs behind it, and perhaps
iterates with the decoder:

    DETECTOR[(OPTION=VALUE, ...)][@MODEL][:POINT][+QUANTIZER[@MODEL][:BITS]][/PASSES]

OPTIONS are keywords of the detector. MODEL is the configuration of the weights, where not
the one that fits best is wanted. POINT makes a weight-scaled network smaller: "50%" of its
units, "20L" for its first 20 layers, or "50%-20L". BITS is one number, or several with
dashes between them, one per component, or "none" for a learned quantizer's networks
without quantization. The quantizer "latent" quantizes the latents of an EQ-Net detector
(joint estimation and quantization). PASSES is how often the detector and the decoder work on
a block, where one pass did not decode it; see `linksim.link.turbo`.
"""

from __future__ import annotations

import hashlib
import re
from typing import NamedTuple

from linksim.detectors.capabilities import ACCEPT_PRIOR
from linksim.errors import InvalidInput
from linksim.quantization.registry import LATENT, QUANTIZERS, list_quantizers
from linksim.registry import DETECTORS

# The scenario gives the system, and a receiver needs soft bits; "+latent" brings the
# codebooks that "latent_bits" refers to
_NOT_OPTIONS = (
    *("num_streams", "num_bits_per_symbol", "output", "hard_out", "name"),
    "latent_bits",
)

_DETECTION = re.compile(
    r"""(?P<name>[^(@:]*)
        (?:\((?P<options>[^()]*)\))?
        (?:@(?P<model>[^:]+))?
        (?P<colon>:(?P<point>.*))?""",
    re.VERBOSE,
)
_POINT = re.compile(r"(?:(?P<percent>\d+(?:\.\d+)?)%)?-?(?:(?P<layers>\d+)L)?")
_WORD = re.compile(r"[A-Za-z_][\w.-]*")

# A slip of the keyboard is refused, and not simulated for days
_MOST_PASSES = 100


class QuantizerSpec(NamedTuple):
    """A quantizer by name, as `parse_quantizer` reads it.

    Attributes:
        name: of the quantizer.
        model: configuration of its weights, or None for the one that fits best.
        bits: one number, a tuple of one per component, "none" for the transform without
            quantization, or None for the quantizer's default.
    """

    name: str
    model: str | None = None
    bits: int | tuple[int, ...] | str | None = None

    @property
    def text(self) -> str:
        """The text that stands for it, always spelled in the same way."""
        text = self.name + (f"@{self.model}" if self.model else "")
        if self.bits is None:
            return text
        if isinstance(self.bits, tuple):
            return f"{text}:{'-'.join(map(str, self.bits))}"
        return f"{text}:{self.bits}"


class ReceiverSpec(NamedTuple):
    """A receiver by name, as `parse_receiver` reads it.

    Attributes:
        detector: name of the detector.
        options: its keywords, as (name, value) pairs in the order of their names.
        model: configuration of its weights, or None for the one that fits best.
        operating_point: arguments of the detector's `slim`, or None.
        quantizer: the `QuantizerSpec`, or None.
        num_passes: the most passes of detector and decoder over a block.
    """

    detector: str
    options: tuple[tuple[str, bool | int | float | str], ...] = ()
    model: str | None = None
    operating_point: dict[str, float] | None = None
    quantizer: QuantizerSpec | None = None
    num_passes: int = 1

    @property
    def detection(self) -> str:
        """The text of the detector alone. Receivers that differ only in the quantizer
        behind their LLRs have it in common."""
        text = self.detector
        if self.options:
            text += f"({', '.join(f'{k}={_value_text(v)}' for k, v in self.options)})"
        text += f"@{self.model}" if self.model else ""
        point = self.operating_point or {}
        # Twelve digits hide the rounding of the fraction, and keep all that was written
        parts = [f"{100 * point['fraction']:.12g}%"] if "fraction" in point else []
        parts += [f"{point['num_layers']}L"] if "num_layers" in point else []
        text += f":{'-'.join(parts)}" if parts else ""
        if self.quantizer is not None and self.quantizer.name == LATENT:
            text += f"+{self.quantizer.text}"
        return text

    @property
    def one_pass(self) -> str:
        """The text of the receiver that has one pass. Receivers that differ only in their
        passes have it in common."""
        if self.quantizer is None or self.quantizer.name == LATENT:
            return self.detection
        return f"{self.detection}+{self.quantizer.text}"

    @property
    def text(self) -> str:
        """The text that stands for it, always spelled in the same way: what results call
        the receiver."""
        return with_passes(self.one_pass, self.num_passes)


def counts_key(name: str, content: bytes) -> str:
    """What counts are stored under: a name, and a hash of `content` unless that is empty."""
    return f"{name}@{hashlib.sha256(content).hexdigest()[:12]}" if content else name


def name_of_key(key: str) -> str:
    """The name in what `counts_key` made."""
    return re.sub("@[0-9a-f]{12}$", "", key)


def with_passes(name: str, num_passes: int) -> str:
    """The name of a receiver with so many passes, from that with one."""
    return name if num_passes == 1 else f"{name}/{num_passes}"


def split_passes(text: str, what: str = "detector") -> tuple[str, int]:
    """The name of the receiver with one pass, and the number of passes.

    Raises:
        InvalidInput: what follows the slash is no number from 1 to 100.

    Example:
        >>> split_passes("ep+max-mi:3/2")
        ('ep+max-mi:3', 2)
    """
    name, slash, passes = _split_outside_brackets(text, "/")
    if not slash:
        return text, 1
    number = int(passes) if re.fullmatch("[0-9]{1,9}", passes.strip()) else 0
    if not 1 <= number <= _MOST_PASSES:
        raise InvalidInput(
            f"{what}: got {text!r}, expected a number of passes from 1 to {_MOST_PASSES} "
            "after the slash, at the end of the name"
        )
    return name.strip(), number


def needs_prior(text: str, what: str = "detector") -> InvalidInput:
    """The error that a receiver of several passes needs a detector that takes priors."""
    return InvalidInput(
        f"{what}: got {text!r}, but several passes need a detector that can use what the "
        f"decoder has found; those that can are {', '.join(ACCEPT_PRIOR)}"
    )


def parse_receiver(text: str, what: str = "detector") -> ReceiverSpec:
    """Read the name of a receiver; see the module for how it is written.

    Args:
        text: the name.
        what: the argument that errors name.

    Raises:
        InvalidInput: an unknown name, or a text that is written in another way.

    Example:
        >>> parse_receiver("ml+eqnet:6").quantizer.bits
        6
        >>> parse_receiver("kbest(k=16)").options
        (('k', 16),)
        >>> parse_receiver("r-wesnet:50%-20L").operating_point
        {'fraction': 0.5, 'num_layers': 20}
        >>> parse_receiver("amp/3").num_passes
        3
    """
    if not isinstance(text, str):
        raise InvalidInput(f"{what}: got {text!r}, expected a name")
    one_pass, num_passes = split_passes(text.strip(), what)
    first, plus, rest = _split_outside_brackets(one_pass, "+")
    match = _DETECTION.fullmatch(first.strip())
    if match is None:
        raise InvalidInput(
            f"{what}: got {text!r}, expected DETECTOR(OPTION=VALUE, ...)@MODEL:POINT"
            "+QUANTIZER@MODEL:BITS/PASSES, of which all but DETECTOR may be left out"
        )
    name = match["name"].strip()
    entry = DETECTORS.entry(name, what)
    learned = entry.learned
    # What a user's own class can do is known once it is loaded
    if num_passes > 1 and not entry.own and name not in ACCEPT_PRIOR:
        raise needs_prior(text, what)
    if match["model"] and not learned:
        raise InvalidInput(f"{what}: {name} has no weights to choose from, got {text!r}")
    point = _operating_point(match["point"], text, what) if match["colon"] else None
    if point and not learned:
        raise InvalidInput(f"{what}: {name} has no units or layers to cut, got {text!r}")
    quantizer = None
    if plus:
        quantizer = parse_quantizer(rest, (*list_quantizers(), LATENT))
        if quantizer.name == LATENT and not name.startswith("eqnet-"):
            raise InvalidInput(f"quantizer: {name} has no latents to quantize")
        if quantizer.name == LATENT and quantizer.model:
            raise InvalidInput(
                f"quantizer: the codebooks of latents come with the weights of {name}, so "
                f"latent takes no @{quantizer.model}; got {text!r}"
            )
    options = _options(match["options"], text, what)
    return ReceiverSpec(name, options, match["model"] or None, point, quantizer, num_passes)


def parse_quantizer(text: str, names: tuple[str, ...] | None = None) -> QuantizerSpec:
    """Read the name of a quantizer alone, `QUANTIZER[@MODEL][:BITS]`.

    Args:
        text: the name.
        names: those that are allowed; default `list_quantizers()`.

    Raises:
        InvalidInput: an unknown name, or bits that are not numbers.
    """
    if not isinstance(text, str):
        raise InvalidInput(f"quantizer: got {text!r}, expected a name")
    text = text.strip()
    name, _, bits = text.partition(":")
    name, at, model = name.partition("@")
    if names is None or name not in names:
        QUANTIZERS.entry(name)
    if at and not model:
        raise InvalidInput(f"quantizer: got {text!r}, expected a configuration after @")
    return QuantizerSpec(name, model or None, _bits(bits, text) if bits else None)


def names_quantizer(text: str) -> bool:
    """Whether a text names a quantizer alone, not a detector."""
    return re.split("[:@]", text)[0] in QUANTIZERS


def split_names(text: str) -> list[str]:
    """The names of a comma-separated list; commas inside brackets do not separate.

    Example:
        >>> split_names("mmse,ep(num_iterations=5, damping=0.5)")
        ['mmse', 'ep(num_iterations=5, damping=0.5)']
    """
    names, rest, comma = [], text, ","
    while comma:
        name, comma, rest = _split_outside_brackets(rest, ",")
        names.append(name.strip())
    return names


def _split_outside_brackets(text, separator):
    """As `str.partition`, at the first separator that no bracket encloses."""
    depth = 0
    for index, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if character == separator and depth == 0:
            return text[:index], separator, text[index + 1 :]
    return text, "", ""


def _options(text, whole, what):
    """`k=16, demapping_method=maxlog` as pairs in the order of their names."""
    found = {}
    for part in (text or "").split(",") if text and text.strip() else []:
        name, equals, value = (piece.strip() for piece in part.partition("="))
        if not equals or not name.isidentifier() or name in found:
            raise InvalidInput(
                f"{what}: got {whole!r}, expected options such as (k=16) or "
                "(num_iterations=5, damping=0.5), each once"
            )
        if name in _NOT_OPTIONS:
            raise InvalidInput(f"{what}: {name} cannot be chosen in a name, got {whole!r}")
        found[name] = _value(value, whole, what)
    return tuple(sorted(found.items()))


def _value(text, whole, what):
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    if _WORD.fullmatch(text):
        return text
    raise InvalidInput(
        f"{what}: got {whole!r}; an option's value is a number, true, false or a word, "
        f"not {text!r}"
    )


def _value_text(value):
    return str(value).lower() if isinstance(value, bool) else str(value)


def _operating_point(point, text, what):
    match = _POINT.fullmatch(point)
    if not match or not any(match.groups()) or point.startswith("-") or point.endswith("-"):
        raise InvalidInput(
            f"{what}: got {text!r}, expected an operating point such as :50%, :20L or :50%-20L"
        )
    found = {"fraction": float(match["percent"]) / 100} if match["percent"] else {}
    return {**found, "num_layers": int(match["layers"])} if match["layers"] else found


def _bits(bits, text):
    if bits == "none":
        return bits
    try:
        numbers = tuple(int(b) for b in bits.split("-"))
    except ValueError:
        raise InvalidInput(
            f"quantizer: got {text!r}, expected bits such as :6, :6-6-5 or :none"
        ) from None
    return numbers[0] if len(numbers) == 1 else numbers
