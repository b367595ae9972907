"""How much of a feature its surroundings explain without a language model: nucleotide, neighbours, position, composition and length.

A feature that fires on G agrees with stems, since stems are rich in G; so does a feature of the middle of an RNA. Each chosen feature's
activation is predicted from such covariates alone by gradient-boosted trees (Friedman 2001, Annals of Statistics 29:1189; scikit-learn's
histogram implementation), fitted on the selection split and scored on held-out families. The prediction is then scored for the feature's
concept as if it were a feature itself. A regression that is fitted to a sample may miss what the covariates could explain: R2 is a
lower bound. Shapes: T tokens, S sequences, F features, P covariates, N rows of any kind, J choices (a concept with its feature).
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import r2_score

from sae_rna.analysis.statistics import scoring
from sae_rna.analysis.statistics.annotations import Annotations, annotate, annotate_elements, annotate_types
from sae_rna.records.composition import NUCLEOTIDES, encode_bases, gc_content, kmer_frequencies, kmer_names
from sae_rna.sae.features import column_max

#: The regression is fitted on whole records of the selection split with at most so many tokens together.
FITTED_TOKENS = 20_000
#: Held-out share of a feature's variance from which the covariates explain the feature.
EXPLAINED_R2 = 0.5
#: A prediction is smoother than a feature: between the features' thresholds it may choose finer ones, which favours the covariates.
THRESHOLDS = np.arange(20) / 20

TOKEN_GROUPS = ("base", "neighbours", "position", "composition")
SEQUENCE_GROUPS = ("length", "composition", "dinucleotides")
TOKEN_COLUMNS = [
    "feature",
    "own_f1",
    "confound_f1",
    "r2",
    *(f"r2_{group}" for group in TOKEN_GROUPS),
    "explained",
]
TYPE_COLUMNS = [
    "type",
    "feature",
    "own_auroc",
    "confound_auroc",
    "r2",
    *(f"r2_{group}" for group in SEQUENCE_GROUPS),
    "explained",
]


def covariates(tokens: pd.DataFrame, records: pd.DataFrame, reach: int = 3) -> tuple[np.ndarray, list[str]]:
    """What is known of every nucleotide without a language model, float32 [T, P], and the names of the columns.

    tokens : columns record (row number in `records`), position (0-based) and base
    records : column sequence
    reach : neighbours on each side

    The first word of a name is its group: ``base`` (one-hot), ``neighbours`` (one-hot, all 0 beyond the ends), ``position`` (nucleotides
    to the 5' and to the 3' end; relative, 0 to 1) and ``composition`` (GC share and length of the RNA). Raises ValueError where tokens
    do not fit the records' sequences, naming the first of them.
    """
    record_T, position_T = tokens["record"].to_numpy(), tokens["position"].to_numpy()
    if len(tokens) and record_T.max() >= len(records):
        raise ValueError(
            f"a token is of record {record_T.max()}, but there are {len(records)}: both must come from one table of records"
        )
    length_S = records["sequence"].str.len().to_numpy()
    codes = [np.pad(code, reach, constant_values=-1) for code in encode_bases(records["sequence"])]
    start_S = np.cumsum(length_S + 2 * reach) - (length_S + 2 * reach)
    wrong_T = position_T >= length_S[record_T]
    window_TW = np.concatenate(codes)[
        (start_S[record_T] + np.where(wrong_T, 0, position_T))[:, None] + np.arange(2 * reach + 1)
    ]
    wrong_T |= window_TW[:, reach] != pd.Index(list(NUCLEOTIDES)).get_indexer(tokens["base"].astype(object))
    if wrong_T.any():
        record, position = record_T[wrong_T][0], position_T[wrong_T][0]
        raise ValueError(
            f"record {record}, position {position + 1}: token and sequence differ; both must come from one table of records"
        )

    one_hot = (window_TW[:, :, None] == np.arange(len(NUCLEOTIDES))).astype(np.float32)
    length_T = length_S[record_T]
    parts = [
        one_hot[:, reach],
        np.delete(one_hot, reach, axis=1).reshape(len(tokens), 2 * reach * len(NUCLEOTIDES)),
        np.stack([position_T, length_T - 1 - position_T, position_T / np.maximum(length_T - 1, 1)], axis=1),
        np.stack([gc_content(records["sequence"])[record_T], length_T], axis=1),
    ]
    offsets = [offset for offset in range(-reach, reach + 1) if offset]
    names = [f"base {base}" for base in NUCLEOTIDES]
    names += [f"neighbours {offset:+d} {base}" for offset in offsets for base in NUCLEOTIDES]
    names += [
        "position from 5'",
        "position from 3'",
        "position relative",
        "composition GC",
        "composition length",
    ]
    return np.concatenate(parts, axis=1, dtype=np.float32), names


def sequence_covariates(records: pd.DataFrame) -> tuple[np.ndarray, list[str]]:
    """What is known of every sequence without a language model, float32 [S, P], and the names of the columns.

    records : column sequence

    The first word of a name is its group: ``length``, ``composition`` (GC share and share of each base) and ``dinucleotides`` (share of
    each of the 16).
    """
    bases, pairs = (kmer_frequencies(records["sequence"], k).toarray() for k in (1, 2))
    parts = [
        records["sequence"].str.len().to_numpy()[:, None],
        gc_content(records["sequence"])[:, None],
        bases,
        pairs,
    ]
    names = ["length", "composition GC", *(f"composition {base}" for base in NUCLEOTIDES)]
    names += [f"dinucleotides {pair}" for pair in kmer_names(2)]
    return np.concatenate(parts, axis=1, dtype=np.float32), names


def explain(
    activations: sparse.csr_matrix,
    tokens: pd.DataFrame,
    records: pd.DataFrame,
    chosen: pd.DataFrame,
    seed: int = 0,
    by_group: bool = True,
) -> pd.DataFrame:
    """How far the covariates of nucleotides explain the features chosen for concepts of nucleotides; one row per row of `chosen`.

    activations : [T, F], non-negative
    tokens : T rows of whole records, columns record (row number in `records`), position, base, element
    records : columns sequence and split ("selection" and "heldout"; others are not used)
    chosen : `choosing.score_elements`, or `choosing.score_concepts` of groups of `annotations.annotate`; of their columns element (letter),
        or concept and group, feature and threshold (share of the feature's maximum on the selection split) are used

    Columns: element or concept, feature, ``r2`` on the held-out split (0 for a feature that never fires there), and `by_group` with each
    group of covariates alone (``r2_base``, ``r2_neighbours``, ``r2_position``, ``r2_composition``: GC and length; below 0 where what was
    fitted does not carry over to other families); ``own_f1`` of the feature and ``confound_f1`` of its prediction, both by
    `scoring.score` on the held-out split, the prediction's threshold chosen on the selection split. A feature counts as ``explained`` if
    r2 >= 0.5 or confound_f1 >= own_f1: the covariates then do as well as itself. One that is not explained need not stand for its
    concept: that is for `choosing` to say, beside its null.

    Trees are fitted on a sample of the selection split's records (`FITTED_TOKENS`) drawn by `seed`. Raises ValueError where shapes do not
    fit, a split is missing or tokens do not spell the records.
    """
    _check_choices(activations, len(tokens), chosen, "tokens")
    split_T = _splits(records)[tokens["record"].to_numpy()]
    used = np.isin(split_T, ("selection", "heldout"))
    tokens, split_T = tokens[used], split_T[used]
    sets = [split_T == "selection", split_T == "heldout"]
    kind, labels = _annotated([tokens[rows] for rows in sets], records, chosen)
    concept_J = _numbers(chosen[kind], labels[0].concepts)
    feature_F, column_J = np.unique(
        chosen["feature"], return_inverse=True
    )  # one feature may be chosen for several concepts
    values_TF = activations[:, feature_F][used].toarray()
    fitted_T = np.isin(tokens["record"], _sample(tokens["record"].to_numpy()[sets[0]], seed))
    prediction_TF, r2 = _regress(values_TF, *covariates(tokens, records), fitted_T, sets[1], by_group)

    thresholds = np.unique(chosen["threshold"])
    level_J = np.searchsorted(thresholds, chosen["threshold"])
    own_f1 = _f1(values_TF, sets, labels, thresholds)[1][column_J, concept_J, level_J]
    selection_f1, heldout_f1 = _f1(prediction_TF, sets, labels, THRESHOLDS)
    best_J = selection_f1[column_J, concept_J].argmax(axis=-1)
    confound_f1 = heldout_f1[column_J, concept_J, best_J]
    table = chosen[[kind, "feature"]].reset_index(drop=True).join(r2.iloc[column_J].reset_index(drop=True))
    table = table.assign(
        own_f1=own_f1,
        confound_f1=confound_f1,
        explained=(table["r2"] >= EXPLAINED_R2) | (confound_f1 >= own_f1),
    )
    return table[[kind, *(column for column in TOKEN_COLUMNS if column in table)]]


def explain_types(
    pooled: sparse.csr_matrix, records: pd.DataFrame, chosen: pd.DataFrame, by_group: bool = True
) -> pd.DataFrame:
    """How far length, composition and dinucleotides explain the features chosen for RNA types; one row per row of `chosen`.

    pooled : activations pooled by `features.pool_sequences`, [S, F], rows as in `records`
    records : columns sequence, type and split ("selection" and "heldout"; others are not used)
    chosen : columns type and feature, as `choosing.score_types` gives them

    As `explain`, one row a sequence and AUROC, by which features are chosen for types, in the place of F1: ``own_auroc`` of the feature
    and ``confound_auroc`` of its prediction for the type on the held-out split, and ``explained`` if r2 >= 0.5 or confound_auroc >=
    own_auroc. ``r2_length``, ``r2_composition`` (GC and bases) and ``r2_dinucleotides`` are of these groups alone. Fitted on all sequences
    of the selection split. Raises ValueError as `explain` does, and for a type that no record has.
    """
    _check_choices(pooled, len(records), chosen, "sequences")
    split_S = _splits(records)
    used = np.isin(split_S, ("selection", "heldout"))
    records, split_S = records[used], split_S[used]
    heldout_S = split_S == "heldout"
    feature_F, column_J = np.unique(chosen["feature"], return_inverse=True)
    values_SF = pooled[:, feature_F][used].toarray()
    prediction_SF, r2 = _regress(values_SF, *sequence_covariates(records), ~heldout_S, heldout_S, by_group)

    labels = annotate_types(records["type"][heldout_S], sorted(set(records["type"])))
    concept_J = _numbers(chosen["type"], labels.concepts)
    own, confound = (
        scoring.auroc(sparse.csc_matrix(values[heldout_S]), labels)[column_J, concept_J]
        for values in (values_SF, prediction_SF)
    )
    table = chosen[["type", "feature"]].reset_index(drop=True).join(r2.iloc[column_J].reset_index(drop=True))
    table = table.assign(
        own_auroc=own, confound_auroc=confound, explained=(table["r2"] >= EXPLAINED_R2) | (confound >= own)
    )
    return table[[column for column in TYPE_COLUMNS if column in table]]


def _annotated(
    parts: list[pd.DataFrame], records: pd.DataFrame, chosen: pd.DataFrame
) -> tuple[str, list[Annotations]]:
    """The column of `chosen` that names concepts, and annotations of each part of the tokens with them."""
    if "element" in chosen:
        return "element", [annotate_elements(tokens) for tokens in parts]
    return "concept", [annotate(tokens, records, tuple(chosen["group"].unique())) for tokens in parts]


def _numbers(names_J: pd.Series, concepts_C: Sequence[str]) -> np.ndarray:
    concept_J = pd.Index(concepts_C).get_indexer(names_J)
    if (concept_J < 0).any():
        raise ValueError(
            f"'{names_J.iloc[(concept_J < 0).argmax()]}' is none of the concepts {', '.join(concepts_C)}: choose among them"
        )
    return concept_J


def _check_choices(activations, rows: int, chosen: pd.DataFrame, what: str):
    if activations.shape[0] != rows:
        raise ValueError(
            f"the activations have {activations.shape[0]} rows, there are {rows} {what}: both need the same rows"
        )
    if chosen.empty:
        raise ValueError("no feature is chosen: give at least one row with its concept")
    if not chosen["feature"].between(0, activations.shape[1] - 1).all():
        raise ValueError(
            f"feature {chosen['feature'].max()} is chosen, the activations have {activations.shape[1]}: use one autoencoder for both"
        )


def _splits(records: pd.DataFrame) -> np.ndarray:
    split_S = records["split"].to_numpy(dtype=object)
    missing = {"selection", "heldout"} - set(split_S)
    if missing:
        raise ValueError(
            f"no record is in the split '{min(missing)}': a regression is fitted on 'selection' and scored on 'heldout'"
        )
    return split_S


def _sample(record_T: np.ndarray, seed: int) -> np.ndarray:
    """Numbers of randomly drawn records that have `FITTED_TOKENS` tokens or fewer together, at least one record."""
    numbers, tokens = np.unique(record_T, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(numbers))
    count = (tokens[order].cumsum() <= FITTED_TOKENS).sum()
    return numbers[order[: max(count, 1)]]


def _regress(
    values_NF: np.ndarray,
    covariates_NP: np.ndarray,
    names: list[str],
    fitted_N: np.ndarray,
    heldout_N: np.ndarray,
    by_group: bool,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Predictions from all covariates, clipped at 0 [N, F], and the held-out R2 of all and `by_group` of each (one row a feature)."""
    group_P = np.array([name.split()[0] for name in names])
    columns = {"r2": np.ones(len(names), bool)}
    columns |= {f"r2_{group}": group_P == group for group in dict.fromkeys(group_P) if by_group}
    prediction_NF, rows = np.empty(values_NF.shape), []
    for feature, value_N in enumerate(values_NF.T):
        row = {}
        for name, column_P in columns.items():
            # 30 steps at twice the usual rate come within .03 of the R2 of 100 usual ones in a third of the time
            trees = HistGradientBoostingRegressor(learning_rate=0.2, max_iter=30, early_stopping=False)
            trees.fit(covariates_NP[fitted_N][:, column_P], value_N[fitted_N])
            if name == "r2":
                prediction_NF[:, feature] = trees.predict(covariates_NP)
                row[name] = r2_score(value_N[heldout_N], prediction_NF[heldout_N, feature])
            else:
                row[name] = r2_score(value_N[heldout_N], trees.predict(covariates_NP[heldout_N][:, column_P]))
        rows.append(row)
    return np.maximum(prediction_NF, 0), pd.DataFrame(rows)


def _f1(
    values_NF: np.ndarray, sets: list[np.ndarray], labels: list[Annotations], thresholds: np.ndarray
) -> list[np.ndarray]:
    """F1 of every column on the selection and on the held-out set, each [F, C, H]; the scale is the maximum on the selection set."""
    scale_F = column_max(values_NF[sets[0]])
    return [
        scoring.score(sparse.csc_matrix(values_NF[rows]), scale_F, of, thresholds).f1
        for rows, of in zip(sets, labels)
    ]
