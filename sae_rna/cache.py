"""A run folder: finished steps that are used again, and the record of what made them.

A step is kept under a hash of its name, of all that goes in, and of its code. Naming it computes nothing.
"""

import ast
import hashlib
import json
import logging
import os
import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from datetime import datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pandas as pd
from filelock import FileLock, SoftFileLock, Timeout

import sae_rna
from sae_rna.files import placed, remove_leftovers, write_json
from sae_rna.parameters import Parameters

log = logging.getLogger(__name__)
_FILES = "files.json"  # bytes and checksums of a finished step's files: what has changed since is noticed
_PACKAGE = Path(__file__).parent
_RECORDED = "torch multimolecule transformers numpy pandas scipy scikit-learn altair datasets".split()


class RunFolder:
    """Steps of one run, each in a folder of its own; written beside it and renamed when finished.

    A step whose files are missing or not those that it was finished with is made again.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def place(self, name: str, inputs, code: ModuleType) -> Path:
        """Where the step `name` of these `inputs` lies once it is finished.

        inputs : all that the result depends on: tables, models, values, whatever has a `key`; see `key_of`
        code : the module that does the work; it and all modules of the package that it imports count
        """
        content = json.dumps([name, key_of(inputs), code_hash(code.__name__)], sort_keys=True)
        return self.folder / f"{name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"

    def kept(self, name: str, inputs, make: Callable[[Path], None], code: ModuleType) -> Path:
        """The folder of a step, made by ``make(temporary folder)`` unless it is there; see `place`."""
        return self.kept_together({name: inputs}, lambda folders: make(folders[name]), code)[name]

    def kept_together(
        self, inputs: Mapping, make: Callable[[dict], None], code: ModuleType, resumable: bool = False
    ) -> dict[str, Path]:
        """The folders of several steps by name; one call of `make` makes those that are not there.

        `make` gets temporary folders by name. In that of a `resumable` step is what a stopped attempt left.
        """
        finished = {name: self.place(name, values, code) for name, values in inputs.items()}
        if not any(map(_fault, finished.values())):  # nothing is written, not even a lock
            return finished
        with placed(self.folder), ExitStack() as locks:
            for folder in sorted(finished.values()):  # two notebooks may ask for the same steps at once
                locks.enter_context(waiting_lock(folder.with_name(f".{folder.name}.lock"), folder.name))
            faults = {name: _fault(folder) for name, folder in finished.items()}
            missing = {name: finished[name] for name, fault in faults.items() if fault}
            temporary = {name: folder.with_name(f".{folder.name}.tmp") for name, folder in missing.items()}
            for name, folder in temporary.items():
                if finished[name].exists():
                    log.warning("%s is made again: %s", finished[name], faults[name])
                if not resumable:
                    shutil.rmtree(folder, ignore_errors=True)
                    locks.callback(shutil.rmtree, folder, ignore_errors=True)  # if it could not be finished
                folder.mkdir(exist_ok=True)
                remove_leftovers(folder)  # of whatever machine: who holds the step's lock is alone
            if missing:
                make(temporary)
            for name, folder in temporary.items():
                write_json(folder / "inputs.json", key_of(inputs[name]))
                write_json(folder / _FILES, contents(folder))
                if finished[name].exists():
                    shutil.rmtree(finished[name])
                folder.replace(finished[name])
        return finished

    def record(self, parameters: Parameters, **facts):
        """Write ``run.json``: parameters, the given facts (model, data, fingerprints) and versions.

        Not in a run that others share to be read.
        """
        if not os.access(self.folder, os.W_OK):
            log.warning("%s may only be read: its run.json stays as it is", self.folder)
            return
        facts |= {"sae_rna": sae_rna.__version__, "python": platform.python_version()}
        facts |= {"versions": {name: version(name) for name in _RECORDED}, "code": code_hash("sae_rna.study")}
        write_json(self.folder / "run.json", {"parameters": asdict(parameters)} | facts)


def contents(folder: Path) -> dict[str, list]:
    """Bytes and SHA-256 of every file of a step by its name in the step's folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file() and file.name != _FILES)
    found = {file.relative_to(folder).as_posix(): (file, file.stat()) for file in files}
    return {name: [s.st_size, _checksum(file, s.st_size, s.st_mtime_ns)] for name, (file, s) in found.items()}


@cache  # a process reads each step once; a file that is written to later is read again
def _checksum(file: Path, _size: int, _changed: int) -> str:
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _fault(folder: Path) -> str:
    """Why a step is to be made: it is not there, or its files are not those it was finished with; else ""."""
    if not folder.exists():
        return "it is not there"
    try:
        expected, found = json.loads((folder / _FILES).read_text()), contents(folder)
        wrong = {name: size for name, (size, digest) in expected.items() if found.get(name) != [size, digest]}
    except (FileNotFoundError, ValueError, AttributeError, TypeError):
        return f"it has no {_FILES} that can be read, so whether it is whole is not known"
    for name, size in wrong.items():
        if name not in found:
            return f"{name} is missing"
        other = "other content" if found[name][0] == size else f"{found[name][0]} bytes, not {size}"
        return f"{name} has {other}"
    return ""


@contextmanager
def waiting_lock(file: Path, what: str) -> Iterator[None]:
    """The right to make `what`. Whoever has to wait for it is told for whom."""
    lock = FileLock(file)
    try:
        lock.acquire(timeout=1)
    except Timeout:
        holder, since = file.read_text().split(), datetime.fromtimestamp(file.stat().st_mtime)
        who = f"process {holder[0]} on {holder[1]}" if len(holder) > 1 else "another process"
        remedy = f"if that process is gone, delete {file}"
        log.warning("waiting for %s, which makes %s since %s; %s", who, what, f"{since:%F %T}", remedy)
        lock.acquire()
    try:
        if not isinstance(lock, SoftFileLock):  # which has written the same
            file.write_text(f"{os.getpid()}\n{platform.node()}\n")
        yield
    finally:
        lock.release()


def key_of(value):
    """What a result depends on, as JSON: a table by the hash of its content, an object by its own `key`."""
    if hasattr(value, "key"):
        return value.key
    if isinstance(value, pd.DataFrame):
        return table_hash(value)
    if isinstance(value, Mapping):
        return {str(name): key_of(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [key_of(item) for item in value]
    return value.item() if hasattr(value, "item") else value


def table_hash(table: pd.DataFrame) -> str:
    """Hash of the columns' names and of every value in its place, 16 hexadecimal digits."""
    text = json.dumps([list(map(str, table.columns)), len(table)])
    rows = pd.util.hash_pandas_object(table, index=False, categorize=True).to_numpy()
    return hashlib.sha256(text.encode() + rows.tobytes()).hexdigest()[:16]


def file_hash(source: str) -> str:
    """SHA-256 of a file or of all files of a folder, 16 hexadecimal digits; a hub id is its own."""
    path = Path(source)
    if not path.exists():
        return source
    digest = hashlib.sha256(path.read_bytes() if path.is_file() else b"")
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(str(file.relative_to(path)).encode() + file.read_bytes())
    return digest.hexdigest()[:16]


def source_files(module: str) -> list[Path]:
    """The files of a module and of all it imports of this package, but `parameters`: values are inputs."""
    found: set[Path] = set()
    ahead = [module]
    while ahead:
        path = _PACKAGE.joinpath(*ahead.pop().split(".")[1:]).with_suffix(".py")
        if path.exists() and path not in found and path.stem != "parameters":
            found.add(path)
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sae_rna"):
                    ahead += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return sorted(found)


@cache
def code_hash(module: str) -> str:
    """SHA-256 of `source_files`, 12 hexadecimal digits."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in source_files(module))).hexdigest()[:12]
