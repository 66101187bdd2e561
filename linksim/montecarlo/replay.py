"""Make one block of a run again, with everything that happened to it."""

import io
from pathlib import Path

import numpy as np

from linksim.errors import InvalidInput, ResultFileError, check_int, check_real
from linksim.files import make_folder, write_atomically
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.store import read_counts


def replay_block(scenario, detector, snr_db, block, *, seed=0, xla="auto", store_path=None):
    """Draw, detect and decode one block again.

    Args:
        scenario: a `Scenario`.
        detector: a name, or a layer, as `linksim.simulate` takes it.
        snr_db: SNR point in dB.
        block: number of the block at that point, from 0.
        seed: of the run.
        xla: "auto", "on" or "off".
        store_path: the run's file of raw counts. It says how many blocks the run drew
            together, on which every draw depends, and the errors of the block's batch are
            compared with its counts. With None the batch size is that of the scenario, and
            nothing is compared.

    Raises:
        InvalidInput: an unknown name, an SNR or block that no run has, or that the run of
            `store_path` does not have, or blocks that are sent again.
        ResultFileError: the file is corrupted or of other draws, or what failed in its
            batch is not what fails now.

    Returns:
        Dictionary of arrays: `bits` and `bits_hat` [k], `bit_errors`, `symbols` and
        `symbols_hat` [U, K], `h` and `h_hat` [U, M, K], `y` [U, M], `no` [U] or with
        interference what detectors are told of it, perhaps a covariance [U, M, M],
        `llr` [U, K, m] and `codeword_llr` [n]. With a code also `decoder_llr`, the
        decoder's soft bits of the mother code, information bits first, and
        `decoder_iterations`. A block that has several codewords has both for each of them. Of
        several users' transport blocks, bits, `codeword_llr` and what the decoder has are those
        of the block, all else that of its slot.

        Of a receiver of several passes these are of the last pass over the block, and its
        LLRs are extrinsic. There are also arrays of all P passes over it: `pass_prior` and
        `pass_llr` [P, U, K, m], what the detector was told and what it told the decoder;
        `pass_symbols_hat` [P, U, K] and `pass_bits_hat` [P, k]; `pass_decoder_llr`,
        `pass_decoder_iterations` [P], and `pass_decoder_messages` [P, edges], the messages of
        the decoder after the pass.
    """
    check_int("block", block, minimum=0)
    check_real("snr_db", snr_db, low=-200, high=200)
    if scenario.harq.max_transmissions > 1:
        raise InvalidInput(
            f"replay: {scenario.name} sends blocks again (harq.max_transmissions = "
            f"{scenario.harq.max_transmissions}), and a replay is of one transmission"
        )
    if store_path is not None:
        scenario, counts = _as_drawn(scenario, seed, store_path)
    simulator = LinkSimulator(scenario, xla)
    receiver = simulator.add_detector(detector)
    name = receiver.name
    link = simulator.link
    batch, index = divmod(block, scenario.run.batch_size * link.blocks_per_slot)
    slot, user = divmod(index, link.blocks_per_slot)
    if store_path is not None:
        stored = _stored(counts, receiver, float(snr_db), block, batch, store_path)
    draws = simulator.draw(seed, snr_db, batch)
    if store_path is not None:
        # By the compiled functions that the run counted with
        errors, _, _ = simulator.errors(name, draws)
        _compare(stored, errors, batch, index, store_path)
    if receiver.num_passes > 1:
        decoded = _passes(link, simulator.passes(name, draws), slot)
    else:
        llrs, symbols = simulator.detect(name, draws)
        codeword = link.codeword_llrs(llrs)
        decoded = {
            "bits_hat": link.decode(llrs).numpy()[slot],
            "symbols_hat": symbols.numpy()[slot],
            "llr": llrs.numpy()[slot],
            "codeword_llr": codeword.numpy()[slot],
        }
        for key, value in link.code.decoder_state(codeword).items():
            decoded[key] = value[slot]
    decoded["bits"] = draws.bits.numpy()[slot].astype(np.uint8)
    decoded["bits_hat"] = decoded["bits_hat"].astype(np.uint8)
    if link.blocks_per_slot > 1:
        decoded = _of_user(decoded, link.blocks_per_slot, user)
    bits = decoded.pop("bits")
    return {
        "bits": bits,
        "bit_errors": np.count_nonzero(bits != decoded["bits_hat"]),
        "symbols": draws.symbols.numpy()[slot],
        "h": draws.h.numpy()[slot],
        "h_hat": draws.h_hat.numpy()[slot],
        "y": draws.y.numpy()[slot],
        "no": draws.no.numpy()[slot],
        **decoded,
    }


def _of_user(arrays, users, user):
    """What one of the users has, who follow each other in the arrays of bits and codewords."""
    found = {}
    for key, value in arrays.items():
        passes = () if not key.startswith("pass_") else value.shape[:1]
        if "bits" in key or "decoder" in key or key == "codeword_llr":
            inner = value.shape[len(passes) + 1 :]
            parts = value.reshape(*passes, users, -1, *inner)
            value = np.take(parts, user, axis=len(passes))
        found[key] = value
    return found


def _passes(link, passes, block):
    """The arrays of a block in a receiver of several passes."""
    found = []
    for one in passes:
        for row in np.flatnonzero(one.blocks == block):
            prior = np.zeros_like(one.llrs[row]) if one.prior is None else one.prior[row]
            decision = one.decision
            found.append(
                {
                    "prior": prior,
                    "llr": one.llrs[row],
                    "symbols_hat": one.symbols[row],
                    "bits_hat": decision.bits[row].astype(np.uint8),
                    "decoder_llr": decision.soft[row],
                    "decoder_iterations": decision.iterations[row],
                    "decoder_messages": decision.messages[row],
                }
            )
    last = found[-1]
    arrays = {f"pass_{key}": np.stack([one[key] for one in found]) for key in last}
    arrays["codeword_llr"] = link.codeword_llrs(last["llr"][None]).numpy()[0]
    kept = ("llr", "symbols_hat", "bits_hat", "decoder_llr", "decoder_iterations")
    return {**{key: last[key] for key in kept}, **arrays}


def _as_drawn(scenario, seed, path):
    """The scenario with the batch size of the run, and what its file holds."""
    identity, counts = read_counts(path)
    size = identity.get("batch_size")
    check_int(f"{path}: batch_size", size)
    scenario = scenario.replace(run={"batch_size": size})
    for key, value in (("seed", seed), ("fingerprint", scenario.fingerprint())):
        if identity.get(key) != value:
            raise ResultFileError(
                f"{path}: made with {key} = {identity.get(key)!r}, this scenario has "
                f"{value!r}, so its blocks cannot be made again"
            )
    return scenario, counts


def _stored(counts, receiver, snr_db, block, batch, path):
    """The `BatchResult` of the batch with a block."""
    result = counts.get(receiver.key, snr_db, batch)
    if result is not None:
        return result
    points = counts.points(receiver.key)
    if not points:
        known = ", ".join(counts.detectors())
        raise InvalidInput(
            f"replay: got the detector {receiver.key!r}, expected one that {path} has: "
            f"{known or 'there is none'}"
        )
    if snr_db not in points:
        raise InvalidInput(
            f"replay: got {snr_db:g} dB, expected a point at which {path} has "
            f"{receiver.name}: {', '.join(f'{p:g}' for p in points)}"
        )
    held = counts.total(receiver.key, snr_db).blocks
    raise InvalidInput(
        f"replay: got block {block}, expected less than {held}, the blocks of "
        f"{receiver.name} at {snr_db:g} dB in {path}"
    )


def _compare(stored, errors, batch, index, path):
    """Refuse a batch whose errors are not those that were counted."""
    was, now = stored.counts.bit_errors, int(errors.sum())
    if was == now and np.array_equal(stored.failed, errors > 0):
        return
    outcome = ("was decoded without an error", "failed")
    raise ResultFileError(
        f"{path}: batch {batch} had {was} bit errors in {stored.counts.block_errors} blocks, "
        f"and block {index} of it {outcome[int(stored.failed[index])]}; now it has {now} in "
        f"{np.count_nonzero(errors)}, and the block {outcome[int(errors[index] > 0)]}. The run "
        "used different software, a different kind of machine, or a different --xla"
    )


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
