"""Files that are never half written, and that are checked when they are read."""

from __future__ import annotations

import errno
import functools
import hashlib
import io
import json
import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from linksim.errors import InvalidInput, ResultFileError, check_line
from linksim.notices import announce

_HEADER = "header.json"
_CHECKSUM = "checksum"
# Marks a value as a checksum, so that it is recognised even if its key was edited
_KIND = "sha256:"


def as_path(name: str, value: Any) -> Path:
    """The path that an argument gives.

    Raises:
        InvalidInput: it is no text or path.
    """
    text = os.fspath(value) if isinstance(value, os.PathLike) else value
    if not isinstance(text, str) or "\0" in text:
        raise InvalidInput(f"{name}: got {value!r}, expected a path")
    return Path(text)


def path_text(name: str, value: Any) -> str:
    """The text of a path that a key of a scenario gives; "" stays "", for none.

    Raises:
        InvalidInput: it is no text or path, or has control characters.
    """
    if value == "" and isinstance(value, str):
        return ""
    text = str(as_path(name, value))
    check_line(name, text)
    return text


def stamp(name: str, path: Path) -> tuple[int, int]:
    """Size and time of change of a file, by which a changed file is known.

    Args:
        name: the argument or key that an error names.
        path: of the file.

    Raises:
        InvalidInput: there is no such file.
    """
    try:
        if not path.is_file():
            raise FileNotFoundError(errno.ENOENT, "there is no such file")
        status = path.stat()
    except OSError as error:
        raise InvalidInput(f"{name}: cannot read {path}: {error.strerror}") from None
    return status.st_size, status.st_mtime_ns


def file_hash(name: str, path: str | Path) -> str:
    """SHA-256 of what a file holds; a file that has not changed is read once.

    Args:
        name: the argument or key that an error names.
        path: of the file.

    Raises:
        InvalidInput: the file cannot be read.
    """
    path = as_path(name, path)
    try:
        return _hash_of(path.absolute(), stamp(name, path))
    except OSError as error:
        raise InvalidInput(f"{name}: cannot read {path}: {error.strerror}") from None


@functools.lru_cache(maxsize=64)
def _hash_of(path, _):
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(2**20):
            digest.update(part)
    return digest.hexdigest()


def write_atomically(path: str | Path, data: str | bytes) -> None:
    """Write text or bytes to a file in one step, so that it is never half written.

    Raises:
        ResultFileError: the file cannot be written, because the disk is full for
            instance; an older file is left as it is.
    """
    path = Path(path)
    if isinstance(data, str):
        # Names of files and arguments can hold bytes that are no text
        data = data.encode("utf-8", errors="backslashreplace")
    temporary = None
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException as error:
        if temporary is not None:
            os.unlink(temporary)
        if isinstance(error, OSError):
            raise ResultFileError(f"{path}: cannot write ({error.strerror})") from error
        raise


def make_folder(path: str | Path) -> None:
    """Create a folder, and those above it, where they are missing.

    Raises:
        ResultFileError: there is a file in its place, or it is not writable.
    """
    try:
        Path(path).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ResultFileError(
            f"{path}: cannot create this folder ({error.strerror})"
        ) from None


def check_folder(path: str | Path, what: str) -> None:
    """Check that files can be written into a folder, or that it could be created; nothing is
    created.

    Args:
        path: of the folder.
        what: the argument that errors name.

    Raises:
        ResultFileError: there is a file in its place, or it is not writable.
    """
    try:
        above = Path(path).absolute()
        while not above.exists():
            above = above.parent
        if not above.is_dir():
            raise ResultFileError(f"{what}: {above} is a file, expected a folder")
        if not os.access(above, os.W_OK | os.X_OK):
            raise ResultFileError(f"{what}: cannot write into {above}")
    except OSError as error:  # a name that is too long, a folder that may not be read
        raise ResultFileError(f"{what}: cannot write to {path} ({error.strerror})") from None


def set_aside(path: Path) -> None:
    """Rename a file or folder to `<name>.<number>.old`, so that nothing is lost, and say
    so."""
    number = 1
    while (target := path.with_name(f"{path.name}.{number}.old")).exists():
        number += 1
    os.replace(path, target)
    announce(f"{path} already existed and was renamed to {target}")


def json_hash(data: Any) -> str:
    """Checksum "sha256:..." of what JSON can hold; the order of the keys does not matter."""
    # A round trip through JSON turns all keys into texts and tuples into lists
    text = json.dumps(json.loads(json.dumps(data)), sort_keys=True)
    return _KIND + hashlib.sha256(text.encode()).hexdigest()


def differences(before: dict[str, Any], now: dict[str, Any], most: int = 6) -> str:
    """Which keys of two nested dictionaries differ and how, for a message.

    Args:
        before, now: what a file says, and what this run has.
        most: the keys to name at most.

    Example:
        >>> before = {"code": {"type": "5g", "num_info_bits": 960}, "seed": 0}
        >>> differences(before, {"code": {"type": "5g", "num_info_bits": 480}})
        'code.num_info_bits 960, now 480; seed 0, now missing'
    """
    old, new = _flat(before), _flat(now)
    texts = [
        f"{key} {_shown(old, key)}, now {_shown(new, key)}"
        for key in dict.fromkeys([*old, *new])
        if key not in old or key not in new or old[key] != new[key]
    ]
    if len(texts) > most:
        texts = [*texts[:most], f"and {len(texts) - most} more"]
    return "; ".join(texts)


def _flat(data, prefix=""):
    """{"a.b": value} of {"a": {"b": value}}."""
    flat = {}
    for key, value in data.items():
        if isinstance(value, dict) and value:
            flat.update(_flat(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _shown(flat, key):
    return json.dumps(flat[key], default=str, ensure_ascii=False) if key in flat else "missing"


def save_json(path: str | Path, data: dict[str, Any]) -> None:
    """Write a dictionary to a JSON file in one step, together with its checksum.

    Raises:
        InvalidInput: `data` has a key "checksum".
        ResultFileError: the file cannot be written.
    """
    if _CHECKSUM in data:
        raise InvalidInput(f"data: got a key {_CHECKSUM!r}, which the file itself needs")
    text = json.dumps({**data, _CHECKSUM: json_hash(data)}, indent=1)
    write_atomically(path, text + "\n")


def load_json(path: str | Path, **kinds: type[Any]) -> dict[str, Any]:
    """Read what `save_json` wrote, and check it.

    Files that are older than the checksum are read as they are.

    Args:
        path: of the file.
        kinds: keys that it has to have, with their types.

    Returns:
        The dictionary, without its checksum.

    Raises:
        ResultFileError: the file is missing, truncated, edited or something else.
    """
    path = Path(path)
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultFileError(f"{path}: cannot be read ({error.strerror})") from None
    except (ValueError, RecursionError) as error:
        raise ResultFileError(f"{path}: not a JSON file, or damaged ({error})") from None
    if not isinstance(data, dict):
        raise ResultFileError(f"{path}: holds a {type(data).__name__}, expected a dictionary")
    checksum = data.pop(_CHECKSUM, None)
    lost = any(isinstance(v, str) and v.startswith(_KIND) for v in data.values())
    if lost or (checksum is not None and checksum != json_hash(data)):
        raise ResultFileError(f"{path}: was edited, or is damaged: its checksum is wrong")
    check_kinds(path, data, **kinds)
    return data


def check_kinds(path: str | Path, data: Mapping[str, Any], **kinds: type[Any]) -> None:
    """Raise `ResultFileError` unless what a file holds has these keys, of these types."""
    for key, kind in kinds.items():
        if not isinstance(data.get(key), kind):
            raise ResultFileError(f"{path}: not a result file of linksim: no {key}")


def check_rows(path: str | Path, rows: Sequence[Any], keys: Collection[str]) -> None:
    """Raise `ResultFileError` unless all rows of a file are dictionaries with these keys."""
    for number, row in enumerate(rows):
        if not isinstance(row, dict) or not set(keys) <= set(row):
            raise ResultFileError(
                f"{path}: row {number}, counted from 0, is none of linksim, expected one with "
                f"{', '.join(keys)}"
            )


def arrays_hash(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of named arrays: their names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_arrays(
    path: str | Path, arrays: Mapping[str, np.ndarray], header: dict[str, Any]
) -> str:
    """Write named arrays and a header to one `.npz` file, in one step.

    Args:
        path: the file; its folder is created.
        arrays: {name: array of numbers}.
        header: a dictionary that JSON can hold.

    Returns:
        The SHA-256 of the arrays, which is also in the file.
    """
    path = Path(path)
    make_folder(path.parent)
    digest = arrays_hash(arrays)
    stored = {"header": header, "sha256": digest, _CHECKSUM: json_hash(header)}
    text = json.dumps(stored)
    buffer = io.BytesIO()
    coded = np.frombuffer(text.encode(), np.uint8)
    everything: dict[str, Any] = {**arrays, _HEADER: coded}
    np.savez_compressed(buffer, **everything)
    write_atomically(path, buffer.getvalue())
    return digest


def load_arrays(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any], str]:
    """Read what `save_arrays` wrote, and check it.

    Returns:
        {name: array}, the header, and the SHA-256 of the arrays.

    Raises:
        ResultFileError: the file is missing, truncated, edited or something else.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        stored = json.loads(arrays.pop(_HEADER).tobytes())
        header, digest = stored["header"], stored["sha256"]
        # Older files have no checksum of the header
        checksum = stored.get(_CHECKSUM, json_hash(header))
    except OSError as error:
        raise ResultFileError(f"{path}: cannot be read ({error})") from None
    except Exception as error:  # zlib, zipfile and NumPy raise a dozen kinds
        raise ResultFileError(f"{path}: not a file of linksim, or damaged ({error})") from None
    if arrays_hash(arrays) != digest:
        raise ResultFileError(f"{path}: its arrays are not those it was written with")
    if json_hash(header) != checksum:
        raise ResultFileError(f"{path}: its header is not the one it was written with")
    return arrays, header, digest
