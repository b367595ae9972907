"""Files that appear whole or not at all: a reader sees the old file or the new one, never a part of it."""

import errno
import fcntl
import hashlib
import json
import os
import platform
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_MACHINE = hashlib.sha256(platform.node().encode()).hexdigest()[:8]


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A place to write a new `path`, in a temporary folder beside it; moved there unless the block fails.

    The folder of `path` is made if it is not there; the content is flushed to disk before it is moved. After
    an error `path` is what it was. The mode follows the umask, also where a library writes for the owner
    alone. What killed writers left in the folder is removed; see `_among_writers`.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with _among_writers(path.parent):
        folder = path.with_name(f".{path.name}.{_MACHINE}.{secrets.token_hex(4)}.tmp")
        folder.mkdir()
        try:
            with placed(path):
                temporary = folder / path.name
                temporary.touch()
                mode = temporary.stat().st_mode & 0o777
                yield temporary
                temporary.chmod(mode)
                with open(temporary, "rb") as file:
                    os.fsync(file.fileno())
                os.replace(temporary, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _among_writers(folder: Path) -> Iterator[None]:
    """Writers share a lock on their folder; one that finds itself alone there removes what killed ones left.

    The system lets the lock go with its process. It holds among the processes of one machine, so what others
    left in a shared folder stays: it may be at work.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
        with suppress(OSError):  # others are at work here
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            remove_leftovers(folder, _MACHINE)
    finally:
        os.close(handle)


def remove_leftovers(folder: Path, machine: str = "*"):
    """Remove what killed writers left in a folder; for who knows that none is at work there."""
    for left in folder.glob(f".*.{machine}.????????.tmp"):
        shutil.rmtree(left, ignore_errors=True)


@contextmanager
def placed(path: str | Path) -> Iterator[None]:
    """In this block, faults of the disk name a place: libraries leave it out, so it is `path`."""
    try:
        yield
    except Exception as error:
        number = re.search(r"\(os error (\d+)\)|^\[Errno (\d+)\]", str(error))  # safetensors'; pyarrow's
        if not number or isinstance(error, OSError) and error.filename:
            raise
        code = int(number[1] or number[2])
        raise OSError(code, os.strerror(code), str(path)) from error


def write_atomically(path: str | Path, content: str | bytes):
    """Write a text (UTF-8) or bytes to `path`, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, content):
    """Write `content` as JSON, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")


def try_writing(path: str | Path):
    """OSError if no file can be written at `path`, before long work is done for it; nothing is left."""
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "a file is to be written here, and this is a folder", str(path))
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(there))
    try:
        tempfile.TemporaryFile(dir=there).close()
    except OSError as error:  # which names the trial's own file
        raise OSError(error.errno, error.strerror, str(there)) from None


def one_sentence(error: Exception) -> str:
    """An error for people: of the disk's faults, the place and what is wrong."""
    if isinstance(error, OSError) and error.strerror and error.filename:
        temporary = r"\.([^/]+)(\.[0-9a-f]{8}){2}\.tmp(/\1)?$"  # of `writing`
        place = re.sub(temporary, r"\1", str(error.filename))
        return f"{place}: {error.strerror}"
    return str(error)
