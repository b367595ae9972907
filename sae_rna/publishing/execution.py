"""Running a notebook for the book."""

import logging
import os
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from unittest.mock import patch

import nbformat

from sae_rna.files import one_sentence, try_writing, write_atomically
from sae_rna.publishing.captions import NotebookError, fill_captions
from sae_rna.publishing.outputs import FIGURES

_PROGRESS = "{desc}: cell {n_fmt} of {total_fmt}, {elapsed}"


def execute(notebook: Path, output: Path, parameters: Mapping, figures: Path, failures: Path):
    """Run a notebook, in the current folder, and put it at `output`, its captions filled.

    `parameters` are for it to check. `figures` receives the static files, `failures` a copy that failed, as
    `<name>.failed.ipynb`. Progress goes to standard error.

    Raises NotebookError naming notebook, cell and error when it fails: then `output` and the static files
    stay what they were.
    """
    from papermill import execute_notebook  # pulls in half of Jupyter
    from papermill.exceptions import PapermillExecutionError

    notebook, output = Path(notebook), Path(output)
    failed = Path(failures) / f"{output.stem}.failed.ipynb"
    for needed in (output, failed, Path(figures) / "any"):
        try_writing(needed)
    # Papermill warns of parameters that the cell does not name: the command has checked the names.
    logging.getLogger("papermill").setLevel(logging.ERROR)
    options = {"cwd": os.getcwd(), "kernel_name": "python3", "language": "python", "autosave_cell_every": 0}
    options["progress_bar"] = {"desc": notebook.stem, "file": sys.stderr, "bar_format": _PROGRESS}
    # The level is of the kernel's own remarks, not of the notebook's.
    options["extra_arguments"] = ["--IPKernelApp.log_level=50"]
    with tempfile.TemporaryDirectory() as scratch:
        copy, published = Path(scratch) / output.name, Path(scratch) / "figures"
        try:
            # The kernel inherits our environment, papermill offers no other way to it.
            with patch.dict(os.environ, {FIGURES: str(published)}):
                execute_notebook(notebook, copy, dict(parameters), **options)
            finished = fill_captions(nbformat.read(copy, as_version=4))
        except Exception as error:  # whatever it was, the old page stays and the reader learns where to look
            expected = isinstance(error, (PapermillExecutionError, NotebookError))
            reason = str(error).strip() or type(error).__name__
            if isinstance(error, PapermillExecutionError):
                reason = f"cell [{error.exec_count}] failed with {error.ename}: {error.evalue}"
            if copy.exists():
                try:
                    write_atomically(failed, copy.read_bytes())
                    reason += f" (the copy with its traceback is {failed})"
                except OSError as full:
                    reason += f" (no copy is kept: {one_sentence(full)})"
            raise NotebookError(f"{notebook}: {reason}") from (None if expected else error)
        for cell in finished.cells:
            if "injected-parameters" in cell.metadata.get("tags", ()):
                cell.metadata["tags"].append("hide-input")  # as the parameters above it
        # Papermill notes where it read and wrote; those paths are this machine's business.
        for key in ("input_path", "output_path"):
            finished.metadata.get("papermill", {}).pop(key, None)
        for file in sorted(published.glob("*")):
            write_atomically(Path(figures) / file.name, file.read_bytes())
        write_atomically(output, nbformat.writes(finished) + "\n")
    failed.unlink(missing_ok=True)
