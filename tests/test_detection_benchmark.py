"""The benchmark of detection: ranks, frozen tracks, submissions and pages."""

import dataclasses
import itertools
import json
import re
from pathlib import Path

import numpy as np
import pytest

import linksim.registry
from linksim.errors import InvalidInput
from linksim.files import load_json
from simulations.detection import ranking, tracks
from simulations.detection.choices import choices_of
from simulations.detection.pages import page_text
from simulations.detection.results import load_results
from simulations.detection.web import web_page
from tests.browser import Page, windows
from tests.conftest import load_script

ROOT = Path(__file__).resolve().parents[1]
COMMITTED = ROOT / "results/benchmark"
POINTS = (0.0, 1.0, 2.0, 3.0)


def curve(worse_by=0.0, blocks=400, margin=None):
    """Which blocks fail at each point: those whose margin is below what the SNR gives."""
    if margin is None:
        margin = np.random.default_rng(0).normal(size=blocks)
    return {point: margin > point - 0.5 - worse_by for point in POINTS}


def others(blocks=400):
    """Another detector, as good on average, that fails on other blocks."""
    return curve(margin=np.random.default_rng(1).normal(size=blocks))


# --- ranks ------------------------------------------------------------------------------


def test_masks_become_texts_and_back():
    for blocks in (1, 8, 399):
        mask = np.random.default_rng(blocks).random(blocks) < 0.2
        assert np.array_equal(ranking.unpack(ranking.pack(mask), blocks), mask)
    with pytest.raises(ValueError, match="expected 99"):
        ranking.unpack(ranking.pack(np.zeros(8, bool)), 99)


def test_what_is_not_apart_has_one_rank():
    failed = {"c": curve(1.0), "a": curve(), "b": others(), "d": curve(9.0)}
    found = ranking.compare(failed, "a", 0.1)
    assert found["a"]["rank"] == found["b"]["rank"] == 1
    assert found["c"]["rank"] == 3  # two are ahead of it
    assert found["d"]["rank"] is None and found["d"]["snr_db"] is None
    assert found["c"]["gap_db"] == pytest.approx(1.0, abs=1e-9)
    assert found["c"]["gap_low"] == pytest.approx(1.0, abs=0.25)
    assert found["a"]["low"] < found["a"]["snr_db"] < found["a"]["high"]
    assert found["a"]["gap_db"] is None  # it is the bound


def test_a_rank_ends_only_where_all_are_apart_from_all():
    """`b` is apart from `a`, but a detector between them is apart from neither."""
    sharp = {"a": curve(0.3), "b": curve(0.6)}
    assert [ranking.compare(sharp, "a", 0.1)[n]["rank"] for n in "ab"] == [1, 2]
    margin = np.random.default_rng(5).normal(size=400) + 0.45
    found = ranking.compare({**sharp, "between": curve(margin=margin)}, "a", 0.1)
    assert {row["rank"] for row in found.values()} == {1}


def test_few_blocks_are_compared_with_the_same_blocks():
    """The first blocks of a run may be worse than its mean; that is no gap."""
    whole = curve(blocks=1200)
    failed = {"whole": whole, "few": {point: mask[:400] for point, mask in whole.items()}}
    found = ranking.compare(failed, "whole", 0.1, ["few"])["few"]
    assert found["gap_db"] == found["gap_low"] == found["gap_high"] == 0
    assert ranking.compare(failed, "whole", 0.1)["few"]["gap_db"] != 0


def test_a_curve_that_ends_at_the_target_is_behind_all_the_same():
    """Half of its resamples do not cross, so that its interval is open."""
    failed = {"a": curve(), "edge": curve(1.2)}
    found = ranking.compare(failed, "a", 0.1)
    assert found["edge"]["snr_db"] == pytest.approx(3.0, abs=0.1)
    assert found["edge"]["high"] is None
    assert [found[name]["rank"] for name in failed] == [1, 2]


def test_a_receiver_of_few_blocks_holds_no_others_together():
    """Its interval is wide, so that it is apart from neither of two that are apart."""
    sharp = {"a": curve(0.3, 1200), "b": curve(0.45, 1200)}
    margin = np.random.default_rng(5).normal(size=60) + 0.4
    failed = {**sharp, "few": curve(margin=margin)}
    found = ranking.compare(failed, "a", 0.1, ["few"])
    assert [found[name]["rank"] for name in failed] == [1, 2, 1]
    assert {row["rank"] for row in ranking.compare(failed, "a", 0.1).values()} == {1}


def test_a_point_without_errors_counts_as_half_an_error():
    failed = {"a": {**curve(), 3.0: np.zeros(400, bool)}}
    found = ranking.compare(failed, "a", 0.01)["a"]
    assert 2 < found["low"] <= found["snr_db"] <= found["high"] < 3


# --- tracks -----------------------------------------------------------------------------


def test_tracks_are_frozen():
    found = tracks.load_tracks()
    assert len(found) >= 10
    for track in found.values():
        track.check_frozen()
        assert track.points == sorted(track.points) and track.bound not in track.without
    changed = dataclasses.replace(next(iter(found.values())), blocks=7)
    with pytest.raises(InvalidInput, match="raise the version in tracks.toml"):
        changed.check_frozen()


def test_smaller_tracks_and_other_draws_are_other_tracks():
    track = next(iter(tracks.load_tracks().values()))
    variants = [track, track.quick(), track.with_seed(1), track.quick().with_seed(1)]
    assert all(a.frozen != b.frozen for a, b in itertools.combinations(variants, 2))
    for variant in variants:
        variant.check_frozen()


def test_entries_of_tracks_are_checked(tmp_path):
    file = tmp_path / "tracks.toml"
    text = tracks.FILE.read_text()
    first = text[
        text.index("[[track]]") : text.index("[[track]]", text.index("[[track]]") + 1)
    ]
    for wrong, message in (
        (first + first, "stands twice"),
        (first.replace("snr_db = ", "snr_db = 0.5\n#"), "snr_db: got 0.5"),
        (first + "\nblokcs = 3", "unknown key blokcs"),
    ):
        file.write_text(wrong)
        with pytest.raises(InvalidInput, match=message):
            tracks.load_tracks(file)


# --- runs -------------------------------------------------------------------------------


GUIDE = (ROOT / "simulations/README.md").read_text(encoding="utf-8")
# The detector of the guide
(OWN,) = re.findall(r"^```python\n(# mine\.py\n.*?)^```", GUIDE, re.MULTILINE | re.DOTALL)


@pytest.fixture
def small(tmp_path, monkeypatch):
    """The script, with one small track, and a folder for its results."""
    monkeypatch.chdir(tmp_path)
    entries = dict(linksim.registry.DETECTORS._entries)
    monkeypatch.setattr(linksim.registry.DETECTORS, "_entries", entries)
    script = load_script(ROOT / "simulations/benchmark_detection.py")
    track = tracks.Track(
        name="small",
        title="Two streams <b>of</b> QPSK",
        version=1,
        frozen="",
        scenario="kronecker-4x2-qpsk",
        points=[0, 1, 2, 3],
        snr_db=2,
        bound="ml",
        bound_is="exact",
        blocks=100,
        few=["ml"],
        few_blocks=50,
        batch_size=50,
        soft_bits=500,
        changes={"code": {"type": "802.11n"}},
    )
    track = dataclasses.replace(track, frozen=track.digest())
    monkeypatch.setattr(script, "load_tracks", lambda: {"small": track})
    return script, tmp_path / "results/benchmark"


@pytest.fixture
def measured(small, monkeypatch):
    """The same with curves that are made up; {name of a detector: dB it is behind}."""
    from simulations.detection import results

    behind, calls = {"mmse": 0.6, "mmse/2": 0.3, "ml": 0.0, "mine": 0.6}, []

    def measure(track, names, folder):
        calls.append(list(names))
        scenario = track.make_scenario()
        return {name: row_of(name, scenario, behind[name]) for name in names}

    monkeypatch.setattr(results, "measure", measure)
    return (*small, calls)


def row_of(name, scenario, worse_by):
    """What `measure` would say of a detector."""
    from linksim.link.receiver import create_receiver

    return {
        "key": create_receiver(name, scenario).key,
        "family": "submitted",
        "passes": 1,
        "trained": "",
        **dict.fromkeys(("information", "factor", "us_ratio", "flops", "kb")),
        **{"us": 2.0, "ms_per_block": 0.3, "block_ratio": 1.5 - worse_by},
        "made": {"linksim": "1", "git_commit": None, "machine": {}},
        "points": [
            {"snr_db": point, "blocks": len(mask), "failed": ranking.pack(mask)}
            for point, mask in curve(worse_by).items()
        ],
    }


def test_a_detector_of_ones_own_joins_what_was_measured(measured, capsys):
    script, folder, calls = measured
    assert script.main(["--detectors", "mmse,ml"]) == 0
    rows = load_json(folder / "small.json")["receivers"]
    assert rows["ml"]["at"]["0.1"]["rank"] == 1 and rows["mmse"]["at"]["0.1"]["rank"] == 2

    Path("mine.py").write_text(OWN)
    own = ["--import", "mine.py", "--detectors", "mmse,mine"]
    assert script.main(own) == 0
    assert calls == [["mmse", "ml"], ["mine"]]  # only what the file did not have
    assert "1 of 2 receivers were measured" in capsys.readouterr().out
    after = load_json(folder / "small.json")["receivers"]
    assert list(after) == ["mmse", "ml", "mine"] and after["ml"] == rows["ml"]
    assert after["mine"]["at"]["0.1"]["rank"] == after["mmse"]["at"]["0.1"]["rank"] == 2
    assert after["mine"]["at"]["0.1"]["gap_db"] == pytest.approx(0.6, abs=0.05)
    text = (folder / "README.md").read_text()
    assert "`mmse` takes 2 us a vector, and 0.3 ms a\nblock" in text
    assert "| `mine` | 2 |" in text and "up to 50 blocks, as they are costly" in text
    page = (folder / "index.html").read_text()
    assert 'data-detector="mine"' in page and "<b>of</b>" not in page

    assert script.main(["--detectors", "mmse,mine", "--fresh"]) == 0
    assert calls[-1] == ["mmse", "mine"]


def test_a_track_that_a_receiver_cannot_run_on_is_left_out(measured, monkeypatch, capsys):
    script, folder, calls = measured
    (track,) = script.load_tracks().values()
    # Without a code there is no second pass
    uncoded = dataclasses.replace(track, name="uncoded", changes={"code": {"type": "none"}})
    uncoded = dataclasses.replace(uncoded, frozen=uncoded.digest())
    both = {"uncoded": uncoded, "small": track}
    monkeypatch.setattr(script, "load_tracks", lambda: both)
    assert script.main(["--detectors", "mmse/2"]) == 0
    assert calls == [["mmse/2"]] and not (folder / "uncoded.json").exists()
    assert list(load_json(folder / "small.json")["receivers"]) == ["mmse/2"]
    assert "uncoded: mmse/2 cannot run: " in capsys.readouterr().out

    # Of two receivers, the one that can run does
    assert script.main(["--detectors", "mmse/2,ml", "--track", "uncoded"]) == 0
    assert calls[-1] == ["ml"]

    for tracks_ in (["--track", "uncoded"], []):
        monkeypatch.setattr(script, "load_tracks", lambda: {"uncoded": uncoded})
        assert script.main(["--detectors", "mmse/2", *tracks_]) == 2
        assert "detectors: uncoded: mmse/2 cannot run" in capsys.readouterr().err
    assert len(calls) == 2


def test_results_of_another_version_are_not_mixed_with_these(measured, monkeypatch):
    script, folder, calls = measured
    assert script.main(["--detectors", "mmse,ml"]) == 0
    (track,) = script.load_tracks().values()
    newer = dataclasses.replace(track, version=2, points=[0, 2, 4])
    newer = dataclasses.replace(newer, frozen=newer.digest())
    monkeypatch.setattr(script, "load_tracks", lambda: {"small": newer})
    assert script.main(["--detectors", "ml"]) == 0
    data = load_json(folder / "small.json")
    assert list(data["receivers"]) == ["ml"] and data["track"]["version"] == 2


def test_other_draws_do_not_go_into_the_results(measured):
    script, folder, _ = measured
    assert script.main(["--detectors", "mmse", "--seed", "1"]) == 0
    assert script.main(["--detectors", "mmse", "--quick"]) == 0
    assert script.main(["--detectors", "mmse", "--quick", "--seed", "1"]) == 0
    assert not folder.exists()
    for other in ("seed-1", "quick", "quick-seed-1"):
        assert (folder.parent / f"runs/benchmark/{other}/small.json").exists()


def test_a_damaged_file_is_refused(measured, capsys):
    script, folder, _ = measured
    assert script.main(["--detectors", "ml"]) == 0
    text = (folder / "small.json").read_text()
    (folder / "small.json").write_text(text.replace('"version": 1', '"version": 7'))
    assert script.main(["--detectors", "mmse"]) == 2
    assert "checksum is wrong" in capsys.readouterr().err


@pytest.mark.slow
def test_a_small_track(small):
    script, folder = small
    assert script.main(["--detectors", "mmse,ml,mmse/2"]) == 0
    rows = load_json(folder / "small.json")["receivers"]
    assert list(rows) == ["mmse", "mmse/2", "ml"]
    most = {name: max(p["blocks"] for p in row["points"]) for name, row in rows.items()}
    assert most["ml"] == 50 and most["mmse"] == 100
    assert rows["mmse"]["us_ratio"] == rows["mmse"]["block_ratio"] == 1.0
    assert 0 < rows["mmse"]["information"] <= rows["ml"]["information"] + 0.02 < 1.02
    assert rows["mmse/2"]["information"] is None and rows["mmse/2"]["passes"] == 2
    assert rows["ml"]["at"]["0.1"]["rank"] == 1 and not rows["ml"]["trained"]
    assert rows["mmse"]["flops"] > 100 and rows["ml"]["us"] > 0


def test_bad_arguments(small, capsys):
    script, _ = small
    assert script.main(["--track", "smal"]) == 2
    assert "track: got 'smal'" in capsys.readouterr().err
    assert script.main(["--seed", "-1"]) == 2
    assert script.main(["--detectors", "nothing"]) == 2
    assert script.main(["--list"]) == 0
    assert "small, version 1" in capsys.readouterr().out


def test_the_guide_names_every_option(small, capsys):
    script, _ = small
    with pytest.raises(SystemExit):
        script.main(["--help"])
    options = set(re.findall(r"(?<![\w-])--[a-z][\w-]*", capsys.readouterr().out))
    section = GUIDE.split("\n## The benchmark of detection")[1].split("\n## ")[0]
    assert not {o for o in options - {"--help"} if f"`{o}" not in section}


# --- pages ------------------------------------------------------------------------------


def test_the_committed_pages_are_those_of_the_results():
    known = tracks.load_tracks()
    results = load_results(COMMITTED, known)
    assert (COMMITTED / "README.md").read_text(encoding="utf-8") == page_text(results)
    assert (COMMITTED / "index.html").read_text(encoding="utf-8") == web_page(results)
    for name, data in results.items():
        assert data["track"]["frozen"] == known[name].frozen


def test_the_fastest_of_the_best_is_named():
    data = sample("a")
    for name, snr_db, ratio, passes in (
        *(("mmse", 5.0, 1.0, 1), ("b/2", 1.0, 4.0, 2), ("c/2", 1.08, 3.0, 2)),
        *(("d/2", 1.2, 2.5, 2), ("e", 2.0, 9.0, 1), ("f/2", 3.0, 2.0, 2), ("g", None, 0.5, 1)),
    ):
        (row,) = sample(name)["receivers"].values()
        row["at"]["0.1"]["snr_db"] = snr_db
        row |= {"block_ratio": ratio, "passes": passes, "ms_per_block": 0.25, "us": 2.0}
        data["receivers"][name] = row
    data["receivers"]["a"]["block_ratio"] = None
    assert list(choices_of(data).values()) == ["c/2", "e", "f/2"]
    text = page_text({"t": data})
    # The answer is on the first screen
    assert text.index("`c/2`, 1.08 dB, 3 x | `e`, 2.00 dB, 9 x | `f/2`, 3.00 dB, 2 x |") < 3000
    assert "| 5.00 dB, 0.25 ms |" in text
    assert "<b>c/2</b> (1.08 dB, 3 x)" in web_page({"t": data})
    del data["receivers"]["f/2"], data["receivers"]["mmse"]
    assert list(choices_of(data).values()) == ["c/2", "e", None]
    assert "`e`, 2.00 dB, 9 x | none | none |" in page_text({"t": data})


def test_names_are_data():
    """A receiver whose name is markup can end neither a cell nor a script."""
    evil = "</script><img src=x onerror=alert(1)>|`"
    results = {"a": sample(evil)}
    page = web_page(results)
    assert evil not in page and "<img" not in page
    (line,) = [x for x in page_text(results).splitlines() if x.startswith("| `</script>")][-1:]
    assert line.replace("\\|", "").count("|") == 14


@pytest.mark.slow
def test_the_page_in_a_browser(tmp_path, tmp_path_factory):
    """It sorts, filters, draws, asks for nothing, and fits a phone."""
    path = tmp_path / "index.html"
    first, second = sample("a", family="linear"), sample("b")["receivers"]
    first["receivers"] |= second
    first["receivers"]["b"]["at"]["0.1"] |= {"snr_db": 1.0, "low": 0.5, "high": 1.5}
    path.write_text(web_page({"one": first, "two": sample("c")}))
    with windows(lambda: tmp_path_factory.mktemp("profile")) as window:
        for width, touch in ((1280, False), (390, True)):
            found = Page(window(width, 900, touch), path)
            shown = found.page.locator("tbody tr:visible th")
            assert shown.all_text_contents() == ["●b", "●a"]  # the best is first
            assert found.page.locator("section:visible circle").count() == 2
            found.page.get_by_role("button", name="Receiver").first.click()
            assert shown.all_text_contents() == ["●a", "●b"]
            found.page.locator('[data-family="linear"]').first.click()
            assert shown.all_text_contents() == ["●b"]
            assert found.page.locator("section:visible circle").count() == 1
            found.page.select_option("#track", "two")
            assert shown.all_text_contents() == ["●c"]
            found.page.select_option("#track", "")
            assert shown.all_text_contents() == ["●b", "●c"]
            found.page.select_option("#axis", "flops")
            assert "No receiver has this cost." in found.page.content()
            assert found.fits() and not found.complaints and len(found.requests) == 1


def sample(name, family="submitted"):
    """The contents of a track's file with one receiver."""
    at = dict.fromkeys(("snr_db", "low", "high", "gap_db", "gap_low", "gap_high", "rank"))
    row = {
        "family": family,
        "at": {"0.1": {**at, "snr_db": 2.0, "rank": 1}, "0.01": at},
        "points": [{"snr_db": 3.0}],
        "made": {"linksim": "1", "git_commit": None, "machine": {}},
        "trained": "",
        **dict.fromkeys(("information", "factor", "us_ratio", "flops", "kb")),
        "block_ratio": 1.5,
        "passes": 1,
    }
    track = {
        **dict.fromkeys(("title", "description", "definition", "bound", "bound_is"), "x"),
        **{"version": 1, "blocks": 5, "few": [], "few_blocks": 1, "snr_db": 2.0, "absent": {}},
    }
    return json.loads(json.dumps({"track": track, "receivers": {name: row}}))
