"""Near-identical sequences: 90 % identity and more. Identity: 1 - edit distance / the longer length."""

import numba
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

IDENTITY = 0.9


def pack(sequences: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """All letters of the sequences as one array, and where each sequence starts (and the last one ends)."""
    letters = np.frombuffer("".join(sequences).encode(), np.uint8)
    return letters, np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(
        np.int64
    )


@numba.njit(cache=True)
def _is_near(a, b, allowed):
    """Whether the edit distance is `allowed` at most: dynamic programming in a band, given up early."""
    if abs(len(a) - len(b)) > allowed:
        return False
    previous = np.empty(len(b) + 1, np.int32)
    current = np.empty(len(b) + 1, np.int32)
    for j in range(len(b) + 1):
        previous[j] = j
    for i in range(1, len(a) + 1):
        low, high = max(1, i - allowed), min(len(b), i + allowed)
        current[low - 1] = i if low == 1 else allowed + 1
        best = current[low - 1]
        for j in range(low, high + 1):
            value = previous[j - 1] + (a[i - 1] != b[j - 1])
            if j < i + allowed and previous[j] + 1 < value:
                value = previous[j] + 1
            if current[j - 1] + 1 < value:
                value = current[j - 1] + 1
            current[j] = value
            best = min(best, value)
        if best > allowed:
            return False
        previous, current = current, previous
    return previous[len(b)] <= allowed


@numba.njit(cache=True)
def _near_pairs(letters, starts, others, other_starts, identity):
    pairs = [(0, 0)][:0]
    for i in range(len(starts) - 1):
        a = letters[starts[i] : starts[i + 1]]
        for j in range(len(other_starts) - 1):
            b = others[other_starts[j] : other_starts[j + 1]]
            if _is_near(a, b, int((1 - identity) * max(len(a), len(b)) + 1e-9)):
                pairs.append((i, j))
    return pairs


def near_pairs(sequences: list[str], others: list[str], identity: float = IDENTITY) -> np.ndarray:
    """Pairs (index in `sequences`, index in `others`) that are near-identical. Shape [pairs, 2]."""
    return np.array(_near_pairs(*pack(sequences), *pack(others), identity), np.int64).reshape(-1, 2)


def clusters(sequences: list[str], identity: float = IDENTITY) -> np.ndarray:
    """Cluster number of every sequence. Single linkage: no near-identical pair is ever in two clusters."""
    pairs = near_pairs(sequences, sequences, identity)
    graph = coo_array((np.ones(len(pairs)), pairs.T), (len(sequences),) * 2)
    return connected_components(graph, directed=False)[1]
