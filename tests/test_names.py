"""Names of receivers: what they mean, and layers in their place."""

import subprocess
import sys

import keras
import numpy as np
import pytest
from sionna.phy.mimo import KBestDetector, LinearDetector

import linksim
from linksim.detectors.linear import MMSEDetector
from linksim.detectors.oampnet import OAMPNetDetector
from linksim.errors import InvalidInput
from linksim.link.receiver import create_receiver
from linksim.link.scenario import load_scenario
from linksim.montecarlo.store import CountStore
from linksim.names import parse_receiver, split_names
from tests.small_runs import SMALL, counts

SYSTEM = {"num_streams": 2, "num_bits_per_symbol": 2}
RUN = {"snr_db": [4], "target_block_errors": 30, "max_blocks": 100}


@pytest.mark.parametrize(
    "text, options, spelled",
    [
        ("kbest(k=16)", (("k", 16),), "kbest(k=16)"),
        (" kbest( k = 16 ) ", (("k", 16),), "kbest(k=16)"),
        ("kbest()", (), "kbest"),
        (
            "ep(num_iterations=5, damping=0.5)",
            (("damping", 0.5), ("num_iterations", 5)),
            "ep(damping=0.5, num_iterations=5)",
        ),
        (
            "ml(demapping_method=maxlog)+max-mi:3",
            (("demapping_method", "maxlog"),),
            "ml(demapping_method=maxlog)+max-mi:3",
        ),
        (" ml + max-mi:3 ", (), "ml+max-mi:3"),
        ("r-wesnet:33.333333%", (), "r-wesnet:33.333333%"),
        (
            "eqnet-l(x=TRUE)@a-b:20L+latent:6-5",
            (("x", True),),
            "eqnet-l(x=true)@a-b:20L+latent:6-5",
        ),
        ("amp(normalize=false)", (("normalize", False),), "amp(normalize=false)"),
        ("oamp(a=-1.5e-3)", (("a", -1.5e-3),), "oamp(a=-0.0015)"),
    ],
)
def test_options_are_read_and_spelled_in_one_way(text, options, spelled):
    spec = parse_receiver(text)
    assert spec.options == options
    assert spec.text == spelled
    assert parse_receiver(spelled) == spec


@pytest.mark.parametrize(
    "text",
    [
        "kbest(k=16",
        "kbest k=16)",
        "kbest(k)",
        "kbest(k=)",
        "kbest(=16)",
        "kbest(k=1,k=2)",
        "kbest(k=16,)",
        "kbest(k=(1))",
        "kbest(k=a b)",
        "kbest(k=16)x",
        "kbest(output=symbol)",
        "kbest(num_streams=3)",
        "(k=16)",
        "eqnet-l@",
        "eqnet-l(latent_bits=6)",
        3,
        None,
    ],
)
def test_what_is_written_in_another_way_is_refused(text):
    with pytest.raises(InvalidInput, match="detectors: "):
        parse_receiver(text, "detectors")


@pytest.mark.parametrize("text", ["ml+max-mi@:3", "eqnet-l+latent@a:6"])
def test_quantizers_that_are_written_in_another_way_are_refused(text):
    with pytest.raises(InvalidInput, match="quantizer: "):
        parse_receiver(text)


def test_an_option_that_the_detector_does_not_take_is_refused():
    with pytest.raises(InvalidInput, match="kbest: unknown option kk; expected.* k"):
        create_receiver("kbest(kk=16)", SMALL)
    with pytest.raises(InvalidInput, match="k: got 0"):
        create_receiver("kbest(k=0)", SMALL)


def test_lists_are_split_outside_of_brackets():
    names = "mmse, ep(num_iterations=5, damping=0.5),ml+eqnet:6"
    assert split_names(names) == ["mmse", "ep(num_iterations=5, damping=0.5)", "ml+eqnet:6"]
    assert split_names("mmse") == ["mmse"]
    assert split_names("") == [""]


def test_options_change_what_is_simulated_and_where_it_is_stored(tmp_path):
    path = tmp_path / "counts.jsonl"
    names = ["kbest", "kbest(k=1)", "kbest( k= 1)"]
    results = linksim.simulate(SMALL, names, **RUN, store_path=path, reference="kbest(k = 1)")
    assert [r["detector"] for r in results["records"]] == ["kbest", "kbest(k=1)"]
    assert {g["reference"] for g in results["gaps"]} == {"kbest(k=1)"}
    wide, narrow = (r["bit_errors"] for r in results["records"])
    assert narrow > wide
    text = path.read_text()
    assert '"kbest(k=1)"' in text and '"kbest"' in text


def test_layers_are_simulated_under_their_names(tmp_path):
    layer = MMSEDetector(**SYSTEM, name="mine")
    pair = ("another", linksim.create_detector("ml", **SYSTEM))
    path = tmp_path / "counts.jsonl"
    results = linksim.simulate(SMALL, [layer, "mmse", pair], **RUN, store_path=path)
    assert [r["detector"] for r in results["records"]] == ["mine", "mmse", "another"]
    rows = counts(results)
    assert rows[0][1:] == rows[1][1:] != rows[2][1:]
    size = path.stat().st_size
    linksim.simulate(SMALL, [layer, pair], **RUN, store_path=path)
    assert path.stat().st_size == size  # nothing was simulated again
    other = MMSEDetector(**SYSTEM, name="mine", demapping_method="maxlog")
    linksim.simulate(SMALL, [other], **RUN, store_path=path)
    assert path.stat().st_size > size  # another layer of the same name


def test_layers_of_another_content_have_another_key():
    one = create_receiver(OAMPNetDetector(**SYSTEM, name="mine"), SMALL)
    same = create_receiver(OAMPNetDetector(**SYSTEM, name="mine"), SMALL)
    assert one.key == same.key and one.key.startswith("mine@")
    assert list(one.weights) == ["OAMPNetDetector"] and one.weights == same.weights
    weight = same.detector.trainable_variables[0]
    weight.assign(weight + 0.1)
    assert create_receiver(same.detector, SMALL).key != one.key


def test_sionnas_detectors_are_simulated_as_they_are():
    block = LinearDetector(
        "lmmse", "bit", "app", constellation_type="qam", num_bits_per_symbol=2
    )
    results = linksim.simulate(SMALL, [("sionna", block), "sionna-lmmse"], **RUN)
    one, two = counts(results)
    assert one[1:] == two[1:]


def test_sionnas_detectors_are_told_apart_by_their_settings():
    def kbest(k, **options):
        options.update(constellation_type="qam", num_bits_per_symbol=2)
        return KBestDetector("bit", 2, k, **options)

    def key(block):
        return create_receiver(("x", block), SMALL).key

    block = kbest(4)
    assert key(block) == key(block) == key(kbest(4)) != key(kbest(2))
    with pytest.raises(InvalidInput, match="two of them are called 'x'"):
        linksim.simulate(SMALL, [("x", kbest(4)), ("x", kbest(2))], **RUN)
    with pytest.raises(InvalidInput, match="does not return LLRs"):
        key(kbest(4, hard_out=True))
    with pytest.raises(InvalidInput, match="has no name; pass it as"):
        linksim.simulate(SMALL, [block], **RUN)


@pytest.mark.parametrize(
    "detectors, message",
    [
        ([3], "detectors: got 3"),
        ([("mine", "mmse")], "expected \\(name, layer\\)"),
        ([("mine",)], "expected \\(name, layer\\)"),
        ([keras.layers.Dense(3)], "expected a name, a detector layer"),
        ([("mmse", linksim.create_detector("zf", **SYSTEM))], "is a detector's name"),
        ([("a+b", linksim.create_detector("zf", **SYSTEM))], "cannot be called 'a\\+b'"),
        (
            [linksim.create_detector("zf", num_streams=3, num_bits_per_symbol=2)],
            "num_streams = 3, gauss-markov-4x2-qpsk needs 2",
        ),
        (
            [linksim.create_detector("zf", num_streams=2, num_bits_per_symbol=4)],
            "num_bits_per_symbol = 4",
        ),
        (
            [(n, linksim.create_detector(d, **SYSTEM)) for n, d in (("x", "zf"), ("x", "ml"))],
            "two of them are called 'x'",
        ),
    ],
)
def test_what_is_no_detector_is_refused(detectors, message):
    with pytest.raises(InvalidInput, match=message):
        linksim.simulate(SMALL, detectors, **RUN)


def test_workers_take_names_only():
    layer = linksim.create_detector("mmse", **SYSTEM)
    with pytest.raises(InvalidInput, match="register_detector"):
        linksim.simulate(SMALL, [layer], **RUN, workers=1)


def test_counts_of_earlier_versions_are_found(tmp_path):
    """A store keys trained detectors by name and weights, as it always has."""
    receiver = create_receiver("ml+max-mi:3", load_scenario("rayleigh-2x2-qam64"))
    (digest,) = receiver.weights.values()
    import hashlib

    assert receiver.key == f"ml+max-mi:3@{hashlib.sha256(digest.encode()).hexdigest()[:12]}"
    assert create_receiver("mmse", SMALL).key == "mmse"
    CountStore(tmp_path / "x", {}, keys={receiver.name: receiver.key}).close()


def test_names_are_known_without_keras():
    code = (
        "import sys, linksim, linksim.names, linksim.link.scenario as s\n"
        "[s.load_scenario(n) for n in s.list_scenarios()]\n"
        "linksim.list_detectors(), linksim.list_quantizers(), linksim.list_models()\n"
        "linksim.names.parse_receiver('ml+eqnet-mi:6')\n"
        "heavy = {'keras', 'tensorflow', 'sionna', 'matplotlib', 'scipy'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_detector_layers_are_left_as_they_were():
    layer = linksim.create_detector("mmse", **SYSTEM, output="symbol")
    linksim.simulate(SMALL, [layer], **RUN)
    y, h = np.ones((1, 4), np.complex64), np.ones((1, 4, 2), np.complex64)
    assert layer(y, h, np.ones(1, np.float32)).shape == (1, 2, 4)
