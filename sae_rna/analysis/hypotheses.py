"""Leads: features that stand for nothing known and may stand for something, and families that share features.

A lead has passed every filter of `funnel`. It is a reason to look, not a finding. Relations are pairs of
families that share more features than their k-mers, length and GC content predict.
Shapes: T nucleotides, J features (of several layers), G families, Z confounders, R permutations.
"""

from functools import partial

import numpy as np
import pandas as pd
from scipy import sparse
from scipy.sparse.csgraph import connected_components
from scipy.stats import rankdata

from sae_rna.analysis import confounds, ground_truth
from sae_rna.analysis.recurrence import RECURS
from sae_rna.analysis.statistics.falsification import FALLS, FEWEST, survival
from sae_rna.analysis.statistics.firing import correlations
from sae_rna.analysis.statistics.nulls import q_values
from sae_rna.analysis.statistics.permutation import FALSE_DISCOVERIES, family_names
from sae_rna.records.composition import kmer_frequencies, length_and_gc, shuffle_dinucleotides
from sae_rna.records.structure import ELEMENTS
from sae_rna.sae.activations import Activations
from sae_rna.sae.features import dense

SELECTIVE = 0.05  # share of nucleotides on which a selective feature fires, at most
KNOWN = 0.6  # base-stratified AUROC for a concept from which on a feature is taken for known
PRECISE, TIMES_BASE = 0.5, 2.0
"""Precision for a concept, and how many times its base rate, from which on a feature is known, too. A rare
feature finds few of a concept's nucleotides, so that its AUROC stays near 0.5 whatever it fires on. Half of
its firing makes the concept the best guess; twice the base rate, since half of all nucleotides are stems."""
SHUFFLED_RNAS = 150  # of each of the two splits, on which features are disproved
COMPARED = 3  # steps that features have passed by which families are compared
MEMBERS, FEWEST_FAMILIES = 3, 20  # RNAs of a family, and families, for relations
PERMUTATIONS, CLIPPED, COMMON = 60, 3.0, 20
"""Of the null of relations; largest standardised value; directions that most families share."""
SHARED, LIFT = 0.4, 1.5  # share of a feature's firing that a reading needs, and times its background
REACH, SHOWN, DRAWN = 5, 6, 30  # nucleotides on both sides in a logo; leads, and relations, that are drawn
STEPS = {
    "retained": "fires in enough RNAs (the paper's filter)",
    "recurs": "comes again from more than half of the other seeds",
    "selective": f"fires on at most {SELECTIVE:.0%} of the nucleotides",
    "nothing known": f"AUROC within bases below {KNOWN}, and precision below {PRECISE:.0%} or {TIMES_BASE:g} "
    "times the base rate, for every concept; no RNA type of its own",
    "not of random weights": f"no feature of the model with random weights correlates by {RECURS} or more",
    "weaker if shuffled": f"less than {ground_truth.BOUND:.0%} survives in shuffled RNAs "
    f"({FEWEST} or more tell)",
    "not its surroundings": f"less than {ground_truth.BOUND:.0%} survives with its letters in another RNA",
    "not explained": f"base, neighbours, position and length explain less than {confounds.EXPLAINED_R2:.0%}",
}  # fmt: skip


def columns_of(rnas: Activations, features: pd.DataFrame) -> sparse.csc_matrix:
    """Activations of features (layer, feature), [T, J], in their order."""
    features = features.reset_index(drop=True)
    parts = [(rnas.features(layer)[:, of.feature], of.index) for layer, of in features.groupby("layer")]
    order = np.argsort(np.concatenate([place for _, place in parts])) if parts else np.empty(0, int)
    empty = sparse.csc_matrix((len(rnas.tokens), 0))
    return sparse.hstack([empty, *(part for part, _ in parts)], format="csc")[:, order]


def funnel(
    rnas, random, model, autoencoders, recurring, scores, typed, agreements: pd.DataFrame, seed: int = 0
) -> pd.DataFrame:
    """A row for each feature: how many of the `STEPS` it `passed`, one after the other, and what they ask.

    rnas, random : RNAs of known structure, encoded by the autoencoders under test and by those of the model
        with random weights
    recurring, scores : from `recurrence.recurring` and `recurrence.score_features`
    typed : features (layer, feature) that prefer a type of RNA
    agreements : of `atlas.score_concepts`; layers that it does not have are judged by AUROC alone

    Columns layer, feature, density, auroc, random (largest correlation with a feature of random weights),
    shuffled and pasted (share of the firing that survives, the larger one of two splits), r2; missing for
    what fell before.
    """
    keys = ["layer", "feature"]
    table = rnas.summary[[*keys, "density", "retained"]].merge(scores[[*keys, "auroc"]], on=keys)
    table = table.merge(recurring, on=keys, how="left")
    precise = agreements.precision >= np.maximum(PRECISE, TIMES_BASE * agreements.base_rate)
    known = pd.concat([typed[keys], agreements[precise][keys]])
    known = pd.MultiIndex.from_frame(table[keys]).isin(pd.MultiIndex.from_frame(known))
    tests = [
        table.retained,
        table.recurs.eq(True),
        table.density <= SELECTIVE,
        (table.auroc < KNOWN) & ~known,
    ]
    table["passed"] = np.cumprod(tests, axis=0).sum(0)

    def narrow(step: int, column: str, measure, bound: float):
        left = table[table.passed == step]
        table.loc[left.index, column] = measure(left[keys].reset_index(drop=True)) if len(left) else np.nan
        table.loc[left.index, "passed"] += (table.loc[left.index, column] < bound).astype(int)

    narrow(4, "random", partial(_random, rnas, random), RECURS)
    fire = partial(ground_truth.fire, model, autoencoders)
    narrow(5, "shuffled", partial(_shuffled, fire, rnas.records, seed), ground_truth.BOUND)
    narrow(6, "pasted", partial(_pasted, fire, rnas.records, seed), ground_truth.BOUND)
    narrow(7, "r2", partial(_explained, rnas, seed), confounds.EXPLAINED_R2)
    return table.drop(columns=["retained", "recurs"])


def _random(rnas: Activations, random: Activations, features: pd.DataFrame) -> np.ndarray:
    """Largest correlation of each feature with one of random weights in its layer, on held-out RNAs."""
    rows, found = rnas.rows("heldout"), np.zeros(len(features))
    for layer, of in features.groupby("layer"):
        own_TJ, other_TF = rnas.features(layer)[rows][:, of.feature], random.features(layer)[rows]
        found[of.index] = correlations(own_TJ, other_TF).max(1)
    return found


def _sample(records: pd.DataFrame, split: str, seed: int) -> pd.DataFrame:
    """RNAs on which features are disproved."""
    rnas = records[(records.split == split) & ~records.sequence.str.contains("[^ACGU]")]
    return rnas.sample(min(len(rnas), SHUFFLED_RNAS), random_state=seed).reset_index(drop=True)


def _shuffled(fire, records: pd.DataFrame, seed: int, features: pd.DataFrame) -> np.ndarray:
    """Share of the mean activation that survives in shuffled RNAs, the larger one of two splits; infinite
    where too few RNAs tell."""
    rng, shares, names = np.random.default_rng(seed), [], [*features.itertuples(index=False, name=None)]
    for split in ("selection", "heldout"):
        texts = _sample(records, split, seed).sequence.tolist()
        record_T = np.repeat(np.arange(len(texts)), [len(text) for text in texts])
        before_TJ, after_TJ = (
            fire(texts, names),
            fire([shuffle_dinucleotides(text, rng) for text in texts], names),
        )
        firing_J = [len(np.unique(record_T[of_T > 0])) for of_T in before_TJ.T]
        mean_J = np.maximum(before_TJ.mean(0), 1e-12)
        shares.append(np.where(np.array(firing_J) < FEWEST, np.inf, after_TJ.mean(0) / mean_J))
    return np.max(shares, axis=0)


def _pasted(fire, records: pd.DataFrame, seed: int, features: pd.DataFrame) -> np.ndarray:
    """`survival` where the letters around are pasted elsewhere; infinite where too few RNAs tell."""
    named = features.assign(group="element", concept=ELEMENTS["S"])  # this test asks for no concept
    tested = survival(fire, named, _sample(records, "heldout", seed), seed)
    return tested[tested.test == FALLS[0]].share.fillna(np.inf).to_numpy()


def _explained(rnas: Activations, seed: int, features: pd.DataFrame) -> np.ndarray:
    """Held-out R2 of what `confounds` knows."""
    chosen = features.assign(setting="unseen families", element="S")
    return confounds.explain_elements(rnas, chosen, seed).r2.to_numpy()


def steps(table: pd.DataFrame) -> pd.DataFrame:
    """The figure's table: of each step in `STEPS` how many features are left and how many fell."""
    left = [int((table.passed > place).sum()) for place in range(len(STEPS))]
    facts = {"step": [*STEPS], "rule": [*STEPS.values()], "left": left}
    return pd.DataFrame(facts).assign(fell=-np.diff([len(table), *left]))


def leads(rnas: Activations, table: pd.DataFrame, concepts: pd.DataFrame) -> pd.DataFrame:
    """A row for each feature that passed all `STEPS` of `funnel`, with what there is to see and its reading.

    concepts : of `controls.score_concepts`, whose best features are the known ones

    Columns added: rnas and families it fires in, places (nucleotides), base and element (the commonest, with
    its share and what is expected, of elements for the same bases), examples (names of families), nearest
    (the known feature of its layer whose activation correlates most), correlation, and reading.
    """
    chosen = table[table.passed == len(STEPS)].sort_values("shuffled", kind="stable").reset_index(drop=True)
    columns_TJ, tokens, rows = columns_of(rnas, chosen), rnas.tokens, []
    known = concepts[(concepts.source == rnas.name) & (concepts.setting == "unseen families")]
    known = known[["layer", "feature", "concept"]].dropna().drop_duplicates(["layer", "feature"])
    names = rnas.records.get("family_name", rnas.records.get("family", rnas.records.id))
    family_S = family_names(rnas.records.get("family", pd.Series(None, rnas.records.index, dtype=object)))
    for place, lead in enumerate(chosen.itertuples()):
        fires_T = columns_TJ[:, [place]].toarray().ravel() > 0
        record_S = tokens.record[fires_T].unique()
        facts = _reading(tokens, fires_T, rnas.records, record_S)
        own = known[known.layer == lead.layer].reset_index(drop=True)
        near_F = correlations(columns_TJ[:, [place]], columns_of(rnas, own))[0]
        facts |= {"nearest": "none", "correlation": np.nan}
        if len(own):
            best = own.loc[near_F.argmax()]
            facts |= {"nearest": f"{best.feature} ({best.concept})", "correlation": near_F.max()}
        families = names.iloc[record_S].value_counts().index[:3]
        facts |= {
            "rnas": len(record_S),
            "families": len(set(family_S[record_S])),
            "places": int(fires_T.sum()),
        }
        rows.append(facts | {"examples": "; ".join(map(str, families))})
    added = pd.DataFrame(rows, columns=["base", "element", "reading", "nearest", "correlation", "rnas",
                                        "families", "places", "examples"])  # fmt: skip
    return pd.concat([chosen, added], axis=1)


def _reading(tokens: pd.DataFrame, fires_T: np.ndarray, records: pd.DataFrame, record_S) -> dict:
    """What a feature fires on, by rule: shares of at least `SHARED` that are `LIFT` times the expected."""
    base_T, same_T = tokens.base.astype(str).to_numpy(), tokens.record.to_numpy()
    element_T = tokens.element.astype(str).map(ELEMENTS).to_numpy()
    before_T = np.where(np.roll(same_T, 1) == same_T, np.roll(base_T, 1), "")
    after_T = np.where(np.roll(same_T, -1) == same_T, np.roll(base_T, -1), "")
    weight_T = pd.Series(base_T[fires_T]).value_counts(normalize=True) / pd.Series(base_T).value_counts()
    weight_T = weight_T.reindex(base_T).fillna(0).to_numpy()  # what is expected of the same bases elsewhere
    said, facts = [], {}
    for word, name, values_T, weights in (("on", "base", base_T, None), ("after", "", before_T, weight_T),
                                          ("before", "", after_T, weight_T),
                                          ("in", "element", element_T, weight_T)):  # fmt: skip
        share = pd.Series(values_T[fires_T]).value_counts(normalize=True)
        ones = np.ones(len(values_T)) if weights is None else weights
        expected = pd.Series(ones).groupby(values_T).sum() / ones.sum()
        top = share.index[0]
        if share[top] >= SHARED and share[top] >= LIFT * expected[top] and top:
            said.append(f"{word} {top}" + "s" * (name == "element"))
        if name:
            facts[name] = f"{top} {share[top]:.0%} ({expected[top]:.0%} expected)"
    if "type" in records:
        share = records.type.iloc[record_S].value_counts(normalize=True)
        if len(share) and share.iloc[0] >= SHARED:
            said.append(f"of {share.index[0]}")
    return facts | {"reading": f"fires {', '.join(said)}" if said else "no rule fits"}


def surroundings(rnas: Activations, found: pd.DataFrame) -> pd.DataFrame:
    """The logos' table: shares of the bases around the strongest nucleotide of each RNA that one of the first
    `SHOWN` `leads` fires in, families weighing alike: layer, feature, reading, position (0 is the strongest),
    base, share, families."""
    shown, tables = found.head(SHOWN), []
    columns_TJ, record_T = columns_of(rnas, shown), rnas.tokens.record.to_numpy()
    family_S = family_names(rnas.records.get("family", pd.Series(None, rnas.records.index, dtype=object)))
    for place, lead in enumerate(shown.itertuples()):
        value_T = columns_TJ[:, [place]].toarray().ravel()
        best = pd.Series(value_T).groupby(record_T).idxmax()
        best = best[value_T[best] > 0]
        family, rows = family_S[best.index], []
        weight = 1 / pd.Series(family).map(pd.Series(family).value_counts()).to_numpy()
        for offset in range(-REACH, REACH + 1):
            at = np.clip(best.to_numpy() + offset, 0, len(record_T) - 1)
            same = record_T[at] == best.index
            bases = rnas.tokens.base.astype(str).to_numpy()[at[same]]
            share = pd.Series(weight[same]).groupby(bases).sum().reindex(list("ACGU")).fillna(0)
            rows.append(pd.DataFrame({"position": offset, "base": list("ACGU"),
                                      "share": (share / max(share.sum(), 1e-12)).to_numpy()}))  # fmt: skip
        facts = {"layer": lead.layer, "feature": lead.feature, "reading": lead.reading}
        tables.append(pd.concat(rows).assign(**facts, families=len(set(family))))
    columns = ["position", "base", "share", "layer", "feature", "reading", "families"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def relations(rnas: Activations, features: pd.DataFrame, seed: int = 0) -> pd.DataFrame:
    """Pairs of families that share more features than chance and their composition predict, the surest first.

    rnas, features : features (layer, feature) whose firing is compared, the share of an RNA's nucleotides

    Of each feature (those that fire alike are one) k-mers, length and GC content are regressed out over the
    families of `MEMBERS` RNAs or more, and the `COMMON` strongest directions in which all families differ.
    What is left, clipped at `CLIPPED` deviations, gives a pair its similarity: the cosine. The null permutes
    every feature among the families; since features go together for more reasons than these, it is widened
    to the spread of the middle half of all pairs (Efron 2004, JASA 99:96). Columns family_a, name_a, type_a,
    the same of b, similarity, p_value, q_value (Benjamini & Hochberg), related (q at most 5 %; the surest
    pair is a row in any case), and of all: families, pairs, features, alike (share of the pairs of one type).
    """
    names, share_GJ, known_GZ = _profiles(rnas, features)
    left_GJ = _left(share_GJ, known_GZ)
    columns = ["a", "b", "similarity", "p_value", "q_value"]
    facts: dict = {"families": len(names), "features": left_GJ.shape[1], "pairs": 0}
    found = pd.DataFrame(columns=columns)
    if len(names) > FEWEST_FAMILIES and left_GJ.shape[1] > 1:
        upper, rng = np.triu_indices(len(names), 1), np.random.default_rng(seed)
        own = _cosine(left_GJ)[upper]
        draw = lambda: _cosine(rng.permuted(left_GJ, axis=0))[upper]  # noqa: E731
        middle, first = ([np.percentile(of, q) for q in (25, 50, 75)] for of in (own, draw()))
        scale = max(1, (middle[2] - middle[0]) / max(first[2] - first[0], 1e-12))
        order, counts = own.argsort(), np.zeros(len(own) + 1)
        for _ in range(PERMUTATIONS):
            null = middle[1] + scale * (draw() - first[1])
            counts += np.bincount(np.searchsorted(own[order], null, side="right"), minlength=len(counts))
        p_value = np.empty(len(own))
        p_value[order] = (1 + counts[::-1].cumsum()[::-1][1:]) / (1 + PERMUTATIONS * len(own))
        found = pd.DataFrame(dict(zip(columns, (*upper, own, p_value, q_values(p_value)))))
        facts |= {"pairs": len(own)}
    found["related"] = found.q_value <= FALSE_DISCOVERIES
    table = found.sort_values(["p_value", "similarity"], ascending=[True, False], ignore_index=True)
    table = table.head(max(1, found.related.sum()))
    of_family = rnas.records.groupby(_families(rnas.records)).first().reindex(names).reset_index(drop=True)
    kind = of_family.get("type", pd.Series("RNA", of_family.index)).fillna("RNA")
    called = of_family.get("family_name", pd.Series(names)).fillna(pd.Series(names))
    for side in ("a", "b"):
        at = table.pop(side).to_numpy(int)
        table[f"family_{side}"], table[f"name_{side}"] = names[at], called.to_numpy()[at]
        table[f"type_{side}"] = kind.to_numpy()[at]
    sizes = kind.value_counts()
    facts["alike"] = float((sizes * (sizes - 1)).sum() / max(len(names) * (len(names) - 1), 1))
    return table.assign(**facts)


def _families(records: pd.DataFrame) -> np.ndarray:
    """Every RNA's family; RNAs of unknown family are families of their own."""
    return family_names(records.get("family", pd.Series(None, records.index, dtype=object)))


def _profiles(rnas: Activations, features: pd.DataFrame) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Names of the families, share of nucleotides on which features fire [G, J], and confounders [G, Z]."""
    columns_TJ, record_T = columns_of(rnas, features), rnas.tokens.record.to_numpy()
    alike = sparse.csr_matrix(np.abs(correlations(columns_TJ, columns_TJ)) >= RECURS)
    count, group_J = connected_components(alike, directed=False)
    of_group = sparse.csr_matrix(
        np.eye(count)[group_J] / np.maximum(np.bincount(group_J), 1)[group_J][:, None]
    )
    fires_TJ = (columns_TJ > 0).astype(float) @ of_group
    names, number_S, size_G = np.unique(_families(rnas.records), return_inverse=True, return_counts=True)
    weight_S = 1 / size_G[number_S]
    by_family = sparse.csr_matrix((weight_S, (number_S, np.arange(len(number_S)))))
    weight_T = 1 / np.bincount(record_T, minlength=len(number_S))[record_T]
    by_rna = sparse.csr_matrix(
        (weight_T, (record_T, np.arange(len(record_T)))), (len(number_S), len(record_T))
    )
    sequences = rnas.records.sequence
    length_gc = length_and_gc(sequences)
    known_SZ = np.hstack([length_gc, length_gc**2, kmer_frequencies(sequences, 3).toarray()])
    kept = size_G >= MEMBERS
    return names[kept], dense(by_family @ (by_rna @ fires_TJ))[kept], (by_family @ known_SZ)[kept]


def _left(share_GJ: np.ndarray, known_GZ: np.ndarray) -> np.ndarray:
    """What confounders and common directions leave of standardised values, clipped, [G, J]."""
    if not share_GJ.size:
        return share_GJ
    known_GZ = known_GZ - known_GZ.mean(0)
    u_GZ, size_Z, _ = np.linalg.svd(known_GZ / np.maximum(known_GZ.std(0), 1e-12), full_matrices=False)
    few = min(int((size_Z > 1e-6 * size_Z[0]).sum()), len(known_GZ) // 5)  # few families: few confounders
    centred_GJ = share_GJ - share_GJ.mean(0)
    left_GJ = centred_GJ - u_GZ[:, :few] @ (u_GZ[:, :few].T @ centred_GJ)
    spread_J = left_GJ.std(0)
    left_GJ = left_GJ[:, spread_J > 1e-9] / spread_J[spread_J > 1e-9]
    left_GJ = np.clip(left_GJ, -CLIPPED, CLIPPED)
    # Ranks tell what most families share: what two alone have is two ranks of many, and stays.
    ranks_GJ = rankdata(left_GJ, axis=0) / len(left_GJ) - 0.5
    common_GK = np.linalg.svd(ranks_GJ - ranks_GJ.mean(0))[0][:, : min(COMMON, len(left_GJ) // 20)]
    return left_GJ - left_GJ.mean(0) - common_GK @ (common_GK.T @ left_GJ)


def _cosine(value_GJ: np.ndarray) -> np.ndarray:
    """Cosine of every two rows, [G, G]; 0 with a row of zeros."""
    unit_GJ = value_GJ / np.maximum(np.linalg.norm(value_GJ, axis=1, keepdims=True), 1e-12)
    return unit_GJ @ unit_GJ.T


def shown(pairs: pd.DataFrame) -> pd.DataFrame:
    """The `DRAWN` surest relations."""
    return pairs[pairs.related.astype(bool)].head(DRAWN)


def relation_table(pairs: pd.DataFrame) -> pd.DataFrame:
    """tab-relations: the relations `shown`."""
    columns = {"name_a": "family", "type_a": "type", "name_b": "and", "type_b": "its type"}
    columns |= {"similarity": "similarity", "q_value": "q"}
    return shown(pairs)[[*columns]].rename(columns=columns)


def lead_table(found: pd.DataFrame) -> pd.DataFrame:
    """tab-leads, from `leads`."""
    columns = {"layer": "layer", "feature": "feature", "reading": "reading (a lead)"}
    columns |= {"shuffled": "left if shuffled", "families": "families", "examples": "such as"}
    columns |= {"nearest": "nearest known feature"}
    found = found.assign(shuffled=[f"{share:.0%}" for share in found.shuffled])
    return found[[*columns, "correlation"]].rename(columns=columns)


def numbers(table: pd.DataFrame, pairs: pd.DataFrame, control: pd.DataFrame, random: Activations) -> dict:
    """What captions and conclusion say of `funnel` and of `relations`, beside those of the control."""
    counts = steps(table)
    before = counts.left + counts.fell
    hardest = (counts.fell / before.clip(lower=1)).idxmax()
    each = [
        f'"{of.step}" removes {of.fell or "none"} of {of.left + of.fell:,}' for of in counts[1:].itertuples()
    ]
    facts: dict = {"features": len(table), "leads": int(counts.left.iloc[-1]), "each": ", ".join(each)}
    facts |= {"hardest": counts.step[hardest], "untold": int(np.isinf(table.shuffled).sum())}
    facts["random_retained"] = int(random.summary.retained.sum())
    for name, of in (("", pairs), ("random_", control)):
        facts[f"{name}related"] = int(of.related.sum())
        for fact in ("families", "pairs", "features"):
            facts[f"{name}of_{fact}"] = of[fact].iloc[0] if len(of) else 0
    related, drawn = pairs[pairs.related.astype(bool)], shown(pairs)
    same = "none can be told"
    if len(related):
        of_type = (related.type_a == related.type_b).mean()
        same = (
            f"{of_type:.0%} of the {len(related)} are of one type ({related.alike.iloc[0]:.0%} of all pairs "
        )
        same += f"are), {(drawn.type_a != drawn.type_b).sum()} of those drawn join two types: without known "
        same += "kinship, they may be artefacts"
    return facts | {"same": same, "drawn": len(drawn)}
