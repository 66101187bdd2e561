"""Links in which each stream has a codeword of its own, as users without a common code have."""

import numpy as np
import pytest
import tensorflow as tf
from sionna.phy.fec.ldpc import LDPC5GEncoder

from linksim.channels.base import create_channel
from linksim.constellation import bit_labels
from linksim.errors import InvalidInput
from linksim.link.coding import NRLDPC, SegmentedNRLDPC, StreamCodewords, WiFiLDPC
from linksim.link.describe import describe_link
from linksim.link.link import Link
from linksim.link.scenario import load_scenario
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.replay import replay_block
from tests.test_turbo import LINK

STREAMS = LINK.replace(
    name="streams",
    code={
        "num_coded_bits": 160,
        "num_info_bits": 80,
        "interleaver_seed": -1,
        "per_stream": True,
        "interleaver": "5g",
    },
    run={"batch_size": 10},
)
K, BITS = 4, 4
UNCODED = {"type": "none", "num_info_bits": 0, "num_coded_bits": 0, "interleaver_seed": -1}
POINT = {"snr_db": 5.0, "xla": "off"}


@pytest.fixture(scope="module")
def link():
    return Link(STREAMS)


def sent_bits(symbols):
    """Bits in the order they are sent on each stream, [B, K, n], of symbols [B, U, K]."""
    labels = bit_labels(BITS)[symbols]
    return labels.swapaxes(1, 2).reshape(len(symbols), K, -1)


@pytest.mark.parametrize("interleaver", ["5g", ""])
def test_each_stream_has_the_codeword_that_sionna_sends(interleaver):
    link = Link(STREAMS.replace(code={"interleaver": interleaver}))
    assert (link.blocks_per_slot, link.num_uses, link.num_info_bits) == (K, 40, 320)
    assert link.budget.coderate == 0.5
    batch = link.draw(link.keys(0, 5.0, 0), tf.constant(0.1), 0, 3)
    bits = tf.reshape(batch.bits, (3, K, 80))
    order = {"num_bits_per_symbol": BITS} if interleaver else {}
    expected = LDPC5GEncoder(80, 160, **order)(bits)
    np.testing.assert_array_equal(sent_bits(batch.symbols.numpy()), expected)


def test_a_stream_that_is_lost_costs_its_own_block(link, rng):
    batch = link.draw(link.keys(0, 5.0, 0), tf.constant(0.1), 0, 5)
    llrs = 8.0 * bit_labels(BITS)[batch.symbols].astype(np.float32) - 4.0
    lost = np.array([0, 3, 1, 1, 2])
    llrs[np.arange(5), :, lost] = rng.normal(size=(5, 40, BITS))
    symbols = (llrs > 0) @ (8, 4, 2, 1)
    bits, wrong = link.count_errors(batch.bits, batch.symbols, llrs, symbols.astype(np.int32))
    for errors in (bits, wrong):
        errors = np.asarray(errors).reshape(5, K)
        np.testing.assert_array_equal(np.argwhere(errors)[:, 1], lost)


CODES = {
    "5g": lambda: NRLDPC(60, 150, 4, "minsum"),
    "segments": lambda: SegmentedNRLDPC(3841, 16000, 2, "minsum"),
    "802.11n": lambda: WiFiLDPC(4, "minsum"),
}


@pytest.mark.parametrize("name", CODES)
def test_the_codewords_of_a_slot_are_those_of_the_code(rng, name):
    one = CODES[name]()
    code, n = StreamCodewords(one, 2), one.num_coded_bits
    assert code.coderate == one.coderate and code.llr_max == one.llr_max
    bits = rng.integers(0, 2, (3, code.num_info_bits)).astype(np.float32)
    coded = np.asarray(code.encode(tf.constant(bits)))
    flat = bits.reshape(-1, one.num_info_bits)
    np.testing.assert_array_equal(coded.reshape(-1, n), one.encode(tf.constant(flat)))
    llrs = rng.normal(2.0 * (2 * coded - 1), 2.0).astype(np.float32)
    llrs[1] = 9.0 * (2 * coded[1] - 1)  # a slot that is final
    apart = llrs.reshape(-1, n)
    for decode in ("decode", "decode_without_stopping"):
        found = np.asarray(getattr(code, decode)(llrs)).reshape(flat.shape)
        np.testing.assert_array_equal(found, getattr(one, decode)(apart))
    used = np.array([True, False, True])
    first, expected = code.resume(llrs), one.resume(apart)
    again = code.resume(llrs, first.messages, tf.constant(used))
    then = one.resume(apart, expected.messages, tf.constant(np.repeat(used, 2)))
    for found, wanted in ((first, expected), (again, then)):
        np.testing.assert_array_equal(
            found.holds, np.asarray(wanted.holds).reshape(3, 2).all(1)
        )
        for kind in ("soft", "iterations", "messages"):
            values = np.asarray(getattr(wanted, kind))
            shape = (3, 2, *values.shape[1:])
            np.testing.assert_array_equal(getattr(found, kind), values.reshape(shape))
    np.testing.assert_array_equal(
        code.first_messages(llrs), tf.reshape(one.first_messages(apart), first.messages.shape)
    )
    decided = np.asarray(code.decided(first.soft)).reshape(flat.shape)
    np.testing.assert_array_equal(decided, one.decided(expected.soft))
    for soft in (first.soft, code.mother_llrs(llrs)):
        assert code.sent_llrs(soft).shape == llrs.shape
    np.testing.assert_array_equal(
        code.sent_llrs(code.mother_llrs(llrs)),
        tf.reshape(one.sent_llrs(one.mother_llrs(apart)), llrs.shape),
    )
    other = code.with_iterations(2, "boxplus")
    np.testing.assert_array_equal(
        other.decode(llrs),
        tf.reshape(one.with_iterations(2, "boxplus").decode(apart), bits.shape),
    )
    state = code.decoder_state(llrs)
    assert {value.shape[:2] for value in state.values()} == {(3, 2)}
    with pytest.raises(InvalidInput, match=f"expected \\[B, {2 * n}\\]"):
        code.decode(llrs[:, 1:])


def test_runs_count_the_blocks_of_streams(tmp_path):
    file = tmp_path / "counts.jsonl"
    names = ["mmse", "mmse/3"]
    options = {**POINT, "target_block_errors": 10**6, "store_path": file}
    results = simulate(STREAMS, names, max_blocks=80, **options)
    one, three = results["records"]
    assert one["blocks"] == 80 and one["bits"] == 80 * 80 and one["symbols"] == 80 * 40
    assert 0 < three["block_errors"] < one["block_errors"] < 80
    simulator = LinkSimulator(STREAMS, xla="off")
    simulator.add_detector("mmse/3")
    draws = simulator.draw(0, POINT["snr_db"], 1)
    errors, _, _ = simulator.errors("mmse/3", draws)
    block = int(np.flatnonzero(errors)[0])
    arrays = replay_block(STREAMS, "mmse/3", block=40 + block, store_path=file, **POINT)
    assert arrays["bits"].shape == (80,) and arrays["codeword_llr"].shape == (160,)
    assert arrays["bit_errors"] == errors[block]
    assert arrays["pass_bits_hat"].shape[1:] == (80,)
    # A slot goes on as long as one of its blocks is wrong
    passes = simulator.passes("mmse/3", draws)
    for one in passes[1:]:
        assert block // K in one.blocks
    assert "slot of 4 blocks: 40 channel uses, 320 info" in "\n".join(describe_link(STREAMS))


def test_a_grid_is_divided_among_the_streams():
    scenario = load_scenario("cdl-c-8x4-qam16").replace(
        code={"num_info_bits": 0, "rate": 0.5, "per_stream": True}
    )
    link = Link(scenario)
    assert scenario.num_coded_bits == 576 and scenario.num_info_bits == 288
    assert link.code.num_coded_bits == 4 * 576 and link.num_info_bits == 4 * 288
    assert "(576, 288) on each stream, rate 0.5" in scenario.description


def test_the_keys_are_absent_by_default():
    code = LINK.to_dict()["code"]
    assert "per_stream" not in code and "interleaver" not in code
    assert LINK.replace(code={"per_stream": False}).fingerprint() == LINK.fingerprint()
    changes = [{"per_stream": True}, {"interleaver": "5g"}]
    wide = LINK.replace(code={"num_coded_bits": 160, "interleaver_seed": -1})
    marks = {wide.replace(code=code).fingerprint() for code in ({}, *changes)}
    assert len(marks) == 3


@pytest.mark.parametrize(
    "code, message",
    [
        ({"per_stream": 1}, "code.per_stream: got 1, expected true or false"),
        ({"interleaver": "row"}, "code.interleaver: "),
        ({"interleaver_seed": 1, "interleaver": "5g"}, "interleaver_seed = 1, expected only"),
        ({**UNCODED, "per_stream": True}, "code.per_stream: got True with code.type"),
        ({**UNCODED, "interleaver": "5g"}, "code.interleaver: got '5g' with code.type"),
        ({"per_stream": True}, "150 bits does not fill symbols of 4"),
        (
            {"interleaver": "5g", "interleaver_seed": -1},
            '"5g" needs whole symbols of 4 bits, but a codeword has 150',
        ),
    ],
)
def test_what_does_not_go_together_is_named(code, message):
    with pytest.raises(InvalidInput, match=message):
        Link(LINK.replace(code=code))


def test_streams_of_equal_energy(rng):
    options = {"uses_per_realization": 3, "power": 0.5}
    plain, equal = (
        np.asarray(
            create_channel("rayleigh", 5, 2, **options, normalize_streams=normalize).sample(
                np.array([1, 2], np.int32), 40, 6
            )
        )
        for normalize in (False, True)
    )
    energy = (np.abs(equal) ** 2).mean(axis=-2)
    np.testing.assert_allclose(energy, 0.5, rtol=1e-5)
    scale = np.sqrt(0.5 / (np.abs(plain) ** 2).mean(axis=-2, keepdims=True))
    np.testing.assert_allclose(equal, plain * scale, rtol=1e-5)
