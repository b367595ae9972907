"""Leads and relations: what is planted is found, what is shuffled is not, and counts add up."""

import numpy as np
import pandas as pd
import pytest
from given import Given
from scipy import sparse

from sae_rna.analysis import hypotheses, recurrence
from sae_rna.analysis.hypotheses import STEPS, funnel, leads, relations, steps, surroundings
from sae_rna.sae.encoding import token_table

FAMILIES, EACH, FEATURES, PLANTED = 120, 3, 100, 25


def records(families: int = FAMILIES, length: int = 40) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    rows = [
        [f"f{family}-{n}", "".join(rng.choice(list("ACGU"), length)), f"f{family}", f"t{family % 5}"]
        for family in range(families) for n in range(EACH)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["id", "sequence", "family", "type"])
    return table.assign(element="S" * 20 + "H" * (length - 20), split="heldout")


def fires(planted: bool, apart: bool = False) -> Given:
    """Features of different rates by family; `planted`: the last ones fire in f3 and f7, or, `apart`, each
    in two families of its own."""
    rng, rnas = np.random.default_rng(1), records()
    tokens = token_table(rnas)
    family_T = pd.factorize(rnas.family)[0][tokens.record]
    rate = rng.gamma(2, 0.02, (FAMILIES, FEATURES))
    if planted:
        rate[:, -PLANTED:] = 0.005
        for feature in range(FEATURES - PLANTED, FEATURES):
            rate[rng.choice(FAMILIES, 2, replace=False) if apart else [3, 7], feature] = 0.3
    values = (rng.random((len(tokens), FEATURES)) < rate[family_T]) * rng.random((len(tokens), FEATURES))
    return Given(sparse.csr_matrix(values), rnas, tokens)


EVERY = pd.DataFrame({"layer": 1, "feature": range(FEATURES)})


def test_two_families_that_share_planted_features_are_related_and_no_others():
    found = relations(fires(planted=True), EVERY)
    assert found.related.sum() == 1
    assert {found.family_a[0], found.family_b[0]} == {"f3", "f7"} and found.q_value[0] < 0.02
    assert (found.families[0], found.pairs[0], found.features[0]) == (
        FAMILIES,
        FAMILIES * (FAMILIES - 1) / 2,
        FEATURES,
    )
    assert found.alike[0] == pytest.approx(23 / 119)


def test_the_same_features_in_families_of_their_own_relate_nobody():
    for rnas in (fires(planted=True, apart=True), fires(planted=False)):
        assert relations(rnas, EVERY).related.sum() == 0


def test_features_that_fire_alike_count_once():
    rnas = fires(planted=False)
    column = rnas.features(1)[:, [0]]
    twelve = Given(sparse.hstack([rnas.features(1), *[column] * 12], format="csr"), rnas.records, rnas.tokens)
    found = relations(twelve, pd.DataFrame({"layer": 1, "feature": range(FEATURES + 12)}))
    assert found.features[0] == FEATURES and not found.related.any()


def test_without_families_nobody_is_related():
    rnas = fires(planted=False)
    alone = Given(rnas.features(1), rnas.records.drop(columns="family"), rnas.tokens)
    assert relations(alone, EVERY).empty and hypotheses.shown(relations(alone, EVERY)).empty


def agreements(scores: pd.DataFrame) -> pd.DataFrame:
    """Every third feature is known by its precision; others are precise only as all nucleotides are, or rare."""
    nth = scores.feature % 3
    precision, base_rate = nth.map({0: 0.9, 1: 0.9, 2: 0.4}), nth.map({0: 0.17, 1: 0.47, 2: 0.01})
    return scores[["layer", "feature"]].assign(precision=precision, base_rate=base_rate)


@pytest.fixture(scope="module")
def table(study):
    """`funnel` of the tiny study, of which every feature is said to recur."""
    rnas, random = study.activations("structures"), study.activations("structures", study.parameters.random)
    scores = rnas.summary[["layer", "feature"]].assign(auroc=np.where(rnas.summary.feature % 5, 0.55, 0.7))
    recurring = scores[["layer", "feature"]].assign(recurs=scores.feature % 7 > 0)
    typed = pd.DataFrame({"layer": [1], "feature": [int(rnas.summary.feature.max())]})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hypotheses, "SELECTIVE", 0.5)  # few latents of a tiny model fire often
        read = rnas, random, study.model, study.autoencoders()
        return funnel(*read, recurring, scores, typed, agreements(scores))


def test_the_counts_of_the_funnel_add_up(study, table):
    counts = steps(table)
    assert counts.step.tolist() == [*STEPS]
    assert len(table) - counts.fell.sum() == counts.left.iloc[-1] == (table.passed == len(STEPS)).sum()
    assert (counts.left.shift(fill_value=len(table)) - counts.fell == counts.left).all()
    summary = study.activations("structures").summary
    assert counts.left[0] == summary.retained.sum()
    assert counts.left[1] == (summary.retained & (summary.feature % 7 > 0)).sum()
    reached = table[table.passed >= 3]
    nothing_known = (reached.feature % 5 > 0) & (reached.feature % 3 > 0)
    nothing_known &= (reached.layer != 1) | (reached.feature < summary.feature.max())
    assert (reached.passed > 3).equals(nothing_known) and 0 < nothing_known.sum() < len(reached)


def test_what_a_feature_passed_holds_and_what_it_fell_at_does_not(table):
    measured = [("random", 4), ("shuffled", 5), ("pasted", 6), ("r2", 7)]
    bounds = {"random": recurrence.RECURS, "shuffled": 0.5, "pasted": 0.5, "r2": 0.5}
    assert (table.passed >= 4).any()
    for column, step in measured:
        assert table[column].notna().equals(table.passed >= step)
        assert (table[column][table.passed > step] < bounds[column]).all()
        assert (table[column][table.passed == step] >= bounds[column]).all()


def test_a_planted_feature_is_read_as_it_was_planted():
    rnas = records(families=30)
    tokens = token_table(rnas)
    before = tokens.base.astype(str).shift().where(tokens.position > 0, "")
    own = (tokens.base == "G") & (before == "U") & (tokens.element == "H")
    own &= (rnas.type == "t3").to_numpy()[tokens.record]
    known = (tokens.element == "H").to_numpy(float)
    activations = Given(sparse.csr_matrix(np.column_stack([own, known])), rnas, tokens)
    passed = pd.DataFrame({"layer": 1, "feature": [0, 1], "passed": [len(STEPS), 0], "shuffled": 0.1})
    concepts = pd.DataFrame({"source": "given", "setting": "unseen families", "layer": [1], "feature": [1]})
    found = leads(activations, passed, concepts.assign(concept="hairpin loop"))
    lead = found.iloc[0]
    assert len(found) == 1 and lead.feature == 0
    assert lead.reading == "fires on G, after U, in hairpin loops, of t3"
    assert lead.places == own.sum() and lead.nearest == "1 (hairpin loop)"
    assert lead.correlation == pytest.approx(np.corrcoef(own, known)[0, 1])
    around = surroundings(activations, found).set_index(["position", "base"]).share
    assert around[0, "G"] == 1 and around[-1, "U"] == 1
    assert around.groupby("position").sum().to_numpy() == pytest.approx(np.ones(11))


def test_families_weigh_alike_in_a_logo():
    rnas = records(families=2).iloc[: EACH + 1].reset_index(drop=True)  # all of one family, one of another
    rnas["sequence"] = ["G" + "A" * 39] * EACH + ["C" + "A" * 39]
    tokens = token_table(rnas)
    first = Given(sparse.csr_matrix((tokens.position == 0).to_numpy(float)[:, None]), rnas, tokens)
    share = surroundings(first, pd.DataFrame({"layer": [1], "feature": [0], "reading": ["x"]}))
    share = share.set_index(["position", "base"]).share
    assert share[0, "G"] == share[0, "C"] == pytest.approx(0.5) and share[1, "A"] == 1


def test_where_nothing_is_left_the_tables_say_so(table):
    none = table.assign(passed=0)
    rnas = fires(planted=False)
    concepts = pd.DataFrame(columns=["source", "setting", "layer", "feature", "concept"])
    found = leads(rnas, none, concepts)
    assert found.empty and surroundings(rnas, found).empty and hypotheses.lead_table(found).empty
