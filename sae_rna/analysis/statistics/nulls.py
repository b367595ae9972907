"""Agreement by chance: shuffled annotations, p-values against them, and discoveries among many tests.

Shapes: N rows (tokens or sequences), C concepts, S records, R shuffles.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pandas as pd
from scipy.stats import false_discovery_control

from sae_rna.analysis.statistics.annotations import Annotations, number_instances
from sae_rna.analysis.statistics.scoring import share


def shuffled(labels: Annotations, rng: np.random.Generator, family_S: np.ndarray) -> Annotations:
    """Annotations, by chance alone: tokens' are `shifted`, sequences' `permuted`; by `family_numbers`."""
    return (permuted if labels.per_sequence else shifted)(labels, rng, family_S)


def shifted(labels: Annotations, rng: np.random.Generator, family_S: np.ndarray) -> Annotations:
    """Annotations of which each record's is rotated by a random offset of 1 to length - 1.

    Lengths, composition and instances stay, agreement with the sequence goes. An instance across the end of
    the record continues at its beginning and is still one: cut in two it would be harder to find. All records
    of a family are rotated by the same share of their length: they are copies of one structure.
    """
    start_S = np.flatnonzero(np.diff(labels.record_N, prepend=-1))
    length_S = np.diff(start_S, append=len(labels.record_N))
    number_S = np.unique(family_S, return_inverse=True)[1]
    share_S = rng.random(number_S.max(initial=-1) + 1)[number_S]
    offset_S = 1 + np.floor(share_S * (length_S - 1)).astype(np.int64)
    start_N, length_N, offset_N = (values_S[labels.record_N] for values_S in (start_S, length_S, offset_S))
    source_N = start_N + (np.arange(len(start_N)) - start_N + offset_N) % length_N
    return replace(labels, instance_NC=labels.instance_NC[source_N])


def permuted(labels: Annotations, rng: np.random.Generator, family_S: np.ndarray) -> Annotations:
    """Annotations of sequences that change places, whole families at a time."""
    _, first, number_S = np.unique(family_S, return_index=True, return_inverse=True)
    taken_NC = labels.instance_NC[rng.permutation(first)[number_S]]
    return replace(labels, instance_NC=number_instances(taken_NC, labels.record_N))


def family_numbers(labels: Annotations, family_S: Sequence[str] | None) -> np.ndarray:
    """Number of every record's family, [S]; an unknown one (of all records if None) is one of its own.

    Raises ValueError where sequences of one family differ in concepts.
    """
    records = int(labels.record_N[-1]) + 1
    if family_S is None:
        return np.arange(records)
    names = pd.Series(list(family_S))
    codes_S = pd.factorize(names)[0]
    number_S = np.where(codes_S < 0, records + np.arange(records), codes_S)
    if labels.per_sequence:
        _, first, inverse_S = np.unique(number_S, return_index=True, return_inverse=True)
        rows, concepts = (labels.members[first[inverse_S]] != labels.members).nonzero()
        if len(rows):
            family, group = names[rows[0]], labels.groups[concepts[0]]
            raise ValueError(f"family {family} has sequences of more than one {group}")
    return number_S


def against_null(value_C: np.ndarray, null_RC: np.ndarray) -> dict[str, np.ndarray]:
    """Where values stand among those of R shuffles, [C] each; NaN without shuffles.

    null_p95 : the null's 95th percentile: the shuffle above it, not a value between two, since chance
        exceeds the maximum of 20 in 1 of 21 cases, but an interpolated percentile in 2
    p_value : (1 + shuffles that reach it) / (1 + R) (Phipson & Smyth 2010, Stat Appl Genet Mol Biol 9:39)
    p_pooled : the same among the null values of all concepts, each less the mean and divided by the standard
        deviation of its concept's other shuffles plus the median deviation of all concepts (Tusher,
        Tibshirani & Chu 2001, PNAS 98:5116). Resolves 1 / (1 + R * C) if nulls differ in location and scale
        alone. NaN for R < 3.
    """
    if not len(null_RC):
        return dict.fromkeys(("null_p95", "p_value", "p_pooled"), np.full(len(value_C), np.nan))
    return {
        "null_p95": np.percentile(null_RC, 95, axis=0, method="higher"),
        "p_value": (1 + (null_RC >= value_C - 1e-12).sum(axis=0)) / (1 + len(null_RC)),
        "p_pooled": _pooled_p_values(value_C, null_RC),
    }


def _pooled_p_values(value_C: np.ndarray, null_RC: np.ndarray) -> np.ndarray:
    shuffles = len(null_RC)
    if shuffles < 3:
        return np.full(len(value_C), np.nan)
    mean_C, spread_C = null_RC.mean(axis=0), null_RC.std(axis=0, ddof=1)
    floor = np.median(spread_C) if len(spread_C) else 0.0
    others_RC = (null_RC.sum(axis=0) - null_RC) / (shuffles - 1)  # mean of the other shuffles
    squares_C = ((null_RC - mean_C) ** 2).sum(axis=0)
    squares_RC = squares_C - (null_RC - others_RC) ** 2 * (shuffles - 1) / shuffles
    spread_RC = np.sqrt(np.maximum(squares_RC, 0) / (shuffles - 2))
    null = np.sort(share(null_RC - others_RC, spread_RC + floor), axis=None)
    value_C = share(value_C - mean_C, spread_C + floor)
    return (1 + len(null) - np.searchsorted(null, value_C - 1e-12)) / (1 + len(null))


def discoveries(scores: pd.DataFrame) -> np.ndarray:
    """Which rows of `score_concepts`, or of several such tables, are discoveries at a rate of 5 %, bool.

    By `q_values` of `p_pooled`. A single discovery among the C rows of a table takes 20 shuffles, whatever C
    is; by `p_value` it would take 20 C. Of L tables joined, L as many shuffles or L discoveries are needed.
    """
    return q_values(scores["p_pooled"].to_numpy(float)) <= 0.05


def q_values(p_values: np.ndarray) -> np.ndarray:
    """p-values adjusted over the whole array as in Benjamini & Hochberg 1995, J R Stat Soc B 57:289."""
    return false_discovery_control(p_values, axis=None).reshape(p_values.shape) if p_values.size else p_values
