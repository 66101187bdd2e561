"""SNR definitions by name, and their conversion to the noise variance N0.

The simulator knows one noise quantity: N0, the variance of the complex noise on one
receive antenna. Symbols have unit power. The papers define SNR in five ways, and Sionna in
one more. Each has a name here, and every axis label says which one it shows.

Eb/N0 comes in two forms, because two conventions are in use. "ebno" has the energy that is
sent for an information bit: every stream sends symbols of power 1, so K streams send K times
the power for K times the bits. "ebno_grid" is what `ebnodb2no(ebno_db, m, coderate,
resource_grid)` of Sionna makes of an axis: it takes the power of a transmitter to be 1, and
divides N0 by the streams of a transmitter as well, though each of them is sent with power 1
there too. For one transmitter of K streams, N0 at the same number of dB is therefore K times
smaller, and curves lie 10 log10(K) dB further left. Without a grid Sionna does not divide,
and the two are equal.

E|h_ij|^2 in "rx", "frobenius" and "detnet" is `Channel.power`, a mean over all that the
channel could draw. Where something is drawn once, as H_0 of "gauss-markov" and the matrices of
"fixed", the papers still refer to that mean, and so does the SNR here; what is measured on
the draws differs by `Channel.drawn_power / Channel.power`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from linksim.errors import check_choice, check_real


@dataclass(frozen=True)
class LinkBudget:
    """The quantities of a link that an SNR definition may depend on.

    Attributes:
        num_rx: receive antennas M.
        num_streams: transmitted streams K.
        num_bits_per_symbol: bits per symbol.
        coderate: information bits per coded bit; 1 without a code.
        channel_power: mean energy E|h_ij|^2 of a channel coefficient, over all that the
            channel could draw.
        resource_efficiency: share of the transmitted resources that carry data, where
            pilots and cyclic prefixes carry none; 1 without OFDM.
        streams_per_transmitter: by how many streams Sionna divides the energy of a
            transmitter; 1 without OFDM.
    """

    num_rx: int
    num_streams: int
    num_bits_per_symbol: int
    coderate: float = 1.0
    channel_power: float = 1.0
    resource_efficiency: float = 1.0
    streams_per_transmitter: int = 1


@dataclass(frozen=True)
class SnrDefinition:
    """One SNR definition.

    Attributes:
        label: axis label, with matplotlib's math.
        source: where the definition comes from, and what it is in words.
        no_at_0db: function of a `LinkBudget`, N0 at 0 dB.
        html: axis label in HTML.
        text: short label in ASCII, for terminals.
        per_realization: whether N0 follows the channel. `no_at_0db` is then the mean, and
            each channel use has it scaled by ||H||_F^2 / E||H||_F^2.
    """

    label: str
    source: str
    no_at_0db: Callable[[LinkBudget], float]
    html: str
    text: str
    per_realization: bool = False


def _ebno_no(budget):
    return 1.0 / (budget.num_bits_per_symbol * budget.coderate * budget.resource_efficiency)


def _detnet_no(budget):
    # Real noise has the variance tr(H'H)/K/SNR where symbols are the integers +-1, +-3, ...
    # With symbols of unit power N0 = 2/c * ||H||_F^2/K/SNR, c the energy of an integer one.
    order = 2**budget.num_bits_per_symbol
    energy = 1.0 if order == 2 else 2.0 * (order - 1) / 3.0
    return 2.0 / energy * budget.num_rx * budget.channel_power


SNR_DEFINITIONS = {
    "ebno": SnrDefinition(
        "$E_b/N_0$ (dB)",
        "energy sent for an information bit, to N0, with pilots and cyclic prefixes; Sionna's "
        "ebnodb2no with one stream per transmitter, or without a resource grid",
        _ebno_no,
        "E<sub>b</sub>/N<sub>0</sub> (dB)",
        "Eb/N0 (dB)",
    ),
    "ebno_grid": SnrDefinition(
        "$E_b/N_0$ of Sionna's grid (dB)",
        "Sionna's ebnodb2no with a resource grid: as Eb/N0, but the streams of a transmitter "
        "count as sharing a power of 1",
        lambda b: _ebno_no(b) / b.streams_per_transmitter,
        "E<sub>b</sub>/N<sub>0</sub> of Sionna’s grid (dB)",
        "Sionna's Eb/N0 (dB)",
    ),
    "esno": SnrDefinition(
        "SNR $= 1/N_0$ (dB)",
        "OAMP-Net2 [He20]; HyperMIMO [Goutay20], eq. 15; the code of EQ-Net [Arvinte20]: "
        "transmit power of a stream to N0",
        lambda b: 1.0,
        "SNR = 1/N<sub>0</sub> (dB)",
        "1/N0 (dB)",
    ),
    "rx": SnrDefinition(
        r"SNR $= E\|Hx\|^2/E\|n\|^2$ (dB)",
        "RE-MIMO [Pratik21]; MMNet [Khani20]; HyperMIMO-LR [Zilberstein21], eq. 6: "
        "received signal to received noise",
        lambda b: b.num_streams * b.channel_power,
        "SNR = E‖Hx‖²/E‖n‖² (dB)",
        "|Hx|^2/|n|^2 (dB)",
    ),
    "frobenius": SnrDefinition(
        r"SNR $= E\|H\|_F^2/N_0$ (dB)",
        "the text of EQ-Net [Arvinte20], Section V-A: energy of the channel matrix to N0",
        lambda b: b.num_rx * b.num_streams * b.channel_power,
        "SNR = E‖H‖²<sub>F</sub>/N<sub>0</sub> (dB)",
        "|H|^2/N0 (dB)",
    ),
    "detnet": SnrDefinition(
        r"SNR $= \mathrm{tr}(H^TH)/(K\sigma^2)$ per channel (dB)",
        "DetNet [Samuel19]; WeSNet [Mohammad20]: real noise variance tr(H'H)/K/SNR of each "
        "realization",
        _detnet_no,
        "SNR = tr(HᵀH)/(Kσ²) per channel (dB)",
        "tr(H'H)/(K s^2) (dB)",
        per_realization=True,
    ),
}


def snr_db_to_no(definition, snr_db, budget):
    """Convert an SNR in dB to the noise variance N0.

    Args:
        definition: a key of `SNR_DEFINITIONS`.
        snr_db: SNR in dB, from -200 to 200.
        budget: the link's `LinkBudget`.

    Returns:
        float > 0; the mean over channels if the definition is per realization.

    Raises:
        InvalidInput: an unknown definition, or an SNR out of range.
    """
    check_choice("snr.definition", definition, SNR_DEFINITIONS)
    check_real("snr_db", snr_db, low=-200, high=200)
    return float(SNR_DEFINITIONS[definition].no_at_0db(budget) * 10 ** (-snr_db / 10))


def no_to_snr_db(definition, no, budget):
    """Convert a noise variance N0 to an SNR in dB, the inverse of `snr_db_to_no`.

    Raises:
        InvalidInput: an unknown definition, or `no` is not positive.
    """
    check_choice("snr.definition", definition, SNR_DEFINITIONS)
    check_real("no", no, low=0, open_low=True)
    return float(10 * np.log10(SNR_DEFINITIONS[definition].no_at_0db(budget) / no))
