"""A misspelt name or an impossible value stops with a sentence; profiles hold what they say."""

import os
import signal
import warnings
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from sae_rna.__main__ import main
from sae_rna.parameters import ARCHITECTURES, ROOT, Parameters, read_profile


@pytest.mark.parametrize(
    ("values", "remedy"),
    [
        ({"k": 0}, "greater than 0"),
        ({"k": 1.5}, "integer"),
        ({"layers": "first"}, "'all' or .* list"),
        ({"layers": []}, "at least 1 item"),
        ({"layers": [1, 0]}, "greater than 0"),
        ({"architecture": "gated"}, "'topk', 'relu-l1'"),
        ({"compared": ["relu-l1", "gated"]}, "'all' or .*'topk'"),
        ({"compared": "everything"}, "'all' or .*'topk'"),
        ({"precision": "float16"}, "'auto', 'float32' or 'bfloat16'"),
        ({"l0": -0.1}, "greater than or equal to 0"),
        ({"epochs": "two"}, "number"),
        ({"l1": -1.0}, "greater than or equal to 0"),
        ({"seed": True}, "integer"),
        ({"fold": "yes"}, "boolean"),
        ({"device": "gpu"}, "'auto', 'cpu', 'cuda' or, of several, 'cuda:1'"),
        ({"device": "cpu:0"}, "'auto', 'cpu'"),
        ({"run": True}, r"valid string \(in YAML, put it in quotes\)"),
        ({"run": "$NOT_SET/run"}, "variables that are set"),
        ({"batch": "1e-3"}, "integer"),
    ],
)
def test_impossible_values_are_refused_with_the_name_the_value_and_what_is_possible(values, remedy):
    ((name, value),) = values.items()
    with pytest.raises(ValueError, match=remedy) as refused:
        Parameters(**values)
    assert f"'{name}'" in str(refused.value) and repr(value) in str(refused.value)


def test_a_misspelt_name_is_refused_with_the_one_that_was_meant():
    with pytest.raises(ValueError, match="no parameter 'layr': did you mean 'layers'"):
        Parameters.check_names(["layr"])


def test_whole_numbers_and_scientific_notation_are_real_numbers():
    assert Parameters(epochs=2).epochs == 2.0 and isinstance(Parameters(epochs=2).epochs, float)
    assert Parameters(l1="1e-3").l1 == 0.001  # as YAML reads it


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("batch: 1e3", 1000),
        ("buffer_tokens: 400_000", 400_000),
        ("seed: 010", 10),  # YAML's own rule is 8
        ("k: 16.0", 16),
        ("layers: [1, 3]", [1, 3]),
        ("model_revision: 0123456", "0123456"),
        ("run: 2026-11-26", "2026-11-26"),
        ("run: ~/mine", f"{Path.home()}/mine"),
        ("run: $SCRATCH/mine", "/scratch/mine"),
        ("fold: yes", True),
        ("model_revision: null", None),
    ],
)
def test_a_profile_is_read_as_people_write(tmp_path, monkeypatch, text, value):
    monkeypatch.setenv("SCRATCH", "/scratch")
    (tmp_path / "mine.yml").write_text(text)
    read = getattr(Parameters.from_profile(str(tmp_path / "mine.yml")), text.partition(":")[0])
    assert read == value and type(read) is type(value)


@pytest.mark.parametrize("text", ["k: 1:30", "l1: 1:30", "seed: 0x10", "k: 1_", "false", "[]"])
def test_what_yaml_takes_for_something_else_is_refused(tmp_path, text):
    (tmp_path / "mine.yml").write_text(text)
    with pytest.raises(ValueError, match="cannot be '|must hold one 'name: value' pair a line"):
        Parameters.from_profile(str(tmp_path / "mine.yml"))


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


def test_numbers_as_people_write_them_are_read_on_the_command_line_in_profiles_and_in_notebooks(
    tmp_path, monkeypatch
):
    from sae_rna import notebook, publishing

    profile, seen = tmp_path / "mine.yml", []
    profile.write_text(f"l1: 1e-3\nepochs: 1E1\nrun: {tmp_path / 'run'}\n")
    assert Parameters.from_profile(str(profile)).l1 == 0.001
    assert Parameters.from_profile(str(profile)).epochs == 10.0
    assert notebook.start({"profile": str(profile), "l1": "2e-3"}).parameters.l1 == 0.002

    def execute(notebook, output, injected, **_):
        seen.append(notebook_start({"profile": injected.pop("profile")} | injected))

    notebook_start = notebook.start
    monkeypatch.setattr(publishing, "execute", execute)
    monkeypatch.setattr(notebook.Study, "record_run", lambda self: None)
    assert main(["notebook", "x.ipynb", "--output", "y", "--profile", str(profile), "-p", "l1", "5e-4"]) == 0
    assert seen[0].parameters.l1 == 0.0005


@pytest.mark.parametrize(
    ("slip", "said"),
    [("k: 3\n  l: [\n", "mapping values are not allowed here in line 2"), ("k: \0", "special characters")],
)
def test_a_slip_in_a_profile_is_one_sentence_with_its_line(tmp_path, capsys, slip, said):
    profile = tmp_path / "slip.yml"
    profile.write_text(slip)
    assert main(["plan", "--profile", str(profile)]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith(f"sae-rna: {profile} is no YAML that can be read: ") and shown.count("\n") == 1
    assert said in shown


@pytest.mark.parametrize(
    ("text", "lines"), [("k: 4\nl1: 1.0\nk: 8\n", (1, 3)), ("# mine\n{k: 4, 'k': 4}", (2, 2))]
)
def test_a_profile_that_names_a_parameter_twice_is_refused_with_both_lines(tmp_path, text, lines):
    (tmp_path / "mine.yml").write_text(text)
    both = "names 'k' in line {} and in line {}: delete one of them".format(*lines)
    with pytest.raises(ValueError, match=f"^{tmp_path / 'mine.yml'} {both}$"):
        read_profile(str(tmp_path / "mine.yml"))


def test_a_slip_in_a_value_is_one_sentence(capsys):
    assert main(["notebook", "x.ipynb", "--output", "y.ipynb", "-p", "layers", "[1,3"]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("sae-rna: the value '[1,3' of 'layers' is no YAML") and shown.count("\n") == 1


def test_outputs_are_tried_before_anything_runs(tmp_path, capsys, monkeypatch):
    import papermill

    monkeypatch.setattr(papermill, "execute_notebook", lambda *_, **__: pytest.fail("the notebook ran"))
    first = ROOT / "notebooks" / "01-data.ipynb"
    run = ["--profile", "smoke", "-p", "run", str(tmp_path / "run")]
    assert main(["notebook", str(first), "--output", str(tmp_path), *run]) == 1
    shown = capsys.readouterr().err
    assert shown == f"sae-rna: {tmp_path}: a file is to be written here, and this is a folder\n"
    assert main(["train", "language-model", "layers-1", "--receipt", str(tmp_path)]) == 1
    assert capsys.readouterr().err == shown


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)]
)
@pytest.mark.parametrize("trains", [True, False])
def test_a_stopped_notebook_says_where_its_training_goes_on(
    tmp_path, capsys, monkeypatch, number, status, trains
):
    from sae_rna import publishing

    folder = tmp_path / "run" / ".autoencoders-topk-x8.tmp"
    folder.mkdir(parents=True)

    def execute(*_, **__):
        if trains:  # in the notebook's own process
            facts = {"run": "", "step": "97", "members": ""}
            save_file({"x": np.zeros(1)}, folder / "checkpoint.safetensors", facts)
        os.kill(os.getpid(), number)
        pytest.fail("it was not stopped")

    monkeypatch.setattr(publishing, "execute", execute)
    run = ["--profile", "smoke", "-p", "run", str(tmp_path / "run")]
    assert main(["notebook", "x.ipynb", "--output", str(tmp_path / "y.ipynb"), *run]) == status
    where = "goes on from step 97" if trains else "uses all steps that are finished"
    assert capsys.readouterr().err == f"sae-rna: stopped; the same command {where}\n"


def test_a_run_that_is_no_folder_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    (tmp_path / "mine.yml").write_text(f"run: {tmp_path / 'file' / 'run'}\n")
    assert main(["train", "language-model", "layers-1", "--profile", str(tmp_path / "mine.yml")]) == 1
    assert capsys.readouterr().err == f"sae-rna: {tmp_path / 'file' / 'run'}: Not a directory\n"


def test_a_relative_run_is_one_place_in_the_current_folder(tmp_path, monkeypatch):
    from sae_rna import publishing
    from sae_rna.study import Study

    places = {}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(publishing, "execute", lambda *_, **given: places.update(given))
    first = ROOT / "notebooks" / "01-data.ipynb"
    assert (
        main(["notebook", str(first), "--output", "o.ipynb", "--profile", "smoke", "-p", "run", "mine"]) == 0
    )
    assert places["figures"].resolve() == tmp_path / "mine" / "figures"
    assert places["failures"].resolve() == tmp_path / "mine"
    Study(Parameters.from_profile("smoke", run="mine")).run.record(Parameters())
    assert (tmp_path / "mine" / "run.json").exists()


def test_the_architecture_shown_comes_first_and_each_has_its_sparsity():
    assert {name: Parameters().sparsity(name) for name in Parameters().architectures} == {
        "relu-l1-matched": 16,
        "relu-l1": 3e-3,
        "batchtopk": 16,
    }
    assert Parameters(architecture="relu-l1").architectures == ["relu-l1", "batchtopk"]
    everything = Parameters(architecture="jumprelu", compared="all", k=8, l1=0.1, l0=0.2)
    assert everything.architectures[0] == "jumprelu" and set(everything.architectures) == set(ARCHITECTURES)
    assert everything.sparsity("jumprelu") == 0.2 and everything.sparsity("matryoshka") == 8


def test_a_warning_of_a_command_is_one_plain_sentence(capsys, monkeypatch):
    from sae_rna import plan

    how = {"message": "2 records are skipped", "category": UserWarning, "filename": "splits.py", "lineno": 40}
    monkeypatch.setattr(plan, "report", lambda _: warnings.formatwarning(**how))
    assert main(["plan", "--profile", "smoke"]) == 0
    assert capsys.readouterr().out.rstrip("\n") == "sae-rna: 2 records are skipped"
