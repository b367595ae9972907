"""Do features stand for RNA types, beyond length and GC content? Family by family, with multiple testing and held-out families.

Sequences of one family are alike for many reasons, so families are the independent units: a feature's value in a family is the mean
of its pooled activations (`features.pool_sequences`). Shapes: S sequences, F features, G families, C types, R permutations.
"""

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.stats import false_discovery_control
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sae_rna.records.composition import length_and_gc
from sae_rna.sae import features

FALSE_DISCOVERIES = 0.05
"""Share of wrong ones among the discoveries that is accepted."""
ENOUGH = 20
"""A permutation test has its answer once so many permutations were as extreme as the observation."""
PERMUTATIONS = 10_000
"""Of a test that does not have its answer earlier."""
BLOCK = 2**23
"""Sums held at a time: 32 MiB."""
TOLERANCE = 1e-4
"""Sums of standardised float32 values that differ by less are equal."""
STRENGTHS = tuple(10.0 ** np.arange(-2.5, 1))
"""Inverse penalties C of the probe that cross-validation chooses from."""
FOLDS = 4
BOOTSTRAPS = 2000
SELECTIVITY_COLUMNS = [
    *(
        "feature",
        "type",
        "effect",
        "adjusted_effect",
        "p_value",
        "q_value",
        "significant",
        "heldout_effect",
        "heldout_p",
        "replicates",
    ),
    *("families", "sequences", "tau", "gini"),
]


class Families(NamedTuple):
    """Families of one split, each a row."""

    type_G: np.ndarray
    sequences_G: np.ndarray
    """Number of sequences of each."""
    mean_GF: np.ndarray
    """Mean over the family's sequences of the pooled activations."""
    stratum_G: np.ndarray
    """Number of the family's stratum, length tertile x GC tertile."""
    confounders_GZ: np.ndarray
    """What is regressed out: the stratum's mean, log length in each length tertile, GC in each GC tertile."""

    @classmethod
    def of(cls, pooled_SF: sparse.spmatrix | np.ndarray, records: pd.DataFrame) -> "Families":
        """From pooled activations and their records (columns type, family, sequence; an unknown family is one of its own).

        Raises ValueError where rows do not fit together, a type is missing, or a family has two types.
        """
        if pooled_SF.shape[0] != len(records):
            raise ValueError(
                f"pooled activations have {pooled_SF.shape[0]} rows for {len(records)} records: one per record is needed"
            )
        features.type_codes(records["type"])
        family_S = _family_names(records["family"])
        length, gc = length_and_gc(records["sequence"]).T
        facts = pd.DataFrame({"type": list(records["type"]), "length": length, "gc": gc}).groupby(family_S)
        if (facts["type"].nunique() > 1).any():
            name = facts["type"].nunique().gt(1).idxmax()
            raise ValueError(
                f"family {name} has sequences of more than one type: its types cannot be permuted as one"
            )
        means = facts[["length", "gc"]].mean()
        by_family = features.pool_types(pooled_SF, family_S, np.ones(pooled_SF.shape[1]))
        length, gc = (np.eye(3)[_tertile(means[name].to_numpy())] for name in means)
        stratum_G = 3 * length.argmax(1) + gc.argmax(1)
        slopes = [
            tertile * (means[name] - means[name].mean()).to_numpy()[:, None]
            for name, tertile in zip(means, (length, gc))
        ]
        confounders_GZ = np.column_stack([np.eye(9)[stratum_G], *slopes])
        types, sizes = facts["type"].first(), facts.size()
        return cls(
            types.to_numpy(),
            sizes.to_numpy(),
            by_family.loc[means.index].to_numpy(),
            stratum_G,
            confounders_GZ,
        )

    def members(self, types: Sequence[str]) -> np.ndarray:
        """Which families belong to each type, 0 or 1, [C, G]."""
        return (np.asarray(types, dtype=object)[:, None] == self.type_G).astype(float)

    def adjusted(self) -> np.ndarray:
        """What length and GC content leave unexplained of `mean_GF` by least squares.

        What a type has in common with its length is credited to length, so that tests of these values are conservative.
        """
        fitted_GF = self.confounders_GZ @ np.linalg.lstsq(self.confounders_GZ, self.mean_GF, rcond=None)[0]
        return _rest(self.mean_GF, fitted_GF)


def _family_names(family_S: Sequence[str]) -> np.ndarray:
    """Every sequence's family; a sequence of unknown family (None) is a family of its own."""
    return np.array(
        [f"\0{row}" if pd.isna(name) else str(name) for row, name in enumerate(family_S)], dtype=object
    )


def _rest(values_GF: np.ndarray, explained_GF: np.ndarray) -> np.ndarray:
    """Values less what is explained; 0 all over for a feature of which rounding alone is left."""
    rest_GF = values_GF - explained_GF
    return rest_GF * (np.abs(rest_GF).max(0) > 1e-9 * np.abs(values_GF).max(0))


def _tertile(values: np.ndarray) -> np.ndarray:
    return np.searchsorted(np.quantile(values, [1 / 3, 2 / 3]), values, side="right")


def effect_size(values_GF: np.ndarray, member_CG: np.ndarray) -> np.ndarray:
    """Hedges' g of every type against all other rows, [C, F]: difference in mean in pooled standard deviations, small samples corrected.

    Hedges 1981, Journal of Educational Statistics 6:107. 0 for a constant feature, infinite for one that is constant on either side and
    differs; NaN for a type that no row or every row has. Raises ValueError for fewer than 3 rows.
    """
    rows, inside_C1 = len(values_GF), member_CG.sum(1)[:, None]
    if rows < 3:
        raise ValueError(f"effect sizes need 3 families or more, there are {rows}")
    centred_GF, outside_C1 = _rest(values_GF, values_GF.mean(0)), rows - inside_C1
    squares_F = np.square(centred_GF).sum(0)
    with np.errstate(divide="ignore", invalid="ignore"):
        difference_CF = (
            member_CG @ centred_GF * rows / (inside_C1 * outside_C1)
        )  # the two sides' centred sums add up to 0
        within_CF = squares_F - difference_CF**2 * inside_C1 * outside_C1 / rows
        within_CF[within_CF < 1e-12 * squares_F] = 0
        g_CF = difference_CF / np.sqrt(within_CF / (rows - 2)) * (1 - 3 / (4 * (rows - 2) - 1))
    return np.where(difference_CF == 0, 0, g_CF)


def permutation_p_values(
    values_GF: np.ndarray,
    member_CG: np.ndarray,
    stratum_G: np.ndarray,
    rng: np.random.Generator,
    most: int = PERMUTATIONS,
) -> np.ndarray:
    """One-sided p-value of "the type's families have larger values than the others", [C, F]: types permuted within strata.

    The statistic is the sum over the type's families; given the sizes of the groups it orders permutations as their difference in mean and
    as Hedges' g do. p = (exceeding + 1) / (permutations + 1). The same permutations serve all types and features. A feature is done once
    each of its types has met `ENOUGH` permutations at least as extreme (Besag & Clifford 1991, Biometrika 78:301). After `PERMUTATIONS`
    only the features go on of which a type is undecided: neither that nor already significant at a false discovery rate of
    `FALSE_DISCOVERIES` over all [C, F] (Sandve et al. 2011, Bioinformatics 27:3235), to `most` at the latest.
    """
    centred_GF = _rest(values_GF, values_GF.mean(0))
    spread_F = centred_GF.std(0)
    standard_GF = (centred_GF / np.where(spread_F > 0, spread_F, 1)).astype(np.float32)
    member_CG = member_CG.astype(np.float32)
    observed_CF = member_CG @ standard_GF - TOLERANCE
    exceeding_CF, drawn_F = np.zeros(observed_CF.shape, np.int64), np.zeros(standard_GF.shape[1], np.int64)
    live, drawn = np.arange(standard_GF.shape[1]), 0
    while len(live) and drawn < most:
        limit = PERMUTATIONS if drawn < PERMUTATIONS else most
        size = min(
            max(1, BLOCK // max(1, len(member_CG) * max(len(live), len(stratum_G)))),
            limit - drawn,
            most - drawn,
        )
        order_RG = np.tile(np.arange(len(stratum_G)), (size, 1))
        for stratum in np.unique(stratum_G):
            rows = np.flatnonzero(stratum_G == stratum)
            order_RG[:, rows] = rng.permuted(order_RG[:, rows], axis=1)
        sums = member_CG[:, order_RG].reshape(-1, len(stratum_G)) @ standard_GF[:, live]
        exceeding_CF[:, live] += (sums.reshape(len(member_CG), size, -1) >= observed_CF[:, None, live]).sum(1)
        drawn_F[live] += size
        drawn += size
        undecided_CF = exceeding_CF < ENOUGH
        if drawn >= PERMUTATIONS:
            undecided_CF &= _q_values((exceeding_CF + 1) / (drawn_F + 1)) > FALSE_DISCOVERIES
        live = live[undecided_CF[:, live].any(0)]
    return (exceeding_CF + 1) / (drawn_F + 1)


def _q_values(p: np.ndarray) -> np.ndarray:
    return false_discovery_control(p, axis=None).reshape(p.shape)


def gini(activation_by_type: np.ndarray) -> np.ndarray:
    """Gini coefficient of every feature's activation over n types, [F]: 0 where all are alike, 1 - 1/n where a single type lights it up.

    `activation_by_type` [types, F] is not negative; NaN for a feature that no type lights up.

    >>> gini(np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 3.0]])).round(2)
    array([0.  , 0.67])
    """
    x = np.sort(np.asarray(activation_by_type, float), axis=0)
    weight = 2 * np.arange(1, len(x) + 1) - len(x) - 1
    total = x.sum(0)
    return np.divide(weight @ x, len(x) * total, out=np.full(total.shape, np.nan), where=total > 0)


def permutable_types(records: pd.DataFrame, min_families: int = 3) -> pd.DataFrame:
    """Which types a permutation within strata can say anything about: one row per type of `records` (type, family, sequence).

    `movable` counts the type's families in strata that hold another type's family too; a type with fewer than `min_families` of
    them is not `tested`. `smallest_p` is 1 / the number of ways to place the type's families: no p-value of the type is likely to be below.
    """
    return _permutable(Families.of(np.zeros((len(records), 0)), records), min_families)


def _permutable(families: Families, min_families: int) -> pd.DataFrame:
    everyone = np.bincount(families.stratum_G, minlength=9)
    rows = []
    for name in sorted(set(families.type_G)):
        mine = families.type_G == name
        own = np.bincount(families.stratum_G[mine], minlength=9)
        movable = int(own[own < everyone].sum())
        smallest = 1 / math.prod(map(math.comb, everyone.tolist(), own.tolist()))
        size = int(families.sequences_G[mine].sum())
        rows.append((name, int(mine.sum()), size, movable, smallest, movable >= min_families))
    return pd.DataFrame(rows, columns=["type", "families", "sequences", "movable", "smallest_p", "tested"])


def type_selectivity(
    selection: tuple[sparse.spmatrix, pd.DataFrame],
    heldout: tuple[sparse.spmatrix, pd.DataFrame],
    retained_F: np.ndarray | None = None,
    min_families: int = 3,
    adjust: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Which features prefer which RNA types, one row per feature and type, tested on `selection` and again on `heldout`.

    Both sets are (`pool_sequences` [S, F], records with type, family and sequence). Tested are the retained features that fire at all
    on the selection set, for the types that are `permutable_types` there.

    effect : Hedges' g of the family means, the type's families against all others
    adjusted_effect : the same after regressing out length and GC content: stratum means (length tertile x GC tertile), and log length and
        GC linearly in each tertile. A stratum alone is not enough: within the third of the shortest families types still differ in length
    p_value : one-sided, of the adjusted values, types permuted among families of one stratum (`permutation_p_values`), with so many
        permutations that a single discovery is possible, tests / 0.05, unless the families allow fewer (`permutable_types`)
    q_value : Benjamini & Hochberg's over all rows; significant : at most 0.05
    heldout_effect, heldout_p : adjusted effect and p-value on the held-out families; NaN for a type that they lack
    replicates : significant, positive on the held-out families, and there too after Benjamini & Hochberg over the significant rows
    families, sequences : of the type, in the selection set
    tau, gini : selectivity of the feature over all types of the selection set, from their means over families

    With ``adjust=False`` neither strata nor regression are used, held-out set included: the control that shows what length and GC content
    alone would have passed off as type selectivity.

    Raises ValueError where rows do not fit, nothing can be tested, or families are too few to hold length and GC content constant.
    """
    known, unseen = Families.of(*selection), Families.of(*heldout)
    if known.mean_GF.shape[1] != unseen.mean_GF.shape[1]:
        latents = known.mean_GF.shape[1], unseen.mean_GF.shape[1]
        raise ValueError(
            f"selection activations have {latents[0]} features, held-out ones {latents[1]}: use one autoencoder for both"
        )
    fewest, needed = min(len(known.type_G), len(unseen.type_G)), known.confounders_GZ.shape[1] + 3
    if fewest < needed:
        raise ValueError(
            f"{fewest} families are too few to hold length and GC content constant: give {needed} or more in each split"
        )
    if not adjust:
        known, unseen = (
            families._replace(stratum_G=np.zeros_like(families.stratum_G)) for families in (known, unseen)
        )
    types = _permutable(known, min_families)
    if not types.tested.any():
        raise ValueError(
            f"no RNA type has {min_families} families among others of like length and GC content: lower min_families"
        )
    fires_F = (known.mean_GF > 0).any(0)
    tested_F = np.flatnonzero(fires_F if retained_F is None else fires_F & retained_F)
    if not len(tested_F):
        raise ValueError("no retained feature fires on the selection set: there is nothing to test")
    tested = types[types.tested]
    most = max(PERMUTATIONS, math.ceil(len(tested) * len(tested_F) / FALSE_DISCOVERIES))
    rng = np.random.default_rng(seed)

    def test(families: Families, most: int) -> tuple[np.ndarray, ...]:
        families = families._replace(mean_GF=families.mean_GF[:, tested_F])
        values_GF = families.adjusted() if adjust else families.mean_GF
        member_CG = families.members(tested.type)
        p_CF = permutation_p_values(values_GF, member_CG, families.stratum_G, rng, most)
        p_CF[~member_CG.any(1)] = np.nan
        return effect_size(families.mean_GF, member_CG), effect_size(values_GF, member_CG), p_CF

    effect_CF, adjusted_CF, p_CF = test(known, most)
    _, heldout_CF, heldout_p_CF = test(unseen, PERMUTATIONS)
    by_type_CF = np.stack([known.mean_GF[known.type_G == name][:, tested_F].mean(0) for name in types.type])
    values = {
        "effect": effect_CF, "adjusted_effect": adjusted_CF, "p_value": p_CF, "q_value": _q_values(p_CF),
        "heldout_effect": heldout_CF, "heldout_p": heldout_p_CF,
    }  # fmt: skip
    index = pd.MultiIndex.from_product([tested_F, tested.type], names=["feature", "type"])
    table = pd.DataFrame(
        {name: value_CF.T.ravel() for name, value_CF in values.items()}, index=index
    ).reset_index()
    table["significant"] = (table.q_value <= FALSE_DISCOVERIES) & (table.adjusted_effect > 0)
    table["replicates"] = False
    again = table[table.significant & table.heldout_p.notna()]
    if len(again):
        table.loc[again.index, "replicates"] = (
            _q_values(again.heldout_p.to_numpy()) <= FALSE_DISCOVERIES
        ) & (again.heldout_effect > 0)
    facts = pd.DataFrame({"feature": tested_F, "tau": features.tau(by_type_CF), "gini": gini(by_type_CF)})
    table = table.merge(tested[["type", "families", "sequences"]], on="type").merge(facts, on="feature")
    return table.sort_values(["feature", "type"], ignore_index=True)[SELECTIVITY_COLUMNS]


def surviving(selectivity: pd.DataFrame) -> tuple[pd.DataFrame, int]:
    """What a figure of type-selective features may show: the rows of `type_selectivity` that replicate and whose feature is stronger in the
    type as it stands, not only adjusted; the largest adjusted effect first. Beside it the number of tested features without such a row.
    """
    shown = selectivity[selectivity.replicates & (selectivity.effect > 0)]
    shown = shown.sort_values(
        ["adjusted_effect", "feature", "type"], ascending=[False, True, True], ignore_index=True
    )
    return shown, selectivity.feature.nunique() - shown.feature.nunique()


def type_probe(
    representations: Mapping[str, tuple[sparse.spmatrix | np.ndarray, sparse.spmatrix | np.ndarray]],
    selection_types: Sequence[str],
    heldout_types: Sequence[str],
    families: tuple[Sequence[str], Sequence[str]],
    seed: int = 0,
) -> pd.DataFrame:
    """How well a sparse linear classifier tells RNA types of unseen families apart, one row per representation.

    representations : name -> (selection [S, F], held-out [S, F]): pooled features, `kmer_frequencies`, mean hidden states, `length_and_gc`
    families : of the selection and of the held-out sequences; an unknown one (None) counts as one of its own

    An L1-regularised logistic regression of each type against the rest, types weighted alike, on standardised columns (sparse ones are
    not centred). Its strength is the one of `STRENGTHS` with the best balanced accuracy in a cross-validation whose folds share no
    family; it is fitted on the selection set and scored once on the held-out one. Types take part that have 2 families or more in the
    selection set and one in the held-out set; `types` counts them, `chance` is 1 / types.

    Columns: representation, columns (F), balanced_accuracy with low and high, macro_f1, nonzero_weights (over all types), strength (C, the
    inverse of the penalty), types, chance, sequences and families (held out). low and high are the 95 % interval of a bootstrap of held-out
    families within types: a type with a single family adds no width to it.
    Raises ValueError where rows do not fit or fewer than 2 types can take part.
    """
    type_sets = [np.asarray(list(types), dtype=object) for types in (selection_types, heldout_types)]
    family_sets = [_family_names(names) for names in families]
    distinct = pd.Series(family_sets[0]).groupby(type_sets[0]).nunique()
    types = sorted(set(distinct[distinct >= 2].index) & set(type_sets[1]))
    if len(types) < 2:
        raise ValueError(
            f"{len(types)} RNA types have 2 families to fit on and 1 held out: a probe needs 2 types"
        )
    rows = [np.isin(names, types) for names in type_sets]
    (fit_S, test_S), (fit_families, test_families) = (
        [values[keep] for values, keep in zip(pair, rows)] for pair in (type_sets, family_sets)
    )
    folds = min(FOLDS, len(np.unique(fit_families)))
    table = []
    for name, sets in representations.items():
        for values, keep, split in zip(sets, rows, ("selection", "held-out")):
            if values.shape[0] != len(keep):
                raise ValueError(
                    f"{name} has {values.shape[0]} {split} rows for {len(keep)} {split} sequences: one per sequence is needed"
                )
        known, unseen = (values[np.flatnonzero(keep)] for values, keep in zip(sets, rows))
        probe = LogisticRegression(
            solver="liblinear", l1_ratio=1, class_weight="balanced", max_iter=1000, random_state=seed
        )
        pipeline = make_pipeline(
            StandardScaler(with_mean=not sparse.issparse(known)), OneVsRestClassifier(probe)
        )
        search = GridSearchCV(
            pipeline,
            {"onevsrestclassifier__estimator__C": STRENGTHS},
            scoring="balanced_accuracy",
            cv=StratifiedGroupKFold(folds, shuffle=True, random_state=seed),
        )
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", "y_pred contains classes not in y_true"
            )  # a type whose families are all in other folds
            search.fit(known, fit_S, groups=fit_families)
        guess_S = search.predict(unseen)
        accuracy, low, high = _bootstrap(
            guess_S == test_S, test_S, test_families, np.random.default_rng(seed)
        )
        table.append(
            {
                "representation": name,
                "columns": known.shape[1],
                "balanced_accuracy": accuracy,
                "low": low,
                "high": high,
                "macro_f1": f1_score(test_S, guess_S, labels=types, average="macro", zero_division=0),
                "nonzero_weights": sum(
                    int(np.count_nonzero(one.coef_)) for one in search.best_estimator_[-1].estimators_
                ),
                "strength": search.best_params_["onevsrestclassifier__estimator__C"],
            }
        )
    facts = {
        "types": len(types),
        "chance": 1 / len(types),
        "sequences": len(test_S),
        "families": len(np.unique(test_families)),
    }
    return pd.DataFrame(table).assign(**facts)


def _bootstrap(
    right_S: np.ndarray, type_S: np.ndarray, family_S: np.ndarray, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Balanced accuracy, and its 2.5th and 97.5th percentile when each type's families are drawn anew."""
    families = (
        pd.DataFrame({"type": type_S, "family": family_S, "right": right_S})
        .groupby(["type", "family"])["right"]
        .agg(["sum", "size"])
    )
    recalls, drawn = [], []
    for _, part in families.groupby(level="type"):
        right, size = part["sum"].to_numpy(), part["size"].to_numpy()
        chosen = rng.integers(0, len(part), (BOOTSTRAPS, len(part)))
        recalls.append(right.sum() / size.sum())
        drawn.append(right[chosen].sum(1) / size[chosen].sum(1))
    low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    return float(np.mean(recalls)), float(low), float(high)
