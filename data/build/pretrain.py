"""Masked-language-model pre-training of a small RiNALMo-architecture encoder (rinalmo-nano), from one
command.

    python data/build/pretrain.py --out runs/nano

Helices alone come first (`synthetic.STAGES`), families later; with ``--start`` a released model is trained
further. The learning rate warms up, stays, and falls linearly to zero. Every batch depends on the recipe and
the step alone, so a run that was stopped goes on from its last checkpoint as if nothing had happened.
"""

import argparse
import json
import os
import shutil
import signal
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from batches import Corpus, Mixture, Pools, Rnas, draw_helices
from fast_rinalmo import FastRiNALMo, Layout
from gradients import Gradients, log_probabilities
from graphs import GraphGradients
from multimolecule import RiNALMoConfig, RiNALMoForMaskedLM, RnaTokenizer
from muon import Optimizer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from synthetic import STAGES
from tqdm import tqdm

#: Batches of one pool: enough RNAs that those of a batch are of like length.
POOL = 64


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a pre-training run."""

    width: int = 128
    """Model dimension."""
    blocks: int = 6
    heads: int = 4
    intermediate: int = 576
    """As in RiNALMo's configuration: the gated feed-forward layer is two thirds of it wide."""
    tokens: float = 28_626 * 32_768
    """Tokens read in all: nucleotides, two special tokens an RNA and the padding (5 % of rows as long as
    their longest RNA, 20 % of rows of a GPU's widths). While the learning rate is still constant, a run may
    be gone on with to another end."""
    anneal: float = 0.7
    """Share of the run, at its end, over which the learning rate falls linearly to zero."""
    batch_tokens: int = 32_768
    batches: int = 1
    """Batches a step; they divide a pool. On a CPU two of 2,048 tokens are faster, at a rate of 2e-3."""
    learning_rate: float = 3e-3
    """Of the encoder's matrices (Muon, scaled to AdamW's update size); everything else learns at half of it
    with AdamW."""
    warmup_steps: int = 100
    helices_first: float = 0.04
    """Share of the run, at its beginning, that reads fresh helices alone. From there to twice that, families
    take their share."""
    families: float = 0.45
    """Share of nucleotides of the training families from then on."""
    redrawn: float = 0.25
    """Share with structures of training families and freshly drawn bases, likewise. The rest are freshly
    drawn helices."""
    natural: float = 0.07
    """Share of natural RNAs among the families' nucleotides."""
    sharpness: float = 2.0
    """How much samples of little noise are preferred at first: weights e^(sharpness x exponent), down to none
    after a third of the run."""
    average: float = 0.998
    """Decay a step of the averaged weights, which are released."""
    seed: int = 0

    @property
    def steps(self) -> int:
        return int(self.tokens // (self.batch_tokens * self.batches))

    def rate(self, step: int) -> float:
        """Learning rate of a step."""
        left = (self.steps - step) / (self.anneal * self.steps)
        return self.learning_rate * min(1.0, (step + 1) / self.warmup_steps, left)

    def mixture(self, pool: int) -> Mixture:
        progress = pool * (POOL // self.batches) / self.steps
        come = min(1.0, max(0.0, progress / self.helices_first - 1)) if self.helices_first else 1.0
        sharpness = self.sharpness * max(0.0, 1 - 3 * progress)
        return Mixture(come * self.families, come * self.redrawn, self.natural, sharpness)


class Examination:
    """Accuracy and cross-entropy at fixed positions: 15 % of all, hidden at once."""

    def __init__(self, pools: Pools, model: FastRiNALMo):
        self.pools, self.model, self.sets = pools, model, {}

    def add(self, name: str, rnas: Rnas, seed: int):
        rng = np.random.default_rng(seed)
        chosen = rng.random(len(rnas.bases)) < 0.15
        ids = np.where(chosen, self.pools.special[3], self.pools.base_ids[rnas.bases])
        self.sets[name] = self.pools.cut(rnas, ids, chosen, np.eye(4)[rnas.bases], rng)

    @torch.no_grad()
    def scores(self, weights_P: torch.Tensor, name: str) -> dict[str, float]:
        """Accuracy of all and of paired bases, and cross-entropy in nats."""
        right, loss, paired = [], [], []
        for batch in self.sets[name]:
            guess = log_probabilities(self.model, self.pools.base_ids, weights_P, batch).cpu().numpy()
            right.append(guess.argmax(1) == batch.targets.argmax(1))
            loss.append(-(guess * batch.targets).sum(1))
            paired.append(batch.paired)
        right, loss, paired = map(np.concatenate, (right, loss, paired))
        values = {"accuracy": right.mean(), "paired": right[paired].mean(), "loss": loss.mean()}
        return {key: round(float(value), 4) for key, value in values.items()}


def examination_sets(records: pd.DataFrame | None, count: int = 300) -> dict[str, pd.DataFrame]:
    """Fixed samples: unseen sequences of training families, unseen families, natural tRNA not trained on."""
    if records is None:
        return {}
    chosen = {name: records[records.split == name] for name in ("validation", "selection")}
    natural = records[(records.origin == "natural") & (records.type == "tRNA")]
    chosen["natural tRNA"] = (
        natural[natural.split.str.startswith("seen")] if "exposure" in records else natural
    )
    return {
        name: rows.sample(min(count, len(rows)), random_state=0) for name, rows in chosen.items() if len(rows)
    }


def build_config(recipe: Recipe) -> RiNALMoConfig:
    """A RiNALMo of the recipe's shape. Dropout is off: hardly a batch is ever seen twice."""
    return RiNALMoConfig(
        hidden_size=recipe.width, num_hidden_layers=recipe.blocks, num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate, hidden_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip


def save_checkpoint(folder: Path, optimizer: Optimizer, state: dict):
    """Weights, averaged weights, moments and progress in one safetensors file, written whole or not at
    all."""
    temporary = folder / "checkpoint.tmp"
    save_file(
        {name: value.cpu() for name, value in optimizer.state().items()},
        temporary,
        {"state": json.dumps(state)},
    )
    os.replace(temporary, folder / "checkpoint.safetensors")


def load_checkpoint(folder: Path, optimizer: Optimizer) -> dict:
    """Restore what `save_checkpoint` wrote; returns the progress."""
    path = folder / "checkpoint.safetensors"
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["state"])
    optimizer.restore(load_file(path), state["step"])
    return state


def release(folder: Path, layout: Layout, weights_P: torch.Tensor, config: RiNALMoConfig, facts: dict):
    """Write a model folder that loads like any of multimolecule's, with the run's facts in
    ``pretraining.json``."""
    model = RiNALMoForMaskedLM(config)
    layout.unpack(weights_P.cpu(), model)
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.eval().save_pretrained(temporary)
    RnaTokenizer().save_pretrained(temporary)
    (temporary / "pretraining.json").write_text(json.dumps(facts, indent=1) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    os.replace(temporary, folder)


class Run:
    """A pre-training run in a folder: ``checkpoint.safetensors`` to go on from, ``model`` with the averaged
    weights so far."""

    def __init__(
        self, recipe: Recipe, corpus, out: Path, records: pd.DataFrame | None = None,
        start: Path | None = None,
        device: str = "cpu", workers: int = 0, compiled: bool = False, every: int = 256,
    ):  # fmt: skip
        if POOL % recipe.batches or every % (POOL // recipe.batches):
            raise ValueError(
                f"batches a step ({recipe.batches}) must divide {POOL}, and the quotient {every} steps"
            )
        out.mkdir(parents=True, exist_ok=True)
        self.recipe, self.out, self.every, self.config = recipe, out, every, build_config(recipe)
        self.layout = Layout(self.config)
        self.state = {"step": 0, "seen": 0, "synthetic": 0.0, "accuracy": [], "history": []}
        torch.manual_seed(recipe.seed)
        weights = self.layout.pack(RiNALMoForMaskedLM(self.config).state_dict())
        if start and not (out / "checkpoint.safetensors").exists():
            weights = self.layout.pack(load_file(start / "model.safetensors"))
            self.state["start"] = json.loads((start / "pretraining.json").read_text())
        weights = weights.to(device)
        if workers and not weights.is_cuda:
            weights.share_memory_()
        self.optimizer = Optimizer(self.layout, weights, recipe.average)
        if (out / "checkpoint.safetensors").exists():
            self.state = load_checkpoint(out, self.optimizer)
        recipes = self.state.setdefault("recipes", [])
        if not recipes or recipes[-1]["recipe"] != asdict(recipe):  # a change on the way is no secret
            recipes.append({"from step": self.state["step"], "recipe": asdict(recipe)})
        work = dict(corpus=corpus, config=self.config, seed=recipe.seed, batch_tokens=recipe.batch_tokens,
                    batches=POOL, mixture=recipe.mixture)  # fmt: skip
        if weights.is_cuda:
            first, last = (steps * recipe.batches // POOL for steps in (self.state["step"], recipe.steps))
            self.gradients = GraphGradients(weights, workers, first, last + 1, **work)
        else:
            self.gradients = Gradients(weights, workers, recipe.batches, compiled=compiled, **work)
        families = {name: Corpus.of_records(rows) for name, rows in examination_sets(records).items()}
        some = next(iter(families.values()), None) or (
            corpus if isinstance(corpus, Corpus) else Corpus.read(corpus)
        )
        self.examination = Examination(
            Pools(some, recipe.seed, recipe.batch_tokens, POOL), FastRiNALMo(self.layout)
        )
        for stage, share in enumerate(np.eye(len(STAGES))):
            helices = draw_helices(12_000, np.random.default_rng(stage), share)
            self.examination.add(f"stage {stage}", Rnas.joined(helices), stage)
        for name, family in families.items():
            self.examination.add(name, family.take(np.arange(len(family.lengths))), 0)

    def train(self, minutes: float = 5.0):
        """To the end of the recipe, with a checkpoint and a release every so many minutes and when asked to
        end (SIGTERM)."""
        recipe, state, saved, stop = self.recipe, self.state, time.monotonic(), []
        previous = signal.signal(signal.SIGTERM, lambda *_: stop.append(True))
        sums: list[dict] = []
        try:
            with tqdm(total=recipe.steps, initial=state["step"], unit="step", mininterval=20) as bar:
                while state["step"] < recipe.steps and not stop:
                    sums.append(self.step())
                    bar.update()
                    if state["step"] % self.every == 0:
                        bar.set_postfix_str(self.examine(sums))
                        sums = []
                        if time.monotonic() - saved > 60 * minutes:
                            self.save()
                            saved = time.monotonic()
            self.save()
        finally:
            signal.signal(signal.SIGTERM, previous)
            self.gradients.close()

    def step(self) -> dict[str, float]:
        """One update of the weights; returns the sums of its batches."""
        recipe, state = self.recipe, self.state
        pool, first = divmod(state["step"] * recipe.batches, POOL)
        numbers = list(range(first, first + recipe.batches))
        gradient, sums = self.gradients.sum(pool, numbers)
        gradient /= sums["chosen"]
        gradient *= (1 / (gradient.norm() + 1e-6)).clamp(max=1.0)
        self.optimizer.step(gradient, recipe.rate(state["step"]))
        state["step"] += 1
        state["seen"] += sums["nucleotides"]
        state["synthetic"] += sums["synthetic"]
        return sums

    def examine(self, sums: list[dict]) -> str:
        """Write down how the averaged weights do."""
        state = self.state
        loss = float(sum(one["loss"] for one in sums)) / max(1, sum(one["chosen"] for one in sums))
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss became {loss} before step {state['step']}: lower the learning rate"
            )
        state["accuracy"] = [
            self.examination.scores(self.optimizer.average, f"stage {stage}")["paired"]
            for stage in range(len(STAGES))
        ]
        names = [name for name in self.examination.sets if not name.startswith("stage")]
        report = {
            "step": state["step"],
            "nucleotides": state["seen"],
            "loss": round(loss, 4),
            "rate": round(self.recipe.rate(state["step"]), 6),
            "paired_accuracy": state["accuracy"],
        }
        report |= {name: self.examination.scores(self.optimizer.average, name) for name in names}
        state["history"].append(report)
        scores = " | ".join(
            f"{name} " + "/".join(f"{value:.3f}" for value in report[name].values()) for name in names
        )
        paired = "/".join(f"{value:.2f}" for value in report["paired_accuracy"])
        line = f"{state['seen'] / 1e6:.2f} M nt, loss {loss:.3f}, helices {paired}, {scores}"
        print(f"\n{time.strftime('%H:%M:%S')} step {state['step']}: {line}", flush=True)
        return f"loss {loss:.3f}"

    def save(self):
        save_checkpoint(self.out, self.optimizer, self.state)
        facts = {"recipe": asdict(self.recipe)} | self.state
        release(self.out / "model", self.layout, self.optimizer.average, self.config, facts)


def main(arguments: list[str] | None = None):
    data = Path(__file__).resolve().parents[1]
    parser = argparse.ArgumentParser(
        description="Pre-train a small RiNALMo on synthetic helices and RNA families."
    )
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--corpus", type=Path, help="the families to train on; those of the records by default"
    )
    parser.add_argument(
        "--more",
        type=Path,
        help="a table of records whose training families are read too, if not in --records",
    )
    parser.add_argument(
        "--records", type=Path, default=data / "records.parquet", help="what is scored on the way"
    )
    parser.add_argument(
        "--start", type=Path, help="a released model to train further, such as data/rinalmo-nano"
    )
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--workers", type=int, default=os.cpu_count(),
                        help="processes: they compute or, beside a GPU, draw")  # fmt: skip
    parser.add_argument("--eager", action="store_true", help="do not compile the model")
    for field in Recipe.__dataclass_fields__.values():
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default)
    given = parser.parse_args(arguments)
    recipe = Recipe(**{name: getattr(given, name) for name in Recipe.__dataclass_fields__})
    records, corpus = pd.read_parquet(given.records), Corpus.read(given.corpus or given.records)
    if given.more:
        more = pd.read_parquet(given.more)
        more = more[(more.split == "train") & ~more.family.isin(records.family)]
        corpus = corpus.joined(Corpus.of_records(more.assign(origin="sampled")))
    run = Run(
        recipe, corpus, given.out, records,
        given.start, given.device, workers=given.workers, compiled=not given.eager,
        every=256 if given.device == "cpu" else 4096,
    )  # fmt: skip
    run.train()


if __name__ == "__main__":
    main()
