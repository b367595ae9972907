"""What features stand for: how well their firing agrees with structural elements and RNA types, beside base rates and nulls.

Feature, threshold and concept are matched on the selection set and scored on the held-out set. The scores follow InterPLM
(Simon & Zou 2025, Nature Methods 22:2107): precision over nucleotides, recall over element instances.

Every nucleotide has exactly one element, so that a concept matrix [T, C] and an incidence matrix [T, E] would have a single 1 in every
row. They are kept as the number of that column (`concept_T`, `element_T`), and products with them are counts over the
non-zeros of the activations. Shapes: T tokens, F features, C concepts, E element instances, H thresholds, N rows of any kind,
J choices (a concept with a feature and a threshold).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import rankdata

from sae_rna.features import column_max, pool_max, record_runs, run_numbers, type_codes
from sae_rna.structure import ELEMENTS

#: A feature fires where its activation, as a share of its maximum on the selection set, is above the threshold.
THRESHOLDS = (0.0, 0.15, 0.5, 0.6, 0.8)
ELEMENT_COLUMNS = [
    *("element", "feature", "threshold", "f1", "precision", "element_recall", "token_recall", "token_f1", "selection_f1"),
    *("base_rate", "base_f1", "null_p95", "auroc", "tokens", "elements"),
]
TYPE_COLUMNS = ["type", "feature", "auroc", "selection_auroc", "f1", "base_rate", "null_p95", "sequences"]
TOP_COLUMNS = [
    *("kind", "label", "rank", "feature", "threshold", "selection_f1", "f1", "precision", "enrichment"),
    *("selection_auroc", "auroc", "base_rate"),
]


@dataclass(frozen=True)
class Annotations:
    """One concept per row, and the instance of it that the row belongs to."""

    concepts: tuple[str, ...]
    """Names of the concepts, in the order of every axis C."""
    concept_N: np.ndarray
    """Number of the row's concept, [N]."""
    element_N: np.ndarray
    """Number of the row's instance, from 0 in row order, [N]; an instance is a run of adjacent rows."""
    record_N: np.ndarray
    """Number of the row's record, from 0 in row order, [N]."""

    @cached_property
    def concept_E(self) -> np.ndarray:
        """Concept of every instance, [E]."""
        return self.concept_N[np.flatnonzero(np.diff(self.element_N, prepend=-1))]

    @cached_property
    def rows_C(self) -> np.ndarray:
        """Number of rows of every concept, [C]."""
        return np.bincount(self.concept_N, minlength=len(self.concepts))

    @cached_property
    def elements_C(self) -> np.ndarray:
        """Number of instances of every concept, [C]."""
        return np.bincount(self.concept_E, minlength=len(self.concepts))

    def shifted(self, rng: np.random.Generator) -> "Annotations":
        """Annotations of which each record's is rotated by its own random offset of 1 to length - 1.

        Lengths and composition stay, agreement with the sequence goes. Instances move whole, save the one that the end of the
        record cuts in two. A record of one nucleotide stays as it is.
        """
        start_S = np.flatnonzero(np.diff(self.record_N, prepend=-1))
        length_S = np.diff(start_S, append=len(self.record_N))
        offset_S = 1 + np.floor(rng.random(len(start_S)) * (length_S - 1)).astype(np.int64)
        start_N, length_N, offset_N = start_S[self.record_N], length_S[self.record_N], offset_S[self.record_N]
        source_N = start_N + (np.arange(len(start_N)) - start_N + offset_N) % length_N
        element_N = run_numbers(self.record_N, self.element_N[source_N])
        return Annotations(self.concepts, self.concept_N[source_N], element_N, self.record_N)


def annotate_elements(tokens: pd.DataFrame) -> Annotations:
    """Structural elements of a token table (columns record, position, element) as concepts, in the order of `ELEMENTS`.

    An instance is a maximal run of one letter within a record. The two strands of a helix therefore count as two instances, and so
    do the sides of an internal loop and the stretches of a multiloop; helices that touch on a strand count as one there. Raises
    ValueError naming a nucleotide without an element.
    """
    letters = np.asarray(tokens["element"], dtype=object)
    concept_N = pd.Index(list(ELEMENTS)).get_indexer(letters)
    if (concept_N < 0).any():
        row = int((concept_N < 0).argmax())
        record, position = tokens["record"].iloc[row], tokens["position"].iloc[row]
        raise ValueError(f"record {record}, position {position + 1}: '{letters[row]}' is no element; one of {' '.join(ELEMENTS)} is needed")
    record_N = record_runs(tokens["record"].to_numpy())
    return Annotations(tuple(ELEMENTS), concept_N, run_numbers(record_N, concept_N), record_N)


def annotate_types(type_S: Sequence[str], types: Sequence[str]) -> Annotations:
    """RNA types of sequences as concepts; every sequence is one row, one instance and one record."""
    concept_N, names = type_codes(type_S, types)
    number_N = np.arange(len(concept_N))
    return Annotations(tuple(names), concept_N, number_N, number_N)


@dataclass(frozen=True)
class Scores:
    """Agreement of every feature with every concept at every threshold, arrays [F, C, H]; 0 where a share has no denominator."""

    precision: np.ndarray
    """Share of the feature's firing rows that have the concept."""
    token_recall: np.ndarray
    """Share of the concept's rows where the feature fires."""
    element_recall: np.ndarray
    """Share of the concept's instances where the feature fires at least once."""
    base_rate_C: np.ndarray
    """Share of all rows that have the concept, [C]: the precision of a feature that always fires."""

    @cached_property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and element recall."""
        return _harmonic_mean(self.precision, self.element_recall)

    @cached_property
    def token_f1(self) -> np.ndarray:
        """Harmonic mean of precision and token recall."""
        return _harmonic_mean(self.precision, self.token_recall)

    @cached_property
    def enrichment(self) -> np.ndarray:
        """P(concept | feature fires) / P(concept)."""
        return _share(self.precision, self.base_rate_C[:, None])


def _share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def _harmonic_mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return _share(2 * a * b, a + b)


def score(
    activations_NF: sparse.spmatrix, scale_F: np.ndarray, annotations: Annotations, thresholds: Sequence[float] = THRESHOLDS
) -> Scores:
    """Scores of every feature for every concept.

    activations_NF : non-negative, [N, F], rows as in `annotations`
    scale_F : maximum of each feature on the selection set, [F]; a feature whose scale is 0 never fires
    thresholds : ascending, in shares of `scale_F`

    Raises ValueError where shapes do not fit or thresholds do not ascend.
    """
    return _Sample(activations_NF, annotations, scale_F, thresholds).scores()


class _Sample:
    """Activations with their annotations, binarised once for all thresholds.

    `levels` is a sparse matrix [N, F] of the number of thresholds that each activation exceeds: a feature fires at threshold h where
    its level is above h. The level of a maximum is the maximum of the levels, and one count by level answers for all thresholds.
    """

    def __init__(self, activations_NF, annotations: Annotations, scale_F, thresholds: Sequence[float], name: str = "the"):
        rows, latents = activations_NF.shape
        if rows != len(annotations.concept_N):
            labelled = len(annotations.concept_N)
            raise ValueError(f"{name} activations have {rows} rows, their annotations {labelled}: both need one per token (or sequence)")
        if latents != len(scale_F):
            raise ValueError(f"{name} activations have {latents} features, the selection set {len(scale_F)}: use one autoencoder for both")
        if not rows:
            raise ValueError(f"{name} activations are empty: nothing can be scored on them")
        if min(thresholds) < 0 or (np.diff(thresholds) <= 0).any():
            raise ValueError(f"thresholds must ascend from 0 or more, not {', '.join(map(str, thresholds))}")
        self.annotations, self.thresholds = annotations, tuple(thresholds)
        self.activations = sparse.csc_matrix(activations_NF)
        self.activations.sort_indices()
        divisor_F = np.where(np.asarray(scale_F) > 0, scale_F, np.inf).astype(float)
        scaled = self.activations.data / np.repeat(divisor_F, np.diff(self.activations.indptr))
        level = np.searchsorted(thresholds, scaled, side="left").astype(np.uint8)
        self.levels = sparse.csc_matrix((level, self.activations.indices, self.activations.indptr), shape=self.activations.shape)

    def scores(self, features: np.ndarray | slice = slice(None), annotations: Annotations | None = None) -> Scores:
        """Scores of some features, by the sample's annotations or by others of the same rows."""
        levels, labels = self.levels[:, features], annotations or self.annotations
        hits_FCH = self._count(levels, labels.concept_N, len(labels.concepts))
        found_FCH = self._count(pool_max(levels, labels.element_N), labels.concept_E, len(labels.concepts))
        return Scores(
            precision=_share(hits_FCH, hits_FCH.sum(axis=1, keepdims=True)),  # every row has one concept: the sum is all firing rows
            token_recall=_share(hits_FCH, labels.rows_C[:, None]),
            element_recall=_share(found_FCH, labels.elements_C[:, None]),
            base_rate_C=labels.rows_C / len(labels.concept_N),
        )

    def _count(self, levels_NF: sparse.csc_matrix, concept_N: np.ndarray, concepts: int) -> np.ndarray:
        """Rows of each concept where each feature fires at each threshold, [F, C, H]."""
        latents, bins = levels_NF.shape[1], len(self.thresholds) + 1
        column_C = np.repeat(np.arange(latents) * concepts, np.diff(levels_NF.indptr))
        cell = (column_C + concept_N[levels_NF.indices]) * bins + levels_NF.data
        exactly = np.bincount(cell, minlength=latents * concepts * bins).reshape(latents, concepts, bins)
        return exactly[..., ::-1].cumsum(axis=-1)[..., ::-1][..., 1:]

    def evaluate(self, concept_J: np.ndarray, feature_J: np.ndarray, level_J: np.ndarray) -> pd.DataFrame:
        """Every score of chosen features at chosen thresholds for chosen concepts, one row a choice."""
        labels, scores, choice = self.annotations, self.scores(feature_J), (np.arange(len(concept_J)), concept_J, level_J)
        base_rate = scores.base_rate_C[concept_J]
        return pd.DataFrame(
            {
                "f1": scores.f1[choice],
                "precision": scores.precision[choice],
                "element_recall": scores.element_recall[choice],
                "token_recall": scores.token_recall[choice],
                "token_f1": scores.token_f1[choice],
                "enrichment": scores.enrichment[choice],
                "auroc": auroc(self.activations[:, feature_J], labels)[choice[:2]],
                "base_rate": base_rate,
                "base_f1": _harmonic_mean(base_rate, np.ones(len(base_rate))),
                "tokens": labels.rows_C[concept_J],
                "elements": labels.elements_C[concept_J],
            }
        )


def auroc(activations_NF: sparse.spmatrix, annotations: Annotations) -> np.ndarray:
    """Area under the ROC curve of every feature's activation for every concept against all other rows, [F, C].

    The Mann-Whitney statistic with ties at their mean rank. NaN for a concept that no row or every row has.
    """
    return _auroc(*_ranks(activations_NF), annotations.concept_N, len(annotations.concepts))


def _ranks(activations_NF: sparse.spmatrix) -> tuple[sparse.csc_matrix, np.ndarray]:
    """Rank of every non-zero within its column, counted from the rank that all zeros share [N, F]; and that rank [F]."""
    columns = sparse.csc_matrix(activations_NF, dtype=float, copy=True)
    columns.eliminate_zeros()
    for start, stop in pairwise(columns.indptr):
        columns.data[start:stop] = rankdata(columns.data[start:stop])
    nonzeros_F = np.diff(columns.indptr)
    zeros_F = columns.shape[0] - nonzeros_F
    columns.data += np.repeat((zeros_F - 1) / 2, nonzeros_F)
    return columns, (zeros_F + 1) / 2


def _auroc(ranks_NF: sparse.csc_matrix, zero_rank_F: np.ndarray, concept_N: np.ndarray, concepts: int) -> np.ndarray:
    rows, latents = ranks_NF.shape
    cell = np.repeat(np.arange(latents) * concepts, np.diff(ranks_NF.indptr)) + concept_N[ranks_NF.indices]
    above_zero_FC = np.bincount(cell, ranks_NF.data, minlength=latents * concepts).reshape(latents, concepts)
    rows_C = np.bincount(concept_N, minlength=concepts).astype(float)
    pairs_C = rows_C * (rows - rows_C)
    wins_FC = above_zero_FC + rows_C * zero_rank_F[:, None] - rows_C * (rows_C + 1) / 2
    return np.divide(wins_FC, pairs_C, out=np.full(wins_FC.shape, np.nan), where=pairs_C > 0)


def _strongest(merit_FC: np.ndarray, retained_F: np.ndarray | None, count: int) -> np.ndarray:
    """Numbers of the `count` retained features of highest merit for every concept, [C, count]; the lower number first among equals."""
    if retained_F is None:
        retained_F = np.ones(len(merit_FC), bool)
    if len(retained_F) != len(merit_FC):
        raise ValueError(f"retained features are marked among {len(retained_F)}, the activations have {len(merit_FC)}")
    candidates = np.flatnonzero(retained_F)
    if not len(candidates):
        raise ValueError("no feature is retained: lower the number of sequences a feature must fire in, or train the autoencoder longer")
    return candidates[np.argsort(-merit_FC[candidates], axis=0, kind="stable")[:count].T]


def best_features(scores: Scores, retained_F: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Number of the feature and of the threshold with the highest F1 for every concept, both [C]; among retained features only."""
    feature_C = _strongest(scores.f1.max(axis=-1), retained_F, 1)[:, 0]
    return feature_C, scores.f1[feature_C, np.arange(len(feature_C))].argmax(axis=-1)


def _samples(selection, heldout, thresholds) -> tuple[_Sample, _Sample]:
    """Both sets, each (activations, annotations), scaled by the features' maximum on the selection set."""
    scale_F = column_max(selection[0])
    return _Sample(*selection, scale_F, thresholds, "the selection set's"), _Sample(*heldout, scale_F, thresholds, "the held-out set's")


def _element_samples(selection, heldout, thresholds) -> tuple[_Sample, _Sample]:
    return _samples(*((activations, annotate_elements(tokens)) for activations, tokens in (selection, heldout)), thresholds)


def _type_samples(selection, heldout, thresholds) -> tuple[_Sample, _Sample]:
    types = sorted(set(selection[1]) | set(heldout[1]))
    if len(types) < 2:
        raise ValueError(f"scores of types need 2 RNA types or more, there is {len(types)}")
    return _samples(*((pooled, annotate_types(type_S, types)) for pooled, type_S in (selection, heldout)), thresholds)


def _shared_concepts(selected: _Sample, heldout: _Sample) -> np.ndarray:
    return np.flatnonzero((selected.annotations.rows_C > 0) & (heldout.annotations.rows_C > 0))


def _percentile_95(null_RC: np.ndarray) -> np.ndarray:
    """95th percentile over the replicates, [C]. The replicate above it, not a value between two: chance exceeds the maximum of 20 in
    1 of 21 cases, but an interpolated percentile in 2."""
    if not len(null_RC):
        raise ValueError("the null is made of shuffles: 1 or more are needed")
    return np.percentile(null_RC, 95, axis=0, method="higher")


def element_scores(
    selection: tuple[sparse.spmatrix, pd.DataFrame],
    heldout: tuple[sparse.spmatrix, pd.DataFrame],
    retained_F: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    shuffles: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """The best feature of every structural element: chosen with its threshold by F1 on `selection`, scored on `heldout`.

    Both sets are (activations [T, F], token table). `null_p95` is the 95th percentile of the held-out F1 that the same selection reaches
    on `shuffles` circular shifts of both sets' annotations (`Annotations.shifted`). `base_f1` is a feature that always fires; `tokens` and
    `elements` are the element's nucleotides and instances in the held-out set. An element that one of the sets lacks has no row.
    """
    selected, unseen = _element_samples(selection, heldout, thresholds)
    all_C = np.arange(len(ELEMENTS))
    selection_scores = selected.scores()
    feature_C, level_C = best_features(selection_scores, retained_F)
    rng = np.random.default_rng(seed)
    null = np.empty((shuffles, len(ELEMENTS)))
    for row in null:
        by_chance_C, level_by_chance_C = best_features(selected.scores(annotations=selected.annotations.shifted(rng)), retained_F)
        row[:] = unseen.scores(by_chance_C, unseen.annotations.shifted(rng)).f1[all_C, all_C, level_by_chance_C]
    chosen = {
        "element": list(ELEMENTS),
        "feature": feature_C,
        "threshold": np.take(thresholds, level_C),
        "selection_f1": selection_scores.f1[feature_C, all_C, level_C],
        "null_p95": _percentile_95(null),
    }
    table = unseen.evaluate(all_C, feature_C, level_C).assign(**chosen)
    return table.loc[_shared_concepts(selected, unseen), ELEMENT_COLUMNS].reset_index(drop=True)


def type_scores(
    selection: tuple[sparse.spmatrix, Sequence[str]],
    heldout: tuple[sparse.spmatrix, Sequence[str]],
    retained_F: np.ndarray | None = None,
    families: tuple[Sequence[str], Sequence[str]] | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    shuffles: int = 100,
    seed: int = 0,
) -> pd.DataFrame:
    """The best feature of every RNA type: chosen by AUROC (this type against all others) on `selection`, scored on `heldout`.

    Both sets are (`pool_sequences` [S, F], types [S]). The F1 of the feature uses the threshold that is best on the selection set.
    `null_p95` is the 95th percentile of the held-out AUROC that the same selection reaches on `shuffles` permutations of the types
    in both sets. Sequences of one family share more than their type: where `families` (of the selection and of the held-out
    sequences) are given, types are permuted among families, not among sequences, a sequence of unknown family (None) counting as a
    family of its own. `sequences` counts the type's held-out sequences.
    A type that one of the sets lacks has no row.
    """
    selected, unseen = _type_samples(selection, heldout, thresholds)
    labels = selected.annotations
    all_C = np.arange(len(labels.concepts))
    ranks = _ranks(selected.activations)

    def choose(concept_N: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        auroc_FC = np.nan_to_num(_auroc(*ranks, concept_N, len(all_C)))
        feature_C = _strongest(auroc_FC, retained_F, 1)[:, 0]
        return feature_C, auroc_FC[feature_C, all_C]

    feature_C, selection_auroc_C = choose(labels.concept_N)
    level_C = selected.scores(feature_C).f1[all_C, all_C].argmax(axis=-1)
    groups = [_family_numbers(sample.annotations, names) for sample, names in zip((selected, unseen), families or (None, None))]
    rng = np.random.default_rng(seed)
    null = np.empty((shuffles, len(all_C)))
    for row in null:
        permuted = [_permuted(sample.annotations.concept_N, group_N, rng) for sample, group_N in zip((selected, unseen), groups)]
        by_chance_C, _ = choose(permuted[0])
        row[:] = _auroc(*_ranks(unseen.activations[:, by_chance_C]), permuted[1], len(all_C))[all_C, all_C]
    chosen = {
        "type": labels.concepts,
        "feature": feature_C,
        "selection_auroc": selection_auroc_C,
        "null_p95": _percentile_95(null),
    }
    table = unseen.evaluate(all_C, feature_C, level_C).assign(**chosen).rename(columns={"tokens": "sequences"})
    return table.loc[_shared_concepts(selected, unseen), TYPE_COLUMNS].reset_index(drop=True)


def _family_numbers(annotations: Annotations, family_N: Sequence[str] | None) -> np.ndarray:
    """Number of the family of every sequence, [N]; a sequence of unknown family is a family of its own."""
    own_N = np.arange(len(annotations.concept_N))
    if family_N is None:
        return own_N
    if len(family_N) != len(own_N):
        raise ValueError(f"{len(family_N)} families do not fit {len(own_N)} sequences: one per sequence is needed")
    names = pd.Series(list(family_N))
    types = pd.Series(annotations.concept_N).groupby(names).nunique()
    if (types > 1).any():
        raise ValueError(f"family {types.index[types > 1][0]} has sequences of more than one type: its types cannot be permuted as one")
    codes_N = pd.factorize(names)[0]
    return np.where(codes_N < 0, len(own_N) + own_N, codes_N)


def _permuted(concept_N: np.ndarray, group_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Concepts after those of whole groups were permuted among the groups."""
    _, first, number_N = np.unique(group_N, return_index=True, return_inverse=True)
    return rng.permutation(concept_N[first])[number_N]


def top_features(
    elements: tuple[tuple, tuple] | None = None,
    types: tuple[tuple, tuple] | None = None,
    count: int = 3,
    retained_F: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
) -> pd.DataFrame:
    """The `count` best features of every element (by F1) and every type (by AUROC) on the selection set, scored on both sets.

    `elements` and `types` are (selection, heldout) as in `element_scores` and `type_scores`. One row per label and rank, kind "element"
    or "type"; scores are the held-out set's where not said otherwise. `enrichment` is P(label | feature fires) / P(label).
    """
    tables = []
    for kind, sets, samples in (("element", elements, _element_samples), ("type", types, _type_samples)):
        if sets is None:
            continue
        selected, unseen = samples(*sets, thresholds)
        f1 = selected.scores().f1
        merit_FC = f1.max(axis=-1) if kind == "element" else np.nan_to_num(auroc(selected.activations, selected.annotations))
        shared_C = _shared_concepts(selected, unseen)
        feature_CN = _strongest(merit_FC, retained_F, count)[shared_C]
        feature_J, concept_J = feature_CN.ravel(), np.repeat(shared_C, feature_CN.shape[1])
        level_J = f1[feature_J, concept_J].argmax(axis=-1)
        known, held = (sample.evaluate(concept_J, feature_J, level_J) for sample in (selected, unseen))
        chosen = {
            "kind": kind,
            "label": np.take(selected.annotations.concepts, concept_J),
            "rank": np.tile(np.arange(feature_CN.shape[1]) + 1, len(shared_C)),
            "feature": feature_J,
            "threshold": np.take(thresholds, level_J),
            "selection_f1": known["f1"],
            "selection_auroc": known["auroc"],
        }
        tables.append(held.assign(**chosen)[TOP_COLUMNS])
    if not tables:
        raise ValueError("neither elements nor types were given: there is nothing to rank features by")
    return pd.concat(tables, ignore_index=True)
