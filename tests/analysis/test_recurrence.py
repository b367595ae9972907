import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import fisher_exact

from sae_rna.analysis import recurrence
from sae_rna.analysis.recurrence import (
    RANDOM,
    SEED,
    Dictionary,
    by_layer,
    compare,
    concepts_of_recurring,
    match,
    match_activations,
    random_dictionary,
    recurring,
)

quick = settings(max_examples=40)


def sparse_features(rng, tokens, latents, density=0.1):
    return sparse.random_array((tokens, latents), density=density, format="csr", rng=rng, dtype=np.float32)


def copied(rng, original, permutation, noise=0.0, **changes):
    """The dictionary with its features in another order: feature f becomes permutation[f]."""
    order = np.argsort(permutation)
    decoder = original.decoder[order] + noise * rng.standard_normal(original.decoder.shape)
    return Dictionary(
        **{"seed": 1, "decoder": decoder, "activations": original.activations[:, order]} | changes
    )


# --- matching
# -------------------------------------------------------------------------------------------------------------------------


@quick
@given(st.integers(0, 2**32))
def test_a_permuted_and_noised_dictionary_is_recovered(seed):
    rng = np.random.default_rng(seed)
    decoder, permutation = rng.standard_normal((40, 32)), rng.permutation(40)
    other = np.empty_like(decoder)
    other[permutation] = rng.uniform(0.5, 2, (40, 1)) * (decoder + 0.1 * rng.standard_normal(decoder.shape))
    found = match(decoder, other)
    assert found.partner.tolist() == permutation.tolist()
    cosine = (
        (decoder * other[permutation]).sum(1)
        / np.linalg.norm(decoder, axis=1)
        / np.linalg.norm(other[permutation], axis=1)
    )
    assert found.similarity == pytest.approx(cosine)


def test_the_matching_is_the_best_as_a_whole_and_not_the_greedy_one():
    # a0 is nearest to b0, but then a1 is left with b1, which is at a right angle to it
    angle = lambda degrees: [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]  # noqa: E731
    found = match(np.array([angle(10), angle(-20)]), np.array([angle(0), angle(70)]))
    assert found.partner.tolist() == [1, 0]
    assert found.similarity == pytest.approx([np.cos(np.radians(60)), np.cos(np.radians(20))])


@pytest.mark.parametrize(("small", "large"), [(5, 9), (9, 5)])
def test_of_different_widths_as_many_as_the_smaller_has_are_matched(small, large):
    rng = np.random.default_rng(0)
    decoder = rng.standard_normal((max(small, large), 16))
    found = match(decoder[:small], decoder[:large])
    assert found.partner.tolist() == [f if f < large else -1 for f in range(small)]
    assert found.similarity[:5] == pytest.approx(1) and np.isnan(found.similarity[large:]).all()


def test_rows_without_direction_are_left_out():
    rows = np.eye(4)
    found = match(rows[[0, 1, 2]] * [[1], [0], [1]], rows[[2, 0, 3]] * [[1], [1], [0]])
    assert found.partner.tolist() == [1, -1, 0]
    assert found.similarity == pytest.approx([1, np.nan, 1], nan_ok=True)


@quick
@given(st.integers(0, 2**32), st.floats(0.01, 1))
def test_correlations_are_those_of_numpy(seed, density):
    rng = np.random.default_rng(seed)
    a, b = sparse_features(rng, 60, 5, density), sparse_features(rng, 60, 7, density)
    found = match_activations(a, b)
    varies_a, varies_b = (x.toarray().std(0) > 0 for x in (a, b))
    assert (found.partner >= 0).sum() == min(varies_a.sum(), varies_b.sum())
    for feature, partner in enumerate(found.partner):
        if partner >= 0:
            expected = np.corrcoef(a.toarray()[:, feature], b.toarray()[:, partner])[0, 1]
            assert found.similarity[feature] == pytest.approx(expected, abs=1e-6)
        else:
            assert np.isnan(found.similarity[feature])


def test_activations_are_matched_whatever_their_scale_and_dead_and_constant_features_are_left_out():
    rng = np.random.default_rng(1)
    a = sparse_features(rng, 300, 6).toarray()
    a[:, 2], a[:, 4] = 0, 0.1
    permutation = np.array([3, 5, 0, 1, 4, 2])
    b = np.empty_like(a)
    b[:, permutation] = a * rng.uniform(0.5, 2, 6)
    found = match_activations(sparse.csr_matrix(a), sparse.csr_matrix(b))
    assert found.partner.tolist() == [3, 5, -1, 1, -1, 2]
    assert found.similarity[[0, 1, 3, 5]] == pytest.approx(1)


# --- recurrence
# -----------------------------------------------------------------------------------------------------------------------


def test_random_directions_have_the_mean_and_the_covariance_of_the_rows():
    rng = np.random.default_rng(2)
    decoder = rng.standard_normal((4000, 4)) * [3, 1, 1, 0] + [1, 0, 0, 0]
    unit = decoder / np.linalg.norm(decoder, axis=1, keepdims=True)
    drawn = random_dictionary(decoder * rng.uniform(0.1, 10, (4000, 1)), rng)
    assert drawn.shape == decoder.shape
    assert drawn.mean(0) == pytest.approx(unit.mean(0), abs=0.05)
    assert np.cov(drawn.T) == pytest.approx(np.cov(unit.T), abs=0.05)
    assert drawn[:, 3] == pytest.approx(0, abs=1e-6)


def placed(table, comparison=SEED, layer=1):
    return table.assign(layer=layer, comparison=comparison)


def dictionaries(rng, latents=60, width=24, tokens=800):
    return Dictionary(0, rng.standard_normal((latents, width)), sparse_features(rng, tokens, latents))


def test_features_recur_in_a_permuted_dictionary_and_not_in_another():
    rng = np.random.default_rng(3)
    reference, permutation = dictionaries(rng), rng.permutation(60)
    table = compare(
        reference, [copied(rng, reference, permutation, noise=0.1), dictionaries(rng)._replace(seed=2)]
    )
    same, different = (table[table["seed"] == seed] for seed in (1, 2))
    assert same["match"].tolist() == same["activation_match"].tolist() == permutation.tolist()
    assert same["recurs"].all() and not different["recurs"].any()
    assert same["cosine"].min() > 0.95 and same["correlation"].min() > 0.99
    # what is random recurs at about the null: 5 % of the features are above the 95th percentile
    for similarity, null in (("cosine", "null_cosine"), ("correlation", "null_correlation")):
        assert (different[similarity] > different[null]).mean() < 0.25
        assert different[null].iloc[0] == pytest.approx(different[similarity].quantile(0.95), rel=0.25)
    chance = placed(
        compare(reference._replace(activations=None), [dictionaries(rng)._replace(seed=-1)]), RANDOM
    )
    (row,) = by_layer(pd.concat([placed(table), chance])).to_dict("records")
    assert (row["share"], row["by_decoder"], row["share_null"]) == (0.5, 0.5, 0)  # means over both others
    assert row["median_cosine"] == pytest.approx((same.cosine.median() + different.cosine.median()) / 2)


def test_the_null_knows_that_decoder_rows_crowd_into_few_dimensions():
    rng = np.random.default_rng(4)
    crowded = [
        Dictionary(seed, rng.standard_normal((80, 64)) * np.where(np.arange(64) < 4, 1, 0.05))
        for seed in (0, 1)
    ]
    table = compare(crowded[0], crowded[1:])
    assert table["null_cosine"].iloc[0] > 0.9  # an even sphere would say about .4
    assert table["cosine"].quantile(0.95) == pytest.approx(table["null_cosine"].iloc[0], abs=0.03)


def test_both_matchings_must_agree():
    rng = np.random.default_rng(5)
    reference = dictionaries(rng)
    swapped = np.arange(60)
    swapped[[0, 1]] = 1, 0  # features 0 and 1 have changed places in the activations, but not in the decoder
    other = Dictionary(1, reference.decoder, reference.activations[:, swapped])
    table = compare(reference, [other])
    assert table["recurs"].tolist() == [False, False] + [True] * 58
    assert table["cosine"].min() > 0.99 and table["correlation"].min() > 0.99
    assert by_layer(placed(table))[["share", "by_decoder"]].iloc[0].tolist() == pytest.approx([58 / 60, 1])


def test_both_similarities_must_be_high():
    rng = np.random.default_rng(13)
    reference = dictionaries(rng)
    turned, silenced = reference.decoder.copy(), reference.activations.toarray()
    turned[0] += (
        1.5 * np.linalg.norm(turned[0]) * np.linalg.svd(turned[:1])[2][1]
    )  # to 56 degrees: cosine .55
    silenced[:, 1] *= rng.random(len(silenced)) < 0.3  # keeps 30 % of the tokens: correlation about .55
    row = compare(reference, [Dictionary(1, turned, sparse.csr_matrix(silenced))])
    assert row["match"].tolist() == row["activation_match"].tolist() == list(range(60))
    assert (
        row["cosine"].iloc[0] == pytest.approx(1 / np.hypot(1, 1.5))
        and 0.4 < row["correlation"].iloc[1] < 0.65
    )
    assert row["recurs"].tolist() == [False, False] + [True] * 58


def test_dead_features_do_not_recur_and_are_counted():
    rng = np.random.default_rng(6)
    reference = dictionaries(rng)
    fires = sparse.diags_array((np.arange(60) >= 3).astype(np.float32))
    reference = reference._replace(activations=sparse.csr_matrix(reference.activations @ fires))
    fires_too = sparse.diags_array((np.arange(60) != 59).astype(np.float32))
    other = Dictionary(1, reference.decoder, sparse.csr_matrix(reference.activations @ fires_too))
    table = compare(reference, [other])
    assert table["dead"].tolist() == [True] * 3 + [False] * 57
    assert table["recurs"].tolist() == [False] * 3 + [True] * 56 + [
        False
    ]  # 59 is dead there, and has no counterpart
    assert (table["other_dead"] == 4).all()
    assert by_layer(placed(table)).share.tolist() == pytest.approx([56 / 57])
    assert recurring(placed(table))["feature"].tolist() == list(range(3, 60))


def test_a_wider_dictionary_that_holds_the_smaller_one():
    rng = np.random.default_rng(7)
    large = dictionaries(rng, latents=90)
    small = Dictionary(1, large.decoder[30:], large.activations[:, 30:])
    table = compare(small, [large])
    assert table["match"].tolist() == list(range(30, 90)) and table["recurs"].all()
    assert table["latents"].unique().tolist() == [90]
    back = compare(large, [small])
    assert back["match"].tolist() == [-1] * 30 + list(range(60)) and back["recurs"].sum() == 60
    assert by_layer(placed(back)).share.tolist() == [pytest.approx(60 / 90)]


def test_without_activations_the_decoder_decides():
    rng = np.random.default_rng(8)
    reference = dictionaries(rng)
    other = copied(rng, reference, rng.permutation(60), activations=None)
    table = compare(reference, [other])
    assert table["recurs"].all() and not table["dead"].any()
    assert table["correlation"].isna().all() and (table["activation_match"] == -1).all()


def test_most_runs_decide_whether_a_feature_recurs():
    rng = np.random.default_rng(9)
    reference = dictionaries(rng)
    runs = []
    for seed, lost in enumerate(([0, 1, 2], [0, 1], [0]), start=1):
        decoder = reference.decoder.copy()
        decoder[lost] = rng.standard_normal((len(lost), 24))
        runs.append(Dictionary(seed, decoder, reference.activations))
    assert recurring(placed(compare(reference, runs))).recurs.tolist() == [False, False] + [True] * 58
    of_two = recurring(placed(compare(reference, runs[:2])))
    assert of_two.recurs.tolist() == [False] * 3 + [True] * 57  # half is not most
    sized = placed(compare(reference, runs[:1]), "the other size")
    assert (
        recurring(pd.concat([placed(compare(reference, runs)), sized])).recurs.tolist()
        == [False, False] + [True] * 58
    )


def test_the_null_follows_the_seed_and_the_matching_does_not():
    rng = np.random.default_rng(10)
    reference, other = dictionaries(rng), dictionaries(rng)
    first, again, changed = (compare(reference, [other], seed=seed) for seed in (0, 0, 1))
    pd.testing.assert_frame_equal(first, again, check_exact=True)
    nulls = ["null_cosine", "null_correlation"]
    assert (first[nulls].iloc[0] != changed[nulls].iloc[0]).all()
    pd.testing.assert_frame_equal(first.drop(columns=nulls), changed.drop(columns=nulls), check_exact=True)


# --- concepts
# -------------------------------------------------------------------------------------------------------------------------


def scored(auroc, above):
    return pd.DataFrame({"layer": 1, "feature": range(len(auroc)), "auroc": auroc, "above": above})


def test_concepts_of_recurring_features_by_hand(monkeypatch):
    numbers, recurs = [0, 1, 2, 4, 5, 6, 7], [True, True, True, False, False, False, False]
    features = pd.DataFrame({"layer": 1, "feature": numbers, "recurs": recurs})
    auroc = np.array([0.5, 0.6, 0.1, 0.9, 0.2, 0.3, 0.4, 0.1])
    above = np.array([1, 1, 0, 1, 0, 1, 0, 0], bool)  # feature 3 is dead: it counts nowhere
    monkeypatch.setattr(recurrence, "FEWEST", 1)
    table = concepts_of_recurring(features, scored(auroc, above))
    assert table["recurs"].tolist() == [True, False]
    assert table["features"].tolist() == [3, 4] and table["with_concept"].tolist() == [2, 1]
    assert table["share"].tolist() == pytest.approx([2 / 3, 1 / 4])
    assert table["median_auroc"].tolist() == pytest.approx([0.5, 0.25])
    assert table["odds_ratio"].tolist() == pytest.approx([6, 6])  # (2 / 1) / (1 / 3)
    # of the 35 ways to give 3 of 7 features a concept, 1 + 12 are as extreme for the upper side and 4 for the
    # lower
    assert table["p_value"].tolist() == pytest.approx([fisher_exact([[2, 1], [1, 3]]).pvalue] * 2)
    assert table["p_value"].iloc[0] == pytest.approx((1 + 12 + 4) / 35)
    (row,) = recurrence.concept_table(table).to_dict("records")
    assert (row["recurring features"], row["recurring: with a concept"]) == (3, 2)
    assert (row["other features"], row["other: with a concept"], row["odds ratio"]) == (
        4,
        1,
        pytest.approx(6),
    )


@pytest.mark.parametrize(("fewest", "told"), [(4, False), (5, True)])
def test_no_odds_are_told_of_fewer_than_five_features_in_any_cell(fewest, told):
    above = np.repeat([True, False, True, False], [fewest, 20, 20, 20])
    recurs = np.arange(len(above)) < fewest + 20
    features = pd.DataFrame({"layer": 1, "feature": range(len(above)), "recurs": recurs})
    table = concepts_of_recurring(features, scored(np.ones(len(above)), above))
    assert table[["odds_ratio", "p_value"]].notna().all(axis=None) == told
    assert table["with_concept"].tolist() == [fewest, 20]


def test_a_layer_in_which_nothing_recurs_has_both_rows_and_no_odds():
    features = pd.DataFrame({"layer": 1, "feature": [0, 1], "recurs": [False, False]})
    table = concepts_of_recurring(features, scored(np.ones(2), np.array([True, False])))
    assert table["features"].tolist() == [0, 2] and table["with_concept"].tolist() == [0, 1]
    assert table[["odds_ratio", "p_value"]].isna().all(axis=None)


def test_layers_whose_features_are_no_nearer_than_random_directions_are_counted():
    facts = {"comparison": SEED, "layer": [1, 2, 3], "share": [0.1, 0.3, 0.2], "null_cosine": 0.4}
    table = pd.DataFrame(facts | {"median_cosine": [0.3, 0.4, 0.5]})
    numbers = recurrence.numbers(pd.concat([table, table.assign(comparison=recurrence.SIZE)]))
    assert (numbers["below"], numbers["layers"], numbers["lowest"], numbers["highest"]) == (1, 3, 0.1, 0.3)


def test_features_that_recur_and_have_concepts_are_told_from_chance():
    rng = np.random.default_rng(12)
    features = pd.DataFrame({"layer": 1, "feature": range(400), "recurs": rng.random(400) < 0.5})
    planted = rng.random(400) < np.where(features["recurs"], 0.7, 0.2)
    p_value = lambda above: concepts_of_recurring(features, scored(rng.random(400), above)).p_value[0]  # noqa: E731
    assert p_value(planted) < 1e-10
    assert np.mean([p_value(rng.random(400) < 0.4) < 0.05 for _ in range(40)]) <= 0.15


# --- a study
# ----------------------------------------------------------------------------------------------------


def test_a_study_is_compared_with_seeds_sizes_and_random_directions(study):
    p, autoencoders = study.parameters, [study.autoencoders(variant) for variant in study.parameters.repeated]
    sequences, groups = study.structures.sequence.head(20).tolist(), autoencoders[0].groups
    compared = recurrence.compare_dictionaries(study.model, autoencoders, sequences, groups, seed=p.seed)
    latents = compared.groupby("comparison").latents.unique().to_dict()
    assert {name: list(values) for name, values in latents.items()} == {
        SEED: [3 * 32], recurrence.SIZE: [3 * 32], RANDOM: [3 * 32]
    }  # fmt: skip
    assert compared.groupby("comparison").feature.nunique().to_dict() == {
        SEED: 96,
        recurrence.SIZE: 64,
        RANDOM: 96,
    }
    assert compared.layer.unique().tolist() == study.layers
    rnas = study.activations("structures")
    chance = pd.DataFrame(
        {"layer": 3, "group": "element", "concept": ["stem"], "null_p95": 0.6, "setting": "unseen families"}
    )
    scores = recurrence.score_features(rnas, chance)
    assert len(scores) == 96 * 3 and not scores.above[scores.layer != 3].any()
    shares = concepts_of_recurring(recurring(compared), scores)
    live = compared[(compared.comparison == SEED) & ~compared.dead].groupby("layer").feature.nunique()
    assert shares.groupby("layer").features.sum().tolist() == live.tolist()
    with pytest.raises(ValueError, match="set replicates to 1 or more"):
        recurrence.compare_dictionaries(study.model, autoencoders[:2], sequences, groups, seed=p.seed)
