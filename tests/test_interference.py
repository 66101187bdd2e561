"""Interference of users that are not detected, and what the receiver is told of it."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from scipy.special import logsumexp

from linksim.channels.base import Channel, channel_of
from linksim.channels.random import complex_normal
from linksim.constellation import bit_labels, qam_points
from linksim.errors import InvalidInput
from linksim.export.targets import detector_target
from linksim.link.covariance import (
    ledoit_wolf,
    noise_and_interference,
    sample_covariance,
)
from linksim.link.describe import describe_link
from linksim.link.fronts import create_front
from linksim.link.interference import INTERFERENCE_PURPOSES, Interferers, create_interferers
from linksim.link.interference_config import Interference
from linksim.link.link import Link
from linksim.link.ofdm import create_ofdm_front
from linksim.link.pusch import create_pusch_front
from linksim.link.scenario import load_scenario, scenario_from_dict
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.replay import replay_block
from linksim.registry import create_detector, list_detectors
from linksim.training.source import VectorSource
from tests.small_runs import SMALL


def flat(code, **tables):
    """A scenario of four correlated antennas and two streams of QPSK."""
    data = SMALL.to_dict() | tables
    data["channel"] = {"type": "kronecker", "rho_rx": 0.7}
    data["system"] = {"num_rx": 4, "num_streams": 2, "num_bits_per_symbol": 2}
    return scenario_from_dict(data | {"code": code})


FLAT = flat({"type": "none", "uses_per_block": 30})
CODED = flat({"type": "802.11n"})
PERFECT = {"covariance": "perfect"}
OFDM = load_scenario("cdl-c-4x4-qam16-ls").replace(
    system={"num_rx": 3, "num_streams": 2}, code={"num_info_bits": 576}
)
PUSCH = load_scenario("pusch-cdl-c-4x2-mcs14").replace(
    system={"num_rx": 3},
    channel={"num_users": 1},
    pusch={"num_prbs": 2, "num_layers": 2},
)
PURPOSES = ("channel", "noise", *INTERFERENCE_PURPOSES)
KEYS = {name: np.array([i, 9], np.int32) for i, name in enumerate(PURPOSES)}


class Constant(Channel):
    """Rayleigh fading that is the same on a whole slot."""

    subcarrier_spacing = 30e3
    num_users = 1

    def sample_grid(self, key, num_blocks, symbols, subcarriers, prefix=0.0, first_block=0):
        size = self.num_rx, self.num_streams
        h = complex_normal(key, (num_blocks, 1, 1, *size), self.power)
        return tf.broadcast_to(h, (num_blocks, symbols, subcarriers, *size))


def front_of(kind, csi="perfect", **table):
    """A front of three antennas and two streams, with one interfering stream."""
    table = {"sir_db": 3.0, **table}
    if kind == "flat":
        scenario = FLAT.replace(interference=table)
        return create_front(scenario, Link(scenario).channel)
    bits = OFDM.system.num_bits_per_symbol
    interferers = Interferers(Interference(**table), Constant(3, 1), 1.0, bits)
    csi = csi if isinstance(csi, dict) else {"type": csi}
    if kind == "ofdm":
        return create_ofdm_front(OFDM.replace(csi=csi), Constant(3, 2), interferers)
    return create_pusch_front(PUSCH.replace(csi=csi), Constant(3, 2), interferers)


def received_by(front, no=0.1, num_blocks=100):
    """What a front makes of known symbols, and noise and interference alone; NumPy."""
    uses = front.num_uses or 30
    x = np.ones((num_blocks, uses, 2), np.complex64)
    transmit = tf.function(lambda x, no: front.transmit(x, KEYS, no), autograph=False)
    received = transmit(tf.constant(x), tf.constant(no))
    received = received._replace(**{k: v.numpy() for k, v in received._asdict().items()})
    return received, received.y - np.sum(received.h, axis=-1)


def whitened(rest, s):
    """Mean of r r' after r has been whitened with S of its own use."""
    factor = np.linalg.cholesky(s)
    z = np.linalg.solve(factor, rest[..., None])[..., 0].reshape(-1, rest.shape[-1])
    return z.T @ z.conj() / len(z)


@pytest.mark.parametrize("kind", ["flat", "ofdm", "pusch"])
def test_the_perfect_covariance_is_that_of_what_is_received(kind):
    received, rest = received_by(front_of(kind, num_streams=1))
    assert received.s.shape == (*received.y.shape, received.y.shape[-1])
    found = whitened(rest, received.s)
    # Constant channels leave 200 independent ones, each known
    np.testing.assert_allclose(found, np.eye(len(found)), atol=0.05)
    # Interference is most of it, and has a direction
    assert np.linalg.eigvalsh(received.s)[..., -1].mean() > 5 * 0.1


@pytest.mark.parametrize(
    "name, changes",
    [
        ("flat", {}),
        ("rayleigh-4x4-qam16", {}),
        ("small-16x4-qam16-corr-rx", {}),
        ("local-scattering-12x6-qpsk", {"channel": {"num_drops": 100}}),
    ],
)
def test_the_power_is_what_the_key_says(name, changes):
    scenario = FLAT if name == "flat" else load_scenario(name)
    code = {"type": "none", "num_info_bits": 0, "num_coded_bits": 0, "uses_per_block": 20}
    scenario = scenario.replace(code=code, **changes)
    clean = Link(scenario)
    table = {"num_streams": 2, "sir_db": 4.0}
    link = Link(scenario.replace(interference=table))
    assert link.no(9.0) == clean.no(9.0)
    batches = [x.draw(x.keys(0, 9.0, 0), x.no(9.0), 0, 300) for x in (clean, link)]
    for part in ("bits", "symbols", "h", "h_hat"):
        np.testing.assert_array_equal(*(getattr(b, part) for b in batches))
    interference = np.mean(np.abs(batches[1].y - batches[0].y) ** 2)
    stream = np.mean(np.abs(batches[0].h) ** 2)
    assert 10 * np.log10(stream / interference) == pytest.approx(4.0, abs=0.3)
    told = np.mean(np.trace(batches[1].no, axis1=-2, axis2=-1).real) / clean.num_rx
    assert told - link.no(9.0) == pytest.approx(interference, rel=0.06)


def test_interferers_have_draws_and_places_of_their_own():
    scenario = load_scenario("local-scattering-12x6-qpsk").replace(
        interference={"num_streams": 6, "channel": {"num_drops": 10}}
    )
    link = Link(scenario)
    theirs = link.front._interferers._channel
    assert np.abs(theirs.drops_deg - link.channel.drops_deg).min() > 1e-3
    given = scenario.replace(interference={"channel": {"drop_seed": 0}})
    same = Link(given).front._interferers._channel
    np.testing.assert_array_equal(same.drops_deg, link.channel.drops_deg)
    keys = link.keys(3, 5.0, 2)
    assert len({tuple(key) for key in keys}) == len(keys) == 9


@pytest.mark.parametrize("covariance", ["perfect", "ignored"])
@pytest.mark.parametrize("kind", ["flat", "ofdm", "pusch"])
def test_interference_without_power_changes_nothing(kind, covariance):
    front = front_of(kind, sir_db=200.0, covariance=covariance)
    with_none, _ = received_by(front, num_blocks=4)
    if kind == "flat":
        front = front.front
    else:
        front.interferers = None
    without, _ = received_by(front, num_blocks=4)
    np.testing.assert_allclose(with_none.y, without.y, atol=1e-9)
    for name in ("mmse",) if covariance == "ignored" else ("mmse", "zf-sic", "ep", "ml"):
        detector = create_detector(name, num_streams=2, num_bits_per_symbol=4)
        llrs = [detector(r.y, r.h_hat, r.s).numpy() for r in (with_none, without)]
        np.testing.assert_allclose(*llrs, rtol=1e-6, atol=1e-6, err_msg=name)


def test_exact_ml_is_brute_force_over_the_model_of_gaussian_interference():
    received, _ = received_by(front_of("flat", sir_db=-3.0, num_streams=2), 0.3, 2)
    y, h, s = (a.reshape(-1, *a.shape[2:]) for a in (received.y, received.h, received.s))
    detector = create_detector("ml", num_streams=2, num_bits_per_symbol=4)
    found = detector(y, h, s).numpy()
    vectors = np.array(list(itertools.product(range(16), repeat=2)))
    rest = y[:, None] - np.einsum("bmk,vk->bvm", h, qam_points(4)[vectors])
    inverse = np.linalg.inv(s.astype(complex))
    metric = -np.einsum("bvm,bmn,bvn->bv", rest.conj(), inverse, rest).real
    labels = bit_labels(4).astype(bool)[vectors]  # [v, K, m]
    for k, i in itertools.product(range(2), range(4)):
        one = labels[:, k, i]
        expected = logsumexp(metric[:, one], axis=1) - logsumexp(metric[:, ~one], axis=1)
        np.testing.assert_allclose(found[:, k, i], expected, rtol=2e-3, atol=2e-3)
    white = detector(y, h, np.trace(s, axis1=1, axis2=2).real.astype(np.float32) / 4)
    assert np.mean(np.abs(white - found)) > 0.1 * np.mean(np.abs(found))


def distance(told, true):
    return np.sqrt(np.mean(np.abs(told - true) ** 2) / np.mean(np.abs(true) ** 2))


@pytest.mark.parametrize("shrinkage", ["ledoit-wolf", "none"])
def test_estimates_come_nearer_with_more_samples(shrinkage):
    true = received_by(front_of("flat"), num_blocks=5)[0].s
    errors = []
    for count in (8, 128, 2048):
        options = {"covariance": "estimated", "shrinkage": shrinkage, "num_samples": count}
        errors.append(distance(received_by(front_of("flat", **options), 0.1, 5)[0].s, true))
    assert errors[1] < 0.4 * errors[0] and errors[2] < 0.4 * errors[1] < 0.1


@pytest.mark.parametrize("csi", ["perfect", "ls", "lmmse"])
@pytest.mark.parametrize("kind", ["ofdm", "pusch"])
def test_what_is_left_of_pilots_is_noise_of_its_full_strength(kind, csi):
    """Whatever part of it the estimates of the channels have taken for channels."""
    options = {"covariance": "estimated", "subcarriers": 0, "shrinkage": "none"}
    front = front_of(kind, csi, **options)
    h = front.channels(KEYS["channel"], 200)
    y = tf.einsum("btfmk,ktf->btfm", h, front.pilots)
    no = 0.2
    y += complex_normal(KEYS["noise"], y.shape, no)
    s = front.residuals(y, h, tf.constant(no)).numpy()
    np.testing.assert_allclose(np.mean(s, axis=(0, 1)), no * np.eye(3), atol=0.03 * no)


@pytest.mark.parametrize("kind, widths", [("ofdm", (0, 4, 2)), ("pusch", (0, 12, 4))])
def test_estimates_of_a_grid_come_nearer_with_more_pilots(kind, widths):
    true, errors = received_by(front_of(kind), 0.1, 40)[0].s, []
    for width in widths:
        options = {"covariance": "estimated", "subcarriers": width}
        told = received_by(front_of(kind, **options), 0.1, 40)[0].s
        errors.append(distance(told, true))
    assert errors[0] < 0.85 * errors[1] and errors[1] < 0.85 * errors[2] < 0.6


@pytest.mark.parametrize("csi", [{"type": "ls"}, {"type": "lmmse", "spatial": True}])
def test_what_interference_does_to_estimates_is_told_too(csi):
    """Noise, interference and errors together are white after whitening."""
    front = front_of("ofdm", {**csi, "error": "covariance"}, sir_db=0.0)
    rng = np.random.default_rng(3)
    x = rng.choice([-1.0, 1.0], (400, front.num_uses, 2)).astype(np.complex64)
    received = front.transmit(tf.constant(x), KEYS, tf.constant(0.1))
    y, h_hat, s = (np.asarray(part) for part in (received.y, received.h_hat, received.s))
    found = whitened(y - np.einsum("bumk,buk->bum", h_hat, x), s)
    np.testing.assert_allclose(found, np.eye(3), atol=0.06)


def independent_ledoit_wolf(x):
    """In NumPy, as the article has it, from one set of samples [n, M]."""
    n, size = x.shape

    def square(a):
        return np.linalg.norm(a) ** 2 / size

    s = x.T @ x.conj() / n
    m = np.trace(s).real / size
    d2 = square(s - m * np.eye(size))
    b2 = min(sum(square(np.outer(r, r.conj()) - s) for r in x) / n**2, d2)
    return b2 / d2 * m * np.eye(size) + (1 - b2 / d2) * s


@pytest.mark.parametrize("n", [2, 5, 40])
def test_shrinkage_is_that_of_the_article(n):
    rng = np.random.default_rng(n)
    mix = rng.normal(size=(4, 4)) * [3, 1, 0.3, 0.3]
    x = (rng.normal(size=(3, n, 4, 2)) @ np.array([1, 1j])) @ mix.T
    found = ledoit_wolf(x.astype(np.complex64)).numpy()
    for one, samples in zip(found, x):
        np.testing.assert_allclose(one, independent_ledoit_wolf(samples), rtol=1e-4, atol=1e-4)
    assert np.linalg.eigvalsh(found).min() > 0


def test_shrinkage_of_real_samples_is_that_of_scikit_learn():
    """Its `ledoit_wolf(x, assume_centered=True)` of version 1.9.1, which shrinks by 0.103."""
    x = [[6, 1, 0], [-5, 0, 1], [4, 3, 1], [7, -2, 2], [-8, 1, 0], [-3, 2, -1]]
    x = np.array([*x, [5, -1, -1], [-6, 0, 2]], np.complex64)
    expected = [
        [30.402789760095562, -1.6816097114842221, -0.11210731409894814],
        [-1.6816097114842221, 3.4970343763480107, -0.22421462819789628],
        [-0.11210731409894814, -0.22421462819789628, 2.6001758635564256],
    ]
    np.testing.assert_allclose(ledoit_wolf(x), expected, rtol=1e-5)


def test_shrinkage_is_nearer_to_the_truth():
    rng = np.random.default_rng(1)
    mix = np.diag([2.0, 1.0, 1.0, 0.5])
    x = (rng.normal(size=(500, 6, 4, 2)) @ np.array([1, 1j])) @ mix
    x = x.astype(np.complex64)
    errors = [
        np.mean(np.abs(f(x) - 2 * mix @ mix) ** 2) for f in (ledoit_wolf, sample_covariance)
    ]
    assert errors[0] < 0.85 * errors[1]


def test_shrinkage_of_no_samples_sets_of_zeros_and_of_one_antenna():
    assert ledoit_wolf(np.zeros((0, 5, 3), np.complex64)).shape == (0, 3, 3)
    assert not np.any(ledoit_wolf(np.zeros((2, 5, 3), np.complex64)))
    one = ledoit_wolf(np.full((1, 4, 1), 2.0, np.complex64)).numpy()
    np.testing.assert_allclose(one, [[[4.0]]])
    graph = tf.function(
        ledoit_wolf, input_signature=[tf.TensorSpec([None, 5, 3], tf.complex64)]
    )
    x = np.random.default_rng(0).normal(size=(7, 5, 3)).astype(np.complex64)
    np.testing.assert_allclose(graph(x), ledoit_wolf(x), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "function", [ledoit_wolf, sample_covariance, lambda x: noise_and_interference(x, 1.0)]
)
def test_samples_that_are_none_are_refused(function):
    good = np.ones((5, 3), np.complex64)
    for x, message in (
        (good[0], "has shape .3,. and dtype complex64, expected complex64 ....,"),
        (good[:0], "has shape .0, 3."),
        (good.real, "dtype float32, expected complex64"),
        (good.astype(complex), "dtype complex128, expected complex64"),
        (np.nan * good, "contains NaN or inf"),
        ([[1.0]], "got a list, expected a tensor"),
    ):
        with pytest.raises(InvalidInput, match=f"covariance: .*{message}"):
            function(x)


def test_receivers_of_every_kind_take_the_covariance():
    """Detectors of every family, the turbo loop, one of Sionna's, and a replay."""
    names, more = ["mmse", "ep/2"], ["zf-sic", "kbest", "pep", "sionna-lmmse"]
    scenario = CODED.replace(interference={"sir_db": -3.0}, run={"batch_size": 10})
    simulator, bits, symbols = LinkSimulator(scenario, xla="off"), {}, {}
    for name in names:
        simulator.add_detector(name)
    for covariance in ("perfect", "estimated", "ignored"):
        link = Link(scenario.replace(interference={"covariance": covariance}))
        batch = link.draw(link.keys(0, 6.0, 0), link.no(6.0), 0, 10)
        if covariance == "ignored":
            assert batch.no.dtype == tf.float32
            # The same as a covariance, for graphs that take one
            white = batch.no[..., None, None] * tf.eye(4)
            batch = batch._replace(no=tf.cast(white, tf.complex64))
        for name in names:
            bits[covariance, name] = simulator.errors(name, batch)[0].sum()
        for name in more:
            detector = create_detector(name, num_streams=2, num_bits_per_symbol=2)
            _, found = detector.llrs_and_symbols(batch.y, batch.h_hat, batch.no)
            symbols[covariance, name] = np.sum(found != batch.symbols)
    for found, tested in ((bits, names), (symbols, more)):
        for name in tested:
            perfect, estimated, ignored = (
                found[covariance, name] for covariance in ("perfect", "estimated", "ignored")
            )
            assert perfect <= 1.1 * estimated, name
            assert estimated < 0.8 * ignored, name
    block = replay_block(scenario, "mmse", 6.0, 3, xla="off")
    assert block["no"].shape == (*block["y"].shape, 4) and block["no"].dtype == np.complex64


SIONNAS = [name for name in list_detectors() if name.startswith("sionna-")]


@pytest.mark.parametrize("name", ["ml", "kbest", "ep", "eqnet-l", "mf", *SIONNAS])
def test_covariances_that_are_none_are_refused(name):
    """By detectors that whiten, by one that does not, and by Sionna's."""
    detector = create_detector(name, num_streams=2, num_bits_per_symbol=2)
    y, h = np.ones((5, 2), np.complex64), np.ones((5, 2, 2), np.complex64)
    for s, message in (
        ([[1, 0.5], [0, 1]], "s is not Hermitian"),
        ([[1, 0.5j], [0.5j, 1]], "s is not Hermitian"),
        ([[1 + 1j, 0], [0, 1]], "s is not Hermitian"),
        ([[1, 2], [2, 1]], "s is not positive definite"),
        ([[1, 1], [1, 1]], "s is not positive definite"),
        ([[1, np.nan], [np.nan, 1]], "s contains NaN"),
    ):
        for lead in ((), (5,)):
            given = np.broadcast_to(np.array(s, np.complex64), (*lead, 2, 2))
            with pytest.raises(InvalidInput, match=message):
                detector(y, h, tf.constant(given))


@pytest.mark.parametrize("name", ["mmse", *SIONNAS])
def test_calls_of_what_does_not_fit_together_are_refused(name):
    detector = create_detector(name, num_streams=2, num_bits_per_symbol=2)
    y, h = np.ones((5, 3), np.complex64), np.eye(3, 2, dtype=np.complex64)
    one = np.ones(1, np.float32)
    for call, message in (
        ((y, h, np.eye(2, dtype=np.complex64)), "s has shape .2, 2. .* expected .5, 3, 3."),
        ((y, h, np.ones((4, 3, 3), np.complex64)), "s has shape .4, 3, 3."),
        ((y, h, np.eye(3, dtype=np.float32)), "s has shape .3, 3. and dtype float32"),
        ((y, h, np.ones(3, np.float32)), "s has shape .3,. .* expected .5,. for N0"),
        ((y, h, np.int32(1)), "s has dtype int32"),
        ((y, h, 0.0), "N0 is 0.0, expected > 0"),
        ((y, h, np.float32(np.nan)), "s contains NaN"),
        ((y, h, "1"), "s: got a str, expected a tensor"),
        ((y, h, None), "s: got None"),
        ((y, None, one), "h: got None"),
        (([1.0], h, one), "y: got a list"),
        ((y, h[:2], one), "h has shape .2, 2., expected .*3, 2. beside y .5, 3."),
        ((y, h[:, :0], one), "h has shape .3, 0., expected"),
        ((y, np.ones((4, 3, 2), np.complex64), one), "dimensions of h cannot be broadcast"),
        ((y, np.full((3, 2), np.inf, np.complex64), one), "h contains NaN or inf"),
    ):
        with pytest.raises(InvalidInput, match=message):
            detector(*call)
    # One channel and one covariance for all vectors are the same as many
    white = np.eye(3, dtype=np.complex64)
    many = [np.tile(x, (5, 1, 1)) for x in (h, white)]
    np.testing.assert_allclose(detector(y, h, white), detector(y, *many), rtol=1e-5)


@pytest.mark.parametrize(
    "table, message",
    [
        ({"num_streams": 0}, "interference.num_streams: got 0"),
        ({"num_streams": 2, "num_users": 3}, "interference.num_users: got 3, expected a div"),
        ({"sir_db": float("inf")}, "interference.sir_db: got inf"),
        ({"sir_db": "3"}, "interference.sir_db: got '3'"),
        ({"inr_db": 3}, r"\[interference\]: unknown key inr_db"),
        ({"covariance": "true"}, "interference.covariance: got 'true'"),
        ({"num_samples": 9}, "interference.num_samples: got 9, which belongs to"),
        ({"covariance": "estimated", "subcarriers": 6}, "subcarriers: got 6, which belongs"),
        ({"covariance": "estimated", "shrinkage": "oas"}, "interference.shrinkage: got 'oas'"),
        (
            {"covariance": "estimated", "shrinkage": "none", "num_samples": 3},
            "interference.num_samples: a covariance of 4 antennas is singular",
        ),
        (
            {"covariance": "estimated", "num_samples": 1},
            "num_samples: a covariance .* 1 sample",
        ),
        ({"channel": {"num_rx": 2}}, "interference: channel .kronecker.: unknown key num_rx"),
        ({"channel": 3}, "interference.channel: got 3"),
        ({"channel": {"type": "awgn"}}, "interference.channel.type: leave it out"),
        ({"channel": {"rho_rx": 2}}, "small: interference: channel.rho_rx: got 2"),
        ({"channel": {"speed": 3}}, "interference: channel .kronecker.: unknown key speed"),
        ({"num_streams": 2, "num_users": 2}, "interference.num_users: got 2, but channel"),
    ],
)
def test_keys_that_do_not_fit_are_refused(table, message):
    with pytest.raises(InvalidInput, match=message):
        Link(FLAT.replace(name="small", interference=table))


@pytest.mark.parametrize(
    "table, message",
    [
        ({"num_samples": 9}, "num_samples: got 9, but on a grid"),
        ({"subcarriers": 5}, "subcarriers: got 5, expected a divisor of 12"),
        ({"subcarriers": 1, "shrinkage": "none"}, "subcarriers: a covariance of 3 antennas"),
    ],
)
def test_samples_of_a_grid_are_its_pilots(table, message):
    with pytest.raises(InvalidInput, match=f"interference.{message}"):
        table = {"covariance": "estimated", **table}
        scenario = OFDM.replace(interference=table)  # refuses what it knows
        interferers = Interferers(Interference(**table), Constant(3, 1), 1.0, 4)
        create_ofdm_front(scenario, Constant(3, 2), interferers)


def test_pilots_are_needed_for_estimates_and_qam_for_covariances():
    table = {"covariance": "estimated"}
    without = OFDM.replace(csi={"type": "perfect"}, ofdm={"pilot_symbols": []})
    with pytest.raises(InvalidInput, match="interference.covariance: .* ofdm.pilot_symbols"):
        without.replace(interference=table)
    with pytest.raises(InvalidInput, match="interference: BPSK"):
        load_scenario("wesnet-20x10-bpsk").replace(interference={})


def test_what_has_no_interference_stays_as_it_was():
    for name, fingerprint in (
        ("cdl-c-8x4-qam16", "bfa81d49f30f5c1f"),
        ("cdl-c-4x4-qam16", "545dfd60612e07d1"),
    ):
        scenario = load_scenario(name)
        assert scenario.fingerprint() == fingerprint
        assert "interference" not in scenario.to_dict()
        other = scenario.replace(interference={"sir_db": 3.0})
        assert other.fingerprint() != fingerprint
        assert "interference at SIR 3 dB" in other.description
        assert scenario_from_dict(other.to_dict()) == other


def test_training_says_that_it_has_no_interference():
    scenario = load_scenario("rayleigh-4x4-qam16").replace(
        code={"type": "none"}, snr={"definition": "esno"}, interference={}
    )
    with pytest.raises(InvalidInput, match=r"\[interference\] table; training draws white"):
        VectorSource(scenario, (0, 9), 8)


def test_exported_vectors_have_no_interference():
    """Models take N0, and no covariance."""
    scenario = CODED.replace(interference={"sir_db": 0.0})
    layer = create_detector("mmse", num_streams=2, num_bits_per_symbol=2)
    found = detector_target("mmse", layer, scenario).arrays
    clean = detector_target("mmse", layer, CODED).arrays
    assert found["no"].dtype == np.float32
    np.testing.assert_array_equal(found["y"], clean["y"])


def test_a_description_says_what_interferes():
    lines = describe_link(FLAT.replace(interference={"num_streams": 2, "sir_db": 10.0}))
    line = next(line for line in lines if line.startswith("interference"))
    assert "2 streams of 1 user," in line and "= 0.1 on an antenna, 10 dB below" in line
    assert not any(line.startswith("interference") for line in describe_link(FLAT))


def test_interferers_have_bearings_of_their_own():
    scenario = load_scenario("cdl-c-8x4-qam16").replace(
        channel={"num_users": 4, "user_bearings_deg": [-40, -20, 0, 20]}, interference={}
    )
    channel = channel_of(scenario)
    with pytest.raises(InvalidInput, match="interference: channel.user_bearings_deg: got"):
        create_interferers(scenario, channel)
    given = {"channel": {"user_bearings_deg": [45]}}
    theirs = create_interferers(scenario.replace(interference=given), channel)._channel
    assert theirs.num_streams == theirs.num_users == 1
