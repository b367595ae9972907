"""Are features real? Dictionaries where the latents are known, and features whose names could be disproved.

Planted states are sums of directions, one for each thing that is true of a nucleotide of a synthetic RNA; a
dictionary is as good as the latents that it finds again. Features of the study keep the name of a concept
where their firing follows the structure and not the letters (`RULES`), as `falsification` tests.

Shapes: T nucleotides, G planted latents, D width, F features, H thresholds.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import torch
from scipy.optimize import linear_sum_assignment

from sae_rna.analysis.controls import frozen_name, is_found, latents, untrained
from sae_rna.analysis.statistics.annotations import annotate
from sae_rna.analysis.statistics.falsification import FALLS, STAYS, SURVIVAL, TESTS, survival
from sae_rna.analysis.statistics.scoring import THRESHOLDS, harmonic_mean, share
from sae_rna.extraction.stream import Standardiser, hidden_states
from sae_rna.parameters import ARCHITECTURES, FROZEN
from sae_rna.records.composition import NUCLEOTIDES, kmers
from sae_rna.records.splits import settings
from sae_rna.records.structure import CANONICAL_PAIRS, pair_table
from sae_rna.sae.architectures import KINDS
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.encoding import token_table
from sae_rna.sae.explained_variance import ExplainedVariance
from sae_rna.sae.features import dense, to_csr
from sae_rna.sae.trainer import train

PLANTED_RNAS, WIDTH, LATENTS = {"train": 1200, "matched": 300, "scored": 300}, 64, 128
NOISE = 0.03  # standard deviation of the noise in every dimension; a latent's direction has norm 1
RECIPE: dict = {"epochs": 7, "learning_rate": 1e-2, "precision": "float32"}
FOUND = 0.8  # a planted latent counts as found where precision and recall are at least that
TRIMERS = "3-mers"  # the group of planted latents that stand for letters alone
_SCORES = ["f1", "precision", "recall", "cosine"]
_PLANTED_CONCEPTS = ("strand start", "strand end", "5' strand", "hairpin-closing pair")

TESTED_RNAS, BOUND = 100, 0.5  # RNAs of a setting; share of the firing that must survive, or must not
KEEPS, LOSES, UNKNOWN = "keeps its name", "loses its name", "cannot be told"
RULES = {
    KEEPS: f"less than {BOUND:.0%} of its firing survives where the letters stay and the structure goes "
    f"({FALLS[0]}, {FALLS[1]}), and more where the structure stays ({STAYS[0]}, {STAYS[1]}), in every test "
    "that applies",
    LOSES: "the share is on the wrong side in a test",
    UNKNOWN: "no test of one of the two kinds applies: an RNA without any pair has the concept, too, or too "
    "few RNAs have it",
}


def draw_rna(rng: np.random.Generator) -> tuple[str, str]:
    """A synthetic RNA: one or two hairpins, some with a bulge, between unpaired stretches."""
    stretch = lambda low, high: "." * int(rng.integers(low, high + 1))  # noqa: E731
    structure = stretch(0, 8)
    for _ in range(rng.integers(1, 3)):
        inner, outer = rng.integers(2, 6, 2)
        bulge = stretch(0, 2) if rng.random() < 0.3 else ""
        helix = "(" * outer + bulge + "(" * inner + stretch(3, 9) + ")" * (inner + outer)
        structure += helix + stretch(1, 8)
    letters, pairs = rng.choice(list(NUCLEOTIDES), len(structure)), sorted(CANONICAL_PAIRS)
    for first, last in enumerate(pair_table(structure)):
        if last > first:
            letters[[first, last]] = list(pairs[rng.integers(len(pairs))])
    return "".join(letters), structure


def known_latents(records: pd.DataFrame) -> pd.DataFrame:
    """What is true of every nucleotide, boolean [T, G]; columns are (group, latent)."""
    records = records.assign(element=[len(of) * "E" for of in records.sequence])
    tokens = token_table(records)
    concepts = annotate(tokens, records)
    members = pd.DataFrame(concepts.members.toarray(), columns=[*zip(concepts.groups, concepts.concepts)])
    partners = [pair_table(structure) for structure in records.secondary_structure]
    paired = [
        sequence[partner] if partner >= 0 else ""
        for sequence, of in zip(records.sequence, partners)
        for partner in of
    ]
    partner_T = np.array(paired)
    columns = {("base", base): tokens.base.to_numpy() == base for base in NUCLEOTIDES}
    columns |= {("pairing", "paired"): partner_T != ""}
    columns |= {("pairing", f"partner is {base}"): partner_T == base for base in NUCLEOTIDES}
    columns |= {("place", name): members[of, name] for of, name in members if name in _PLANTED_CONCEPTS}
    columns |= {
        ("loop", name): members[of, name] for of, name in members if of in ("hairpin size", "tetraloop")
    }
    trimers = dense(kmers(records.sequence, 3)) > 0
    columns |= {(TRIMERS, f"3-mer {number}"): trimers[:, number] for number in range(trimers.shape[1])}
    return pd.DataFrame(columns)


class Planted:
    """States [T, D] of synthetic RNAs and their latents; as a stream, what `train` takes."""

    def __init__(self, count: int, directions_GD: np.ndarray, seed: tuple[int, int]):
        rng = np.random.default_rng(seed)
        rnas = dict(draw_rna(rng) for _ in range(count))
        records = pd.DataFrame({"sequence": rnas.keys(), "secondary_structure": rnas.values()})
        self.truth = known_latents(records)
        strength_TG = self.truth.to_numpy() * rng.uniform(0.5, 1.5, self.truth.shape)
        noise_TD = rng.normal(0, NOISE, (len(self.truth), directions_GD.shape[1]))
        self.states_TD = torch.from_numpy((strength_TG @ directions_GD + noise_TD).astype(np.float32))
        self.standardise = Standardiser.fit(self.states_TD[:, None])
        self.buffer, self.layers, self.batch, self.key = self.states_TD, [1], 256, {"seed": seed}
        self.tokens = len(self.states_TD)

    def epochs(self, count: float, start: int = 0) -> Iterator[torch.Tensor]:
        """Batches [1, B, D] in random order."""
        x_1TD, rng = self.standardise(self.states_TD[:, None]).transpose(0, 1), np.random.default_rng(0)
        for step in range(int(count * self.tokens) // self.batch):
            rows = rng.integers(self.tokens, size=self.batch)
            if step >= start:
                yield x_1TD[:, rows]


def recover(architecture: str, sparsity: Mapping[str, float], seed: int = 0) -> pd.DataFrame:
    """How well every architecture, and `architecture` frozen or untrained, finds planted latents again.

    sparsity : weight of the penalty by architecture; where active latents are counted, there are as many as
        planted ones in the mean

    Every planted latent is matched to one of the dictionary's by correlation on RNAs of their own, which also
    decide from which activation on it counts as firing. Rows: source, group, latent, precision, recall and f1
    (on further RNAs), cosine (of the decoder's row with the planted direction), found (precision and recall
    are at least `FOUND`); explained_variance and l0 of the source.
    """
    rng = np.random.default_rng(seed)
    planted: dict[str, Any] = {}  # not the stream of a language model, but all that training asks of one
    count = len(known_latents(pd.DataFrame([draw_rna(rng)], columns=["sequence", "secondary_structure"])).T)
    directions_GD = rng.normal(size=(count, WIDTH))
    directions_GD /= np.linalg.norm(directions_GD, axis=1, keepdims=True)
    for number, (use, rnas) in enumerate(PLANTED_RNAS.items()):
        planted[use] = Planted(rnas, directions_GD, (seed, number))
    k = round(planted["train"].truth.sum(axis=1).mean())
    configs = []
    for name, frozen in [(name, "") for name in ARCHITECTURES] + [(architecture, part) for part in FROZEN]:
        member = Member(1, k if KINDS[name].counted else sparsity[name], seed)
        configs.append(AutoencoderConfig(name, (member,), WIDTH, LATENTS, frozen=frozen))
    stacks, _ = train(planted["train"], configs, **RECIPE)
    sources = {of.config.frozen and frozen_name(of) or of.config.architecture: of for of in stacks}
    sources["untrained"] = untrained(stacks[ARCHITECTURES.index(architecture)])
    tables = [
        _matched(stack, planted["matched"], planted["scored"], directions_GD).assign(source=source)
        for source, stack in sources.items()
    ]
    return pd.concat(tables, ignore_index=True)


def _matched(stack: SparseAutoencoders, known: Planted, other: Planted, directions_GD) -> pd.DataFrame:
    """The rows of one source of `recover`."""
    encode = latents(stack)
    known_TF, other_TF = (dense(encode(planted.states_TD.numpy())) for planted in (known, other))
    truth_TG, other_TG = (planted.truth.to_numpy() for planted in (known, other))
    correlation_GF = _correlation(truth_TG, known_TF)
    chosen_G = linear_sum_assignment(-correlation_GF)[1]
    scale_G = known_TF[:, chosen_G].max(axis=0)
    precision_HG, recall_HG = _precision_recall(known_TF[:, chosen_G], truth_TG, scale_G)
    level_G = harmonic_mean(precision_HG, recall_HG).argmax(axis=0)
    scores = _precision_recall(other_TF[:, chosen_G], other_TG, scale_G)
    precision_G, recall_G = (score_HG[level_G, np.arange(len(level_G))] for score_HG in scores)
    x_1TD = stack.standardise(other.states_TD[:, None]).transpose(0, 1)
    variance = ExplainedVariance()
    variance.update(x_1TD, stack.decode(torch.from_numpy(other_TF)[None]).detach())
    rows_GD = stack.decoder_weight[0].detach()[torch.from_numpy(chosen_G)] * stack.standardise.std
    cosine_G = torch.cosine_similarity(rows_GD, torch.from_numpy(directions_GD).float()).numpy()
    groups, names = zip(*known.truth)
    table = pd.DataFrame({"group": groups, "latent": names, "precision": precision_G, "recall": recall_G})
    facts = {"explained_variance": variance.value().item(), "l0": (other_TF > 0).sum(axis=1).mean()}
    facts |= {"f1": harmonic_mean(precision_G, recall_G), "cosine": cosine_G}
    return table.assign(found=np.minimum(precision_G, recall_G) >= FOUND, **facts)


def by_latent(planted: pd.DataFrame) -> pd.DataFrame:
    """fig-planted-latents' table: the 3-mers' mean in one row."""
    letters = planted.group == TRIMERS
    name = f"{TRIMERS}, mean of {planted.latent[letters].nunique()}"
    means = planted[letters].groupby("source", sort=False)[_SCORES].mean().reset_index().assign(latent=name)
    return pd.concat([planted[~letters], means], ignore_index=True)[["source", "latent", *_SCORES]]


def planted_table(planted: pd.DataFrame) -> pd.DataFrame:
    """tab-planted: a row for each dictionary."""
    letters, sources = planted.group == TRIMERS, planted.groupby("source", sort=False)
    table = sources[["explained_variance", "l0"]].first()
    of_pairs = planted[~letters].groupby("source").found.mean()
    table = table.assign(pairs=of_pairs, letters=planted[letters].groupby("source").found.mean())
    table = table.assign(cosine=sources.cosine.median()).round(3).reset_index()
    names = {"source": "dictionary", "explained_variance": "explained variance", "l0": "active latents (L0)"}
    names |= {"pairs": "found, bases and pairing", "letters": "found, 3-mers", "cosine": "median cosine"}
    return table.rename(columns=names)


def _correlation(truth_TG: np.ndarray, values_TF: np.ndarray) -> np.ndarray:
    """Pearson's correlations, [G, F]; 0 with what never changes."""
    one_TG, other_TF = (
        (values - values.mean(0)) / np.maximum(values.std(0), 1e-12) for values in (truth_TG, values_TF)
    )
    return one_TG.T @ other_TF / len(one_TG)


def _precision_recall(values_TG, truth_TG, scale_G) -> tuple[np.ndarray, np.ndarray]:
    """Precision and recall of each column for the truth's, at all `THRESHOLDS` of its scale, [H, G]."""
    fires_HTG = values_TG > np.multiply.outer(THRESHOLDS, scale_G)[:, None]
    hits_HG = (fires_HTG & truth_TG).sum(axis=1)
    return share(hits_HG, fires_HTG.sum(axis=1)), share(hits_HG, truth_TG.sum(axis=0))


def falsify(
    readers: Mapping[str, tuple], concepts: pd.DataFrame, records: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """`falsification.survival` of every source's best feature of each concept that is found, by setting.

    readers : language model and autoencoders by source; sources are those of `concepts`
    concepts : the layer of each source, setting and concept that is best: `controls.best_of`
    records : RNAs with a structure, an `element` string and `split`; the scored split of a setting is tested
    """
    tables, found = [], concepts[is_found(concepts)]
    for source, reader in readers.items():
        for setting, (_, scored) in settings(records).items():
            named = found[(found.source == source) & (found.setting == setting)]
            rnas = records[(records.split == scored) & ~records.sequence.str.contains("[^ACGU]")]
            rnas = rnas.sample(min(len(rnas), TESTED_RNAS), random_state=seed).reset_index(drop=True)
            if len(named) and len(rnas):
                table = survival(partial(fire, *reader), named, rnas, seed)
                tables.append(table.assign(source=source, setting=setting))
    columns = ["source", "setting", *SURVIVAL]
    return pd.concat(tables, ignore_index=True)[columns] if tables else pd.DataFrame(columns=columns)


def fire(model, autoencoders, sequences: list[str], features: list[tuple[int, int]]) -> np.ndarray:
    """See `falsification.Fire`; a pass of the model for each group of layers, which bounds the memory."""
    values_TN = np.empty((sum(map(len, sequences)), len(features)), np.float32)
    for group in autoencoders.groups:
        layers = sorted({layer for layer, _ in features} & set(group))
        states_TLD = hidden_states(model, sequences, layers) if layers else np.empty(0)
        for place, layer in enumerate(layers):
            columns = [n for n, of in enumerate(features) if of[0] == layer]
            activations_TF = to_csr(latents(autoencoders[layer])(states_TLD[:, place]))
            values_TN[:, columns] = dense(activations_TF[:, [features[n][1] for n in columns]])
    return values_TN


def verdicts(tested: pd.DataFrame) -> pd.DataFrame:
    """A row for each named feature of `falsify`: the share in every test, and the `verdict` by `RULES`."""
    keys = ["source", "setting", "group", "concept", "layer", "feature"]
    table = tested.pivot(index=keys, columns="test", values="share").reindex(columns=[*TESTS])
    table = table.reindex(pd.MultiIndex.from_frame(tested[keys].drop_duplicates()))
    wrong = (table[[*FALLS]] >= BOUND).any(axis=1) | (table[[*STAYS]] <= BOUND).any(axis=1)
    told = table[[*FALLS]].notna().any(axis=1) & table[[*STAYS]].notna().any(axis=1)
    return table.assign(verdict=np.where(wrong, LOSES, np.where(told, KEEPS, UNKNOWN))).reset_index()


def shown(tested: pd.DataFrame) -> pd.DataFrame:
    """fig-falsification's table: `falsify` with `verdicts`, what stays in a test, and the bound."""
    keys = ["source", "setting", "group", "concept"]
    table = tested.merge(verdicts(tested)[[*keys, "verdict"]], on=keys, how="left")
    return table.assign(stays=table.test.isin(STAYS), bound=BOUND)


def rules() -> pd.DataFrame:
    """tab-name-rules."""
    return pd.DataFrame([*RULES.items()], columns=["verdict", "if"])


def name_table(names: pd.DataFrame) -> pd.DataFrame:
    """tab-names, from `verdicts`."""
    if names.empty:
        names = pd.DataFrame([{"verdict": "no feature counts as found"}], columns=names.columns)
    columns = {"setting": "RNAs", "concept": "named after", "layer": "layer", "feature": "feature"}
    tests = {
        test: names[test].map(lambda share: "–" if np.isnan(share) else f"{share:.0%}") for test in TESTS
    }
    table = names.assign(**tests)[[*columns, *TESTS, "verdict"]]
    return table.rename(columns=columns)


def numbers(planted: pd.DataFrame, names: pd.DataFrame, source: str) -> dict:
    """What captions and conclusion say of `recover` and of `verdicts` of the `source` under test."""
    found = planted.groupby("source", sort=False).found.mean()
    frozen = planted[planted.source.str.contains("frozen")].groupby("source").found.mean()
    facts: dict = {"planted": planted.latent.nunique(), "found_least": FOUND, "best": found.idxmax()}
    facts |= {"dictionaries": len(found), "width": WIDTH, "latents": LATENTS}
    facts |= {"best_found": found.max(), "frozen": frozen.idxmax(), "frozen_found": frozen.max()}
    own, counts = names[names.source == source], {}
    for verdict, word in ((KEEPS, "kept"), (LOSES, "lost"), (UNKNOWN, "open")):
        counts[word] = int((own.verdict == verdict).sum())
    others = names[names.source != source]
    return facts | counts | {
        "named": len(own), "control_named": len(others), "control_kept": int((others.verdict == KEEPS).sum()),
        "least": BOUND, "rnas": TESTED_RNAS,
    }  # fmt: skip
