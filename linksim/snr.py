"""Every SNR definition in use, by name, converted to the noise variance N0.

The simulator knows one noise quantity: N0, the variance of the complex noise on
one receive dimension. Symbols have unit power. The papers define their SNR in
five ways; each is a name here, and every axis label names the one it shows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from linksim.errors import check_choice, check_real


@dataclass(frozen=True)
class LinkBudget:
    """What an SNR definition may depend on.

    Attributes:
        num_rx: receive antennas M.
        num_streams: transmitted streams K.
        num_bits_per_symbol: bits of a symbol.
        coderate: information bits per coded bit, 1 when uncoded.
        channel_power: E|h_ij|^2 of one channel coefficient.
        resource_efficiency: data symbols per transmitted resource, cyclic prefix
            and pilots counted; 1 without OFDM.
    """

    num_rx: int
    num_streams: int
    num_bits_per_symbol: int
    coderate: float = 1.0
    channel_power: float = 1.0
    resource_efficiency: float = 1.0


@dataclass(frozen=True)
class SnrDefinition:
    """One definition: axis label, source, N0 at 0 dB, and the axis label in HTML.

    With `per_realization`, N0 at 0 dB holds on average over the channel and is
    scaled by ||H||_F^2 / E||H||_F^2 of each channel use.
    """

    label: str
    source: str
    no_at_0db: Callable[[LinkBudget], float]
    html: str
    per_realization: bool = False


def _detnet_no(budget):
    # Real noise of variance tr(H'H)/K/SNR beside symbols +-1, +-3, ...: with unit
    # power symbols N0 = 2/c * ||H||_F^2/K/SNR, c the energy of the integer symbol.
    order = 2**budget.num_bits_per_symbol
    energy = 1.0 if order == 2 else 2.0 * (order - 1) / 3.0
    return 2.0 / energy * budget.num_rx * budget.channel_power


SNR_DEFINITIONS = {
    "ebno": SnrDefinition(
        "$E_b/N_0$ (dB)",
        "Sionna's ebnodb2no: energy per information bit, stream and receive antenna",
        lambda b: 1.0 / (b.num_bits_per_symbol * b.coderate * b.resource_efficiency),
        "E<sub>b</sub>/N<sub>0</sub> (dB)",
    ),
    "esno": SnrDefinition(
        "SNR $= 1/N_0$ (dB)",
        "OAMP-Net, HyperMIMO eq. 15, EQ-Net's code: transmit power of a stream to N0",
        lambda b: 1.0,
        "SNR = 1/N<sub>0</sub> (dB)",
    ),
    "rx": SnrDefinition(
        r"SNR $= E\|Hx\|^2/E\|n\|^2$ (dB)",
        "RE-MIMO, MMNet, HyperMIMO-LR eq. 6: received signal to noise",
        lambda b: b.num_streams * b.channel_power,
        "SNR = E‖Hx‖²/E‖n‖² (dB)",
    ),
    "frobenius": SnrDefinition(
        r"SNR $= E\|H\|_F^2/N_0$ (dB)",
        "EQ-Net's text, Section V-A",
        lambda b: b.num_rx * b.num_streams * b.channel_power,
        "SNR = E‖H‖²<sub>F</sub>/N<sub>0</sub> (dB)",
    ),
    "detnet": SnrDefinition(
        r"SNR $= \mathrm{tr}(H^TH)/(K\sigma^2)$ per channel (dB)",
        "DetNet, WeSNet: real noise variance tr(H'H)/K/SNR of each realisation",
        _detnet_no,
        "SNR = tr(HᵀH)/(Kσ²) per channel (dB)",
        per_realization=True,
    ),
}


def snr_db_to_no(definition, snr_db, budget):
    """Noise variance N0 at an SNR in dB.

    Args:
        definition: a key of `SNR_DEFINITIONS`.
        snr_db: SNR in dB, finite.
        budget: the link's `LinkBudget`.

    Returns:
        float > 0; the mean over channels if the definition is per realization.
    """
    check_choice("snr.definition", definition, SNR_DEFINITIONS)
    check_real("snr_db", snr_db, low=-200, high=200)
    return float(SNR_DEFINITIONS[definition].no_at_0db(budget) * 10 ** (-snr_db / 10))


def no_to_snr_db(definition, no, budget):
    """The inverse of `snr_db_to_no`, in dB."""
    check_choice("snr.definition", definition, SNR_DEFINITIONS)
    check_real("no", no, low=0, open_low=True)
    return float(10 * np.log10(SNR_DEFINITIONS[definition].no_at_0db(budget) / no))
