"""LLR quantizers: storage to the bit, optimality, the contract, and files."""

import itertools
import json
import zipfile

import keras
import numpy as np
import pytest
from keras import ops
from scipy.special import expit

from linksim.errors import InvalidInput, ResultFileError
from linksim.files import load_arrays, save_arrays
from linksim.quantization import (
    LLRQuantizer,
    MaxMutualInformationQuantizer,
    UniformQuantizer,
    bit_mutual_information,
    load_quantizer_file,
)
from linksim.quantization.base import QUANTIZER_CLASSES, register
from linksim.quantization.scalar import optimal_partition

BOTH = [UniformQuantizer, MaxMutualInformationQuantizer]
ON_TENSORFLOW = keras.backend.backend() == "tensorflow"
ON_JAX = keras.backend.backend() == "jax"


def draw_llrs(rng, *lead, streams=2, m=2, scale=1.0):
    """Exact LLRs of bits in Gaussian noise of random strength."""
    shape = (*lead, streams, m)
    mean = scale * rng.uniform(0.3, 6, (*lead, 1, 1))
    signs = rng.choice([-1.0, 1.0], shape)
    llrs = signs * mean + rng.normal(size=shape) * np.sqrt(2 * mean)
    return llrs.astype(np.float32)


def numpy_of(x):
    return np.asarray(ops.convert_to_numpy(x))


@register
class ProjectingQuantizer(LLRQuantizer):
    """A quantizer with networks and fewer components than LLRs."""

    def build(self, input_shape):
        # Without saturation, which would make the value one both a threshold and a sample
        start = keras.initializers.RandomNormal(stddev=0.05, seed=7)
        self.down = keras.layers.Dense(
            self.num_components, activation="tanh", kernel_initializer=start
        )
        self.up = keras.layers.Dense(self.num_streams * self.num_bits_per_symbol)
        self.down.build((None, self.num_streams * self.num_bits_per_symbol))
        self.up.build((None, self.num_components))

    @property
    def num_components(self):
        return 3 * self.num_streams

    def encode(self, llrs):
        return self.down(ops.reshape(llrs, (-1, self.up.units)))

    def decode(self, components):
        return super().decode(self.up(components))

    def fit_component(self, samples, bits, index):
        edges = np.quantile(samples, np.linspace(0, 1, 2**bits + 1))
        return edges[1:-1], (edges[1:] + edges[:-1]) / 2


# --- storage --------------------------------------------------------------------


def bits_one_by_one(indices, bits):
    text = "".join(f"{i:0{b}b}" for row in indices for i, b in zip(row, bits))
    text += "0" * (-len(text) % 8)
    return bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


@pytest.mark.parametrize(
    "bits", [[1, 1, 1, 1], [3, 3, 3, 3], [1, 12, 5, 8], [12, 11, 1, 2], [8, 8, 8, 8]]
)
@pytest.mark.parametrize("uses", [1, 7, 8, 33])
def test_packing_is_that_of_a_loop_over_bits(rng, bits, uses):
    quantizer = UniformQuantizer(2, 2, bits, clip=5.0)
    indices = np.stack([rng.integers(0, 2**b, uses) for b in bits], -1).astype(np.int32)
    indices[0] = [2**b - 1 for b in bits]
    data = quantizer.pack(indices)
    assert data == bits_one_by_one(indices, bits)
    assert len(data) == -(-uses * sum(bits) // 8)
    back = quantizer.unpack(data, uses)
    assert back.dtype == np.int32
    np.testing.assert_array_equal(back, indices)


def test_wrong_length_or_filling_is_refused(rng):
    quantizer = UniformQuantizer(1, 4, 3, clip=5.0)
    data = quantizer.pack(rng.integers(0, 8, (3, 4)))  # 36 bits
    assert len(data) == 5
    for wrong in (data[:-1], data + b"\0", b""):
        with pytest.raises(InvalidInput, match="bytes, expected 5 for 3"):
            quantizer.unpack(wrong, 3)
    with pytest.raises(InvalidInput, match="filling"):
        quantizer.unpack(data[:-1] + bytes([data[-1] | 1]), 3)
    with pytest.raises(InvalidInput, match="num_uses"):
        quantizer.unpack(data, -1)
    with pytest.raises(InvalidInput, match="bytes"):
        quantizer.unpack("00000", 3)


@pytest.mark.parametrize("cls", [*BOTH, ProjectingQuantizer])
@pytest.mark.parametrize("lead", [(), (5,), (2, 3, 4), (0,), (3, 0)])
def test_stored_llrs_come_back_as_those_of_call(rng, cls, lead):
    quantizer = cls(2, 4, 4).fit(draw_llrs(rng, 300, m=4))
    llrs = draw_llrs(rng, *lead, m=4)
    data = quantizer.store(llrs)
    restored = quantizer.restore(data)
    assert restored.shape == llrs.shape and restored.dtype == np.float32
    np.testing.assert_array_equal(restored, numpy_of(quantizer(llrs)))
    uses = int(np.prod(lead))
    assert len(data) == 26 + 8 * len(lead) + -(-uses * quantizer.bits_per_use // 8)


def test_damaged_or_foreign_bytes_are_refused(rng):
    llrs = draw_llrs(rng, 300)
    quantizer = UniformQuantizer(2, 2, 3).fit(llrs)
    data = quantizer.store(llrs[:20])
    for position in range(0, len(data), 5):
        flipped = bytearray(data)
        flipped[position] ^= 4
        with pytest.raises(InvalidInput):
            quantizer.restore(bytes(flipped))
    for wrong in (b"", data[:10], data[:-1], data + b"\0", b"x" * len(data), "text"):
        with pytest.raises(InvalidInput, match="data"):
            quantizer.restore(wrong)
    others = [
        UniformQuantizer(2, 2, 3).fit(2 * llrs),
        MaxMutualInformationQuantizer(2, 2, 3).fit(llrs),
        UniformQuantizer(2, 2, [3, 3, 3, 2]).fit(llrs),
    ]
    for other in others:
        with pytest.raises(InvalidInput, match="another quantizer"):
            other.restore(data)
    # The name of a layer does not matter
    twin = UniformQuantizer(2, 2, 3, name="twin").fit(llrs)
    np.testing.assert_array_equal(twin.restore(data), quantizer.restore(data))


# --- quantizing -------------------------------------------------------------------


@pytest.mark.parametrize("bits", [1, 4, [1, 2, 7, 12]])
def test_index_is_the_number_of_thresholds_below(rng, bits):
    quantizer = UniformQuantizer(2, 2, bits)
    thresholds = [np.sort(rng.normal(size=2**b - 1) * 4) for b in quantizer.bits]
    thresholds = [np.float32(t) for t in thresholds]
    levels = [rng.normal(size=2**b).astype(np.float32) for b in quantizer.bits]
    quantizer.set_codebook(thresholds, levels)
    llrs = draw_llrs(rng, 50, 4)
    # On a threshold, and above the values that fill up shorter rows
    llrs[0, 0] = np.reshape([t[0] for t in thresholds], (2, 2))
    llrs[0, 1] = 3.3e38
    llrs[0, 2] = -3.3e38
    flat = llrs.reshape(50, 4, 4)
    got = numpy_of(quantizer.quantize_llrs(llrs))
    assert got.dtype == np.int32
    expected = np.stack([(flat[..., d, None] > thresholds[d]).sum(-1) for d in range(4)], -1)
    np.testing.assert_array_equal(got, expected)
    values = np.stack([levels[d][expected[..., d]] for d in range(4)], -1)
    np.testing.assert_array_equal(numpy_of(quantizer(llrs)), values.reshape(llrs.shape))


def test_uniform_cells_have_equal_width_and_an_error_of_half_a_step(rng):
    quantizer = UniformQuantizer(1, 2, [4, 2], clip=6.0)
    assert quantizer.is_fitted
    np.testing.assert_allclose(np.diff(numpy_of(quantizer.levels)[0]), 0.75, rtol=1e-6)
    llrs = rng.uniform(-6, 6, (500, 1, 2)).astype(np.float32)
    error = np.abs(numpy_of(quantizer(llrs)) - llrs)
    assert 0.3 < error[..., 0].max() <= 0.3751
    assert 1.4 < error[..., 1].max() <= 1.5001


@pytest.mark.parametrize("bits", [1, 3, 6])
def test_fitted_clip_is_near_the_least_squared_error(rng, bits):
    llrs = draw_llrs(rng, 3000, streams=1, m=1, scale=3)
    fitted = UniformQuantizer(1, 1, bits).fit(llrs)

    def error(clip):
        levels = clip * (np.arange(1, 2 ** (bits + 1), 2) / 2**bits - 1)
        return np.mean(np.abs(llrs - levels).min(-1) ** 2)

    best = min(error(c) for c in np.linspace(0.02, 2, 200) * np.abs(llrs).max())
    got = np.mean((numpy_of(fitted(llrs)) - llrs) ** 2)
    assert 0.999 * best <= got <= 1.05 * best


def test_rates():
    quantizer = UniformQuantizer(2, 6, 3)
    assert (quantizer.num_components, quantizer.bits_per_use) == (12, 36)
    assert quantizer.bits_per_llr == 3
    projecting = ProjectingQuantizer(2, 6, [5, 5, 5, 5, 5, 5])
    assert (projecting.num_components, projecting.bits_per_use) == (6, 30)
    assert projecting.bits_per_llr == 2.5
    assert UniformQuantizer(1, 4, np.array([4, 1, 2, 3])).bits_per_llr == 2.5


@pytest.mark.parametrize("bits", [0, 13, 2.0, True, "4", None, [3, 3, 3], [3, 3, 3, 0], []])
def test_bad_bits_are_refused(bits):
    with pytest.raises(InvalidInput, match="bits"):
        UniformQuantizer(2, 2, bits)


@pytest.mark.parametrize("clip", [0, -1.0, float("nan"), float("inf"), "high"])
def test_bad_clip_is_refused(clip):
    with pytest.raises(InvalidInput, match="clip"):
        UniformQuantizer(2, 2, 3, clip=clip)


# --- mutual information -----------------------------------------------------------


def cell_information(mass1, mass0, starts):
    total = 0.0
    for cell in np.split(np.arange(len(mass1)), starts[1:]):
        p = np.array([mass1[cell].sum(), mass0[cell].sum()])
        total += np.sum(p * np.log(p / p.sum()))
    return total


@pytest.mark.parametrize("num_cells", [1, 2, 3, 4, 8, 9])
def test_partition_is_the_best_of_all(rng, num_cells):
    bins = 9
    llrs = np.sort(rng.normal(size=bins) * 3)
    weight = rng.dirichlet(np.ones(bins))
    mass1, mass0 = weight * expit(llrs), weight * expit(-llrs)
    best = max(
        cell_information(mass1, mass0, [0, *cuts])
        for cuts in itertools.combinations(range(1, bins), num_cells - 1)
    )
    starts = optimal_partition(mass1, mass0, num_cells)
    assert len(starts) == num_cells
    assert cell_information(mass1, mass0, starts) == pytest.approx(best, abs=1e-12)


@pytest.mark.parametrize("bits", [1, 2])
def test_fit_is_the_best_of_all_thresholds_on_few_values(rng, bits):
    values = np.array([-7.0, -3.5, -2.0, -0.5, 0.25, 1.0, 4.0, 9.0], np.float32)
    llrs = rng.choice(values, 4000, p=rng.dirichlet(np.ones(8))).reshape(-1, 1, 1)
    quantizer = MaxMutualInformationQuantizer(1, 1, bits).fit(llrs)
    got = bit_mutual_information(llrs, quantizer.quantize_llrs(llrs))[0, 0]
    best = 0
    for cuts in itertools.combinations((values[1:] + values[:-1]) / 2, 2**bits - 1):
        indices = np.searchsorted(cuts, llrs)
        best = max(best, bit_mutual_information(llrs, indices)[0, 0])
    assert got == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 6])
def test_max_mi_keeps_more_information_than_uniform(rng, bits):
    # Skewed, as the LLRs of the less protected bits of QAM
    llrs = draw_llrs(rng, 6000, streams=1, m=2)
    llrs[:, 0, 1] = np.minimum(llrs[:, 0, 1], 2.0)
    exact = bit_mutual_information(llrs)
    kept = {}
    for cls in BOTH:
        quantizer = cls(1, 2, bits).fit(llrs)
        kept[cls] = bit_mutual_information(llrs, quantizer.quantize_llrs(llrs))
    best, uniform = kept[MaxMutualInformationQuantizer], kept[UniformQuantizer]
    assert np.all(best >= uniform - 1e-6)
    assert np.all(best <= exact + 1e-9)
    if bits == 2:
        assert np.all(best > uniform + 0.005)
    if bits == 6:
        np.testing.assert_allclose(best, exact, atol=1e-3)


def test_one_bit_of_a_symmetric_distribution_is_the_sign(rng):
    half = draw_llrs(rng, 5000, streams=1, m=1)
    llrs = np.concatenate([half, -half])
    quantizer = MaxMutualInformationQuantizer(1, 1, 1).fit(llrs)
    assert abs(numpy_of(quantizer.thresholds)[0, 0]) < 0.05
    levels = numpy_of(quantizer.levels)[0]
    ber = np.mean(expit(-np.abs(llrs)))
    expected = np.log((1 - ber) / ber) * np.array([-1, 1])
    np.testing.assert_allclose(levels, expected, rtol=1e-2)


def test_levels_are_calibrated_and_increase(rng):
    llrs = draw_llrs(rng, 4000, streams=1, m=1, scale=2)
    quantizer = MaxMutualInformationQuantizer(1, 1, 3).fit(llrs)
    index = numpy_of(quantizer.quantize_llrs(llrs)).reshape(-1)
    levels = numpy_of(quantizer.levels)[0]
    for cell in range(8):
        p1 = expit(llrs.reshape(-1)[index == cell].astype(float)).mean()
        assert levels[cell] == pytest.approx(np.log(p1 / (1 - p1)), rel=1e-3, abs=1e-3)
    assert np.all(np.diff(levels) > 0)


def test_high_snr_spends_its_levels_where_bits_are_uncertain(rng):
    # One LLR in 50 is uncertain
    llrs = rng.choice([-1, 1], 20000) * rng.uniform(80, 5000, 20000)
    llrs[::50] = rng.normal(size=400) * 3
    llrs = llrs.astype(np.float32).reshape(-1, 1, 1)
    quantizer = MaxMutualInformationQuantizer(1, 1, 3).fit(llrs)
    index = quantizer.quantize_llrs(llrs)
    lost = bit_mutual_information(llrs) - bit_mutual_information(llrs, index)
    uncertain = 1 - bit_mutual_information(llrs)
    assert 0 <= lost[0, 0] < 0.05 * uncertain[0, 0]
    assert np.all(np.isfinite(numpy_of(quantizer(llrs))))


@pytest.mark.parametrize("value", [0.0, 2.5, -3e38])
@pytest.mark.parametrize("bits", [1, 3, 9])
def test_constant_llrs_are_kept(value, bits):
    llrs = np.full((600, 1, 1), value, np.float32)
    quantizer = MaxMutualInformationQuantizer(1, 1, bits).fit(llrs)
    np.testing.assert_allclose(numpy_of(quantizer(llrs)), llrs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [9, 12])
def test_many_bits_lose_nothing(rng, bits):
    llrs = draw_llrs(rng, 5000, streams=1, m=1)
    quantizer = MaxMutualInformationQuantizer(1, 1, bits).fit(llrs)
    index = quantizer.quantize_llrs(llrs)
    assert numpy_of(index).max() > 2 ** (bits - 1)
    lost = bit_mutual_information(llrs) - bit_mutual_information(llrs, index)
    assert 0 <= lost[0, 0] < 2e-5


def test_known_information():
    certain = np.full((4, 1, 1), 60.0, np.float32)
    assert bit_mutual_information(certain)[0, 0] == pytest.approx(1)
    assert bit_mutual_information(0 * certain)[0, 0] == pytest.approx(0, abs=1e-12)
    p = 0.11
    crossover = np.log((1 - p) / p) * np.array([1.0, -1.0]).reshape(2, 1, 1)
    h2 = -p * np.log2(p) - (1 - p) * np.log2(1 - p)
    assert bit_mutual_information(crossover)[0, 0] == pytest.approx(1 - h2)
    index = (crossover > 0).astype(int)
    assert bit_mutual_information(crossover, index)[0, 0] == pytest.approx(1 - h2)
    for wrong in (np.zeros(3), np.array([[np.nan]]), np.zeros((0, 1, 1))):
        with pytest.raises(InvalidInput, match="llrs"):
            bit_mutual_information(wrong)
    with pytest.raises(InvalidInput, match="indices"):
        bit_mutual_information(crossover, [0])


# --- refusals ---------------------------------------------------------------------


def test_unfitted_use_is_refused(rng):
    llrs = draw_llrs(rng, 4)
    quantizer = UniformQuantizer(2, 2, 3)
    assert not quantizer.is_fitted
    calls = (
        lambda: quantizer(llrs),
        lambda: quantizer.quantize_llrs(llrs),
        lambda: quantizer.dequantize(np.zeros((4, 4), np.int32)),
        lambda: quantizer.store(llrs),
        lambda: quantizer.restore(b""),
    )
    for call in calls:
        with pytest.raises(InvalidInput, match="no codebook"):
            call()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_nan_and_inf_are_refused(rng, value):
    llrs = draw_llrs(rng, 40)
    quantizer = UniformQuantizer(2, 2, 3).fit(llrs)
    llrs[3, 1, 0] = value
    for call in (quantizer, quantizer.fit, quantizer.store):
        with pytest.raises(InvalidInput, match="NaN or inf"):
            call(llrs)


def test_wrong_shapes_and_dtypes_are_refused(rng):
    llrs = draw_llrs(rng, 40)
    quantizer = UniformQuantizer(2, 2, 3).fit(llrs)
    for wrong in (llrs[..., :1], llrs[0, 0], np.swapaxes(llrs, 0, 1)):
        with pytest.raises(InvalidInput, match=r"expected \[\.\.\., 2, 2\]"):
            quantizer(wrong)
    for dtype in (np.float64, np.int32, np.complex64):
        # With JAX, Keras casts float64 to float32 before `call`
        with pytest.raises(InvalidInput, match="expected float32"):
            quantizer.quantize_llrs(llrs.astype(dtype))
    with pytest.raises(InvalidInput, match="floating point"):
        quantizer.fit(llrs.astype(np.int32))
    with pytest.raises(InvalidInput, match=r"expected \[\.\.\., 2, 2\]"):
        quantizer.fit(llrs[..., :1])
    with pytest.raises(InvalidInput, match="7 channel uses, expected at least 8"):
        quantizer.fit(llrs[:7])


def test_indices_out_of_range_are_refused():
    quantizer = UniformQuantizer(1, 2, [2, 3], clip=4.0)
    quantizer.dequantize(np.array([[3, 7]]))
    for wrong, name in (([3, 8], "1"), ([4, 0], "0"), ([-1, 0], "0")):
        for call in (quantizer.dequantize, quantizer.pack):
            with pytest.raises(InvalidInput, match=rf"indices\[\.\.\., {name}\]"):
                call(np.array([wrong]))
    with pytest.raises(InvalidInput, match="dtype float32"):
        quantizer.dequantize(np.zeros((1, 2), np.float32))
    with pytest.raises(InvalidInput, match="shape"):
        quantizer.pack(np.zeros((1, 3), np.int32))


def test_bad_codebooks_are_refused():
    quantizer = UniformQuantizer(1, 2, [1, 2])
    good = [[0.0], [-1.0, 0.0, 1.0]], [[-1.0, 1.0], [-2.0, -1.0, 1.0, 2.0]]
    bad = (
        (good[0][:1], good[1]),
        ([[0.0], [-1.0, 0.0]], good[1]),
        ([[0.0], [-1.0, 1.0, 0.0]], good[1]),
        ([[np.nan], [-1.0, 0.0, 1.0]], good[1]),
        (good[0], [[-1.0, np.inf], good[1][1]]),
        (good[0], [[-1.0], good[1][1]]),
    )
    for thresholds, levels in bad:
        with pytest.raises(InvalidInput, match="thresholds|levels"):
            quantizer.set_codebook(thresholds, levels)
        assert not quantizer.is_fitted
    assert quantizer.set_codebook(*good) is quantizer and quantizer.is_fitted


# --- graphs, Keras, files -----------------------------------------------------------


@pytest.mark.parametrize("cls", [*BOTH, ProjectingQuantizer])
def test_graph_and_xla_equal_eager(rng, cls):
    quantizer = cls(2, 2, [1, 2, 3, 6] if cls is not ProjectingQuantizer else 5)
    quantizer.fit(draw_llrs(rng, 300))
    llrs = draw_llrs(rng, 30, 3)
    indices = numpy_of(quantizer.quantize_llrs(llrs))
    expected = numpy_of(quantizer(llrs))
    exact = cls is not ProjectingQuantizer
    for compiled in compilers():
        got = numpy_of(compiled(quantizer.quantize_llrs)(llrs))
        # XLA may round differently in a network
        assert np.mean(got == indices) > (1 - 1e-12 if exact else 0.99)
        if exact:
            np.testing.assert_array_equal(numpy_of(compiled(quantizer)(llrs)), expected)
        back = numpy_of(compiled(quantizer.dequantize)(indices))
        np.testing.assert_allclose(back, expected, atol=0 if exact else 1e-4)


def compilers():
    if ON_TENSORFLOW:
        import tensorflow as tf

        return (
            tf.function,
            lambda f: tf.function(f, jit_compile=True),
        )
    if ON_JAX:
        import jax

        return (jax.jit,)
    return ()


@pytest.mark.skipif(not ON_TENSORFLOW, reason="tf.function")
def test_unknown_batch_size_in_a_graph(rng):
    import tensorflow as tf

    quantizer = UniformQuantizer(2, 2, 3).fit(draw_llrs(rng, 300))
    function = tf.function(
        quantizer, input_signature=[tf.TensorSpec((None, None, 2, 2), tf.float32)]
    )
    for lead in ((3, 4), (1, 7)):
        llrs = draw_llrs(rng, *lead)
        np.testing.assert_array_equal(function(llrs), quantizer(llrs))
    # A graph without a codebook returns nothing that looks right
    unfitted = UniformQuantizer(2, 2, 3)
    assert np.all(np.isnan(tf.function(unfitted)(draw_llrs(rng, 3))))


@pytest.mark.parametrize("cls", [*BOTH, ProjectingQuantizer])
def test_keras_and_weights_round_trips(rng, tmp_path, cls):
    llrs = draw_llrs(rng, 300)
    inputs = keras.Input((2, 2))
    quantizer = cls(2, 2, 3)
    model = keras.Model(inputs, quantizer(inputs))
    assert model.output_shape == (None, 2, 2)
    assert not model.trainable_weights or cls is ProjectingQuantizer
    quantizer.fit(llrs)
    expected = numpy_of(model(llrs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.layers[-1]) is cls and loaded.layers[-1].is_fitted
    assert loaded.layers[-1].bits == (3,) * quantizer.num_components
    np.testing.assert_array_equal(numpy_of(loaded(llrs)), expected)
    model.save_weights(tmp_path / "model.weights.h5")
    other = cls(2, 2, 3)
    again = keras.Model(inputs, other(inputs))
    assert not other.is_fitted
    again.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(numpy_of(again(llrs)), expected)
    clone = cls.from_config(quantizer.get_config())
    assert clone.get_config() == quantizer.get_config()


@pytest.mark.parametrize("cls", [*BOTH, ProjectingQuantizer])
def test_file_round_trip(rng, tmp_path, cls):
    llrs = draw_llrs(rng, 300)
    bits = [3, 1, 4, 2] if cls is not ProjectingQuantizer else 4
    quantizer = cls(2, 2, bits).fit(llrs)
    path = tmp_path / "quantizer.npz"
    path.write_bytes(b"an older file")
    quantizer.save(path)
    assert [p.name for p in tmp_path.iterdir()] == ["quantizer.npz"]
    loaded = load_quantizer_file(path)
    assert type(loaded) is cls and loaded.is_fitted and loaded.bits == quantizer.bits
    np.testing.assert_array_equal(numpy_of(loaded(llrs)), numpy_of(quantizer(llrs)))
    # They are equal down to the bytes that they store
    np.testing.assert_array_equal(
        loaded.restore(quantizer.store(llrs)), quantizer.restore(loaded.store(llrs))
    )
    unfitted = cls(2, 2, bits)
    unfitted.save(path)
    assert not load_quantizer_file(path).is_fitted


def test_bad_files_are_refused_by_name(rng, tmp_path):
    llrs = draw_llrs(rng, 300)
    quantizer = UniformQuantizer(2, 2, 3).fit(llrs)
    path = tmp_path / "quantizer.npz"
    quantizer.save(path)
    data = path.read_bytes()
    for size in (0, 1, 100, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:size])
        with pytest.raises(ResultFileError, match="quantizer.npz"):
            load_quantizer_file(path)
    for content in (b"text", json.dumps({"format": "other"}).encode()):
        path.write_bytes(content)
        with pytest.raises(ResultFileError, match="quantizer.npz"):
            load_quantizer_file(path)
    np.savez(path, header=np.array(["x"], dtype=object))
    with pytest.raises(ResultFileError, match="quantizer.npz"):
        load_quantizer_file(path)
    np.savez(path, levels=np.zeros(3))
    with pytest.raises(ResultFileError, match="quantizer.npz"):
        load_quantizer_file(path)
    with open(path, "wb") as file:
        np.save(file, np.zeros(3))
    with pytest.raises(ResultFileError, match="quantizer.npz"):
        load_quantizer_file(path)
    with pytest.raises(InvalidInput, match="none.npz"):
        load_quantizer_file(tmp_path / "none.npz")
    for position in range(10, len(data), 41):
        flipped = bytearray(data)
        flipped[position] ^= 16
        path.write_bytes(flipped)
        try:
            loaded = load_quantizer_file(path)
        except ResultFileError as error:
            assert "quantizer.npz" in str(error)
        else:  # time stamps and the like of the archive
            assert loaded.store(llrs) == quantizer.store(llrs)


def edit(path, change):
    """Rewrite a quantizer file, with the right checksum of its arrays."""
    arrays, header, _ = load_arrays(path)
    change(header, arrays)
    save_arrays(path, arrays, header)


@pytest.mark.parametrize(
    "change",
    [
        lambda header, arrays: arrays["weight_1"].__setitem__((0, 0), 7.0),
        lambda header, arrays: arrays.update(other=arrays["weight_0"]),
        lambda header, arrays: arrays.pop("weight_2"),
        lambda header, arrays: header["config"].__setitem__("clip", 3.0),
        lambda header, arrays: header.__setitem__("class", "MaxMutualInformationQuantizer"),
        lambda header, arrays: header.__setitem__("format", "linksim-quantizer-9"),
        lambda header, arrays: header.pop("digest"),
    ],
)
def test_edited_files_are_refused(rng, tmp_path, change):
    path = tmp_path / "quantizer.npz"
    UniformQuantizer(2, 2, 3).fit(draw_llrs(rng, 300)).save(path)
    edit(path, lambda header, arrays: None)
    load_quantizer_file(path)
    edit(path, change)
    with pytest.raises(ResultFileError, match="quantizer.npz"):
        load_quantizer_file(path)


def test_unknown_class_in_a_file_is_refused(rng, tmp_path, monkeypatch):
    path = tmp_path / "quantizer.npz"
    UniformQuantizer(2, 2, 3).fit(draw_llrs(rng, 300)).save(path)
    monkeypatch.delitem(QUANTIZER_CLASSES, "UniformQuantizer")
    with pytest.raises(ResultFileError, match="UniformQuantizer.*expected one of"):
        load_quantizer_file(path)


def test_file_holds_no_pickle(rng, tmp_path):
    path = tmp_path / "quantizer.npz"
    ProjectingQuantizer(2, 2, 2).fit(draw_llrs(rng, 300)).save(path)
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            np.lib.format.read_array(archive.open(name), allow_pickle=False)
