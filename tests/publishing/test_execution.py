"""Running a notebook for the book."""

import json
import os
from pathlib import Path

import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_notebook

from sae_rna.files import write_atomically
from sae_rna.publishing import NotebookError, execute
from sae_rna.publishing.outputs import FIGURES

SETTINGS = 'layers = [1]  # blocks\nname: str = "nano"'


WORK = "import pandas as pd\nfrom sae_rna.publishing import publish\ntable = pd.DataFrame({'layer': layers})"


WORDS = 'caption="{n} layers of {name}.", alt="{n} layers"'


PUBLISH = f'publish("tab-layers", table, {WORDS}, n=len(table), name=name)'


def write_notebook(path: Path, *sources: str, settings: str | None = SETTINGS) -> Path:
    cells = [new_code_cell(settings, metadata={"tags": ["parameters"]})] if settings else []
    cells += [new_code_cell(source) for source in sources]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(new_notebook(cells=cells, metadata=kernel), path)
    return path


def test_a_notebook_runs_with_its_parameters_and_fills_its_captions(tmp_path, capfd):
    notebook = write_notebook(tmp_path / "toy.ipynb", WORK, PUBLISH)
    output, figures = tmp_path / "book" / "executed" / "toy.ipynb", tmp_path / "figures"
    before = os.environ.get(FIGURES)
    stale = tmp_path / "failed" / "toy.failed.ipynb"
    write_atomically(stale, "an older failure")
    execute(notebook, output, {"layers": [1, 5, 33]}, figures, failures=tmp_path / "failed")
    result = nbformat.read(output, as_version=4)
    nbformat.validate(result)
    (given,) = (cell.metadata.tags for cell in result.cells if "layers = [1, 5, 33]" in cell.source)
    assert given == ["injected-parameters", "hide-input"]
    last = result.cells[-1]
    assert last.metadata.mystnb.figure.caption == "3 layers of nano."
    assert last.metadata.mystnb.image.alt == "3 layers"
    assert [o.output_type for cell in result.cells if cell.cell_type == "code" for o in cell.outputs] == [
        "display_data"
    ]
    assert pd.read_csv(figures / "tab-layers.csv").layer.tolist() == [1, 5, 33]
    assert [path.name for path in output.parent.iterdir()] == ["toy.ipynb"]
    assert os.environ.get(FIGURES) == before
    assert not stale.exists()
    assert "/tmp" not in json.dumps(result.metadata)
    shown = capfd.readouterr()
    assert "WARNING" not in shown.err and shown.out == ""


def test_a_failure_names_its_cell_and_leaves_page_and_files_as_they_were(tmp_path):
    notebook = write_notebook(
        tmp_path / "toy.ipynb", WORK, PUBLISH, "record = 'RF1'\nraise ValueError(f'{record}: no structure')"
    )
    output, figures = tmp_path / "executed" / "toy.ipynb", tmp_path / "figures"
    write_atomically(output, "the old page")
    write_atomically(figures / "tab-layers.csv", "the old table")
    with pytest.raises(
        NotebookError,
        match=r"toy.ipynb: cell \[\d\] failed with ValueError: RF1: no structure .*toy.failed.ipynb",
    ):
        execute(notebook, output, {}, figures, failures=tmp_path / "failed")
    assert output.read_text() == "the old page"
    assert (figures / "tab-layers.csv").read_text() == "the old table"
    assert [path.name for path in output.parent.iterdir()] == ["toy.ipynb"]
    assert "RF1: no structure" in (tmp_path / "failed" / "toy.failed.ipynb").read_text()


def test_a_caption_that_cannot_be_filled_is_a_failure_too(tmp_path):
    notebook = write_notebook(
        tmp_path / "toy.ipynb", WORK, f'publish("tab-layers", table, {WORDS}, name=name)'
    )
    with pytest.raises(NotebookError, match=r"toy.ipynb: .*figure tab-layers: .*\{n\}"):
        execute(
            notebook,
            tmp_path / "executed" / "toy.ipynb",
            {},
            tmp_path / "figures",
            failures=tmp_path / "failed",
        )
    assert not (tmp_path / "executed").exists() and not (tmp_path / "figures").exists()


def test_a_parameter_that_the_notebook_understands_without_naming_it_is_given(tmp_path, capfd):
    work = WORK.replace("layers}", "layers * globals().get('repeats', 1)}")
    notebook, figures = write_notebook(tmp_path / "toy.ipynb", work, PUBLISH), tmp_path / "figures"
    places = {"output": tmp_path / "executed" / "toy.ipynb", "failures": tmp_path / "failed"}
    execute(notebook, parameters={"repeats": 3}, figures=figures, **places)
    assert pd.read_csv(figures / "tab-layers.csv").layer.tolist() == [1, 1, 1]
    assert "repeats" not in capfd.readouterr().err  # papermill would warn of it


@pytest.mark.parametrize("place", ["output", "figures", "failures"])
def test_every_place_that_is_written_to_is_tried_before_anything_runs(tmp_path, place):
    (tmp_path / "file").write_text("no folder")
    places = {"output": tmp_path / "toy.ipynb", "figures": tmp_path, "failures": tmp_path}
    places[place] = tmp_path / "file" / "toy"
    with pytest.raises(NotADirectoryError):
        execute(tmp_path / "there-is-no.ipynb", parameters={}, **places)


def test_a_failure_is_said_where_its_copy_cannot_be_kept_too(tmp_path):
    failed = tmp_path / "toy.failed.ipynb"
    cell = f"import os\nos.mkdir('{failed}')\nraise ValueError('no structure')"
    notebook = write_notebook(tmp_path / "toy.ipynb", cell)
    with pytest.raises(NotebookError, match=f"no structure .no copy is kept: {failed}: Is a directory.$"):
        execute(notebook, tmp_path / "executed" / "toy.ipynb", {}, tmp_path / "figures", failures=tmp_path)
