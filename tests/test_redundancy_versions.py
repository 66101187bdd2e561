"""Redundancy versions of codes: which bits they send, and how their LLRs add up."""

import functools

import numpy as np
import pytest
import tensorflow as tf
from sionna.phy.fec.crc import CRCEncoder
from sionna.phy.nr import TBEncoder

from linksim.errors import InvalidInput
from linksim.link.coding import NRLDPC, SegmentedNRLDPC, StreamCodewords, WiFiLDPC
from linksim.link.link import Link
from linksim.link.pusch import configs_of
from linksim.link.scenario import load_scenario

PUSCH = load_scenario("pusch-cdl-c-4x2-mcs14")
# [TS38212], Table 5.4.2.1-2: k0 of rv 0 to 3, the buffer of N_cb bits in 66 or 50 columns
FRACTIONS = {66: (0, 17, 33, 56), 50: (0, 13, 25, 43)}


def random_bits(rng, *shape):
    return rng.integers(0, 2, shape).astype(np.float32)


@functools.cache
def encoder_of_all_bits(k, graph):
    return NRLDPC(k, 10**5, 20, "boxplus", graph)._encoder


def buffer_of(k, graph, bits):
    """The circular buffer of a codeword as [TS38212], 5.3.2, has it, and which bits of it are
    fillers; from the lowest rate, whose parity checks are verified."""
    encoder = encoder_of_all_bits(k, graph)
    z = encoder.z
    fillers = encoder.k_ldpc - k
    coded = encoder(tf.constant(bits[None])).numpy()[0]
    word = np.concatenate([bits, np.zeros(fillers), coded[k - 2 * z :]])
    assert not ((encoder.pcm @ word) % 2).any()
    null = np.isin(np.arange(len(word)), np.arange(k, k + fillers))
    return word[2 * z :], null[2 * z :], z


def selected(buffer, null, z, version, n):
    """What is sent, and from where in the buffer: [TS38212], 5.4.2.1, step by step."""
    columns = len(buffer) // z
    k0 = FRACTIONS[columns][version] * len(buffer) // (columns * z) * z
    sent, places, j = [], [], 0
    while len(sent) < n:
        place = (k0 + j) % len(buffer)
        if not null[place]:
            sent.append(buffer[place])
            places.append(place)
        j += 1
    return np.array(sent), np.array(places)


@pytest.mark.parametrize(
    "k, n", [(100, 200), (100, 700), (120, 1300), (720, 900), (4400, 6001), (4224, 14001)]
)
def test_redundancy_versions_are_those_of_the_circular_buffer(rng, k, n):
    code = NRLDPC(k, n, 20, "boxplus")
    bits = random_bits(rng, k)
    buffer, null, z = buffer_of(k, code._graph, bits)
    versions = 0, 2, 3, 1, 1
    for version, sent in zip(versions, code.transmissions(versions)):
        expected, places = selected(buffer, null, z, version, n)
        coded = sent.encode(tf.constant(bits[None])).numpy()[0]
        np.testing.assert_array_equal(coded, expected)
        assert (sent.num_coded_bits, sent.coderate) == (n, code.coderate)
        # LLRs come back to where the bits are from, and add up where these repeat
        llrs = rng.normal(size=n).astype(np.float32)
        mother = np.zeros(len(buffer))
        np.add.at(mother, places, llrs)
        got = sent.mother_llrs(tf.constant(llrs[None])).numpy()[0]
        assert not got[: 2 * z].any()
        mother[null] = -20
        got = np.pad(got[2 * z :], (0, len(buffer) - len(got[2 * z :])))
        np.testing.assert_allclose(got, mother, atol=1e-5)
        soft = rng.normal(size=(1, sent._stopping.n)).astype(np.float32)
        values = np.pad(soft[0, 2 * z :], (0, len(buffer) - len(soft[0]) + 2 * z))
        np.testing.assert_array_equal(sent.sent_llrs(tf.constant(soft))[0], values[places])
    first = code.encode(tf.constant(bits[None]))
    assert code.transmissions(versions)[0]._stopping is code._stopping
    np.testing.assert_array_equal(code.transmissions([0])[0].encode(bits[None]), first)


def test_any_transmission_with_enough_bits_is_decoded(rng):
    """Without noise. Versions 0 and 3 have information bits and are enough alone."""
    bits = tf.constant(random_bits(rng, 4, 300))

    def decoded(n, versions):
        total = None
        for code in NRLDPC(300, n, 40, "boxplus").transmissions(versions):
            mother = code.mother_llrs(20 * code.encode(bits) - 10)
            total = mother if total is None else mother + tf.pad(total, missing(total, mother))
        return (code.decode_mother(total).numpy() == bits.numpy()).all()

    def missing(total, mother):
        return [[0, 0], [0, mother.shape[1] - total.shape[1]]]

    assert decoded(600, [0]) and decoded(900, [3])
    # All bits there are, from anywhere
    assert all(decoded(1980, [version]) for version in (1, 2))
    assert decoded(320, [0, 2]) and decoded(320, [2, 3])
    # Without its information bits a short part of the buffer says too little
    assert not decoded(400, [2])


@pytest.mark.parametrize(
    "code",
    [
        NRLDPC(100, 250, 10, "boxplus"),
        WiFiLDPC(10, "boxplus"),
        SegmentedNRLDPC(8449, 17001, 10, "boxplus"),
        StreamCodewords(NRLDPC(100, 250, 10, "boxplus"), 2),
    ],
    ids=["5g", "802.11n", "segments", "a codeword on each stream"],
)
def test_the_same_bits_twice_double_their_llrs(rng, code):
    llrs = tf.constant(rng.normal(size=(3, code.num_coded_bits)).astype(np.float32))
    first, second = code.transmissions([0, 0])
    twice = first.mother_llrs(llrs) + second.mother_llrs(llrs)
    got = second.decode_mother(twice)
    np.testing.assert_array_equal(got, code.decode(2 * llrs))
    np.testing.assert_array_equal(
        first.decode_mother(first.mother_llrs(llrs)), code.decode(llrs)
    )


def test_codewords_of_streams_have_the_same_redundancy_versions(rng):
    one = NRLDPC(100, 250, 10, "boxplus").transmissions([0, 3])
    several = StreamCodewords(NRLDPC(100, 250, 10, "boxplus"), 2).transmissions([0, 3])
    bits = tf.constant(random_bits(rng, 3, 200))
    for alone, together in zip(one, several):
        expected = alone.encode(tf.reshape(bits, [6, 100]))
        np.testing.assert_array_equal(together.encode(bits), tf.reshape(expected, [3, 500]))


def test_codes_without_redundancy_versions_refuse_them():
    with pytest.raises(InvalidInput, match=r"versions: got \[0, 2\], expected zeros"):
        WiFiLDPC(10, "boxplus").transmissions([0, 2])


def interleaved(bits, order):
    """[TS38212], 5.4.2.2."""
    return bits.reshape(order, -1).T.reshape(-1)


@pytest.mark.parametrize("changes", [{"num_prbs": 2}, {"num_prbs": 13, "mcs_index": 27}])
def test_transport_blocks_have_redundancy_versions(rng, changes):
    """Step by step as [TS38212] has it; version 0 is what Sionna's `TBEncoder` sends."""
    order = 4 if "mcs_index" not in changes else 6
    scenario = PUSCH.replace(pusch=changes, system={"num_bits_per_symbol": order})
    link = Link(scenario)
    config, code = configs_of(scenario, link.channel)[0], link.code
    theirs = TBEncoder(
        config.tb_size,
        config.num_coded_bits,
        config.tb.target_coderate,
        order,
        1,
        [1, 2],
        [1, 1],
    )
    bits = random_bits(rng, 2, code.num_info_bits)
    by_user = bits.reshape(4, -1)
    crc = CRCEncoder("CRC24A" if by_user.shape[1] > 3824 else "CRC16")
    segments = crc(tf.constant(by_user)).numpy().reshape(4, int(theirs.num_cbs), -1)
    if theirs.num_cbs > 1:
        segments = CRCEncoder("CRC24B")(tf.constant(segments)).numpy()
    k, uses, count = segments.shape[-1], config.num_coded_bits // order, segments.shape[1]
    scrambling = theirs.scrambler(tf.zeros([1, 2, config.num_coded_bits])).numpy()[0]
    graph = code._code._graph
    for version, sent in zip((0, 2, 3, 1), code.transmissions((0, 2, 3, 1))):
        blocks = []
        for user, words in enumerate(segments):
            parts = []
            for r, word in enumerate(words):
                per_word, rest = divmod(int(uses), count)
                length = order * (per_word + (r >= count - rest))
                part, _ = selected(*buffer_of(k, graph, word), version, length)
                parts.append(interleaved(part, order))
            blocks.append((np.concatenate(parts) + scrambling[user % 2]) % 2)
        coded = sent.encode(tf.constant(bits)).numpy()
        np.testing.assert_array_equal(coded, np.reshape(blocks, (2, -1)))
        if version == 0:
            np.testing.assert_array_equal(
                coded, theirs(tf.constant(bits.reshape(2, 2, -1))).numpy().reshape(2, -1)
            )
        # Each of them has been received, with the ones before it
        mother = sent.mother_llrs(tf.constant(8 * coded - 4))
        np.testing.assert_array_equal(sent.sent_llrs(mother) > 0, coded > 0)
