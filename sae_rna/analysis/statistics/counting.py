"""Kernels behind `scoring`: counts over the non-zeros of the activations, in parallel over features."""

import numba
import numpy as np


@numba.njit(parallel=True, cache=True)
def count(start, rows, level, label_start, label_concept, label_instance, concepts, thresholds):
    """Rows where each feature fires [F, H], those that have each concept and instances among them [F, C, H].

    One count by level answers for all thresholds, since the level of a maximum is the maximum of the levels.
    """
    features = len(start) - 1
    firing = np.zeros((features, thresholds), np.int32)
    hits = np.zeros((features, concepts, thresholds), np.int32)
    found = np.zeros((features, concepts, thresholds), np.int32)
    instances = label_instance.max() + 1 if len(label_instance) else 1
    for j in numba.prange(features):
        # by level, of which 0 (fires nowhere) is left out in the end
        firing_j, hits_j = np.zeros(thresholds + 1, np.int32), np.zeros((concepts, thresholds + 1), np.int32)
        found_j, highest_E = np.zeros_like(hits_j), np.zeros(instances, np.uint8)
        for entry in range(start[j], start[j + 1]):
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


def split(start, rows, values, stratum_N, strata):
    """Non-zeros by column of each stratum of the rows, which keep their numbers: start, rows, values."""
    ends = _stratum_ends(start, rows, stratum_N, strata)
    parts = _by_stratum(start, rows, values, stratum_N, ends)
    bounds = np.append(ends[:, 0], len(rows))
    return [(ends[s] - low, *(part[low:high] for part in parts))
            for s, (low, high) in enumerate(zip(bounds, bounds[1:]))]  # fmt: skip


@numba.njit(cache=True)
def _stratum_ends(start, rows, stratum_N, strata):
    """Where the entries of every column end if they are laid out stratum by stratum, from 0, [S, F + 1]."""
    counts = np.zeros((strata, len(start)), np.int64)
    for f in range(len(start) - 1):
        for entry in range(start[f], start[f + 1]):
            counts[stratum_N[rows[entry]], f + 1] += 1
    return np.cumsum(counts).reshape(counts.shape)


@numba.njit(parallel=True, cache=True)
def _by_stratum(start, rows, values, stratum_N, ends):
    """Rows and values in the order of `ends`."""
    rows_out, values_out = np.empty_like(rows), np.empty_like(values)
    for f in numba.prange(len(start) - 1):
        place = ends[:, f].copy()
        for entry in range(start[f], start[f + 1]):
            s = stratum_N[rows[entry]]
            rows_out[place[s]], values_out[place[s]] = rows[entry], values[entry]
            place[s] += 1
    return rows_out, values_out


def rank(start, rows, values):
    """Of every column its start, rows from the strongest down, number of rows as strong or stronger, and the
    end of the positives."""
    start = start.astype(np.int64)  # one kind of number, for which the kernels are compiled once
    order, falling = np.empty(len(values), np.int64), -values
    for low, high in zip(start, start[1:]):  # NumPy's sort is several times as fast as numba's on all cores
        order[low:high] = np.argsort(falling[low:high])
    order += np.repeat(start[:-1], np.diff(start))
    return start, rows[order], *_ties(start, values[order])


@numba.njit(parallel=True, cache=True)
def _ties(start, values):
    """`rank`'s third and fourth answer, for values that descend in every feature."""
    seen, stop = np.empty(len(values), np.int32), start[1:].copy()
    for f in numba.prange(len(start) - 1):
        low, high = start[f], start[f + 1]
        while high > low and values[high - 1] <= 0:
            high -= 1
        stop[f] = high
        for place in range(high - 1, low - 1, -1):
            tied = place + 1 < high and values[place] == values[place + 1]
            seen[place] = seen[place + 1] if tied else place + 1 - low
    return seen, stop


@numba.njit(parallel=True, cache=True)
def walk(start, row_ranked, seen, stop, rows, label_start, label_concept, rows_C, precise):
    """From the strongest row down: pairs that a concept's rows win and, if `precise`, average precision, both
    [F, C]. `rows` and `rows_C` count the rows in question and those of each concept."""
    concepts = len(rows_C)
    wins = np.empty((len(start) - 1, concepts))
    average_precision = np.empty((len(start) - 1, concepts))
    for f in numba.prange(len(start) - 1):
        hits, precision_sum, rank_sum = np.zeros(concepts, np.int64), np.zeros(concepts), np.zeros(concepts)
        place, above = start[f], 0
        while place < stop[f]:
            level, end = seen[place], start[f] + seen[place]
            mean_rank = rows - (above + level - 1) / 2  # of equals; the weakest row's is 1
            for tied in range(place, end):
                for label in range(label_start[row_ranked[tied]], label_start[row_ranked[tied] + 1]):
                    hits[label_concept[label]] += 1
                    rank_sum[label_concept[label]] += mean_rank
            for tied in range(place, end if precise else place):
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
