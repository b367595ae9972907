"""The workflow on a real Slurm cluster of one node: its jobs, and what becomes of one that is killed.

It takes minutes, and as root on Debian it installs Slurm, so it has to be asked for: ``SAE_RNA_SLURM=1 pytest
tests/test_slurm.py``.
"""

import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml
from safetensors import safe_open
from safetensors.torch import load_file
from slurm import Cluster, NoSlurm, one_node
from test_book import copy_project

from sae_rna.parameters import MODELS, Parameters, layer_groups, model_shape

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        "SAE_RNA_SLURM" not in os.environ, reason="starts a Slurm cluster of its own: set SAE_RNA_SLURM=1"
    ),
]
PATIENCE_SECONDS = 1800
CHANGES = {"compared": ["relu-l1"], "epochs": 6, "layer_group": 2}
"""To the smoke profile: two groups of layers, and long enough to be killed in the middle."""
#: The cluster of the test has no accounting, answers at once and shares a disk with itself.
SETTINGS = (
    *(
        "--workflow-profile",
        "profiles/slurm",
        "--slurm-status-command",
        "squeue",
        "--slurm-keep-successful-logs",
    ),
    *("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "5"),
)


@dataclass(frozen=True)
class Victim:
    """A training process that was killed."""

    job: str
    """Slurm's number of its job."""
    model: str
    """Whose hidden states it read, of `MODELS`."""
    layers: str
    step: int
    """Training step of the checkpoints that it left, the least of them."""

    @property
    def names(self) -> list[str]:
        """Of the steps in the run folder that it worked at."""
        p = Parameters.from_profile("smoke", **CHANGES)
        return [f"autoencoders-{variant.name}-{self.layers}" for variant in p.variants[self.model]]


@dataclass(frozen=True)
class Trial:
    """Autoencoders trained by Slurm, one of the jobs killed, and that one's work done again undisturbed."""

    project: Path
    jobs: list[dict]
    log: list[dict]
    victim: Victim

    def rule_of(self, job: str) -> str:
        return next(line["rule"] for line in self.jobs if line["id"] == job)

    def output(self, job: str) -> str:
        (file,) = self.project.glob(f".snakemake/slurm_logs/**/{job}.log")
        return file.read_text(errors="replace")


@pytest.fixture(scope="module")
def trial(tmp_path_factory) -> Trial:
    if find_spec("snakemake_executor_plugin_slurm") is None:
        pytest.fail(
            "Snakemake has no plug-in for Slurm: pip install snakemake-executor-plugin-slurm", pytrace=False
        )
    project = copy_project(tmp_path_factory.mktemp("slurm"))
    training = project / "sae_rna/training.py"
    often = re.sub(r"(checkpoint_seconds: float) = \d+", r"\1 = 0", training.read_text())
    assert often != training.read_text()
    training.write_text(often)
    smoke = yaml.safe_load((project / "profiles/smoke.yml").read_text()) | CHANGES
    for name in ("disturbed", "undisturbed"):
        (project / f"profiles/{name}.yml").write_text(yaml.safe_dump(smoke | {"run": f"runs/{name}"}))
    targets = receipts(project)
    try:
        with one_node() as cluster:
            workflow = _snakemake(
                project, cluster.environment, *targets, *SETTINGS, "--config", "profile=disturbed"
            )
            try:
                victim = _kill_one(cluster, project / "runs/disturbed", workflow)
                _finish(workflow, project)
            finally:
                workflow.kill()
            jobs, log = cluster.jobs(), cluster.log()
    except NoSlurm as error:
        pytest.fail(str(error), pytrace=False)
    target = f"runs/undisturbed/done/{victim.model}.{victim.layers}.trained.json"
    _finish(
        _snakemake(project, dict(os.environ), target, "--cores", "1", "--config", "profile=undisturbed"),
        project,
    )
    return Trial(project, jobs, log, victim)


def receipts(project: Path) -> list[str]:
    """Files that say that a group of layers is trained: on both models, in two groups."""
    p = Parameters.from_profile(str(project / "profiles/disturbed.yml"))
    groups = layer_groups(p, model_shape(p)[0])
    return [f"{p.run}/done/{model}.{layers}.trained.json" for model in MODELS for layers in groups]


def _snakemake(project: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen:
    path = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment = environment | {"PATH": path, "PYTHONPATH": str(project), "SAE_RNA_ROOT": str(project)}
    with (project / "snakemake.out").open("a") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "snakemake", *arguments],
            cwd=project,
            env=environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )


def _finish(workflow: subprocess.Popen, project: Path):
    if workflow.wait(PATIENCE_SECONDS):
        pytest.fail(f"the workflow failed:\n{(project / 'snakemake.out').read_text()[-3000:]}", pytrace=False)


def _kill_one(cluster: Cluster, run: Path, workflow: subprocess.Popen) -> Victim:
    """Kill the first training process that has done ten steps, as the kernel does when memory runs out."""
    end = time.monotonic() + PATIENCE_SECONDS
    while workflow.poll() is None and time.monotonic() < end:
        for job, pid in cluster.processes():
            seen = Victim(job, *_training(pid), step=0) if _training(pid) else None
            if seen and _step(run, seen) >= 10:
                os.kill(pid, signal.SIGKILL)
                return replace(seen, step=_step(run, seen))
        time.sleep(0.2)
    pytest.fail(
        f"no training process was there to be killed:\n{(run.parents[1] / 'snakemake.out').read_text()[-3000:]}",
        pytrace=False,
    )


def _training(pid: int) -> list[str]:
    """Model and group of layers of a process if it is `python -m sae_rna train`, else nothing."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return words[4:6] if words[1:4] == ["-m", "sae_rna", "train"] else []


def _step(run: Path, victim: Victim) -> int:
    """The least step of its checkpoints, 0 until all are there."""
    steps = []
    for name in victim.names:
        for checkpoint in run.glob(f".{name}-*.tmp/checkpoint.safetensors"):
            with safe_open(checkpoint, "pt") as file:
                steps.append(int(file.metadata()["step"]))
    return min(steps) if len(steps) == len(victim.names) else 0


def test_every_group_of_layers_is_a_job_of_slurm(trial):
    expected = receipts(trial.project)
    assert len(expected) == 4 and all((trial.project / receipt).is_file() for receipt in expected)
    assert sum(job["state"] == "COMPLETED" for job in trial.jobs) == len(expected)
    assert all(job["rule"].startswith("rule_autoencoders_wildcards_") for job in trial.jobs)


def test_slurms_own_log_knows_the_same_jobs(trial):
    assert {line["JobId"]: line["JobState"] for line in trial.log} == {
        job["id"]: job["state"] for job in trial.jobs
    }


def test_slurm_is_asked_for_what_the_rule_declares(trial):
    planned = (trial.project / "snakemake.out").read_text()
    assert {job["memory"] for job in trial.jobs} == {
        f"{size}M" for size in re.findall(r"mem_mb=(\d+)", planned)
    }
    assert {line["TimeLimit"] for line in trial.log} == set(re.findall(r"runtime=(\d+)", planned))
    assert {job["cpus"] for job in trial.jobs} == {"2"}


def test_a_killed_job_is_submitted_again_once(trial):
    states = [(job["state"], job["rule"]) for job in trial.jobs]
    rule = trial.rule_of(trial.victim.job)
    assert [state for state, of in states if of == rule] == ["FAILED", "COMPLETED"]
    assert [of for state, of in states if state != "COMPLETED"] == [rule]


def test_it_goes_on_from_its_checkpoint(trial):
    rule = trial.rule_of(trial.victim.job)
    second = [job["id"] for job in trial.jobs if job["rule"] == rule][-1]
    assert "goes on" not in trial.output(trial.victim.job)
    (step, steps) = map(int, re.search(r"goes on from step (\d+) of (\d+)", trial.output(second)).groups())
    assert (
        trial.victim.step <= step <= trial.victim.step + 1 < steps
    )  # a checkpoint may have been ready that was not yet in its place


def test_it_ends_with_the_very_weights_of_a_run_that_was_not_killed(trial):
    disturbed, undisturbed = (
        {
            (name, file.name): load_file(file)
            for name in trial.victim.names
            for file in (trial.project / "runs" / run).glob(f"{name}-*/*.safetensors")
        }
        for run in ("disturbed", "undisturbed")
    )
    assert disturbed.keys() == undisturbed.keys() and {name for name, _ in disturbed} == set(
        trial.victim.names
    )
    for file, tensors in disturbed.items():
        assert tensors.keys() == undisturbed[file].keys()
        assert all(tensor.equal(undisturbed[file][part]) for part, tensor in tensors.items()), file
