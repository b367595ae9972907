"""Running a notebook for the book."""

import difflib
import logging
import os
import sys
import tempfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nbformat

from sae_rna.files import try_writing, write_atomically
from sae_rna.publishing.captions import NotebookError, fill_captions
from sae_rna.publishing.outputs import FIGURES

_PROGRESS = "{desc}: cell {n_fmt} of {total_fmt}, {elapsed}"


def execute(
    notebook: Path, output: Path, parameters: Mapping, figures: Path, failures: Path, known: Collection = ()
):
    """Run a notebook, in the current folder, and put it at `output`, its captions filled.

    `parameters` are those of the notebook's parameter cell or of `known`, which it understands without naming
    them. `figures` receives the static files, `failures` a copy that failed, as `<name>.failed.ipynb`.
    Progress goes to standard error.

    Raises ValueError for a parameter that the notebook does not have, before anything runs; and NotebookError
    naming notebook, cell and error when it fails: then `output` and the static files stay what they were.
    """
    from papermill import execute_notebook, inspect_notebook  # pulls in half of Jupyter
    from papermill.exceptions import PapermillExecutionError

    notebook, output = Path(notebook), Path(output)
    _check_names(notebook, parameters, [*inspect_notebook(notebook), *known])
    try_writing(output)
    failed = Path(failures) / f"{output.stem}.failed.ipynb"
    options = {"cwd": os.getcwd(), "kernel_name": "python3", "language": "python", "autosave_cell_every": 0}
    options["progress_bar"] = {"desc": notebook.stem, "file": sys.stderr, "bar_format": _PROGRESS}
    # The level is of the kernel's own remarks, not of the notebook's.
    options["extra_arguments"] = ["--IPKernelApp.log_level=50"]
    with tempfile.TemporaryDirectory() as scratch:
        copy, published = Path(scratch) / output.name, Path(scratch) / "figures"
        try:
            with _surroundings(published):
                execute_notebook(notebook, copy, dict(parameters), **options)
            finished = fill_captions(nbformat.read(copy, as_version=4))
        except Exception as error:  # whatever it was, the old page stays and the reader learns where to look
            expected = isinstance(error, (PapermillExecutionError, NotebookError))
            reason = str(error).strip() or type(error).__name__
            if isinstance(error, PapermillExecutionError):
                reason = f"cell [{error.exec_count}] failed with {error.ename}: {error.evalue}"
            if copy.exists():
                write_atomically(failed, copy.read_bytes())
                reason += f" (the copy with its traceback is {failed})"
            raise NotebookError(f"{notebook}: {reason}") from (None if expected else error)
        # Papermill notes where it read and wrote; those paths are this machine's business.
        for key in ("input_path", "output_path"):
            finished.metadata.get("papermill", {}).pop(key, None)
        for file in sorted(published.glob("*")):
            write_atomically(Path(figures) / file.name, file.read_bytes())
        write_atomically(output, nbformat.writes(finished) + "\n")
    failed.unlink(missing_ok=True)


def _check_names(notebook: Path, given: Mapping, known: Collection[str]):
    """ValueError for the first name that is not `known`, with the remedy."""
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            has = f"it has {', '.join(known)}" if known else "it has no cell tagged parameters"
            hint = f"did you mean {near[0]}?" if near else has
            raise ValueError(f"{notebook}: there is no parameter {name!r}; {hint}")


@contextmanager
def _surroundings(figures: Path) -> Iterator[None]:
    # The kernel inherits our environment, papermill offers no other way to it. Papermill's own warnings of
    # parameters that the cell does not name are left out: `_check_names` has seen to them.
    logger, folder = logging.getLogger("papermill"), os.environ.get(FIGURES)
    level = logger.level
    logger.setLevel(logging.ERROR)
    os.environ[FIGURES] = str(figures)
    try:
        yield
    finally:
        logger.setLevel(level)
        os.environ.pop(FIGURES) if folder is None else os.environ.update({FIGURES: folder})
