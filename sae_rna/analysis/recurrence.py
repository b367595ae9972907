"""Are the features the same when the autoencoder is trained again, from another seed or at another width?

Features of two dictionaries are matched one to one by the Hungarian algorithm (scipy's linear sum assignment), once by the cosine
similarity of their decoder rows and once by the correlation of their activations on the same tokens. A feature recurs where both
matchings give it the same counterpart and both similarities are at least 0.7. The criterion follows Paulo & Belrose 2025
(arXiv:2501.16615), who match decoder and encoder rows and found 30 % of the features of two TopK autoencoders with 131,000 latents
shared; activations stand in the encoder's place here, since they also count its bias and the competition for the K places.

On one core a matching of decoder rows takes 0.1 s for 1,024 features, 2.5 s for 4,096 and 6 to 15 s, with 3 GB, for 10,240. A pair takes
four matchings, two of them for its nulls: 2 s for 1,024 features on 190,000 tokens of 16 firing features each. Shapes: T tokens, F
features (A of the reference, B of another dictionary), D width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.optimize import linear_sum_assignment
from scipy.stats import fisher_exact

#: Least cosine and least correlation of a feature that recurs.
RECURS = 0.7
RECURRENCE_COLUMNS = [
    *(
        "seed",
        "latents",
        "feature",
        "dead",
        "match",
        "cosine",
        "null_cosine",
        "activation_match",
        "correlation",
        "null_correlation",
    ),
    *("recurs", "other_dead"),
]


class Dictionary(NamedTuple):
    """One trained autoencoder of a layer."""

    seed: int
    decoder: np.ndarray
    """Rows of the decoder, [F, D]."""
    activations: sparse.csr_matrix | None = None
    """Of the same tokens for all dictionaries, [T, F]; without them features are matched by their decoder rows alone."""


class Match(NamedTuple):
    """Counterpart of every feature of the first of two dictionaries."""

    partner: np.ndarray
    """Number of the counterpart, [A]; -1 where there is none, because the feature was left out or the other dictionary is smaller."""
    similarity: np.ndarray
    """[A]; NaN where there is no counterpart."""
    left_out: tuple[int, int]
    """Features of either dictionary that have no direction, or an activation that never changes (dead features)."""


def match(decoder_a: np.ndarray, decoder_b: np.ndarray) -> Match:
    """The one-to-one matching of decoder rows [A, D] and [B, D] with the highest sum of cosine similarities.

    Rows of zeros are left out. Raises ValueError where the widths differ.
    """
    if decoder_a.shape[1] != decoder_b.shape[1]:
        raise ValueError(
            f"decoder rows have {decoder_a.shape[1]} and {decoder_b.shape[1]} dimensions: only autoencoders of one layer can be matched"
        )
    norms = [np.linalg.norm(decoder, axis=1) for decoder in (decoder_a, decoder_b)]
    return _assign(decoder_a @ decoder_b.T, *norms)


def match_activations(activations_a: sparse.csr_matrix, activations_b: sparse.csr_matrix) -> Match:
    """The one-to-one matching of features with the highest sum of Pearson correlations of their activations, [T, A] and [T, B].

    Correlations come from the sparse product and the moments. Features whose activation is the same on all tokens, as that of dead
    features, have none and are left out. Raises ValueError where the tokens differ in number.
    """
    tokens = activations_a.shape[0]
    if tokens != activations_b.shape[0]:
        raise ValueError(
            f"activations are of {tokens} and of {activations_b.shape[0]} tokens: encode the same tokens with both autoencoders"
        )
    pair = [sparse.csc_matrix(activations, dtype=float) for activations in (activations_a, activations_b)]
    means = [np.asarray(columns.mean(axis=0)).ravel() for columns in pair]
    variances = [
        np.asarray(columns.multiply(columns).mean(axis=0)).ravel() - mean**2
        for columns, mean in zip(pair, means)
    ]
    # what rounding leaves of the variance of a constant column is no variance
    deviations = [
        np.sqrt(np.where(variance > 1e-12 * mean**2, variance, 0)) for variance, mean in zip(variances, means)
    ]
    covariance_AB = (pair[0].T @ pair[1]).toarray() / tokens - np.outer(*means)
    return _assign(covariance_AB, *deviations)


def _assign(product_AB: np.ndarray, scale_A: np.ndarray, scale_B: np.ndarray) -> Match:
    """Matching by product / (scale of one * scale of the other); features of scale 0 are left out."""
    live_A, live_B = np.flatnonzero(scale_A > 0), np.flatnonzero(scale_B > 0)
    similarity = product_AB[np.ix_(live_A, live_B)]
    similarity /= scale_A[live_A, None]
    similarity /= scale_B[live_B]
    rows, columns = linear_sum_assignment(similarity, maximize=True)
    partner_A, similarity_A = np.full(len(scale_A), -1), np.full(len(scale_A), np.nan)
    partner_A[live_A[rows]], similarity_A[live_A[rows]] = live_B[columns], similarity[rows, columns]
    return Match(partner_A, similarity_A, (len(scale_A) - len(live_A), len(scale_B) - len(live_B)))


def random_dictionary(decoder: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """As many random directions as `decoder` has rows, [F, D]: normal with the mean and the covariance of its unit rows.

    Decoder rows crowd into few of the D dimensions, where directions drawn evenly from the sphere would be too easy a control.
    """
    norm = np.linalg.norm(decoder, axis=1, keepdims=True)
    unit = np.divide(decoder, norm, out=np.zeros(decoder.shape), where=norm > 0)
    return rng.multivariate_normal(unit.mean(axis=0), np.cov(unit.T), len(decoder), method="eigh")


def recurrence(reference: Dictionary, others: Sequence[Dictionary], seed: int = 0) -> pd.DataFrame:
    """Every feature of the reference in every other dictionary; one row for each pair of both.

    Columns:

    seed, latents
        Seed and number of features of the other dictionary. Where widths differ, take the smaller for the reference: only as many of
        the larger can have a counterpart.
    feature, dead
        Feature of the reference, and whether it never fires.
    match, cosine
        Counterpart by decoder rows (-1 for none), and cosine.
    activation_match, correlation
        Counterpart by activations (-1 for none), and correlation; -1 and NaN where one of the two dictionaries has no activations.
    null_cosine, null_correlation
        The same for all rows of a dictionary: 95th percentile of the reference's cosines after matching it with a `random_dictionary`,
        and of its correlations after the other's activations were moved along the tokens by a random offset.
    recurs
        Whether cosine and correlation are at least 0.7 and of the same counterpart; without activations, whether the cosine is.
        Never of a dead feature.
    other_dead
        Number of features of the other dictionary that never fire.

    Random directions and offsets are drawn from `seed`. Raises ValueError where dictionaries do not fit together.
    """
    if not others:
        raise ValueError(
            "there is no dictionary to compare with: train at least one more autoencoder of the layer, from another seed"
        )
    rng = np.random.default_rng(seed)
    return pd.concat([_compare(reference, other, rng) for other in others], ignore_index=True)[
        RECURRENCE_COLUMNS
    ]


def _compare(reference: Dictionary, other: Dictionary, rng: np.random.Generator) -> pd.DataFrame:
    by_decoder = match(reference.decoder, other.decoder)
    null = match(reference.decoder, random_dictionary(other.decoder, rng))
    latents = len(reference.decoder)
    table = pd.DataFrame(
        {
            "seed": other.seed,
            "latents": len(other.decoder),
            "feature": np.arange(latents),
            "dead": False,
            "match": by_decoder.partner,
            "cosine": by_decoder.similarity,
            "null_cosine": np.nanpercentile(null.similarity, 95),
            "activation_match": -1,
            "correlation": np.nan,
            "null_correlation": np.nan,
            "recurs": by_decoder.similarity >= RECURS,
            "other_dead": 0,
        }
    )
    if reference.activations is None or other.activations is None:
        return table
    for dictionary in (reference, other):
        if dictionary.activations.shape[1] != len(dictionary.decoder):
            columns, rows = dictionary.activations.shape[1], len(dictionary.decoder)
            raise ValueError(
                f"seed {dictionary.seed}: activations of {columns} features, but {rows} decoder rows; use one autoencoder for both"
            )
    by_activation = match_activations(reference.activations, other.activations)
    tokens = other.activations.shape[0]
    moved_T = np.roll(
        np.arange(tokens), rng.integers(tokens // 4, tokens - tokens // 4)
    )  # far from where it was
    null = match_activations(reference.activations, other.activations[moved_T])
    return table.assign(
        dead=_dead(reference.activations),
        activation_match=by_activation.partner,
        correlation=by_activation.similarity,
        null_correlation=np.nanpercentile(null.similarity, 95),
        recurs=table["recurs"]
        & (by_activation.similarity >= RECURS)
        & (by_activation.partner == by_decoder.partner),
        other_dead=int(_dead(other.activations).sum()),
    )


def _dead(activations: sparse.csr_matrix) -> np.ndarray:
    return np.asarray((activations > 0).sum(axis=0)).ravel() == 0


def summary(recurrence: pd.DataFrame) -> pd.DataFrame:
    """One row per dictionary that the reference was compared with, from `recurrence`.

    seed, latents; features of the reference that fire and dead ones, dead ones of the other; share of the firing features that recur, of
    those whose decoder row alone does (cosine >= 0.7) and whose activation alone does; medians of cosine and correlation over
    the firing features that have a counterpart, and the null's 95th percentile of both.
    """
    rows = []
    for (seed, latents), table in recurrence.groupby(["seed", "latents"], sort=False):
        live = table[~table["dead"]]
        rows.append(
            {
                "seed": seed,
                "latents": latents,
                "features": len(live),
                "dead": int(table["dead"].sum()),
                "other_dead": table["other_dead"].iloc[0],
                "recur": live["recurs"].mean(),
                "recur_by_decoder": (live["cosine"] >= RECURS).mean(),
                "recur_by_activation": (live["correlation"] >= RECURS).mean()
                if live["correlation"].notna().any()
                else np.nan,
                "median_cosine": live["cosine"].median(),
                "null_cosine": table["null_cosine"].iloc[0],
                "median_correlation": live["correlation"].median(),
                "null_correlation": table["null_correlation"].iloc[0],
            }
        )
    return pd.DataFrame(rows)


def recurring(recurrence: pd.DataFrame) -> pd.DataFrame:
    """One row per feature of the reference that fires, from `recurrence`: in how many of the other dictionaries it recurs.

    feature, runs (dictionaries it was sought in), found_in (those it recurs in), median cosine and correlation, and ``recurs``: whether it
    does in more than half of the runs. Filter `recurrence` before to ask of seeds or of widths alone.
    """
    live = recurrence[~recurrence["dead"]].groupby("feature")
    table = live.agg(
        runs=("recurs", "size"),
        found_in=("recurs", "sum"),
        cosine=("cosine", "median"),
        correlation=("correlation", "median"),
    )
    return table.assign(recurs=table["found_in"] > table["runs"] / 2).reset_index()


def concepts_of_recurring(
    recurring: pd.DataFrame, f1_F: np.ndarray, above_null_F: np.ndarray
) -> pd.DataFrame:
    """Do features that recur stand for concepts more often? Two rows, features that recur and features that do not.

    recurring : of `recurring`, columns feature and recurs
    f1_F, above_null_F : best held-out F1 of every feature of the reference over all concepts, and whether it is above its null (bool)

    Columns: recurs, features, with_concept (number above the null), share, median_f1; of both rows together odds_ratio and p_value of
    Fisher's exact test, two-sided. Features that fire often may both recur and score higher: the test shows that the two go
    together, not why. Raises ValueError where the scores are of other features.
    """
    if not len(f1_F) == len(above_null_F) > recurring["feature"].max():
        raise ValueError(
            f"there are {len(f1_F)} F1 and {len(above_null_F)} null marks, but features up to {recurring['feature'].max()}: "
            "give one of each per feature of the reference"
        )
    number = recurring["feature"].to_numpy()
    scored = recurring.assign(f1=np.asarray(f1_F)[number], above=np.asarray(above_null_F, bool)[number])
    rows = []
    for recurs in (True, False):
        part = scored[scored["recurs"] == recurs]
        rows.append(
            {
                "recurs": recurs,
                "features": len(part),
                "with_concept": int(part["above"].sum()),
                "share": part["above"].mean(),
                "median_f1": part["f1"].median(),
            }
        )
    table = pd.DataFrame(rows)
    test = fisher_exact(np.stack([table["with_concept"], table["features"] - table["with_concept"]], axis=1))
    return table.assign(odds_ratio=test.statistic, p_value=test.pvalue)
