"""What a decoder could get from the LLRs of detectors, and what is lost where.

Four rates of the same LLRs, in bits per coded bit: as they are, times the best common
factor, through the best function of one LLR, and through the best function of an LLR and
of how well its stream is received. A detector whose first rate is far below the second is
wrong about its SNR; far below the third, about its own errors; below the fourth, it does
not see which channels are bad.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import entr

RATES = {
    "rate": "as they are",
    "rate_factor": "best factor",
    "rate_function": "best function",
    "rate_channel": "best function of LLR and SINR",
}
# Cells of equally many LLRs, and of SINRs. What they overestimate is about their number
# divided by 2 ln 2 and by the number of LLRs
_CELLS, _CLASSES = 48, 12


def llr_rates(llr, bits, sinr):
    """The rates of `RATES`.

    Args:
        llr: float [N], positive for a bit of 1.
        bits: [N] of 0 and 1.
        sinr: float [N], a measure of the channel of each bit's stream.

    Returns:
        {key of `RATES`: rate}, and "factor", the best one.
    """
    margin = np.asarray(llr, np.float64) * (2.0 * np.asarray(bits) - 1.0)

    def loss(log_factor):
        return np.mean(np.logaddexp(0.0, -np.exp(log_factor) * margin)) / np.log(2.0)

    best = minimize_scalar(loss, bounds=(np.log(1e-4), np.log(1e2)), method="bounded")
    classes = np.array_split(np.argsort(sinr, kind="stable"), _CLASSES)
    return {
        "rate": 1.0 - loss(0.0),
        "rate_factor": 1.0 - min(best.fun, loss(0.0)),
        "rate_function": 1.0 - _doubt(llr, bits),
        "rate_channel": 1.0
        - sum(len(c) * _doubt(llr[c], bits[c]) for c in classes) / len(llr),
        "factor": float(np.exp(best.x)),
    }


def _doubt(llr, bits):
    """Bits of entropy that a bit has left, given the cell of its LLR."""
    parts = np.array_split(bits[np.argsort(llr, kind="stable")], _CELLS)
    shares = np.array([[part.mean(), 1.0 - part.mean()] for part in parts])
    lengths = np.array([len(part) for part in parts])
    return float(entr(shares).sum(axis=1) @ lengths / len(llr) / np.log(2.0))


def mmse_sinr(h, no):
    """SINR after linear MMSE of every stream.

    Args:
        h: complex [..., M, K].
        no: float [...], noise variance.

    Returns:
        float [..., K].
    """
    gram = np.swapaxes(h.conj(), -1, -2) @ h / no[..., None, None]
    inverse = np.linalg.inv(gram + np.eye(h.shape[-1]))
    return 1.0 / np.real(np.diagonal(inverse, axis1=-2, axis2=-1)) - 1.0


def simulate_rates(scenario, detectors, points, *, num_batches, seed):
    """`llr_rates` of detectors on the same draws of a scenario.

    Args:
        scenario: the `Scenario`.
        detectors: their names.
        points: SNR in dB.
        num_batches: drawn at each point.
        seed: of the draws.

    Returns:
        A dictionary for each detector and point: "detector", "snr_db", "bits" (their
        number) and what `llr_rates` gives.
    """
    from linksim.constellation import bit_labels
    from linksim.link.simulator import LinkSimulator

    simulator = LinkSimulator(scenario)
    for name in detectors:
        simulator.add_detector(name)
    labels = bit_labels(scenario.system.num_bits_per_symbol)
    rows = []
    for snr_db in points:
        llrs = {name: [] for name in detectors}
        bits, sinr = [], []
        for number in range(num_batches):
            batch = simulator.draw(seed, snr_db, number)
            bits.append(labels[batch.symbols.numpy()])
            value = mmse_sinr(batch.h_hat.numpy(), batch.no.numpy())
            sinr.append(np.broadcast_to(value[..., None], bits[-1].shape))
            for name in detectors:
                llrs[name].append(simulator.detect(name, batch)[0].numpy())
        bits, sinr = np.concatenate(bits).ravel(), np.concatenate(sinr).ravel()
        for name in detectors:
            rates = llr_rates(np.concatenate(llrs[name]).ravel(), bits, sinr)
            rows.append({"detector": name, "snr_db": snr_db, "bits": bits.size, **rates})
    return rows


def rates_table(rows):
    """Rows of Markdown, of what `simulate_rates` gives."""
    lines = ["| detector | SNR | " + " | ".join(RATES.values()) + " | factor |"]
    lines.append("|---" * (len(RATES) + 3) + "|")
    for row in rows:
        rates = " | ".join(f"{row[key]:.3f}" for key in RATES)
        lines.append(
            f"| `{row['detector']}` | {row['snr_db']:g} dB | {rates} | {row['factor']:.2f} |"
        )
    return lines
