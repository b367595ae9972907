"""How well a sparse linear classifier of representations tells RNA types of unseen families apart. Shapes: S sequences, F columns."""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sae_rna.analysis.statistics.permutation import family_names

STRENGTHS = tuple(10.0 ** np.arange(-2.5, 1))
"""Inverse penalties C of the probe that cross-validation chooses from."""
FOLDS = 4
BOOTSTRAPS = 2000


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
    family_sets = [family_names(names) for names in families]
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
