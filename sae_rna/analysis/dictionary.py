"""Choosing the dictionary: what architecture, size, sparsity and length of training give, on one layer.

All candidates learn from the same batches, each from two seeds; the one that is shown also for half and for
twice as long. It counts as trained if doubling its training changes little (`trained`), and which one ought
to be shown follows from `choose`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import pandas as pd
from tqdm import tqdm

from sae_rna.analysis import fidelity
from sae_rna.analysis.controls import latents
from sae_rna.analysis.recurrence import Dictionary, compare
from sae_rna.analysis.statistics import choosing
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import ActivationStream, hidden_states
from sae_rna.parameters import Parameters
from sae_rna.records.splits import settings
from sae_rna.records.structure import ELEMENTS
from sae_rna.sae.architectures import KINDS
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.encoding import token_table
from sae_rna.sae.trainer import train

SIZES = (1, 2, 4, 8)  # of dictionaries, in multiples of the model's width
PENALTIES = (1, 100)  # of the paper's autoencoder, in multiples of its own
ADAPTIVE, MATCHED = ("topk", "batchtopk", "matryoshka"), "relu-l1-matched"
LENGTHS = (0.5, 1.0, 2.0)  # of training, in multiples of the study's own
RNAS, MASKED_RNAS = 200, 60  # of each split; of those scored, with masked bases
STEADY_VARIANCE, STEADY_RECURRENCE = 0.005, 0.1  # most that doubling may change; the latter relative
ALIKE = 0.02  # scores that differ by no more may change places with another seed
PCA = "PCA, largest components"
NAMES = {
    "explained_variance": "explained variance",
    "recurring": "recurring features",
    "dead": "dead latents",
}


class Candidate(NamedTuple):
    """What is compared."""

    architecture: str
    expansion: int  # latents in multiples of the model's width
    sparsity: float  # active latents a token, or weight of the penalty

    @property
    def name(self) -> str:
        """Such as "topk, 2 x width, 16"."""
        return f"{self.architecture}, {self.expansion} x width, {self.sparsity:g}"


def candidates(p: Parameters) -> list[Candidate]:
    """The one shown, and around it: every size; half and twice the active latents; other architectures, the
    paper's at several penalties and at the one that leaves as many latents active."""
    shown, size, amount = p.architecture, p.expansion, p.sparsity
    half = max(amount(shown) // 2, 1) if KINDS[shown].counted else amount(shown) / 2
    sizes = [Candidate(shown, expansion, amount(shown)) for expansion in (size, *SIZES)]
    sparser = [Candidate(shown, size, other) for other in (half, 2 * amount(shown))]
    others = [Candidate(name, size, amount(name)) for name in (*ADAPTIVE, MATCHED)]
    paper = [Candidate("relu-l1", size, p.l1 * factor) for factor in PENALTIES]
    return list(dict.fromkeys([*sizes, *sparser, *others, *paper]))


def recipe(p: Parameters) -> dict:
    """How all candidates are trained, for `sweep`."""
    names = ("batch", "buffer_tokens", "epochs", "sae_learning_rate", "precision", "seed")
    return {name: getattr(p, name) for name in names}


def sweep(
    model: LanguageModel, masked_model: LanguageModel, training: pd.DataFrame, structures: pd.DataFrame,
    layer: int, found: list[Candidate], recipe: dict,
) -> pd.DataFrame:  # fmt: skip
    """Every candidate, the first one after each of `LENGTHS`, and principal components of the same L0.

    masked_model : the model with its head for masked bases
    training, structures : records to train on; those with `element` to choose and score features on
    found, recipe : what is compared, and how it is trained

    Columns candidate, architecture, sparsity, expansion, latents; share (of the study's training), tokens
    (read in it); l0, explained_variance, kl, loss_recovered: `fidelity.measure`, of seed 0, on masked RNAs of
    the scored splits; pca_variance, pca_kl: those of each token's l0 largest principal components, where
    share is 1; recurring: share of the live features that recur in the other seed
    (`recurrence.compare`), dead (share); and for every setting and element such as "stem, unseen families":
    the base-stratified AUROC of its best feature, a mean over the seeds, and with "chosen: " before it that
    on the families on which it was chosen.
    """
    options, seed = {name: recipe[name] for name in ("batch", "buffer_tokens", "seed")}, recipe["seed"]
    stream = ActivationStream(model, training.sequence.tolist(), [layer], **options)
    configs, width = {}, model.width
    for one in found:
        members = tuple(Member(layer, one.sparsity, seed + n) for n in (0, 1))
        configs[one] = AutoencoderConfig(one.architecture, members, width, one.expansion * width)
    sets, rows = _evaluated(model, structures, layer, seed), []
    how = {"learning_rate": recipe["sae_learning_rate"], "precision": recipe["precision"]}
    for share in LENGTHS:
        some = found if share == 1 else found[:1]
        stacks, _ = train(stream, [configs[one] for one in some], epochs=share * recipe["epochs"], **how)
        pairs = {one.name: list(stack.views()) for one, stack in zip(some, stacks)}
        beside = [PCA] if share == 1 else []
        kept = _fidelity(masked_model, pairs, training, structures, layer, seed, beside)
        for one, pair in zip(tqdm(some, "dictionaries", mininterval=1), pairs.values()):
            facts = {"candidate": one.name, "architecture": one.architecture, "sparsity": one.sparsity}
            facts |= {"expansion": one.expansion, "latents": one.expansion * width, "share": share}
            facts |= {"tokens": int(share * recipe["epochs"] * stream.tokens)}
            rows.append(facts | kept[one.name] | _features(pair, sets))
    return pd.DataFrame(rows)


def _evaluated(model: LanguageModel, structures: pd.DataFrame, layer: int, seed: int) -> dict:
    """Hidden states [T, D] and tokens of some RNAs of each split, by setting."""
    sets = {}
    for setting, splits in settings(structures).items():
        parts = [structures[structures.split == split] for split in splits]
        parts = [part.sample(min(RNAS, len(part)), random_state=seed) for part in parts]
        parts = [part.reset_index(drop=True) for part in parts]
        states = [hidden_states(model, part.sequence.tolist(), [layer])[:, 0] for part in parts]
        sets[setting] = list(zip(states, map(token_table, parts)))
    return sets


def _fidelity(model, pairs: dict, training, structures, layer: int, seed: int, beside) -> dict[str, dict]:
    """`fidelity.measure` of the first seed of every candidate, with the principal components `beside` it."""
    scored = structures[structures.split.isin([splits[1] for splits in settings(structures).values()])]
    scored = scored.sample(min(MASKED_RNAS, len(scored)), random_state=seed).sequence.tolist()
    fitted = training.sample(min(fidelity.TRAINING_RNAS, len(training)), random_state=seed).sequence.tolist()
    autoencoders = {name: {layer: pair[0]} for name, pair in pairs.items()}
    table = fidelity.measure(model, autoencoders, fitted, scored, [layer], seed, beside)
    table = table.set_index(["architecture", "variant"])
    columns, kept = ["l0", "explained_variance", "kl", "loss_recovered"], {}
    for name in pairs:
        kept[name] = table.loc[(name, "autoencoder"), columns].to_dict()
        for variant in beside:
            pca = table.loc[(name, variant)]
            kept[name] |= {"pca_variance": pca.explained_variance, "pca_kl": pca.kl}
    return kept


def _features(pair: Sequence[SparseAutoencoders], sets: dict) -> dict:
    """How many features recur in the other seed, and what the best ones score, a mean over the two seeds."""
    facts: dict = {}
    for setting, ((known_TD, seen), (unseen_TD, other)) in sets.items():
        coded = [((of(known_TD), seen), (of(unseen_TD), other)) for of in map(latents, pair)]
        tables = [choosing.score_elements(*sets, shuffles=0) for sets in coded]
        scores = pd.concat(tables).groupby("element")[["base_auroc", "selection_base_auroc"]].mean()
        for letter, row in scores[scores.index.isin(["S", "H"])].iterrows():
            facts[f"{ELEMENTS[letter]}, {setting}"] = row.base_auroc
            facts[f"chosen: {ELEMENTS[letter]}, {setting}"] = row.selection_base_auroc
    first, second = (Dictionary.of(sae, known_TD) for sae in pair)
    compared = compare(first, [second])
    live = compared[~compared.dead]
    return facts | {"recurring": live.recurs.mean(), "dead": compared.dead.mean()}


def by_measure(table: pd.DataFrame) -> pd.DataFrame:
    """fig-dictionary-features' table: a row per candidate and measure."""
    settled = [name for name in table if name.startswith(("stem, ", "hairpin loop, "))]
    long = table[table.share == 1].melt("candidate", ["recurring", *settled], "measure", "value")
    return long.replace({"measure": NAMES})


def by_length(table: pd.DataFrame) -> pd.DataFrame:
    """fig-dictionary-training's table: a row per length of the first candidate's training and measure."""
    own = table[table.candidate == table.candidate.iloc[0]]
    settled = [name for name in table if name.startswith(("stem, ", "hairpin loop, "))]
    return own.melt("tokens", [*NAMES, *settled], "measure", "value").replace({"measure": NAMES})


def trained(table: pd.DataFrame) -> bool:
    """Whether the first candidate of `sweep` counts as trained: twice its training changes explained variance
    by less than `STEADY_VARIANCE` and the share of recurring features by less than `STEADY_RECURRENCE` of
    itself."""
    own = table[table.candidate == table.candidate.iloc[0]].set_index("share")
    own = own[["explained_variance", "recurring"]].loc[[1.0, LENGTHS[-1]]]
    variance, recurrence = own.diff().abs().iloc[-1]
    return bool(variance < STEADY_VARIANCE and recurrence < STEADY_RECURRENCE * own.recurring[1.0])


def choose(table: pd.DataFrame) -> pd.Series:
    """The row of the candidate that is shown.

    Of the overcomplete ones (of more latents than the model's width) that keep more variance than equally
    many principal components of each token (of all, if none does), some have stem and hairpin features about
    as good as the best, in the mean, on the families on which they are chosen (`ALIKE`). Of these, the one of
    which most features recur.
    """
    full = table[(table.share == 1) & (table.expansion > 1)]
    better = full[full.explained_variance > full.pca_variance]
    full = better if len(better) else full
    score = full.filter(like="chosen: ").mean(axis=1)
    return full.loc[full.recurring[score >= score.max() - ALIKE].idxmax()]


def numbers(table: pd.DataFrame, p: Parameters) -> dict:
    """What the page's captions and conclusion say."""
    full, chosen = table[table.share == 1], choose(table)
    shown = Candidate(p.architecture, p.expansion, p.sparsity(p.architecture)).name
    own, alike = full.set_index("candidate").loc[shown], full[full.sparsity == p.sparsity(p.architecture)]
    longer = table[(table.candidate == shown) & (table.share == LENGTHS[-1])].iloc[0]
    most = alike.loc[alike.explained_variance.idxmax()]
    facts: dict = {"candidates": len(full), "tokens": int(full.tokens.max()), "chosen": chosen.candidate}
    facts |= {"shown": shown, "is_trained": "is" if trained(table) else "is not"}
    facts |= {"agree": "the one shown" if chosen.candidate == shown else f"not the one shown, {shown}"}
    measured = ["explained_variance", "kl", "recurring", "dead", "loss_recovered"]
    facts |= own[[*measured, "l0", "pca_variance", "pca_kl"]].to_dict()
    facts |= {f"longer_{name}": longer[name] for name in measured}
    facts |= {"most": most.candidate, "most_variance": most.explained_variance}
    facts |= {"alike": ALIKE, "change": STEADY_VARIANCE, "part": STEADY_RECURRENCE}
    return facts | {"beating": int((full.kl < full.pca_kl).sum())}
