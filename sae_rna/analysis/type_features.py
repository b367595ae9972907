"""Features of RNA types: which prefer a type beyond length and GC content, in other families, too?

All choices are made on the selection families of a setting (`splits.SETTINGS`) and tested again, or scored,
on its other families; the unit of every test is the family (`statistics.permutation`).
"""

import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
import torch
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.model_selection import GridSearchCV, StratifiedGroupKFold
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from sae_rna.analysis import confounds
from sae_rna.analysis.statistics import choosing, permutation
from sae_rna.analysis.statistics.intervals import resampled_means
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.composition import kmer_frequencies, length_and_gc
from sae_rna.records.splits import SETTINGS, settings
from sae_rna.records.structure import ELEMENTS
from sae_rna.sae.activations import Activations
from sae_rna.sae.features import column_max, pool_types, type_activation

STRENGTHS = tuple(10.0 ** np.arange(-2.5, 1))  # inverse penalties that the probe chooses from
FOLDS, BOOTSTRAPS = 4, 2000
_LENGTH, _FEATURES = "length and GC content", "SAE features"  # representations that captions compare
FEWEST_TYPES = 3  # that can be tested, for anything to be said about types
_HEADERS = {"setting": "setting", "type": "RNA type", "layer": "layer", "feature": "feature"}
_HEADERS |= {"selection_auroc": "AUROC where chosen", "auroc": "AUROC"}
_HEADERS |= {"null_p95": "chance (95th percentile)"}
_HEADERS |= {"families": "families scored", "sequences": "RNAs scored", "explained": "explained"}


def prefer_types(rnas: Activations, seed: int = 0, filtered: bool = True) -> pd.DataFrame:
    """`permutation.type_selectivity` of every setting and layer; `filtered`: of retained features alone.

    Empty, with a warning, where types cannot be tested: no families, or too few of them.
    """
    tables = [pd.DataFrame(columns=[*permutation.SELECTIVITY_COLUMNS, "setting", "layer"])]
    if "family" not in rnas.records:
        warnings.warn("types of RNA were not tested: the records have no column 'family'", stacklevel=2)
        return tables[0]
    pairs = [(layer, of) for layer in rnas.layers for of in settings(rnas.records).items()]
    for layer, (setting, splits) in tqdm(pairs, f"types, {rnas.name}", mininterval=1):
        retained_F = rnas.retained(layer) if filtered else None
        selection, heldout = (rnas.pooled(layer, split) for split in splits)
        try:
            table = permutation.type_selectivity(selection, heldout, retained_F, seed=seed)
            tables.append(table.assign(setting=setting, layer=layer))
        except ValueError as error:
            warnings.warn(f"types of RNA were not tested in {setting}: {error}", stacklevel=2)
    return pd.concat(tables[1:] or tables, ignore_index=True)


def surviving(tested: pd.DataFrame) -> pd.DataFrame:
    """The rows of `prefer_types` that replicate and whose type is ahead unadjusted, too; strongest first."""
    rows = tested[tested.replicates.astype(bool) & (tested.effect > 0)]
    by = ["setting", "layer", "adjusted_effect", "feature", "type"]
    return rows.sort_values(by, ascending=[True, True, False, True, True], ignore_index=True)


def type_activations(rnas: Activations, kept, explained, layers, top_k: int, filtered=False) -> pd.DataFrame:
    """Figure 5's table: in every layer the union of each type's `top_k` strongest retained features.

    kept, explained : of `surviving`, and of `confounds.explain_types` on it
    filtered : of the surviving features alone

    Columns feature, type, activation (mean over the type's RNAs, each at its strongest nucleotide, in shares
    of the feature's maximum), rank (from 1), layer, survives (the settings, joined by commas, in which the
    feature prefers this type) and explained (a surviving feature, for any type).
    """
    keys = ["layer", "feature", "type"]
    tables = [pd.DataFrame(columns=["feature", "type", "activation", "rank", "layer"])]
    for layer in layers:
        pooled, records = rnas.pooled(layer)
        features = kept.feature[kept.layer == layer]
        chosen_F = np.isin(np.arange(pooled.shape[1]), features) if filtered else rnas.retained(layer)
        if chosen_F.any():
            table = type_activation(pool_types(pooled, records.type, column_max(pooled)), top_k, chosen_F)
            tables.append(table.assign(layer=layer))
    table = pd.concat(tables[1:] or tables, ignore_index=True)
    settings_of = kept.groupby(keys).setting.agg(", ".join).rename("survives").reset_index()
    marked = explained.loc[explained.explained.astype(bool), ["layer", "feature"]].drop_duplicates()
    table = table.merge(settings_of.astype({"type": object}), on=keys, how="left").fillna({"survives": ""})
    marks = pd.MultiIndex.from_frame(marked.astype(object))
    return table.assign(explained=pd.MultiIndex.from_frame(table[keys[:2]].astype(object)).isin(marks))


def effects(tested: pd.DataFrame) -> pd.DataFrame:
    """The table of fig-type-effects: how many features of each layer and type survive and were tested."""
    keys = ["setting", "layer", "type"]
    counts = tested.groupby(keys, sort=False).feature.nunique().rename("tested")
    kept = surviving(tested).groupby(keys).feature.nunique().rename("surviving")
    table = counts.to_frame().join(kept).fillna({"surviving": 0}).astype(int).reset_index()
    return table[[*keys, "surviving", "tested"]]


def numbers(rnas: Activations, tested: pd.DataFrame, random: pd.DataFrame, activation: pd.DataFrame) -> dict:
    """What the captions of the first three figures say; `random` is `prefer_types` of the random model."""
    layers, counts = first_middle_last(rnas.layers), effects(tested)
    explained, found = activation[activation.explained.astype(bool)], counts[counts.surviving > 0]
    facts = {"types": rnas.records.type.nunique(), "rnas": len(rnas.records), "pairs": len(tested)}
    facts |= {"layers": ", ".join(f"L{layer}" for layer in layers), "shown": _features(activation)}
    facts |= {"significant": int(tested.significant.sum()), "replicated": int(tested.replicates.sum())}
    facts |= {"surviving": len(surviving(tested)), "explained": _features(explained)}
    facts |= {"cells": len(counts), "empty_cells": len(counts) - len(found)}
    without = sorted(set(counts.type) - set(found.type))
    facts |= {"without": ", ".join(without) or "none", "random_surviving": len(surviving(random))}
    return facts | {"highest": float(activation.activation.max()) if len(activation) else 0.0}


def _features(table: pd.DataFrame) -> int:
    """How many features a table names over all layers."""
    return len(table[["layer", "feature"]].drop_duplicates())


def types_found(tested: pd.DataFrame, random: pd.DataFrame, last: int) -> str:
    """For each setting, in words: how many types have a feature that survives, in any layer and in the last.

    last : the last layer studied
    """
    sentences = []
    for setting, rows in tested.groupby("setting", sort=False):
        kept, own = surviving(rows), surviving(random[random.setting == setting])
        total, found, at_last = (of.type.nunique() for of in (rows, kept, kept[kept.layer == last]))
        words = f"in {setting} {found} of {total} types that can be tested have a feature of their own, "
        words += f"{at_last} of them in the last layer (random weights: {own.type.nunique()})"
        few = f"in {setting} only {total} types can be tested, too few to say anything about types"
        sentences.append(words if total >= FEWEST_TYPES else few)
    return "; ".join(sentences) or "no type could be tested, since families are not known or too few"


def first_middle_last(layers: Sequence[int]) -> list[int]:
    """The layers of Figure 5: the first studied, the middle one and the last."""
    return sorted({layers[0], layers[len(layers) // 2], layers[-1]})


def score_types(rnas: Activations, shuffles: int = 20, seed: int = 0) -> pd.DataFrame:
    """`choosing.score_types` of the retained features of every setting and layer."""
    tables = []
    pairs = [(layer, of) for layer in rnas.layers for of in settings(rnas.records).items()]
    for layer, (setting, splits) in tqdm(pairs, "types", mininterval=1):
        sets = [rnas.pooled(layer, split) for split in splits]
        families = tuple(records.get("family") for _, records in sets)
        known, unseen = ((pooled_SF, records.type.to_numpy()) for pooled_SF, records in sets)
        table = choosing.score_types(known, unseen, rnas.retained(layer), families, shuffles, seed)
        tables.append(table.assign(setting=setting, layer=layer))
    return pd.concat(tables, ignore_index=True)


def best_by_type(scores: pd.DataFrame) -> pd.DataFrame:
    """Of each setting and type the row of best selection AUROC; the best held-out AUROC first."""
    best = scores.loc[scores.groupby(["setting", "type"]).selection_auroc.idxmax()]
    return best.sort_values(["setting", "auroc"], ascending=[True, False], ignore_index=True)


def type_table(best: pd.DataFrame, explained: pd.DataFrame, records: pd.DataFrame) -> pd.DataFrame:
    """tab-type-scores: `best_by_type` with what `confounds.explain_types` says of it, and the type's families
    among the `records` of the scored split (missing where they are not known)."""
    table, scored = confounds.mark(best, explained), {name: splits[1] for name, splits in SETTINGS.items()}
    family = records.get("family", pd.Series(None, records.index, dtype=object))
    families = family.groupby([records.split, records.type]).nunique().replace(0, pd.NA)
    places = pd.MultiIndex.from_arrays([table.setting.map(scored), table.type])
    return table.assign(families=families.reindex(places).astype("Int64").array)


def headed(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of `type_table` that fit into a page, under names for readers."""
    return table[[*_HEADERS]].rename(columns=_HEADERS)


def top_features(structures: Activations, types: Activations, layer: int, count=3, seed=0) -> pd.DataFrame:
    """`choosing.top_features`: the `count` best of every element and type at `layer`, with `explained`."""
    tables = []
    for setting, splits in settings(structures.records).items():
        elements = [structures.of_split(layer, split) for split in splits]
        pooled = [types.pooled(layer, split) for split in splits]
        typed = [(pooled_SF, records.type.to_numpy()) for pooled_SF, records in pooled]
        table = choosing.top_features(elements, typed, count, types.retained(layer))
        table = table.assign(setting=setting, layer=layer)
        chosen = {kind: rows.rename(columns={"label": kind}) for kind, rows in table.groupby("kind")}
        by_element = confounds.explain_elements(structures, chosen["element"], seed).explained
        by_type = confounds.explain_types(types, chosen["type"]).explained
        tables.append(table.assign(explained=np.append(by_element, by_type)))
    return pd.concat(tables, ignore_index=True)


def top_table(top: pd.DataFrame) -> pd.DataFrame:
    """tab-top-features: the first of `top_features` for every element and type, the settings side by side."""
    best = top[top["rank"] == 1].replace({"label": ELEMENTS})
    columns = {"feature": "feature", "score": "AUROC", "explained": "explained"}
    best = best.assign(score=best.base_auroc, feature=best.feature.astype("Int64").astype(str))
    parts = []
    for setting, rows in best.groupby("setting", sort=False):
        part = rows.set_index(["kind", "label"])[[*columns]].rename(columns=columns)
        parts.append(part.map(_yes_or_no).add_suffix(f", {setting}"))
    table = pd.concat(parts, axis=1).reset_index()
    return table.rename(columns={"kind": "concept", "label": "name"})


def _yes_or_no(value):
    return {True: "yes", False: "no"}[bool(value)] if isinstance(value, (bool, np.bool)) else value


def probe_types(rnas: Activations, model: LanguageModel, layers, seed: int = 0) -> pd.DataFrame:
    """`probe` of features and mean hidden states of `layers`, of k-mers, and of length and GC, by setting."""
    by_setting = settings(rnas.records).items()
    tables = [_probe_types(rnas, model, layers, of, seed).assign(setting=name) for name, of in by_setting]
    return pd.concat(tables, ignore_index=True)


def _probe_types(rnas: Activations, model: LanguageModel, layers, splits, seed: int) -> pd.DataFrame:
    """`probe_types` of one setting."""
    parts = [rnas.records[rnas.records.split == split] for split in splits]
    texts = [part.sequence.tolist() for part in parts]
    representations: dict = {_LENGTH: tuple(map(length_and_gc, texts))}
    representations["3-mer frequencies"] = tuple(kmer_frequencies(sequences, 3) for sequences in texts)
    states = [_mean_states(model, sequences, layers) for sequences in texts]
    for place, layer in enumerate(layers):
        representations[f"mean hidden state, layer {layer}"] = tuple(part[:, place] for part in states)
        pooled = tuple(rnas.pooled(layer, split)[0] for split in splits)
        representations[f"{_FEATURES}, layer {layer}"] = pooled
    families = tuple(part.get("family", pd.Series([None] * len(part))) for part in parts)
    return probe(representations, parts[0].type, parts[1].type, families, seed)


def compare_probes(probe: pd.DataFrame) -> str:
    """In words, for each setting: the SAE features' probe beside that of length and GC, and whether the 95 %
    intervals of the two overlap."""
    sentences = []
    for setting, rows in probe.groupby("setting", sort=False):
        rows = rows.set_index("representation")
        base, features = rows.loc[_LENGTH], rows[rows.index.str.startswith(_FEATURES)]
        apart = features[(features.low > base.high) | (features.high < base.low)]
        least, most = features.balanced_accuracy.min(), features.balanced_accuracy.max()
        beside = f"length and GC content {base.balanced_accuracy:.2f}"
        layers = f"{len(features)} layer" + "s" * (len(features) > 1)
        verdict = f"the intervals overlap in {len(features) - len(apart)} of {layers}"
        if len(below := apart[apart.high < base.low]):
            verdict += f" and lie below in {len(below)}"
        span = f"features reach {least:.2f} to {most:.2f}"
        sentences.append(f"{setting}: {span}, {beside}, and {verdict}")
    return "; ".join(sentences)


def _mean_states(model: LanguageModel, sequences: list[str], layers: Sequence[int]) -> np.ndarray:
    """Mean hidden state of every sequence, [S, L, D]."""
    mean_SLD = np.zeros((len(sequences), len(layers), model.width), np.float32)
    for states in model.hidden_states(sequences, layers):
        for row in np.unique(states.sequence_T):
            values_TLD = states.values_TLD[torch.from_numpy(states.sequence_T == row)]
            mean_SLD[row] = values_TLD.mean(0).cpu().numpy()
    return mean_SLD


def probe(representations: Mapping, selection_types, heldout_types, families, seed=0) -> pd.DataFrame:
    """How well a sparse linear classifier tells types of unseen families apart, a row a representation.

    representations : name -> (selection [S, F], held-out [S, F])
    families : of the selection and of the held-out sequences; an unknown one (None) counts as one of its own

    An L1-regularised logistic regression of each type against the rest, types weighted alike, on standardised
    columns (sparse ones are not centred). Its strength has the best balanced accuracy in a cross-validation
    whose folds share no family; it is fitted on the selection set and scored once on the held-out one. Types
    take part with 2 families or more in the selection set and one held out. Columns: representation, columns
    (F), balanced_accuracy with low and high (95 %, held-out families drawn anew within types), macro_f1,
    nonzero_weights (of all types), strength (inverse penalty), types, chance (1 / types), sequences, families
    (held out). Raises ValueError where rows do not fit or fewer than 2 types can take part.
    """
    type_sets = [np.asarray(list(types), dtype=object) for types in (selection_types, heldout_types)]
    family_sets = [permutation.family_names(names) for names in families]
    distinct = pd.Series(family_sets[0]).groupby(type_sets[0]).nunique()
    types = sorted(set(distinct[distinct >= 2].index) & set(type_sets[1]))
    if len(types) < 2:
        found = f"{len(types)} RNA types have 2 families to fit on and 1 held out"
        raise ValueError(f"{found}: a probe needs 2 types")
    rows = [np.isin(names, types) for names in type_sets]
    fit_S, test_S = (names[keep] for names, keep in zip(type_sets, rows))
    fit_families, test_families = (names[keep] for names, keep in zip(family_sets, rows))
    table = []
    for name, sets in representations.items():
        for values, keep, split in zip(sets, rows, ("selection", "held-out")):
            if values.shape[0] != len(keep):
                found = f"{name} has {values.shape[0]} {split} rows for {len(keep)} {split} sequences"
                raise ValueError(f"{found}: give one for each")
        known, unseen = (values[np.flatnonzero(keep)] for values, keep in zip(sets, rows))
        search = _search(known, fit_S, fit_families, seed)
        scores = _probe_scores(search, unseen, test_S, test_families, seed)
        table.append({"representation": name, "columns": known.shape[1]} | scores)
    facts = {"types": len(types), "chance": 1 / len(types), "sequences": len(test_S)}
    return pd.DataFrame(table).assign(**facts, families=len(np.unique(test_families)))


def _probe_scores(search: GridSearchCV, unseen, test_S, test_families, seed: int) -> dict:
    """The scores of `probe` for one representation."""
    guess_S = search.predict(unseen)
    table = pd.DataFrame({"type": test_S, "family": test_families, "right": guess_S == test_S})
    cells = table.groupby(["type", "family"]).right.agg(["sum", "size"])
    accuracy, drawn = resampled_means(cells, BOOTSTRAPS, np.random.default_rng(seed))
    low, high = np.percentile(drawn, [2.5, 97.5])
    weights, labels = (one.coef_ for one in search.best_estimator_[-1].estimators_), sorted(set(test_S))
    macro_f1 = f1_score(test_S, guess_S, labels=labels, average="macro", zero_division=0)
    scores = {"balanced_accuracy": accuracy, "low": low, "high": high, "macro_f1": macro_f1}
    scores["nonzero_weights"] = int(sum(map(np.count_nonzero, weights)))
    return scores | {"strength": search.best_params_["onevsrestclassifier__estimator__C"]}


def _search(known, fit_S: np.ndarray, fit_families: np.ndarray, seed: int) -> GridSearchCV:
    """The probe, fitted with the best of `STRENGTHS`."""
    weighted = {"l1_ratio": 1, "class_weight": "balanced", "max_iter": 1000}
    one = LogisticRegression(solver="liblinear", random_state=seed, **weighted)
    scaler = StandardScaler(with_mean=not sparse.issparse(known))
    folds = StratifiedGroupKFold(min(FOLDS, len(np.unique(fit_families))), shuffle=True, random_state=seed)
    strengths = {"onevsrestclassifier__estimator__C": STRENGTHS}
    pipeline = make_pipeline(scaler, OneVsRestClassifier(one))
    search = GridSearchCV(pipeline, strengths, scoring="balanced_accuracy", cv=folds)
    with warnings.catch_warnings():  # of a type whose families are all in other folds
        warnings.filterwarnings("ignore", "y_pred contains classes not in y_true")
        return search.fit(known, fit_S, groups=fit_families)
