"""What `make book` does beside its rules: the environment's place, one build at a time, Ctrl-C, faults."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pandas as pd
import pytest

from sae_rna import build
from sae_rna.publishing import publish

ROOT = Path(__file__).resolve().parents[1]
WORKFLOW = """
from sae_rna import build
build.begin(["made/1"])
onstart: build.stop_at_signals()
rule all: output: "made/1"; shell: "echo $$ > job; {wait}; echo done > {output}"
""".replace("; shell", "\n    shell").replace("all: output", "all:\n    output")


@pytest.fixture
def start(tmp_path):
    """Starts a build of one rule, which waits so many seconds, and returns when its job runs."""

    def start(wait: str, until: str = "job") -> subprocess.Popen:
        (tmp_path / "Snakefile").write_text(WORKFLOW.replace("{wait}", wait))
        command = [sys.executable, "-m", "snakemake", "--cores", "1", "--rerun-incomplete", "--quiet", "all"]
        pipes: dict = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=tmp_path, start_new_session=True, env=environment, **pipes)
        while not (tmp_path / until).exists() and process.poll() is None:
            time.sleep(0.05)
        return process

    return start


def test_a_build_that_was_killed_goes_on(start, tmp_path):
    killed = start("sleep 600")
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    assert list((tmp_path / ".snakemake/locks").iterdir()), "Snakemake's lock has outlived its process"
    again = start("true")
    _, said = again.communicate()
    assert again.returncode == 0, said
    assert (tmp_path / "made/1").read_text() == "done\n"


def test_a_second_build_waits_for_the_first_and_says_so(start, tmp_path):
    wait = "while [ ! -e go ]; do sleep 0.1; done"
    first, second = start(wait), start(wait)
    said = iter(second.stderr.readline, "")
    line = next(line for line in said if "waiting" in line)
    assert line.startswith(f"waiting for process {first.pid} on ") and ", which makes the book since" in line
    (tmp_path / "go").touch()
    assert first.wait() == second.wait() == 0 and "Error" not in "".join(said)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("whole_group", [True, False])
def test_a_signal_ends_build_and_jobs_in_one_line(start, tmp_path, number, whole_group):
    process = start("sleep 600")
    (os.killpg if whole_group else os.kill)(process.pid, number)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    lines = [line for line in said.splitlines() if line]
    assert lines[-1] == "sae-rna: stopped; the same command uses all that is finished and goes on"
    assert "Traceback" not in said and "Error" not in said
    job = int((tmp_path / "job").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(job, 0)
    again = start("true")
    assert again.wait() == 0 and (tmp_path / "made/1").exists()


def test_a_build_that_cannot_write_says_where_before_anything_runs(start, tmp_path):
    (tmp_path / "made").write_text("a file")
    process = start("true")
    _, said = process.communicate()
    assert process.returncode == 1 and not (tmp_path / "job").exists()
    assert said.splitlines()[-1].endswith("made: Not a directory") and "Traceback" not in said


def test_the_files_of_a_notebook_are_known_before_it_runs(tmp_path, monkeypatch):
    import altair as alt

    monkeypatch.setenv("SAE_RNA_FIGURES", str(tmp_path / "figures"))
    table = pd.DataFrame({"x": [1.0, 2.0]})
    publish("fig-one", alt.Chart(table).mark_point().encode(x="x:Q"), table)
    publish("tab-two", table)
    code = ["# publish(\n#    'fig-none')\npublish(\n    \"fig-one\",\n)", 'publish("tab-two", table)']
    cells = [{"cell_type": "code", "source": [text]} for text in code]
    (tmp_path / "a.ipynb").write_text(
        json.dumps({"cells": [{"cell_type": "markdown", "source": []}, *cells]})
    )
    written = sorted(file.name for file in (tmp_path / "figures").iterdir())
    assert sorted(build.published(tmp_path / "a.ipynb")) == written


# ---- the environment


def make(folder: Path, *arguments: str) -> str:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True).stdout


def activated(folder: Path) -> subprocess.CompletedProcess:
    script = ". .venv/bin/activate && command -v python"
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True)


@pytest.mark.parametrize("way", ["moved", "copied"])
def test_an_environment_from_elsewhere_is_recognised(tmp_path, way):
    here, there = tmp_path / "my clone", tmp_path / "other"
    here.mkdir()
    for name in ("Makefile", "requirements.lock", "pyproject.toml"):
        shutil.copy(ROOT / name, here)
    commands = make(here, "-n", "setup").splitlines()
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=here, check=True)
    (check,) = [line for line in commands if line.startswith("printf")]
    subprocess.run(["bash", "-c", check], cwd=here, check=True)
    (here / ".venv/.ready").touch()
    assert "Nothing to be done" in make(here, "-n", "setup")
    assert activated(here).stdout == f"{here}/.venv/bin/python\n"

    here.rename(there) if way == "moved" else shutil.copytree(here, there, symlinks=True)
    assert "-m venv --clear .venv" in make(there, "-n", "setup")
    result = activated(there)
    assert result.returncode == 1 and result.stdout == ""
    (said,) = result.stderr.splitlines()
    assert said.startswith(f"This environment was made for {here}/.venv") and "make setup" in said
