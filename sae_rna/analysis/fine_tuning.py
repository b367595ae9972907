"""Feature-aware fine-tuning: what one gain for each latent learns from few RNAs, beside other methods.

What is trained, and how, is in `statistics.tuning`. Shapes: F latents, S RNAs that are scored, N seeds.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn.functional import cross_entropy
from tqdm import tqdm

from sae_rna.analysis.controls import AnnotatedSets
from sae_rna.analysis.language_model import choose_masked
from sae_rna.analysis.statistics import tuning
from sae_rna.analysis.statistics.scoring import Sample
from sae_rna.analysis.statistics.tuning import ALL, GAINS, IA3, LORA, Above, Example, Run
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.splits import settings, uniform
from sae_rna.sae.activations import Activations

LONGEST = 128  # nucleotides of an RNA to learn from or to score
EXAMPLES, TESTED, ELSEWHERE = 60, 60, 30  # RNAs at most: to learn from, to score, and of other kinds
PER_TYPE = 4  # RNAs of each type to learn from, and to score; the half of it to validate on
SHARES = (1 / 9, 1 / 3, 1)  # of the examples, where their number is asked about
COPIES, STEPS = 3, 15  # masks of an RNA; training steps, but no more than RNAs to learn from
RATES, SEEDS = (1e-3, 1e-2, 1e-1), 3  # learning rates, the same for every method
PENALTIES = tuple(10.0 ** np.arange(-3, 2))  # inverse ones of the classifier that all methods start from
MOVED = 0.01  # least change of a gain that is listed
RESAMPLES = 1000  # of the scored RNAs, for intervals
CURVES = (GAINS, LORA, ALL)  # methods that learn from fewer examples, too
CLASSIFIER = "RNA types"
OWN, OTHER = "RNAs of the task", "other RNAs"


def draw_rnas(records: pd.DataFrame, per_type: int, seed: int) -> pd.DataFrame:
    """The RNAs of every task: `records` with the columns task and part.

    Parts are train, validation, test, and elsewhere (other RNAs, on which forgetting shows). Tasks: natural
    tRNAs, or else the commonest type, of the first setting of `splits.SETTINGS` (trained and validated on the
    split where features are chosen, scored on the other); the commonest type of the natural RNAs of unseen
    families, if any; and "RNA types", of both splits, if there are two. No RNA shares half of its 8-mers with
    another of its task. Raises ValueError where nothing is left.
    """
    short = records[records.sequence.str.len() <= max(LONGEST, records.sequence.str.len().min())]
    (known, other), most = next(iter(settings(short).values()), ("", "")), min(EXAMPLES, per_type)
    both = short[short.split.isin([known, other])]
    is_natural = both.origin == "natural" if "origin" in both else both.split.notna()
    if both[is_natural].empty:
        raise ValueError(f"no RNA of at most {LONGEST} nt to learn from: give some in two evaluation splits")
    tasks = dict([_of_one_type(both[is_natural], known, most, seed)])
    if (unseen := short.split == "natural").any():
        half = short.id.map(lambda name: "known" if uniform(seed, name) < 0.6 else "other")
        tasks |= dict([_of_one_type(short[unseen].assign(split=half), "known", most, seed)])
    tasks |= _of_types(both, min(PER_TYPE, per_type), seed)
    tasks = {name: rows for name, rows in tasks.items() if (rows.part == "train").sum() >= tuning.BATCH}
    if not tasks:
        raise ValueError("too few RNAs of one type to learn from: give more in the splits that are scored")
    first = next(iter(tasks.values()))
    elsewhere = both[(both.split == other) & ~both["type"].isin(first["type"])]
    elsewhere = elsewhere if len(elsewhere) else both[both.split == other]
    elsewhere = elsewhere.sample(min(len(elsewhere), ELSEWHERE), random_state=seed).assign(part="elsewhere")
    tables = [pd.concat([rows, elsewhere]).assign(task=name) for name, rows in tasks.items()]
    return pd.concat(tables, ignore_index=True)[["task", "part", "id", "sequence", "type"]]


def _of_one_type(records: pd.DataFrame, known: str, most: int, seed: int) -> tuple[str, pd.DataFrame]:
    """Name and RNAs of a task of one type: two thirds of the split `known` to train on, at most `most`."""
    kind = "tRNA" if (records["type"] == "tRNA").any() else records["type"].mode().iloc[0]
    rows = records[records["type"] == kind].sample(frac=1, random_state=seed)
    rows = rows.groupby(rows.split == known).head(4 * EXAMPLES)
    rows = rows.sort_values("split", key=lambda split: split != known, kind="stable")
    rows = rows[_unlike(rows.sequence.tolist())]
    own = np.flatnonzero(rows.split == known)
    train = min(most, 2 * len(own) // 3)
    part = np.full(len(rows), "test", object)
    part[own] = "unused"
    part[own[:train]], part[own[train : train + max(train // 2, 1)]] = "train", "validation"
    rows = rows.assign(part=part)
    natural = "natural " if (rows.get("origin", rows["type"]) == "natural").all() else ""
    rows = rows[rows.part != "unused"].groupby("part").head(max(TESTED, most))
    return natural + kind.replace("_", " "), rows


def _unlike(sequences: Sequence[str]) -> np.ndarray:
    """Which sequences share fewer than half of their 8-mers with every kept one before them."""
    kept, chosen = list[set[str]](), []
    for sequence in sequences:
        words = {sequence[at : at + 8] for at in range(len(sequence) - 7)}
        chosen.append(all(2 * len(words & other) < len(words) for other in kept))
        kept += [words] if chosen[-1] else []
    return np.array(chosen, bool)


def _of_types(records: pd.DataFrame, per_type: int, seed: int) -> dict[str, pd.DataFrame]:
    """The RNAs to tell types apart: of each `per_type` to train on and to score, half as many to validate."""
    sizes = np.array([per_type, max(per_type // 2, 1), per_type])
    rows = records.sample(frac=1, random_state=seed).groupby("type").head(2 * sizes.sum())
    rows = rows[_unlike(rows.sequence.tolist())]
    place, names = rows.groupby("type").cumcount(), np.array(["train", "validation", "test", "unused"])
    rows = rows.assign(part=names[np.searchsorted(sizes.cumsum(), place, side="right")])
    parts = rows.groupby("type").part.agg(set)
    rows = rows[rows["type"].isin(parts[parts >= set(names[:3])].index) & (rows.part != "unused")]
    if rows["type"].nunique() < 2:
        warnings.warn("no classifier of types is tuned: too few types have enough RNAs", stacklevel=3)
        return {}
    return {CLASSIFIER: rows}


class Task:
    """One task's RNAs, their lower blocks read; and what it is to train a method on them."""

    def __init__(self, model: LanguageModel, layer: int, rnas: pd.DataFrame, seed: int):
        self.model, self.layer, self._starts = model, layer, dict[tuple[int, int], Above]()
        parts = {part: rows.reset_index(drop=True) for part, rows in rnas.groupby("part")}
        self.types, self.labelled = sorted(set(parts["train"].type)), rnas.task.iloc[0] == CLASSIFIER
        self.train, self.steps = parts["train"], min(STEPS, len(parts["train"]))
        self.examples = [self._read(self.train, seed + n) for n in range(1 if self.labelled else COPIES)]
        self.validation, self.test, self.elsewhere = (
            tuning.in_batches(self._read(parts[part], seed + 100 + n), model, parts[part].sequence.tolist())
            for n, part in enumerate(("validation", "test", "elsewhere"))
        )
        tuning.check(model, layer, self.elsewhere[0])

    def _read(self, rows: pd.DataFrame, seed: int) -> list[Example]:
        sequences = rows.sequence.tolist()
        if self.labelled and rows.part.iloc[0] != "elsewhere":
            return tuning.read(self.model, self.layer, sequences, labels=[*map(self.types.index, rows.type)])
        return tuning.read(self.model, self.layer, sequences, masked=choose_masked(sequences, seed))

    def chosen(self, number: int, seed: int) -> list[Example]:
        """All copies of `number` RNAs to learn from, drawn by `seed`; of types as even as can be."""
        order = np.random.default_rng(seed).permutation(len(self.train))
        turn = self.train.type.iloc[order].groupby(self.train.type.iloc[order]).cumcount().to_numpy()
        rows = order[turn.argsort(kind="stable")][:number] if self.labelled else order[:number]
        return [copies[row] for copies in self.examples for row in rows]

    def start(self, number: int, seed: int) -> Above:
        """The model as it is; for types with a linear classifier of its mean states, fitted on the RNAs to
        learn from, with the penalty that does best on the validation RNAs."""
        key = (number, seed) if self.labelled else (0, 0)
        if key not in self._starts:
            self._starts[key] = Above(self.model, self.layer)
            if self.labelled:
                self._starts[key].head = self._classifier(self._starts[key], self.chosen(number, seed))
        return self._starts[key]

    def _classifier(self, above: Above, examples: Sequence[Example]) -> nn.Linear:
        batch, found = tuning.together(examples, self.model), list[tuple[float, nn.Linear]]()
        with torch.no_grad():
            sets = [above.pooled(of) for of in (batch, *self.validation)]
        pooled_SD, target_S = torch.cat(sets[1:]), torch.cat([of.target for of in self.validation])
        for penalty in PENALTIES:
            fit = LogisticRegression(C=penalty, max_iter=1000)
            fit.fit(sets[0].cpu().numpy(), batch.target.cpu().numpy())
            head = nn.Linear(self.model.width, len(self.types)).to(self.model.device).requires_grad_(False)
            both = np.column_stack([fit.coef_, fit.intercept_])
            both = both if len(both) > 1 else np.concatenate([-both, both]) / 2  # two types have one row
            head.weight.data.copy_(torch.from_numpy(both[:, :-1]))
            head.bias.data.copy_(torch.from_numpy(both[:, -1]))
            found.append((cross_entropy(head(pooled_SD), target_S).item(), head))
        return min(found, key=lambda pair: pair[0])[1]

    def run(self, add: Callable[[Above], None], number: int, rate: float, seed: int) -> Run:
        """A method trained on `number` RNAs; the classifier of types, if there is one, stays as it is."""
        torch.manual_seed(seed)
        above = Above(self.model, self.layer, self.start(number, seed).head)
        add(above)
        return tuning.tune(above, self.chosen(number, seed), self.validation, rate, self.steps, seed)


def tuned_layer(layers: Sequence[int], model: LanguageModel) -> int:
    """The last studied layer that has a block above it. Raises ValueError if there is none."""
    if not (found := [layer for layer in layers if 0 < layer < model.blocks]):
        raise ValueError("fine-tuning needs a layer below the last: add one to the parameter 'layers'")
    return max(found)


def compare(
    model: LanguageModel, autoencoders: Mapping, rnas: pd.DataFrame, layer: int, seed: int = 0
) -> pd.DataFrame:
    """What every method learns of every task: a row per task, method, number of examples and seed.

    model : with its head for masked bases
    autoencoders : by name and layer, the first one that under test
    rnas : `draw_rnas`

    The rate of `RATES` is each method's best on the validation RNAs with all examples and the first seed.
    Columns task, method, parameters, examples, seed, rate, step (of the lowest validation loss), before,
    loss (test, nats a masked base or RNA), change (loss - before; mean over the seeds), low, high (its 95 %
    interval, RNAs resampled), elsewhere_before, elsewhere (nats a masked base of other RNAs), and excess:
    g - 1 of every latent of a method that learns gains.
    """
    dictionaries = {name: of[layer] for name, of in autoencoders.items()}
    rows, found = [], tuning.methods(model, dictionaries, layer)
    for name, of_task in rnas.groupby("task", sort=False):
        task = Task(model, layer, of_task, seed)
        sizes = sorted({max(round(share * len(task.train)), 1) for share in SHARES})
        for method, add in tqdm(found.items(), name, mininterval=1):
            trials = {rate: task.run(add, sizes[-1], rate, seed) for rate in RATES}
            rate = min(trials, key=lambda rate: trials[rate].validation)
            curve = sizes if method in CURVES and not task.labelled else sizes[-1:]
            for number in curve:
                seeds = range(seed, seed + SEEDS)
                runs = {s: task.run(add, number, rate, s) for s in seeds if (number, s) != (sizes[-1], seed)}
                runs |= {seed: trials[rate]} if number == sizes[-1] else {}
                table = _scored(task, number, dict(sorted(runs.items())))
                facts = {"task": name, "method": method, "examples": number, "rate": rate}
                rows.append(table.assign(**facts))
    return pd.concat(rows, ignore_index=True)


def _scored(task: Task, number: int, runs: dict[int, Run]) -> pd.DataFrame:
    """The rows of one method and number of examples."""
    rows, changes, count_S = [], [], np.empty(0)
    for seed, run in runs.items():
        start = task.start(number, seed)
        before_S, count_S = tuning.losses(start, task.test)
        after_S, _ = tuning.losses(run.above, task.test)
        changes.append(after_S - before_S)
        row = {"seed": seed, "step": run.step, "before": before_S.sum() / count_S.sum()}
        row |= {"parameters": sum(of.numel() for of in run.above.trained)}
        row |= {
            "loss": after_S.sum() / count_S.sum(),
            "elsewhere": tuning.mean_loss(run.above, task.elsewhere),
        }
        row |= {"elsewhere_before": tuning.mean_loss(start, task.elsewhere)}
        gains = run.above.change.excess_F.tolist() if isinstance(run.above.change, tuning.Gains) else None
        rows.append(row | {"excess": gains})
    change_S, size = np.mean(changes, axis=0), len(count_S)
    draws_RS = np.random.default_rng(0).multinomial(size, np.full(size, 1 / size), RESAMPLES)
    drawn_R = draws_RS @ change_S / np.maximum(draws_RS @ count_S, 1)
    low, high = np.percentile(drawn_R, (2.5, 97.5))
    return pd.DataFrame(rows).assign(change=change_S.sum() / count_S.sum(), low=low, high=high)


def by_side(table: pd.DataFrame) -> pd.DataFrame:
    """fig-fine-tuning's table from `compare`: with all examples, on the task's own RNAs and on others."""
    most = table[table.examples == table.groupby("task").examples.transform("max")]
    columns = ["task", "method", "parameters", "examples", "rate", "seed", "step", "change", "low", "high"]
    own = most[columns].assign(side=OWN, of_seed=most.loss - most.before)
    other = most[columns].assign(side=OTHER, of_seed=most.elsewhere - most.elsewhere_before)
    change = other.groupby(["task", "method"]).of_seed.transform("mean")
    return pd.concat([own, other.assign(change=change, low=np.nan, high=np.nan)], ignore_index=True)


def by_examples(table: pd.DataFrame) -> pd.DataFrame:
    """fig-fine-tuning-examples' table from `compare`: the `CURVES`, where the number of examples varies."""
    rows = table[table.method.isin(CURVES)].groupby("task").filter(lambda of: of.examples.nunique() > 1)
    columns = ["task", "method", "examples", "parameters", "change", "low", "high"]
    return rows[columns].drop_duplicates(ignore_index=True)


def largest(
    table: pd.DataFrame, rnas: Activations, tested: pd.DataFrame, layer: int, count: int = 5
) -> pd.DataFrame:
    """tab-fine-tuning: the latents under test whose gains have moved furthest, a mean over the seeds.

    table : of `compare`; rnas : of known structure; tested : `causes.pairing_test`

    Columns task, feature, gain, least, most (over the seeds), concept (of best base-stratified AUROC on
    held-out families), auroc, pairing (whether it is a pairing feature; missing where it was not tested).
    """
    sets, tables = AnnotatedSets(rnas), []
    for task, gain_NF in gains_of(table).items():
        mean_F = gain_NF.mean(0)
        top = np.argsort(-np.abs(mean_F - 1), kind="stable")[:count]
        top = top[np.abs(mean_F[top] - 1) >= MOVED]
        ends = {"least": gain_NF.min(0)[top], "most": gain_NF.max(0)[top]}
        tables.append(pd.DataFrame({"task": task, "feature": top, "gain": mean_F[top]} | ends))
    found, labels = pd.concat(tables, ignore_index=True), sets.annotations["heldout"]
    matrix_TJ = rnas.features(layer)[sets.rows["heldout"]][:, found.feature.to_numpy()]
    auroc_JC = Sample(matrix_TJ, labels, np.ones(len(found))).base_auroc()
    names = [f"{name} ({group})" for group, name in zip(labels.groups, labels.concepts)]
    found = found.assign(concept=np.array(names)[auroc_JC.argmax(1)], auroc=auroc_JC.max(1))
    pairing = tested[tested.layer == layer].set_index("feature").pairing
    return found.assign(pairing=found.feature.map(pairing))


def gain_table(largest: pd.DataFrame) -> pd.DataFrame:
    """tab-fine-tuning: `largest` under names for readers."""
    names = {"least": "lowest seed", "most": "highest seed", "concept": "concept it tells best"}
    names |= {"auroc": "AUROC within bases", "pairing": "pairing feature"}
    return largest.drop(columns="layer", errors="ignore").rename(columns=names)


def gains_of(table: pd.DataFrame) -> dict[str, np.ndarray]:
    """The gains of the latents under test with all examples, [N, F] by task."""
    rows = table[
        (table.method == GAINS) & (table.examples == table.groupby("task").examples.transform("max"))
    ]
    return {task: 1 + np.stack([*of.excess]) for task, of in rows.groupby("task", sort=False)}


def numbers(table: pd.DataFrame) -> dict:
    """What the page's captions and conclusion say; changes in nats, in words by task."""
    sides = by_side(table).drop_duplicates(["task", "method", "side"])
    own, other = (of.set_index(["task", "method"]) for _, of in sides.groupby("side", sort=False))
    tasks, signed = list(dict.fromkeys(table.task)), lambda value: f"{value:+.3f}".replace("-", "−")
    change = own.change.unstack("task")
    words = lambda of: ", ".join(f"{signed(of[task])} ({task})" for task in tasks)  # noqa: E731
    before = table.groupby("task").before.mean()
    facts: dict = {"tasks": len(tasks), "seeds": table.seed.nunique(), "gains": words(change.loc[GAINS])}
    facts |= {"lora": words(change.loc[LORA]), "ia3": words(change.loc[IA3]), "all": words(change.loc[ALL])}
    controls = [name for name in change.index if name.startswith("gains") and name != GAINS]
    facts |= {"controls": len(controls), "before": ", ".join(f"{before[t]:.3f} ({t})" for t in tasks)}
    sure = own.xs(GAINS, level="method").high < 0  # a tie near 0 is no victory
    sure = change.columns[change.columns.map(sure)]
    facts |= {"sure": len(sure), "sure_tasks": ", ".join(sure) or "none"}
    for name, of in {"lora": LORA, "ia3": IA3, "all": ALL}.items():
        facts[f"above_{name}"] = int((change.loc[GAINS, sure] < change.loc[of, sure]).sum())
    facts["above_controls"] = int((change.loc[GAINS, sure] < change.loc[controls, sure].min()).sum())
    facts["forgotten_lora"] = words(other.change.unstack("task").loc[LORA])
    facts["forgotten"] = words(other.change.unstack("task").loc[GAINS])
    facts["forgotten_all"] = words(other.change.unstack("task").loc[ALL])
    facts["parameters"] = int(own.parameters.xs(GAINS, level="method").iloc[0])
    agree = {}
    for task, gain_NF in gains_of(table).items():
        moved = gain_NF[:, (gain_NF != 1).any(0)]
        with np.errstate(invalid="ignore"):  # of a seed in which no gain has moved
            pairs = np.corrcoef(moved)[np.triu_indices(len(moved), 1)] if moved.shape[1] > 1 else [np.nan]
        agree[task] = f"{np.mean(pairs):.2f}" if np.isfinite(pairs).all() else "– (no gain moved)"
    return facts | {"agreement": ", ".join(f"{agree[task]} ({task})" for task in tasks)}
