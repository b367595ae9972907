"""Do features stand for RNA types, beyond length and GC content? Permutation tests with families as units.

Sequences of one family are alike for many reasons: a feature's value in a family is the mean of its pooled
activations. Shapes: S sequences, F features, G families, C types, R permutations, Z confounders.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse

from sae_rna.analysis.statistics.nulls import q_values
from sae_rna.records.composition import length_and_gc
from sae_rna.sae.features import pool_types

FALSE_DISCOVERIES = 0.05  # share of wrong ones among the discoveries that is accepted
ENOUGH = 20  # a permutation test has its answer once so many permutations were as extreme as the observation
PERMUTATIONS = 10_000  # of a test that does not have its answer earlier
BLOCK = 2**23  # sums held at a time: 32 MiB
TOLERANCE = 1e-4  # sums of standardised float32 values that differ by less are equal
SELECTIVITY_COLUMNS = (
    "feature type effect adjusted_effect p_value q_value significant heldout_effect heldout_p replicates "
    "families sequences"
).split()


class Families(NamedTuple):
    """Families of one split, each a row."""

    type_G: np.ndarray
    sequences_G: np.ndarray  # number of sequences
    mean_GF: np.ndarray  # mean over the sequences of the pooled activations
    stratum_G: np.ndarray  # number of the stratum, length tertile x GC tertile
    confounders_GZ: np.ndarray  # the stratum's mean, log length in each length tertile, GC in each GC tertile

    @classmethod
    def of(cls, pooled_SF: sparse.spmatrix | np.ndarray, records: pd.DataFrame) -> "Families":
        """From pooled activations and their records: type, family (None is a family of its own), sequence.

        Raises ValueError where a family has two types.
        """
        family_S = family_names(records["family"])
        length, gc = length_and_gc(records["sequence"]).T
        facts = pd.DataFrame({"type": list(records["type"]), "length": length, "gc": gc}).groupby(family_S)
        mixed = facts["type"].nunique() > 1
        if mixed.any():
            raise ValueError(f"family {mixed.idxmax()} has sequences of more than one type")
        means = facts[["length", "gc"]].mean()
        by_family = pool_types(pooled_SF, list(family_S), np.ones(pooled_SF.shape[1]))
        mean_GF = by_family.loc[means.index].to_numpy()
        columns = [values.to_numpy() for _, values in means.items()]
        tertiles = [np.searchsorted(np.quantile(x_G, [1 / 3, 2 / 3]), x_G, side="right") for x_G in columns]
        stratum_G = 3 * tertiles[0] + tertiles[1]
        slopes = [np.eye(3)[own] * (x_G - x_G.mean())[:, None] for own, x_G in zip(tertiles, columns)]
        confounders_GZ = np.column_stack([np.eye(9)[stratum_G], *slopes])
        types, sizes = facts["type"].first().to_numpy(), facts.size().to_numpy()
        return cls(types, sizes, mean_GF, stratum_G, confounders_GZ)

    def members(self, types: Sequence[str]) -> np.ndarray:
        """Which families belong to each type, 0 or 1, [C, G]."""
        return (np.asarray(types, dtype=object)[:, None] == self.type_G).astype(float)

    def adjusted(self) -> np.ndarray:
        """What length and GC content leave of `mean_GF`; what a type shares with its length is lost, too."""
        fitted_GF = self.confounders_GZ @ np.linalg.lstsq(self.confounders_GZ, self.mean_GF, rcond=None)[0]
        return _unexplained(self.mean_GF, fitted_GF)

    def movable_types(self, min_families: int) -> np.ndarray:
        """Types of which `min_families` families or more share a stratum with another type's."""
        own = pd.crosstab(self.type_G, self.stratum_G)
        movable_C = own.where(own < own.sum(), 0).sum(axis=1)
        return movable_C.index[movable_C >= min_families].to_numpy()


def family_names(family_S: Sequence[str]) -> np.ndarray:
    """Every sequence's family; a sequence of unknown family (None) is a family of its own."""
    names = [f"\0{row}" if pd.isna(name) else str(name) for row, name in enumerate(family_S)]
    return np.array(names, dtype=object)


def _unexplained(values_GF: np.ndarray, explained_GF: np.ndarray) -> np.ndarray:
    """Values less what is explained; 0 all over for a feature of which rounding alone is left."""
    left_GF = values_GF - explained_GF
    return left_GF * (np.abs(left_GF).max(0) > 1e-9 * np.abs(values_GF).max(0))


def effect_size(values_GF: np.ndarray, member_CG: np.ndarray) -> np.ndarray:
    """Hedges' g of every type against all other rows, [C, F] (Hedges 1981, J Educational Statistics 6:107).

    0 for a constant feature, infinite for one that is constant on either side; NaN for no or all rows.
    """
    rows, inside_C1 = len(values_GF), member_CG.sum(1)[:, None]
    centred_GF, outside_C1 = _unexplained(values_GF, values_GF.mean(0)), rows - inside_C1
    squares_F = np.square(centred_GF).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        # the centred sums of the two sides add up to 0
        difference_CF = member_CG @ centred_GF * rows / (inside_C1 * outside_C1)
        within_CF = squares_F - difference_CF**2 * inside_C1 * outside_C1 / rows
        within_CF[within_CF < 1e-12 * squares_F] = 0
        g_CF = difference_CF / np.sqrt(within_CF / (rows - 2)) * (1 - 3 / (4 * (rows - 2) - 1))
    return np.where(difference_CF == 0, 0, g_CF)


def permutation_p_values(values_GF, member_CG, stratum_G, rng, most: int = PERMUTATIONS) -> np.ndarray:
    """One-sided p-values of larger values in the type's families, [C, F], by permuting types within strata.

    The statistic, the sum over the type's families, orders permutations as Hedges' g does; p = (exceeding +
    1) / (permutations + 1). All types and features share the permutations. A feature is done once each of its
    types has met `ENOUGH` permutations at least as extreme (Besag & Clifford 1991, Biometrika 78:301); after
    `PERMUTATIONS` also once its other types are significant at a false discovery rate of `FALSE_DISCOVERIES`
    over all [C, F] (Sandve et al. 2011, Bioinformatics 27:3235); after `most` in any case.
    """
    centred_GF = _unexplained(values_GF, values_GF.mean(0))
    spread_F = centred_GF.std(0)
    standard_GF = (centred_GF / np.where(spread_F > 0, spread_F, 1)).astype(np.float32)
    member_CG = member_CG.astype(np.float32)
    observed_CF = member_CG @ standard_GF - TOLERANCE
    exceeding_CF, drawn_F = np.zeros(observed_CF.shape, np.int64), np.zeros(standard_GF.shape[1], np.int64)
    live, drawn = np.arange(standard_GF.shape[1]), 0
    while len(live) and drawn < most:
        stop = min(PERMUTATIONS, most) if drawn < PERMUTATIONS else most
        size = min(max(1, BLOCK // max(1, len(member_CG) * max(len(live), len(stratum_G)))), stop - drawn)
        order_RG = np.tile(np.arange(len(stratum_G)), (size, 1))
        for stratum in np.unique(stratum_G):
            rows = np.flatnonzero(stratum_G == stratum)
            order_RG[:, rows] = rng.permuted(order_RG[:, rows], axis=1)
        permuted = member_CG.take(order_RG, axis=1)  # an index would give an order that reshape has to copy
        sums = permuted.reshape(-1, len(stratum_G)) @ standard_GF[:, live]
        exceeding_CF[:, live] += (sums.reshape(len(member_CG), size, -1) >= observed_CF[:, None, live]).sum(1)
        drawn_F[live] += size
        drawn += size
        undecided_CF = exceeding_CF < ENOUGH
        if drawn >= PERMUTATIONS:
            undecided_CF &= q_values((exceeding_CF + 1) / (drawn_F + 1)) > FALSE_DISCOVERIES
        live = live[undecided_CF[:, live].any(0)]
    return (exceeding_CF + 1) / (drawn_F + 1)


def type_selectivity(selection, heldout, retained_F=None, min_families=3, seed: int = 0) -> pd.DataFrame:
    """Which features prefer which RNA types, a row for each of both, tested on `selection` and on `heldout`.

    Both sets are (`pool_sequences` [S, F], records with type, family and sequence). Tested are the retained
    features that fire at all on the selection set, for its `Families.movable_types`. Columns:

    effect : Hedges' g of the family means, the type's families against all others
    adjusted_effect : the same after regressing out stratum means (length tertile x GC tertile), and log
        length and GC linearly in each tertile: within the shortest third types still differ in length
    p_value : one-sided, of the adjusted values, with tests / 0.05 permutations where needed
    q_value : Benjamini & Hochberg's over all rows; significant : at most 0.05, with a positive effect
    heldout_effect, heldout_p : adjusted effect and p-value on held-out families; NaN for types they lack
    replicates : significant, and on held-out families positive and significant among the significant rows
    families, sequences : of the type, in the selection set

    Raises ValueError where nothing can be tested, or families are too few to adjust.
    """
    known, unseen = Families.of(*selection), Families.of(*heldout)
    types, tested_F = _testable(known, unseen, retained_F, min_families)
    most = max(PERMUTATIONS, math.ceil(len(types) * len(tested_F) / FALSE_DISCOVERIES))
    rng = np.random.default_rng(seed)
    effect_CF, adjusted_CF, p_CF = _tested(known, types, tested_F, rng, most)
    _, heldout_CF, heldout_p_CF = _tested(unseen, types, tested_F, rng, PERMUTATIONS)
    values = [effect_CF, adjusted_CF, p_CF, q_values(p_CF), heldout_CF, heldout_p_CF]
    names = ("effect", "adjusted_effect", "p_value", "q_value", "heldout_effect", "heldout_p")
    table = pd.DataFrame({name: value_CF.T.ravel() for name, value_CF in zip(names, values)})
    table = table.assign(feature=np.repeat(tested_F, len(types)), type=np.tile(types, len(tested_F)))
    table["significant"] = (table.q_value <= FALSE_DISCOVERIES) & (table.adjusted_effect > 0)
    again = table[table.significant & table.heldout_p.notna()]
    replicates = (q_values(again.heldout_p.to_numpy()) <= FALSE_DISCOVERIES) & (again.heldout_effect > 0)
    table["replicates"] = replicates.reindex(table.index, fill_value=False)
    sequences = pd.Series(known.sequences_G).groupby(known.type_G)
    table["families"], table["sequences"] = table.type.map(sequences.size()), table.type.map(sequences.sum())
    return table[SELECTIVITY_COLUMNS]


def _testable(known: Families, unseen: Families, retained_F, min_families: int) -> tuple[np.ndarray, ...]:
    """Types and numbers of the features that can be tested."""
    fewest, needed = min(len(known.type_G), len(unseen.type_G)), known.confounders_GZ.shape[1] + 3
    if fewest < needed:
        raise ValueError(f"{fewest} families are too few to adjust: give {needed} or more in each split")
    types = known.movable_types(min_families)
    if not len(types):
        raise ValueError(f"no RNA type has {min_families} families like other types': lower min_families")
    fires_F = (known.mean_GF > 0).any(0)
    tested_F = np.flatnonzero(fires_F if retained_F is None else fires_F & retained_F)
    if not len(tested_F):
        raise ValueError("no retained feature fires on the selection set: there is nothing to test")
    return types, tested_F


def _tested(families: Families, types, tested_F, rng, most: int) -> tuple[np.ndarray, ...]:
    """Effect, adjusted effect and p-value of the features for the types, [C, F] each."""
    families = families._replace(mean_GF=families.mean_GF[:, tested_F])
    adjusted_GF, member_CG = families.adjusted(), families.members(types)
    p_CF = permutation_p_values(adjusted_GF, member_CG, families.stratum_G, rng, most)
    p_CF[~member_CG.any(1)] = np.nan
    return effect_size(families.mean_GF, member_CG), effect_size(adjusted_GF, member_CG), p_CF
