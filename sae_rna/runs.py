"""A run folder: finished steps that are used again, and the record of what made them."""

import hashlib
import json
import os
import platform
import shutil
from collections.abc import Callable
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path

from filelock import FileLock

import sae_rna
from sae_rna.parameters import Parameters

_RECORDED = ("torch", "multimolecule", "transformers", "numpy", "pandas", "scipy", "scikit-learn", "forgi", "altair", "datasets")
_PRESENTATION = {"export.py", "tables.py", "publishing.py", "notebook.py", "__main__.py", "synthetic.py", "pretraining.py"}
"""Modules that no step of a study runs: editing them leaves finished steps valid."""


class RunFolder:
    """Steps of one run, each in a folder named after what it depends on; written beside and renamed when it is finished."""

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def step(self, name: str, key: dict, make: Callable[[Path], None], resumable: bool = False) -> Path:
        """The folder of step `name` for `key`, made by ``make(temporary folder)`` unless it is there already.

        `key` holds everything that the result depends on, JSON-serialisable; the package's own code is added to it. A `resumable` step
        finds in the temporary folder what a stopped attempt left there, and goes on from it.
        """
        digest = hashlib.sha256(json.dumps([name, key, _code_hash()], sort_keys=True).encode()).hexdigest()[:12]
        finished = self.folder / f"{name}-{digest}"
        with FileLock(self.folder / f".{name}-{digest}.lock"):  # two notebooks may ask for the same step at once
            if not finished.exists():
                temporary = self.folder / f".{name}-{digest}.tmp"
                if not resumable:
                    shutil.rmtree(temporary, ignore_errors=True)
                temporary.mkdir(exist_ok=True)
                try:
                    make(temporary)
                    (temporary / "key.json").write_text(json.dumps(key, indent=1))
                    os.replace(temporary, finished)
                except BaseException:
                    if not resumable:
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
            "code": _code_hash(),
        }
        temporary = self.folder / f"run.json.{os.getpid()}"
        temporary.write_text(json.dumps(content, indent=1) + "\n")
        os.replace(temporary, self.folder / "run.json")


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


def _code_hash() -> str:
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        if path.name not in _PRESENTATION:
            digest.update(path.read_bytes())
    return digest.hexdigest()[:12]
