"""A run that is killed, or whose disk is full, ends in the very bits of one that nobody disturbed."""

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("disturbed.py")
TIMES = 20


@pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="processor times of other processes: Linux only"
)
def test_a_disturbed_run_that_is_given_again_ends_in_the_same_tables_and_weights(tmp_path):
    rows = tmp_path / "rows.json"
    options = [
        "--tiny",
        "--times",
        str(TIMES),
        "--each",
        str(TIMES),
    ]  # in one run, which is to be finished once
    command = [sys.executable, PROGRAM, *options, "--rows", rows]
    path = os.pathsep.join([str(PROGRAM.parents[2]), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True)
    assert rows.exists(), done.stderr[-3000:]
    found = json.loads(rows.read_text())
    assert len(found["rows"]) >= TIMES
    assert {row["outcome"] for row in found["rows"]} == {"equal"}, done.stderr[-3000:]
    assert not [row for row in found["rows"] if row.get("fault")]
    # What was compared: weights, activations and summaries of both models, an analysis, and figures' data.
    kinds = Counter(Path(name).parts[2].split("-")[0] for name in found["expected"])
    assert {"autoencoders", "features", "structure", "figures"} <= kinds.keys()
