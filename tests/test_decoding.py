"""Decoding that stops early, against Sionna's decoder with all iterations."""

import numpy as np
import pytest
import tensorflow as tf
from sionna.phy.fec.ldpc.decoding import (
    cn_update_minsum,
    cn_update_offset_minsum,
    cn_update_tanh,
    vn_update_sum,
)

from linksim.errors import InvalidInput
from linksim.link.coding import NRLDPC, WiFiLDPC
from linksim.link.decoding import StoppingDecoder, fast_decoder
from linksim.link.node_updates import Rows, boxplus_update, minsum_update, sum_update

CODES = {
    "802.11n": lambda iterations=20: WiFiLDPC(iterations, "boxplus-phi"),
    "5g": lambda iterations=20: NRLDPC(100, 260, iterations, "boxplus-phi"),
    # With a punctured tail, and min-sum
    "5g, high rate": lambda iterations=20: NRLDPC(200, 240, iterations, "minsum"),
}
CN_UPDATE = {"802.11n": "boxplus-phi", "5g": "boxplus-phi", "5g, high rate": "minsum"}
# SNR in dB at which some codewords fail
WATERFALL_DB = {"802.11n": 1.0, "5g": 1.0, "5g, high rate": 6.0}


def received(rng, code, blocks, snr_db):
    """Random bits, and LLRs of BPSK with Gaussian noise at one SNR or one per block."""
    bits = rng.integers(0, 2, (blocks, code.num_info_bits)).astype(np.float32)
    coded = np.asarray(code.encode(tf.constant(bits)))
    variance = 10 ** (-np.broadcast_to(snr_db, (blocks, 1)) / 10)
    y = 2 * coded - 1 + rng.normal(size=coded.shape) * np.sqrt(variance)
    return bits, tf.constant((2 * y / variance).astype(np.float32))


@pytest.mark.parametrize("name", CODES)
@pytest.mark.parametrize("xla", [False, True])
def test_decisions_are_those_of_all_iterations(rng, name, xla):
    code = CODES[name]()
    bits, llrs = received(rng, code, 150, WATERFALL_DB[name])
    full = tf.function(code.decode_fully, autograph=False, jit_compile=xla)(llrs).numpy()
    stopped = tf.function(code.decode, autograph=False, jit_compile=xla)(llrs).numpy()
    failed = (full != bits).any(1)
    assert 0 < failed.sum() < 100
    np.testing.assert_array_equal(stopped[~failed], full[~failed])
    np.testing.assert_array_equal((stopped != bits).any(1), failed)
    # Without convergence 20 iterations are chaotic: rounding may change a decision, so
    # these are compared with all iterations of the same node updates
    same = fast_decoder(code._stopping.pcm, 20, CN_UPDATE[name])
    plain = tf.function(lambda x: same(code.mother_llrs(x)), autograph=False, jit_compile=xla)
    plain = plain(llrs).numpy()[:, : code.num_info_bits] > 0
    assert (stopped != plain)[failed].any(1).sum() <= 2


@pytest.mark.parametrize("blocks", [0, 1, 16, 65])
def test_any_number_of_codewords(rng, blocks):
    code = CODES["802.11n"]()
    _, llrs = received(rng, code, blocks, 1.0)
    spec = [tf.TensorSpec([None, 648], tf.float32)]
    decode = tf.function(code.decode, input_signature=spec, autograph=False)
    np.testing.assert_array_equal(decode(llrs), code.decode_fully(llrs))


def test_iterations_end_with_parity(rng):
    """Every codeword ends after the first even iteration at which Sionna's decisions are
    a codeword, or after all."""
    code = CODES["802.11n"](10)
    _, llrs = received(rng, code, 90, np.linspace(0, 8, 90)[:, None])
    decoder = code._decoder
    pcm = decoder.pcm
    expected = np.full(90, 10)
    for iterations in (8, 6, 4, 2):
        hard = np.asarray(decoder(llrs, num_iter=iterations)) > 0
        expected[((hard @ pcm.T) % 2 == 0).all(1)] = iterations
    assert len(set(expected)) == 5
    # Without convergence rounding adds up, so compare with the same node updates
    plain = np.asarray(fast_decoder(pcm, 10, "boxplus-phi")(llrs))
    for options in ({}, {"lanes": (7, 3)}, {"lanes": (200, 60, 40)}):
        soft, used = StoppingDecoder(pcm, 10, **options)(llrs)
        np.testing.assert_array_equal(used, expected)
        failed = expected == 10
        np.testing.assert_allclose(soft.numpy()[failed], plain[failed], rtol=1e-4, atol=1e-4)
    _, used = StoppingDecoder(pcm, 9)(llrs)  # an odd number: looks after each iteration
    assert set(np.unique(used)) >= {2, 3, 5} and used.numpy().max() == 9


@pytest.mark.parametrize("name", CODES)
def test_other_lengths_are_refused(name):
    code = CODES[name]()
    with pytest.raises(InvalidInput, match=f"expected \\[B, {code.num_coded_bits}\\]"):
        code.decode(tf.zeros([3, code.num_coded_bits - 1]))


def test_reduction_over_rows():
    rows = Rows([0, 0, 1, 2, 2, 2, 3, 3])
    values = np.arange(1.0, 9.0)[:, None] * [1.0, 10.0]
    expected = [[3, 30], [3, 30], [15, 150], [15, 150]]
    np.testing.assert_array_equal(rows.reduce(tf.constant(values), tf.add), expected)
    product = rows.reduce(tf.constant(values[:, 0]), tf.multiply)
    np.testing.assert_array_equal(product, [2, 3, 120, 56])
    by_edge = rows.by_edge(tf.constant([5, 6, 7, 8]))
    np.testing.assert_array_equal(by_edge, [5, 5, 6, 7, 7, 7, 8, 8])
    with pytest.raises(InvalidInput, match="nodes: 1 has no edge"):
        Rows([0, 2])


@pytest.mark.parametrize("xla", [False, True])
def test_node_updates_are_those_of_sionna(rng, xla):
    nodes = np.sort(np.concatenate([np.arange(40), rng.integers(0, 40, 160)]))
    values = rng.normal(size=(200, 7)) * 10 ** rng.uniform(-3, 1.5, (200, 1))
    values[rng.random((200, 7)) < 0.05] = 0.0  # as from punctured bits
    values[:4] = 20 * np.array([[1.0], [-1.0], [1.0], [-1.0]])  # beyond float32's tanh
    messages = tf.RaggedTensor.from_value_rowids(tf.constant(values, tf.float32), nodes)

    def compiled(function, *args):
        return tf.function(lambda: function(*args), autograph=False, jit_compile=xla)()

    ours = compiled(boxplus_update(nodes), messages, 20.0).flat_values.numpy()
    theirs = cn_update_tanh(messages, 20.0).flat_values.numpy()
    # Next to tanh = 1 one bit of float32 is a large step of an LLR
    near = np.abs(theirs) < 10
    np.testing.assert_allclose(ours[near], theirs[near], rtol=1e-3, atol=1e-4)
    np.testing.assert_array_equal(np.sign(ours[~near]), np.sign(theirs[~near]))
    assert (np.abs(ours[~near]) > 9).all() and (~near).any()

    for offset, update in ((0.0, cn_update_minsum), (0.5, cn_update_offset_minsum)):
        ours = compiled(minsum_update(nodes, offset), messages, 20.0).flat_values.numpy()
        np.testing.assert_array_equal(ours, update(messages, 20.0).flat_values)
    assert (ours == 20.0).any() and (ours == 0.0).any()

    llrs = tf.constant(rng.normal(size=(40, 7)), tf.float32)
    ours = compiled(sum_update(nodes), messages, llrs, 20.0)
    theirs = vn_update_sum(messages, llrs, 20.0)
    np.testing.assert_allclose(ours[0].flat_values, theirs[0].flat_values, atol=1e-4)
    np.testing.assert_allclose(ours[1], theirs[1], atol=1e-4)


def test_bad_options_are_refused():
    pcm = np.array([[1.0, 1.0]])
    for options, message in [
        ({"num_iterations": 0}, "num_iterations: got 0"),
        ({"slice_iterations": 3}, "slice_iterations: got 3, expected a divisor"),
        ({"lanes": ()}, "lanes"),
        ({"lanes": (2, 4)}, "expected descending"),
        ({"lanes": (0,)}, "lanes"),
        ({"lanes": 64}, "lanes: got 64"),
        ({"lanes": (64.0,)}, "lanes"),
    ]:
        with pytest.raises(InvalidInput, match=message):
            StoppingDecoder(pcm, **{"num_iterations": 20, **options})
    with pytest.raises(InvalidInput, match="expected \\[B, 2\\]"):
        StoppingDecoder(pcm, 2)(tf.zeros([3, 4]))
