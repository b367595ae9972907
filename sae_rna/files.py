"""Files that appear whole or not at all: a reader sees the old file or the new one, never a part of it."""

import json
import os
import secrets
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
        yield temporary
        temporary.chmod(mode)
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def write_atomically(path: str | Path, content: str | bytes):
    """Write a text (UTF-8) or bytes to `path`, whole or not at all."""
    with writing(path) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


def write_json(path: str | Path, content):
    """Write `content` as JSON, whole or not at all."""
    write_atomically(path, json.dumps(content, indent=1) + "\n")
