"""A run folder: finished steps that are used again, and the record of what made them."""

import ast
import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

import sae_rna
from sae_rna.parameters import Parameters

_PACKAGE = Path(__file__).parent
_RECORDED = (
    "torch",
    "multimolecule",
    "transformers",
    "numpy",
    "pandas",
    "scipy",
    "scikit-learn",
    "forgi",
    "altair",
    "datasets",
)


class RunFolder:
    """Steps of one run, each in a folder named after what it depends on; written beside and renamed when it is finished."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def step(self, name: str, room: str, key: dict, make: Callable[[Path], None]) -> Path:
        """The folder of step `name` for `key`, made by ``make(temporary folder)`` unless it is there already.

        `key` holds everything that the result depends on, JSON-serialisable. The code of the module `room`, which does the work, and
        of all modules of the package that it imports is added to it: what was computed stays valid while other rooms change.
        """
        return self.steps({name: key}, room, lambda folders: make(folders[name]))[name]

    def steps(
        self,
        keys: dict[str, dict],
        room: str,
        make: Callable[[dict[str, Path]], None],
        resumable: bool = False,
    ) -> dict[str, Path]:
        """The folders of several steps by name, for which those that are not there are made together.

        As `step` with a key for each name; ``make`` gets the temporary folders of the missing ones by name. `resumable` steps find in
        theirs what a stopped attempt left there, and go on from it.
        """
        finished = {name: self.folder / f"{name}-{_digest(name, key, room)}" for name, key in keys.items()}
        with ExitStack() as locks:
            for folder in sorted(finished.values()):  # two notebooks may ask for the same steps at once
                locks.enter_context(FileLock(folder.with_name(f".{folder.name}.lock")))
            missing = {
                name: folder.with_name(f".{folder.name}.tmp")
                for name, folder in finished.items()
                if not folder.exists()
            }
            for temporary in missing.values():
                if not resumable:
                    shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(exist_ok=True)
            try:
                if missing:
                    make(missing)
                for name, temporary in missing.items():
                    (temporary / "key.json").write_text(json.dumps(keys[name], indent=1))
                    os.replace(temporary, finished[name])
            except BaseException:
                if not resumable:
                    for temporary in missing.values():
                        shutil.rmtree(temporary, ignore_errors=True)
                raise
        return finished

    def record(self, parameters: Parameters, **facts):
        """Write ``run.json``: parameters, the given facts (model, data and their fingerprints) and versions."""
        content = {
            "parameters": asdict(parameters),
            **facts,
            "sae_rna": sae_rna.__version__,
            "python": platform.python_version(),
            "versions": {name: version(name) for name in _RECORDED},
            "code": code_hash("study"),
        }
        write_json(self.folder / "run.json", content)


def _digest(name: str, key: dict, room: str) -> str:
    return hashlib.sha256(json.dumps([name, key, code_hash(room)], sort_keys=True).encode()).hexdigest()[:12]


def write_json(path: Path, content):
    """Write `content` as JSON, whole or not at all; the folder is made if it is not there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    os.replace(temporary, path)


def file_hash(source: str) -> str:
    """SHA-256 of a file (or of all files of a folder), 16 hexadecimal digits; the name itself for a hub id."""
    path = Path(source)
    digest = hashlib.sha256()
    if path.is_file():
        digest.update(path.read_bytes())
    elif path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.is_file():
                digest.update(str(file.relative_to(path)).encode() + file.read_bytes())
    else:
        return source
    return digest.hexdigest()[:16]


def source_files(module: str) -> list[Path]:
    """The file of `module` ("analysis.fidelity") and of all modules of the package that it imports, however indirectly.

    Without `parameters`, whose values stand in the steps' keys.
    """
    found, ahead = set(), [module]
    while ahead:
        path = _PACKAGE.joinpath(*ahead.pop().split(".")).with_suffix(".py")
        if path.exists() and path not in found and path.stem != "parameters":
            found.add(path)
            ahead += _imports(path)
    return sorted(found)


def _imports(path: Path) -> list[str]:
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "sae_rna":
            inside = node.module.split(".")[1:]
            names += [".".join(inside), *(".".join([*inside, alias.name]) for alias in node.names)]
    return names


@cache
def code_hash(room: str) -> str:
    """SHA-256 of `source_files`, 12 hexadecimal digits."""
    digest = hashlib.sha256()
    for path in source_files(room):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
