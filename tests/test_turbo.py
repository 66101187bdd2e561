"""Iterative detection and decoding, against a plain loop of Sionna's decoder."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from sionna.phy.fec.ldpc import LDPCBPDecoder

from linksim.cli import coded_ber, export
from linksim.detectors.capabilities import ACCEPT_PRIOR
from linksim.detectors.linear import MMSEDetector
from linksim.errors import InvalidInput
from linksim.export import target_of
from linksim.link.coding import create_code
from linksim.link.decoder_layer import IterativeReceiver
from linksim.link.receiver import create_receiver, is_outdated
from linksim.link.scenario import Code, load_scenario
from linksim.link.simulator import LinkSimulator
from linksim.link.turbo import PassFunctions
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.replay import replay_block
from linksim.names import name_of_key, parse_receiver
from tests.small_runs import SMALL, counts

# Ten uses of a block have 160 bits, of which 150 are coded
LINK = load_scenario("rayleigh-4x4-qam16").replace(
    name="small",
    code={
        "type": "5g",
        "num_info_bits": 60,
        "num_coded_bits": 150,
        "num_iterations": 6,
        "cn_update": "minsum",
    },
    run={"batch_size": 20, "min_bler": 0.0},
)
SOFT = "mmse"
POINT = 8.0


def simulator_of(names, scenario=LINK):
    simulator = LinkSimulator(scenario, xla="off")
    for name in names:
        simulator.add_detector(name)
    return simulator


@pytest.fixture(scope="module")
def usual():
    """A simulator of one, two, three and four passes."""
    return simulator_of([SOFT, *(f"{SOFT}/{passes}" for passes in (2, 3, 4))])


class Reference:
    """The loop as the equations have it, one block after the other, on Sionna's decoder."""

    def __init__(self, link, detector, quantize=lambda llrs: llrs):
        self.link, self.detector, self.quantize = link, detector, quantize
        self.loop = link.scenario.loop
        self.iterations = link.scenario.iterations_per_pass
        self.pcm = link.code._decoder.pcm.toarray()
        self.bp, self.bp_again = (
            LDPCBPDecoder(
                link.code._decoder.pcm,
                num_iter=2,
                cn_update=update,
                hard_out=False,
                return_state=True,
            )
            for update in ("minsum", self.loop.cn_update or "minsum")
        )
        n, uses = link.code.num_coded_bits, link.num_uses
        # Where the bits stand: in the symbols of a block, and in the mother code
        sent = link.codeword_llrs(tf.range(float(uses * 16))[None] + 0.0)[0]
        self.in_symbols = sent.numpy().astype(int)
        marks = link.code.mother_llrs(tf.range(1.0, n + 1)[None])[0].numpy()
        self.in_mother = np.array([np.flatnonzero(marks == i + 1)[0] for i in range(n)])

    def __call__(self, y, h, no, passes):
        """(prior, LLRs, symbols, information bits) of each pass that is made."""
        prior = np.zeros((1, self.link.num_uses, 4, 4), np.float32)
        messages, found = None, []
        for number in range(passes):
            given = (prior,) if number else ()
            llrs, symbols = self.detector.llrs_and_symbols(y, h, no, *given)
            llrs = np.asarray(self.quantize(llrs - prior))
            coded = llrs.ravel()[self.in_symbols]
            mother = self.link.code.mother_llrs(tf.constant(coded[None]))
            decoder = self.bp_again if number else self.bp
            for _ in range(self.iterations // 2):
                soft, messages = decoder(mother, msg_v2c=messages)
                hard = np.asarray(soft)[0] > 0
                holds = not ((self.pcm @ hard) % 2).any()
                if holds:
                    break
            bits = hard[: self.link.num_info_bits]
            found.append((prior[0], llrs[0], symbols.numpy()[0], bits))
            if holds:
                break
            told = np.asarray(soft)[0][self.in_mother]
            if self.loop.feedback == "extrinsic":
                told = told - np.clip(coded, -20, 20)
            prior = np.zeros(prior.size, np.float32)
            prior[self.in_symbols] = self.loop.scale * told
            prior = prior.reshape(1, -1, 4, 4)
        return found


@pytest.mark.parametrize(
    "name, loop",
    [
        (f"{SOFT}/3", {}),
        (f"{SOFT}/3", {"feedback": "posterior", "scale": 0.5, "iterations": 4}),
        (f"{SOFT}/3", {"cn_update": "boxplus"}),
        (f"{SOFT}+max-mi@rayleigh-4x4-qam16:3/3", {}),
    ],
)
def test_passes_are_those_of_a_plain_loop(name, loop):
    simulator = simulator_of([name], LINK.replace(loop=loop))
    receiver = simulator.receivers[parse_receiver(name).text]
    draws = simulator.draw(0, POINT, 0)
    passes = simulator.passes(receiver.name, draws)
    assert len(passes) == 3 and 20 == len(passes[0].blocks) > len(passes[2].blocks) > 0
    quantize = receiver.quantizer or (lambda llrs: llrs)
    reference = Reference(simulator.link, receiver.detector, quantize)
    bits = np.zeros(draws.bits.shape)
    symbols = np.zeros(draws.symbols.shape)
    for block in range(20):
        given = [x[block : block + 1] for x in (draws.y, draws.h_hat, draws.no)]
        expected = reference(*given, 3)
        made = [p for p in passes if block in p.blocks]
        assert len(made) == len(expected)
        for one, (prior, llrs, decided, info) in zip(made, expected):
            row = list(one.blocks).index(block)
            if one.prior is not None:
                np.testing.assert_allclose(one.prior[row], prior, atol=2e-2, rtol=1e-2)
            np.testing.assert_allclose(one.llrs[row], llrs, atol=2e-2, rtol=1e-2)
            np.testing.assert_array_equal(one.symbols[row], decided)
            np.testing.assert_array_equal(one.decision.bits[row], info)
        bits[block], symbols[block] = info, decided
    errors = simulator.errors(receiver.name, draws)
    np.testing.assert_array_equal(errors[0], (bits != draws.bits.numpy()).sum(1))
    wrong = symbols != draws.symbols.numpy()
    np.testing.assert_array_equal(errors[1], wrong.sum((1, 2)))
    if receiver.quantizer is not None:
        assert all(len(np.unique(p.llrs[..., 0, 0])) <= 8 for p in passes)


def test_receivers_of_one_run_share_their_passes(monkeypatch, usual):
    """Alone or together, a receiver counts the same; the first pass is the plain receiver's."""
    names, together, made = [f"{SOFT}/4", SOFT, f"{SOFT}/2"], usual, []
    timed = PassFunctions.timed

    def noted(self, function, *args):
        made.append(function)
        return timed(self, function, *args)

    monkeypatch.setattr(PassFunctions, "timed", noted)
    draws, shared = together.draw(0, POINT, 0), {}
    found = {name: together.errors(name, draws, shared) for name in names}
    seconds = [found[name][2] for name in (SOFT, f"{SOFT}/2", f"{SOFT}/4")]
    assert all(s > 0 for s in seconds) and seconds[1] < seconds[2]
    calls = len(made)
    together.errors(f"{SOFT}/3", draws, shared)
    assert len(made) == calls
    for name in names:
        alone = together.errors(name, draws)
        for errors, expected in zip(found[name][:2], alone[:2]):
            np.testing.assert_array_equal(errors, expected)
    failed = [(found[name][0] > 0).sum() for name in (SOFT, f"{SOFT}/2", f"{SOFT}/4")]
    assert failed[0] > failed[1] >= failed[2]
    (first, *_) = together.passes(f"{SOFT}/2", draws)
    wrong = (first.decision.bits != draws.bits.numpy()).sum(1)
    np.testing.assert_array_equal(wrong, found[SOFT][0])


def test_finished_blocks_are_left_alone():
    """Where all are decoded nothing comes after the first pass."""
    simulator = simulator_of([f"{SOFT}/5", SOFT], LINK.replace(system={"num_rx": 32}))
    draws = simulator.draw(0, 20.0, 0)
    (one,) = simulator.passes(f"{SOFT}/5", draws)
    assert one.decision.final.all()
    bits, symbols, _ = simulator.errors(f"{SOFT}/5", draws)
    plain = simulator.errors(SOFT, draws)
    assert not bits.any()
    np.testing.assert_array_equal(symbols, plain[1])


def test_decoding_goes_on_where_it_was(rng, usual):
    code = usual.link.code
    # Of the codeword of zeros, some more and some less noisy
    means = np.linspace(1.0, 4.0, 12)[:, None]
    llrs = rng.normal(-means, np.sqrt(2 * means), (12, 150)).astype(np.float32)
    whole, half = code.with_iterations(8).resume(llrs), code.with_iterations(4)
    assert code.with_iterations(6)._stopping is code._stopping
    first = half.resume(llrs)
    left = ~first.holds.numpy()
    assert 0 < left.sum() < 12
    then = half.resume(llrs, first.messages, tf.constant(left))
    for kind in ("soft", "holds", "messages"):
        once, twice = getattr(whole, kind).numpy(), getattr(then, kind).numpy()
        np.testing.assert_array_equal(once[left], twice[left])
        assert not twice[~left].any()
    used = first.iterations + then.iterations
    np.testing.assert_array_equal(used, whole.iterations)
    again = half.resume(llrs, half.first_messages(llrs))
    for a, b in zip(again, first):
        np.testing.assert_array_equal(a, b)
    nobody = half.resume(llrs, first.messages, tf.zeros(12, tf.bool))
    assert not nobody.iterations.numpy().any()
    # What was sent is found again among the bits of the mother code
    np.testing.assert_array_equal(code.sent_llrs(code.mother_llrs(llrs)), llrs)


@pytest.mark.parametrize(
    "options",
    [
        {"num_info_bits": 4000, "num_coded_bits": 8005},  # two segments
        {"num_info_bits": 30, "num_coded_bits": 400},  # repeated bits
    ],
)
def test_other_codes_go_on_where_they_were(rng, options):
    code = create_code(Code(type="5g", **options, num_iterations=4), None)
    llrs = rng.normal(-1.2, 1.6, (3, code.num_coded_bits)).astype(np.float32)
    first = code.resume(llrs, code.first_messages(llrs))
    then = code.resume(llrs, first.messages, tf.constant([True, False, True]))
    whole = code.with_iterations(8).resume(llrs)
    for kind in ("soft", "holds", "messages"):
        once, twice = getattr(whole, kind).numpy(), getattr(then, kind).numpy()
        stopped = first.holds.numpy()
        np.testing.assert_array_equal(
            once[[0, 2]][~stopped[[0, 2]]], twice[[0, 2]][~stopped[[0, 2]]]
        )
    assert first.holds.shape == (3,)
    np.testing.assert_array_equal(
        code.decided(whole.soft), code.with_iterations(8).decode(llrs)
    )
    assert code.sent_llrs(whole.soft).shape == llrs.shape
    assert code.llr_max == 20.0


def test_llrs_of_symbols_and_of_codewords_are_each_others_inverse(rng, usual):
    link = usual.link
    coded = tf.constant(rng.normal(size=(3, 150)).astype(np.float32))
    by_symbol = link.symbol_llrs(coded)
    assert by_symbol.shape == (3, 10, 4, 4)
    np.testing.assert_array_equal(link.codeword_llrs(by_symbol), coded)
    assert np.count_nonzero(by_symbol) == 450


def test_names():
    spec = parse_receiver(" amp(num_iterations=5) + max-mi:3 / 2 ")
    assert spec.num_passes == 2 and spec.text == "amp(num_iterations=5)+max-mi:3/2"
    assert parse_receiver(spec.text) == spec
    assert spec.one_pass == "amp(num_iterations=5)+max-mi:3"
    assert parse_receiver("amp/1").text == "amp"
    for text in ("amp/0", "amp/", "amp/two", "amp/2/3", "amp/101", "amp/2+max-mi:3", "amp/-1"):
        with pytest.raises(InvalidInput, match="number of passes from 1 to 100"):
            parse_receiver(text)
    with pytest.raises(InvalidInput, match=f"those that can are {', '.join(ACCEPT_PRIOR)}"):
        parse_receiver("zf/2")
    args = ["--detectors", "amp/2,zf", "--quantizer", "max-mi:3"]
    args = coded_ber.parse_arguments(args, "prog")
    chosen = coded_ber.chosen_detectors(args, LINK)
    assert chosen == ["amp+max-mi:3/2", "zf+max-mi:3"]


def test_what_cannot_iterate_is_refused():
    with pytest.raises(InvalidInput, match="has no code, and several passes need a decoder"):
        create_receiver("amp/2", SMALL)
    with pytest.raises(InvalidInput, match="receiver: got False, .* as a whole receiver only"):
        target_of("amp/2", LINK)
    for loop, message in (
        ({"iterations": -1}, "loop.iterations: got -1"),
        ({"feedback": "all"}, "loop.feedback: got 'all'"),
        ({"scale": 0.0}, "loop.scale: got 0.0"),
        ({"passes": 2}, "unknown key passes"),
    ):
        with pytest.raises(InvalidInput, match=message):
            LINK.replace(loop=loop)


def test_the_command_that_exports_asks_for_the_decoder(tmp_path, capsys, monkeypatch):
    """Before it loads TensorFlow, which takes its time."""
    monkeypatch.setattr(export, "start_keras", lambda *_: pytest.fail("it was loaded"))
    args = ["amp/2", "--scenario", "rayleigh-4x4-qam16", "--output", str(tmp_path / "new")]
    assert export.main(args) == 2
    assert "--receiver: missing, but amp/2 has several passes" in capsys.readouterr().err


def test_the_loop_is_no_part_of_the_draws():
    changed = LINK.replace(loop={"scale": 0.5})
    assert changed.fingerprint() == LINK.fingerprint()
    assert "loop" not in LINK.to_dict() and changed.to_dict()["loop"]["scale"] == 0.5
    keys = {
        create_receiver("amp/2", LINK.replace(loop=loop)).key
        for loop in (
            {},
            {"scale": 0.5},
            {"feedback": "posterior"},
            {"iterations": 2},
            {"cn_update": "boxplus"},
        )
    }
    assert len(keys) == 5
    assert "cn_update" not in changed.to_dict()["loop"]
    # What is there anyway, and one pass, change nothing
    same = LINK.replace(loop={"iterations": 6, "cn_update": "minsum"})
    before = create_receiver("amp/2", LINK).key
    assert create_receiver("amp/2", same).key == before and before in keys
    assert create_receiver("amp", changed).key == create_receiver("amp", LINK).key
    assert is_outdated(changed, "amp/2", before) and not is_outdated(LINK, "amp/2", before)


def test_a_run_resumes_and_a_block_is_made_again(tmp_path, usual):
    file = tmp_path / "counts.jsonl"
    options = {"snr_db": POINT, "target_block_errors": 10**6, "xla": "off"}
    names = [SOFT, f"{SOFT}/3"]
    simulate(LINK, names[1:], max_blocks=20, store_path=file, **options)
    resumed = simulate(LINK, names, max_blocks=40, store_path=file, **options)
    whole = simulate(LINK, names, max_blocks=40, **options)
    assert counts(resumed) == counts(whole)
    lines = file.read_text().splitlines()[1:]
    stored = [[name_of_key(key) for key in json.loads(line)[2]] for line in lines]
    assert stored == [[f"{SOFT}/3"], [SOFT], names]
    # With another loop they are other counts, and those of the first are left out
    other = LINK.replace(loop={"scale": 0.9})
    found = simulate(other, [SOFT], max_blocks=40, store_path=file, everything=True, **options)
    assert {r["detector"] for r in found["records"]} == {SOFT}

    passes = usual.passes(f"{SOFT}/3", usual.draw(0, POINT, 0))
    block = int(passes[1].blocks[passes[1].decision.final][0])  # one that took two
    arrays = replay_block(LINK, f"{SOFT}/3", POINT, block, xla="off", store_path=file)
    assert arrays["pass_llr"].shape == (2, 10, 4, 4)
    assert arrays["pass_decoder_messages"].shape[0] == 2
    assert not arrays["pass_prior"][0].any() and arrays["pass_prior"][1].any()
    for number, one in enumerate(passes[:2]):
        row = list(one.blocks).index(block)
        np.testing.assert_array_equal(arrays["pass_llr"][number], one.llrs[row])
        np.testing.assert_array_equal(arrays["pass_bits_hat"][number], one.decision.bits[row])
    for key in ("llr", "bits_hat", "symbols_hat", "decoder_llr", "decoder_iterations"):
        np.testing.assert_array_equal(arrays[key], arrays[f"pass_{key}"][-1])
    assert arrays["bit_errors"] == (arrays["bits"] != arrays["bits_hat"]).sum() == 0
    assert arrays["codeword_llr"].shape == (150,)


def test_layers_iterate_too(usual):
    layer = MMSEDetector(4, 4)
    simulator = simulator_of([("mine/2", layer)])
    draws = simulator.draw(0, POINT, 0)
    own, ours = simulator.errors("mine/2", draws), usual.errors(f"{SOFT}/2", draws)
    np.testing.assert_array_equal(own[:2], ours[:2])
    assert create_receiver(("mine/2", layer), LINK).one_pass == "mine"
    with pytest.raises(InvalidInput, match="got 'mi/ne', expected a number of passes"):
        create_receiver(("mi/ne", layer), LINK)


@pytest.mark.parametrize("name", [f"{SOFT}/3", f"{SOFT}+max-mi@rayleigh-4x4-qam16:3/2"])
def test_exported_receivers_decide_as_simulated_ones(name, tmp_path):
    # With another update in later passes, which an exported receiver has to have, too
    scenario = LINK.replace(loop={"cn_update": "boxplus"})
    simulator = simulator_of([name], scenario)
    name = parse_receiver(name).text
    target = target_of(name, scenario, receiver=True)
    assert set(target.refusals) == {"onnx", "tflite"}
    draws = simulator.draw(0, POINT, 0)
    given = draws.y, draws.h_hat, draws.no
    call = tf.function(target.signatures["serving_default"].function, autograph=False)
    bits = call(*given)["bits"].numpy()
    errors = (bits != draws.bits.numpy()).sum(1)
    np.testing.assert_array_equal(errors, simulator.errors(name, draws)[0])
    assert errors.any()
    path = tmp_path / "model.keras"
    target.keras_model().save(path)
    again = keras.models.load_model(path, compile=False)
    assert any(isinstance(layer, IterativeReceiver) for layer in again.layers)
    np.testing.assert_array_equal(again(given)["bits"], bits)


def test_memory_counts_the_passes():
    one, two = (simulator_of([name]).peak_memory() for name in (SOFT, f"{SOFT}/2"))
    assert two > one
