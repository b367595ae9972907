"""A run that is disturbed again and again, killed or its disk full, and given again until it is finished.

    python tests/faults/disturbed.py --times 200 --book --results benchmarks/results/faults.md

One run is disturbed many times in a row, at moments that its seed draws, then it finishes and is compared
with a run that nobody disturbed: tables, weights, activations and the figures' data, bit by bit, and which
files there are. Moments are shares of the processor time that the same command took undisturbed, so that
other jobs on the machine do not move them; some kills come between writing a file and renaming it. Commands
are forked from this process, which has imported everything: an import takes seconds, in which nothing can be
lost. Only notebooks' kernels and Snakemake start as they always do.
"""

import argparse
import hashlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parents[2]
SOURCES = "Snakefile _config.yml requirements.lock benchmarks book notebooks profiles sae_rna".split()
KINDS = ("kill", "kill before a renaming", "full disk")
RENAMINGS = 8  # of a command, one of which is chosen
LEFT = (0, 4096, 1 << 16, 1 << 20)  # bytes that a full disk still takes
TINY = {"layers": [3], "longest": 60, "per_type": 8, "per_split": 40, "shuffles": 2, "compared": "relu-l1"}
TINY |= {"structures": "some.parquet", "types": "some.parquet"}
PATIENCE = 600  # seconds that a command may take on a full disk


class Command(NamedTuple):
    """One command of a run: what it is about, and how it is given."""

    stage: str
    give: Callable[[], int]
    share: float = 1.0  # of its undisturbed time, within which it is disturbed


class Disk:
    """A small disk that can be full: a tmpfs, or where none may be mounted a limit on the files' sizes."""

    def __init__(self, folder: Path, megabytes: int):
        self.folder, self.ballast = folder, folder / "ballast"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", folder]
        self.mounted = shutil.which("mount") and not subprocess.run(mount, capture_output=True).returncode
        self.way = "a tmpfs without space" if self.mounted else "no file may grow (RLIMIT_FSIZE)"

    def fill(self, left: int, pid: int):
        if not self.mounted:
            for process in family(pid):
                resource.prlimit(process, resource.RLIMIT_FSIZE, (left, left))
            return
        with open(self.ballast, "wb") as file:
            while (free := self.free() - left) > 0:
                try:
                    os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, free)
                except OSError:  # the run wrote in between
                    continue

    def free(self) -> int:
        facts = os.statvfs(self.folder)
        return facts.f_bavail * facts.f_frsize

    def empty(self):
        self.ballast.unlink(missing_ok=True)

    def close(self):
        if self.mounted:
            subprocess.run(["umount", "--lazy", self.folder], check=True)


def commands(project: Path, notebooks: list[str], target: str) -> list[Command]:
    """A run from its first step to its last, which is what Snakemake makes, if it has a `target`."""
    from sae_rna.__main__ import main
    from sae_rna.parameters import MODELS, Parameters, layer_groups, model_shape

    parameters = Parameters.from_profile("faults")
    (group,) = layer_groups(parameters, model_shape(parameters)[0])
    given = ["--profile", "faults"]
    steps = [
        Command(step, lambda step=step, model=model: main([step, model, group, *given]))
        for step in ("train", "encode")
        for model in MODELS
    ]
    steps.append(Command("analysis", lambda: analyse(parameters)))
    for name in notebooks:
        page = ["notebook", f"notebooks/{name}.ipynb", "--output", f"book/executed/{name}.ipynb", *given]
        steps.append(Command("notebook", lambda page=page: main(page)))
    if target:  # of the whole book's hour, in its first steps
        steps.append(Command("book", lambda: make_book(project, target), 0.3 if target == "book" else 1))
    return steps


def analyse(parameters) -> int:
    """The analyses of the page "Structure features", as its notebook calls them."""
    from sae_rna.analysis import confounds, structure_features
    from sae_rna.files import one_sentence
    from sae_rna.study import Study

    try:
        study = Study(parameters)
        rnas = study.activations("structures")
        options = {"shuffles": parameters.shuffles, "seed": parameters.seed}
        scores = study.kept(structure_features.score_elements, rnas, **options)
        if parameters.structures != TINY["structures"]:  # takes a while
            study.kept(confounds.explain_elements, rnas, scores, seed=parameters.seed)
    except OSError as error:
        print(one_sentence(error), file=sys.stderr)
        return 1
    return 0


def make_book(project: Path, target: str) -> int:
    """What `make book` does behind `make setup`, for this target."""
    recipe = (project / "Makefile").read_text().split("\nbook:")[1].split("\n\n")[0].split("\n")[1:]
    lines = [line.strip().lstrip("@").replace("$(PROFILE)", "faults") for line in recipe]
    lines = [line.replace("snakemake book ", f"snakemake {target} ") for line in lines]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(project)}
    return subprocess.run(["bash", "-ec", "\n".join(lines)], env=environment).returncode


def begin(command: Command, project: Path, log: Path, renaming: int = 0) -> int:
    """Start a command as the leader of a new process group, to be killed before that `renaming`, if any.

    Returns its process id.
    """
    pid = os.fork()
    if pid:
        return pid
    status = 70
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.setsid()
        os.chdir(project)
        said = os.open(log, os.O_CREAT | os.O_WRONLY | os.O_TRUNC)
        os.dup2(said, 1)
        os.dup2(said, 2)
        calls, rename = itertools.count(1), os.replace
        os.replace = lambda *places: os.killpg(0, 9) if next(calls) == renaming else rename(*places)
        status = command.give()
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def family(pid: int) -> list[int]:
    """A process and all that descend from it."""
    found = [pid]
    for one in found:
        try:
            for task in os.listdir(f"/proc/{one}/task"):
                found += map(int, Path(f"/proc/{one}/task/{task}/children").read_text().split())
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            pass
    return found


def seconds(pid: int) -> float:
    """Processor time of a command, those of its processes that have ended included."""
    ticks = 0
    for one in family(pid):
        try:
            ticks += sum(map(int, Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()[11:15]))
        except (FileNotFoundError, ProcessLookupError):
            pass
    return ticks / os.sysconf("SC_CLK_TCK")


def stop(*_):
    """End with all that was started; the disk is unmounted on the way out."""
    for pid in family(os.getpid())[1:]:
        os.kill(pid, signal.SIGKILL)
    sys.exit(1)


def wait(pid: int, until: float = float("inf"), patience: float = float("inf")) -> tuple[int | None, float]:
    """Exit status, or None for a command that is at work `until` its processor time; and that time."""
    began, spent = time.monotonic(), 0.0
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status), spent
        spent = max(spent, seconds(pid))
        if spent >= until or time.monotonic() - began > patience:
            return None, spent
        time.sleep(min(0.05, max(0.004, (until - spent) / 20)))


def state(project: Path) -> dict[str, str]:
    """What a run has come to: a hash of each table, of weights, activations and the figures' data.

    Of what differs from run to run, of images, times and whatever a stopped attempt left, it is the names.
    """
    import pandas as pd

    from sae_rna.cache import table_hash

    found = {}
    for file in [*(project / "runs" / "faults").rglob("*"), *(project / "book").rglob(".*.tmp")]:
        name = file.relative_to(project).as_posix()
        page = "/figures/" in name or "/done/" in name
        if file.is_dir() or ".tmp/" in name or file.name in ("files.json", "run.json"):
            found[name] = ""
        elif file.suffix == ".parquet":  # in a training's table, speeds differ from run to run
            found[name] = table_hash(pd.read_parquet(file).drop(columns="tokens_per_second", errors="ignore"))
        elif file.suffix != ".lock":
            content = b"" if page and not name.endswith((".csv", ".vl.json")) else file.read_bytes()
            found[name] = hashlib.sha256(content).hexdigest()[:16]
    return found


def at_work(project: Path) -> str:
    """Which steps have been begun and not finished."""
    begun = (project / "runs" / "faults").glob(".*-*.tmp")
    return ", ".join(sorted(path.name[1:-17] for path in begun if path.is_dir()))


def fresh(project: Path, overrides: dict):
    """The sources of a project, and the profile of the run."""
    import pandas as pd
    import yaml

    shutil.rmtree(project, ignore_errors=True)
    project.mkdir()
    ignored = shutil.ignore_patterns("executed", "public", "__pycache__")
    for name in (*SOURCES, "Makefile"):
        source, target = HERE / name, project / name
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy2(source, target)
    (project / "data").symlink_to(HERE / "data")
    if overrides:
        records = pd.read_parquet(HERE / "data" / "records.parquet")
        records[records.sequence.str.len() <= 60].sample(600, random_state=0).to_parquet(
            project / "some.parquet"
        )
    profile = yaml.safe_load((project / "profiles" / "smoke.yml").read_text()) | {"run": "runs/faults"}
    (project / "profiles" / "faults.yml").write_text(yaml.safe_dump(profile | overrides))


def disturb(command: Command, moment: float, kind: str, how: int, project: Path, disk: Disk) -> dict | None:
    """Give a command and disturb it at a moment of its time; None if it was finished by then.

    how : which renaming a kill comes before, or the bytes that a full disk still takes
    """
    log, renames = project.parents[1] / "log", kind == "kill before a renaming"
    pid = begin(command, project, log, how if renames else 0)
    status, spent = wait(pid, until=float("inf") if renames else moment)
    if status is not None and not (renames and status == -signal.SIGKILL):
        return None
    facts = {"stage": command.stage, "kind": kind, "after": round(spent, 2), "at work": at_work(project)}
    if kind == "kill":
        os.killpg(pid, signal.SIGKILL)
        status, _ = wait(pid)
    elif kind == "full disk":
        disk.fill(how, pid)
        status, _ = wait(pid, patience=PATIENCE)
        if status is None:
            facts["fault"] = "hung on a full disk"
            os.killpg(pid, signal.SIGKILL)
            wait(pid)
        disk.empty()
    said = log.read_text(errors="replace")
    if "Traceback" in said and command.stage != "book":  # Snakemake shows those of its own
        facts["fault"] = "traceback"
    shown = said[-400:] if facts.get("fault") or kind == "full disk" else ""
    return facts | {"status": status, "said": shown}


def finish(command: Command, project: Path) -> tuple[float, str]:
    """Give a command and let it finish: its processor time, and what it said if it failed."""
    log = project.parents[1] / "log"
    status, spent = wait(begin(command, project, log))
    return spent, f"status {status}: {log.read_text()[-1500:]}" if status else ""


def one_run(steps, times, count, seed, expected, project, disk) -> list[dict]:
    """A run that is disturbed `count` times, as often in every stage, and then compared."""
    draw, disturbances, failed = random.Random(seed), [], ""
    stages = [step.stage for step in steps]
    for number, (command, undisturbed) in enumerate(zip(steps, times)):
        share = count / len(set(stages)) / stages.count(command.stage)
        for _ in range(int(share) + (draw.random() < share % 1)):
            moment = draw.random() * command.share * undisturbed
            kind = draw.choice(KINDS if command.stage != "book" else ("kill", "full disk"))  # its jobs rename
            how = draw.choice(LEFT) if kind == "full disk" else draw.randint(1, RENAMINGS)
            row = disturb(command, moment, kind, how, project, disk)
            if row is not None:
                disturbances.append({"run": seed, "command": number} | row)
                print(json.dumps(disturbances[-1]), file=sys.stderr, flush=True)
        failed = failed or finish(command, project)[1]
    found = state(project)
    differ = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    outcome = failed or ("differs: " + ", ".join(differ) if differ else "equal")
    print(f"run {seed}: {len(disturbances)} disturbances, {outcome}", file=sys.stderr, flush=True)
    return [row | {"outcome": outcome} for row in disturbances]


def report(rows: list[dict], way: str, spent: float, about: str) -> str:
    """The table of results, in Markdown."""
    count = Counter((row["stage"], row["kind"]) for row in rows)
    equal = Counter((row["stage"], row["kind"]) for row in rows if row["outcome"] == "equal")
    silent = Counter((row["stage"], row["kind"]) for row in rows if not row.get("fault"))
    runs = len({row["run"] for row in rows})
    sound = len({row["run"] for row in rows if row["outcome"] == "equal"})
    lines = [
        f"{about}; {date.today()}. `tests/faults/disturbed.py` says what is done. {len(rows)} disturbances in "
        f"{runs} runs, {sound} of which ended with the tables, weights, activations and figures' data of "
        f"the undisturbed run, which took {spent:.0f} s of processor time. Full disk: {way}.",
        "",
        "| stage | disturbance | times | the run given again ended equal | without traceback or hang |",
        "| --- | --- | --- | --- | --- |",
    ]
    for key in sorted(count):
        lines.append(f"| {key[0]} | {key[1]} | {count[key]} | {equal[key]} | {silent[key]} |")
    totals = (sum(table.values()) for table in (count, equal, silent))
    return "\n".join([*lines, f"| all | | {' | '.join(map(str, totals))} |"]) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--times", type=int, default=20, help="disturbances in all")
    parser.add_argument("--each", type=int, default=10, help="disturbances of one run")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next has the next one")
    parser.add_argument("--tiny", action="store_true", help="one layer and few RNAs")
    parser.add_argument(
        "--book", action="store_true", help="the book too; of a tiny run, Snakemake makes all for one page"
    )
    parser.add_argument("--notebooks", nargs="*", default=["05-layers", "06-structure-features"])
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no run after so many")
    parser.add_argument("--rows", type=Path, help="a file for the disturbances, as JSON")
    parser.add_argument("--results", type=Path, help="a file for the table of results")
    given = parser.parse_args(arguments)
    signal.signal(signal.SIGTERM, stop)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "disk" / "project"
        os.environ |= {"SAE_RNA_ROOT": str(project), "TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1"}
        disk = Disk(project.parent, 600)
        try:
            fresh(project, overrides := TINY if given.tiny else {})
            import sae_rna.study  # noqa: F401
            from sae_rna import figures, publishing  # noqa: F401
            from sae_rna.sae import trainer

            trainer.train.__kwdefaults__["checkpoint_seconds"] = 0.2  # kills find checkpoints of all ages
            notebooks = given.notebooks[: 1 if given.tiny else None]
            target = f"book/executed/{notebooks[0]}.ipynb" if given.tiny else "book"
            steps = commands(project, notebooks, target if given.book else "")
            if given.tiny and given.book:
                steps = steps[-1:]  # which the others would leave nothing to do
            finish(steps[0], project)  # numba's kernels are compiled
            fresh(project, overrides)
            undisturbed = [finish(command, project) for command in steps]
            if failed := [said for _, said in undisturbed if said]:
                raise SystemExit(f"the undisturbed run failed: {failed[0]}")
            times, expected = [spent for spent, _ in undisturbed], state(project)
            print([(step.stage, round(spent, 1)) for step, spent in zip(steps, times)], file=sys.stderr)
            rows, seed = [], given.seed - 1
            while len(rows) < given.times and time.monotonic() - began < 60 * given.minutes:
                seed += 1
                fresh(project, overrides)
                count = min(given.each, given.times - len(rows))
                rows += one_run(steps, times, count, seed, expected, project, disk)
                if given.rows:
                    given.rows.write_text(json.dumps({"rows": rows, "expected": expected}, indent=1))
                if given.results:
                    about = "One layer, few RNAs" if given.tiny else "The smoke profile"
                    given.results.write_text(report(rows, disk.way, sum(times), about))
        finally:
            disk.close()
    return int(any(row["outcome"] != "equal" or row.get("fault") for row in rows))


if __name__ == "__main__":
    sys.exit(main())
