"""What the `Snakefile` does beside its rules: one build at a time, faults and Ctrl-C in one line each."""

import json
import logging
import os
import re
import shutil
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from sae_rna.cache import waiting_lock
from sae_rna.files import one_sentence, try_writing

FILES = {"fig": ("csv", "pdf", "png", "svg", "vl.json"), "tab": ("csv", "html")}  # that `publish` writes
_held = ExitStack()  # until the process ends, however it ends


def published(notebook: str | Path) -> list[str]:
    """Names of the files of all figures and tables that a notebook publishes, by its code."""
    cells = json.loads(Path(notebook).read_text())["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    ids = re.findall(r'^publish\(\s*"((fig|tab)-[a-z0-9-]+)"', code, re.M)
    return [f"{name}.{suffix}" for name, kind in ids for suffix in FILES[kind]]


@contextmanager
def in_one_sentence() -> Iterator[None]:
    """A fault of the user's making in this block is said in one sentence, and ends the process."""
    try:
        yield
    except (ValueError, OSError) as error:
        _end(f"sae-rna: {one_sentence(error)}", 1)


def begin(outputs: Iterable[str | Path], folder: Path = Path(".snakemake")):
    """Start a build whose process this is: wait for any other one here, and try whether it can write.

    Snakemake's own lock outlives a build that is killed. Who holds the lock that is taken here, which the
    system lets go with its process, knows that no other build lives, and removes what is left of it.
    """
    with in_one_sentence():
        for path in outputs:
            try_writing(path)
    folder.mkdir(exist_ok=True)
    _held.enter_context(waiting_lock(folder / "build.lock", "the book"))
    shutil.rmtree(folder / "locks", ignore_errors=True)
    (folder / "locks").mkdir()
    stop_at_signals()


def stop_at_signals():
    """Ctrl-C and SIGTERM end the jobs, which keep what they have, and then the build, from now on.

    Snakemake waits for its jobs to finish at SIGTERM, and sets its own handler when it begins with them.
    """
    os.environ["SAE_RNA_QUIET"] = "1"  # the jobs need not say the same
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _stop)


def _stop(number: int, _frame):
    logging.disable()  # Snakemake's account of jobs that failed
    jobs = psutil.Process().children(recursive=True)
    _, alive = psutil.wait_procs(jobs, timeout=5 if number == signal.SIGINT else 0)  # all hear of Ctrl-C
    for job in alive:
        job.terminate()
    psutil.wait_procs(alive, timeout=60)
    _end("sae-rna: stopped; the same command uses all that is finished and goes on", 128 + number)


def _end(sentence: str, status: int):
    print(sentence, file=sys.stderr, flush=True)
    os._exit(status)  # Snakemake has tracebacks for every other way
