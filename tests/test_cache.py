"""A finished step is found again under what went in, and only there."""

import datetime
import hashlib
import json
import os
import platform
import resource
import shutil
import threading
import time

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_rna.cache import RunFolder, key_of, source_files, table_hash
from sae_rna.files import write_atomically
from sae_rna.parameters import Parameters
from sae_rna.sae import explained_variance as code


def test_a_finished_step_is_used_again_and_a_failed_one_leaves_nothing(tmp_path):
    run, calls = RunFolder(tmp_path / "run"), []

    def make(folder):
        calls.append(folder)
        (folder / "result.txt").write_text("done")

    first, second = (run.kept("work", {"k": 1}, make, code) for _ in range(2))
    assert first == second == run.place("work", {"k": 1}, code) and len(calls) == 1
    assert (first / "result.txt").read_text() == "done"
    assert run.kept("work", {"k": 2}, make, code) != first
    with pytest.raises(ZeroDivisionError):
        run.kept("broken", {}, lambda folder: 1 / 0, code)
    assert not [path for path in (tmp_path / "run").glob("*broken*") if path.is_dir()]


def test_of_several_steps_the_missing_ones_are_made_together_and_the_others_are_left_alone(tmp_path):
    run, made = RunFolder(tmp_path), []

    def make(folders):
        made.append(list(folders))
        for name, folder in folders.items():
            (folder / "result.txt").write_text(name)

    inputs = {name: {"k": name} for name in "abc"}
    only = run.kept_together({"b": inputs["b"]}, make, code)
    written = (only["b"] / "result.txt").stat().st_mtime_ns
    found = run.kept_together(inputs, make, code)
    assert made == [["b"], ["a", "c"]] and found["b"] == only["b"] and list(found) == list("abc")
    assert {name: (folder / "result.txt").read_text() for name, folder in found.items()} == dict(
        zip("abc", "abc")
    )
    assert (found["b"] / "result.txt").stat().st_mtime_ns == written
    assert run.kept_together(inputs, make, code) == found and len(made) == 2


@pytest.mark.parametrize("resumable", [False, True])
def test_of_several_steps_that_fail_only_resumable_ones_leave_something(tmp_path, resumable):
    run, inputs = RunFolder(tmp_path), {"a": {}, "b": {}}

    def stopped(folders):
        for folder in folders.values():
            (folder / "half.txt").write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.kept_together(inputs, stopped, code, resumable)
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == (2 if resumable else 0)
    found = {}
    look = lambda folders: found.update({n: (f / "half.txt").exists() for n, f in folders.items()})  # noqa: E731
    run.kept_together(inputs, look, code, resumable)
    assert found == {"a": resumable, "b": resumable}


def test_what_a_killed_writer_of_any_machine_left_in_a_step_is_no_part_of_it(tmp_path):
    run = RunFolder(tmp_path)

    def make(folders):
        write_atomically(folders["work"] / "table.csv", "done")

    def stopped(folders):
        make(folders)
        (folders["work"] / f".table.csv.{'0' * 8}.1a2b3c4d.tmp").mkdir()  # as `writing` of machine 0 has it
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run.kept_together({"work": {}}, stopped, code, resumable=True)
    folder = run.kept_together({"work": {}}, make, code, resumable=True)["work"]
    assert sorted(path.name for path in folder.iterdir()) == ["files.json", "inputs.json", "table.csv"]
    assert json.loads((folder / "files.json").read_text()).keys() == {"inputs.json", "table.csv"}
    assert not list(tmp_path.glob(".*.tmp"))


@pytest.mark.parametrize(
    "damage", ["other size", "other content", "empty", "gone", "all gone", "sizes", "added"]
)
def test_a_step_whose_files_are_not_those_it_was_finished_with_is_made_again(tmp_path, caplog, damage):
    run, calls = RunFolder(tmp_path), []

    def make(folder):
        calls.append(folder)
        (folder / "part").mkdir()
        (folder / "part" / "result.txt").write_text("done")

    folder = run.kept("work", {}, make, code)
    file = folder / "part" / "result.txt"
    digest = hashlib.sha256(b"done").hexdigest()
    assert json.loads((folder / "files.json").read_text())["part/result.txt"] == [4, digest]
    if damage in ("gone", "all gone"):
        shutil.rmtree(folder if damage == "all gone" else file.parent)
        folder.mkdir(exist_ok=True)
    elif damage == "sizes":
        (folder / "files.json").write_text("")
    elif damage == "added":  # by a reader, such as .DS_Store
        (folder / ".DS_Store").write_text("x")
    else:
        file.write_text({"other size": "d", "other content": "dome", "empty": ""}[damage])
    assert run.kept("work", {}, make, code) == folder and file.read_text() == "done"
    assert len(calls) == (1 if damage == "added" else 2)
    assert caplog.text.count("is made again") == len(calls) - 1
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == [folder.name]


def test_a_damaged_step_that_cannot_be_made_again_is_left_as_it_is(tmp_path):
    run = RunFolder(tmp_path)
    folder = run.kept("work", {}, lambda folder: (folder / "a.txt").write_text("a"), code)
    (folder / "a.txt").write_text("")
    with pytest.raises(ZeroDivisionError):
        run.kept("work", {}, lambda folder: 1 / 0, code)
    assert (folder / "a.txt").exists()


def test_finished_steps_are_read_where_nothing_may_be_written(tmp_path):
    run = RunFolder(tmp_path)
    folder = run.kept("work", {}, lambda folder: None, code)
    (lock,) = tmp_path.glob(".*.lock")
    lock.unlink()
    assert run.kept("work", {}, pytest.fail, code) == folder and not lock.exists()


def test_a_disk_that_is_full_when_a_step_begins_is_named_with_its_place(tmp_path):
    run, limits = RunFolder(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))  # not even the lock can be written
    try:
        with pytest.raises(OSError) as full:
            run.kept("work", {}, lambda folder: None, code)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert full.value.filename == str(tmp_path)


def test_who_waits_for_a_lock_is_told_once_for_whom_since_when_and_what_to_delete(tmp_path, caplog):
    run, made = RunFolder(tmp_path), []

    def slowly(folder):
        made.append(folder)
        started.set()
        time.sleep(2.5)

    started = threading.Event()
    first = threading.Thread(target=run.kept, args=("work", {}, slowly, code))
    first.start()
    started.wait()
    place = run.kept("work", {}, slowly, code)
    first.join()
    (said,) = [record.getMessage() for record in caplog.records]
    lock = place.with_name(f".{place.name}.lock")
    day = f"{datetime.date.today():%F}"
    assert said.startswith(
        f"waiting for process {os.getpid()} on {platform.node()}, which makes {place.name}"
    )
    assert f" since {day} " in said and said.endswith(f"if that process is gone, delete {lock}")
    assert len(made) == 1


def test_naming_a_step_asks_only_for_keys(tmp_path):
    class Expensive:
        key = {"model": "abc"}

        def __getattr__(self, name):
            raise AssertionError(f"{name} was asked for")

    assert RunFolder(tmp_path).place("work", [Expensive(), 3], code) == RunFolder(tmp_path).place(
        "work", [{"model": "abc"}, 3], code
    )


TABLE = pd.DataFrame({"id": ["a", "b"], "sequence": ["ACGU", "GG"], "split": ["train", "heldout"]})


@given(st.sampled_from(["id", "sequence", "split"]), st.integers(0, 1), st.text(min_size=1, max_size=3))
def test_the_hash_of_a_table_changes_with_every_value_and_only_then(column, row, value):
    other = TABLE.copy()
    other.loc[row, column] = value
    assert (table_hash(other) == table_hash(TABLE)) == (value == TABLE.loc[row, column])


def test_the_hash_of_a_table_knows_the_order_of_rows_and_the_names_of_columns():
    assert table_hash(TABLE) != table_hash(TABLE[::-1]) and table_hash(TABLE) != table_hash(
        TABLE.rename(columns={"id": "x"})
    )
    assert key_of({"records": TABLE, "k": (1, 2)}) == {"records": table_hash(TABLE), "k": [1, 2]}


def names(module: str) -> set[str]:
    return {".".join(path.with_suffix("").parts[-2:]) for path in source_files(module)}


def test_training_depends_on_the_code_of_training_and_extraction_and_not_on_analysis_or_figures():
    training = names("sae_rna.sae.encoding")
    assert {"sae.trainer", "sae.autoencoder", "extraction.language_model", "extraction.stream"} <= training
    assert not [
        name for name in training if name.split(".")[0] in ("analysis", "statistics", "figures", "publishing")
    ]


@pytest.mark.parametrize("page", ["fidelity", "structure_features", "type_features"])
def test_an_analysis_does_not_depend_on_figures_or_on_the_study(page):
    found = names(f"sae_rna.analysis.{page}")
    assert f"analysis.{page}" in found
    assert not [name for name in found if name.split(".")[0] == "figures" or name.endswith(".study")]


def test_a_run_records_parameters_versions_and_facts(tmp_path):
    RunFolder(tmp_path).record(Parameters(), model={"source": "m"}, data={"d": "hash"})
    content = json.loads((tmp_path / "run.json").read_text())
    assert content["parameters"]["k"] == Parameters().k and content["model"] == {"source": "m"}
    assert "torch" in content["versions"]


def test_the_record_of_a_run_that_may_only_be_read_stays_as_it_is(tmp_path, monkeypatch, caplog):
    (tmp_path / "run.json").write_text("theirs")
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK))
    RunFolder(tmp_path).record(Parameters())
    assert (tmp_path / "run.json").read_text() == "theirs"
    assert caplog.messages == [f"{tmp_path} may only be read: its run.json stays as it is"]
