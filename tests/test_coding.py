"""Channel codes: matrices of standards and of users, repetition and segments."""

from fractions import Fraction

import numpy as np
import pytest
import tensorflow as tf
from sionna.phy.fec.crc import CRCEncoder
from sionna.phy.fec.utils import load_parity_check_examples
from sionna.phy.nr import TBEncoder

from linksim.errors import InvalidInput, WorkerError
from linksim.link.coding import (
    NRLDPC,
    AlistLDPC,
    MatrixLDPC,
    SegmentedNRLDPC,
    WiFiLDPC,
    systematic_form,
)
from linksim.link.coding.alist import alist_size, read_alist
from linksim.link.coding.segments import num_segments
from linksim.link.coding.wifi import SIZES, base_matrix, wifi_matrix
from linksim.link.link import Link
from linksim.link.scenario import load_scenario, scenario_from_dict
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.remote import make_worker

BASE = load_scenario("awgn-siso-qam4").replace(
    code={"interleaver_seed": -1}, run={"batch_size": 20}
)
# Codes of each kind, small and at both ends of what the kind adds
CODES = {
    "802.11n (1296, 864)": lambda: WiFiLDPC(20, "boxplus", 864, 1296),
    "matrix, information bits in between": lambda: MatrixLDPC(shuffled(), 20, "boxplus"),
    "5g, rate 1/8": lambda: NRLDPC(100, 800, 20, "boxplus"),
    "5g, all bits": lambda: NRLDPC(100, 820, 20, "boxplus"),
    "5g, all bits, no fillers": lambda: NRLDPC(720, 3600, 20, "boxplus"),
    "5g, repeated": lambda: NRLDPC(100, 2101, 20, "boxplus"),
    "5g, graph 1 repeated": lambda: NRLDPC(4400, 14001, 20, "boxplus"),
    "5g, two segments": lambda: SegmentedNRLDPC(8449, 17001, 20, "boxplus"),
    "5g, segments of graph 2": lambda: SegmentedNRLDPC(3841, 16000, 20, "boxplus"),
}


def shuffled():
    """The 802.11n (648, 324) matrix with its columns in random order."""
    pcm = wifi_matrix(648, Fraction(1, 2))
    return pcm[:, np.random.default_rng(1).permutation(648)]


def random_bits(rng, code, blocks=3):
    return rng.integers(0, 2, (blocks, code.num_info_bits)).astype(np.float32)


@pytest.mark.parametrize("name", CODES)
def test_what_is_sent_comes_back(rng, name):
    """Without noise, and from half of the bits' signs where these are sent twice."""
    code = CODES[name]()
    bits = random_bits(rng, code)
    coded = np.asarray(code.encode(tf.constant(bits)))
    assert coded.shape == (3, code.num_coded_bits) and set(np.unique(coded)) == {0, 1}
    assert code.coderate == pytest.approx(code.num_info_bits / code.num_coded_bits)
    llrs = tf.constant(12.0 * coded - 6.0)
    for decode in (code.decode, code.decode_fully, code.decode_without_stopping):
        np.testing.assert_array_equal(decode(llrs), bits)
    state = code.decoder_state(llrs)
    assert len(state["decoder_llr"]) == len(state["decoder_iterations"]) == 3
    # What the decoder says of the bits sent, in their order
    mother = state["decoder_llr"].reshape(-1, code.mother_llrs(llrs).shape[1])
    np.testing.assert_array_equal(code.sent_llrs(tf.constant(mother)) > 0, coded > 0)
    with pytest.raises(InvalidInput, match=f"expected \\[B, {code.num_coded_bits}\\]"):
        code.decode(tf.zeros([1, code.num_coded_bits + 1]))


@pytest.mark.parametrize("name", ["5g, repeated", "5g, segments of graph 2"])
def test_any_number_of_blocks(rng, name):
    code = CODES[name]()
    spec = [tf.TensorSpec([None, code.num_coded_bits], tf.float32)]
    decode = tf.function(code.decode, input_signature=spec, autograph=False)
    bits = random_bits(rng, code)
    llrs = 12.0 * code.encode(tf.constant(bits)) - 6.0
    for blocks in (0, 1, 2):
        np.testing.assert_array_equal(decode(llrs[:blocks]), bits[:blocks])


@pytest.mark.parametrize("n, k", SIZES)
def test_structure_of_802_11n(n, k):
    """Sizes, the chain of parity bits, and short cycles, of which three codes have some."""
    shifts, pcm = base_matrix(n, SIZES[n, k]), wifi_matrix(n, SIZES[n, k])
    rows, z = len(shifts), n // 24
    assert pcm.shape == (n - k, n) == (rows * z, 24 * z) and shifts.max() < z
    chain = shifts[:, 24 - rows + 1 :]
    assert ((chain >= 0).sum(0) == 2).all() and (chain <= 0).all()
    first = shifts[:, 24 - rows]
    assert first[0] == first[-1] == 1 and (first >= 0).sum() == 3
    # All rows of blocks are nearly equally long, and each information bit has three checks
    weights = (shifts >= 0).sum(1)
    assert np.ptp(weights) <= 1 and ((shifts >= 0).sum(0)[: 24 - rows] >= 3).all()
    generator, information = systematic_form(pcm)
    np.testing.assert_array_equal(information, np.arange(k))
    assert not ((generator @ pcm.T) % 2).any()
    common = pcm @ pcm.T - np.diag(pcm.sum(1))
    assert (common.max() > 1) == ((n, k) in ((648, 486), (1296, 864), (1944, 1296)))


def test_the_known_matrix_of_802_11n():
    pcm, *_ = load_parity_check_examples(4)
    np.testing.assert_array_equal(wifi_matrix(648, Fraction(1, 2)), pcm)


def test_systematic_form_of_any_matrix(rng):
    for checks, n in ((3, 7), (9, 20), (12, 12), (5, 33)):
        pcm = rng.integers(0, 2, (checks, n))
        pcm[-1] = pcm[0] ^ pcm[1]  # says nothing
        generator, information = systematic_form(pcm)
        # A brute force of the code counts its words
        rank = n - len(generator)
        sums = {tuple(np.array(c) @ pcm % 2) for c in np.ndindex(*(2,) * checks)}
        assert len(sums) == 2**rank
        assert not ((generator @ pcm.T) % 2).any()
        np.testing.assert_array_equal(generator[:, information], np.eye(n - rank))


@pytest.mark.parametrize("k, n", [(100, 800), (100, 820), (100, 2101), (640, 3201)])
def test_low_rates_send_the_circular_buffer(rng, k, n):
    """[TS38212], 5.4.2.1, with the codeword that satisfies the checks of the base graph."""
    code = NRLDPC(k, n, 20, "boxplus")
    encoder, pcm = code._encoder, code._encoder.pcm
    z, fillers = encoder.z, encoder.k_ldpc - k
    bits = random_bits(rng, code, 1)[0]
    coded = code.encode(tf.constant(bits[None])).numpy()[0]
    whole = NRLDPC(k, encoder.num_different, 20, "boxplus")
    parity = whole.encode(tf.constant(bits[None])).numpy()[0, k - 2 * z :]
    word = np.concatenate([bits, np.zeros(fillers), parity])
    assert len(word) == pcm.shape[1] and not ((pcm @ word) % 2).any()
    null = np.isin(np.arange(len(word)), np.arange(k, k + fillers))
    expected, j, buffer = [], 0, len(word) - 2 * z
    while len(expected) < n:
        if not null[2 * z + j % buffer]:
            expected.append(word[2 * z + j % buffer])
        j += 1
    np.testing.assert_array_equal(coded, expected)
    # The LLRs of repeated bits add up
    llrs = rng.normal(size=(2, n)).astype(np.float32)
    places = [i for i in 2 * z + np.arange(buffer) if not null[i]]
    mother = np.zeros((2, len(word)))
    for position, llr in enumerate(llrs.T):
        mother[:, places[position % len(places)]] += llr
    got = code.mother_llrs(tf.constant(llrs)).numpy()
    assert (got[:, k : k + fillers] == -20).all()
    mother[:, null] = -20
    np.testing.assert_allclose(got, mother[:, : got.shape[1]], atol=1e-5)
    assert not mother[:, got.shape[1] :].any()


@pytest.mark.parametrize("payload, n", [(16896, 33801), (9744, 44801)])
def test_segments_are_those_of_sionna(rng, payload, n):
    """A transport block with its CRC, by `TBEncoder`, is a block of ours."""
    theirs = TBEncoder(payload, n, payload / n, 1, use_scrambler=False)
    assert theirs.tb_size == payload and theirs.num_cbs > 1
    bits = tf.constant(rng.integers(0, 2, (2, payload)).astype(np.float32))
    with_crc = CRCEncoder("CRC24A")(bits)
    code = SegmentedNRLDPC(payload + 24, n, 20, "boxplus")
    assert code.num_segments == theirs.num_cbs
    np.testing.assert_array_equal(code.encode(with_crc), theirs(bits))


def test_numbers_of_segments():
    """[TS38212], 5.2.2: a block that is too long by one bit pays for two CRCs."""
    for k, n, expected in (
        (8448, 16896, 1),
        (8449, 16898, 2),
        (16848, 33696, 2),
        (16849, 33698, 3),
        (3840, 19200, 1),
        (3841, 19205, 2),
        (3841, 10000, 1),
    ):
        assert num_segments(k, n) == expected


# --- parity-check matrices of a user ---------------------------------------------------


def alist_text(pcm):
    """A matrix as an alist file, lists filled with zeros."""
    pcm = np.asarray(pcm)

    def lists(matrix):
        most = int(matrix.sum(1).max())
        for row in matrix:
            ones = np.flatnonzero(row) + 1
            yield " ".join(map(str, [*ones, *[0] * (most - len(ones))]))

    columns, rows = pcm.sum(0).astype(int), pcm.sum(1).astype(int)
    head = [f"{pcm.shape[1]} {pcm.shape[0]}", f"{columns.max()} {rows.max()}"]
    head += [" ".join(map(str, columns)), " ".join(map(str, rows))]
    return "\n".join([*head, *lists(pcm.T), *lists(pcm)]) + "\n"


HAMMING = np.array([[1, 0, 1, 0, 1, 0, 1], [0, 1, 1, 0, 0, 1, 1], [0, 0, 0, 1, 1, 1, 1]])


def alist_scenario(file):
    return BASE.replace(code={"type": "alist", "file": str(file)})


def test_an_alist_file_is_the_matrix(tmp_path):
    pcm = wifi_matrix(648, Fraction(1, 2))
    file = tmp_path / "wifi.alist"
    file.write_text(alist_text(pcm))
    np.testing.assert_array_equal(read_alist(file), pcm)
    # The same code by its own name makes the same errors
    scenario = alist_scenario(file)
    assert (scenario.num_coded_bits, scenario.num_info_bits) == (648, 324)
    assert "wifi LDPC (648, 324)" in scenario.description
    results = [
        simulate(s, ["ml"], snr_db=-1.5, max_blocks=20)["records"][0] for s in (scenario, BASE)
    ]
    assert results[0]["bit_errors"] == results[1]["bit_errors"] > 0
    # Lists may end early
    lines = [line.replace(" 0", "") for line in alist_text(HAMMING).splitlines()]
    file.write_text("\n".join(lines))
    np.testing.assert_array_equal(read_alist(file), HAMMING)


def test_dependent_rows_say_nothing(tmp_path, rng):
    file = tmp_path / "code.alist"
    file.write_text(alist_text([*HAMMING, HAMMING[0] ^ HAMMING[1]]))
    assert alist_size(file) == (7, 4)
    code = AlistLDPC(file, 20, "boxplus")
    bits = random_bits(rng, code, 16)
    coded = code.encode(tf.constant(bits)).numpy()
    assert not ((coded @ HAMMING.T) % 2).any()
    np.testing.assert_array_equal(code.decode(tf.constant(8 * coded - 4)), bits)


GOOD = alist_text(HAMMING).splitlines()


@pytest.mark.parametrize(
    "change, message",
    [
        ({0: "7"}, "line 1: got 1 numbers, expected 2: the numbers of columns"),
        ({0: "7 x"}, "line 1: expected numbers alone, got '7 x'"),
        ({0: "7 -3"}, "line 1: expected numbers alone"),
        ({0: "7 4"}, "got 14 lines that are not empty, expected 15 for 7 columns and 4 rows"),
        ({0: "99999999 3"}, "got 99999999 columns and 3 rows, expected from 1 to 32768"),
        ({1: "2 4"}, "the largest degree of a column is 3, but line 2 says 2"),
        ({2: "1 1 2 1 2 2"}, "line 3: got 6 numbers, expected 7: the degree of each column"),
        ({2: "2 1 2 1 2 2 3"}, "line 5, column 1: got 1 ones, expected its degree 2"),
        ({2: "1 1 1 1 2 2 3"}, "line 7, column 3: got 2 ones, expected its degree 1"),
        ({2: "0 1 2 1 2 2 3"}, "line 5, column 1: is empty"),
        ({4: "4 0 0"}, "line 5, column 1: expected different numbers from 1 to 3"),
        ({6: "1 1 0"}, "line 7, column 3: expected different numbers"),
        ({4: "2 0 0"}, "the lists disagree about row 1 of column 1"),
        ({1: "3 4 5"}, "line 2: got 3 numbers"),
        ({0: "\0"}, "expected numbers alone"),
        ({0: "é"}, "is not text"),
        (dict.fromkeys(range(14), ""), "ends before the numbers of columns"),
        (
            dict(enumerate(alist_text(np.eye(3)).splitlines()))
            | dict.fromkeys(range(10, 14), ""),
            "all bits are parity bits",
        ),
    ],
)
def test_what_is_wrong_with_an_alist_file_is_named(tmp_path, change, message):
    file = tmp_path / "code.alist"
    lines = [change.get(i, line) for i, line in enumerate(GOOD)]
    file.write_text("\n".join(lines), encoding="utf-8")
    with pytest.raises(InvalidInput, match=f"code.file: .*code.alist: .*{message}"):
        Link(alist_scenario(file))


def test_files_of_codes_that_are_not_there(tmp_path):
    for file in (tmp_path / "nosuch.alist", tmp_path):
        with pytest.raises(InvalidInput, match="code.file: cannot read .*no such file"):
            Link(alist_scenario(file))
    for code, message in (
        ({"type": "alist"}, "code.file: got '' with code.type = \"alist\""),
        (
            {"type": "5g", "num_info_bits": 20, "file": "x"},
            "code.file: got 'x' with code.type",
        ),
        ({"type": "alist", "file": "x", "num_info_bits": 4}, "leave them out"),
        ({"type": "alist", "file": "x", "rate": 0.5}, "whose rate can be chosen"),
        ({"type": "alist", "file": 3}, "code.file: got 3, expected a path"),
        ({"type": "alist", "file": "a\nb"}, "code.file: got 'a\\\\nb'"),
    ):
        with pytest.raises(InvalidInput, match=message):
            BASE.replace(code=code)


def test_results_belong_to_what_the_file_holds(tmp_path):
    """Wherever it is; and its path is relative to the scenario's file."""
    (tmp_path / "a").mkdir()
    text = '[code]\ntype = "alist"\nfile = "code.alist"\n[system]\nnum_rx = 1\n'
    text += 'num_streams = 1\nnum_bits_per_symbol = 2\n[channel]\ntype = "awgn"\n'
    text += '[snr]\ndefinition = "esno"\npoints = [3]\n[run]\ndetectors = ["ml"]\n'
    for folder in (tmp_path, tmp_path / "a"):
        (folder / "mine.toml").write_text(text)
        (folder / "code.alist").write_text(alist_text(HAMMING))
    one, other = (load_scenario(f / "mine.toml") for f in (tmp_path, tmp_path / "a"))
    assert one.code.file == str(tmp_path / "code.alist") != other.code.file
    assert one.fingerprint() == other.fingerprint() and one.num_coded_bits == 7
    assert scenario_from_dict(one.to_dict()) == one
    (tmp_path / "a" / "code.alist").write_text(alist_text(HAMMING[:, ::-1]))
    assert one.fingerprint() != other.fingerprint()
    with pytest.raises(WorkerError, match="the files that the scenario names differ"):
        make_worker(other, one.fingerprint(), "off", {}, 0, [], [])
    (tmp_path / "a" / "code.alist").write_text(alist_text(HAMMING[:, :6]))
    assert other.num_coded_bits == 6


def test_codes_of_802_11n_by_rate_and_by_size():
    for rate, n, k in (
        (0.5, 0, 324),
        (0.67, 1296, 864),
        (0.75, 648, 486),
        (0.833, 1944, 1620),
    ):
        by_rate = BASE.replace(code={"rate": rate, "num_coded_bits": n})
        by_size = BASE.replace(code={"num_info_bits": k, "num_coded_bits": n})
        for scenario in (by_rate, by_size):
            link = Link(scenario)
            assert link.code.num_info_bits == scenario.num_info_bits == k
            assert link.code.num_coded_bits == scenario.num_coded_bits == (n or 648)
        assert by_rate.fingerprint() == by_size.fingerprint()
        assert (by_rate.fingerprint() == BASE.fingerprint()) == (k == 324)
    for code, message in (
        ({"rate": 0.6}, "code.rate: got 0.6, expected one of 1/2, 2/3, 3/4, 5/6"),
        (
            {"num_coded_bits": 1000, "rate": 0.5},
            "\\(1000, 500\\), expected one of .*\\(648, 324",
        ),
        ({"num_info_bits": 300}, "\\(648, 300\\), expected one of"),
        ({"rate": 0.5, "num_info_bits": 324}, "expected only one of them"),
    ):
        with pytest.raises(InvalidInput, match=message):
            BASE.replace(code=code)
    with pytest.raises(InvalidInput, match="expected one of those of 802.11n"):
        WiFiLDPC(20, "boxplus", 300, 648)


@pytest.mark.parametrize(
    "code, message",
    [
        ({"rate": 1.0, "num_coded_bits": 640}, "code.rate: got 1.0, which makes 640 inf"),
        ({"rate": 1e-9, "num_coded_bits": 640}, "code.rate: got 1e-09, which makes 0"),
        ({"rate": 1.5, "num_coded_bits": 640}, "code.rate: got 1.5, expected a finite"),
        ({"rate": 0.5, "num_coded_bits": 1}, "code.rate: got 0.5, which makes 0"),
        ({"rate": 0.5}, "code.num_coded_bits: missing"),
        ({"num_coded_bits": 640}, "code.num_info_bits: missing"),
        ({"num_info_bits": 700, "num_coded_bits": 640}, "code.num_info_bits: got 700, which"),
        ({"num_info_bits": 11, "num_coded_bits": 640}, "info_bits: got 11, .* at least 12"),
        ({"rate": 0.96, "num_coded_bits": 10**5}, "code.rate: got 0.96, .* 96000 .* 0.95"),
    ],
)
def test_sizes_that_the_5g_code_does_not_have_are_refused_by_key(capsys, code, message):
    scenario = load_scenario("rayleigh-4x4-qam16")
    with pytest.raises(InvalidInput, match=message):
        Link(scenario.replace(code={"type": "5g", **code}))
    assert not capsys.readouterr().out
