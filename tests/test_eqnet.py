"""EQ-Net's networks against NumPy versions of their equations, and as layers."""

import keras
import numpy as np
import pytest

from linksim.constellation import bit_labels, llrs_to_pam_logits, qam_points
from linksim.detectors.eqnet import EQNetDetector
from linksim.detectors.real import complex_to_real_channel
from linksim.eqnet.autoencoder import BranchedDecoder, LatentEncoder
from linksim.errors import InvalidInput
from linksim.link.scenario import load_scenario
from linksim.quantization import DeepStreamQuantizer, EQNetQuantizer
from linksim.registry import create_detector
from linksim.training.losses import bit_cross_entropy, mutual_information
from linksim.training.source import VALIDATION, VectorSource
from linksim.training.tasks import EstimatorTask
from tests.conftest import draw_system


def relu(x):
    return np.maximum(x, 0)


def numpy_of(x):
    return np.asarray(keras.ops.convert_to_numpy(x))


def numpy_encoder(encoder, llr):
    x = np.tanh(llr.reshape(len(llr), -1) / 2)
    weights = [numpy_of(w) for w in encoder.weights]
    for kernel, bias in zip(weights[::2][:-1], weights[1::2][:-1]):
        x = relu(x @ kernel + bias)
    return np.tanh(x @ weights[-2] + weights[-1])


def numpy_decoder(decoder, z, shape):
    weights = [numpy_of(w) for w in decoder.weights]
    outputs = []
    for branch in range(weights[0].shape[0]):
        x = z
        for layer in range(0, len(weights), 2):
            x = x @ weights[layer][branch] + weights[layer + 1][branch]
            x = relu(x) if layer < len(weights) - 2 else x
        outputs.append(2 * np.arctanh(np.tanh(x[:, 0].astype(np.float64))))
    return np.stack(outputs, -1).reshape(len(z), *shape)


def with_random_biases(layer, rng):
    for weight in layer.weights:
        if weight.shape[-2:-1] == (1,) or len(weight.shape) == 1:
            weight.assign(rng.normal(size=weight.shape) * 0.1)
    return layer


@pytest.mark.parametrize("k, m, dim", [(2, 6, None), (4, 4, 5), (1, 2, 3)])
def test_encoder_and_decoder_are_their_equations(rng, k, m, dim):
    encoder = LatentEncoder(k, m, latent_dim=dim, width=20)
    encoder.build()
    decoder = BranchedDecoder(k, m, latent_dim=dim, width=10)
    decoder.build()
    llr = rng.normal(size=(30, k, m)).astype(np.float32) * 5
    z = numpy_of(with_random_biases(encoder, rng)(llr))
    assert z.shape == (30, dim or 3 * k)
    np.testing.assert_allclose(z, numpy_encoder(encoder, llr), rtol=1e-4, atol=1e-5)
    out = numpy_of(with_random_biases(decoder, rng)(z))
    np.testing.assert_allclose(out, numpy_decoder(decoder, z, (k, m)), rtol=1e-3, atol=1e-4)


def test_sizes_of_the_paper():
    quantizer = EQNetQuantizer(2, 6)
    shapes = [tuple(w.shape) for w in quantizer.encoder.weights[::2]]
    assert shapes == [(12, 48)] + [(48, 48)] * 4 + [(48, 6)]
    shapes = [tuple(w.shape) for w in quantizer.decoder.weights[::2]]
    assert shapes == [(12, 6, 48)] + [(12, 48, 48)] * 4 + [(12, 48, 1)]
    assert quantizer.bits_per_llr == 3
    assert EQNetQuantizer(2, 6, bits=5).bits_per_llr == 2.5
    assert EQNetQuantizer(4, 4, latent_dim=7, bits=4).bits_per_use == 28


def test_estimation_encoder_is_its_equations(rng):
    _, y, h, no = draw_system(rng, 12, 3, 2, 4, 0.1)
    detector = EQNetDetector(2, 4, num_blocks=2, width=24)
    got = numpy_of(detector(y, h, no))
    assert len(detector._hidden) == 12
    inputs = [
        np.concatenate([y.real, y.imag], -1),
        np.concatenate([h.real, h.imag], 1).reshape(12, -1),
        np.sqrt(no)[:, None],
    ]
    dense = [[numpy_of(w) for w in layer.weights] for layer in detector._inputs]
    x = np.concatenate([relu(v @ w + b) for v, (w, b) in zip(inputs, dense)], -1)
    hidden = [[numpy_of(w) for w in layer.weights] for layer in detector._hidden]
    for first in range(0, 12, 3):
        skip = relu(x @ hidden[first][0] + hidden[first][1])
        x = relu(skip @ hidden[first + 1][0] + hidden[first + 1][1])
        x = relu(x @ hidden[first + 2][0] + hidden[first + 2][1]) + skip
    w, b = (numpy_of(v) for v in detector._output.weights)
    expected = numpy_decoder(detector.decoder, x @ w + b, (2, 4))
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)


def test_widths_of_the_paper(rng):
    _, y, h, no = draw_system(rng, 2, 2, 2, 6, 0.1)
    light, full = EQNetDetector(2, 6, num_blocks=1), EQNetDetector(2, 6, num_blocks=3)
    for detector, hidden in ((light, 6), (full, 18)):
        detector(y, h, no)
        assert len(detector._hidden) == hidden
        assert {layer.units for layer in detector._hidden} == {192}


@pytest.mark.parametrize("num_rx, k, m", [(2, 2, 6), (5, 3, 2), (4, 1, 4)])
def test_reduced_inputs_do_not_see_the_antennas(rng, num_rx, k, m):
    """The result survives a unitary transform of y and H, and antennas without signal."""
    _, y, h, no = draw_system(rng, 20, num_rx, k, m, 0.05)
    detector = EQNetDetector(k, m, features="qr")
    plain = numpy_of(detector(y, h, no))
    mix = rng.normal(size=(2, num_rx, num_rx))
    q = np.linalg.qr(mix[0] + 1j * mix[1])[0].astype(np.complex64)
    turned = numpy_of(detector(y @ q.T, np.einsum("ij,bjk->bik", q, h), no))
    np.testing.assert_allclose(turned, plain, rtol=2e-2, atol=2e-3)
    more = [np.concatenate([v, np.zeros_like(v)], axis=1) for v in (y, h)]
    np.testing.assert_allclose(numpy_of(detector(*more, no)), plain, rtol=2e-2, atol=2e-3)


@pytest.mark.parametrize("features", ["raw", "scaled", "qr"])
def test_outputs_agree(rng, features):
    _, y, h, no = draw_system(rng, 30, 3, 2, 4, 0.1)
    detector = EQNetDetector(2, 4, features=features)
    llr = numpy_of(detector(y, h, no))
    both, symbols = (numpy_of(x) for x in detector.llrs_and_symbols(y, h, no))
    np.testing.assert_allclose(both, llr, rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal((llr > 0) @ (8, 4, 2, 1), symbols)

    def variant(**options):
        layer = EQNetDetector(2, 4, features=features, **options)
        layer(y, h, no)
        layer.set_weights(detector.get_weights())
        return numpy_of(layer(y, h, no))

    np.testing.assert_array_equal(variant(hard_out=True), llr > 0)
    np.testing.assert_array_equal(variant(output="symbol", hard_out=True), symbols)
    from linksim.constellation import logits_to_llrs

    logits = variant(output="symbol")
    assert logits.shape == (30, 2, 16)
    np.testing.assert_allclose(numpy_of(logits_to_llrs(logits)), llr, rtol=1e-3, atol=1e-3)
    lead = numpy_of(detector(y.reshape(5, 6, 3), h.reshape(5, 6, 3, 2), no.reshape(5, 6)))
    np.testing.assert_allclose(lead.reshape(30, 2, 4), llr, rtol=1e-4, atol=1e-4)


def test_zero_channels_and_extreme_noise_are_finite(rng):
    _, y, h, no = draw_system(rng, 6, 2, 2, 4, 0.1)
    h[:2] = 0
    for features in ("raw", "scaled", "qr"):
        detector = EQNetDetector(2, 4, features=features)
        for scale in (1e-6, 1.0, 1e4):
            assert np.isfinite(numpy_of(detector(y, h, no * scale))).all()


def test_bad_options_and_antennas_are_refused(rng):
    for options in (
        {"num_blocks": 0},
        {"features": "all"},
        {"width": -1},
        {"latent_bits": 0},
        {"latent_bits": (3, 3)},
    ):
        with pytest.raises(InvalidInput):
            EQNetDetector(2, 4, **options)
    with pytest.raises(InvalidInput, match="BPSK"):
        EQNetDetector(2, 1)
    detector = EQNetDetector(2, 4)
    detector(*draw_system(rng, 2, 2, 2, 4, 0.1)[1:])
    with pytest.raises(InvalidInput, match="these weights are for 2"):
        detector(*draw_system(rng, 2, 3, 2, 4, 0.1)[1:])
    with pytest.raises(InvalidInput, match="no codebook"):
        detector.set_codebook([], [])


def test_streams_are_quantized_each_on_their_own(rng):
    quantizer = DeepStreamQuantizer(3, 4, bits=3)
    llr = rng.normal(size=(500, 3, 4)).astype(np.float32) * 4
    quantizer.fit(llr)
    assert quantizer.num_components == 9 and quantizer.bits_per_use == 27
    whole = numpy_of(quantizer.encode(llr))
    for k in range(3):
        alone = numpy_of(quantizer.encoder(llr[:, k, None]))
        np.testing.assert_allclose(whole[:, 3 * k : 3 * k + 3], alone, atol=1e-6)
    changed = llr.copy()
    changed[:, 0] += 1
    difference = numpy_of(quantizer(changed)) - numpy_of(quantizer(llr))
    assert np.abs(difference[:, 1:]).max() == 0 and np.abs(difference[:, 0]).max() > 0
    assert numpy_of(quantizer(llr[0])).shape == (3, 4)


def test_kmeans_levels_are_means_of_their_cells(rng):
    from linksim.quantization.eqnet import kmeans_codebook

    samples = rng.normal(size=4000)
    thresholds, levels = kmeans_codebook(samples, 3)
    assert np.all(np.diff(levels) > 0) and len(levels) == 8
    cells = np.searchsorted(thresholds, samples)
    means = [samples[cells == c].mean() for c in range(8)]
    np.testing.assert_allclose(levels, means, atol=0.03)
    # Max's table: the least squared error of 8 levels on a normal is 0.03454
    assert np.mean((samples - levels[cells]) ** 2) == pytest.approx(0.0345, rel=0.06)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow graphs")
@pytest.mark.parametrize("features", ["raw", "scaled", "qr"])
def test_eager_graph_and_xla_agree(rng, features):
    import tensorflow as tf

    _, y, h, no = draw_system(rng, 12, 3, 2, 4, 0.1)
    detector = EQNetDetector(2, 4, features=features)
    args = [tf.constant(x) for x in (y, h, no)]
    eager = detector(*args).numpy()
    unknown = [tf.TensorSpec([None, *x.shape[1:]], x.dtype) for x in args]
    for options in ({"input_signature": unknown}, {"jit_compile": True}):
        function = tf.function(lambda *a: detector(*a), autograph=False, **options)
        np.testing.assert_allclose(function(*args).numpy(), eager, rtol=1e-3, atol=1e-3)


def prior_inputs(detector, y, h, no, llrs):
    """The inputs of the network, [MMSE-PIC, cancellation, prior], as LLRs."""
    prior = None if llrs is None else llrs_to_pam_logits(llrs, 4)
    inputs = detector.inputs(*complex_to_real_channel(y, h), no, prior)
    largest = 1 - 1e-7  # beyond it float32 has an infinite LLR
    return [2 * np.arctanh(np.clip(numpy_of(x), -largest, largest)) for x in inputs[1:]]


def test_inputs_with_a_prior_leave_it_out_again(rng):
    """They are what the channel adds: extrinsic MMSE-PIC, and cancellation that decides by
    prior and channel. In either order the first stream is cancelled by the second's bits."""
    symbols, y, h, no = draw_system(rng, 40, 3, 2, 4, 0.3)
    llrs = rng.normal(size=(40, 2, 4)).astype(np.float32)
    detector = EQNetDetector(2, 4, features="prior", width=12)
    linear, cancelled, known = prior_inputs(detector, y, h, no, llrs)
    np.testing.assert_allclose(known, llrs.reshape(40, -1), rtol=1e-3, atol=1e-3)
    mmse = create_detector("mmse", num_streams=2, num_bits_per_symbol=4)
    extrinsic = numpy_of(mmse(y, h, no, llrs)) - llrs
    small = np.abs(extrinsic).reshape(40, -1) < 6
    np.testing.assert_allclose(
        linear[small], extrinsic.reshape(40, -1)[small], rtol=1e-2, atol=1e-2
    )
    # With certain bits of one stream, the other is found without interference
    for order, sure in enumerate((1, 0)):
        certain = np.zeros((40, 2, 4), np.float32)
        certain[:, sure] = 90.0 * (2 * bit_labels(4)[symbols[:, sure]] - 1)
        _, cancelled, _ = prior_inputs(detector, y, h, no, certain)
        first = cancelled.reshape(40, 2, 4, 2)[:, order, :2]  # [B, Re and Im, bits]
        alone = h[:, :, 1 - sure]
        rest = y - h[:, :, sure] * qam_points(4)[symbols[:, sure], None]
        single = numpy_of(
            create_detector("ml", num_streams=1, num_bits_per_symbol=4)(
                rest, alone[..., None], no
            )
        )[:, 0]
        expected = np.stack([single[:, 0::2], single[:, 1::2]], axis=1)
        small = np.abs(expected) < 6
        np.testing.assert_allclose(first[small], expected[small], rtol=2e-2, atol=2e-2)


def test_the_cross_entropy_of_a_training_counts_the_prior(rng):
    """Otherwise the network would learn to repeat what it is added to."""
    symbols, y, h, no = draw_system(rng, 40, 3, 2, 4, 0.3)
    prior = rng.normal(size=(40, 2, 4)).astype(np.float32)
    detector = EQNetDetector(2, 4, features="prior", width=12)
    llr, bits = detector(y, h, no, prior), bit_labels(4)[symbols].astype(np.float32)
    task = EstimatorTask(detector, None, {"cross-entropy": 1.0}, joint=True)
    batch = {"y": y, "h": h, "no": no, "bits": bits, "llr": llr, "prior": prior}
    prepared = task.prepare(batch)
    task.calibrate(prepared)
    found = numpy_of(task.terms(prepared, False)["cross-entropy"])
    np.testing.assert_allclose(found, numpy_of(bit_cross_entropy(llr, bits)), rtol=1e-4)


def test_only_the_variant_with_a_prior_takes_one(rng):
    _, y, h, no = draw_system(rng, 6, 3, 2, 4, 0.1)
    llrs = rng.normal(size=(6, 2, 4)).astype(np.float32)
    for features in ("raw", "qr", "sic"):
        with pytest.raises(InvalidInput, match="eqnet-l-prior"):
            EQNetDetector(2, 4, features=features)(y, h, no, llrs)
    detector = EQNetDetector(2, 4, features="prior", width=12)
    got = numpy_of(detector(y, h, no, llrs))
    added = detector.decoder(
        detector.latents(*complex_to_real_channel(y, h), no, llrs_to_pam_logits(llrs, 4))
    )
    np.testing.assert_allclose(got, numpy_of(added) + llrs, rtol=1e-3, atol=1e-3)
    again = EQNetDetector.from_config(detector.get_config())
    assert again.accepts_prior and not EQNetDetector(2, 4).accepts_prior


def test_the_trained_one_tells_more_the_more_it_is_told():
    """Always more than MMSE-PIC, and without a prior as much as the best without its input."""
    scenario = load_scenario("rayleigh-2x2-qam64")
    names = ["eqnet-l-prior", "mmse", "eqnet-p-sic"]
    trained = {"eqnet-l-prior": scenario.name, "eqnet-p-sic": scenario.name}
    detectors = {
        name: create_detector(
            name, num_streams=2, num_bits_per_symbol=6, pretrained=trained.get(name, False)
        )
        for name in names
    }
    told = {name: [] for name in names}
    for information in (0.0, 0.3, 0.6, 0.9):
        source = VectorSource(
            scenario, (12.0, 12.0), 3000, prior_information=(information, information)
        )
        batch = source.draw(source.keys(VALIDATION, 0))
        for name, detector in detectors.items():
            known = (batch["prior"],) if detector.accepts_prior else ()
            if information and not known:
                continue
            llr = detector(batch["y"], batch["h"], batch["no"], *known)
            added = llr - batch["prior"] if known else llr
            told[name].append(float(mutual_information(added, batch["bits"])))
    ours, linear = (np.array(told[name]) for name in names[:2])
    assert np.all(np.diff(ours) > 0.01) and np.all(ours > linear), told
    assert ours[0] > told["eqnet-p-sic"][0] - 0.005, told
