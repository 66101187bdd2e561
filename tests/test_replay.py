"""A replay is of the very block that was counted, or is refused."""

import json

import numpy as np
import pytest

from linksim.cli import coded_ber
from linksim.errors import InvalidInput, ResultFileError
from linksim.link.scenario import load_scenario
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.replay import replay_block
from linksim.montecarlo.store import read_counts
from tests.small_runs import SMALL

POINT = 4.0


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """{batch size: file of counts of a run that drew so many blocks together}."""
    folder, files = tmp_path_factory.mktemp("runs"), {}
    for size in (7, 50):
        files[size] = folder / f"{size}.jsonl"
        scenario = SMALL.replace(run={"batch_size": size})
        options = {"seed": 3, "target_block_errors": 10**6, "max_blocks": 100, "xla": "off"}
        simulate(scenario, ["mmse", "zf"], snr_db=POINT, store_path=files[size], **options)
    return files


def again(file, block, detector="zf", snr_db=POINT, seed=3, scenario=SMALL):
    return replay_block(
        scenario, detector, snr_db, block, seed=seed, xla="off", store_path=file
    )


@pytest.mark.parametrize("size", [7, 50])
def test_the_block_is_that_of_the_run_whatever_its_batches(runs, size, rng):
    """The scenario says batches of 20, the file knows better."""
    assert SMALL.run.batch_size == 20
    _, counts = read_counts(runs[size])
    failed = np.concatenate([counts.get("zf", POINT, b).failed for b in range(100 // size)])
    for block in (*rng.choice(np.flatnonzero(failed), 2), np.flatnonzero(~failed)[-1]):
        assert (again(runs[size], int(block))["bit_errors"] > 0) == failed[block]


def test_what_the_run_does_not_have_is_refused(runs):
    for arguments, message in (
        ({"detector": "ep"}, "got the detector 'ep@.*', expected one that .*: mmse, zf"),
        ({"snr_db": 5.0}, "got 5 dB, expected a point at which .* has zf: 4"),
        ({"block": 105}, "got block 105, expected less than 105"),
    ):
        with pytest.raises(InvalidInput, match=message):
            again(runs[7], **{"block": 0, **arguments})


def test_other_draws_are_refused(runs):
    with pytest.raises(ResultFileError, match="made with seed = 3, this scenario has 4"):
        again(runs[7], 0, seed=4)
    other = SMALL.replace(channel={"rho": 0.9})
    with pytest.raises(ResultFileError, match="made with fingerprint"):
        again(runs[7], 0, scenario=other)


def test_a_count_that_does_not_come_back_is_refused(runs, tmp_path):
    """The errors of the batch are compared: one bit more and it is another block."""
    head, *lines = runs[50].read_text().splitlines()
    snr_db, batch, packed, _ = json.loads(lines[0])
    packed["zf"][3] += 1  # bit errors
    edited = tmp_path / "edited.jsonl"
    edited.write_text("\n".join([head, json.dumps([snr_db, batch, packed]), *lines[1:], ""]))
    errors = packed["zf"][3]
    with pytest.raises(ResultFileError, match=f"had {errors} bit errors .* now it has"):
        again(edited, 0)
    assert again(edited, 50)["y"].shape == (10, 4)


def test_a_file_that_is_none_of_ours_or_unfinished(runs, tmp_path):
    text = runs[50].read_text()
    for content, message in (("hello\n", "corrupted"), ("{}\n", "not a result file")):
        (tmp_path / "other.jsonl").write_text(content)
        with pytest.raises(ResultFileError, match=message):
            read_counts(tmp_path / "other.jsonl")
    with pytest.raises(ResultFileError, match="cannot read"):
        read_counts(tmp_path / "none.jsonl")
    (tmp_path / "torn.jsonl").write_text(text[:-10])
    torn, whole = (read_counts(f)[1] for f in (tmp_path / "torn.jsonl", runs[50]))
    assert whole.detectors() == torn.detectors() == ["mmse", "zf"]
    for detector in whole.detectors():
        lost = whole.total(detector, POINT).blocks - torn.total(detector, POINT).blocks
        assert lost == 50


def test_memory_and_detectors_do_not_change_what_is_replayed(tmp_path, capsys):
    """`--memory` sizes batches by the detectors of a command; a replay has those of its run."""
    chosen = ["--scenario", "gauss-markov-4x2-qpsk", "--output", str(tmp_path)]
    chosen += ["--detectors", "mmse,zf", "--xla", "off"]
    stop = ["--snr", "0", "--max-blocks", "300", "--memory", "0.0005"]
    assert coded_ber.main([*chosen, *stop]) == 0
    folder = tmp_path / "gauss-markov-4x2-qpsk"
    identity, counts = read_counts(folder / "counts.jsonl")
    size = identity["batch_size"]
    assert size != 500  # the scenario's
    block = size + int(np.flatnonzero(counts.get("zf", 0.0, 1).failed)[0])
    scenario = load_scenario(folder.name).replace(run={"batch_size": size})
    counted = replay_block(scenario, "zf", 0.0, block, xla="off")
    for more in ([], ["--memory", "1"], ["--detectors", "ml"]):
        assert coded_ber.main([*chosen, *more, "--replay", f"zf:0:{block}"]) == 0
        arrays = np.load(folder / f"replay-zf-0dB-{block}.npz", allow_pickle=False)
        assert arrays["bit_errors"] > 0
        np.testing.assert_array_equal(arrays["y"], counted["y"])
    capsys.readouterr()
    args = [*chosen, "--replay", "zf:0:0", "--output", str(tmp_path / "none")]
    assert coded_ber.main(args) == 2
    assert "there is no" in capsys.readouterr().err
