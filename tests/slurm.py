"""A Slurm cluster of one node on this machine, for as long as a test or a command takes.

``python tests/slurm.py COMMAND ...`` runs a command that finds such a cluster, for example the workflow with
``snakemake --workflow-profile profiles/slurm``. Debian's packages slurm-wlm and munge have to be installed;
root on Debian gets them. The cluster has no accounting database, as small ones have none: finished jobs are
in ``squeue --states all`` and in the job log.
"""

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "munged", "sbatch", "srun")
PATH = f"{os.environ['PATH']}:/usr/sbin:/sbin"
CONFIGURATION = """
ClusterName=trial
SlurmctldHost={host}(127.0.0.1)
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
# Neither cgroups nor a database, so that it runs in any container.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SwitchType=switch/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobs.log
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2
ReturnToService=2
MinJobAge=3600
KillWait=5
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory}
PartitionName=all Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


class NoSlurm(Exception):
    """Slurm cannot be had here; the message says why."""


@dataclass(frozen=True)
class Cluster:
    """A running cluster: `environment` is what a command needs to find it."""

    folder: Path
    environment: dict[str, str]

    def run(self, *command: str) -> str:
        """Standard output of a command that finds the cluster; CalledProcessError where it fails."""
        return subprocess.run(
            command, env=self.environment, check=True, capture_output=True, text=True
        ).stdout

    def jobs(self) -> list[dict[str, str]]:
        """All jobs so far in order of submission.

        Each with its `id`, `state`, `cpus`, `memory`, the `time` it ran, and `rule`, Snakemake's comment of
        rule and wildcards.
        """
        names = ("id", "state", "cpus", "memory", "time", "rule")
        lines = self.run(
            "squeue", "--states=all", "--noheader", "--sort=i", "--format=%i|%T|%C|%m|%M|%k"
        ).splitlines()
        return [dict(zip(names, line.split("|"))) for line in lines]

    def log(self) -> list[dict[str, str]]:
        """The finished jobs in Slurm's own log, by its names of fields such as JobId and JobState."""
        file = self.folder / "jobs.log"
        lines = file.read_text().splitlines() if file.exists() else []
        return [dict(field.split("=", 1) for field in line.split() if "=" in field) for line in lines]

    def processes(self) -> list[tuple[str, int]]:
        """(job, process id) of all processes of running jobs."""
        found = []
        for job in self.run("squeue", "--states=RUNNING", "--noheader", "--format=%i").split():
            with suppress(subprocess.CalledProcessError):  # it has ended in the meantime
                lines = self.run("scontrol", "listpids", job).splitlines()[1:]
                found += [(job, int(line.split()[0])) for line in lines]
        return found


@contextmanager
def one_node():
    """A `Cluster` that ends with the context. Raises NoSlurm where its programs are missing or do not come
    up."""
    _install()
    with tempfile.TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        folder.chmod(0o755)  # munge wants its socket reachable
        for part in ("state", "spool"):
            (folder / part).mkdir()
        key, configuration = folder / "munge.key", folder / "slurm.conf"
        key.touch(0o600)
        key.write_bytes(secrets.token_bytes(128))
        cpus = len(os.sched_getaffinity(0))
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2**20
        user, host = (
            subprocess.check_output(["id", "-un"], text=True).strip(),
            socket.gethostname().split(".")[0],
        )
        configuration.write_text(
            CONFIGURATION.format(
                folder=folder, user=user, host=host, cpus=cpus, memory=memory, ports=_free_ports(2)
            ).lstrip()
        )
        srun = folder / "bin/srun"  # in a job, Snakemake's plugin forgets SLURM_CONF before it calls srun
        srun.parent.mkdir()
        srun.write_text(
            f'#!/bin/sh\nSLURM_CONF={configuration} exec {shutil.which("srun", path=PATH)} "$@"\n'
        )
        srun.chmod(0o755)
        inherited = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("SLURM_", "SBATCH_", "SRUN_"))
        }
        environment = inherited | {"PATH": f"{srun.parent}:{PATH}", "SLURM_CONF": str(configuration)}
        cluster = Cluster(folder, environment)
        munge = [
            f"--{what}={folder}/munge.{what.split('-')[0]}"
            for what in ("socket", "key-file", "pid-file", "log-file", "seed-file")
        ]
        commands = (
            ["munged", "--foreground", "--force", *munge],
            ["slurmctld", "-D", "-c", "-f", str(configuration)],
            ["slurmd", "-D", "-c", "-f", str(configuration), "-N", host],
        )
        daemons = []
        try:
            for command in commands:
                with (folder / f"{command[0]}.out").open("w") as output:
                    daemons.append(
                        subprocess.Popen(command, env=environment, stdout=output, stderr=subprocess.STDOUT)
                    )
                if command[0] == "munged":
                    _wait(lambda: (folder / "munge.socket").exists(), folder, daemons)
            _wait(
                lambda: cluster.run("sinfo", "--noheader", "--format=%T").strip() == "idle", folder, daemons
            )
            yield cluster
        finally:
            with suppress(subprocess.CalledProcessError, NoSlurm):
                cluster.run("scancel", f"--user={user}")
                _wait(lambda: not cluster.run("squeue", "--noheader"), folder, daemons)
            for daemon in reversed(daemons):
                daemon.terminate()
            for daemon in daemons:
                daemon.wait(timeout=30)


def _install():
    missing = [program for program in PROGRAMS if shutil.which(program, path=PATH) is None]
    if not missing:
        return
    if os.geteuid() or shutil.which("apt-get") is None:
        raise NoSlurm(f"{missing[0]} is not installed (Debian: apt-get install slurm-wlm munge)")
    for command in (["update"], ["install", "-y", "--no-install-recommends", "slurm-wlm", "munge"]):
        result = subprocess.run(
            ["apt-get", "-qq", *command],
            env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"},
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if result.returncode:
            raise NoSlurm(f"apt-get {command[0]} failed: {result.stdout[-500:]}")


def _free_ports(number: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [item.getsockname()[1] for item in sockets]
    for item in sockets:
        item.close()
    return ports


def _wait(ready, folder: Path, daemons: list[subprocess.Popen], seconds: float = 60):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(subprocess.CalledProcessError):
            if ready():
                return
        if any(daemon.poll() is not None for daemon in daemons):
            break
        time.sleep(0.2)
    logs = "\n".join(
        f"{path.name}: {path.read_text(errors='replace')[-1000:]}" for path in sorted(folder.glob("*d.[ol]*"))
    )
    raise NoSlurm(f"the one-node cluster did not come up:\n{logs}")


if __name__ == "__main__":
    with one_node() as running:
        status = subprocess.run(sys.argv[1:], env=running.environment).returncode
        print(
            running.run("squeue", "--states=all", "--sort=i", "--format=%6i %10T %4C %8m %8M %k"),
            end="",
            file=sys.stderr,
        )
    sys.exit(status)
