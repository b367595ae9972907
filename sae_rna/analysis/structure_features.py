"""Features of structural elements: the best one in every layer, and what it does nucleotide by nucleotide.

Feature, layer and threshold are chosen on one half of the families of a setting (`splits.SETTINGS`) and
scored on the other. Shapes: T nucleotides, P columns that a probe may read.
"""

import numpy as np
import pandas as pd
from scipy import sparse
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tqdm import tqdm

from sae_rna.analysis.data import structure_source
from sae_rna.analysis.statistics import choosing
from sae_rna.analysis.statistics.annotations import annotate_elements
from sae_rna.analysis.statistics.scoring import Sample
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import hidden_states
from sae_rna.records.splits import SETTINGS, settings
from sae_rna.records.structure import ELEMENTS, pair_table
from sae_rna.sae.activations import Activations

BOOTSTRAPS = 500  # resamples of the families for intervals
PROBED, PROBED_RNAS = (1, 2, 4, 8, 16, 32), 250  # columns that a sparse probe reads; RNAs of a split, at most
NATURAL = {"natural RNAs": ("selection", "natural")}
"""A setting of its own: chosen on the selection families, scored on natural RNAs of other unseen families."""
_SHOWN = (
    "setting element layer feature base_auroc base_auroc_low base_auroc_high null_p95 f1 base_f1 precision "
    "base_rate"
).split()


def score_elements(rnas: Activations, of=None, shuffles=20, seed: int = 0) -> pd.DataFrame:
    """`choosing.score_elements` of all layers with `setting` and `layer`.

    of : settings as in `splits.SETTINGS`; those of the records if None

    Raises ValueError where a split has no records and where no feature is retained.
    """
    tables = []
    for setting, splits in (of or settings(rnas.records)).items():
        families = [rnas.records[rnas.records.split == split].get("family") for split in splits]
        options = families, shuffles, seed, BOOTSTRAPS
        for layer in tqdm(rnas.layers, f"elements, {setting}", mininterval=1):
            sets = [rnas.of_split(layer, split) for split in splits]
            table = choosing.score_elements(*sets, rnas.retained(layer), *options)
            tables.append(table.assign(setting=setting, layer=layer))
    return pd.concat(tables, ignore_index=True)


def best_by_element(scores: pd.DataFrame) -> pd.DataFrame:
    """Of each setting and element in `score_elements` the row of the layer that was best on the selection
    families; `concept` is the element's name."""
    best = scores.loc[scores.groupby(["setting", "element"], sort=False).selection_base_auroc.idxmax()]
    order = {name: place for place, name in enumerate([*SETTINGS, *ELEMENTS])}
    by = ["setting", "element"]
    best = best.sort_values(by, key=lambda names: names.map(order), kind="stable", ignore_index=True)
    return best.assign(concept=best.element.map(ELEMENTS))


def best(scores: pd.DataFrame, element: str, setting: str = "unseen families") -> pd.Series:
    """The row of `best_by_element` of an element by name ("stem"). ValueError for one that it lacks."""
    found = best_by_element(scores[scores.setting == setting]).set_index("concept", drop=False)
    if element not in found.index:
        there = ", ".join(found.concept)
        raise ValueError(f"'{element}' is no element of records in both splits: choose {there}")
    return found.loc[element]


def element_table(scores: pd.DataFrame) -> pd.DataFrame:
    """tab-element-features: `best_by_element` with elements by name, and `explained` where it is known."""
    best = best_by_element(scores)
    columns = [column for column in (*_SHOWN, "explained") if column in best]
    return best.assign(element=best.concept)[columns]


def tracks(best: pd.Series, rnas: Activations, longest: int = 110) -> pd.DataFrame:
    """A feature's activation on example RNAs, a row per nucleotide: the table of `figures.feature_tracks`.

    best : setting, element (letter), layer and feature, as `best` gives them, with `explained` if known

    Of the scored RNAs up to `longest` nt that have the element, of natural ones alone if there are three, the
    three shown are the best, the median and the worst by the feature's own base-stratified AUROC on them.
    `rna` names each, `place` says which it is and of how many. Activations are shares of the maximum on the
    selection split, at most 1; 0 for other letters than ACGU.
    """
    chosen, scored = SETTINGS[best.setting]
    column_T = rnas.features(int(best.layer))[:, int(best.feature)].toarray().ravel()
    scale = column_T[rnas.rows(chosen)].max()
    share_T = np.minimum(column_T / scale, 1) if scale > 0 else np.zeros(len(column_T))
    splits = [scored, "natural"] if best.setting == "unseen families" else [scored]
    fit = rnas.records[rnas.records.split.isin(splits) & (rnas.records.sequence.str.len() <= longest)]
    fit = fit[fit.element.str.contains(best.element)]
    natural = fit[fit.get("origin", "").eq("natural")] if "origin" in fit else fit.iloc[:0]
    fit = natural if len(natural) >= 3 else fit
    own = _own_scores(fit, column_T, rnas.tokens, best.element)
    ranked = fit.assign(own=own).dropna(subset="own").sort_values(["own", "id"], ascending=[False, True])
    places = {0: "best", len(ranked) // 2: "median", len(ranked) - 1: "worst"}
    tables = []
    for place, word in places.items() if len(ranked) else ():
        record = ranked.iloc[place]
        note = f"{word} of {len(ranked)}: AUROC {record.own:.2f}"
        tables.append(_track(record, share_T, rnas.tokens).assign(place=note))
    facts = {name: best[name] for name in ("feature", "layer", "explained") if name in best}
    return pd.concat(tables, ignore_index=True).assign(**facts)


def _own_scores(
    records: pd.DataFrame, column_T: np.ndarray, tokens: pd.DataFrame, element: str
) -> list[float]:
    """Base-stratified AUROC of a feature for an element on each RNA; NaN where nothing is to be ranked."""
    first_S = np.searchsorted(tokens.record, records.index)
    last_S, concept, scores = (
        np.searchsorted(tokens.record, records.index, "right"),
        [*ELEMENTS].index(element),
        [],
    )
    for first, last in zip(first_S, last_S):
        labels = annotate_elements(tokens[first:last])
        one = Sample(sparse.csr_matrix(column_T[first:last, None]), labels, np.ones(1))
        mixed = 0 < labels.rows_C[concept] < last - first
        scores.append(one.base_auroc()[0, concept] if mixed else np.nan)
    return scores


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
    family = next(
        (record[column] for column in ("family_name", "family") if pd.notna(record.get(column))), ""
    )
    facts = ", ".join(filter(None, (record.get("origin", ""), record.id)))
    return f"{family} ({facts})" if family else record.id


def sparse_probe(rnas: Activations, model: LanguageModel, layer: int, elements="SH", seed=0) -> pd.DataFrame:
    """What few latents say together: fig-sparse-probe's table.

    For every setting and element (letter), of latents, neurons and principal components the k columns that
    differ most between the element's nucleotides and others of the same base; a logistic regression reads
    them, fitted on the selection families and scored on the others (Gurnee et al. 2023, arXiv:2305.01610).
    Columns setting, element, source, k (columns read), base_auroc; k of all of them is the dense probe.
    """
    rows = []
    for setting, splits in settings(rnas.records).items():
        (known, seen), (unseen, other) = (_readings(rnas, model, layer, split, seed) for split in splits)
        pca = PCA(random_state=seed).fit(known["neurons"])
        for sets in (known, unseen):
            sets["principal components"] = pca.transform(sets["neurons"])
        for element in elements:
            is_known, is_other = ((tokens.element == element).to_numpy() for tokens in (seen, other))
            if not 0 < is_known.mean() < 1 or not 0 < is_other.mean() < 1:
                continue
            for source, values_TP in known.items():
                order = np.argsort(-_difference(values_TP, is_known, seen.base))
                for k in sorted({*PROBED, len(order)}):
                    columns = order[:k]
                    probe = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
                    probe.fit(values_TP[:, columns], is_known)
                    guess_T = probe.decision_function(unseen[source][:, columns])
                    ranked = sparse.csr_matrix((guess_T - guess_T.min())[:, None])
                    scores = Sample(ranked, annotate_elements(other), np.ones(1)).base_auroc()
                    found = {"setting": setting, "element": element, "source": source, "k": len(columns)}
                    rows.append(found | {"base_auroc": scores[0, [*ELEMENTS].index(element)]})
    return pd.DataFrame(rows).drop_duplicates(["setting", "element", "source", "k"], ignore_index=True)


def _readings(rnas: Activations, model: LanguageModel, layer: int, split: str, seed: int):
    """What can be read of some RNAs of a split, by source [T, P], and their tokens."""
    numbers = rnas.records.index[rnas.records.split == split]
    numbers = np.sort(np.random.default_rng(seed).permutation(numbers)[:PROBED_RNAS])
    rows = np.isin(rnas.tokens.record, numbers)
    states_TLD = hidden_states(model, rnas.records.sequence[numbers].tolist(), [layer])
    latents = rnas.features(layer)[rows].toarray()[:, rnas.retained(layer)]
    return {"latents": latents, "neurons": states_TLD[:, 0]}, rnas.tokens[rows]


def _difference(values_TP: np.ndarray, is_element: np.ndarray, base: pd.Series) -> np.ndarray:
    """Correlation of every column with the element among nucleotides of one base, without its sign, [P]."""
    codes = base.cat.codes.to_numpy()
    shares = np.eye(codes.max() + 1)[codes]
    centre = lambda x: x - shares @ ((shares.T @ x) / shares.sum(0)[:, None])  # noqa: E731
    values, truth = centre(values_TP.astype(np.float64)), centre(is_element[:, None].astype(float))
    spread = np.linalg.norm(values, axis=0) * np.linalg.norm(truth)
    return np.abs(truth.T @ values).ravel() / np.maximum(spread, 1e-12)


def evaluated(records: pd.DataFrame, *splits: str) -> dict:
    """Numbers of captions: RNAs and nucleotides of scored splits, and where the structures come from."""
    scored = records[records.split.isin(splits or [of for _, of in settings(records).values()])]
    tokens = int(scored.sequence.str.len().sum())
    return {"rnas": len(scored), "tokens": tokens, "structures": structure_source(records)}


def feature_numbers(best: pd.Series, tracks: pd.DataFrame) -> dict:
    """Numbers of the captions of fig-stem-feature and fig-hairpin-feature."""
    fires = tracks[tracks.activation > 0]
    base = fires.base.mode().get(0, "none")
    facts = {"base": base, "base_share": (fires.base == base).mean() if len(fires) else 0.0}
    return facts | {name: best[name] for name in _SHOWN if name != "element"}


def numbers(scores: pd.DataFrame) -> dict:
    """In either setting, of how many elements the best feature is above chance, and explained besides."""
    best = best_by_element(scores)
    above = best.base_auroc_low > best.null_p95
    explained = best.explained.eq(True) if "explained" in best else above & False
    facts = {}
    for setting in SETTINGS:
        own, prefix = best.setting == setting, setting.split()[0]
        facts |= {f"{prefix}_elements": int(own.sum()), f"{prefix}_above": int((own & above).sum())}
        facts |= {f"{prefix}_explained": int((own & above & explained).sum())}
    return facts
