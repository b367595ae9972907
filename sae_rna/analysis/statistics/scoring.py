"""What features stand for: how well their firing agrees with concepts of nucleotides and sequences, beside base rates and nulls.

Feature, threshold and concept are matched on the selection set and scored on the held-out set. The scores follow InterPLM
(Simon & Zou 2025, Nature Methods 22:2107): precision over nucleotides, recall over element instances.

Everything is counted over the non-zeros of the activations, column by column. Shapes: N rows (tokens or sequences), F features,
C concepts, H thresholds, S records, J choices (a concept with a feature and a threshold), R shuffles, B bootstrap samples.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numba
import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import false_discovery_control

from sae_rna.analysis.statistics.annotations import Annotations, annotate_elements, annotate_types
from sae_rna.sae.features import column_max

#: A feature fires where its activation, as a share of its maximum on the selection set, is above the threshold.
THRESHOLDS = (0.0, 0.15, 0.5, 0.6, 0.8)
CONCEPT_COLUMNS = [
    *(
        "concept",
        "group",
        "feature",
        "threshold",
        "f1",
        "f1_low",
        "f1_high",
        "precision",
        "element_recall",
        "token_recall",
        "token_f1",
    ),
    *(
        "enrichment",
        "auroc",
        "auroc_low",
        "auroc_high",
        "average_precision",
        "selection_f1",
        "base_rate",
        "base_f1",
        "null_p95",
    ),
    *("p_value", "p_pooled", "tokens", "elements", "f1_resampled"),
]
ELEMENT_COLUMNS = [
    *(
        "element",
        "feature",
        "threshold",
        "f1",
        "precision",
        "element_recall",
        "token_recall",
        "token_f1",
        "selection_f1",
    ),
    *("base_rate", "base_f1", "null_p95", "auroc", "tokens", "elements"),
]
TYPE_COLUMNS = ["type", "feature", "auroc", "selection_auroc", "f1", "base_rate", "null_p95", "sequences"]
TOP_COLUMNS = [
    *("kind", "label", "rank", "feature", "threshold", "selection_f1", "f1", "precision", "enrichment"),
    *("selection_auroc", "auroc", "base_rate"),
]
#: Classes of equal size that a feature's non-zeros are sorted into for the interval of its AUROC.
_BINS = 100


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
    activations_NF: sparse.spmatrix,
    scale_F: np.ndarray,
    annotations: Annotations,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Scores:
    """Scores of every feature for every concept.

    activations_NF : non-negative, [N, F], rows as in `annotations`
    scale_F : maximum of each feature on the selection set, [F]; a feature whose scale is 0 never fires
    thresholds : ascending, in shares of `scale_F`

    Raises ValueError where shapes do not fit, activations are negative or thresholds do not ascend.
    """
    return _Sample(activations_NF, annotations, scale_F, thresholds).scores()


class _Sample:
    """Activations with their annotations, binarised once for all thresholds.

    `level` is the number of thresholds that each activation exceeds: a feature fires at threshold h where its level is above h. The
    level of a maximum is the maximum of the levels, and one count by level answers for all thresholds.
    """

    def __init__(
        self,
        activations_NF,
        annotations: Annotations,
        scale_F,
        thresholds: Sequence[float],
        name: str = "the",
    ):
        rows, latents = activations_NF.shape
        if rows != len(annotations.record_N):
            labelled = len(annotations.record_N)
            raise ValueError(
                f"{name} activations have {rows} rows, their annotations {labelled}: both need one per token (or sequence)"
            )
        if latents != len(scale_F):
            raise ValueError(
                f"{name} activations have {latents} features, the selection set {len(scale_F)}: use one autoencoder for both"
            )
        if not rows:
            raise ValueError(f"{name} activations are empty: nothing can be scored on them")
        if min(thresholds) < 0 or (np.diff(thresholds) <= 0).any():
            raise ValueError(f"thresholds must ascend from 0 or more, not {', '.join(map(str, thresholds))}")
        self.annotations, self.thresholds = annotations, np.asarray(thresholds, float)
        self.activations = sparse.csc_matrix(activations_NF)
        self.activations.sort_indices()
        if not (self.activations.data >= 0).all():
            raise ValueError(
                f"{name} activations are negative or not a number somewhere: features are encoded by a ReLU or TopK"
            )
        divisor_F = np.where(np.asarray(scale_F) > 0, scale_F, np.inf).astype(float)
        self.level = _levels(self.activations.indptr, self.activations.data, divisor_F, self.thresholds)

    def scores(self, features: np.ndarray | None = None, annotations: Annotations | None = None) -> Scores:
        """Scores of some features, by the sample's annotations or by others of the same rows."""
        labels = annotations or self.annotations
        features = np.arange(self.activations.shape[1]) if features is None else features
        columns, instances = self.activations, labels.instance_NC
        firing_FH, hits_FCH, found_FCH = _count(
            features, columns.indptr, columns.indices, self.level, instances.indptr, instances.indices, instances.data,
            len(labels.concepts), len(self.thresholds),
        )  # fmt: skip
        return Scores(
            precision=_share(hits_FCH, firing_FH[:, None]),
            token_recall=_share(hits_FCH, labels.rows_C[:, None]),
            element_recall=_share(found_FCH, labels.elements_C[:, None]),
            base_rate_C=labels.rows_C / len(labels.record_N),
        )

    def evaluate(self, concept_J: np.ndarray, feature_J: np.ndarray, level_J: np.ndarray) -> pd.DataFrame:
        """Every score of chosen features at chosen thresholds for chosen concepts, one row a choice."""
        labels, scores, choice = (
            self.annotations,
            self.scores(feature_J),
            (np.arange(len(concept_J)), concept_J, level_J),
        )
        base_rate = scores.base_rate_C[concept_J]
        auroc_JC, average_precision_JC = rank_scores(self.activations[:, feature_J], labels)
        return pd.DataFrame(
            {
                "f1": scores.f1[choice],
                "precision": scores.precision[choice],
                "element_recall": scores.element_recall[choice],
                "token_recall": scores.token_recall[choice],
                "token_f1": scores.token_f1[choice],
                "enrichment": scores.enrichment[choice],
                "auroc": auroc_JC[choice[:2]],
                "average_precision": average_precision_JC[choice[:2]],
                "base_rate": base_rate,
                "base_f1": _harmonic_mean(base_rate, np.ones(len(base_rate))),
                "tokens": labels.rows_C[concept_J],
                "elements": labels.elements_C[concept_J],
            }
        )


@numba.njit(parallel=True, cache=True)
def _levels(start, values, divisor_F, thresholds):
    level = np.empty(len(values), np.uint8)
    for f in numba.prange(len(start) - 1):
        for entry in range(start[f], start[f + 1]):
            scaled, above = values[entry] / divisor_F[f], 0
            while above < len(thresholds) and scaled > thresholds[above]:
                above += 1
            level[entry] = above
    return level


@numba.njit(parallel=True, cache=True)
def _count(features, start, rows, level, label_start, label_concept, label_instance, concepts, thresholds):
    """Rows where each feature fires [F, H], those that have each concept and instances among them [F, C, H]."""
    firing = np.zeros((len(features), thresholds), np.int32)
    hits = np.zeros((len(features), concepts, thresholds), np.int32)
    found = np.zeros((len(features), concepts, thresholds), np.int32)
    instances = label_instance.max() + 1 if len(label_instance) else 1
    for j in numba.prange(len(features)):
        # by level, of which 0 (fires nowhere) is left out in the end
        firing_j, hits_j = np.zeros(thresholds + 1, np.int32), np.zeros((concepts, thresholds + 1), np.int32)
        found_j, highest_E = np.zeros_like(hits_j), np.zeros(instances, np.uint8)
        for entry in range(start[features[j]], start[features[j] + 1]):
            here, row = level[entry], rows[entry]
            if here == 0:
                continue
            firing_j[here] += 1
            for label in range(label_start[row], label_start[row + 1]):
                c, instance = label_concept[label], label_instance[label]
                hits_j[c, here] += 1
                before = highest_E[instance]
                if here > before:
                    found_j[c, before] -= 1
                    found_j[c, here] += 1
                    highest_E[instance] = here
        for h in range(thresholds):
            firing[j, h] = firing_j[h + 1 :].sum()
            for c in range(concepts):
                hits[j, c, h], found[j, c, h] = hits_j[c, h + 1 :].sum(), found_j[c, h + 1 :].sum()
    return firing, hits, found


def rank_scores(activations_NF: sparse.spmatrix, annotations: Annotations) -> tuple[np.ndarray, np.ndarray]:
    """AUROC and average precision of every feature's activation for every concept against all other rows, both [F, C].

    AUROC is the Mann-Whitney statistic with ties at their mean rank; NaN for a concept that no row or every row has. Average precision
    is scikit-learn's: the mean over the concept's rows of the precision among the rows with the same or a higher activation; NaN for a
    concept that no row has.
    """
    return _Ranked(activations_NF).scores(annotations)


def auroc(activations_NF: sparse.spmatrix, annotations: Annotations) -> np.ndarray:
    """The first of `rank_scores`."""
    return rank_scores(activations_NF, annotations)[0]


class _Ranked:
    """Rows of every feature's non-zeros in descending order, sorted once for any number of annotations."""

    def __init__(self, activations_NF: sparse.spmatrix):
        columns = sparse.csc_matrix(activations_NF)
        self.start, self.rows = columns.indptr, columns.shape[0]
        self.ranked = _rank(columns.indptr, columns.indices, columns.data)

    def scores(self, annotations: Annotations) -> tuple[np.ndarray, np.ndarray]:
        labels, rows_C = annotations.instance_NC, annotations.rows_C
        wins_FC, average_precision_FC = _walk(
            self.start, *self.ranked, self.rows, labels.indptr, labels.indices, rows_C
        )
        pairs_C = rows_C * (self.rows - rows_C).astype(float)
        auroc_FC = np.divide(wins_FC, pairs_C, out=np.full(wins_FC.shape, np.nan), where=pairs_C > 0)
        return auroc_FC, np.where(rows_C > 0, average_precision_FC, np.nan)


@numba.njit(parallel=True, cache=True)
def _rank(start, rows, values):
    """Rows in descending order of activation, with the number of rows that have the same or a higher one; and the end of the positives."""
    row_ranked, seen, stop = np.empty_like(rows), np.empty_like(rows), start[1:].copy()
    for f in numba.prange(len(start) - 1):
        low, high = start[f], start[f + 1]
        order = np.argsort(-values[low:high])
        while high > low and values[low + order[high - low - 1]] <= 0:
            high -= 1
        stop[f] = high
        for place in range(high - 1, low - 1, -1):
            here = low + order[place - low]
            row_ranked[place] = rows[here]
            tied = place + 1 < high and values[here] == values[low + order[place + 1 - low]]
            seen[place] = seen[place + 1] if tied else place + 1 - low
    return row_ranked, seen, stop


@numba.njit(parallel=True, cache=True)
def _walk(start, row_ranked, seen, stop, rows, label_start, label_concept, rows_C):
    """From the strongest row down: pairs that each concept's rows win against other rows, and its average precision, both [F, C]."""
    concepts = len(rows_C)
    wins = np.empty((len(start) - 1, concepts))
    average_precision = np.empty((len(start) - 1, concepts))
    for f in numba.prange(len(start) - 1):
        hits, precision_sum, rank_sum = np.zeros(concepts, np.int64), np.zeros(concepts), np.zeros(concepts)
        place, above = start[f], 0
        while place < stop[f]:
            level, end = seen[place], start[f] + seen[place]
            rank = rows - (above + level - 1) / 2  # mean rank of equals, the weakest row's is 1
            for tied in range(place, end):
                for label in range(label_start[row_ranked[tied]], label_start[row_ranked[tied] + 1]):
                    hits[label_concept[label]] += 1
                    rank_sum[label_concept[label]] += rank
            for tied in range(place, end):
                for label in range(label_start[row_ranked[tied]], label_start[row_ranked[tied] + 1]):
                    precision_sum[label_concept[label]] += hits[label_concept[label]] / level
            place, above = end, level
        for c in range(concepts):
            total = np.int64(rows_C[c])
            silent = total - hits[c]
            ranks = rank_sum[c] + silent * ((rows - above + 1) / 2)
            wins[f, c] = ranks - total * (total + 1) / 2
            average_precision[f, c] = (precision_sum[c] + silent * (total / rows)) / max(total, 1)
    return wins, average_precision


def _strongest(merit_FC: np.ndarray, retained_F: np.ndarray | None, count: int) -> np.ndarray:
    """Numbers of the `count` retained features of highest merit for every concept, [C, count]; the lower number first among equals."""
    if retained_F is None:
        retained_F = np.ones(len(merit_FC), bool)
    if len(retained_F) != len(merit_FC):
        raise ValueError(
            f"retained features are marked among {len(retained_F)}, the activations have {len(merit_FC)}"
        )
    candidates = np.flatnonzero(retained_F)
    if not len(candidates):
        raise ValueError(
            "no feature is retained: lower the number of sequences a feature must fire in, or train the autoencoder longer"
        )
    return candidates[np.argsort(-merit_FC[candidates], axis=0, kind="stable")[:count].T]


def best_features(scores: Scores, retained_F: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Number of the feature and of the threshold with the highest F1 for every concept, both [C]; among retained features only."""
    feature_C = _strongest(scores.f1.max(axis=-1), retained_F, 1)[:, 0]
    return feature_C, scores.f1[feature_C, np.arange(len(feature_C))].argmax(axis=-1)


def _samples(selection, heldout, thresholds) -> tuple[_Sample, _Sample]:
    """Both sets, each (activations, annotations), scaled by the features' maximum on the selection set."""
    scale_F = column_max(selection[0])
    return _Sample(*selection, scale_F, thresholds, "the selection set's"), _Sample(
        *heldout, scale_F, thresholds, "the held-out set's"
    )


def _element_sets(selection, heldout) -> tuple[tuple, tuple]:
    return tuple((activations, annotate_elements(tokens)) for activations, tokens in (selection, heldout))


def _type_sets(selection, heldout) -> tuple[tuple, tuple]:
    types = sorted(set(selection[1]) | set(heldout[1]))
    if len(types) < 2:
        raise ValueError(f"scores of types need 2 RNA types or more, there is {len(types)}")
    return tuple((pooled, annotate_types(type_S, types)) for pooled, type_S in (selection, heldout))


def _shared_concepts(selected: _Sample, unseen: _Sample, min_instances: int = 1) -> np.ndarray:
    return np.flatnonzero(
        np.minimum(selected.annotations.elements_C, unseen.annotations.elements_C) >= max(min_instances, 1)
    )


def _null(
    samples: tuple[_Sample, _Sample],
    repeat: Callable[[Annotations, Annotations], np.ndarray],
    families: tuple[np.ndarray | None, np.ndarray | None],
    shuffles: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """What choice and scoring reach on shuffled annotations of both sets, [R, C]."""
    known, unseen = (sample.annotations for sample in samples)
    null_RC = np.empty((shuffles, len(known.concepts)))
    for row in null_RC:
        row[:] = repeat(known.shuffled(rng, families[0]), unseen.shuffled(rng, families[1]))
    return null_RC


def _percentile_95(null_RC: np.ndarray) -> np.ndarray:
    """95th percentile over the replicates, [C]. The replicate above it, not a value between two: chance exceeds the maximum of 20 in
    1 of 21 cases, but an interpolated percentile in 2."""
    if not len(null_RC):
        return np.full(null_RC.shape[1], np.nan)
    return np.percentile(null_RC, 95, axis=0, method="higher")


def _needs_shuffles(shuffles: int):
    if shuffles < 1:
        raise ValueError("the null is made of shuffles: 1 or more are needed")


def _pooled_p(value_C: np.ndarray, null_RC: np.ndarray) -> np.ndarray:
    """p-values against the studentised null values of all concepts together, [C]; see `concept_scores`."""
    shuffles = len(null_RC)
    if shuffles < 3:
        return np.full(len(value_C), np.nan)
    spread_C = null_RC.std(axis=0, ddof=1)
    floor = np.median(spread_C) if len(spread_C) else 0.0
    others_RC = (null_RC.sum(axis=0) - null_RC) / (shuffles - 1)
    squares_RC = ((null_RC - null_RC.mean(axis=0)) ** 2).sum(axis=0) - (null_RC - others_RC) ** 2 * (
        shuffles - 1
    ) / shuffles
    spread_RC = np.sqrt(np.maximum(squares_RC, 0) / (shuffles - 2))
    null = np.sort(_share(null_RC - others_RC, spread_RC + floor), axis=None)
    value_C = _share(value_C - null_RC.mean(axis=0), spread_C + floor)
    return (1 + len(null) - np.searchsorted(null, value_C - 1e-12)) / (1 + len(null))


def concept_scores(
    selection: tuple[sparse.spmatrix, Annotations],
    heldout: tuple[sparse.spmatrix, Annotations],
    retained_F: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    shuffles: int = 20,
    seed: int = 0,
    families: tuple[Sequence[str] | None, Sequence[str] | None] | None = None,
    bootstraps: int = 0,
    min_instances: int = 10,
) -> pd.DataFrame:
    """The best feature of every concept: chosen with its threshold by F1 on `selection`, scored on `heldout`.

    Both sets are (activations [N, F], `annotations.annotate` of the same records); sequences' activations are pooled first. `families`
    are the family labels of the selection and of the held-out records in order of appearance, None where unknown. A concept with
    fewer than `min_instances` instances in either set has no row. Columns: concept, group, feature, threshold;

    f1, precision, element_recall, token_recall, token_f1, enrichment, auroc, average_precision
        On the held-out set, as in `Scores` and `rank_scores`. `selection_f1` is what the choice was made by.
    f1_low, f1_high, auroc_low, auroc_high
        95 % percentile interval over `bootstraps` resamples of the held-out families (of records, without `families`) for this
        feature and threshold; NaN without resamples or with a single family. The AUROC takes a feature's non-zeros in 100 classes here.
    f1_resampled
        The F1 in each of those resamples, [B] (NaN where it lacks the concept), empty without them. Two tables of the same families and
        seed have the same resamples, so that their differences have an interval: `lead_interval`.
    base_rate, base_f1, tokens, elements
        Share of held-out rows that have the concept, F1 of a feature that always fires, rows and instances of the concept.
    null_p95
        95th percentile of the held-out F1 that the same choice, among all features and thresholds, reaches on `shuffles` annotations of
        both sets that were shifted within the records or permuted among sequences (`Annotations.shuffled`), families as one.
    p_value
        (1 + shuffles that reach f1) / (1 + shuffles) (Phipson & Smyth 2010, Stat Appl Genet Mol Biol 9:39).
    p_pooled
        The same against the null values of all concepts together, each less the mean and divided by the standard deviation of the concept's
        other shuffles plus the median deviation of all concepts (Tusher, Tibshirani & Chu 2001, PNAS 98:5116). It resolves
        1 / (1 + shuffles * concepts) if nulls have one shape but for location and scale. NaN for fewer than 3 shuffles.
    """
    if selection[1].concepts != heldout[1].concepts:
        raise ValueError(
            "the selection and the held-out set have different concepts: annotate both with one table of records"
        )
    selected, unseen = _samples(selection, heldout, thresholds)
    labels, all_C = selected.annotations, np.arange(len(selection[1].concepts))
    if families is not None and unseen.annotations.per_sequence and "family" in labels.groups:
        raise ValueError("permuting whole families only renames them: score families without `families`")
    families = tuple(
        _family_numbers(sample.annotations, names)
        for sample, names in zip((selected, unseen), families or (None, None))
    )
    selection_scores = selected.scores()
    feature_C, level_C = best_features(selection_scores, retained_F)

    def repeat(known: Annotations, other: Annotations) -> np.ndarray:
        by_chance_C, level_by_chance_C = best_features(selected.scores(annotations=known), retained_F)
        return unseen.scores(by_chance_C, other).f1[all_C, all_C, level_by_chance_C]

    null_RC = _null((selected, unseen), repeat, families, shuffles, np.random.default_rng(seed))
    shared_C = _shared_concepts(selected, unseen, min_instances)
    choice = shared_C, feature_C[shared_C], level_C[shared_C]
    table, null_RC = unseen.evaluate(*choice), null_RC[:, shared_C]
    reached_C = (null_RC >= table["f1"].to_numpy() - 1e-12).sum(axis=0)
    chosen = {
        "concept": np.take(np.array(labels.concepts, object), shared_C),
        "group": np.take(np.array(labels.groups, object), shared_C),
        "feature": choice[1],
        "threshold": np.take(thresholds, choice[2]),
        "selection_f1": selection_scores.f1[choice[1], choice[0], choice[2]],
        "null_p95": _percentile_95(null_RC),
        "p_value": (1 + reached_C) / (1 + shuffles) if shuffles else np.nan,
        "p_pooled": _pooled_p(table["f1"].to_numpy(), null_RC),
    }
    intervals = _intervals(unseen, *choice, families[1], bootstraps, np.random.default_rng((seed, 1)))
    return table.assign(**chosen, **intervals)[CONCEPT_COLUMNS]


def discoveries(scores: pd.DataFrame, rate: float = 0.05) -> np.ndarray:
    """Which rows of `concept_scores` (or of several such tables) are discoveries at a false discovery rate of `rate`, bool.

    Benjamini & Hochberg 1995 (J R Stat Soc B 57:289) on `p_pooled`. A single discovery among the C rows of a table needs a p-value of
    rate / C: 1 / rate shuffles (20 at 5 %), however many concepts there are. By `p_value` it would take C / rate (500 for 25 concepts).
    Of L tables joined, L as many shuffles or L discoveries are needed. Raises ValueError where the scores have no p-values.
    """
    p_values = scores["p_pooled"].to_numpy(float)
    if np.isnan(p_values).any():
        raise ValueError(
            "the scores have no p-values to take discoveries from: score with 3 shuffles or more"
        )
    return false_discovery_control(p_values) <= rate if len(p_values) else np.zeros(0, bool)


def _family_numbers(labels: Annotations, family_S: Sequence[str] | None) -> np.ndarray | None:
    """Number of the family of every record, [S]; a record of unknown family is a family of its own."""
    if family_S is None:
        return None
    records = int(labels.record_N[-1]) + 1
    if len(family_S) != records:
        raise ValueError(
            f"{len(family_S)} families do not fit {records} sequences: one per sequence is needed"
        )
    names = pd.Series(list(family_S))
    codes_S = pd.factorize(names)[0]
    number_S = np.where(codes_S < 0, records + np.arange(records), codes_S)
    if labels.per_sequence:
        _, first, of_S = np.unique(number_S, return_index=True, return_inverse=True)
        differ = (labels.members[first[of_S]] != labels.members).nonzero()
        if len(differ[0]):
            name, group = names[differ[0][0]], labels.groups[differ[1][0]]
            raise ValueError(
                f"family {name} has sequences of more than one {group}: its {group}s cannot be permuted as one"
            )
    return number_S


def _intervals(
    sample: _Sample, concept_J, feature_J, level_J, family_S, bootstraps: int, rng: np.random.Generator
) -> dict[str, np.ndarray]:
    """95 % intervals of F1 and AUROC over resampled families, from counts per family G, and the F1; columns of `concept_scores`."""
    columns, labels = sample.activations, sample.annotations
    resampled = [np.empty(0, np.float32)] * len(concept_J)
    family_S = (
        np.arange(labels.record_N[-1] + 1)
        if family_S is None
        else np.unique(family_S, return_inverse=True)[1]
    )
    family_N, families = family_S[labels.record_N], family_S.max() + 1
    bounds = np.full((len(concept_J), 2, 2), np.nan)
    if bootstraps and families > 1:
        weight_GB = rng.multinomial(families, np.full(families, 1 / families), bootstraps).T.astype(float)
        by_concept = labels.instance_NC.tocsc()
        for place, (concept, feature, level) in enumerate(zip(concept_J, feature_J, level_J)):
            having = slice(*by_concept.indptr[concept : concept + 2])
            instance_N = np.zeros(len(family_N), np.int64)
            instance_N[by_concept.indices[having]] = by_concept.data[having]
            active = slice(*columns.indptr[feature : feature + 2])
            rows, values, fires = columns.indices[active], columns.data[active], sample.level[active] > level
            f1_B = _resampled_f1(rows[fires], instance_N, family_N, weight_GB)
            resampled[place] = f1_B.astype(np.float32)
            bounds[place] = (
                _interval(f1_B),
                _interval(_resampled_auroc(rows, values, instance_N > 0, family_N, weight_GB)),
            )
    names = ("f1_low", "f1_high", "auroc_low", "auroc_high")
    return dict(zip(names, bounds.reshape(len(bounds), 4).T)) | {"f1_resampled": resampled}


def lead_interval(resampled_B: np.ndarray, other_B: np.ndarray) -> np.ndarray:
    """95 % percentile interval of how far one feature's F1 lies above another's on the same resamples; NaN where there are none."""
    return _interval(resampled_B - other_B) if len(resampled_B) and len(other_B) else np.full(2, np.nan)


def _interval(value_B: np.ndarray) -> np.ndarray:
    known = value_B[~np.isnan(value_B)]
    return np.percentile(known, (2.5, 97.5)) if len(known) else np.full(2, np.nan)


def _resampled_f1(
    rows: np.ndarray, instance_N: np.ndarray, family_N: np.ndarray, weight_GB: np.ndarray
) -> np.ndarray:
    """F1 of a feature that fires in `rows` for one concept in every resample, [B]; NaN in one that lacks the concept."""

    def total(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(family_N[chosen], minlength=len(weight_GB)) @ weight_GB

    def instances(chosen: np.ndarray) -> np.ndarray:
        chosen = chosen[instance_N[chosen] > 0]
        return total(chosen[np.unique(instance_N[chosen], return_index=True)[1]])

    elements_B = instances(np.arange(len(instance_N)))
    f1_B = _harmonic_mean(
        _share(total(rows[instance_N[rows] > 0]), total(rows)), _share(instances(rows), elements_B)
    )
    return np.where(elements_B > 0, f1_B, np.nan)


def _resampled_auroc(
    rows, values, member_N: np.ndarray, family_N: np.ndarray, weight_GB: np.ndarray
) -> np.ndarray:
    """AUROC in every resample, [B], of activations sorted into classes of equal size with the zeros below; NaN where it is not defined."""
    ordered = np.sort(values[values > 0])
    class_N = np.zeros(len(member_N), np.int64)
    class_N[rows] = np.where(
        values > 0, 1 + np.searchsorted(ordered, values) * _BINS // max(len(ordered), 1), 0
    )

    def counted(chosen: np.ndarray) -> np.ndarray:
        cells = np.ones(chosen.sum()), (class_N[chosen], family_N[chosen])
        return sparse.csr_matrix(cells, shape=(_BINS + 1, len(weight_GB))) @ weight_GB

    with_KB, without_KB = counted(member_N), counted(~member_N)
    below_KB = without_KB.cumsum(axis=0) - without_KB / 2
    pairs_B = with_KB.sum(axis=0) * without_KB.sum(axis=0)
    return np.divide(
        (with_KB * below_KB).sum(axis=0), pairs_B, out=np.full(len(pairs_B), np.nan), where=pairs_B > 0
    )


def element_scores(
    selection: tuple[sparse.spmatrix, pd.DataFrame],
    heldout: tuple[sparse.spmatrix, pd.DataFrame],
    retained_F: np.ndarray | None = None,
    thresholds: Sequence[float] = THRESHOLDS,
    shuffles: int = 20,
    seed: int = 0,
) -> pd.DataFrame:
    """`concept_scores` of the structural elements, of any number of instances, with `ELEMENT_COLUMNS`.

    Both sets are (activations [T, F], token table). Every record is shifted by itself. An element that one of the sets lacks has no row.
    """
    _needs_shuffles(shuffles)
    sets = _element_sets(selection, heldout)
    table = concept_scores(*sets, retained_F, thresholds, shuffles, seed, min_instances=1)
    return table.rename(columns={"concept": "element"})[ELEMENT_COLUMNS]


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
    _needs_shuffles(shuffles)
    selected, unseen = _samples(*_type_sets(selection, heldout), thresholds)
    all_C, ranked = np.arange(len(selected.annotations.concepts)), _Ranked(selected.activations)

    def choose(labels: Annotations) -> tuple[np.ndarray, np.ndarray]:
        auroc_FC = np.nan_to_num(ranked.scores(labels)[0])
        feature_C = _strongest(auroc_FC, retained_F, 1)[:, 0]
        return feature_C, auroc_FC[feature_C, all_C]

    def repeat(known: Annotations, other: Annotations) -> np.ndarray:
        return auroc(unseen.activations[:, choose(known)[0]], other)[all_C, all_C]

    feature_C, selection_auroc_C = choose(selected.annotations)
    level_C = selected.scores(feature_C).f1[all_C, all_C].argmax(axis=-1)
    families = tuple(
        _family_numbers(sample.annotations, names)
        for sample, names in zip((selected, unseen), families or (None, None))
    )
    null_RC = _null((selected, unseen), repeat, families, shuffles, np.random.default_rng(seed))
    chosen = {
        "type": selected.annotations.concepts,
        "feature": feature_C,
        "selection_auroc": selection_auroc_C,
        "null_p95": _percentile_95(null_RC),
    }
    table = (
        unseen.evaluate(all_C, feature_C, level_C).assign(**chosen).rename(columns={"tokens": "sequences"})
    )
    return table.loc[_shared_concepts(selected, unseen), TYPE_COLUMNS].reset_index(drop=True)


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
    for kind, sets, annotated in (("element", elements, _element_sets), ("type", types, _type_sets)):
        if sets is None:
            continue
        selected, unseen = _samples(*annotated(*sets), thresholds)
        f1 = selected.scores().f1
        merit_FC = (
            f1.max(axis=-1)
            if kind == "element"
            else np.nan_to_num(auroc(selected.activations, selected.annotations))
        )
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
