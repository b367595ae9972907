"""Source notebooks: few explained parameters with their defaults, no logic, no outputs; a misspelt name stops
them."""

import ast
from dataclasses import asdict

import nbformat
import pytest

from sae_rna.notebook import start
from sae_rna.parameters import ROOT, Parameters

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


def code_cells(path) -> list:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_parameter_cell_explains_the_profile_and_few_parameters_and_holds_the_defaults(path):
    cell = code_cells(path)[0]
    assert "parameters" in cell.metadata.tags
    values, defaults = {}, asdict(Parameters()) | {"profile": "default"}
    exec(cell.source, {}, values)
    assert list(values)[0] == "profile" and 5 <= len(values) - 1 <= 8
    assert values == {name: defaults[name] for name in values}
    lines = cell.source.splitlines()
    for number, line in enumerate(lines):
        if not line.startswith("#") and line.strip():
            assert "#" in line or lines[number - 1].startswith("#"), f"{line} is not explained"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_opens_with_its_question_and_holds_no_logic_and_no_output(path):
    assert "?" in nbformat.read(path, 4).cells[0].source
    logic = (ast.FunctionDef, ast.ClassDef, ast.For, ast.While, ast.Lambda)
    for cell in code_cells(path):
        assert not cell.outputs
        assert not any(isinstance(node, logic) for node in ast.walk(ast.parse(cell.source)))


def test_a_notebook_stops_at_a_name_that_papermill_injected_by_mistake():
    with pytest.raises(ValueError, match="did you mean 'expansion'"):
        start({"expansoin": 4, "In": [], "_hidden": 1})


@pytest.mark.parametrize(
    ("cell", "injected", "expected"),
    [
        ({"k": 16}, None, 4),  # as it stands in the notebook: the profile's value
        ({"k": 5}, None, 5),  # changed by hand
        ({"k": 16}, "# Parameters\nk = 16\n", 16),  # given to papermill, though it is the default
        ({}, None, 4),
    ],
)
def test_a_value_replaces_the_profiles_if_it_is_given_or_is_not_the_default(
    tmp_path, cell, injected, expected
):
    profile = tmp_path / "mine.yml"
    profile.write_text(f"k: 4\nrun: {tmp_path / 'run'}\n")
    cells = ["", "k = 16", *([injected] if injected else [])]
    study = start({"profile": str(profile), "In": cells} | cell)
    assert study.parameters.k == expected and (tmp_path / "run" / "run.json").exists()
