"""EXIT charts: what detectors and decoder tell each other, against what has to come out."""

import numpy as np
import pytest

from linksim.cli import exit as command
from linksim.cli.main import main
from linksim.constellation import bit_labels, qam_points
from linksim.errors import InvalidInput
from linksim.files import load_json
from linksim.information import bit_information
from linksim.link.exit import ExitMeter
from linksim.link.scenario import load_scenario
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.exit_chart import exit_chart, loop_table, stairs, with_loops
from tests.small_runs import SMALL

POINT = 8.0
NAMES = ["mmse", "ml"]
# Ten uses of a block have 160 bits, of which 150 are coded
LINK = load_scenario("rayleigh-4x4-qam16").replace(
    name="small",
    code={"type": "5g", "num_info_bits": 60, "num_coded_bits": 150, "num_iterations": 6},
    run={"batch_size": 20},
)


@pytest.fixture(scope="module")
def simulator():
    simulator = LinkSimulator(LINK, xla="off")
    for name in NAMES:
        simulator.add_detector(f"{name}/3")
    return simulator


@pytest.fixture(scope="module")
def meter(simulator):
    return ExitMeter(simulator, POINT, 1)


def sent_bits(simulator, draws):
    """Coded bits [B, 150] in the order of the code."""
    return simulator.link.code.encode(draws.bits).numpy()


def information(bits, llrs):
    x = 2.0 * bits - 1.0
    return (1 - np.log2(1 + np.exp(-x * llrs.astype(float)))).mean(-1)


def test_information_of_bits():
    bits = np.array([0.0, 0.0, 1.0, 1.0, 1.0], np.float32)
    llrs = np.array([0.0, -90.0, 90.0, np.log(3.0), -1000.0], np.float32)
    expected = [0.0, 1.0, 1.0, 1 - np.log2(4 / 3), 1 - 1000 / np.log(2)]
    np.testing.assert_allclose(bit_information(bits, llrs), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_that_is_told_nothing_is_one_without_a_prior(simulator, meter, name):
    draws = simulator.draw(0, POINT, 0)
    llrs, _ = simulator.detect(f"{name}/3", draws)
    llrs = simulator.link.codeword_llrs(llrs).numpy()
    blocks = information(sent_bits(simulator, draws), llrs)
    found = meter.detector(f"{name}/3", 0.0)
    assert found.mean == pytest.approx(blocks.mean(), abs=1e-4)
    assert found.error == pytest.approx(blocks.std(ddof=1) / np.sqrt(20), rel=1e-3)
    # And so does the loop begin
    first = meter.loop(f"{name}/3")[0]
    assert first.blocks == 20 and first.detector.mean == pytest.approx(found.mean, abs=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_a_detector_that_is_told_all_is_a_matched_filter(simulator, meter, name):
    """The other streams and bits are known: two points of one stream are left for a bit."""
    draws = simulator.draw(0, POINT, 0)
    y, h, no = (x.numpy() for x in (draws.y, draws.h_hat, draws.no))
    points, labels = qam_points(4), bit_labels(4)
    symbols = draws.symbols.numpy()
    noise = y - np.einsum("buik,buk->bui", h, points[symbols])
    llrs = np.zeros((*symbols.shape, 4), np.float32)
    weights = 2 ** np.arange(3, -1, -1)
    for bit in range(4):
        flipped = points[symbols ^ weights[bit]] - points[symbols]
        step = h * flipped[:, :, None, :]
        metric = (np.abs(noise[..., None] - step) ** 2).sum(2) - (np.abs(noise) ** 2).sum(-1)[
            ..., None
        ]
        sign = 2 * labels[symbols][..., bit] - 1
        llrs[..., bit] = sign * metric / np.broadcast_to(no, y.shape[:2])[..., None]
    # The padding of the last use is known to nobody
    blocks = information(
        sent_bits(simulator, draws), simulator.link.codeword_llrs(llrs).numpy()
    )
    found = meter.detector(f"{name}/3", 0.9999)
    assert found.mean == pytest.approx(blocks.mean(), abs=0.015)
    assert found.mean > meter.detector(f"{name}/3", 0.0).mean + 0.15


def test_the_decoder_knows_more_the_more_it_is_told(meter):
    curve = [meter.decoder(told).mean for told in (0.0, 0.1, 0.3, 0.5, 0.7, 0.9, 0.999)]
    assert curve[0] == 0.0 and np.all(np.diff(curve) > -1e-3)
    assert curve[-1] > 0.9999


def test_a_repeated_bit_tells_what_its_copies_say():
    """Of a code that repeats, the other copy of a bit is news of it."""
    scenario = LINK.replace(
        code={"num_info_bits": 30, "num_coded_bits": 400}, run={"batch_size": 4}
    )
    meter = ExitMeter(LinkSimulator(scenario, xla="off"), POINT, 1)
    curve = [meter.decoder(told).mean for told in (0.02, 0.999)]
    assert 0.0 < curve[0] < 0.9 and curve[1] > 0.9999


def test_the_loop_is_that_of_the_passes(simulator, meter):
    draws = simulator.draw(0, POINT, 0)
    passes = simulator.passes("mmse/3", draws)
    steps = meter.loop("mmse/3")
    assert [step.blocks for step in steps] == [len(one.blocks) for one in passes]
    bits, in_code = sent_bits(simulator, draws), simulator.link.codeword_llrs
    first, second = passes[:2]
    told = information(bits, in_code(first.llrs).numpy())
    assert steps[0].detector.mean == pytest.approx(told.mean(), abs=1e-4)
    # Those that go on are told as much as the loop tells them, and the others know all
    back = information(bits, in_code(first.decision.prior).numpy())
    back[first.decision.final] = 1.0
    assert steps[0].decoder.mean == pytest.approx(back.mean(), abs=0.01)
    # Those that are finished are left alone: they would be told all
    told = information(bits[second.blocks], in_code(second.llrs).numpy()).sum()
    rest = 20 * steps[1].detector.mean - told
    known = meter.detector("mmse/3", 0.999).mean
    assert rest / (20 - len(second.blocks)) == pytest.approx(known, abs=0.03)
    assert steps[-1].decoder.mean > steps[0].decoder.mean


def test_a_chart_from_the_command_line(tmp_path, capsys):
    path = tmp_path / "small.toml"
    path.write_text(
        'title = "Two _streams_ of $1"\n[system]\nnum_rx = 2\nnum_streams = 2\n'
        'num_bits_per_symbol = 2\n[channel]\ntype = "rayleigh"\n[snr]\ndefinition = "esno"\n'
        'points = [1, 3, 5]\n[run]\ndetectors = ["mmse"]\nbatch_size = 3\n[code]\ntype = "5g"\nnum_info_bits = 40\n'
        "num_coded_bits = 80\nnum_iterations = 4\n"
    )
    line = ["exit", "--scenario", str(path), "--detectors", "mmse,ep", "--blocks", "5"]
    line += ["--passes", "2", "--output", str(tmp_path), "--xla", "off", "--seed", "3"]
    assert main(line) == 0
    assert "Bits of information per coded bit" in capsys.readouterr().out
    results = load_json(tmp_path / "small/results.json")
    assert results["snr_db"] == 3 and results["blocks"] == 6
    assert [entry["detector"] for entry in results["detectors"]] == ["mmse", "ep"]
    assert [row["told"] for row in results["decoder"]][-1] == 0.999
    assert results["provenance"]["seed"] == 3 and results["provenance"]["batch_size"] == 3
    assert (tmp_path / "small/exit.png").read_bytes()[:4] == b"\x89PNG"
    (steps,) = (e["loop"] for e in results["detectors"] if e["detector"] == "mmse")
    x, y = stairs(steps)
    assert (x[0], y[0], x[1], y[1]) == (0, 0, 0, steps[0]["detector"])
    assert (x[2], y[2]) == (steps[0]["decoder"], steps[0]["detector"])
    assert loop_table(results).row_count == sum(len(e["loop"]) for e in results["detectors"])


def test_names_get_the_passes_of_the_chart():
    assert with_loops(["ep ", "ml+max-mi:3"], 3) == {
        "ep": "ep/3",
        "ml+max-mi:3": "ml+max-mi:3/3",
    }


@pytest.mark.parametrize(
    "change, message",
    [
        ({"detectors": ["zf"]}, "several passes need a detector that can use"),
        ({"detectors": ["mmse/2"]}, "got 'mmse/2', expected a name without passes"),
        ({"detectors": []}, "detectors: got none"),
        ({"scenario": SMALL}, "has no code"),
        ({"scenario": LINK.replace(loop={"cn_update": "minsum"})}, "loop.cn_update: got"),
        ({"snr_db": float("nan")}, "snr_db: got nan"),
        ({"num_blocks": 1}, "num_blocks: got 1"),
        ({"num_passes": 1}, "passes: got 1"),
        ({"points": [0.0, 1.0]}, "points: got 1.0"),
    ],
)
def test_what_has_no_chart_is_refused(change, message):
    given = {"scenario": LINK, "detectors": ["mmse"], "snr_db": 8.0, **change}
    with pytest.raises(InvalidInput, match=message):
        exit_chart(**given, xla="off")


@pytest.mark.parametrize(
    "line, message",
    [
        (["--scenario", "nosuch"], "scenario: got 'nosuch'"),
        (["--snr", "nan"], "--snr: got nan"),
        (["--blocks", "1"], "--blocks: got 1"),
        (["--passes", "1"], "--passes: got 1"),
        (["--detectors", "zf"], "several passes need"),
    ],
)
def test_wrong_options_are_refused(line, message, capsys):
    assert command.main(line, "prog") == 2
    assert message in capsys.readouterr().err
