"""Channels that were measured or ray-traced, from a file."""

import contextlib
import functools
import math
import zipfile
from typing import NamedTuple

import numpy as np
from keras import ops

from linksim.backend import host_call
from linksim.channels.base import Channel, check_grid, check_power
from linksim.errors import InvalidInput, check_int, check_real
from linksim.files import as_path, stamp

# How much of a file is read at a time
_CHUNK_BYTES = 2**26
_SHAPES = "[N, M, K], [N, U, M, K] or [N, T, F, M, K]"


class FileChannel(Channel):
    """The channels of a file, one entry for each block.

    The array of the file has one of three shapes, with N entries, M receive antennas and K
    streams: [N, M, K], one matrix that all channel uses of a block share; [N, U, M, K], a
    matrix for each of the first channel uses of a block; or [N, T, F, M, K], an OFDM slot of T
    symbols and F subcarriers.

    Blocks take the entries without replacement: block b of a run has entry p[b mod N], with
    the permutation p of `order_seed`. It is the same at every SNR and for every seed of a run.
    A run of more than N blocks takes every entry again, with other bits and noise: its
    intervals are those of these N channels, and say nothing of channels that the file does
    not have.

    A `.npy` file, a dataset of an HDF5 file and an array that `np.savez` wrote without
    compression stay on disk, and only what a batch needs is read. All of the file is read once
    to check it and to measure its power.

    Args:
        num_rx: receive antennas M.
        num_streams: streams K.
        path: of the file, "*.npy", "*.npz", "*.h5" or "*.hdf5".
        key: name of the array in the file; it can be left out where there is only one.
        order_seed: seed of the order of the entries.
        power: E|h_ij|^2 to which all of the file is scaled, or 0 to leave it as it is.
        subcarrier_spacing_khz: of OFDM slots, in kHz.
        num_users: users that share the streams of OFDM slots.

    Attributes:
        num_entries: N.
        power: E|h_ij|^2, a mean over the file.
        subcarrier_spacing: subcarrier spacing in Hz.

    Raises:
        InvalidInput: the file cannot be read, or what it holds is of another shape or type,
            or not finite.
    """

    by_block_number = True

    def __init__(
        self,
        num_rx,
        num_streams,
        path="",
        key="",
        order_seed=0,
        power=0.0,
        subcarrier_spacing_khz=30.0,
        num_users=1,
    ):
        super().__init__(num_rx, num_streams)
        if not path:
            raise InvalidInput("channel.path: missing, expected the file of the channels")
        if not isinstance(key, str):
            raise InvalidInput(f"channel.key: got {key!r}, expected the name of an array")
        check_int("channel.order_seed", order_seed, minimum=0)
        check_real("channel.power", power, low=0, high=1e9)
        if power:
            check_power(power)
        check_grid(num_streams, subcarrier_spacing_khz, num_users)
        self.path = as_path("channel.path", path).absolute()
        self._array, measured = _opened(self.path, key, stamp("channel.path", self.path))
        self._check_shape()
        self.num_entries = len(self._array)
        self.is_real = measured.is_real
        self.power = power or measured.power
        self._scale = np.float32(math.sqrt(self.power / measured.power))
        self.subcarrier_spacing = subcarrier_spacing_khz * 1e3
        self.num_users = num_users
        order = np.random.Generator(np.random.Philox(order_seed))
        self._order = order.permutation(self.num_entries)

    def _check_shape(self):
        shape = tuple(self._array.shape)
        if len(shape) not in (3, 4, 5) or shape[-2:] != (self.num_rx, self.num_streams):
            raise InvalidInput(
                f"channel.path: {self.path}: has the shape {list(shape)}, expected {_SHAPES} "
                f"with M = {self.num_rx} antennas and K = {self.num_streams} streams"
            )

    def describe(self):
        """Lines about the channel, see `Channel.describe`."""
        return [
            *super().describe(),
            f"{self.num_entries} entries of shape {list(self._array.shape[1:])}, which come "
            "again in blocks beyond them",
        ]

    def check_block(self, num_uses):
        shape = tuple(self._array.shape)
        if len(shape) == 5:
            raise InvalidInput(
                f"channel.path: {self.path}: has OFDM slots, of shape {list(shape)}, expected "
                "channel uses; scenarios with an [ofdm] or [pusch] table take slots, training "
                "does not"
            )
        if len(shape) == 4 and num_uses > shape[1]:
            raise InvalidInput(
                f"channel.path: {self.path}: has {shape[1]} channel uses for a block, expected "
                f"the {num_uses} that a block of the scenario has"
            )

    def check_slot(self, num_symbols, num_subcarriers):
        shape = tuple(self._array.shape)
        if len(shape) != 5 or shape[1:3] != (num_symbols, num_subcarriers):
            raise InvalidInput(
                f"channel.path: {self.path}: has the shape {list(shape)}, expected "
                f"[N, T, F, M, K] with the T = {num_symbols} symbols and F = "
                f"{num_subcarriers} subcarriers of a slot of the scenario"
            )

    def sample(self, key, num_blocks, num_uses, first_block=0):
        self.check_block(num_uses)
        shape = tuple(self._array.shape)
        if len(shape) == 3:
            h = self._entries(num_blocks, first_block)[:, None]
            return ops.broadcast_to(h, (num_blocks, num_uses, *shape[1:]))
        return self._entries(num_blocks, first_block, num_uses)

    def sample_grid(
        self,
        key,
        num_blocks,
        num_symbols,
        num_subcarriers,
        cyclic_prefix_ratio=0.0,
        first_block=0,
    ):
        self.check_slot(num_symbols, num_subcarriers)
        return self._entries(num_blocks, first_block)

    def _entries(self, num_blocks, first_block, most=None):
        """Entries of consecutive blocks, complex64 [num_blocks, ...]; with `most` the first of
        their second axis alone."""
        inner = self._array.shape[1:] if most is None else (most, *self._array.shape[2:])

        def read(first):
            numbers = (first + np.arange(num_blocks)) % self.num_entries
            # HDF5 takes ascending numbers alone, and files are read faster in their order
            entries, back = np.unique(self._order[numbers], return_inverse=True)
            part = self._array[entries] if most is None else self._array[entries, :most]
            return (self._scale * np.asarray(part)[back]).astype(np.complex64)

        return host_call(read, first_block, (num_blocks, *inner))


class _Measured(NamedTuple):
    power: float  # mean energy of a coefficient
    is_real: bool  # whether all imaginary parts are zero


# A scenario makes its channel several times; a file that changes has another stamp
@functools.lru_cache(maxsize=8)
def _opened(path, key, _):
    """The array of a file, which may stay on disk, and what was `_Measured` of it."""
    kinds = {".npy": _npy, ".npz": _npz, ".h5": _hdf5, ".hdf5": _hdf5}
    if path.suffix not in kinds:
        raise InvalidInput(f"channel.path: got {path}, expected one of *{', *'.join(kinds)}")
    with _readable(path):
        array = kinds[path.suffix](path, key)
    if array.dtype.kind != "c" or array.dtype.itemsize > 16:
        raise InvalidInput(
            f"channel.path: {path}: has the type {array.dtype}, expected complex64 or "
            "complex128"
        )
    with _readable(path):  # what is damaged inside of a file is found here
        return array, _measure(path, array)


@contextlib.contextmanager
def _readable(path):
    """Name the file in what NumPy, zipfile and h5py raise, which are a dozen kinds."""
    try:
        yield
    except (InvalidInput, MemoryError):
        raise
    except Exception as error:
        raise InvalidInput(f"channel.path: {path}: cannot be read ({error})") from None


def _measure(path, array):
    """Read all of an array once, and refuse what is empty or not finite."""
    shape = tuple(array.shape or ())  # an HDF5 dataset without data has none
    if 0 in shape or not shape:
        raise InvalidInput(
            f"channel.path: {path}: is empty, of shape {list(shape)}, expected {_SHAPES}"
        )
    energy, is_real = 0.0, True
    step = max(1, _CHUNK_BYTES * len(array) // (array.dtype.itemsize * math.prod(array.shape)))
    for first in range(0, len(array), step):
        part = np.asarray(array[first : first + step], np.complex128)
        finite = np.isfinite(part).reshape(len(part), -1).all(1)
        if not finite.all():
            raise InvalidInput(
                f"channel.path: {path}: entry {first + int(np.argmin(finite))}, counted from "
                "0, has NaN or inf"
            )
        with np.errstate(over="ignore"):  # is refused below
            energy += float(np.sum(part.real**2 + part.imag**2))
        is_real = is_real and not part.imag.any()
    power = energy / math.prod(array.shape)
    if not 1e-30 < power < 1e30:
        raise InvalidInput(
            f"channel.path: {path}: has a mean energy of {power:.3g} per coefficient, "
            "expected one that can be scaled"
        )
    return _Measured(power, is_real)


def _npy(path, key):
    if key:
        raise InvalidInput(f"channel.key: got {key!r}, expected none: {path} has one array")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _npz(path, key):
    with zipfile.ZipFile(path) as archive:
        names = [n.removesuffix(".npy") for n in archive.namelist() if n.endswith(".npy")]
        name = _chosen(path, names, key)
        member = archive.getinfo(f"{name}.npy")
        on_disk = member.compress_type == zipfile.ZIP_STORED
        if on_disk:  # nobody else compares the checksum
            with archive.open(member) as content:
                while content.read(_CHUNK_BYTES):
                    pass
    if on_disk:
        return _stored(path, member.header_offset)
    with np.load(path, allow_pickle=False) as file:
        return file[name]


def _stored(path, offset):
    """An array that lies in an archive as it would in a file of its own, left on disk."""
    with path.open("rb") as file:
        # A local header of ZIP: 30 bytes that end with the lengths of two texts behind it
        file.seek(offset + 26)
        file.seek(sum(np.frombuffer(file.read(4), "<u2").tolist()), 1)
        version = np.lib.format.read_magic(file)
        header = np.lib.format.read_array_header_1_0
        if version != (1, 0):
            header = np.lib.format.read_array_header_2_0
        shape, fortran, dtype = header(file)
        if dtype.hasobject:
            raise ValueError("it has Python objects")
        order = "F" if fortran else "C"
        return np.memmap(path, dtype, "r", file.tell(), shape, order)


def _hdf5(path, key):
    import h5py  # comes with Keras

    file = h5py.File(path, "r")  # stays open as long as its dataset
    names = []
    file.visititems(
        lambda n, item: names.append(n) if isinstance(item, h5py.Dataset) else None
    )
    return file[_chosen(path, names, key)]


def _chosen(path, names, key):
    """The name of the array to take."""
    if key in names or (not key and len(names) == 1):
        return key or names[0]
    got = f"got {key!r}" if key else "missing"
    raise InvalidInput(
        f"channel.key: {got}, expected one of the arrays in {path}: {', '.join(names) or 'none'}"
    )
