"""Masked-language-model pre-training of a small RiNALMo-architecture encoder (rinalmo-nano), from one command.

    python -m sae_rna.pretraining --out runs/nano

A curriculum takes the model from short perfect hairpins to RNA families: see `STAGES`. Every batch depends on the seed and
the step number alone, so a run that was stopped goes on from its last checkpoint as if nothing had happened.
"""

import argparse
import json
import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from multimolecule import RiNALMoConfig, RiNALMoForMaskedLM, RnaTokenizer
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch.nn import functional as F
from tqdm import tqdm

from sae_rna.records.structure import dot_bracket, split_pseudoknots
from sae_rna.synthetic import BASES, Grammar, draw_bases, draw_batch, stack_pair_tables

HAIRPINS = Grammar()
#: The curriculum's grammars, each with the accuracy on masked paired bases (15 % masked) that ends its stage. What can be reached
#: falls from stage to stage: a masked partner (12 % of them) and every wobble pair cap it.
STAGES = (
    (HAIRPINS, 0.78),
    (replace(HAIRPINS, stem=(4, 9), hairpin=(3, 9), end=(0, 12)), 0.70),
    (replace(HAIRPINS, stem=(3, 9), hairpin=(3, 9), end=(0, 12), interruption=0.3, bulge=(1, 2), tetraloops=0.3, length=(20, 70)), 0.62),
    (replace(HAIRPINS, stem=(3, 9), hairpin=(3, 9), end=(0, 10), domains=(1, 2), interruption=0.3, bulge=(1, 3), branching=0.1,
             wobble=0.06, tetraloops=0.3, length=(20, 102)), 0.46),
    (Grammar(stem=(3, 8), hairpin=(3, 10), end=(0, 15), domains=(1, 3), linker=(1, 10), interruption=0.4, bulge=(1, 4), branching=0.2,
             wobble=0.09, tetraloops=0.35, length=(20, 142)), 0.40),
)  # fmt: skip
#: Batches are padded to one of these widths, so that a compiled model meets few shapes.
WIDTHS = (48, 72, 104, 144, 200, 258)


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the result of a pre-training run."""

    width: int = 128
    """Model dimension."""
    blocks: int = 6
    heads: int = 4
    intermediate: int = 576
    """As in RiNALMo's configuration: the gated feed-forward layer is two thirds of it wide."""
    tokens: float = 120e6
    """Nucleotides seen in all."""
    anneal: float = 0.2
    """Share of the run, at its end, over which the learning rate falls linearly to zero."""
    batch_tokens: int = 8192
    learning_rate: float = 4e-3
    """Of the encoder's matrices (Muon, scaled to AdamW's update size); everything else learns at half of it with AdamW."""
    warmup_steps: int = 100
    families: float = 0.4
    """Share of batches drawn from the training families once the curriculum is mastered."""
    redrawn: float = 0.3
    """Share of batches with structures of training families and freshly drawn bases, likewise."""
    seed: int = 0


class Curriculum:
    """Which grammar the next batch comes from. Mastery is a running mean of the accuracy on masked paired bases."""

    def __init__(self, stage: int = 0, accuracy: list[float] | None = None):
        self.stage = stage
        self.accuracy = accuracy or [0.0] * len(STAGES)

    @property
    def mastered(self) -> bool:
        return self.stage == len(STAGES)

    def grammar(self, rng: np.random.Generator) -> Grammar:
        """The stage's own grammar for half of the batches, an earlier one for the rest, so that nothing is forgotten."""
        current = min(self.stage, len(STAGES) - 1)
        return STAGES[current if current == 0 or rng.random() < 0.5 else rng.integers(current)][0]

    def report(self, stage: int, accuracy: float):
        self.accuracy[stage] = (
            0.6 * self.accuracy[stage] + 0.4 * accuracy if self.accuracy[stage] else accuracy
        )
        if self.stage < len(STAGES) and self.accuracy[self.stage] >= STAGES[self.stage][1]:
            self.stage += 1


class Batch(NamedTuple):
    """One training batch; arrays [B, W]."""

    inputs: np.ndarray
    """Token ids, some of them hidden or replaced."""
    labels: np.ndarray
    """True token ids where there is a loss, -100 elsewhere."""
    partner: np.ndarray
    """Column of the pairing partner, -1 unpaired, -2 no nucleotide."""
    nucleotides: int
    synthetic: bool
    """Whether the bases were drawn by the generator."""


class Batches:
    """Token batches of a run: a pure function of seed, step and curriculum stage."""

    def __init__(self, recipe: Recipe, records: pd.DataFrame, tokenizer: RnaTokenizer):
        self.recipe = recipe
        self.special = (
            tokenizer.cls_token_id,
            tokenizer.eos_token_id,
            tokenizer.pad_token_id,
            tokenizer.mask_token_id,
        )
        self.base_ids = np.array(tokenizer.convert_tokens_to_ids(list(BASES)))
        structures = [dot_bracket(split_pseudoknots(text)[0]) for text in records.secondary_structure]
        self.buckets = []
        length = records.sequence.str.len()
        for low, high in zip((0, *WIDTHS), WIDTHS):
            chosen = np.nonzero((length > low - 2) & (length <= high - 2))[0]
            if len(chosen):
                table = stack_pair_tables([structures[row] for row in chosen], high - 2)
                bases = np.full(table.shape, -1)
                for row, record in enumerate(chosen):
                    text = records.sequence.iat[record]
                    bases[row, : len(text)] = [BASES.index(base) for base in text]
                self.buckets.append((bases, table))
        tokens = np.array([(bases >= 0).sum() for bases, _ in self.buckets], dtype=float)
        self.bucket_shares = tokens / tokens.sum() if len(tokens) else tokens

    def draw(self, step: int, curriculum: Curriculum) -> Batch:
        """The batch of a step."""
        rng = np.random.default_rng([self.recipe.seed, step])
        source = rng.random()
        if curriculum.mastered and source < self.recipe.families + self.recipe.redrawn:
            bases, table = self._family_rows(rng)
            if source < self.recipe.families:
                return self.mask(bases, table, rng, spare_partners=step % 2 == 0, synthetic=False)
            return self.mask(
                draw_bases(table, rng, wobble=0.1, tetraloops=0.3), table, rng, spare_partners=True
            )
        grammar = curriculum.grammar(rng)
        width = next(width for width in WIDTHS if width >= grammar.length[1] + 2)
        return self.mask(
            *draw_batch(grammar, self.recipe.batch_tokens // width, rng), rng, spare_partners=step % 4 != 0
        )

    def _family_rows(self, rng):
        bases, table = self.buckets[rng.choice(len(self.buckets), p=self.bucket_shares)]
        rows = rng.integers(len(bases), size=self.recipe.batch_tokens // (bases.shape[1] + 2))
        return bases[rows], table[rows]

    def mask(self, bases, table, rng, spare_partners: bool, synthetic: bool = True) -> Batch:
        """BERT's masking at RiNALMo's rate (15 %), or one that never hides both ends of a pair but hides one end of half of the pairs.

        The second teaches pairing several times faster. Of the chosen positions 50 % become the mask token, 35 % a random base
        and 15 % stay: more random ones than BERT's 10 %, since a visible base that must be checked against its
        partner makes the model represent pairing at visible bases too, which is where it is read later.
        """
        cls, eos, pad, mask_id = self.special
        width = next(width for width in WIDTHS if width >= bases.shape[1] + 2)
        ids = np.full((len(bases), width), pad)
        partner = np.full_like(ids, -2)
        columns = bases.shape[1]
        ids[:, 1 : columns + 1] = np.where(bases >= 0, self.base_ids[bases], pad)
        partner[:, 1 : columns + 1] = np.where(table >= 0, table + 1, table)
        ids[:, 0] = cls
        ids[np.arange(len(ids)), (bases >= 0).sum(1) + 1] = eos
        nucleotide = partner > -2
        if spare_partners:
            chosen = (rng.random(ids.shape) < np.where(partner >= 0, 0.3, 0.12)) & nucleotide
            partner_chosen = np.take_along_axis(chosen, np.maximum(partner, 0), 1) & (partner >= 0)
            chosen &= ~(partner_chosen & (partner < np.arange(width)))
        else:
            chosen = (rng.random(ids.shape) < 0.15) & nucleotide
        fate = rng.random(ids.shape)
        inputs = np.where(chosen & (fate < 0.5), mask_id, ids)
        replaced = chosen & (fate >= 0.5) & (fate < 0.85)
        inputs[replaced] = self.base_ids[rng.integers(4, size=replaced.sum())]
        labels = np.where(chosen, ids, -100)
        return Batch(inputs, labels, partner, int(nucleotide.sum()), synthetic)


def build_model(recipe: Recipe) -> RiNALMoForMaskedLM:
    """A RiNALMo of the recipe's shape with random weights. Dropout is off: no batch is ever seen twice."""
    torch.manual_seed(recipe.seed)
    config = RiNALMoConfig(
        hidden_size=recipe.width, num_hidden_layers=recipe.blocks, num_attention_heads=recipe.heads,
        intermediate_size=recipe.intermediate, hidden_dropout=0.0, attention_dropout=0.0,
    )  # fmt: skip
    config._attn_implementation = "eager"  # the backward pass of bf16 SDPA is slow on CPU
    return RiNALMoForMaskedLM(config)


def build_optimizers(model, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon (Jordan et al. 2024) for the encoder's matrices, AdamW for embeddings, norms and the head."""
    is_matrix = {name: p.ndim == 2 and "encoder.layer." in name for name, p in model.named_parameters()}
    matrices = [p for name, p in model.named_parameters() if is_matrix[name]]
    others = [p for name, p in model.named_parameters() if not is_matrix[name]]
    return [
        torch.optim.Muon(
            matrices, lr=recipe.learning_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, lr=recipe.learning_rate / 2, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def learning_rate_factor(recipe: Recipe, step: int, seen: int) -> float:
    """Warm-up, constant, linear fall to zero over the last `anneal` share of the tokens."""
    left = max(0.0, 1 - seen / recipe.tokens)
    return min(1.0, (step + 1) / recipe.warmup_steps, left / recipe.anneal)


@torch.no_grad()
def paired_accuracy(model, batches: Batches, stage: int, step: int, device) -> float:
    """Accuracy on masked paired bases of fresh RNAs of a stage, masked as BERT does."""
    rng = np.random.default_rng([batches.recipe.seed, step, 1 + stage])
    grammar = STAGES[stage][0]
    width = next(width for width in WIDTHS if width >= grammar.length[1] + 2)
    bases, table = draw_batch(grammar, batches.recipe.batch_tokens // width, rng)
    batch = batches.mask(bases, table, rng, spare_partners=False)
    guess = forward(model, batch.inputs, batches.special[2], device).argmax(-1).cpu().numpy()
    scored = (batch.labels >= 0) & (batch.inputs == batches.special[3]) & (batch.partner >= 0)
    return float((guess == batch.labels)[scored].mean())


def forward(model, inputs: np.ndarray, pad: int, device) -> torch.Tensor:
    ids = torch.from_numpy(inputs).to(device)
    with torch.autocast(device.type, torch.bfloat16):
        return model(ids, attention_mask=(ids != pad).long()).logits


def save_checkpoint(folder: Path, model, optimizers, state: dict):
    """Weights, optimiser moments and progress in one safetensors file, written whole or not at all."""
    tensors = {f"model.{name}": value.contiguous() for name, value in model.named_parameters()}
    for number, optimizer in enumerate(optimizers):
        for key, entries in optimizer.state_dict()["state"].items():
            tensors |= {
                f"optimizer{number}.{key}.{name}": torch.as_tensor(value) for name, value in entries.items()
            }
    temporary = folder / "checkpoint.tmp"
    save_file(tensors, temporary, metadata={"state": json.dumps(state)})
    os.replace(temporary, folder / "checkpoint.safetensors")


def load_checkpoint(folder: Path, model, optimizers) -> dict:
    """Restore what `save_checkpoint` wrote; returns the progress."""
    path = folder / "checkpoint.safetensors"
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        state = json.loads(file.metadata()["state"])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(tensors[f"model.{name}"])
    for number, optimizer in enumerate(optimizers):
        moments: dict[int, dict] = {}
        for name, value in tensors.items():
            if name.startswith(f"optimizer{number}."):
                _, key, entry = name.split(".")
                moments.setdefault(int(key), {})[entry] = value
        optimizer.load_state_dict({"state": moments, "param_groups": optimizer.state_dict()["param_groups"]})
    return state


def load_release(folder: Path, model) -> dict:
    """Take weights and progress from a folder that `release` wrote; the optimisers start afresh."""
    weights = load_file(folder / "model.safetensors")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(weights[name])
    facts = json.loads((folder / "pretraining.json").read_text())
    return {name: value for name, value in facts.items() if name != "recipe"}


def pretrain(
    recipe: Recipe,
    records: pd.DataFrame,
    out: Path,
    device: str = "cpu",
    compiled: bool = True,
    every: int = 50,
    start: Path | None = None,
):
    """Run the recipe on the training families in `records` and save the model to ``out/model``.

    A checkpoint in `out` is gone on with; without one, a released model at `start` may be trained further.
    """
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device(device)
    tokenizer = RnaTokenizer()
    model = build_model(recipe).to(device).train()
    optimizers = build_optimizers(model, recipe)
    batches = Batches(recipe, records, tokenizer)
    state = {"step": 0, "seen": 0, "synthetic": 0, "stage": 0, "accuracy": None, "history": []}
    if (out / "checkpoint.safetensors").exists():
        state = load_checkpoint(out, model, optimizers)
    elif start:
        state = load_release(start, model)
    curriculum = Curriculum(state["stage"], state["accuracy"])
    torch._dynamo.config.cache_size_limit = 64
    fast = torch.compile(model, dynamic=False) if compiled else model
    losses: list[float] = []
    with tqdm(
        total=int(recipe.tokens), initial=state["seen"], unit="nt", unit_scale=True, mininterval=10
    ) as bar:
        while state["seen"] < recipe.tokens:
            step = state["step"]
            batch = batches.draw(step, curriculum)
            logits = forward(fast, batch.inputs, batches.special[2], device)
            targets = torch.from_numpy(batch.labels).to(device)
            loss = F.cross_entropy(logits.float().view(-1, logits.shape[-1]), targets.view(-1))
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            factor = learning_rate_factor(recipe, step, state["seen"])
            for optimizer, share in zip(optimizers, (1.0, 0.5)):
                optimizer.param_groups[0]["lr"] = recipe.learning_rate * share * factor
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
            losses.append(loss.item())
            if not np.isfinite(losses[-1]):
                raise FloatingPointError(
                    f"the loss became {losses[-1]} at step {step}: lower the learning rate of {recipe.learning_rate}"
                )
            state["step"] += 1
            state["seen"] += batch.nucleotides
            state["synthetic"] += batch.nucleotides * batch.synthetic
            bar.update(batch.nucleotides)
            if state["step"] % every == 0:
                model.eval()
                for stage in {min(curriculum.stage, len(STAGES) - 1), state["step"] // every % len(STAGES)}:
                    if stage <= curriculum.stage:
                        curriculum.report(stage, paired_accuracy(fast, batches, stage, step, device))
                model.train()
                state |= {"stage": curriculum.stage, "accuracy": curriculum.accuracy}
                state["history"].append({"step": state["step"], "nucleotides": state["seen"], "stage": curriculum.stage,
                                         "loss": round(float(np.mean(losses)), 4),
                                         "paired_accuracy": [round(value, 3) for value in curriculum.accuracy]})  # fmt: skip
                bar.set_postfix_str(
                    f"stage {curriculum.stage} loss {np.mean(losses):.3f} paired "
                    + "/".join(f"{a:.2f}" for a in curriculum.accuracy)
                )
                losses.clear()
            if state["step"] % (4 * every) == 0:
                save_checkpoint(out, model, optimizers, state)
    save_checkpoint(out, model, optimizers, state)
    release(model, tokenizer, {"recipe": asdict(recipe)} | state, out / "model")


def release(model: RiNALMoForMaskedLM, tokenizer: RnaTokenizer, facts: dict, folder: Path):
    """Write a model folder that loads like any multimolecule model, with the run's facts in ``pretraining.json``."""
    model.config._attn_implementation = None  # eager was for training alone
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "pretraining.json").write_text(json.dumps(facts, indent=1) + "\n")


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(
        description="Pre-train a small RiNALMo on synthetic helices and RNA families."
    )
    parser.add_argument("--records", type=Path, default=Path("data/records.parquet"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument(
        "--start", type=Path, help="a released model to train further, such as data/rinalmo-nano"
    )
    parser.add_argument("--eager", action="store_true", help="do not compile the model")
    for field in Recipe.__dataclass_fields__.values():
        parser.add_argument(f"--{field.name}", type=field.type, default=field.default)
    given = parser.parse_args(arguments)
    recipe = Recipe(**{name: getattr(given, name) for name in Recipe.__dataclass_fields__})
    records = pd.read_parquet(given.records)
    pretrain(
        recipe,
        records[records.split == "train"].reset_index(drop=True),
        given.out,
        given.device,
        not given.eager,
        start=given.start,
    )


if __name__ == "__main__":
    main()
