"""Type selectivity: planted features are found, length and GC content alone are not, and noise is not."""

from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from analysis.statistics.samples import TYPES, noise_of_families, quick, rnas
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import kstest

from sae_rna.analysis.statistics import permutation
from sae_rna.analysis.statistics.permutation import (
    Families,
    effect_size,
    permutation_p_values,
    type_selectivity,
)
from sae_rna.records.composition import length_and_gc


def planted(rng, families=60, feature=7, kind="tRNA"):
    records = rnas(rng, families)
    pooled = noise_of_families(rng, records)
    pooled[:, feature] += 4 * (records.type == kind)
    return sparse.csr_matrix(pooled), records


def surviving(table):
    shown = table[table.replicates & (table.effect > 0)]
    return shown, table.feature.nunique() - shown.feature.nunique()


def test_a_planted_feature_survives_and_no_other():
    rng = np.random.default_rng(0)
    table = type_selectivity(planted(rng), planted(rng))
    assert len(table.columns) == 12 and len(table) == 40 * 3
    shown, lost = surviving(table)
    assert shown[["feature", "type"]].to_numpy().tolist() == [[7, "tRNA"]] and lost == 39
    row = shown.iloc[0]
    assert row.effect > 2.5 and row.adjusted_effect > 1.5 and row.heldout_effect > 1.5
    assert row.q_value < 0.02 and row.heldout_p < 0.001 and (row.families, row.sequences) == (20, 60)
    others = table[(table.feature == 7) & (table.type != "tRNA")]
    assert (others.effect < 0).all() and (others.p_value > 0.5).all()


def test_what_is_not_there_on_heldout_families_does_not_survive():
    rng = np.random.default_rng(1)
    table = type_selectivity(planted(rng), planted(rng, feature=8))
    row = table[(table.feature == 7) & (table.type == "tRNA")].iloc[0]
    assert row.significant and not row.replicates and row.heldout_p > 0.01
    assert surviving(table)[1] == 40


def test_one_discovery_among_many_tests_is_possible():
    """10,000 permutations alone give no q-value below 1500 / 10,001 to a single discovery."""
    rng = np.random.default_rng(2)
    sets = [
        (np.tile(pooled.toarray()[:, :1], 500), records)
        for pooled, records in (planted(rng, feature=0), planted(rng, feature=0))
    ]
    for pooled, records in sets:
        number = pd.factorize(records.family)[0]
        pooled[:, 1:] = rng.exponential(size=(number.max() + 1, 499))[number]
    table = type_selectivity(*sets)
    assert table[table.significant][["feature", "type"]].to_numpy().tolist() == [[0, "tRNA"]]
    assert table.p_value.min() < 0.05 / len(table) <= 1 / 10_001


CONFOUNDED = {
    "log length": lambda length, gc: length,
    "length": lambda length, gc: np.exp(length),
    "saturating length": lambda length, gc: 1 - 0.97 ** np.exp(length),
    "GC": lambda length, gc: gc,
    "AT squared": lambda length, gc: (1 - gc) ** 2,
    "both": lambda length, gc: length * gc,
}


def test_features_of_length_or_gc_pass_for_features_of_types_only_unless_both_are_held_constant():
    rng = np.random.default_rng(3)
    sets = []
    for _ in range(2):
        records = rnas(rng, families=90, longer=0.9, richer=0.9)
        values = np.column_stack([of(*length_and_gc(records.sequence).T) for of in CONFOUNDED.values()])
        number = pd.factorize(records.family)[0]
        blurred = values / values.std(0) + 0.1 * rng.normal(size=(number.max() + 1, values.shape[1]))[number]
        sets.append((blurred - blurred.min(0), records))
    table = type_selectivity(*sets)
    assert table.feature.nunique() == len(CONFOUNDED) and not table.significant.any()
    for families in (Families.of(*one) for one in sets):  # all of one stratum, nothing regressed out
        p_CF = permutation_p_values(
            families.mean_GF, families.members(TYPES), np.zeros_like(families.stratum_G), rng
        )
        assert (p_CF.min(0) < 0.05 / p_CF.size).all()
    effect_CF = effect_size(Families.of(*sets[0]).mean_GF, Families.of(*sets[0]).members(TYPES))
    np.testing.assert_allclose(table.effect, effect_CF.T.ravel())
    assert (table.groupby("feature").effect.max() > 0.5).all()


def test_a_type_feature_is_found_though_types_differ_in_length():
    rng = np.random.default_rng(4)
    sets = []
    for _ in range(2):
        records = rnas(rng, families=90, longer=0.5, richer=0.5)
        pooled = noise_of_families(rng, records)
        pooled[:, 5] += 4 * (records.type == "sRNA")
        sets.append((pooled, records))
    assert surviving(type_selectivity(*sets))[0][["feature", "type"]].to_numpy().tolist() == [[5, "sRNA"]]


def test_noise_is_not_discovered():
    """Expected in 5 % of the seeds; tolerance 3 of 20."""
    found, survived = 0, 0
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        sets = [
            (noise_of_families(rng, records), records) for records in (rnas(rng, 45, 1), rnas(rng, 45, 1))
        ]
        table = type_selectivity(*sets, seed=seed)
        found, survived = found + table.significant.any(), survived + table.replicates.any()
    assert found <= 3 and survived == 0


@pytest.mark.parametrize("longer", [0.0, 0.7])
def test_p_values_of_noise_are_uniform(longer):
    rng = np.random.default_rng(5)
    records = rnas(rng, 90, 1, longer, longer)
    families = Families.of(noise_of_families(rng, records, 1500), records)
    p = permutation_p_values(families.adjusted(), families.members(TYPES), families.stratum_G, rng)
    for name, values in zip(TYPES, p):
        assert kstest(values, "uniform").pvalue > 1e-3, name
        assert np.mean(values <= 0.05) == pytest.approx(0.05, abs=0.02)  # 3.5 standard errors


def test_permutation_p_values_equal_a_plain_loop(monkeypatch):
    monkeypatch.setattr(permutation, "ENOUGH", np.inf)
    rng = np.random.default_rng(6)
    stratum = np.array([0, 0, 1, 0, 1, 1, 2, 1, 0, 2, 2, 0])
    kind = np.array([0, 1, 0, 1, 1, 0, 0, 1, 0, 1, 1, 0])
    member = (kind == np.arange(2)[:, None]).astype(float)
    values = rng.exponential(size=(12, 5)) * (rng.random((12, 5)) < 0.7)  # zeros, thus ties
    p = permutation_p_values(values, member, stratum, np.random.default_rng(7), most=300)

    again, orders = np.random.default_rng(7), np.tile(np.arange(12), (300, 1))
    for number in range(3):
        rows = np.flatnonzero(stratum == number)
        orders[:, rows] = again.permuted(orders[:, rows], axis=1)
    assert (stratum[orders] == stratum).all() and len(np.unique(orders, axis=0)) > 200
    for type_, feature in product(range(2), range(5)):
        column = values[:, [feature]]
        observed = effect_size(column, member)[type_, 0]
        extreme = sum(effect_size(column, member[:, order])[type_, 0] >= observed - 1e-9 for order in orders)
        assert p[type_, feature] == (extreme + 1) / 301


def test_permutation_p_values_approach_the_exact_ones(monkeypatch):
    """All 6 x 4 placements of a type within two strata; tolerance 4 standard errors."""
    monkeypatch.setattr(permutation, "ENOUGH", np.inf)
    rng = np.random.default_rng(8)
    values, stratum = rng.normal(size=(8, 6)), np.repeat([0, 1], 4)
    member = np.array([[1, 1, 0, 0, 1, 0, 0, 0]], float)
    values[:, :2] += np.array([3, -3]) * member.T
    placements = [[*first, second] for first in combinations(range(4), 2) for second in range(4, 8)]
    exact = np.mean([values[place].sum(0) >= values[[0, 1, 4]].sum(0) - 1e-9 for place in placements], axis=0)
    p = permutation_p_values(values, member, stratum, rng)
    np.testing.assert_allclose(p[0], exact, atol=0.02)
    assert exact[0] == 1 / 24 and exact[1] == 1


def test_a_feature_that_only_tells_strata_apart_says_nothing():
    stratum = np.repeat([0, 1], 10)
    member = np.array([np.arange(20) < 8])
    p = permutation_p_values(
        np.column_stack([1 - stratum, np.full(20, 0.1)]), member, stratum, np.random.default_rng(0)
    )
    assert (p == 1).all()


def test_what_length_and_gc_explain_whole_leaves_nothing():
    records = rnas(np.random.default_rng(9))
    length, gc = length_and_gc(records.sequence).T
    families = Families.of(
        np.column_stack([length, 3 - 2 * length, np.full(len(gc), 0.1), gc + length, gc**3]), records
    )
    adjusted = families.adjusted()
    assert not adjusted[:, :4].any() and adjusted[:, 4].std() > 0
    np.testing.assert_allclose(families.confounders_GZ.T @ adjusted, 0, atol=1e-9)


def test_hedges_g_by_hand():
    """Means 3 and 1 (2 and 3 rows), sums of squares 2 and 2, pooled variance 4 / 3, correction 1 - 3 / 11."""
    values, member = (
        np.array([[2.0], [4.0], [0.0], [1.0], [2.0]]),
        np.array([[1, 1, 0, 0, 0], [0, 0, 1, 1, 1]]),
    )
    expected = 2 / np.sqrt(4 / 3) * 8 / 11
    np.testing.assert_allclose(effect_size(values, member)[:, 0], [expected, -expected])


def test_effects_without_variation_or_without_rows():
    member = np.array([[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
    g = effect_size(np.array([[0.1, 1.0], [0.1, 1.0], [0.1, 0.0], [0.1, 0.0]]), member)
    assert g[0].tolist() == [0, np.inf] and np.isnan(g[1:, 1]).all()


@quick
@given(
    st.lists(st.floats(0, 10), min_size=6, max_size=12),
    st.floats(0.1, 10),
    st.floats(-5, 5),
    st.integers(2, 4),
)
def test_effects_do_not_depend_on_unit_or_offset(column, scale, offset, inside):
    values, member = np.round(np.array(column), 3)[:, None], np.array([np.arange(len(column)) < inside])
    g = effect_size(values, member)
    if np.abs(g[0, 0]) < 1e3:
        np.testing.assert_allclose(effect_size(scale * values + offset, member), g, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(effect_size(-values, member), -g, atol=1e-9)
        np.testing.assert_allclose(effect_size(values, ~member), -g, atol=1e-9)


def fixed(rows):
    """Records from (type, family, length)."""
    return pd.DataFrame(
        [(kind, family, "AC" * (length // 2)) for kind, family, length in rows],
        columns=["type", "family", "sequence"],
    )


def test_types_whose_families_cannot_move_are_not_tested():
    rows = (
        [("alone", f"a{n}", 10) for n in range(3)]
        + [("b", f"b{n}", 20) for n in range(4)]
        + [("c", f"c{n}", 20) for n in range(2)]
    )
    families = Families.of(np.zeros((10, 0)), fixed([*rows, rows[-1]]))
    assert families.type_G.tolist() == ["alone"] * 3 + ["b"] * 4 + ["c"] * 2
    assert families.sequences_G.tolist() == [1] * 8 + [2]
    assert families.movable_types(3).tolist() == ["b"] and families.movable_types(2).tolist() == ["b", "c"]
    assert families.movable_types(5).tolist() == []


def test_sequences_of_one_family_count_once():
    rng = np.random.default_rng(10)
    pooled, records = planted(rng)
    double = sparse.vstack([pooled, pooled], format="csr"), pd.concat([records, records])
    once, twice = (type_selectivity(known, (pooled, records)) for known in ((pooled, records), double))
    pd.testing.assert_frame_equal(once.drop(columns="sequences"), twice.drop(columns="sequences"))
    assert (twice.sequences == 2 * once.sequences).all()


def test_only_retained_features_that_fire_are_tested():
    rng = np.random.default_rng(11)
    pooled, records = planted(rng)
    pooled = pooled.toarray()
    pooled[:, 3] = 0
    retained = np.isin(np.arange(40), [3, 7, 9])
    table = type_selectivity((pooled, records), (pooled, records), retained)
    assert set(table.feature) == {7, 9}


def test_a_type_that_the_heldout_set_lacks_is_tested_but_does_not_replicate():
    rng = np.random.default_rng(12)
    known, (pooled, records) = planted(rng), planted(rng)
    other = pooled, records.assign(type=records.type.replace("tRNA", "rRNA"))
    table = type_selectivity(known, other)
    row = table[(table.feature == 7) & (table.type == "tRNA")].iloc[0]
    assert row.significant and np.isnan([row.heldout_effect, row.heldout_p]).all() and not row.replicates


def test_sequences_of_unknown_family_are_families_of_their_own():
    rng = np.random.default_rng(13)
    records = rnas(rng, 60, per_family=1)
    pooled = noise_of_families(rng, records)
    unknown = records.assign(family=None)
    own, none = (Families.of(pooled, table) for table in (records, unknown))
    assert len(none.type_G) == 60 and sorted(none.mean_GF[:, 0]) == pytest.approx(sorted(own.mean_GF[:, 0]))


def test_the_same_seed_gives_the_same_table():
    sets = [planted(np.random.default_rng(seed)) for seed in (14, 15)]
    pd.testing.assert_frame_equal(type_selectivity(*sets, seed=1), type_selectivity(*sets, seed=1))


def test_sets_that_cannot_be_tested_are_refused():
    rng = np.random.default_rng(16)
    pooled, records = planted(rng)
    with pytest.raises(ValueError, match="family 4 has sequences of more than one type"):
        type_selectivity(
            (pooled, records.assign(type=np.where(np.arange(180) == 12, "rRNA", records.type))),
            (pooled, records),
        )
    with pytest.raises(ValueError, match="no RNA type has 21 families"):
        type_selectivity((pooled, records), (pooled, records), min_families=21)
    with pytest.raises(ValueError, match="15 families .* give 18"):
        type_selectivity((pooled, records), (pooled[:45], records[:45]))
    with pytest.raises(ValueError, match="nothing to test"):
        type_selectivity((pooled, records), (pooled, records), np.zeros(40, bool))
