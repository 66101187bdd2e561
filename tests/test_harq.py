"""HARQ in the simulator: what is sent again, how it is decoded, counted and shown."""

import io

import numpy as np
import pytest
import tensorflow as tf
from rich.console import Console

from linksim.errors import InvalidInput, ResultFileError
from linksim.files import load_json, save_json
from linksim.link.decoding import fast_decoder
from linksim.link.describe import describe_link
from linksim.link.harq_config import Harq
from linksim.link.link import Link
from linksim.link.receiver import create_quantizer_for
from linksim.link.retransmission import HarqFunctions
from linksim.link.scenario import load_scenario, scenario_from_dict
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.jobs import run_job
from linksim.montecarlo.output import rate_tables, write_results
from linksim.montecarlo.replay import replay_block
from linksim.montecarlo.schedule import Job
from linksim.montecarlo.store import read_counts
from linksim.names import parse_quantizer
from linksim.report import build_page
from linksim.report.cells import point_cells
from linksim.report.runs import read_runs

SMALL = load_scenario("awgn-siso-qam4").replace(
    name="small",
    code={"type": "5g", "num_info_bits": 100, "num_coded_bits": 200, "num_iterations": 10},
    harq={"max_transmissions": 3},
    run={"batch_size": 20, "min_bler": 0.0},
)
QUANTIZED = load_scenario("rayleigh-4x4-qam16").replace(
    harq={"max_transmissions": 2, "combining": "chase"}, run={"batch_size": 8}
)
PUSCH = load_scenario("pusch-cdl-c-4x2-mcs14")
# Without HARQ, and without the keys that belong to it
ONCE = vars(Harq())
TDL = {"type": "tdl", "model": "C300", "max_doppler_hz": 100.0, "num_users": 2}
PUSCH = scenario_from_dict({**PUSCH.to_dict(), "channel": TDL}).replace(
    name="pusch",
    pusch={"num_prbs": 1},
    csi={"type": "perfect"},
    code={"num_iterations": 8},
    harq={"max_transmissions": 2},
    run={"batch_size": 10},
)


def outcomes_by_hand(scenario, detector, snr_db, batch=0, quantizer=None):
    """Which blocks have failed after each transmission, bool [T, blocks], and their final bit
    errors: every slot is sent every time, and all is added up."""
    simulator = LinkSimulator(scenario.replace(harq=ONCE), "off")
    simulator.add_detector(detector)
    link, size = Link(scenario), scenario.run.batch_size
    quantize = quantizer or (lambda llrs: llrs)
    failed, memory, wrong = [], None, None
    for number, code in enumerate(link.codes):
        keys = link.keys(0, snr_db, batch, number)
        draws = link.draw(keys, link.no(snr_db), 0, size, number)
        llrs, _ = simulator.detect(detector, draws)
        stored = quantize(llrs)
        heard = stored if scenario.harq.quantized == "all" else llrs
        heard, stored = (
            code.mother_llrs(link.codeword_llrs(x)).numpy() for x in (heard, stored)
        )
        if memory is not None:
            memory = np.pad(memory, ((0, 0), (0, heard.shape[1] - memory.shape[1])))
            heard, stored = memory + heard, memory + stored
        memory = stored
        # Without stopping, and without anything to trace
        options = code._stopping.num_iterations, code._stopping.cn_update
        decoder = fast_decoder(code._stopping.pcm, *options)
        bits = code.decided(decoder(tf.constant(heard))).numpy() != draws.bits.numpy()
        bits = bits.reshape(size * link.blocks_per_slot, -1).sum(axis=1)
        # A block that was decoded is done
        wrong = bits if wrong is None else np.where(wrong > 0, bits, 0)
        failed.append(wrong > 0)
    return np.stack(failed), wrong


def failed_of_run(results, path):
    """bool [T, blocks] of the only receiver and point of a run, from its file."""
    (record,), (_, store) = results["records"], read_counts(path)
    return record, store.failed_after("mmse", record["snr_db"])


def test_a_run_sends_blocks_until_they_are_decoded(tmp_path):
    """The first batch of twenty blocks, and the second, against what is added up by hand."""
    path = tmp_path / "counts.jsonl"
    options = {"snr_db": -2.0, "target_block_errors": 10**6, "xla": "off"}
    results = simulate(SMALL, ["mmse"], max_blocks=40, store_path=path, **options)
    record, failed = failed_of_run(results, path)
    batches = [outcomes_by_hand(SMALL, "mmse", -2.0, batch) for batch in (0, 1)]
    by_hand = np.concatenate([failed for failed, _ in batches], axis=1)
    np.testing.assert_array_equal(failed, by_hand)
    assert record["bit_errors"] == sum(wrong.sum() for _, wrong in batches)
    assert failed.shape == (3, 40) and failed[0].any() and not failed[-1].all()
    # Transmissions until the first that is decoded, and what they delivered
    sent = np.array([1 + list(b).index(False) if not b.all() else 3 for b in failed.T])
    assert 1 < sent.mean() < 3 and record["transmissions"] == pytest.approx(sent.mean())
    assert [record[f"bler_{n}"] for n in (1, 2, 3)] == failed.mean(axis=1).tolist()
    assert record["bler"] == record["bler_3"]
    delivered = 100 * (~failed[2]).sum() / (100 * sent.sum())  # QPSK: 100 uses of a block
    assert record["bits_per_use"] == pytest.approx(delivered)
    for key in ("bits_per_use", "transmissions", "bler_1", "bler_2"):
        assert record[f"{key}_low"] <= record[key] <= record[f"{key}_high"]
    check_harq_is_shown(results, tmp_path)


def test_the_quantizer_fills_the_memory():
    """EQ-Net's code, whose bits are sent again. What has just arrived is decoded as it is."""
    layer, _ = create_quantizer_for(parse_quantizer("max-mi:2"), QUANTIZED)
    simulator = LinkSimulator(QUANTIZED, "off")
    simulator.add_detector("mmse+max-mi:2")
    result = run_job(simulator, 0, Job(2.0, 0, ("mmse+max-mi:2",)))["mmse+max-mi:2"]
    expected, _ = outcomes_by_hand(QUANTIZED, "mmse", 2.0, quantizer=layer)
    np.testing.assert_array_equal(np.stack([*result.earlier, result.failed]), expected)


@pytest.mark.parametrize("quantized", ["stored", "all"])
def test_what_arrives_is_quantized_too_if_asked_for(quantized):
    link = Link(QUANTIZED.replace(harq={"quantized": quantized}))
    functions = HarqFunctions(link, None, lambda llrs: 2 * llrs, tf.function)
    heard, stored, _ = functions.heard(tf.ones([3, 2]))
    assert (stored.numpy() == 2).all()
    assert (heard.numpy() == (2 if quantized == "all" else 1)).all()


def test_transport_blocks_of_users_are_sent_again_on_their_own(tmp_path):
    path = tmp_path / "counts.jsonl"
    results = simulate(PUSCH, ["mmse"], snr_db=3.0, max_blocks=20, xla="off", store_path=path)
    record, failed = failed_of_run(results, path)
    expected, _ = outcomes_by_hand(PUSCH, "mmse", 3.0)
    np.testing.assert_array_equal(failed, expected)
    by_slot = failed.reshape(2, -1, 2)
    assert (by_slot[0, :, 0] != by_slot[0, :, 1]).any()
    # Blocks of both users in the slots of 0.5 ms that they take
    link = Link(PUSCH)
    most = link.num_info_bits / 0.5e-3
    delivered = (1 - record["bler"]) / record["transmissions"]
    assert 1 < record["transmissions"] < 2
    assert record["throughput"] == pytest.approx(most * delivered)
    assert record["spectral_efficiency"] == pytest.approx(most * delivered / 360e3)
    assert record["bits_per_use"] == pytest.approx(link.num_info_bits / 144 * delivered)
    lines = "\n".join(describe_link(PUSCH))
    assert "up to 2 transmissions of a block, redundancy versions 0, 2;" in lines
    assert "HARQ with up to 2 transmissions" in PUSCH.description


def test_every_transmission_has_a_channel_and_noise_of_its_own():
    scenario = QUANTIZED.replace(harq={"max_transmissions": 3})
    simulator = LinkSimulator(scenario, "off")
    first, second, third = (simulator.draw(3, 5.0, 2, number) for number in range(3))
    alone = LinkSimulator(scenario.replace(harq=ONCE), "off")
    for ours, plain in zip(first, alone.draw(3, 5.0, 2)):
        np.testing.assert_array_equal(ours, plain)
    for one, other in ((first, second), (first, third), (second, third)):
        np.testing.assert_array_equal(one.bits, other.bits)
        # The same redundancy version; the last channel use is padded
        np.testing.assert_array_equal(one.symbols[:, :-1], other.symbols[:, :-1])
        correlation = np.vdot(one.h, other.h) / np.linalg.norm(one.h) / np.linalg.norm(other.h)
        assert abs(correlation) < 0.05
    ir = LinkSimulator(SMALL, "off")
    assert (ir.draw(0, 0.0, 0).symbols != ir.draw(0, 0.0, 0, 1).symbols).numpy().mean() > 0.3


def check_harq_is_shown(results, folder):
    write_results(results, folder)
    assert (folder / "throughput.png").stat().st_size > 5000
    header = (folder / "results.csv").read_text().splitlines()[0]
    assert "bler_2_high" in header and "bits_per_use_low" in header
    record = results["records"][-1]
    console = Console(file=io.StringIO(), width=120)
    for rate in ("bits_per_use", "transmissions"):
        for table in rate_tables(results, rate):
            console.print(table)
    text = console.file.getvalue()
    assert f"{record['bits_per_use']:.3g} [" in text and "Transmissions of a block" in text
    (run,) = read_runs([folder])
    cell = point_cells(run, record["snr_db"])["mmse"]["throughput"]
    assert cell.value == record["bits_per_use"] and "transmissions" in cell.detail
    assert "Throughput (bit per channel use)" in build_page([run])
    results = load_json(folder / "results.json")
    results["records"][0]["transmissions"] = 4.0
    save_json(folder / "results.json", results)
    with pytest.raises(ResultFileError, match="transmissions lies outside of its interval"):
        read_runs([folder])


def test_draws_belong_to_what_is_sent():
    plain = SMALL.replace(harq=ONCE)
    data = plain.to_dict()
    assert "harq" not in data
    # What a scenario of this shape had before there was HARQ
    assert load_scenario("cdl-c-4x4-qam16").fingerprint() == "545dfd60612e07d1"
    three = {
        SMALL.replace(harq=changes).fingerprint()
        for changes in (
            {},
            {"combining": "chase"},
            {"max_transmissions": 2},
            {"quantized": "all"},
            {"redundancy_versions": [0, 3, 2]},
        )
    }
    assert len(three) == 5 and plain.fingerprint() not in three
    repeated = SMALL.replace(harq={"redundancy_versions": [0, 0, 0]})
    assert repeated.fingerprint() == SMALL.replace(harq={"combining": "chase"}).fingerprint()
    longer = SMALL.replace(harq={"redundancy_versions": [0, 2, 3, 3]})
    assert longer.fingerprint() == SMALL.fingerprint()


@pytest.mark.parametrize(
    "harq, message",
    [
        ({"max_transmissions": 5}, "harq.max_transmissions: got 5"),
        ({"max_transmissions": 0}, "harq.max_transmissions: got 0"),
        ({"combining": "both"}, "harq.combining: got 'both'"),
        ({"quantized": "none"}, "harq.quantized: got 'none'"),
        ({"redundancy_versions": [0, 2, 4]}, "harq.redundancy_versions: got 4"),
        ({"redundancy_versions": 0}, "harq.redundancy_versions: got 0, expected a list"),
        ({"redundancy_versions": [0, 2]}, "at least one for each of max_transmissions = 3"),
        (
            {"combining": "chase", "redundancy_versions": [0, 0, 0]},
            'got .0, 0, 0. with combining = "chase"',
        ),
        ({"versions": [0]}, "harq.: unknown key versions"),
    ],
)
def test_what_is_wrong_with_a_table_is_named(harq, message):
    with pytest.raises(InvalidInput, match=message):
        SMALL.replace(harq=harq)


@pytest.mark.parametrize(
    "key, value",
    [("combining", "chase"), ("quantized", "all"), ("redundancy_versions", [0, 0])],
)
def test_keys_of_transmissions_that_there_are_not_are_refused(key, value):
    once = SMALL.replace(harq=ONCE)
    with pytest.raises(InvalidInput, match=rf"harq.{key}: got .* with max_transmissions = 1"):
        once.replace(harq={key: value})


def test_codes_and_receivers_that_cannot_are_refused():
    with pytest.raises(
        InvalidInput, match='harq.combining: got "ir" with code.type = "802.11n"'
    ):
        QUANTIZED.replace(harq={"combining": "ir"})
    with pytest.raises(InvalidInput, match="harq.max_transmissions: got 3 without a code"):
        SMALL.replace(code={"type": "none", "num_info_bits": 0, "num_coded_bits": 0})
    with pytest.raises(InvalidInput, match="small sends blocks again .* name without passes"):
        simulate(SMALL, ["mmse", "ep/2"], snr_db=0.0)
    with pytest.raises(InvalidInput, match="replay: small sends blocks again"):
        replay_block(SMALL, "mmse", 0.0, 0)


def test_memory_of_what_is_kept_counts():
    """The mother code's LLRs of a batch, and the batches of two transmissions."""
    simulator = LinkSimulator(SMALL, "off")
    simulator.add_detector("mmse")
    batch = simulator.draw(0, 0.0, 0)
    drawn = sum(4 * np.prod(x.shape) * (2 if x.dtype.is_complex else 1) for x in batch)
    mother = 4 * SMALL.run.batch_size * simulator.link.codes[1]._stopping.n
    assert simulator.peak_memory() > 2 * drawn + mother
