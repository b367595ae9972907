"""Features of structural elements: the best one in every layer, and what it does nucleotide by nucleotide.

Feature, layer and threshold are chosen on one half of the families of a setting (`splits.SETTINGS`) and
scored on the other. Shapes: T nucleotides, P columns that a probe may read.
"""

import numpy as np
import pandas as pd
from sklearn.decomposition import PCA
from tqdm import tqdm

from sae_rna.analysis.data import in_settings, structure_source
from sae_rna.analysis.statistics import choosing, probing
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import hidden_states
from sae_rna.records.splits import SETTINGS, settings
from sae_rna.records.structure import ELEMENTS, pair_table
from sae_rna.sae.activations import Activations
from sae_rna.sae.features import dense

BOOTSTRAPS = 500  # resamples of the families for intervals
PROBED, PROBED_RNAS = (1, 2, 4, 8, 16, 32), 250  # columns that a sparse probe reads; RNAs of a split, at most
DENSE = 2048  # columns up to which a probe reads all of them
NATURAL = {"natural RNAs": ("selection", "natural")}
"""A setting of its own: chosen on the selection families, scored on natural RNAs of other unseen families."""
_HEADERS = {"setting": "setting", "concept": "element", "layer": "layer", "feature": "feature",
            "base_auroc": "AUROC within bases", "interval": "95 % interval", "null_p95": "chance",
            "explained": "explained by confounds", "f1": "F1 by element", "token_f1": "F1 by nt",
            "precision": "precision", "base_rate": "base rate"}  # fmt: skip
"""Columns of tab-element-features."""


def score_elements(rnas: Activations, of=None, shuffles=20, seed: int = 0) -> pd.DataFrame:
    """`choosing.score_elements` of all layers with `setting` and `layer`.

    of : settings as in `splits.SETTINGS`; those of the records if None, no rows if there are none

    Raises ValueError where a split has no records and where no feature is retained.
    """
    tables = []
    for setting, splits in (settings(rnas.records) if of is None else of).items():
        families = [rnas.records[rnas.records.split == split].get("family") for split in splits]
        options = families, shuffles, seed, BOOTSTRAPS
        for layer in tqdm(rnas.layers, f"elements, {setting}", mininterval=1):
            known, other = (rnas.of_split(layer, split) for split in splits)
            table = choosing.score_elements(known, other, rnas.retained(layer), *options)
            tables.append(table.assign(setting=setting, layer=layer))
    empty = pd.DataFrame(columns=[*choosing.ELEMENT_COLUMNS, "setting", "layer"])
    return pd.concat(tables, ignore_index=True) if tables else empty


def natural(records: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """`NATURAL`, if the records have natural RNAs of families that took part in nothing, else nothing."""
    return NATURAL if (records.split == "natural").any() else {}


def best_by_element(scores: pd.DataFrame) -> pd.DataFrame:
    """Of each setting and element in `score_elements` the row of the layer that was best on the selection
    families; `concept` is the element's name."""
    best = scores.loc[scores.groupby(["setting", "element"], sort=False).selection_base_auroc.idxmax()]
    order = {name: place for place, name in enumerate([*SETTINGS, *NATURAL, *ELEMENTS])}
    by = ["setting", "element"]
    best = best.sort_values(by, key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return best.assign(concept=best.element.map(ELEMENTS))


def best(scores: pd.DataFrame, element: str, setting: str = "unseen families") -> pd.Series:
    """The row of `best_by_element` of an element by name ("stem"), with `fault`: why it is no feature for the
    element, empty if it is one. ValueError for an element that there is not."""
    found = best_by_element(scores[scores.setting == setting]).set_index("concept", drop=False)
    if element not in found.index:
        there = ", ".join(found.concept)
        raise ValueError(f"'{element}' is no element of records in both splits: choose {there}")
    score = found.loc[element]
    fault = "" if score.base_auroc_low > score.null_p95 else "its 95 % interval reaches chance"
    if not fault and pd.Series([score.get("explained")]).eq(True)[0]:
        fault = "its confounds explain it"
    return pd.concat([score, pd.Series({"fault": fault})])


def element_table(*scores: pd.DataFrame) -> pd.DataFrame:
    """tab-element-features: `best_by_element` of all tables of scores, with headers for readers."""
    best = best_by_element(pd.concat([table for table in scores if len(table)], ignore_index=True))
    best["interval"] = [_interval(row) for _, row in best.iterrows()]
    return best[[column for column in _HEADERS if column in best]].rename(columns=_HEADERS)


def tracks(best: pd.Series, rnas: Activations, longest: int = 110) -> pd.DataFrame:
    """A feature's activation on example RNAs, a row per nucleotide: the table of `figures.feature_tracks`.

    best : setting, element (letter), concept, layer, feature and fault, as `best` gives them

    Of the scored RNAs up to `longest` nt (or as long as the third shortest) that have the element, of natural
    ones alone if there are three, the best, the median and the worst by the feature's own base-stratified
    AUROC are shown. `rna` names each, `place` says which it is and of how many. Activations are shares of the
    maximum on the selection split, at most 1; 0 for other letters than ACGU.

    Raises ValueError where no RNA has both nucleotides in the element and others.
    """
    chosen, scored = SETTINGS[best.setting]
    column_T = _column(best, rnas)
    scale = column_T[rnas.rows(chosen)].max()
    share_T = np.minimum(column_T / scale, 1) if scale > 0 else np.zeros(len(column_T))
    ranked = _ranked(_examples(best, rnas.records, scored, longest), column_T, rnas.tokens, best.element)
    if ranked.empty:
        raise ValueError(f"no RNA of the split '{scored}' has a {best.concept} beside other nucleotides")
    last = len(ranked) - 1
    tables: list[pd.DataFrame] = []
    for place, word in {last: "worst", (last + 1) // 2: "median", 0: "best"}.items():
        record = ranked.iloc[place]
        note = f"{word} of {len(ranked):,} RNAs (AUROC {record.own:.2f})" if last else "the only RNA"
        tables.insert(0, _track(record, share_T, rnas.tokens).assign(place=note))
    facts = {name: best[name] for name in ("setting", "concept", "feature", "layer", "fault")}
    return pd.concat(tables, ignore_index=True).assign(**facts)


def _column(best: pd.Series, rnas: Activations) -> np.ndarray:
    """A feature's activation, [T]."""
    return rnas.features(int(best.layer))[:, [int(best.feature)]].toarray().ravel()


def _examples(best: pd.Series, records: pd.DataFrame, scored: str, longest: int) -> pd.DataFrame:
    """RNAs that `tracks` may show."""
    splits = [scored, "natural"] if best.setting == "unseen families" else [scored]
    fit = records[records.split.isin(splits) & records.element.str.contains(best.element)]
    lengths = fit.sequence.str.len()
    fit = fit[lengths <= max(longest, lengths.nsmallest(3).max())]
    natural = fit[fit.origin == "natural"] if "origin" in fit else fit.head(0)
    return natural if len(natural) >= 3 else fit


def _ranked(records: pd.DataFrame, column_T: np.ndarray, tokens: pd.DataFrame, element: str) -> pd.DataFrame:
    """RNAs with a feature's base-stratified AUROC on each, `own`, the best first; those where nothing is to
    be ranked are left out."""
    own_T, base_T = (tokens.element == element).to_numpy(), tokens.base.cat.codes.to_numpy()
    first_S = np.searchsorted(tokens.record, records.index)
    last_S = np.searchsorted(tokens.record, records.index, "right")
    rows_S = pd.Series(map(slice, first_S, last_S), records.index)
    rows_S = rows_S[[0 < own_T[rows].mean() < 1 for rows in rows_S]]
    own_S = [probing.base_auroc(column_T[rows], own_T[rows], base_T[rows]) for rows in rows_S]
    ranked = records.loc[rows_S.index].assign(own=own_S)
    return ranked.sort_values(["own", "id"], ascending=[False, True])


def _track(record: pd.Series, share_T: np.ndarray, tokens: pd.DataFrame) -> pd.DataFrame:
    """The rows of one record, whose name is its row number."""
    own_T, activation = (tokens.record == record.name).to_numpy(), np.zeros(len(record.sequence))
    activation[tokens.position[own_T]] = share_T[own_T]
    columns = {"record": record.id, "rna": rna_name(record), "position": np.arange(len(record.sequence)) + 1}
    columns |= {"base": list(record.sequence), "bracket": list(record.secondary_structure)}
    columns |= {"element": list(record.element), "activation": activation}
    return pd.DataFrame(columns | {"partner": pair_table(record.secondary_structure) + 1})


def rna_name(record: pd.Series) -> str:
    """What a biologist calls an RNA: its family's name, whether it is natural, and its id."""
    names = [record.get(column) for column in ("family_name", "family")]
    family = next(filter(pd.notna, names), "")
    facts = ", ".join(filter(pd.notna, (record.get("origin"), record.id)))
    return f"{family} ({facts})" if family else record.id


def sparse_probe(rnas: Activations, model: LanguageModel, layer: int, elements="SH", seed=0) -> pd.DataFrame:
    """What few latents say together: fig-sparse-probe's table.

    For every setting and element (letter), of latents, neurons and principal components the k columns that
    go most closely with the element among nucleotides of the same base (`probing.association`); a logistic
    regression reads them, fitted on the selection families and scored on the others (Gurnee et al. 2023,
    arXiv:2305.01610). Columns setting, element, source, k (columns read), columns (there are), base_auroc.
    The last k is that of all, the dense probe, unless there are more than `DENSE`.
    """
    rows = []
    for setting, splits in settings(rnas.records).items():
        (known, seen), (other, unseen) = (_readings(rnas, model, layer, split, seed) for split in splits)
        pca = PCA(random_state=seed).fit(known["neurons"])
        for sources in (known, other):
            sources["principal components"] = pca.transform(sources["neurons"])
        for element in elements:
            is_known, is_other = ((tokens.element == element).to_numpy() for tokens in (seen, unseen))
            if not 0 < is_known.mean() < 1 or not 0 < is_other.mean() < 1:
                continue
            for source, values_TP in known.items():
                order = np.argsort(-probing.association(values_TP, is_known, seen.base), kind="stable")
                facts = {"setting": setting, "element": element, "source": source, "columns": len(order)}
                for k in sorted({min(k, len(order)) for k in (*PROBED, len(order)) if k <= DENSE}):
                    few = (dense(values[:, order[:k]]) for values in (values_TP, other[source]))
                    guess_T = probing.probe(next(few), is_known, next(few))
                    score = probing.base_auroc(guess_T, is_other, unseen.base)
                    rows.append(facts | {"k": k, "base_auroc": score})
    return pd.DataFrame(rows, columns=["setting", "element", "source", "k", "columns", "base_auroc"])


def _readings(rnas: Activations, model: LanguageModel, layer: int, split: str, seed: int):
    """What can be read of some RNAs of a split, by source [T, P], and their tokens."""
    numbers = rnas.records.index[rnas.records.split == split]
    numbers = np.sort(np.random.default_rng(seed).permutation(numbers)[:PROBED_RNAS])
    rows = np.isin(rnas.tokens.record, numbers)
    states_TLD = hidden_states(model, rnas.records.sequence[numbers].tolist(), [layer])
    latents = rnas.features(layer)[rows][:, np.flatnonzero(rnas.retained(layer))]
    return {"latents": latents, "neurons": states_TLD[:, 0]}, rnas.tokens[rows]


def evaluated(records: pd.DataFrame, *splits: str) -> dict:
    """Numbers of captions: RNAs and nucleotides of scored splits, and where the structures come from."""
    scored = records[records.split.isin(splits or [of for _, of in settings(records).values()])]
    tokens = int(scored.sequence.str.len().sum())
    return {"rnas": len(scored), "tokens": tokens, "structures": structure_source(records)}


def feature_numbers(best: pd.Series, rnas: Activations) -> dict:
    """Numbers of the captions of fig-stem-feature and fig-hairpin-feature.

    `base` is the most common one among all scored nucleotides on which the feature is active at all, and
    `base_share` its share of them.
    """
    scored_T = rnas.rows(SETTINGS[best.setting][1])
    bases = rnas.tokens.base[scored_T & (_column(best, rnas) > 0)].value_counts(normalize=True)
    silent = not scored_T.any() or not np.nan_to_num(bases.max()) > 0
    base, base_share = ("none", 0.0) if silent else (bases.index[0], bases.max())
    facts = {"base": base, "base_share": base_share, "interval": _interval(best)}
    shown = "setting concept layer feature threshold base_auroc null_p95 f1 base_f1 token_f1 precision"
    return facts | {name: best[name] for name in [*shown.split(), "base_rate"]}


def _interval(score: pd.Series) -> str:
    low, high = score.base_auroc_low, score.base_auroc_high
    return "unknown" if np.isnan([low, high]).any() else f"{low:.3f} to {high:.3f}"


def numbers(scores: pd.DataFrame) -> dict:
    """In words for each setting: of how many elements the best feature is `above` chance, how many of these
    confounds explain, and how well the best feature for a `stem` and a `hairpin` loop does. `passing` of the
    `tried` features for these two are above chance and not explained."""
    best = best_by_element(scores)
    best["above"] = best.base_auroc_low > best.null_p95
    best["explained"] = best.above & best.explained.eq(True) if "explained" in best else best.above & False
    groups = best.groupby("setting", sort=False)
    above = {setting: f"{rows.above.sum()} of {len(rows)}" for setting, rows in groups}
    facts = {"above": in_settings(above), "explained": in_settings(groups.explained.sum().to_dict())}
    for name, letter in {"stem": "S", "hairpin": "H"}.items():
        rows = best[best.element == letter]
        facts[name] = in_settings({row.setting: f"{row.base_auroc:.3f}" for row in rows.itertuples()})
    paper = best[best.element.isin(["S", "H"])]
    return facts | {"tried": len(paper), "passing": int((paper.above & ~paper.explained).sum())}


def probe_numbers(probes: pd.DataFrame, element: str = "S") -> dict:
    """In words, from `sparse_probe`: what one latent reads of an element, what `few` columns do of each
    source, and what all neurons do (`dense`)."""
    probes = probes[probes.element == element]
    few = 16

    def read(source: str, most: int) -> str:
        rows = probes[(probes.source == source) & (probes.k <= most)].sort_values("k")
        last = rows.groupby("setting", sort=False).base_auroc.last()
        return in_settings({setting: f"{last[setting]:.3f}" for setting in dict.fromkeys(probes.setting)})

    facts = {"few": few, "one": read("latents", 1), "latents": read("latents", few)}
    facts |= {"neurons": read("neurons", few), "components": read("principal components", few)}
    return facts | {"dense": read("neurons", DENSE)}
