"""What a stopped training is resumed from: the state of all members in one file, the table in another."""

import hashlib
import json
import time
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from safetensors import safe_open
from safetensors.torch import save_file

from sae_rna.files import writing

CHECKPOINT = "checkpoint.safetensors"


class Checkpoint:
    """Both files of one stack, whose members are `trainer.Trainer`s: they have `state` and `restore`."""

    def __init__(self, folder: Path, inputs: dict, every_seconds: float):
        """`inputs` is everything that decides the result; a checkpoint of other inputs is refused."""
        self.file, self.table = folder / CHECKPOINT, folder / "training.parquet"
        self.key = hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()
        self.every_seconds, self._written = every_seconds, time.monotonic()

    def due(self) -> bool:
        return time.monotonic() - self._written >= self.every_seconds

    def save(self, step: int, trainers: Sequence, rows: list[dict]):
        """Write both files."""
        states = [trainer.state() for trainer in trainers]
        tensors = {f"{n}.{name}": value for n, (mine, _) in enumerate(states) for name, value in mine.items()}
        if rows:
            with writing(self.table) as temporary:
                pd.DataFrame(rows).to_parquet(temporary, index=False)
        numbers = json.dumps([numbers for _, numbers in states])
        with writing(self.file) as temporary:
            save_file(tensors, temporary, {"run": self.key, "step": str(step), "members": numbers})
        self._written = time.monotonic()

    def load(self, trainers: Sequence) -> tuple[int, list[dict]]:
        """Restore the trainers; returns how many steps are done and the table's rows, (0, []) without a file.

        Raises ValueError for files that cannot be read or have other inputs, before anything is changed.
        """
        if not self.file.exists():
            return 0, []
        try:
            with safe_open(self.file, "pt") as file:
                facts = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}
            table = pd.read_parquet(self.table) if self.table.exists() else pd.DataFrame({"step": []})
        except Exception as error:
            remedy = "delete it to train from the start, or restore it"
            raise ValueError(f"{self.file} is damaged ({error}): {remedy}") from error
        if facts.get("run") != self.key:
            remedy = "delete it to train from the start, or choose another folder"
            raise ValueError(f"{self.file} is of a training with other parameters, data or model: {remedy}")
        for n, (trainer, numbers) in enumerate(zip(trainers, json.loads(facts["members"]), strict=True)):
            parts = {name.partition(".")[::2]: value for name, value in tensors.items()}
            trainer.restore({name: value for (of, name), value in parts.items() if of == str(n)}, numbers)
        step = int(facts["step"])
        return step, table[table.step <= step].to_dict("records")


def stopped_at(run: Path, since: float) -> str:
    """Where trainings of a run folder go on that wrote checkpoints after the time `since`; "" for none."""
    files = [file for file in run.glob(f".*.tmp/{CHECKPOINT}") if file.stat().st_mtime >= since]
    steps = [int(safe_open(file, "pt").metadata()["step"]) for file in files]
    return f"goes on from step {min(steps)}" if steps else ""
