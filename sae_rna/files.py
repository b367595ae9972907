"""Files that appear whole or not at all: a reader sees the old file or the new one, never a part of it."""

import errno
import json
import os
import re
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path`, to write to; renamed to `path` when the block ends without an error.

    The folder is made if it is not there; the content is flushed to disk before the renaming. After an error
    `path` is what it was. The mode follows the umask, also where a library writes for the owner alone.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    temporary.touch()
    mode = temporary.stat().st_mode & 0o777
    try:
        with placed(path):
            yield temporary
            temporary.chmod(mode)
            with open(temporary, "rb") as file:
                os.fsync(file.fileno())
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


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
        place = re.sub(r"\.([^/]+)\.[0-9a-f]{8}\.tmp$", r"\1", str(error.filename))  # as `writing` has it
        return f"{place}: {error.strerror}"
    return str(error)
