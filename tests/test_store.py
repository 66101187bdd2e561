"""The result store: atomic appends, torn lines, foreign and corrupted files."""

import json

import numpy as np
import pytest

from linksim.errors import ResultFileError
from linksim.link.scenario import list_scenarios, load_scenario
from linksim.montecarlo.store import CountStore
from tests.small_runs import IDENTITY, result


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "deep" / "counts.jsonl"
    with CountStore(path, IDENTITY) as store:
        store.append(3.0, 0, {"a": result(4), "b": result(2)})
        store.append(3.0, 1, {"a": result(1)})
    return path


def test_round_trip_and_extension(path):
    with CountStore(path, IDENTITY) as store:
        assert store.total("a", 3.0) == result(4).counts + result(1).counts
        assert store.total("b", 3.0) == result(2).counts
        assert store.failed("a", 3.0).sum() == 5 and len(store.failed("a", 3.0)) == 20
        assert store.points("a") == [3.0] and store.points("c") == []
        store.append(4.0, 0, {"a": result(0)})
        with pytest.raises(ValueError, match="stands twice"):
            store.append(4.0, 0, {"a": result(0)})
    with pytest.raises(ResultFileError, match="stands twice"):
        CountStore(path, IDENTITY)


def test_torn_last_line_is_dropped_at_every_length(path):
    whole = path.read_bytes()
    lines = whole.splitlines(keepends=True)
    for cut in range(len(lines[0]) + len(lines[1]), len(whole)):
        path.write_bytes(whole[:cut])
        with CountStore(path, IDENTITY) as store:
            assert store.total("b", 3.0) == result(2).counts
            assert store.total("a", 3.0) == result(4).counts
            store.append(3.0, 1, {"a": result(1)})
        assert path.read_bytes() == whole
    # Even the first line may be torn
    path.write_bytes(lines[0][:20])
    with CountStore(path, IDENTITY) as store:
        assert store.points("a") == []


def corrupted(text):
    lines = text.splitlines()
    yield "line 2", text.replace('"a": [10, 4', '"a": [10, 3', 1)  # mask says 4
    yield "line 2", text.replace('"a": [10, 4, 1000, 28', '"a": [10, 4, 1000, -28', 1)
    yield "line 2", text.replace('"a": [10, 4, 1000, 28', '"a": [10, 4, 1000, 2800', 1)
    yield "line 2", lines[0] + "\n" + lines[1][:-5] + "\n" + lines[2] + "\n"
    yield "line 2", lines[0] + "\n\x00\n" + lines[2] + "\n"
    yield "not a result file", "detector,snr\nmmse,3\n"
    yield "not a result file", "hello"
    yield "seed 1, now 0", text.replace('"seed": 0', '"seed": 1', 1)
    yield 'fingerprint "xyz", now "abc"', text.replace("abc", "xyz", 1)


def test_corrupted_and_foreign_files_are_kept(path):
    for message, text in corrupted(path.read_text()):
        assert text != path.read_text() or message == ""
        broken = path.with_name("broken.jsonl")
        broken.write_text(text)
        with pytest.raises(ResultFileError, match=message):
            CountStore(broken, IDENTITY)
        assert broken.read_text() == text
        with CountStore(broken, IDENTITY, fresh=True) as store:
            assert store.points("a") == []
        assert any(p.read_text() == text for p in path.parent.glob("broken.jsonl.*.old"))
        broken.unlink()


def test_a_refusal_says_which_keys_differ(tmp_path):
    """Whatever key of whatever scenario it is."""
    for name in list_scenarios():
        base = load_scenario(name)
        path = tmp_path / name
        CountStore(path, identity(base), drawn=base.drawn()).close()
        other = base.replace(title="a title changes no draw", run={"max_blocks": 3})
        CountStore(path, identity(other), drawn=other.drawn()).close()
        for table, key, value in (
            ("system", "num_rx", 99),
            ("run", "batch_size", 33),
            ("snr", "definition", "frobenius"),
        ):
            drawn = {"run": "batch_size", "snr": "snr_definition"}.get(table, f"{table}.{key}")
            was, now = json.dumps(getattr(getattr(base, table), key)), json.dumps(value)
            other = base.replace(**{table: {key: value}})
            with pytest.raises(ResultFileError) as refused:
                CountStore(path, identity(other), drawn=other.drawn())
            assert f"of other draws: {drawn} {was}, now {now}; the file" in str(refused.value)


def identity(scenario):
    size = scenario.run.batch_size
    return {"fingerprint": scenario.fingerprint(), "seed": 0, "batch_size": size}


def test_detectors_of_earlier_runs(tmp_path):
    path, old, new = tmp_path / "counts.jsonl", "c@0123456789ab", "c@ba9876543210"
    for keys in ({"a": "a", "b@mine": "b@mine"}, {"c": old}, {"c": new}):
        with CountStore(path, IDENTITY, keys=keys) as store:
            store.append(3.0, 0, dict.fromkeys(keys, result(4)))
    with CountStore(path, IDENTITY, keys={"a": "a"}) as store:
        # Of two weights, the later ones
        assert store.earlier() == {"b@mine": "b@mine", "c": new}
        assert store.total(new, 3.0) == result(4).counts
    with CountStore(path, IDENTITY, keys={"c": old}) as store:
        assert store.earlier() == {"a": "a", "b@mine": "b@mine"}


def test_counts_under_the_name_alone_are_not_those_of_a_key(tmp_path, caplog):
    """As of a detector that has changed since."""
    path, key = tmp_path / "counts.jsonl", "ep@0123456789ab"
    with CountStore(path, IDENTITY) as store:
        store.append(3.0, 0, {"ep": result(4), "a": result(1)})
    for known in (0, 1):
        with CountStore(path, IDENTITY, keys={"ep": key}) as store:
            assert store.points("ep") == [3.0] * known and store.earlier() == {"a": "a"}
            if not known:
                store.append(3.0, 0, {"ep": result(2)})
            assert store.total("ep", 3.0) == result(2).counts
            assert store.failed("ep", 3.0).sum() == 2
    with CountStore(path, IDENTITY, keys={"b": "b"}) as store:
        assert store.earlier(lambda name, k: name == "ep" != k != key) == {"a": "a", "ep": key}
        assert store.earlier(lambda name, k: name == k == "ep") == {"a": "a", "ep": key}
        assert not caplog.messages
        assert store.earlier(lambda name, k: name == "ep") == {"a": "a"}
    (line,) = caplog.messages
    assert f"{path} has counts of earlier versions of ep, which are left out" in line


def test_what_had_failed_before_it_was_sent_again(tmp_path):
    path, failed = tmp_path / "counts.jsonl", result(4).failed
    earlier = np.arange(10) < 8, np.arange(10) < 5
    with CountStore(path, IDENTITY) as store:
        store.append(3.0, 1, {"a": result(4)._replace(earlier=earlier)})
        store.append(3.0, 0, {"a": result(2)._replace(earlier=earlier), "b": result(1)})
    with CountStore(path, IDENTITY) as store:
        after = store.failed_after("a", 3.0)
        assert after.shape == (3, 20) and after.sum(axis=1).tolist() == [16, 10, 6]
        np.testing.assert_array_equal(after[:, 10:], [*earlier, failed])
        np.testing.assert_array_equal(after[-1], store.failed("a", 3.0))
        assert store.failed_after("b", 3.0).shape == (1, 10)
        # A block that is decoded is not sent again
        store.append(4.0, 0, {"a": result(4)._replace(earlier=(~failed, earlier[1]))})
    with pytest.raises(ResultFileError, match="line 4 is .* .a block failed after it"):
        CountStore(path, IDENTITY)


def test_two_writers_are_refused(path):
    with CountStore(path, IDENTITY):
        with pytest.raises(ResultFileError, match="another run"):
            CountStore(path, IDENTITY)


def test_failed_write_leaves_no_trace(path, monkeypatch):
    import os

    before = path.read_bytes()
    with CountStore(path, IDENTITY) as store:
        write = os.write
        monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[: len(data) // 2]))
        with pytest.raises(ResultFileError, match="cannot write"):
            store.append(5.0, 0, {"a": result(3)})
        monkeypatch.undo()
        assert store.points("a") == [3.0]
    assert path.read_bytes() == before


def test_file_is_json_lines(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[0]["format"] == "linksim-counts-1"
    assert rows[1][:2] == [3.0, 0] and set(rows[1][2]) == {"a", "b"}
