"""Make one block of a run again, with everything that happened to it."""

import io
from pathlib import Path

import numpy as np

from linksim.errors import check_int, check_real
from linksim.files import make_folder, write_atomically
from linksim.link.simulator import LinkSimulator


def replay_block(scenario, detector, snr_db, block, *, seed=0, xla="auto"):
    """Draw, detect and decode one block again.

    Args:
        scenario: a `Scenario`.
        detector: a name, or a layer, as `linksim.simulate` takes it.
        snr_db: SNR point in dB.
        block: number of the block at that point, from 0.
        seed: of the run.
        xla: "auto", "on" or "off".

    Raises:
        InvalidInput: an unknown name, or an SNR or block that no run has.

    Returns:
        Dictionary of arrays: `bits` and `bits_hat` [k], `bit_errors`, `symbols` and
        `symbols_hat` [U, K], `h` and `h_hat` [U, M, K], `y` [U, M], `no` [U],
        `llr` [U, K, m] and `codeword_llr` [n]. With a code also `decoder_llr`, the
        decoder's soft bits of the mother code, information bits first, and
        `decoder_iterations`.
    """
    check_int("block", block, minimum=0)
    check_real("snr_db", snr_db, low=-200, high=200)
    simulator = LinkSimulator(scenario, xla)
    name = simulator.add_detector(detector).name
    batch, index = divmod(block, scenario.run.batch_size)
    draws = simulator.draw(seed, snr_db, batch)
    llrs, symbols = simulator.detect(name, draws)
    link = simulator.link
    codeword = link.codeword_llrs(llrs)
    decided = link.decode(llrs).numpy()[index]
    bits = draws.bits.numpy()[index]
    arrays = {
        "bits": bits.astype(np.uint8),
        "bits_hat": decided.astype(np.uint8),
        "bit_errors": np.count_nonzero(bits != decided),
        "symbols": draws.symbols.numpy()[index],
        "symbols_hat": symbols.numpy()[index],
        "h": draws.h.numpy()[index],
        "h_hat": draws.h_hat.numpy()[index],
        "y": draws.y.numpy()[index],
        "no": draws.no.numpy()[index],
        "llr": llrs.numpy()[index],
        "codeword_llr": codeword.numpy()[index],
    }
    for name, value in link.code.decoder_state(codeword).items():
        arrays[name] = value[index]
    return arrays


def save_replay(arrays, path):
    """Write the arrays of `replay_block` to a compressed `.npz`, in one step.

    Raises:
        ResultFileError: the file cannot be written.
    """
    path = Path(path)
    make_folder(path.parent)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomically(path, buffer.getvalue())
