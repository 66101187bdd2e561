"""How much information a decoder could get from a detector's LLRs, and where it is lost.

Four rates of the same LLRs are measured, in bits per coded bit: as they are, times the best
common factor, through the best function of one LLR, and through the best function of an LLR
and of how well its stream is received. If the first rate is far below the second, the
detector is wrong about its SNR; if it is far below the third, about the distribution of its
errors; if it is below the fourth, it does not see which channels are bad.
"""

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import entr

from simulations.markdown import table

RATES = {
    "rate": "as they are",
    "rate_factor": "best factor",
    "rate_function": "best function",
    "rate_channel": "best function of LLR and SINR",
}
# Numbers of cells, of equally many LLRs each, and of classes of SINR. The rates are too
# large by about the number of cells over (2 ln 2 times the number of LLRs)
_CELLS, _CLASSES = 48, 12


def llr_rates(llr, bits, sinr):
    """The rates of `RATES`.

    Args:
        llr: float [N], positive for a bit of 1.
        bits: [N], 0 or 1.
        sinr: float [N], how well the stream of each bit is received.

    Returns:
        {key of `RATES`: rate in bits per coded bit}, and the best "factor".
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
    """The conditional entropy of a bit given the cell of its LLR, in bits."""
    parts = np.array_split(bits[np.argsort(llr, kind="stable")], _CELLS)
    shares = np.array([[part.mean(), 1.0 - part.mean()] for part in parts])
    lengths = np.array([len(part) for part in parts])
    return float(entr(shares).sum(axis=1) @ lengths / len(llr) / np.log(2.0))


def mmse_sinr(h, s):
    """The SINR of every stream after linear MMSE detection.

    Args:
        h: complex [..., M, K].
        s: noise variance N0, float [...], or noise covariance, complex [..., M, M].

    Returns:
        float [..., K].
    """
    whitened = np.linalg.solve(s, h) if s.ndim == h.ndim else h / s[..., None, None]
    gram = np.swapaxes(h.conj(), -1, -2) @ whitened
    inverse = np.linalg.inv(gram + np.eye(h.shape[-1]))
    return 1.0 / np.real(np.diagonal(inverse, axis1=-2, axis2=-1)) - 1.0


def simulate_rates(scenario, detectors, points, *, num_batches, seed, simulator=None):
    """The rates of several detectors' LLRs on the same draws of a scenario.

    Args:
        scenario: the `Scenario`.
        detectors: names.
        points: SNR in dB.
        num_batches: batches at each point.
        seed: seed of the draws.
        simulator: the `LinkSimulator` of the scenario to use, or None for a new one.

    Returns:
        A dictionary for each detector and point: "detector", "snr_db", "bits" (how many)
        and what `llr_rates` returns.
    """
    from linksim.constellation import bit_labels
    from linksim.link.simulator import LinkSimulator

    simulator = LinkSimulator(scenario) if simulator is None else simulator
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


def some_vectors(scenario, snr_db, seed, num_bits):
    """Channel uses of a scenario, and an EP detector of its system.

    Args:
        scenario: the `Scenario`.
        snr_db: the SNR in dB.
        seed: seed of the draws.
        num_bits: about how many bits the channel uses have together.

    Returns:
        y [N, M], the channels as the receiver knows them [N, M, K], N0 [N], the sent bits
        float32 [N, K, m], all NumPy, and the detector.
    """
    from linksim.constellation import bit_labels
    from linksim.link.simulator import LinkSimulator

    simulator = LinkSimulator(scenario)
    simulator.add_detector("ep")
    system = scenario.system
    count = max(1, num_bits // (system.num_streams * system.num_bits_per_symbol))
    parts = []
    while sum(len(p[0]) for p in parts) < count:
        batch = simulator.draw(seed, snr_db, len(parts))
        labels = bit_labels(system.num_bits_per_symbol)[batch.symbols.numpy()]
        arrays = batch.y.numpy(), batch.h_hat.numpy(), batch.no.numpy(), labels
        parts.append([a.reshape(-1, *a.shape[2:]) for a in arrays])
    y, h, no, bits = (np.concatenate(a) for a in zip(*parts))
    # Every channel use of an OFDM grid is equally likely to be kept
    kept = np.random.default_rng(seed).permutation(len(y))[:count]
    detector = simulator.receivers["ep"].detector
    return y[kept], h[kept], no[kept], bits[kept].astype(np.float32), detector


def rates_table(rows):
    """What `simulate_rates` returns, as lines of a Markdown table."""
    cells = []
    for row in rows:
        rates = (f"{row[key]:.3f}" for key in RATES)
        place = f"`{row['detector']}`", f"{row['snr_db']:g} dB"
        cells.append([*place, *rates, f"{row['factor']:.2f}"])
    return table(["detector", "SNR", *RATES.values(), "factor"], cells)
