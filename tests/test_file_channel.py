"""Channels from files: what is read, in which order, and what is refused."""

import h5py
import numpy as np
import pytest

from linksim.channels import create_channel
from linksim.channels.file import _opened
from linksim.errors import InvalidInput
from linksim.link.link import Link
from linksim.link.scenario import load_scenario, scenario_from_dict
from linksim.montecarlo.engine import simulate
from linksim.training.source import TRAINING, VectorSource

N, M, K = 7, 4, 2
FLAT = {
    "system": {"num_rx": M, "num_streams": K, "num_bits_per_symbol": 2},
    "code": {"type": "none", "uses_per_block": 3},
    "snr": {"definition": "rx", "points": [10]},
    "run": {"detectors": ["mmse"], "batch_size": 5},
}
KEY = np.array([1, 2], np.int32)


def channels(rng, *shape, power=4.0, dtype=np.complex64):
    h = rng.normal(size=(*shape, M, K)) + 1j * rng.normal(size=(*shape, M, K))
    return (h * np.sqrt(power / 2)).astype(dtype)


def with_channel(data, **channel):
    return scenario_from_dict({**data, "channel": {"type": "file", **channel}})


def write(folder, h, kind):
    """A file of a kind, and its keys."""
    path = folder / f"h.{kind.split()[0]}"
    if kind == "npy":
        np.save(path, h)
    elif kind == "npy fortran":
        path = path.with_suffix(".npy")
        np.save(path, np.asfortranarray(h))
    elif kind.startswith("npz"):
        save = np.savez_compressed if "compressed" in kind else np.savez
        save(path, other=np.zeros(3), h=h)
    else:
        with h5py.File(path, "w") as file:
            file["a/h"] = h
            file["other"] = np.zeros(3)
    return path, {"npz": "h", "h5": "a/h", "hdf5": "a/h"}.get(kind.split()[0], "")


KINDS = ("npy", "npy fortran", "npz", "npz compressed", "h5", "hdf5")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(N,), (N, 3)])
def test_blocks_take_entries_without_replacement(rng, tmp_path, kind, shape):
    h = channels(rng, *shape)
    path, key = write(tmp_path, h, kind)
    channel = create_channel("file", M, K, path=str(path), key=key)
    assert channel.num_entries == N
    assert channel.power == pytest.approx(np.mean(np.abs(h) ** 2), rel=1e-5)
    drawn = np.asarray(channel.sample(KEY, N, 2))
    assert drawn.shape == (N, 2, M, K) and drawn.dtype == np.complex64
    expected = h[:, :2] if len(shape) == 2 else np.repeat(h[:, None], 2, axis=1)
    order = [int(np.argmin(np.abs(expected - d).sum((1, 2, 3)))) for d in drawn]
    assert sorted(order) == list(range(N)) != order
    np.testing.assert_array_equal(drawn, expected[order])
    # Wherever a batch begins, whatever its key, and again from the start
    later = np.asarray(channel.sample(KEY + 1, 6, 2, first_block=N + 3))
    np.testing.assert_array_equal(later, drawn[(3 + np.arange(6)) % N])
    other = create_channel("file", M, K, path=str(path), key=key, order_seed=1)
    assert not np.array_equal(other.sample(KEY, N, 2), drawn)


def test_large_files_stay_on_disk(rng, tmp_path):
    for kind in KINDS:
        path, key = write(tmp_path, channels(rng, N), kind)
        array, _ = _opened(path, key, path.stat().st_mtime_ns)
        on_disk = isinstance(array, (np.memmap, h5py.Dataset))
        assert on_disk == (kind != "npz compressed"), kind


def test_power_is_measured_or_asked_for(rng, tmp_path):
    path, _ = write(tmp_path, channels(rng, 3000, power=1e-9, dtype=np.complex128), "npy")
    channel = create_channel("file", M, K, path=str(path))
    assert channel.power == pytest.approx(1e-9, rel=0.05) and not channel.is_real
    scaled = create_channel("file", M, K, path=str(path), power=0.5)
    assert scaled.power == 0.5
    drawn = np.asarray(scaled.sample(KEY, 3000, 1))
    assert np.mean(np.abs(drawn) ** 2) == pytest.approx(0.5, rel=1e-4)
    # N0 follows the file where the definition does
    links = [Link(with_channel(FLAT, path=str(path), power=p)) for p in (0.0, 0.5)]
    no = [link.no(10.0) for link in links]
    assert no[0] / channel.power == pytest.approx(no[1] / 0.5)
    assert any("3000 entries" in line for line in links[0].channel.describe())
    np.save(path, channels(rng, 5).real.astype(np.complex64))
    assert create_channel("file", M, K, path=str(path)).is_real


def test_a_run_counts_the_blocks_of_the_file(rng, tmp_path):
    """A batch is a function of its number, and the file's name is no part of a result."""
    path, _ = write(tmp_path, channels(rng, 12), "npy")
    scenario = with_channel(FLAT, path=str(path))
    link = Link(scenario)
    first, second = (
        np.asarray(link.draw(link.keys(0, 10.0, b), link.no(10.0), 5 * b, 5).h) for b in (0, 1)
    )
    all_blocks = np.asarray(link.channel.sample(KEY, 10, 3))
    np.testing.assert_array_equal(np.concatenate([first, second]), all_blocks)
    whole = simulate(scenario, snr_db=-3, max_blocks=20, target_block_errors=10**6)["records"][
        0
    ]
    assert whole["blocks"] == 20 and whole["symbol_errors"] > 0
    moved = tmp_path / "moved.npy"
    path.rename(moved)
    again = with_channel(FLAT, path=str(moved))
    assert again.fingerprint() == scenario.replace(channel={"path": str(moved)}).fingerprint()
    before = again.fingerprint()
    np.save(moved, channels(rng, 12))
    assert again.fingerprint() != before
    record = simulate(again, snr_db=-3, max_blocks=20, target_block_errors=10**6)["records"][0]
    assert record["symbol_errors"] != whole["symbol_errors"]


def test_slots_of_a_grid(rng, tmp_path):
    data = load_scenario("cdl-c-4x4-qam16-ls").to_dict()
    data["system"] |= {"num_rx": M, "num_streams": K}
    data["ofdm"] |= {"num_symbols": 3, "num_subcarriers": 4, "pilot_symbols": [1]}
    data["code"] = {"type": "none"}
    data["name"] = "mine"
    (tmp_path / "theirs").mkdir()
    h = channels(rng, N, 3, 4)
    path, _ = write(tmp_path, h, "npy")
    link = Link(with_channel(data, path=str(path)))
    batch = link.draw(link.keys(0, 20.0, 0), link.no(20.0), 0, N)
    drawn = np.asarray(batch.h)[:, 0]  # the first resource of each slot
    assert sorted(map(str, drawn)) == sorted(map(str, h[:, 0, 0]))
    for change, message in (
        ({"num_symbols": 4}, "expected \\[N, T, F, M, K\\] with the T = 4"),
        ({"num_subcarriers": 6}, "F = 6"),
    ):
        # Nothing is drawn: descriptions of a scenario refuse it, too
        with pytest.raises(InvalidInput, match=f"scenario mine: channel.path: .*{message}"):
            Link(with_channel({**data, "ofdm": data["ofdm"] | change}, path=str(path)))
    other, _ = write(tmp_path / "theirs", channels(rng, N, 3, 6), "npy")
    theirs = {"interference": {"num_streams": K, "channel": {"path": str(other)}}}
    with pytest.raises(InvalidInput, match="mine: interference: channel.path: .*F = 4"):
        Link(with_channel({**data, **theirs}, path=str(path)))
    with pytest.raises(InvalidInput, match="has OFDM slots, of shape \\[7, 3, 4, 4, 2\\]"):
        Link(with_channel(FLAT, path=str(path)))


def test_training_draws_other_entries_in_every_batch(rng, tmp_path):
    h = channels(rng, 500)
    path, _ = write(tmp_path, h, "npy")
    scenario = with_channel(
        {**FLAT, "snr": {"definition": "esno", "points": [10]}}, path=str(path)
    )
    source = VectorSource(scenario, (5, 10), 20, seed=1)
    batches = [np.asarray(source.draw(source.keys(TRAINING, i))["h"]) for i in range(3)]
    known = {entry.tobytes() for entry in h}
    assert all(entry.tobytes() in known for batch in batches for entry in batch)
    assert len({batch.tobytes() for batch in batches}) == 3
    again = VectorSource(scenario, (5, 10), 20, seed=1)
    np.testing.assert_array_equal(again.draw(again.keys(TRAINING, 2))["h"], batches[2])
    # A few entries for networks of one channel each
    fixed = VectorSource(scenario, (5, 10), 20, seed=1, num_channels=4).channels
    assert {entry.tobytes() for entry in fixed} <= known


def test_fixed_channels_of_a_file(rng, tmp_path):
    path, _ = write(tmp_path, channels(rng, N), "npy")
    (tmp_path / "mine.toml").write_text(
        "[system]\nnum_rx = 4\nnum_streams = 2\nnum_bits_per_symbol = 2\n"
        '[channel]\ntype = "fixed"\nof = "file"\nnum_channels = 3\noptions = {path = "h.npy"}\n'
        '[snr]\ndefinition = "rx"\npoints = [3]\n[run]\ndetectors = ["mmse"]\n'
    )
    scenario = load_scenario(tmp_path / "mine.toml")
    assert scenario.channel["options"]["path"] == str(path)
    assert Link(scenario).channel.channels.shape == (3, M, K)
    before = scenario.fingerprint()
    path.rename(tmp_path / "other.npy")
    moved = scenario.replace(channel={"options": {"path": str(tmp_path / "other.npy")}})
    assert moved.fingerprint() == before


def test_slots_are_those_of_the_pusch_table(rng, tmp_path):
    data = load_scenario("pusch-cdl-c-4x2-mcs14").to_dict()
    data |= {"pusch": {"num_prbs": 1}, "csi": {"type": "lmmse"}}
    for shape, message in (
        ((14, 24), "T = 14 symbols and F = 12 subcarriers of a slot"),
        ((13, 12), "T = 14 symbols and F = 12"),
        ((), "has the shape \\[7, 4, 2\\], expected \\[N, T, F, M, K\\]"),
    ):
        path, _ = write(tmp_path, channels(rng, N, *shape), "npy")
        with pytest.raises(InvalidInput, match=message):
            Link(with_channel(data, path=str(path), num_users=2))


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_a_stream_that_is_silent_is_estimated_as_such(rng, tmp_path):
    data = load_scenario("pusch-cdl-c-4x2-mcs14").to_dict()
    data |= {"pusch": {"num_prbs": 1}, "csi": {"type": "lmmse", "spatial": True}}
    h = np.broadcast_to(channels(rng, N, 1, 1), (N, 14, 12, M, K)) * np.float32([1, 0])
    path, _ = write(tmp_path, h, "npy")
    link = Link(with_channel(data, path=str(path), num_users=2))
    y = np.einsum("btfmk,ktf->btfm", h, link.front.pilots)
    found = link.front.estimator.estimate(y, 1e-3).numpy()
    np.testing.assert_allclose(found, h, atol=0.05)


def bad_files(folder, rng):
    """(keys, what the message says) of files that are wrong."""
    good = channels(rng, N)

    def saved(name, array):
        np.save(folder / f"{name}.npy", array)
        return {"path": str(folder / f"{name}.npy")}

    holes = good.copy()
    holes[5, 1, 1] = np.nan
    yield saved("holes", holes), "holes.npy: entry 5, counted from 0, has NaN or inf"
    yield saved("real", good.real), "real.npy: has the type float32, expected complex64"
    yield saved("objects", np.array([{}])), "objects.npy: cannot be read .*Python objects"
    yield saved("empty", good[:0]), "empty.npy: is empty, of shape \\[0, 4, 2\\]"
    yield saved("zeros", 0 * good), "zeros.npy: has a mean energy of 0"
    yield saved("flat", good[0]), "flat.npy: has the shape \\[4, 2\\], expected \\[N, M, K\\]"
    turned = good.transpose(0, 2, 1)
    yield (
        saved("turned", turned),
        "the shape \\[7, 2, 4\\], expected .* M = 4 antennas and K = 2",
    )
    yield (
        {**saved("good", good), "key": "h"},
        "channel.key: got 'h', expected none: .* one array",
    )
    np.savez(folder / "two.npz", a=good, b=good)
    two = {"path": str(folder / "two.npz")}
    yield two, "channel.key: missing, expected one of the arrays in .*two.npz: a, b"
    yield {**two, "key": "c"}, "channel.key: got 'c', expected one of the arrays"
    np.savez(folder / "objects.npz", a=np.array([{}]))
    yield {"path": str(folder / "objects.npz")}, "objects.npz: cannot be read .*Python objects"
    with h5py.File(folder / "none.h5", "w"):
        pass
    yield {"path": str(folder / "none.h5")}, "channel.key: missing, .*none.h5: none"
    with h5py.File(folder / "without.h5", "w") as file:
        file["h"] = h5py.Empty(good.dtype)
    yield {"path": str(folder / "without.h5")}, "without.h5: is empty, of shape \\[\\]"
    huge = good.astype(complex) * 1e200
    yield saved("huge", huge), "huge.npy: has a mean energy of inf"
    with h5py.File(folder / "summed.h5", "w") as file:
        file.create_dataset("h", data=good, fletcher32=True)
    np.savez(folder / "summed.npz", h=good)
    for kind in ("npz", "h5"):
        content = bytearray((folder / f"summed.{kind}").read_bytes())
        content[content.index(good[2].tobytes())] ^= 255
        (folder / f"summed.{kind}").write_bytes(content)
        yield {"path": str(folder / f"summed.{kind}")}, f"summed.{kind}: cannot be read"
    for kind in ("npy", "npz", "h5"):
        (folder / f"junk.{kind}").write_bytes(b"junk")
        yield {"path": str(folder / f"junk.{kind}")}, f"junk.{kind}: cannot be read"
    (folder / "h.txt").write_text("1")
    yield {"path": str(folder / "h.txt")}, "h.txt, expected one of \\*.npy, \\*.npz, \\*.h5, "
    yield {"path": str(folder / "nosuch.npy")}, "channel.path: cannot read .*no such file"
    yield {"path": str(folder)}, "channel.path: cannot read .*no such file"
    yield {}, "channel.path: missing"
    yield {"path": 3}, "channel.path: got 3, expected a path"
    fine = saved("fine", good)
    yield {**fine, "order_seed": -1}, "channel.order_seed: got -1"
    yield {**fine, "power": -1.0}, "channel.power: got -1.0"
    yield {**fine, "power": 1e-60}, "channel.power: got 1e-60"
    yield {**fine, "num_users": 3}, "channel.num_users: got 3"


@pytest.mark.filterwarnings("error::RuntimeWarning")
def test_what_is_wrong_is_named(rng, tmp_path):
    count = 0
    for keys, message in bad_files(tmp_path, rng):
        with pytest.raises(InvalidInput, match=message):
            create_channel("file", M, K, **keys)
        count += 1
    assert count > 20
    path, _ = write(tmp_path, channels(rng, N, 2), "npy")
    with pytest.raises(InvalidInput, match="has 2 channel uses for a block, expected the 3"):
        simulate(with_channel(FLAT, path=str(path)))
