"""A misspelt name or an impossible value stops with a sentence; profiles hold what they say."""

import ast
import dataclasses
import json

import nbformat
import pytest

from sae_rna.__main__ import main
from sae_rna.cache import RunFolder
from sae_rna.notebook import parameters_cell, start
from sae_rna.parameters import ARCHITECTURES, ROOT, Parameters, read_profile

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"k": 0}, "'k' must be positive"),
        ({"k": 1.5}, "'k' must be of type int"),
        ({"layers": "first"}, "list of block numbers"),
        ({"layers": []}, "at least one block"),
        ({"architecture": "gated"}, "'architecture' must be topk or relu-l1 or relu-l1-mean"),
        ({"compared": ["relu-l1", "gated"]}, "'compared' must be topk .* not 'gated'"),
        ({"compared": "everything"}, "'compared' must be .* not 'everything'"),
        ({"precision": "float16"}, "'precision' must be auto, float32 or bfloat16"),
        ({"l0": -0.1}, "'l0' must not be negative"),
        ({"epochs": "two"}, "'epochs' must be of type float"),
        ({"l1": -1.0}, "must not be negative"),
        ({"seed": True}, "'seed' must be of type int"),
    ],
)
def test_impossible_values_are_refused(values, message):
    with pytest.raises(ValueError, match=message):
        Parameters(**values)


def test_a_misspelt_name_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match="no parameter 'layr': did you mean 'layers'"):
        Parameters.check_names(["layr"])


def test_a_notebook_stops_at_a_name_that_papermill_injected_by_mistake():
    with pytest.raises(ValueError, match="did you mean 'expansion'"):
        start({"expansoin": 4, "In": [], "_hidden": 1})


def test_whole_numbers_are_taken_for_real_ones():
    assert Parameters(epochs=2).epochs == 2.0


@pytest.mark.parametrize("profile", ["default", "smoke", "paper"])
def test_shipped_profiles_are_valid(profile):
    assert Parameters.from_profile(profile).run == f"runs/{profile}"


def test_the_paper_profile_asks_for_giga_and_the_hubs_data():
    parameters = Parameters.from_profile("paper")
    assert parameters.model == "multimolecule/rinalmo-giga"
    assert (
        parameters.structures == "multimolecule/bprna-90" and parameters.types == "multimolecule/rnacentral"
    )
    assert parameters.expansion * 1280 > 7783  # the paper's hairpin feature has this number


def test_an_unknown_profile_and_a_misspelt_name_in_one_are_refused(tmp_path):
    with pytest.raises(ValueError, match="no profile 'papr'.*default"):
        read_profile("papr")
    (tmp_path / "mine.yml").write_text("modle: x\n")
    with pytest.raises(ValueError, match="did you mean 'model'"):
        read_profile(str(tmp_path / "mine.yml"))


def test_the_command_line_ends_in_one_sentence(capsys, tmp_path):
    assert (
        main(
            ["notebook", "notebooks/01-data.ipynb", "--output", str(tmp_path / "x.ipynb"), "-p", "layr", "5"]
        )
        == 1
    )
    assert capsys.readouterr().err == "sae-rna: there is no parameter 'layr': did you mean 'layers'?\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_explain_every_parameter_with_its_default_and_hold_no_logic_and_no_output(path):
    notebook = nbformat.read(path, 4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert code[0].metadata.tags[0] == "parameters"
    assert code[0].source == parameters_cell([item.name for item in dataclasses.fields(Parameters)])
    for cell in code:
        assert not cell.outputs
        assert not any(
            isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.For, ast.While))
            for node in ast.walk(ast.parse(cell.source))
        )


def test_the_parameter_cell_runs_and_gives_the_defaults():
    namespace = {}
    exec(parameters_cell([item.name for item in dataclasses.fields(Parameters)]), namespace)
    namespace.pop("__builtins__")
    assert Parameters(**namespace) == Parameters()


def test_a_finished_step_is_used_again_and_a_failed_one_leaves_nothing(tmp_path):
    run, calls = RunFolder(tmp_path / "run"), []

    def make(folder):
        calls.append(folder)
        (folder / "result.txt").write_text("done")

    first, second = run.step("work", "features", {"k": 1}, make), run.step("work", "features", {"k": 1}, make)
    assert first == second and len(calls) == 1 and (first / "result.txt").read_text() == "done"
    assert run.step("work", "features", {"k": 2}, make) != first
    with pytest.raises(ZeroDivisionError):
        run.step("broken", "features", {}, lambda folder: 1 / 0)
    assert not [path for path in (tmp_path / "run").glob("*broken*") if path.is_dir()]


def test_of_several_steps_the_missing_ones_are_made_together_and_the_others_are_left_alone(tmp_path):
    run, made = RunFolder(tmp_path), []

    def make(folders):
        made.append(list(folders))
        for name, folder in folders.items():
            (folder / "result.txt").write_text(name)

    keys = {name: {"k": name} for name in "abc"}
    only = run.steps({"b": keys["b"]}, "features", make)
    written = (only["b"] / "result.txt").stat().st_mtime_ns
    found = run.steps(keys, "features", make)
    assert made == [["b"], ["a", "c"]] and found["b"] == only["b"] and list(found) == list("abc")
    assert {name: (folder / "result.txt").read_text() for name, folder in found.items()} == {
        name: name for name in "abc"
    }
    assert (found["b"] / "result.txt").stat().st_mtime_ns == written
    assert run.steps(keys, "features", make) == found and len(made) == 2


@pytest.mark.parametrize("resumable", [False, True])
def test_of_several_steps_that_fail_only_resumable_ones_leave_something(tmp_path, resumable):
    run = RunFolder(tmp_path)

    def stopped(folders):
        for folder in folders.values():
            (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.steps({"a": {}, "b": {}}, "features", stopped, resumable)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == (2 if resumable else 0)
    found = {}
    run.steps(
        {"a": {}, "b": {}},
        "features",
        lambda folders: found.update({n: (f / "half.txt").exists() for n, f in folders.items()}),
        resumable,
    )
    assert found == {"a": resumable, "b": resumable}


def test_a_run_records_parameters_versions_and_facts(tmp_path):
    RunFolder(tmp_path).record(Parameters(), model={"source": "m"}, data={"d": "hash"})
    content = json.loads((tmp_path / "run.json").read_text())
    assert (
        content["parameters"]["k"] == Parameters().k
        and content["model"] == {"source": "m"}
        and "torch" in content["versions"]
    )


def test_the_architecture_shown_comes_first_and_each_has_its_sparsity():
    assert {name: Parameters().sparsity(name) for name in Parameters().architectures} == {
        "topk": 16,
        "relu-l1": 3e-3,
        "relu-l1-mean": 3e-3,
    }
    assert Parameters(architecture="relu-l1").architectures == ["relu-l1", "relu-l1-mean"]
    everything = Parameters(architecture="jumprelu", compared="all", k=8, l1=0.1, l0=0.2)
    assert everything.architectures[0] == "jumprelu" and set(everything.architectures) == set(ARCHITECTURES)
    assert everything.sparsity("jumprelu") == 0.2 and everything.sparsity("matryoshka") == 8
