"""The engine: stop rules, drop-out, resume after SIGKILL, order of batches."""

import dataclasses
import json
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from linksim.errors import InvalidInput, ResultFileError
from linksim.link.scenario import load_scenario
from linksim.link.simulator import LinkSimulator
from linksim.montecarlo.engine import simulate
from linksim.montecarlo.jobs import run_batch
from linksim.montecarlo.output import write_results
from linksim.montecarlo.replay import replay_block
from linksim.montecarlo.schedule import Schedule, StopRule
from linksim.montecarlo.statistics import Counts
from linksim.registry import DETECTORS, create_detector, is_learned, list_detectors
from tests.small_runs import SMALL, counts, run


def test_stop_rule():
    rule = StopRule(10, 100, relative_width=0.5)
    assert not rule.done(Counts(blocks=50, block_errors=9))
    assert rule.done(Counts(blocks=50, block_errors=10))
    assert rule.done(Counts(blocks=100))
    assert not StopRule(10**6, 10**6, 0.5).done(Counts(blocks=100, block_errors=20))
    assert StopRule(10**6, 10**6, 0.5).done(Counts(blocks=1000, block_errors=200))
    for bad in ((0, 1), (1, 0), (1, 1, -1.0), (2.5, 1)):
        with pytest.raises(InvalidInput):
            StopRule(*bad)


def test_detectors_stop_on_their_own_and_share_draws():
    results = run()
    by = {(r["detector"], r["snr_db"]): r for r in results["records"]}
    assert len(by) == 4
    for r in by.values():
        assert r["block_errors"] >= 30 or r["blocks"] == 200
        assert r["block_errors"] - 20 < 30  # stopped within the batch that sufficed
    # A detector alone, or beside another one, has the same counts
    alone = simulate(SMALL, ["zf"], snr_db=[4], target_block_errors=30, max_blocks=200)
    assert counts(alone) == [c for c in counts(results) if c[:2] == ("zf", 4.0)]


def test_points_below_the_waterfall_are_absent():
    scenario = SMALL.replace(run={"min_bler": 0.05})
    results = simulate(
        scenario, ["mmse"], snr_db=[0, 20, 22, 24], target_block_errors=5, max_blocks=60
    )
    assert [r["snr_db"] for r in results["records"]] == [0, 20]


def test_resume_extend_and_memory_give_equal_counts(tmp_path):
    path = tmp_path / "counts.jsonl"
    first = run(store_path=path, snr_db=[0])
    size = path.stat().st_size
    assert counts(run(store_path=path, snr_db=[0])) == counts(first)
    assert path.stat().st_size == size  # nothing was simulated again
    # More detectors, points and errors reuse what is there
    more = simulate(
        SMALL,
        ["mmse", "zf", "ml"],
        snr_db=[0, 4],
        target_block_errors=60,
        max_blocks=200,
        store_path=path,
    )
    direct = simulate(
        SMALL, ["mmse", "zf", "ml"], snr_db=[0, 4], target_block_errors=60, max_blocks=200
    )
    assert counts(more) == counts(direct)
    with pytest.raises(ResultFileError, match="seed 0, now 1"):
        run(store_path=path, seed=1)
    with pytest.raises(ResultFileError, match="batch_size 20, now 5; the file"):
        simulate(SMALL.replace(run={"batch_size": 5}), ["zf"], snr_db=0, store_path=path)


LEARNED = "detnet-fc@gauss-markov-4x2-qpsk"


def test_a_result_can_have_everything_that_the_store_holds(tmp_path):
    """Under the names of earlier runs, layers and trained detectors included."""
    path = tmp_path / "counts.jsonl"
    layer = create_detector("zf", num_streams=2, num_bits_per_symbol=2)
    names = ["mmse", ("mine", layer), "kbest(k=4)", LEARNED]
    options = {"target_block_errors": 30, "max_blocks": 200, "store_path": path}
    whole = simulate(SMALL, names, snr_db=[0, 4], **options)
    one = simulate(SMALL, ["zf"], snr_db=8, everything=True, **options)
    assert counts(one)[1:] == counts(whole)
    assert {g["detector"] for g in one["gaps"]} == {"mmse", "mine", "kbest(k=4)", LEARNED}
    earlier = one["provenance"]["earlier"]
    assert list(earlier) == ["mmse", "mine", "kbest(k=4)", LEARNED]
    assert earlier["mmse"] == "mmse" and re.fullmatch("detnet-fc@.*@.{12}", earlier[LEARNED])
    assert [c[0] for c in counts(simulate(SMALL, ["zf"], snr_db=8, **options))] == ["zf"]


def test_detectors_that_have_changed_are_not_mixed_with_those_of_today(
    tmp_path, monkeypatch, caplog
):
    """Neither in counts nor in curves, with options or without."""
    path = tmp_path / "counts.jsonl"
    options = {"snr_db": 0, "max_blocks": 40, "store_path": path}
    names = ["ep", "ep(damping=0.9)"]
    with monkeypatch.context() as patched:
        entry = DETECTORS.entry("ep")
        patched.setitem(DETECTORS._entries, "ep", dataclasses.replace(entry, revision=1))
        simulate(SMALL, ["mmse", *names], **options)
    today = counts(simulate(SMALL, names, **{**options, "store_path": None}))
    one = simulate(SMALL, ["zf"], everything=True, **options)
    assert [c[0] for c in counts(one)] == ["zf", "mmse"]
    (line,) = (r.getMessage() for r in caplog.records if r.name == "linksim")
    assert "earlier versions of ep, ep(damping=0.9), which are left out" in line
    assert counts(simulate(SMALL, names, **options)) == today
    whole = simulate(SMALL, ["zf"], everything=True, **options)
    assert [c[0] for c in counts(whole)] == ["zf", "mmse", *names]
    assert counts(whole)[2:] == today


def test_batches_in_any_order_have_equal_counts():
    for scenario in (SMALL, load_scenario("cdl-a-2x2-qam64").replace(run={"batch_size": 10})):
        simulator = LinkSimulator(scenario)
        simulator.add_detector("mmse")
        point = scenario.snr.points[2]
        order = [0, 1, 2, 3]
        forward = {b: run_batch(simulator, "mmse", simulator.draw(0, point, b)) for b in order}
        random.Random(0).shuffle(order)
        for b in order:
            again = run_batch(simulator, "mmse", simulator.draw(0, point, b))
            assert again.counts.astuple()[:-1] == forward[b].counts.astuple()[:-1]
            np.testing.assert_array_equal(again.failed, forward[b].failed)


def test_keyboard_interrupt_leaves_a_valid_result(tmp_path):
    calls = []

    def interrupt(snr_db, shown, active):
        calls.append(active)
        if len(calls) == 3:
            raise KeyboardInterrupt

    path = tmp_path / "counts.jsonl"
    results = run(on_progress=interrupt, store_path=path)
    assert not results["provenance"]["complete"]
    assert results["records"] and results["records"][0]["blocks"] == 40
    assert counts(run(store_path=path)) == counts(run())


KILLED = """
import sys
from tests.small_runs import run
print("ready", flush=True)
run(store_path=sys.argv[1], target_block_errors=10**6, max_blocks=2000)
print("done", flush=True)
"""


# Each kill takes a new process, which takes five seconds
@pytest.mark.parametrize("wanted_kills", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_lose_and_repeat_nothing(tmp_path, wanted_kills):
    """SIGKILL at random moments of a run, resumed until it ends."""
    path = tmp_path / "counts.jsonl"
    rng = random.Random(1)
    root = Path(__file__).parent.parent
    kills, deadline = 0, time.monotonic() + 300
    while kills < wanted_kills and time.monotonic() < deadline:
        process = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(path)],
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert process.stdout.readline() == "ready\n"
        # From before the first batch to after the last
        before = path.read_text().count("\n") if path.exists() else 0
        wanted = before + rng.randint(1, 18)
        while process.poll() is None:
            lines = path.read_text().count("\n") if path.exists() else 0
            if lines >= wanted or rng.random() < 0.001:
                break
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
    assert kills == wanted_kills
    assert path.read_text().count("\n") < 202  # killed before the end
    options = {"target_block_errors": 10**6, "max_blocks": 2000}
    assert counts(run(store_path=path, **options)) == counts(run(**options))
    batches = [tuple(json.loads(x)[:2]) for x in path.read_text().splitlines()[1:]]
    assert len(set(batches)) == len(batches) == 200


def test_records_are_complete():
    results = run(snr_db=[4])
    assert set(results) == {"scenario", "provenance", "records", "gaps"}
    assert (
        list(results["records"][0])
        == (
            "detector snr_db no bits bit_errors ber ber_low ber_high blocks block_errors bler "
            "bler_low bler_high symbols symbol_errors ser ser_low ser_high seconds"
        ).split()
    )
    provenance = results["provenance"]
    assert {"versions", "git_commit", "machine", "seed", "wall_seconds", "weights"} <= set(
        provenance
    )
    json.dumps(results, allow_nan=False)


@pytest.mark.parametrize("name", [n for n in list_detectors() if not is_learned(n)])
def test_every_detector_runs_coded(name):
    scenario = load_scenario("rayleigh-4x4-qam16").replace(
        system={"num_streams": 2}, run={"batch_size": 2}
    )
    if name.startswith("sdr"):
        scenario = scenario.replace(code={"type": "none", "uses_per_block": 3})
    record = simulate(scenario, [name], snr_db=25, max_blocks=2)["records"][0]
    assert record["blocks"] == 2 and record["ber"] < 0.2


def test_bad_arguments_are_named():
    for options, message in (
        ({"detectors": ["mmze"]}, "detector: got 'mmze'"),
        ({"detectors": []}, "detectors: empty"),
        ({"snr_db": []}, "snr_db: empty"),
        ({"snr_db": [float("nan")]}, "snr_db"),
        ({"seed": -1}, "seed: got -1"),
        ({"xla": "maybe"}, "xla: got 'maybe'"),
        ({"reference": "ml"}, "reference: got 'ml'"),
        ({"max_blocks": 0}, "max_blocks"),
    ):
        with pytest.raises(InvalidInput, match=message):
            simulate(SMALL, **{"detectors": ["zf"], **options})
    with pytest.raises(InvalidInput, match="2 receive antennas for 4 streams"):
        simulate(load_scenario("rayleigh-4x4-qam16").replace(system={"num_rx": 2}), ["zf"])


def test_nan_llrs_are_an_error(monkeypatch):
    simulator = LinkSimulator(SMALL, xla="off")
    simulator.add_detector("zf")
    good = simulator._detect["zf"]
    simulator._detect["zf"] = lambda *a: (good(*a)[0] * np.nan, good(*a)[1])
    with pytest.raises(RuntimeError, match="zf: the LLRs contain NaN"):
        run_batch(simulator, "zf", simulator.draw(0, 4.0, 0))


def test_replay_recreates_a_failing_block():
    scenario = load_scenario("rayleigh-2x2-qam64").replace(run={"batch_size": 20})
    simulator = LinkSimulator(scenario)
    simulator.add_detector("mmse")
    result = run_batch(simulator, "mmse", simulator.draw(3, 12.0, 2))
    block = 40 + int(np.flatnonzero(result.failed)[0])
    arrays = replay_block(scenario, "mmse", 12.0, block, seed=3)
    assert arrays["bit_errors"] > 0
    assert (arrays["bits"] != arrays["bits_hat"]).sum() == arrays["bit_errors"]
    assert arrays["llr"].shape == (54, 2, 6) and arrays["decoder_llr"].shape == (648,)
    np.testing.assert_array_equal(arrays["decoder_llr"][:324] > 0, arrays["bits_hat"] > 0)
    assert arrays["decoder_iterations"] == 20
    # It is the same block: y = Hx + n with the noise of this point
    from linksim.constellation import qam_points

    noise = arrays["y"] - np.einsum(
        "umk,uk->um", arrays["h"], qam_points(6)[arrays["symbols"]]
    )
    assert np.mean(np.abs(noise) ** 2) == pytest.approx(10**-1.2, rel=0.4)
    good = 40 + int(np.flatnonzero(~result.failed)[0])
    assert replay_block(scenario, "mmse", 12.0, good, seed=3)["bit_errors"] == 0
    with pytest.raises(InvalidInput, match="snr_db: got nan"):
        replay_block(scenario, "mmse", float("nan"), 0)


def test_a_run_that_is_interrupted_before_its_first_batch_has_a_result(monkeypatch, tmp_path):
    def interrupt(self):
        raise KeyboardInterrupt

    monkeypatch.setattr(Schedule, "run", interrupt)
    results = run()
    assert not results["provenance"]["complete"]
    assert results["records"] == [] and results["gaps"] == []
    write_results(results, tmp_path)
    assert (tmp_path / "bler.png").exists()


def test_points_may_be_chosen_one_by_one(tmp_path):
    """Their counts are those of a run over all points, and a resumed run goes the same way."""
    points, path = [0.0, 4.0, 8.0], tmp_path / "counts.jsonl"
    options = {"snr_db": points, "max_blocks": 20, "target_block_errors": 10**6, "xla": "off"}
    seen = []

    def downwards(records):
        seen.append([r["snr_db"] for r in records])
        return {0: 8.0, 1: 0.0}.get(len(records))

    scenario = SMALL.replace(run={"batch_size": 10, "min_bler": 0.0})
    chosen = simulate(scenario, ["mmse"], next_point=downwards, store_path=path, **options)
    assert seen == [[], [8.0], [0.0, 8.0]]
    whole = {r["snr_db"]: r for r in simulate(scenario, ["mmse"], **options)["records"]}
    for record in chosen["records"]:
        assert record["bit_errors"] == whole[record["snr_db"]]["bit_errors"]
    assert len(chosen["records"]) == 2
    seen.clear()
    simulate(scenario, ["mmse"], next_point=downwards, store_path=path, **options)
    assert seen == [[], [8.0], [0.0, 8.0]]
    for wrong in (3.0, 8.0):
        with pytest.raises(InvalidInput, match="next_point: returned"):
            simulate(scenario, ["mmse"], next_point=lambda _, x=wrong: x, **options)
    with pytest.raises(InvalidInput, match="next_point: got 3"):
        simulate(scenario, ["mmse"], next_point=3, **options)
