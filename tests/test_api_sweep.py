"""The Python API takes what fits and refuses the rest by name; the command line in one line."""

import re

import numpy as np
import pytest

import linksim
import linksim.models
from linksim.cli.main import main
from linksim.detectors import MMSEDetector
from linksim.errors import InvalidInput, ResultFileError
from linksim.link.scenario import load_scenario
from linksim.montecarlo.schedule import Schedule
from linksim.names import parse_quantizer, parse_receiver
from linksim.quantization import load_quantizer_file
from linksim.training.recipe import load_recipe, recipe_from_dict
from linksim.training.source import VectorSource
from tests.mutations import other_than, values
from tests.small_runs import SMALL

REFUSED = (InvalidInput, ResultFileError)
SYSTEM = {"num_streams": 2, "num_bits_per_symbol": 4}
LAYER = MMSEDetector(2, 2)
# Of names and layers in lists
LISTS = [
    *(LAYER, [LAYER], [LAYER, LAYER], ["mmse", None], [("a", LAYER)], [("a", "mmse")]),
    *([("a", LAYER, 3)], [(3, LAYER)], ["mmse", "mmse"], ["+"], [("a+b", LAYER)]),
]


def check(what, call, given=()):
    """Fail where a call with one of the wrong values ends in anything but a refusal."""
    wrong = []
    for value in (*values(), *given):
        found = other_than(REFUSED, lambda: call(value))
        wrong += [f"{what} = {value!r}: {found}"] if found else []
    assert not wrong, "\n".join(wrong[:20])


@pytest.mark.parametrize(
    "argument",
    [
        *("scenario", "detectors", "snr_db", "target_block_errors", "max_blocks"),
        *("relative_width", "seed", "store_path", "fresh", "xla", "reference", "workers"),
        *("on_progress", "on_point"),
    ],
)
def test_simulate(argument, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # some of the values are good names of files
    # What is wrong is found before the first batch
    monkeypatch.setattr(Schedule, "run", lambda self: None)
    right = {"scenario": SMALL, "detectors": ["zf"], "snr_db": 3, "xla": "off"}
    if argument == "workers":  # a good number needs Ray
        check(argument, lambda v: isinstance(v, int) or linksim.simulate(**right, workers=v))
    else:
        check(argument, lambda v: linksim.simulate(**{**right, argument: v}), LISTS)


@pytest.mark.parametrize("name", ["ep", "kbest", "oampnet2", "eqnet-l", "sionna-kbest"])
def test_create_detector(name):
    # Sizes that are right make layers of that size
    for argument in ("num_streams", "num_bits_per_symbol", "output", "hard_out", "pretrained"):
        check(
            argument,
            lambda v: _is_large(v) or linksim.create_detector(name, **{**SYSTEM, argument: v}),
        )
    check("an option", lambda v: linksim.create_detector(name, **SYSTEM, nosuch=v))
    check("name", lambda v: linksim.create_detector(v, **SYSTEM))


@pytest.mark.parametrize("name", linksim.list_quantizers())
def test_create_quantizer(name):
    networks = {"deep-stream", "eqnet", "eqnet-mi"}
    options = ("latent_dim", "width") if name in networks else ("clip",)
    for argument in (*SYSTEM, "bits", "pretrained", *options):
        check(
            argument,
            lambda v: (
                _is_large(v) or linksim.create_quantizer(name, **{**SYSTEM, argument: v})
            ),
        )
    check("name", lambda v: linksim.create_quantizer(v, **SYSTEM))


def _is_large(value):
    return isinstance(value, (int, float)) and abs(value) > 1000


def test_sizes_of_numpy_make_layers():
    for streams, bits in ((np.int64(2), np.int32(4)), (np.uint8(2), np.int16(4))):
        for name in ("eqnet-l", "ep"):
            layer = linksim.create_detector(
                name, num_streams=streams, num_bits_per_symbol=bits
            )
            assert type(layer.num_streams) is int
        quantizer = linksim.create_quantizer(
            "eqnet-mi", num_streams=streams, num_bits_per_symbol=bits, width=np.int64(8)
        )
        assert quantizer.get_config()["num_streams"] == 2


@pytest.mark.parametrize(
    "argument",
    [
        *("scenario", "snr_db", "batch_size", "teacher", "seed", "copies", "num_channels"),
        *("streams", "streams_step", "snr_db_per_stream", "rho"),
    ],
)
def test_vector_source(argument):
    right = {
        "scenario": load_scenario("kronecker-4x2-qpsk"),
        "snr_db": (0, 10),
        "batch_size": 8,
    }
    check(argument, lambda v: VectorSource(**{**right, argument: v}))


def test_paths_and_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(linksim.models, "_OWN_FOLDERS", [])
    for call in (
        *(load_scenario, load_recipe, load_quantizer_file, parse_receiver, parse_quantizer),
        *(linksim.add_model_folder, linksim.list_cards, linksim.list_models),
        lambda v: linksim.write_report(v, "page.html"),
        lambda v: linksim.write_report([v], "page.html"),
        lambda v: linksim.write_results(v, "results"),
        lambda v: linksim.register_detector(v, v),
        lambda v: linksim.register_detector("abc", v),
        lambda v: linksim.register_detector("abc", MMSEDetector, learned=v, replace="x"),
        lambda v: isinstance(v, bool) or recipe_from_dict({"name": "a/b", "title": v}),
    ):
        check("argument", call, LISTS)


MEANT = [
    *(("MMSE", "mmse"), ("k best", "kbest"), ("K-Best(k=16)", "kbest"), ("LMMSE", "mmse")),
    *(("OAMP-Net2", "oampnet2"), ("oamp net", "oampnet"), ("vblast mmse", "vblast-mmse")),
    *(("Sphere Decoder", "sphere"), ("ml+Max MI:3", "max-mi")),
]


@pytest.mark.parametrize("name, meant", MEANT)
def test_capitals_spaces_and_dashes_are_no_reason_not_to_understand(name, meant):
    with pytest.raises(InvalidInput, match=f"Did you mean '{meant}'"):
        parse_receiver(name)


LINES = """
coded-ber --detectors MMSE | Did you mean 'mmse'
coded-ber --detectors= | detector: got ''
coded-ber --detectors mmse,,ep | detector: got ''
coded-ber --quantizer= | quantizer: got ''
coded-ber --replay= | --replay: got ''
coded-ber --scenario CDL_C_8x4_QAM16 | Did you mean 'cdl-c-8x4-qam16'
coded-ber --memory 8000 | --memory: got 8000.0, expected .* in GiB
coded-ber --memory -1 | --memory: got -1.0
coded-ber --seed 1.5 | argument --seed: invalid int value
coded-ber --code turbo | invalid choice: 'turbo'
coded-ber --nosuch | unrecognized arguments: --nosuch
coded-ber --import nosuch.py | import: got .*nosuch.py
coded-ber --models nosuch | folder: got
export MMSE --scenario rayleigh-2x2-qam64 --output x | Did you mean 'mmse'
export max-mi:x --scenario rayleigh-2x2-qam64 --output x | quantizer: got 'max-mi:x'
export mmse --output x | the following arguments are required: --scenario
report nosuch | nosuch: cannot be read
report | the following arguments are required: RESULTS
train nosuch | recipe: got 'nosuch'
train OAMPNet2/rayleigh-4x4-qam16 | Did you mean 'oampnet2/rayleigh-4x4-qam16'
train | RECIPE: missing
train [ | no name fits
models OAMPNet2 | Did you mean 'oampnet2'
models [ | no model has such a name
nosuch | invalid choice: 'nosuch'
"""


@pytest.mark.parametrize("line", LINES.strip().splitlines())
def test_the_command_line_ends_with_2_and_one_line(line, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    command, message = line.split(" | ")
    try:
        code = main(command.split())
    except SystemExit as ended:
        code = ended.code
    shown = capsys.readouterr()
    assert code == 2
    assert re.search(message, shown.err)
    assert shown.err.count("\n") == 1 and shown.err.startswith("linksim")
    assert not list(tmp_path.iterdir())
