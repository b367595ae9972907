"""Features of a sparse autoencoder: how often they fire, and how strongly in each sequence and RNA type.

The activations of one layer are a sparse matrix [T, F], one row per nucleotide in record order, non-negative.
A feature fires where its activation is above 0. Shapes: T nucleotides, F features, S sequences, C types.
"""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors import safe_open
from safetensors.numpy import save_file
from scipy import sparse

from sae_rna.files import writing


def run_numbers(*labels_N: np.ndarray) -> np.ndarray:
    """Number of the run each row stands in, from 0, [N]; a run ends where any of the labels changes."""
    starts_N = np.zeros(len(labels_N[0]), np.int64)
    for labels in labels_N:
        starts_N[1:] |= labels[1:] != labels[:-1]
    return np.cumsum(starts_N)


def to_csr(values_NF: sparse.spmatrix | np.ndarray) -> sparse.csr_matrix:
    """``scipy.sparse.csr_matrix``, faster for dense values: non-zeros are sought among booleans."""
    if not isinstance(values_NF, np.ndarray):
        return values_NF.tocsr()
    fires_NF = values_NF != 0
    places = np.flatnonzero(fires_NF)
    start = np.concatenate([[0], np.count_nonzero(fires_NF, axis=1).cumsum()])
    index = np.int32 if values_NF.size <= np.iinfo(np.int32).max else np.int64
    columns = (places % values_NF.shape[1]).astype(index)
    return sparse.csr_matrix((values_NF.ravel()[places], columns, start.astype(index)), shape=values_NF.shape)


def to_csc(values_NF: sparse.spmatrix | np.ndarray) -> sparse.csc_matrix:
    """`to_csr`, by column."""
    if not isinstance(values_NF, np.ndarray):
        return values_NF.tocsc()
    columns_FN = np.empty(values_NF.shape[::-1], values_NF.dtype)
    for start in range(0, len(values_NF), 1024):  # all at once, it would take six times as long
        columns_FN[:, start : start + 1024] = values_NF[start : start + 1024].T
    return to_csr(columns_FN).T


def pool_max(values_NF: sparse.spmatrix | np.ndarray, group_N: np.ndarray) -> sparse.csc_matrix | np.ndarray:
    """Maximum over groups of adjacent rows, [groups, F]; sparse (by column) for a sparse matrix, else dense.

    `group_N` numbers the groups from 0 in row order. Sparse values must not be negative. A group is a stretch
    of a column's non-zeros, which are in row order: no sorting, time proportional to the non-zeros.
    """
    if not sparse.issparse(values_NF):  # ten times faster than np.maximum.reduceat along columns
        groups = np.split(values_NF, np.flatnonzero(np.diff(group_N, prepend=-1))[1:])
        return np.stack([rows_NF.max(axis=0) for rows_NF in groups])
    columns = sparse.csc_matrix(values_NF)
    columns.sort_indices()
    group = group_N[columns.indices]
    starts = np.ones(len(group), bool)
    starts[1:] = group[1:] != group[:-1]
    starts[columns.indptr[:-1][np.diff(columns.indptr) > 0]] = True
    first = np.flatnonzero(starts)
    pooled = np.maximum.reduceat(columns.data, first) if len(first) else columns.data
    shape = (int(group_N[-1]) + 1 if len(group_N) else 0, columns.shape[1])
    return sparse.csc_matrix((pooled, group[first], np.searchsorted(first, columns.indptr)), shape=shape)


def column_max(values_NF: sparse.spmatrix | np.ndarray) -> np.ndarray:
    """Maximum of every column of non-negative values, [F]: the features' scale, on the selection set."""
    return dense(values_NF.max(axis=0)).ravel()


def dense(values: sparse.spmatrix | np.ndarray) -> np.ndarray:
    """A matrix of either kind as a NumPy array."""
    return values if isinstance(values, np.ndarray) else values.toarray()


class FeatureSummary:
    """How often and how strongly features fire, over any number of tokens, chunk by chunk.

    >>> summary = FeatureSummary(latents=2)
    >>> _ = summary.update(np.array([[0.0, 1.0], [0.0, 3.0], [0.0, 2.0], [0.5, 0.0]]), np.array([0, 0, 1, 1]))
    >>> summary.table()
       feature  sequences  density  maximum
    0        0          1     0.25      0.5
    1        1          2     0.75      3.0
    """

    def __init__(self, latents: int):
        self._tokens, self._maximum = 0, np.zeros(latents)
        self._sequences, self._firing = np.zeros(latents, np.int64), np.zeros(latents, np.int64)

    def update(self, activations_TF: sparse.spmatrix | np.ndarray, record_T: np.ndarray):
        """Add a chunk, sparse or dense, of whole records; returns its `pool_max`, [S, F]."""
        if not len(record_T):
            return activations_TF
        pooled_SF = pool_max(activations_TF, run_numbers(record_T))
        self._tokens += len(record_T)
        self._sequences += _count_positive(pooled_SF)
        self._firing += _count_positive(activations_TF)
        self._maximum = np.maximum(self._maximum, column_max(pooled_SF))
        return pooled_SF

    def table(self) -> pd.DataFrame:
        """A row per feature: feature, sequences (records it fires in), density (share of tokens), maximum."""
        numbers = {"sequences": self._sequences, "density": self._firing / max(self._tokens, 1)}
        return pd.DataFrame({"feature": np.arange(len(self._maximum)), **numbers, "maximum": self._maximum})


def _count_positive(values_NF) -> np.ndarray:
    return np.asarray((values_NF > 0).sum(axis=0)).ravel().astype(np.int64)


def pool_sequences(activations_TF: sparse.spmatrix | np.ndarray, record_T: np.ndarray) -> sparse.csr_matrix:
    """Strongest activation of every feature in every sequence, [S, F], sequences in order of appearance."""
    return sparse.csr_matrix(pool_max(activations_TF, run_numbers(record_T)))


def type_codes(type_S: Sequence[str]) -> tuple[np.ndarray, pd.Index]:
    """Number of each sequence's type, [S], and the numbers' names. ValueError for a sequence without one."""
    codes_S, names = pd.factorize(np.asarray(type_S, dtype=object), sort=True)
    if (codes_S < 0).any():
        raise ValueError(f"sequence {codes_S.argmin() + 1} has no type: leave such sequences out first")
    return codes_S, pd.Index(names, dtype=object)


def pool_types(pooled_SF: sparse.spmatrix, type_S: Sequence[str], scale_F: np.ndarray) -> pd.DataFrame:
    """Mean over each type's sequences of `pool_sequences`, divided by `scale_F`: [types, features].

    With the maximum on the selection set as scale this is how strongly a type lights a feature up at its
    strongest nucleotide, 0 to 1 there. A feature whose scale is 0 is 0.
    """
    codes_S, names = type_codes(type_S)
    weight_S = 1 / np.bincount(codes_S, minlength=len(names))[codes_S]
    averages = sparse.csr_matrix((weight_S, (codes_S, np.arange(len(codes_S)))), (len(names), len(codes_S)))
    mean_CF = dense(averages @ pooled_SF)
    scaled_CF = np.divide(mean_CF, scale_F, out=np.zeros(mean_CF.shape), where=np.asarray(scale_F) > 0)
    return pd.DataFrame(scaled_CF, names.rename("type")).rename_axis(columns="feature")


def type_activation(by_type: pd.DataFrame, per_type: int, retained_F=None) -> pd.DataFrame:
    """The union of every type's `per_type` strongest features by `pool_types`, of those retained (bool [F]):
    feature, type, activation, rank (from 1)."""
    candidates = by_type if retained_F is None else by_type.loc[:, np.asarray(retained_F)]
    rank = candidates.rank(axis=1, ascending=False, method="first").astype(int)
    chosen = rank.columns[(rank <= per_type).any(axis=0)]
    table = candidates[chosen].T.stack().rename("activation").reset_index()
    return table.assign(rank=rank[chosen].T.stack().to_numpy())


def tau(activation_by_type: np.ndarray) -> np.ndarray:
    """Selectivity of every feature for types, [F]: 0 where all light it up alike, 1 where a single one does.

    The tissue-specificity index tau = sum_i (1 - x_i / max x) / (n - 1) of Yanai et al. 2005, Bioinformatics
    21:650, of non-negative values [types, F]; NaN where all are 0.

    >>> tau(np.array([[1.0, 2.0, 4.0], [1.0, 0.0, 1.0], [1.0, 0.0, 1.0]]))
    array([0.  , 1.  , 0.75])
    """
    highest = activation_by_type.max(axis=0)
    share = activation_by_type / np.where(highest > 0, highest, np.nan)
    return (1 - share).sum(axis=0) / (len(share) - 1)


def save_csr(matrix: sparse.csr_matrix, path: Path):
    """Write a sparse matrix as safetensors (data, indices, indptr; the shape in the metadata)."""
    tensors = {"data": matrix.data, "indices": matrix.indices, "indptr": matrix.indptr}
    with writing(path) as temporary:
        save_file(tensors, temporary, metadata={"shape": json.dumps(matrix.shape)})


def load_csr(path: Path) -> sparse.csr_matrix:
    """Read what `save_csr` wrote."""
    with safe_open(path, framework="np") as file:
        data, indices, indptr = (file.get_tensor(name) for name in ("data", "indices", "indptr"))
        return sparse.csr_matrix((data, indices, indptr), shape=json.loads(file.metadata()["shape"]))
