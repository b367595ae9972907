"""How well features agree with concepts: precision, recall, F1, average precision, AUROC within each base.

They follow InterPLM (Simon & Zou 2025, Nature Methods 22:2107): precision over nucleotides, recall over
instances. Shapes: N rows (tokens or sequences), F features, C concepts, H thresholds, J choices (`Choice`).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from sae_rna.analysis.statistics import counting
from sae_rna.analysis.statistics.annotations import Annotations

THRESHOLDS = (0.0, 0.15, 0.5, 0.6, 0.8)  # of firing, in shares of a feature's maximum on the selection set


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where the whole is 0."""
    part, whole = np.broadcast_arrays(part, whole)
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)


def harmonic_mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of two shares, 0 where both are."""
    return share(2 * a * b, a + b)


@dataclass(frozen=True)
class Scores:
    """Agreement of features with concepts at every threshold, [F, C, H]; 0 for a share of nothing.

    f1, token_f1 : harmonic mean of precision and element recall, or token recall
    enrichment : P(concept | feature fires) / P(concept)
    """

    precision: np.ndarray  # share of the feature's firing rows that have the concept
    token_recall: np.ndarray  # share of the concept's rows where the feature fires
    element_recall: np.ndarray  # share of the concept's instances where the feature fires at least once
    base_rate_C: np.ndarray  # share of all rows that have the concept: precision of what always fires, [C]

    f1 = property(lambda self: harmonic_mean(self.precision, self.element_recall))
    token_f1 = property(lambda self: harmonic_mean(self.precision, self.token_recall))
    enrichment = property(lambda self: share(self.precision, self.base_rate_C[:, None]))


def rank_scores(activations_NF, annotations: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision of every feature's activation for every concept, both [F, C].

    AUROC is the Mann-Whitney statistic with ties at their mean rank, NaN for a concept that no or every row
    has. Average precision, as scikit-learn's, is the mean over the concept's rows of the precision among rows
    as strong or stronger, NaN for a concept that no row has.
    """
    columns, rows_C = sparse.csc_matrix(activations_NF), annotations.rows_C
    ranked = counting.rank(columns.indptr, columns.indices, columns.data)
    rows, instance_NC = len(annotations.record_N), annotations.instance_NC
    wins_FC, precision_FC = counting.walk(
        *ranked, rows, instance_NC.indptr, instance_NC.indices, rows_C, True
    )
    pairs_C = rows_C * (rows - rows_C).astype(float)
    auroc_FC = np.divide(wins_FC, pairs_C, out=np.full(wins_FC.shape, np.nan), where=pairs_C > 0)
    return auroc_FC, np.where(rows_C > 0, precision_FC, np.nan)


class Choice(NamedTuple):
    """Features chosen for concepts; arrays [J]."""

    concept_J: np.ndarray
    feature_J: np.ndarray
    level_J: np.ndarray  # place of the threshold among the thresholds

    @property
    def places(self) -> tuple[np.ndarray, ...]:
        """Where the choices stand in scores [J, C, H] of the features `feature_J`."""
        return np.arange(len(self.concept_J)), self.concept_J, self.level_J


class Sample:
    """Activations and annotations of one set.

    `scale_F` is the maximum of each feature on the selection set, where 0 it never fires; `thresholds` are
    ascending shares of it.
    """

    def __init__(self, activations_NF, annotations: Annotations, scale_F, thresholds=THRESHOLDS):
        self.annotations, self.thresholds = annotations, np.asarray(thresholds, float)
        self.activations = columns = sparse.csc_matrix(activations_NF)
        columns.sort_indices()
        self.divisor_F = np.where(np.asarray(scale_F) > 0, scale_F, np.inf).astype(float)

    def of(self, features: np.ndarray | None) -> tuple[sparse.csc_matrix, np.ndarray]:
        """Activations of some features (all if None), and the number of thresholds below each of their
        entries: a feature fires at threshold h where it is above h."""
        columns = self.activations if features is None else self.activations[:, features]
        divisor_F = self.divisor_F if features is None else self.divisor_F[features]
        scaled = columns.data / np.repeat(divisor_F, np.diff(columns.indptr))
        return columns, np.searchsorted(self.thresholds, scaled).astype(np.uint8)

    def scores(self, features: np.ndarray | None = None, annotations: Annotations | None = None) -> Scores:
        """Scores of some features (all if None) for the sample's annotations or others of the same rows."""
        labels = annotations or self.annotations
        (columns, level), instances = self.of(features), labels.instance_NC
        numbers = instances.indptr, instances.indices, instances.data, len(labels.concepts)
        counts = counting.count(columns.indptr, columns.indices, level, *numbers, len(self.thresholds))
        firing_FH, hits_FCH, found_FCH = counts
        return Scores(
            precision=share(hits_FCH, firing_FH[:, None]),
            token_recall=share(hits_FCH, labels.rows_C[:, None]),
            element_recall=share(found_FCH, labels.elements_C[:, None]),
            base_rate_C=labels.rows_C / len(labels.record_N),
        )

    @cached_property
    def _ranks(self) -> list[tuple]:
        return self._ranks_of(self.activations)

    def _ranks_of(self, columns: sparse.csc_matrix) -> list[tuple]:
        """`counting.rank` among the rows of each base, or among all where bases are not known."""
        stratum_N = self.annotations.stratum_N
        strata = counting.split(columns.indptr, columns.indices, columns.data, stratum_N, stratum_N.max() + 1)
        return [counting.rank(*entries) for entries in strata]

    def base_auroc(self, features: np.ndarray | None = None, annotations=None) -> np.ndarray:
        """Base-stratified AUROC of some features (all if None) for the sample's or other annotations, [F, C].

        The mean over A, C, G and U, weighted by pairs, of the AUROC among nucleotides of that base alone: a
        feature that is nothing but "this is a G" has 0.5. Also 0.5 where there are no pairs to tell apart.
        Without bases it is the AUROC.
        """
        ranks = self._ranks if features is None else self._ranks_of(self.activations[:, features])
        instance_NC, stratum_N = (annotations or self.annotations).instance_NC, self.annotations.stratum_N
        concepts, rows_S = instance_NC.shape[1], np.bincount(stratum_N)
        cell_E = np.repeat(stratum_N, np.diff(instance_NC.indptr)) * concepts + instance_NC.indices
        rows_SC = np.bincount(cell_E, minlength=len(rows_S) * concepts).reshape(-1, concepts)
        pairs_C, parts = (rows_SC * (rows_S[:, None] - rows_SC).astype(float)).sum(0), []
        for ranked, rows, rows_C in zip(ranks, rows_S, rows_SC):
            labelled = instance_NC.indptr, instance_NC.indices, rows_C
            parts.append(counting.walk(*ranked, rows, *labelled, False)[0])
        wins_FC = np.sum(parts, axis=0)
        return np.divide(wins_FC, pairs_C, out=np.full(wins_FC.shape, 0.5), where=pairs_C > 0)

    def evaluate(self, choice: Choice) -> pd.DataFrame:
        """Every score of the chosen features, one row a choice."""
        labels, scores, places = self.annotations, self.scores(choice.feature_J), choice.places
        names = ("f1", "precision", "element_recall", "token_recall", "token_f1", "enrichment")
        table = pd.DataFrame({name: getattr(scores, name)[places] for name in names})
        auroc_JC, average_precision_JC = rank_scores(self.activations[:, choice.feature_J], labels)
        rate_J, precision_J = scores.base_rate_C[choice.concept_J], average_precision_JC[places[:2]]
        table = table.assign(auroc=auroc_JC[places[:2]], average_precision=precision_J, base_rate=rate_J)
        table["base_auroc"] = self.base_auroc(choice.feature_J)[places[:2]]
        tokens_J, elements_J = (count_C[choice.concept_J] for count_C in (labels.rows_C, labels.elements_C))
        return table.assign(base_f1=harmonic_mean(rate_J, np.ones(1)), tokens=tokens_J, elements=elements_J)
