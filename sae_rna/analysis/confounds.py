"""How much of a feature base, neighbours, position, composition and length explain, without a language model.

A feature that fires on G agrees with stems, since stems are rich in G. Each chosen feature's activation is
predicted from such covariates alone by gradient-boosted trees (Friedman 2001, Annals of Statistics 29:1189;
scikit-learn's histogram implementation), fitted on the families that features are chosen on and scored on the
others. The prediction is then scored for the feature's concept as if it were a feature itself. R2 is a lower
bound.

A feature counts as explained if R2 >= 0.5, or if its prediction does as well as itself. One that is not
explained need not stand for its concept: that is for its scores to say, beside their null. Shapes: T tokens,
S sequences, F features, P covariates, N rows of either kind, J choices (a feature of a concept).
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.metrics import r2_score
from tqdm import tqdm

from sae_rna.analysis.data import in_settings
from sae_rna.analysis.statistics.annotations import annotate_elements, annotate_types
from sae_rna.analysis.statistics.scoring import Sample, rank_scores
from sae_rna.analysis.structure_features import best_by_element
from sae_rna.records.composition import NUCLEOTIDES, gc_content, kmer_frequencies, one_hot_windows
from sae_rna.records.splits import SETTINGS
from sae_rna.records.structure import ELEMENTS
from sae_rna.sae.activations import Activations

FITTED_TOKENS = 20_000  # of whole records of the selection split that trees are fitted on, at most
EXPLAINED_R2 = 0.5  # held-out share of a feature's variance from which the covariates explain the feature
GROUPS = {"base": "base", "neighbours": "neighbours", "position": "position", "composition": "GC and length"}
"""Covariates of nucleotides by group, with the group's name in tables."""


def covariates(tokens: pd.DataFrame, records: pd.DataFrame, reach: int = 3) -> dict[str, np.ndarray]:
    """What is known of every nucleotide without a language model, by group, float32 [T, P].

    tokens : `token_table` of the records

    ``base`` is one-hot, A C G U; ``neighbours`` those on each side up to `reach`, from 5' to 3', all 0 beyond
    the ends; ``position`` nucleotides to the 5' and to the 3' end, and relative, 0 to 1; ``composition`` GC
    share and length of the RNA.
    """
    sequences, record_T, position_T = records["sequence"], tokens["record"], tokens["position"].to_numpy()
    length_T = sequences.str.len().to_numpy()[record_T]
    window_TBW = one_hot_windows(sequences, reach).reshape(len(tokens), len(NUCLEOTIDES), 2 * reach + 1)
    neighbours = np.delete(window_TBW, reach, axis=2).swapaxes(1, 2)
    neighbours = neighbours.reshape(len(tokens), 2 * reach * len(NUCLEOTIDES))
    relative_T = position_T / np.maximum(length_T - 1, 1)
    position = np.column_stack([position_T, length_T - 1 - position_T, relative_T])
    composition = np.column_stack([gc_content(sequences)[record_T], length_T])
    groups = zip(GROUPS, (window_TBW[:, :, reach], neighbours, position, composition))
    return {name: values.astype(np.float32) for name, values in groups}


def sequence_covariates(records: pd.DataFrame) -> np.ndarray:
    """Of every sequence length, GC share, share of each base and of each dinucleotide, float32 [S, 22]."""
    bases, pairs = (kmer_frequencies(records.sequence, k).toarray() for k in (1, 2))
    parts = [records.sequence.str.len(), gc_content(records.sequence), bases, pairs]
    return np.column_stack(parts).astype(np.float32)


def explain_elements(rnas: Activations, chosen, seed: int = 0, by_group: bool = False) -> pd.DataFrame:
    """How far covariates explain features that were chosen for structural elements; rows as in `chosen`.

    chosen : setting, layer, element (letter) and feature, as in `structure_features.score_elements`
    seed : draws the records that trees are fitted on

    Columns setting, layer, element, feature, explained and, all on the scored split, the base-stratified
    AUROC of the feature, `own_base_auroc`, and of its prediction, `confound_base_auroc`; `r2` (0 for a
    feature that never fires there) and `by_group` that of each group alone, such as `r2_base` (below 0 where
    what was fitted does not carry over). Raises ValueError for a missing split.
    """
    explain = lambda rows, splits: _explain_elements(rnas, rows, splits, seed, by_group)  # noqa: E731
    return _by_setting(chosen, "element", explain)


def _explain_elements(rnas: Activations, chosen: pd.DataFrame, splits, seed: int, by_group: bool):
    """`explain_elements` of one setting."""
    of_split = [rnas.rows(split) for split in splits]
    used = of_split[0] | of_split[1]
    tokens, sets = rnas.tokens[used], [rows[used] for rows in of_split]
    labels = annotate_elements(tokens[sets[1]])
    groups = {name: known_TP[used] for name, known_TP in covariates(rnas.tokens, rnas.records).items()}
    known = {"r2": np.concatenate([*groups.values()], axis=1)}
    known |= {f"r2_{group}": values_TP for group, values_TP in groups.items() if by_group}
    fitted_T = np.isin(tokens["record"], _sample(tokens["record"].to_numpy()[sets[0]], seed))

    def explain(values_TF: np.ndarray, rows: pd.DataFrame, place_J: np.ndarray) -> pd.DataFrame:
        values_TF, concept_J = values_TF[used], pd.Index(labels.concepts).get_indexer(rows["element"])
        prediction_TF, r2 = _regress(values_TF, known, fitted_T, sets[1])
        own, confound = (
            Sample(sparse.csc_matrix(values[sets[1]]), labels, np.ones(values.shape[1])).base_auroc()
            for values in (values_TF, prediction_TF)
        )
        places = place_J, concept_J
        return r2.iloc[place_J].assign(own_base_auroc=own[places], confound_base_auroc=confound[places])

    return _by_layer(chosen, "element", rnas.features, explain)


def explain_types(rnas: Activations, chosen: pd.DataFrame) -> pd.DataFrame:
    """How far length, composition and dinucleotides explain features of RNA types; rows as in `chosen`.

    As `explain_elements` (chosen: setting, layer, type and feature), with a row a sequence, each feature at
    its strongest nucleotide, and plain AUROC: `own_auroc` and `confound_auroc`. Trees are fitted on all
    selection sequences.
    """
    return _by_setting(chosen, "type", lambda rows, splits: _explain_types(rnas, rows, splits))


def _explain_types(rnas: Activations, chosen: pd.DataFrame, splits) -> pd.DataFrame:
    """`explain_types` of one setting."""
    for split in splits:
        rnas.rows(split)  # ValueError where it is missing
    used = rnas.records.split.isin(splits).to_numpy()
    records, heldout_S = rnas.records[used], (rnas.records.split == splits[1]).to_numpy()[used]
    known = {"r2": sequence_covariates(records)}
    labels = annotate_types(records["type"][heldout_S], sorted(set(records["type"])))

    def explain(values_SF: np.ndarray, rows: pd.DataFrame, place_J: np.ndarray) -> pd.DataFrame:
        concept_J = pd.Index(labels.concepts).get_indexer(rows["type"])
        prediction_SF, r2 = _regress(values_SF[used], known, ~heldout_S, heldout_S)
        sets = [sparse.csc_matrix(values[heldout_S]) for values in (values_SF[used], prediction_SF)]
        own, confound = (rank_scores(values, labels)[0][place_J, concept_J] for values in sets)
        return r2.iloc[place_J].assign(own_auroc=own, confound_auroc=confound)

    return _by_layer(chosen, "type", lambda layer: rnas.pooled(layer)[0], explain)


def _by_setting(chosen: pd.DataFrame, kind: str, explain: Callable) -> pd.DataFrame:
    """`explain` of the choices of each setting and its splits; rows as in `chosen`."""
    if chosen.empty:
        return chosen[["setting", "layer", kind, "feature"]].assign(r2=0.0, explained=False)
    groups = chosen.reset_index(drop=True).groupby("setting", sort=False)
    tables = [explain(rows, SETTINGS[setting]).assign(setting=setting) for setting, rows in groups]
    return pd.concat(tables).sort_index()


def _by_layer(chosen: pd.DataFrame, kind: str, features: Callable, explain: Callable) -> pd.DataFrame:
    """`explain` of the activations [N, F] of chosen features, the choices and their places, by layer."""
    keys, tables = ["layer", kind, "feature"], []
    for layer, rows in tqdm(chosen.groupby("layer"), "confounds", mininterval=1):
        activations_NF = features(layer)
        feature_F, place_J = np.unique(rows["feature"], return_inverse=True)
        found = explain(activations_NF[:, feature_F].toarray(), rows, place_J)
        tables.append(rows[keys].join(found.set_axis(rows.index)))
    table = pd.concat(tables).sort_index()
    own, confound = (table.filter(like=name).iloc[:, 0] for name in ("own_", "confound_"))
    return table.assign(explained=(table["r2"] >= EXPLAINED_R2) | (confound >= own))


def mark(chosen: pd.DataFrame, explained: pd.DataFrame) -> pd.DataFrame:
    """`chosen` with explained, r2 and the confounds' score of `explain_elements` or `explain_types`."""
    keys = ["setting", "layer", "element" if "element" in explained else "type", "feature"]
    found = explained[[*keys, "explained", "r2", *explained.filter(like="confound_").columns]]
    return chosen.merge(found, on=keys, how="left", validate="one_to_one")


def _sample(record_T: np.ndarray, seed: int) -> np.ndarray:
    """Numbers of randomly drawn records, at least one, with at most `FITTED_TOKENS` tokens together."""
    numbers, tokens = np.unique(record_T, return_counts=True)
    order = np.random.default_rng(seed).permutation(len(numbers))
    count = (tokens[order].cumsum() <= FITTED_TOKENS).sum()
    return numbers[order[: max(count, 1)]]


def _regress(values_NF, known: dict, fitted_N, heldout_N) -> tuple[np.ndarray, pd.DataFrame]:
    """Predictions from the covariates known["r2"], at least 0 [N, F], and the held-out R2 of all sets."""
    predictions, r2 = {}, {}
    for name, known_NP in known.items():
        columns = [_predict(known_NP, value_N, fitted_N) for value_N in values_NF.T]
        predictions[name] = np.stack(columns, axis=1)
        pairs = zip(values_NF[heldout_N].T, predictions[name][heldout_N].T)
        r2[name] = [r2_score(value_N, prediction_N) for value_N, prediction_N in pairs]
    return np.maximum(predictions["r2"], 0), pd.DataFrame(r2)


def _predict(known_NP: np.ndarray, value_N: np.ndarray, fitted_N: np.ndarray) -> np.ndarray:
    # 30 steps at twice the usual rate come within .03 of the R2 of 100 usual ones in a third of the time
    trees = HistGradientBoostingRegressor(learning_rate=0.2, max_iter=30, early_stopping=False)
    return trees.fit(known_NP[fitted_N], value_N[fitted_N]).predict(known_NP)


def group_table(explained: pd.DataFrame) -> pd.DataFrame:
    """tab-confounds: R2 of all covariates and of each group alone, from `explain_elements` `by_group`."""
    columns = {"r2": "R2 of all"} | {f"r2_{group}": name for group, name in GROUPS.items()}
    table = explained.assign(element=explained.element.map(ELEMENTS)).rename(columns=columns)
    table = table.rename(columns={"setting": "RNAs"})
    return table[["RNAs", "element", "layer", "feature", *columns.values()]]


def numbers(scores: pd.DataFrame) -> dict:
    """How many features are explained: of the best of each element, also in words by setting, and of the best
    in each layer; and how many of the former score no better than chance."""
    best = best_by_element(scores)
    groups = best.groupby("setting", sort=False).explained
    words = in_settings({name: f"{of.sum()} of {len(of)} elements" for name, of in groups})
    counts = {"explained": int(best.explained.sum()), "elements": len(best), "by_setting": words}
    counts |= {"chance": int((~(best.base_auroc_low > best.null_p95)).sum())}
    return counts | {"all_explained": int(scores.explained.sum()), "features": len(scores)}
