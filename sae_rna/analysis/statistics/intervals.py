"""Families drawn anew: 95 % intervals of F1, base-stratified AUROC and means, from counts by family.

Shapes: N rows (tokens or sequences), G families, B resamples, J choices, K classes of activation.
"""

import numpy as np
import pandas as pd
from scipy import sparse

from sae_rna.analysis.statistics.scoring import Choice, Sample, harmonic_mean, share

CLASSES = 100  # of equal size, that a feature's non-zeros are sorted into for the interval of its AUROC


def family_intervals(sample: Sample, choice: Choice, family_S, bootstraps: int, rng) -> dict:
    """f1_low, f1_high, base_auroc_low, base_auroc_high [J], and base_auroc_resampled: J arrays [B].

    `family_S` numbers the records' families. NaN, and empty, without resamples or with a single family.
    """
    labels, (columns, levels) = sample.annotations, sample.of(choice.feature_J)
    family_N = np.unique(family_S, return_inverse=True)[1][labels.record_N]
    families, resampled = family_N.max() + 1, [np.empty(0, np.float32)] * len(choice.concept_J)
    bounds = np.full((len(resampled), 2, 2), np.nan)
    if bootstraps and families > 1:
        weight_GB = rng.multinomial(families, np.full(families, 1 / families), bootstraps).T.astype(float)
        by_concept = labels.instance_NC.tocsc()
        for place, (concept, _, level) in enumerate(zip(*choice)):
            instance_N = by_concept[:, [concept]].toarray().ravel()
            active = slice(*columns.indptr[place : place + 2])
            rows, values, fires = columns.indices[active], columns.data[active], levels[active] > level
            f1_B = _resampled_f1(rows[fires], instance_N, family_N, weight_GB)
            auroc_B = _resampled_auroc(rows, values, instance_N > 0, labels.stratum_N, family_N, weight_GB)
            resampled[place] = auroc_B.astype(np.float32)
            bounds[place] = _interval(f1_B), _interval(auroc_B)
    names = ("f1_low", "f1_high", "base_auroc_low", "base_auroc_high")
    return dict(zip(names, bounds.reshape(len(bounds), 4).T)) | {"base_auroc_resampled": resampled}


def resampled_means(cells: pd.DataFrame, resamples: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Mean over types of each type's sum / size, [L], and the same with its families drawn anew, [B, L].

    cells : "sum" and "size" (in several columns each, such as layers, or in one: then there is no L); the
        rows' index begins with the type, a row a family
    """
    means, drawn = [], []
    for _, rows in cells.groupby(level=0):
        sum_UL, size_UL = rows["sum"].to_numpy(), rows["size"].to_numpy()
        chosen_BU = rng.integers(0, len(rows), (resamples, len(rows)))
        means.append(sum_UL.sum(0) / size_UL.sum(0))
        drawn.append(sum_UL[chosen_BU].sum(1) / size_UL[chosen_BU].sum(1))
    return np.mean(means, axis=0), np.mean(drawn, axis=0)


def lead_interval(resampled_B: np.ndarray, other_B: np.ndarray) -> np.ndarray:
    """Interval of how far one feature's score lies above another's on the same resamples; NaN without."""
    return _interval(resampled_B - other_B) if len(resampled_B) and len(other_B) else np.full(2, np.nan)


def _interval(value_B: np.ndarray) -> np.ndarray:
    known = value_B[~np.isnan(value_B)]
    return np.percentile(known, (2.5, 97.5)) if len(known) else np.full(2, np.nan)


def _resampled_f1(rows, instance_N, family_N, weight_GB) -> np.ndarray:
    """F1 of a feature that fires in `rows` for one concept, [B]; NaN in a resample that lacks the concept."""

    def total(chosen: np.ndarray) -> np.ndarray:
        return np.bincount(family_N[chosen], minlength=len(weight_GB)) @ weight_GB

    def instances(chosen: np.ndarray) -> np.ndarray:
        chosen = chosen[instance_N[chosen] > 0]
        return total(chosen[np.unique(instance_N[chosen], return_index=True)[1]])

    elements_B = instances(np.arange(len(instance_N)))
    precision_B = share(total(rows[instance_N[rows] > 0]), total(rows))
    f1_B = harmonic_mean(precision_B, share(instances(rows), elements_B))
    return np.where(elements_B > 0, f1_B, np.nan)


def _resampled_auroc(rows, values, member_N, stratum_N, family_N, weight_GB) -> np.ndarray:
    """Base-stratified AUROC of activations sorted into classes with the zeros below, [B]; NaN where there are
    no pairs."""
    ordered, class_N = np.sort(values[values > 0]), np.zeros(len(member_N), np.int64)
    above = 1 + np.searchsorted(ordered, values) * CLASSES // max(len(ordered), 1)
    class_N[rows] = np.where(values > 0, above, 0)
    shape = stratum_N.max() + 1, 2, CLASSES + 1, len(weight_GB)
    cell_N = ((stratum_N * 2 + ~member_N) * shape[2] + class_N) * shape[3] + family_N
    counts = sparse.csr_matrix(np.bincount(cell_N, minlength=np.prod(shape)).reshape(-1, shape[3]))
    wins_B, pairs_B = np.zeros((2, weight_GB.shape[1]))
    for with_KB, without_KB in (counts @ weight_GB).reshape(*shape[:3], -1):
        below_KB = without_KB.cumsum(axis=0) - without_KB / 2
        wins_B += (with_KB * below_KB).sum(axis=0)
        pairs_B += with_KB.sum(axis=0) * without_KB.sum(axis=0)
    return np.divide(wins_B, pairs_B, out=np.full(len(pairs_B), np.nan), where=pairs_B > 0)
