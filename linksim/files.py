"""Files that are never half written, and arrays that are checked when read."""

import hashlib
import io
import json
import os
import tempfile
from pathlib import Path

import numpy as np

from linksim.errors import ResultFileError

_HEADER = "header.json"


def write_atomically(path, data):
    """Replace a file by text or bytes in one step, so that it is never half written."""
    path = Path(path)
    if isinstance(data, str):
        data = data.encode("utf-8")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def set_aside(path):
    """Rename a file or folder to `<name>.<number>.old`, so that nothing is lost."""
    number = 1
    while (target := path.with_name(f"{path.name}.{number}.old")).exists():
        number += 1
    os.replace(path, target)


def arrays_hash(arrays):
    """SHA-256 of named arrays: their names, dtypes, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype.str} {array.shape}\n".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def save_arrays(path, arrays, header):
    """Write named arrays and a JSON header to one `.npz` file.

    Args:
        path: of the file; its folder is created.
        arrays: {name: NumPy array} of numbers.
        header: dictionary that JSON can hold.

    Returns:
        The SHA-256 of the arrays, which the file carries too.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = arrays_hash(arrays)
    text = json.dumps({"header": header, "sha256": digest})
    buffer = io.BytesIO()
    coded = np.frombuffer(text.encode(), np.uint8)
    np.savez_compressed(buffer, **arrays, **{_HEADER: coded})
    write_atomically(path, buffer.getvalue())
    return digest


def load_arrays(path):
    """Read what `save_arrays` wrote.

    Returns:
        {name: array}, header and SHA-256.

    Raises:
        ResultFileError: missing, truncated, edited or foreign file.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        stored = json.loads(arrays.pop(_HEADER).tobytes())
        header, digest = stored["header"], stored["sha256"]
    except OSError as error:
        raise ResultFileError(f"{path}: cannot be read ({error})") from None
    except Exception as error:  # zlib, zipfile and NumPy raise a dozen kinds
        raise ResultFileError(f"{path}: not a file of linksim, or damaged ({error})") from None
    if arrays_hash(arrays) != digest:
        raise ResultFileError(f"{path}: its arrays are not those it was written with")
    return arrays, header, digest
