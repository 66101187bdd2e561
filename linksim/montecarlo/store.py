"""Raw counts on disk: one JSON line per batch of a point, only ever appended.

The first line says which draws the counts belong to; files of earlier versions have only a
fingerprint of them. Each line is written by one `write`
call and flushed to disk, so a kill leaves at most an incomplete last line, which the next
start drops. Nothing in the file is ever rewritten. Each line ends with a checksum of
itself, so that a number that was changed on disk is noticed.
"""

import json
import os
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np

from linksim.errors import ResultFileError
from linksim.files import differences, make_folder, set_aside
from linksim.locks import FileLock
from linksim.montecarlo.statistics import Counts
from linksim.names import name_of_key
from linksim.notices import announce

FORMAT = "linksim-counts-1"
_FIELDS = tuple(vars(Counts()))


class BatchResult(NamedTuple):
    """One detector on one batch: its counts, and which blocks failed."""

    counts: Counts
    failed: np.ndarray  # bool [blocks]
    # With HARQ, whether blocks had failed after each transmission but the last, bool [blocks]
    earlier: tuple[np.ndarray, ...] = ()


class CountStore:
    """Counts of one scenario and seed.

    Args:
        path: the file, created with its folder if missing; None keeps the counts
            in memory only.
        identity: dictionary that says which draws these are (fingerprint, seed,
            batch size); an existing file must carry the same.
        drawn: what the fingerprint is of, for the message that says what differs.
        fresh: set an existing file aside, under a new name, and start anew.
        keys: {detector: its name in the file}, for detectors whose results depend on more
            than their name, such as trained weights.

    Raises:
        ResultFileError: the file is corrupted, belongs to other draws, is being written to
            by another process, or cannot be written. It is left as it is.
    """

    def __init__(self, path, identity, fresh=False, keys=None, drawn=None):
        self._path = None if path is None else Path(path)
        self._identity = {"format": FORMAT, **identity}
        # As JSON has it, which knows no tuples
        self._drawn = json.loads(json.dumps(drawn))
        self._keys = dict(keys or {})
        # {detector as the file names it: {snr_db: {batch: BatchResult}}}
        self._results = {}
        self._totals = {}  # {(detector as the file names it, snr_db): Counts}
        self._descriptor = self._lock = None
        if self._path is None:
            return
        make_folder(self._path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        flags |= getattr(os, "O_BINARY", 0)  # Windows would write other ends of lines
        try:
            if fresh and self._path.exists():
                set_aside(self._path)
            self._descriptor = os.open(self._path, flags, 0o644)
        except OSError as error:
            raise ResultFileError(f"{self._path}: cannot write ({error.strerror})") from None
        try:
            # Before reading, since another run's last line may still be growing
            self._lock = FileLock(self._path, self._descriptor)
            if os.fstat(self._descriptor).st_size:
                self._load()
            if os.fstat(self._descriptor).st_size == 0:
                self._write({**self._identity, **({"drawn": drawn} if drawn else {})})
        except BaseException:
            self.close()
            raise

    def _load(self):
        data = self._path.read_bytes()
        complete, _, torn = data.rpartition(b"\n")
        lines = complete.split(b"\n") if complete else []
        if not lines and not torn.startswith(b'{"format"'):
            raise ResultFileError(f"{self._path}: not a result file of linksim; kept as it is")
        for number, line in enumerate(lines, 1):
            try:
                if number == 1:
                    self._check_identity(line)
                else:
                    entry = json.loads(line)
                    for key, snr_db, batch, result in _parse(entry):
                        self._insert(key, snr_db, batch, result)
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                raise ResultFileError(
                    f"{self._path}: line {number} is corrupted ({error}); the file is "
                    "kept as it is, start anew with --fresh or in another folder"
                ) from None
        if torn:
            # A kill interrupted this write
            os.ftruncate(self._descriptor, len(data) - len(torn))

    def _check_identity(self, line):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if not isinstance(entry, dict) or entry.get("format") != FORMAT:
            raise ResultFileError(
                f"{self._path}: not a result file of linksim (or of another version); "
                "kept as it is"
            )
        before = {key: entry.get(key) for key in self._identity}
        if before != self._identity:
            now, drawn = dict(self._identity), entry.get("drawn")
            if isinstance(drawn, dict) and self._drawn and drawn != self._drawn:
                # These say what the fingerprints only hint at, and hold the batch size
                before, now = ({**i, **d} for i, d in ((before, drawn), (now, self._drawn)))
                del before["fingerprint"], now["fingerprint"]
            raise ResultFileError(
                f"{self._path}: holds counts of other draws: {differences(before, now)}; the "
                "file is kept as it is, use --fresh or another output folder"
            )

    def _insert(self, key, snr_db, batch, result):
        point = self._results.setdefault(key, {}).setdefault(snr_db, {})
        if batch in point:
            raise ValueError(f"batch {batch} of {key} at {snr_db} dB stands twice")
        point[batch] = result
        total = self._totals.get((key, snr_db), Counts())
        self._totals[key, snr_db] = total + result.counts

    def _key(self, detector):
        """What the file calls a detector of this run; any other name is its own already."""
        return self._keys.get(detector, detector)

    def _points(self, detector):
        return self._results.get(self._key(detector), {})

    def append(self, snr_db, batch, results):
        """Add {detector: `BatchResult`} of one batch, all of them or none."""
        results = {self._key(name): r for name, r in results.items()}
        if self._path is not None:
            packed = {
                key: [*r.counts.astuple(), *map(_packed, (r.failed, *r.earlier))]
                for key, r in results.items()
            }
            entry = [snr_db, batch, packed]
            self._write([*entry, _checksum(entry)])
        for key, result in results.items():
            self._insert(key, snr_db, batch, result)

    def _write(self, entry):
        if self._descriptor is None:
            raise ResultFileError(f"{self._path}: already closed")
        data = (json.dumps(entry) + "\n").encode()
        size = os.fstat(self._descriptor).st_size
        try:
            written = os.write(self._descriptor, data)
            if written != len(data):
                raise OSError(f"{written} of {len(data)} bytes written")
            os.fsync(self._descriptor)
        except OSError as error:
            # A full disk may have taken part of the line
            os.ftruncate(self._descriptor, size)
            raise ResultFileError(f"{self._path}: cannot write ({error})") from error

    def get(self, detector, snr_db, batch):
        """The `BatchResult` of one batch, or None."""
        return self._points(detector).get(snr_db, {}).get(batch)

    def total(self, detector, snr_db):
        """Sum of the `Counts` of all batches."""
        return self._totals.get((self._key(detector), snr_db), Counts())

    def failed(self, detector, snr_db):
        """Whether each block failed, bool [blocks], in the order of the draws."""
        results = self._points(detector).get(snr_db, {})
        return np.concatenate([results[b].failed for b in sorted(results)])

    def failed_after(self, detector, snr_db):
        """Whether each block had failed after each of its transmissions, bool [T, blocks].

        The last row is `failed`. A block that is decoded is not sent again and has not failed
        after any later one.
        """
        results = self._points(detector).get(snr_db, {})
        rows = [np.stack([*r.earlier, r.failed]) for _, r in sorted(results.items())]
        return np.concatenate(rows, axis=1)

    def points(self, detector):
        """SNR points in dB that hold counts, ascending."""
        return sorted(p for p, b in self._points(detector).items() if b)

    def detectors(self):
        """All detectors that have counts, as the file names them, in its order."""
        return list(self._results)

    def earlier(self, is_outdated=lambda name, key: False):
        """Detectors that have counts and are not of this run, in the order of the file.

        Where the weights of a detector changed, the latest ones count; and a detector of
        this run is never among them.

        Args:
            is_outdated: called with a detector and what it is called in the file. Where it
                is true, the name stands for another detector today; the counts are left
                out, and a line says so.

        Returns:
            {detector: what it is called in the file}; the other methods take the latter.
        """
        current, outdated = {}, {}
        for key in self._results:
            name = name_of_key(key)
            if name not in self._keys:
                (outdated if is_outdated(name, key) else current)[name] = key
        names = [name for name in outdated if name not in current]
        if names:
            announce(
                f"{self._path} has counts of earlier versions of {', '.join(names)}, which are "
                "left out; run these detectors again to have them"
            )
        return current

    def close(self):
        """Close the file."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.close()


def read_counts(path):
    """What a file of counts holds, read while a run may be writing to it.

    Args:
        path: the file.

    Returns:
        The identity of the draws, and a `CountStore` in memory, with detectors as the file
        names them.

    Raises:
        ResultFileError: the file is unreadable, corrupted or something else.
    """
    try:
        lines = Path(path).read_bytes().split(b"\n")[:-1]  # the last one may still be growing
    except OSError as error:
        raise ResultFileError(f"{path}: cannot read ({error.strerror})") from None
    store = CountStore(None, {})
    try:
        identity = json.loads(lines[0]) if lines else None
        if not isinstance(identity, dict) or identity.get("format") != FORMAT:
            raise ResultFileError(f"{path}: not a result file of linksim")
        for line in lines[1:]:
            for row in _parse(json.loads(line)):
                store._insert(*row)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ResultFileError(f"{path}: corrupted ({error})") from None
    return identity, store


def _packed(mask):
    return np.packbits(mask).tobytes().hex()


def _checksum(entry):
    return zlib.crc32(json.dumps(entry).encode())


def _parse(entry):
    """(detector, snr_db, batch, BatchResult) of each detector in a line."""
    # Earlier versions wrote lines without a checksum
    snr_db, batch, packed, *checksum = entry
    if checksum and checksum != [_checksum(entry[:3])]:
        raise ValueError("its checksum is wrong")
    if not isinstance(batch, int) or batch < 0:
        raise ValueError(f"batch {batch!r}")
    rows = []
    for detector, row in packed.items():
        values, masks = row[: len(_FIELDS)], row[len(_FIELDS) :]
        if not masks:
            raise ValueError(f"{len(values) - 1} counts, expected {len(_FIELDS)}")
        for name, value in zip(_FIELDS[:-1], values):
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name} {value!r}")
        counts = Counts(*values)
        failed, *earlier = (_unpacked(mask, counts.blocks) for mask in masks)
        if failed.sum() != counts.block_errors:
            raise ValueError("block errors and failed blocks differ")
        for before, after in zip(earlier, [*earlier[1:], failed]):
            if (after & ~before).any():
                raise ValueError("a block failed after it was decoded")
        if counts.bit_errors > counts.bits or counts.symbol_errors > counts.symbols:
            raise ValueError("more errors than trials")
        rows.append(
            (detector, float(snr_db), batch, BatchResult(counts, failed, tuple(earlier)))
        )
    return rows


def _unpacked(text, blocks):
    mask = np.unpackbits(np.frombuffer(bytes.fromhex(text), np.uint8)).astype(bool)[:blocks]
    if len(mask) != blocks:
        raise ValueError("block errors and failed blocks differ")
    return mask
