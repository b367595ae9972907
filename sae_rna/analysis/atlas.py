"""Every feature on a page of its own: what other pages found, and RNAs over its whole range of activation.

A page's address is made of the dictionary's weights and the feature's number, so that links to it survive
whatever else changes. Shapes: T nucleotides, F features, S RNAs, C concepts, P peaks, W positions around one.
"""

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from sae_rna.analysis import controls, ground_truth, recurrence, type_features
from sae_rna.analysis.causes import tested_layers
from sae_rna.analysis.statistics import scoring
from sae_rna.analysis.statistics.falsification import TESTS
from sae_rna.analysis.statistics.firing import Example, Firing, Known, correlations
from sae_rna.analysis.use import ABLATED, PLACES
from sae_rna.records.composition import NUCLEOTIDES, kmers
from sae_rna.records.structure import ELEMENTS
from sae_rna.sae.activations import Activations, Autoencoders
from sae_rna.sae.autoencoder import SparseAutoencoders
from sae_rna.sae.features import dense, to_csc

NEAREST, CONCEPTS = 3, 5  # features most alike, and concepts, on a page
KMER = 5  # letters around a nucleotide from which its activation is predicted
UNSEEN = "unseen families"
UNTESTED, NOTHING = "not put to the test", "no concept"
RULES = {
    ground_truth.KEEPS: "put to the test as the best feature of a concept, it keeps the name in every "
    "setting, and its confounds do not explain it",
    ground_truth.LOSES: "put to the test, it loses the name in a setting, or its confounds explain it",
    ground_truth.UNKNOWN: "put to the test, but too few tests apply",
    UNTESTED: "its AUROC within bases is above the concept's chance, another feature is the concept's best",
    NOTHING: "not above the chance of the concept that suits it best on the selection families",
}
"""Verdicts, in order."""
_TEXTS = ["group", "concept", "control"]
_SCORED = ["group", "concept", "selection_auroc", "auroc", "chance", "control", "control_auroc",
           "precision", "recall", "base_rate"]  # fmt: skip


class Found(NamedTuple):
    """What other pages keep of features."""

    names: pd.DataFrame  # `ground_truth.verdicts`
    explained: pd.DataFrame  # `confounds.explain_elements`
    pairing: pd.DataFrame  # `causes.pairing_test`
    effects: pd.DataFrame  # `use.effects`
    compared: pd.DataFrame  # `recurrence.compare_dictionaries`
    types: pd.DataFrame  # `type_features.prefer_types`


def dictionary(sae: SparseAutoencoders) -> str:
    """What one autoencoder is called in addresses: a hash of its weights and of its language model's."""
    digest = hashlib.sha256(sae.config.fingerprint.encode())
    for weights in (sae.encoder_weight, sae.encoder_bias, sae.decoder_weight, sae.decoder_bias):
        digest.update(weights.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def addresses(
    autoencoders: Autoencoders | Mapping[int, SparseAutoencoders], table: pd.DataFrame
) -> pd.Series:
    """The page of every row's feature (columns layer and feature), from the folders of figures and notebooks.

    It is there for retained features; empty for layers that are not shown (`causes.tested_layers`).
    """
    shown = [layer for layer in tested_layers([*autoencoders]) if layer in set(table.layer)]
    names = {layer: dictionary(autoencoders[layer]) for layer in shown}
    pages = [f"../atlas/{names[n]}-L{n}-{of}.html" if n in names else ""
             for n, of in zip(table.layer, table.feature)]  # fmt: skip
    return pd.Series(pages, table.index, dtype=object)


def linked(
    autoencoders: Autoencoders | Mapping[int, SparseAutoencoders], table: pd.DataFrame
) -> pd.DataFrame:
    """`table` (columns layer and feature) with every feature's number as a link to its page."""
    pairs = zip(table.feature, addresses(autoencoders, table))
    return table.assign(feature=[f"[{of}]({page})" if page else of for of, page in pairs])


def score_concepts(rnas: Activations, concepts: pd.DataFrame) -> pd.DataFrame:
    """Every retained feature's AUROC within bases for every concept, on families of either half: the table of
    features and concepts.

    concepts : `controls.score_concepts`, which has the chance of every concept of a layer (95th percentile
        of the choice on shifted annotations) and its best control

    Columns layer, feature, group, concept, selection_auroc, auroc (held-out families), chance, control,
    control_auroc; precision (share of the held-out nucleotides on which it fires that have the concept),
    recall (share of these on which it fires), base_rate (share of all that have it).
    """
    sets, tables, keys = controls.AnnotatedSets(rnas), [], ["group", "concept"]
    unseen = concepts[concepts.setting == UNSEEN]
    own, best = unseen[unseen.source == rnas.name], controls.best_of(unseen[unseen.source != rnas.name])
    rivals = best.loc[best.groupby(keys).base_auroc.idxmax()].set_index(keys)
    labels = sets.annotations["heldout"]
    names = pd.MultiIndex.from_arrays([labels.groups, labels.concepts], names=keys)
    for layer in tested_layers(rnas.layers):
        features_TF, kept_F = rnas.features(layer), np.flatnonzero(rnas.retained(layer))
        if not len(kept_F):  # of a model with random weights
            continue
        chance = own[own.layer == layer].set_index(keys).null_p95.reindex(names)
        index = pd.MultiIndex.from_product([kept_F, range(len(names))])
        table = names.to_frame(index=False).iloc[index.get_level_values(1)].reset_index(drop=True)
        for split, column in (("selection", "selection_auroc"), ("heldout", "auroc")):
            values_TF = features_TF[sets.rows[split]][:, kept_F]
            sample = scoring.Sample(values_TF, sets.annotations[split], np.ones(len(kept_F)))
            table[column] = sample.base_auroc().ravel()
        agreement = sample.scores()
        table["precision"] = agreement.precision[:, :, 0].ravel()  # it fires above the first threshold, 0
        table["recall"] = agreement.token_recall[:, :, 0].ravel()
        table["base_rate"] = np.tile(agreement.base_rate_C, len(kept_F))
        table["chance"] = np.tile(chance.to_numpy(float), len(kept_F))
        tables.append(table.assign(layer=layer, feature=index.get_level_values(0)))
    table = pd.concat(tables, ignore_index=True)
    rivals = rivals.reindex(pd.MultiIndex.from_frame(table[keys]))
    table = table.assign(control=rivals.source.to_numpy(), control_auroc=rivals.base_auroc.to_numpy())
    return table[["layer", "feature", *_SCORED]]


def letters(rnas: Activations) -> pd.DataFrame:
    """What the letters alone tell of every retained feature: columns layer, feature, base (on which it fires
    most), base_share (of its firing), kmer_r2.

    kmer_r2 is the share of the activation's variance on held-out families that its mean by `KMER`-mer, on
    the selection families, predicts; below 0 where it predicts worse than the mean.
    """
    tables, base_T = [], rnas.tokens.base.astype(str).to_numpy()
    grams_TK = kmers(rnas.records.sequence.tolist(), KMER)
    for layer in tested_layers(rnas.layers):
        kept_F = np.flatnonzero(rnas.retained(layer))
        values_TF = rnas.features(layer)[:, kept_F]
        fires_4F = np.stack(
            [np.asarray((values_TF[base_T == base] > 0).sum(0)).ravel() for base in NUCLEOTIDES]
        )
        share_4F = fires_4F / np.maximum(fires_4F.sum(0), 1)
        bases = np.array(list(NUCLEOTIDES))[share_4F.argmax(0)]
        r2_F = _grouped_r2(grams_TK, values_TF, rnas.rows("selection"), rnas.rows("heldout"))
        columns = {"layer": layer, "feature": kept_F, "base": bases, "base_share": share_4F.max(0)}
        tables.append(pd.DataFrame(columns | {"kmer_r2": r2_F}))
    return pd.concat(tables, ignore_index=True)


def _grouped_r2(group_TK, values_TF, known_T: np.ndarray, other_T: np.ndarray) -> np.ndarray:
    """R² on some rows of the means by group on others, [F]; the mean of all known rows stands for a group
    that has none of them, and for rows of no group."""
    known_TF, other_TF = values_TF[known_T], values_TF[other_T]
    mean_F, count_K = np.asarray(known_TF.mean(0)), np.asarray(group_TK[known_T].sum(0)).reshape(-1, 1)
    sums_KF = dense(group_TK[known_T].T @ known_TF)
    mean_KF = np.where(count_K > 0, sums_KF / np.maximum(count_K, 1), mean_F)
    tokens, size_K = other_TF.shape[0], np.asarray(group_TK[other_T].sum(0)).reshape(-1, 1)
    total_F, square_F = (np.asarray(x.sum(0)).ravel() for x in (other_TF, other_TF.power(2)))
    sums_KF = dense(group_TK[other_T].T @ other_TF)
    rest_F, rest = total_F - sums_KF.sum(0), tokens - size_K.sum()
    error_F = square_F - 2 * (mean_KF * sums_KF).sum(0) + (size_K * mean_KF**2).sum(0)
    error_F += (-2 * mean_F * rest_F + rest * mean_F**2).ravel()
    spread_F = square_F - total_F**2 / tokens
    return np.where(spread_F > 0, 1 - error_F / np.maximum(spread_F, 1e-12), 0.0)


def features(
    rnas: Activations, autoencoders: Autoencoders, scores: pd.DataFrame, letters: pd.DataFrame, found: Found
) -> pd.DataFrame:
    """One row for every retained feature of the shown layers (`causes.tested_layers`), from all tables.

    Columns layer, feature, page, verdict (`RULES`), named (it keeps its name), concept and what
    `score_concepts` has of it (empty and missing where the verdict is that there is none), density,
    sequences, maximum, tau (of `Activations.summary`), base, base_share, kmer_r2 (`letters`), gamma, low,
    high, q, pairing, recurs (in another seed) with twin, cosine and correlation there, types that it prefers
    beyond length and GC content; and, missing where not tested, explained (by confounds), effect, needed.
    """
    keys = ["layer", "feature"]
    table = letters[keys].merge(_names(scores, found, rnas.name), on=keys, how="left", validate="one_to_one")
    facts = rnas.summary[[*keys, "density", "sequences", "maximum", "tau"]]
    away = found.effects[(found.effects.intervention == ABLATED) & (found.effects.place == PLACES[0])]
    away = away[[*keys, "effect", "beyond"]].rename(columns={"beyond": "needed"})
    others = found.compared[(found.compared.comparison == recurrence.SEED) & ~found.compared.dead]
    twins = others.groupby(keys)[["match", "cosine", "correlation"]].first().reset_index()
    twins = twins.rename(columns={"match": "twin"}).merge(recurrence.recurring(found.compared), on=keys)
    kept = type_features.surviving(found.types)
    types = kept.groupby(keys).type.agg(lambda of: ", ".join(sorted(set(of)))).rename("types").reset_index()
    gammas = found.pairing[[*keys, "gamma", "low", "high", "q", "pairing"]]
    for part in (facts, letters, gammas, away, twins, types.astype(dict.fromkeys(keys, int))):
        table = table.merge(part, on=keys, how="left", validate="one_to_one")
    pages = addresses(autoencoders, table).str.rpartition("/")[2]
    return table.assign(page=pages, types=table.types.fillna("")).astype({"twin": "Int64"})


def _names(scores: pd.DataFrame, found: Found, source: str) -> pd.DataFrame:
    """Each feature's concept with its scores, whether confounds explain it, and the verdict by `RULES`."""
    keys = ["layer", "feature"]
    best = closest(scores)
    tested = found.names[found.names.source == source].astype(dict.fromkeys(keys, int))
    explained = found.explained.assign(concept=found.explained.element.map(ELEMENTS))
    explained = explained[[*keys, "concept", "setting", "explained"]].astype(dict.fromkeys(keys, int))
    tested = tested.merge(explained, on=[*keys, "concept", "setting"], how="left")
    lost = (tested.verdict == ground_truth.KEEPS) & tested.explained.eq(True)
    tested["verdict"] = tested.verdict.mask(lost, ground_truth.LOSES)
    # Of a concept the setting that speaks against the feature decides; of several, the one it keeps.
    worst = {verdict: place for place, verdict in enumerate((ground_truth.LOSES, *RULES))}
    tested = tested.assign(order=tested.verdict.map(worst | {ground_truth.LOSES: 0}))
    tested = tested.sort_values([*keys, "order"]).drop_duplicates([*keys, "group", "concept"])
    best_first = {verdict: place for place, verdict in enumerate(RULES)}
    tested = tested.assign(order=tested.verdict.map(best_first), unseen=tested.setting != UNSEEN)
    tested = tested.sort_values([*keys, "order", "unseen"]).drop_duplicates(keys)
    named = tested[[*keys, "group", "concept", "verdict", "explained"]]
    named = named.merge(scores, on=[*keys, "group", "concept"], how="inner")
    rest = best[~pd.MultiIndex.from_frame(best[keys]).isin(pd.MultiIndex.from_frame(named[keys]))]
    above = rest.auroc > rest.chance
    rest = rest.assign(verdict=np.where(above, UNTESTED, NOTHING), explained=None)
    rest.loc[rest.verdict == NOTHING, [name for name in _SCORED if name not in _TEXTS]] = np.nan
    rest.loc[rest.verdict == NOTHING, _TEXTS] = ""
    table = pd.concat([named.astype({"explained": object}), rest])
    table = table.assign(named=table.verdict == ground_truth.KEEPS)
    return table[[*keys, "verdict", "named", "explained", *_SCORED]]


def closest(scores: pd.DataFrame) -> pd.DataFrame:
    """Of every feature the concept that suits it best on the selection families, of those with a chance."""
    scores = scores[scores.chance.notna()]
    return scores.loc[scores.groupby(["layer", "feature"]).selection_auroc.idxmax()]


class Detail(NamedTuple):
    """What a feature's page shows beyond its row in the table of `features`."""

    row: Any
    counts: np.ndarray  # histogram of the activation on nucleotides where it fires, [BINS]
    maximum: float  # right end of the histogram, which begins at 0
    where: pd.DataFrame  # columns kind, name, firing, all: shares of its firing and of all nucleotides
    examples: list[Example]  # over the whole range of activation, the strongest first
    logo: np.ndarray  # shares of A, C, G and U around the peaks, [W, 4]; NaN where no RNA reaches
    peaks: int
    families: int
    scores: pd.DataFrame  # `score_concepts`, those that suit it best on the selection families
    near: pd.DataFrame  # columns feature, cosine, correlation
    silent: list[Example]  # the concept without the feature
    outside: list[Example]  # the feature without the concept
    numbers: dict  # having (held-out RNAs with the concept), missed, firing, astray
    tested: pd.DataFrame  # its rows of `ground_truth.verdicts`: setting, concept, tests, verdict
    used: pd.DataFrame  # its rows of `use.effects`


def details(
    rnas: Activations, autoencoders: Mapping, table: pd.DataFrame, scores: pd.DataFrame, found: Found
) -> Iterator[Detail]:
    """A `Detail` of every row of `features`, layer by layer."""
    known, keys = Known(rnas), ["layer", "feature"]
    names = found.names.loc[found.names.source == rnas.name, [*keys, "setting", "concept", *TESTS, "verdict"]]
    suited = scores.sort_values("selection_auroc", ascending=False).groupby(keys).head(CONCEPTS)
    tables = suited, names, found.effects
    by_feature = [(of.head(0), dict(iter(of.groupby(keys)))) for of in tables]
    for layer, rows in table.groupby("layer"):
        columns_TF = to_csc(rnas.features(layer))
        columns_TF.sort_indices()
        near = _nearest(autoencoders[layer], columns_TF[rnas.rows("heldout")], rows.feature.to_numpy())
        for row in rows.itertuples():
            part = slice(*columns_TF.indptr[row.feature : row.feature + 2])
            of = Firing(known, columns_TF.indices[part], columns_TF.data[part])
            own, tested, used = (groups.get((layer, row.feature), none) for none, groups in by_feature)
            has_T = known.has(row.group, row.concept)
            counts, maximum = of.histogram()
            logo, peaks, families = of.logo()
            silent, outside, facts = of.counterexamples(has_T)
            yield Detail(
                row, counts, maximum, of.where(), of.examples(has_T), logo, peaks, families,
                own, near[row.feature], silent, outside, facts, tested, used,
            )  # fmt: skip


def _nearest(sae: SparseAutoencoders, columns_TF, kept_F: np.ndarray) -> dict[int, pd.DataFrame]:
    """Of every retained feature the `NEAREST` by decoder row and those by activation."""
    decoder_FD = sae.decoder_weight[0].detach().float().cpu().numpy()[kept_F]
    unit_FD = decoder_FD / np.maximum(np.linalg.norm(decoder_FD, axis=1, keepdims=True), 1e-12)
    cosine_FF, together_FF = unit_FD @ unit_FD.T, correlations(columns_TF[:, kept_F], columns_TF[:, kept_F])
    found = {}
    for place, feature in enumerate(kept_F):
        order = [np.argsort(-like_FF[place], kind="stable") for like_FF in (cosine_FF, together_FF)]
        chosen = [n for of in order for n in of[of != place][:NEAREST]]
        chosen = list(dict.fromkeys(chosen))
        columns = {"feature": kept_F[chosen], "cosine": cosine_FF[place, chosen]}
        found[int(feature)] = pd.DataFrame(columns | {"correlation": together_FF[place, chosen]})
    return found


def rules_in_words() -> str:
    """`RULES` in one line, for the head of the index."""
    return "Verdicts. " + " ".join(f"{verdict.capitalize()}: {rule}." for verdict, rule in RULES.items())


def by_verdict(table: pd.DataFrame, random_scores: pd.DataFrame) -> pd.DataFrame:
    """tab-verdicts: how many features of every layer have which verdict, and how many are above chance for
    the concept that suits them best, beside those of a language model with random weights."""
    counts = pd.crosstab(table.layer, table.verdict).reindex(columns=[*RULES], fill_value=0)
    counts.insert(0, "features", table.groupby("layer").size())
    for name, of in (("", table), ("random: ", closest(random_scores))):
        above = (of.auroc > of.chance).groupby(of.layer)
        counted = {f"{name}features": above.size(), f"{name}above chance": above.sum()}
        counts = counts.assign(**{column: count.reindex(counts.index) for column, count in counted.items()})
    return counts.reset_index()


def numbers(table: pd.DataFrame, random_scores: pd.DataFrame) -> dict:
    """Numbers of the caption and the conclusion."""
    best, facts = closest(random_scores), {"features": len(table), "layers": table.layer.nunique()}
    names = {"kept": ground_truth.KEEPS, "lost": ground_truth.LOSES, "open": ground_truth.UNKNOWN}
    names |= {"untested": UNTESTED, "nothing": NOTHING}
    facts |= {name: int((table.verdict == verdict).sum()) for name, verdict in names.items()}
    shares = {name: float((of.auroc > of.chance).mean()) for name, of in (("above", table), ("random", best))}
    facts |= {
        "luck": round(0.05 * len(table)),
        "random_features": len(best),
        "letters": int((table.kmer_r2 > 0.5).sum()),
    }
    return facts | shares | {name: int(table[name].eq(True).sum()) for name in ("pairing", "recurs")}
