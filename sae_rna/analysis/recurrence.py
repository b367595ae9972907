"""Are the features the same when the autoencoder is trained again, from another seed or at another size?

Features of two dictionaries are matched one to one by the Hungarian algorithm, by the cosine similarity of
their decoder rows and by the correlation of their activations on the same tokens. A feature recurs where both
matchings give it the same counterpart and both similarities are at least 0.7. The criterion follows Paulo &
Belrose 2025 (arXiv:2501.16615), who match decoder and encoder rows; activations, in the encoder's place here,
also count its bias and the competition for the K places. A matching of decoder rows takes 0.1 s for 1,024
features and 6 to 15 s, with 3 GB, for 10,240, on one core. Shapes: T tokens, F features (A of the reference,
B of another dictionary), D width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.stats import fisher_exact
from tqdm import tqdm

from sae_rna.analysis.controls import AnnotatedSets, latents
from sae_rna.analysis.statistics import scoring
from sae_rna.extraction.stream import hidden_states
from sae_rna.sae.activations import Activations
from sae_rna.sae.autoencoder import SparseAutoencoders
from sae_rna.sae.features import dense

RECURS = 0.7  # least cosine and least correlation of a feature that recurs
RNAS = 400  # of the selection families, on which activations are correlated
FEWEST = 5  # features in each cell of a table of four for which an odds ratio is told
SEED, SIZE, RANDOM = "another seed", "the other size", "a random dictionary"


class Dictionary(NamedTuple):
    """One trained autoencoder of a layer. Without activations decoder rows alone are matched."""

    seed: int
    decoder: np.ndarray  # [F, D]
    activations: sparse.csr_matrix | None = None  # [T, F], of the same tokens for all dictionaries

    @classmethod
    def of(cls, sae: SparseAutoencoders, states_TD: np.ndarray) -> "Dictionary":
        """The dictionary of one layer's autoencoder, with what it makes of hidden states."""
        (member,) = sae.config.members
        decoder_FD = sae.decoder_weight[0].detach().float().cpu().numpy()
        return cls(member.seed, decoder_FD, latents(sae)(states_TD))


class Match(NamedTuple):
    """Counterpart of every feature of the first of two dictionaries."""

    partner: np.ndarray  # number of the counterpart, [A]; -1 for none: left out, or the other is smaller
    similarity: np.ndarray  # [A]; NaN without a counterpart


def match(decoder_a: np.ndarray, decoder_b: np.ndarray) -> Match:
    """The one-to-one matching of decoder rows [A, D] and [B, D] with the highest sum of cosine similarities.

    Rows of zeros are left out.
    """
    norms = [np.linalg.norm(decoder, axis=1) for decoder in (decoder_a, decoder_b)]
    return _assign(decoder_a @ decoder_b.T, *norms)


def match_activations(activations_a: sparse.csr_matrix, activations_b: sparse.csr_matrix) -> Match:
    """The one-to-one matching of activations [T, A] and [T, B] with the highest sum of Pearson correlations.

    Features whose activation is the same on all tokens have none and are left out.
    """
    pair = [sparse.csc_matrix(activations, dtype=float) for activations in (activations_a, activations_b)]
    means, deviations = zip(*map(_moments, pair))
    # what is active on more than half of the tokens takes less time, and memory, as it stands
    first, second = (
        columns.toarray() if 2 * columns.nnz > np.prod(columns.shape) else columns for columns in pair
    )
    covariance_AB = dense(first.T @ second) / activations_a.shape[0] - np.outer(*means)
    return _assign(covariance_AB, *deviations)


def _moments(columns_TF: sparse.csc_matrix) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of every column."""
    mean_F, square_F = (np.asarray(x.mean(axis=0)).ravel() for x in (columns_TF, columns_TF.power(2)))
    variance_F = square_F - mean_F**2
    # what rounding leaves of the variance of a constant column is no variance
    return mean_F, np.sqrt(np.where(variance_F > 1e-12 * mean_F**2, variance_F, 0))


def _assign(product_AB: np.ndarray, scale_A: np.ndarray, scale_B: np.ndarray) -> Match:
    """Matching by product / (scale of one * scale of the other); features of scale 0 are left out."""
    live_A, live_B = np.flatnonzero(scale_A > 0), np.flatnonzero(scale_B > 0)
    similarity = product_AB[np.ix_(live_A, live_B)]
    similarity /= scale_A[live_A, None]
    similarity /= scale_B[live_B]
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    partner_A, similarity_A = np.full(len(scale_A), -1), np.full(len(scale_A), np.nan)
    partner_A[live_A[rows]], similarity_A[live_A[rows]] = live_B[columns], similarity[rows, columns]
    return Match(partner_A, similarity_A)


def random_dictionary(decoder: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many random directions as rows, [F, D]: normal with the mean and the covariance of the unit rows.

    These crowd into few of the D dimensions: directions drawn evenly would be too easy a control.
    """
    norm = np.linalg.norm(decoder, axis=1, keepdims=True)
    unit = np.divide(decoder, norm, out=np.zeros(decoder.shape), where=norm > 0)
    return rng.multivariate_normal(unit.mean(axis=0), np.cov(unit.T), len(decoder), method="eigh")


def compare_dictionaries(model, autoencoders, sequences, groups, seed: int) -> pd.DataFrame:
    """Every live feature of the first autoencoders in the others: `compare`, with layer and `comparison`.

    autoencoders : by layer; the ones under test, the same from other seeds, and last the ones of another size
    groups : layers whose hidden states are held at the same time

    Raises ValueError without another seed.
    """
    if len(autoencoders) < 3:
        raise ValueError("features can recur only where there are other seeds: set replicates to 1 or more")
    tables = []
    for group in groups:
        states_TLD = hidden_states(model, sequences, group)
        for place, layer in enumerate(tqdm(group, "recurrence", mininterval=1)):
            shown, *others, sized = (Dictionary.of(by[layer], states_TLD[:, place]) for by in autoencoders)
            # only as many features as the smaller dictionary has can have a counterpart
            small, large = sorted((sized, shown), key=lambda dictionary: len(dictionary.decoder))
            chance = Dictionary(-1, random_dictionary(shown.decoder, np.random.default_rng(seed)))
            pairs = {SEED: (shown, others), SIZE: (small, [large]), RANDOM: (shown, [chance])}
            compared = {name: compare(*pair, seed) for name, pair in pairs.items()}
            tables += [table.assign(layer=layer, comparison=name) for name, table in compared.items()]
    return pd.concat(tables, ignore_index=True)


def compare(reference: Dictionary, others: Sequence[Dictionary], seed: int = 0) -> pd.DataFrame:
    """Every feature of the reference in every other dictionary; one row for each pair of both.

    Columns: seed and latents of the other dictionary; feature; dead (it never fires); match and cosine
    (counterpart by decoder rows, -1 for none); activation_match and correlation (by activations; -1 and NaN
    without them); recurs (both similarities at least 0.7 and of the same counterpart; without activations,
    the cosine alone; never of a dead feature); other_dead (features of the other dictionary that never fire);
    null_cosine and null_correlation (95th percentiles of the reference's cosines with a `random_dictionary`,
    and of its correlations after the other's activations were moved along the tokens by a random offset).
    """
    rng = np.random.default_rng(seed)
    return pd.concat([_compare(reference, other, rng) for other in others], ignore_index=True)


def _compare(reference: Dictionary, other: Dictionary, rng: np.random.Generator) -> pd.DataFrame:
    by_decoder = match(reference.decoder, other.decoder)
    null = match(reference.decoder, random_dictionary(other.decoder, rng)).similarity
    numbers, cosine = np.arange(len(reference.decoder)), by_decoder.similarity
    facts = {"seed": other.seed, "latents": len(other.decoder), "feature": numbers, "dead": False}
    facts |= {"match": by_decoder.partner, "cosine": cosine, "null_cosine": np.nanpercentile(null, 95)}
    facts |= {"activation_match": -1, "correlation": np.nan, "null_correlation": np.nan}
    table = pd.DataFrame(facts | {"recurs": cosine >= RECURS, "other_dead": 0})
    if reference.activations is None or other.activations is None:
        return table
    by_activation = match_activations(reference.activations, other.activations)
    tokens = other.activations.shape[0]
    offset = rng.integers(tokens // 4, tokens - tokens // 4)
    moved = other.activations[np.roll(np.arange(tokens), offset)]  # far from where it was
    null = match_activations(reference.activations, moved).similarity
    both = (by_activation.similarity >= RECURS) & (by_activation.partner == by_decoder.partner)
    table["activation_match"], table["correlation"] = by_activation.partner, by_activation.similarity
    table["null_correlation"], table["recurs"] = np.nanpercentile(null, 95), table.recurs & both
    table["dead"], table["other_dead"] = _dead(reference.activations), int(_dead(other.activations).sum())
    return table


def _dead(activations: sparse.csr_matrix) -> np.ndarray:
    return np.asarray((activations > 0).sum(axis=0)).ravel() == 0


def by_layer(compared: pd.DataFrame) -> pd.DataFrame:
    """The figure's table: per layer and comparison, means over the other dictionaries.

    by_decoder, share_null : shares with a counterpart by decoder rows alone, and of random directions
    """
    live = compared[~compared.dead].assign(by_decoder=lambda table: table.cosine >= RECURS)
    taken = {"share": ("recurs", "mean"), "median_cosine": ("cosine", "median")}
    taken |= {"null_cosine": ("null_cosine", "first"), "by_decoder": ("by_decoder", "mean")}
    pairs = live.groupby(["layer", "comparison", "seed", "latents"], sort=False).agg(**taken)
    means = pairs.groupby(["layer", "comparison"], sort=False).mean().reset_index()
    chance = means[means.comparison == RANDOM].set_index("layer").by_decoder
    kept = means[means.comparison != RANDOM].reset_index(drop=True)
    return kept.assign(share_null=kept.layer.map(chance))


def recurring(compared: pd.DataFrame) -> pd.DataFrame:
    """A row per layer and live feature: whether it recurs in more than half of the other seeds."""
    live = compared[(compared.comparison == SEED) & ~compared.dead]
    return (live.groupby(["layer", "feature"]).recurs.mean() > 0.5).reset_index()


def score_features(rnas: Activations, concepts: pd.DataFrame) -> pd.DataFrame:
    """Best base-stratified AUROC of every feature over all concepts, in unseen families, and whether it is
    above a concept's chance: the null's 95th percentile in the rows of `controls.score_concepts`."""
    sets, tables = AnnotatedSets(rnas), []
    labels = sets.annotations["heldout"]
    for layer in rnas.layers:
        matrix_TF = rnas.features(layer)[sets.rows["heldout"]]
        auroc_FC = scoring.Sample(matrix_TF, labels, np.ones(matrix_TF.shape[1])).base_auroc()
        own = concepts[(concepts.layer == layer) & (concepts.setting == "unseen families")]
        names = pd.MultiIndex.from_arrays([labels.groups, labels.concepts])
        chance_C = own.set_index(["group", "concept"]).null_p95.reindex(names).fillna(np.inf).to_numpy()
        scores = {"auroc": auroc_FC.max(1), "above": (auroc_FC > chance_C).any(1)}
        tables.append(pd.DataFrame(scores).rename_axis("feature").reset_index().assign(layer=layer))
    return pd.concat(tables, ignore_index=True)


def concepts_of_recurring(recurring: pd.DataFrame, scores: pd.DataFrame) -> pd.DataFrame:
    """Do features that recur stand for concepts more often? A row per layer and value of recurs.

    `recurring`, `scores` : from `recurring` and `score_features`. Columns: layer, recurs, features,
    with_concept (how many are above chance), share, median_auroc; of both together odds_ratio and p_value of
    Fisher's exact test, two-sided, missing where a cell of the four counts fewer than `FEWEST` features.
    Features that fire often may both recur and score higher: the test says that both go together, not why.
    """
    scored = recurring.merge(scores, on=["layer", "feature"], how="left", validate="one_to_one")
    taken = {"features": ("auroc", "size"), "with_concept": ("above", "sum")}
    taken |= {"share": ("above", "mean"), "median_auroc": ("auroc", "median")}
    tables, counts = [], ["features", "with_concept"]
    for layer, part in scored.groupby("layer"):
        groups = part.groupby("recurs").agg(**taken).reindex([True, False])
        groups[counts] = groups[counts].fillna(0).astype(int)
        cells = np.stack([groups.with_concept, groups.features - groups.with_concept], axis=1)
        test = fisher_exact(cells) if cells.min() >= FEWEST else (np.nan, np.nan)
        groups = groups.assign(odds_ratio=test[0], p_value=test[1]).reset_index()
        groups.insert(0, "layer", layer)
        tables.append(groups)
    return pd.concat(tables, ignore_index=True)


def concept_table(shares: pd.DataFrame) -> pd.DataFrame:
    """tab-recurring-concepts: `concepts_of_recurring`, a row a layer."""
    table = shares[shares.recurs][["layer"]].reset_index(drop=True)
    for recurs, name in ((True, "recurring"), (False, "other")):
        of = shares[shares.recurs == recurs].reset_index(drop=True)
        table[f"{name} features"], table[f"{name}: with a concept"] = of.features, of.with_concept
        table[f"{name}: median AUROC"] = of.median_auroc
    return table.assign(**{"odds ratio": of.odds_ratio, "p": of.p_value})


def numbers(table: pd.DataFrame) -> dict:
    """What the caption and the conclusion say of `by_layer`; below: layers whose median cosine is below the
    95th percentile of random directions'."""
    again = table[table.comparison == SEED]
    facts = {"lowest": again.share.min(), "highest": again.share.max(), "criterion": RECURS}
    return facts | {"below": int((again.median_cosine < again.null_cosine).sum()), "layers": len(again)}
