"""Features of structural elements: the best one in every layer, and what it does nucleotide by nucleotide.

Feature, layer and threshold are chosen on the selection families and scored on the held-out ones.
"""

import numpy as np
import pandas as pd
from tqdm import tqdm

from sae_rna.analysis.data import structure_source
from sae_rna.analysis.statistics import choosing
from sae_rna.records.structure import ELEMENTS, pair_table
from sae_rna.sae.activations import Activations

SPLITS = ("selection", "heldout")  # features are chosen on the one and scored on the other
_SHOWN = ["element", "layer", "feature", "f1", "base_f1", "null_p95", "precision", "base_rate", "auroc"]


def score_elements(rnas: Activations, scored_on="heldout", shuffles=20, seed: int = 0) -> pd.DataFrame:
    """`choosing.score_elements` of all layers, chosen on the selection split and scored on another.

    Raises ValueError where a split has no records and where no feature is retained.
    """
    tables = []
    for layer in tqdm(rnas.layers, f"elements, {scored_on}", mininterval=1):
        selection, scored = rnas.of_split(layer, "selection"), rnas.of_split(layer, scored_on)
        table = choosing.score_elements(selection, scored, rnas.retained(layer), shuffles=shuffles, seed=seed)
        tables.append(table.assign(layer=layer))
    return pd.concat(tables, ignore_index=True)


def best_by_element(scores: pd.DataFrame) -> pd.DataFrame:
    """Of each element in `score_elements` the row best on the selection families; `concept` is its name."""
    best = scores.loc[scores.groupby("element").selection_f1.idxmax()]
    best = best.sort_values("element", key=lambda letters: letters.map([*ELEMENTS].index), ignore_index=True)
    return best.assign(concept=best.element.map(ELEMENTS))


def best(scores: pd.DataFrame, element: str) -> pd.Series:
    """The row of `best_by_element` of an element by name ("stem"). ValueError for one that it lacks."""
    found = best_by_element(scores).set_index("concept", drop=False)
    if element not in found.index:
        there = ", ".join(found.concept)
        raise ValueError(f"'{element}' is no element of records in both splits: choose {there}")
    return found.loc[element]


def element_table(scores: pd.DataFrame) -> pd.DataFrame:
    """tab-element-features: `best_by_element` with elements by name, and `explained` where it is known."""
    best = best_by_element(scores)
    columns = [column for column in (*_SHOWN, "explained") if column in best]
    return best.assign(element=best.concept)[columns]


def tracks(best: pd.Series, rnas: Activations, count: int = 2, longest: int = 110) -> pd.DataFrame:
    """A feature's activation on example RNAs, a row per nucleotide: the table of `figures.feature_tracks`.

    best : element (letter), layer and feature, as `best` gives them, with `explained` where it is known
    count : of held-out RNAs up to `longest` nt that have the element, one per family, those in which the
        feature's strongest nucleotide is strongest; they are not chosen by agreement

    Activations are shares of the maximum on the selection split, at most 1; 0 for other letters than ACGU.
    """
    column_T = rnas.features(int(best.layer))[:, int(best.feature)].toarray().ravel()
    scale = column_T[rnas.rows("selection")].max()
    share_T = np.minimum(column_T / scale, 1) if scale > 0 else np.zeros(len(column_T))
    strength = pd.Series(column_T).groupby(rnas.tokens.record.to_numpy()).max()
    fit = rnas.records.assign(strength=strength)
    fit = fit[(fit.split == "heldout") & (fit.sequence.str.len() <= longest)]
    fit = fit[fit.element.str.contains(best.element)].sort_values(["strength", "id"], ascending=[False, True])
    fit = fit.drop_duplicates("family") if "family" in fit else fit
    tables = [_track(record, share_T, rnas.tokens) for _, record in fit.head(count).iterrows()]
    facts = {name: best[name] for name in ("feature", "layer", "explained") if name in best}
    return pd.concat(tables, ignore_index=True).assign(**facts)


def _track(record: pd.Series, share_T: np.ndarray, tokens: pd.DataFrame) -> pd.DataFrame:
    """The rows of one record, whose name is its row number."""
    own_T, activation = (tokens.record == record.name).to_numpy(), np.zeros(len(record.sequence))
    activation[tokens.position[own_T]] = share_T[own_T]
    columns = {"record": record.id, "position": np.arange(len(record.sequence)) + 1}
    columns |= {"base": list(record.sequence), "bracket": list(record.secondary_structure)}
    columns |= {"element": list(record.element), "activation": activation}
    return pd.DataFrame(columns | {"partner": pair_table(record.secondary_structure) + 1})


def second_split(records: pd.DataFrame) -> str:
    """The split that scores are repeated on: the natural RNAs, or selection where the data have none."""
    return "natural" if (records.split == "natural").any() else "selection"


def evaluated(records: pd.DataFrame, split: str = "heldout") -> dict:
    """Numbers of captions: RNAs and nucleotides of one split, and where the structures come from."""
    scored = records[records.split == split]
    tokens = int(scored.sequence.str.len().sum())
    return {"rnas": len(scored), "tokens": tokens, "structures": structure_source(records), "split": split}


def feature_numbers(best: pd.Series, tracks: pd.DataFrame) -> dict:
    """Numbers of the captions of fig-stem-feature and fig-hairpin-feature."""
    names = " and ".join(tracks.record.unique())
    return {"names": names} | {name: best[name] for name in _SHOWN if name != "element"}


def numbers(scores: pd.DataFrame) -> dict:
    """Of how many elements the best feature is above both controls, and is explained besides."""
    best = best_by_element(scores)
    above = best.f1 > best[["base_f1", "null_p95"]].max(axis=1)
    explained = best.explained.eq(True) if "explained" in best else False
    return {"elements": len(best), "beat": int(above.sum()), "explained": int((above & explained).sum())}
