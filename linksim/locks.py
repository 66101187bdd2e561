"""Keep two processes from writing to the same file, on every file system."""

from __future__ import annotations

import os
import socket
import uuid
from pathlib import Path

from linksim.errors import ResultFileError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


class FileLock:
    """The right to write to a file, which one process at a time can have.

    The operating system's lock is taken where there is one: it ends with the process. Some
    file systems of clusters, and Windows, have none. There a file beside it, `<name>.lock`,
    says which process of which machine holds the right; that of a process of this machine
    that has ended is taken over.

    Args:
        path: the file.
        descriptor: of the file, open for writing.

    Raises:
        ResultFileError: another process holds the right, or the lock cannot be written.
    """

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._file: Path | None = None  # the lock file, where there is one
        if not self._lock_by_system(descriptor):
            self._lock_by_file()

    def _lock_by_system(self, descriptor: int) -> bool:
        """Whether the operating system has such locks for this file."""
        if fcntl is None:
            return False
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal("another run is writing to this file") from None
        except OSError:  # ENOSYS, ENOTSUP or ENOLCK: the file system has no locks
            return False
        return True

    def _lock_by_file(self) -> None:
        lock = self._path.with_name(f"{self._path.name}.lock")
        # Never the same twice, so that a process recognises its own
        mine = f"{os.getpid()} {socket.gethostname()} {uuid.uuid4().hex}\n"
        try:
            if not _create(lock, mine):
                holder = lock.read_text(encoding="utf-8", errors="replace")
                if not _has_ended(holder):
                    raise self._refusal(
                        f"{lock.name} says that process {' on '.join(holder.split()[:2])} is "
                        "writing to this file; delete it if that process no longer exists"
                    )
                # One of several processes that see it renames it
                old = lock.with_name(f"{lock.name}.{mine.split()[-1]}")
                os.rename(lock, old)
                taken = old.read_text(encoding="utf-8", errors="replace")
                old.unlink()
                if taken != holder or not _create(lock, mine):
                    raise self._refusal("another run has just begun to write to this file")
        except OSError as error:
            raise ResultFileError(f"{lock}: cannot write ({error.strerror})") from None
        self._file = lock

    def _refusal(self, reason: str) -> ResultFileError:
        return ResultFileError(
            f"{self._path}: {reason}; wait for it, or choose another output folder"
        )

    def release(self) -> None:
        """Give the right back. The system's own lock ends when the file is closed."""
        if self._file is not None:
            self._file.unlink(missing_ok=True)
            self._file = None


def _create(lock: Path, text: str) -> bool:
    """Whether the lock file was made; it was there otherwise."""
    try:
        descriptor = os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
    except FileExistsError:
        return False
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    return True


def _has_ended(holder: str) -> bool:
    """Whether the process that a lock file names is one of this machine that has ended."""
    parts = holder.split()
    if len(parts) != 3 or not parts[0].isdecimal() or parts[1] != socket.gethostname():
        return False
    if os.name == "nt":  # to ask there would be to send Ctrl-C
        return False
    try:
        os.kill(int(parts[0]), 0)
    except ProcessLookupError:
        return True
    except OSError:  # it is another user's
        pass
    return False
