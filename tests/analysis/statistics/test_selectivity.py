"""Type selectivity: planted features are found, length and GC content alone are not, and noise is not."""

from collections import Counter
from itertools import combinations, product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy.stats import kstest

from sae_rna.analysis.statistics import selectivity
from sae_rna.analysis.statistics.selectivity import (
    SELECTIVITY_COLUMNS,
    Families,
    effect_size,
    gini,
    permutable_types,
    permutation_p_values,
    surviving,
    type_probe,
    type_selectivity,
)
from sae_rna.records.composition import gc_content, kmer_frequencies, length_and_gc

TYPES = ("miRNA", "sRNA", "tRNA")


def rnas(rng, families=60, per_family=3, longer=0.0, richer=0.0):
    """Families of three types in turn; their log length and GC content follow the type by `longer` and `richer` standard deviations."""
    kind = np.arange(families) % 3
    length = np.exp(4 + 0.3 * (rng.normal(size=families) + longer * (kind - 1)))
    gc = np.clip(0.5 + 0.08 * (rng.normal(size=families) + richer * (kind - 1)), 0.05, 0.95)
    rows = []
    for family in range(families):
        for _ in range(per_family):
            bases = rng.choice(
                list("ACGU"),
                int(length[family]),
                p=np.array([1 - gc[family], gc[family], gc[family], 1 - gc[family]]) / 2,
            )
            rows.append((TYPES[kind[family]], f"family {family}", "".join(bases)))
    return pd.DataFrame(rows, columns=["type", "family", "sequence"])


def noise(rng, records, latents=40):
    """Activations alike within a family, without regard to anything else."""
    number, names = pd.factorize(records.family)
    return rng.exponential(size=(len(names), latents))[number] * rng.uniform(
        0.8, 1.2, (len(records), latents)
    )


def planted(rng, families=60, feature=7, kind="tRNA"):
    records = rnas(rng, families)
    pooled = noise(rng, records)
    pooled[:, feature] += 4 * (records.type == kind)
    return sparse.csr_matrix(pooled), records


def test_a_planted_feature_survives_and_no_other():
    rng = np.random.default_rng(0)
    table = type_selectivity(planted(rng), planted(rng))
    assert list(table.columns) == SELECTIVITY_COLUMNS and len(table) == 40 * 3
    shown, lost = surviving(table)
    assert shown[["feature", "type"]].to_numpy().tolist() == [[7, "tRNA"]] and lost == 39
    row = shown.iloc[0]
    assert row.effect > 2.5 and row.adjusted_effect > 1.5 and row.heldout_effect > 1.5
    assert row.q_value < 0.02 and row.heldout_p < 0.001 and (row.families, row.sequences) == (20, 60)
    others = table[(table.feature == 7) & (table.type != "tRNA")]
    assert (others.effect < 0).all() and (others.p_value > 0.5).all()
    assert (
        table[table.feature == 7].tau.nunique() == 1
        and row.tau == table.tau.max()
        and row.gini == table.gini.max()
    )


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
    held, free = (type_selectivity(*sets, adjust=adjust) for adjust in (True, False))
    assert set(free[free.replicates].feature) == set(range(len(CONFOUNDED)))
    assert not held.significant.any()
    pd.testing.assert_series_equal(held.effect, free.effect)
    np.testing.assert_allclose(free.effect, free.adjusted_effect)


def test_a_type_feature_is_found_though_types_differ_in_length():
    rng = np.random.default_rng(4)
    sets = []
    for _ in range(2):
        records = rnas(rng, families=90, longer=0.5, richer=0.5)
        pooled = noise(rng, records)
        pooled[:, 5] += 4 * (records.type == "sRNA")
        sets.append((pooled, records))
    assert surviving(type_selectivity(*sets))[0][["feature", "type"]].to_numpy().tolist() == [[5, "sRNA"]]


def test_noise_is_not_discovered():
    """Expected in 5 % of the seeds; tolerance 3 of 20."""
    found, survived = 0, 0
    for seed in range(20):
        rng = np.random.default_rng(100 + seed)
        sets = [(noise(rng, records), records) for records in (rnas(rng, 45, 1), rnas(rng, 45, 1))]
        table = type_selectivity(*sets, seed=seed)
        found, survived = found + table.significant.any(), survived + table.replicates.any()
    assert found <= 3 and survived == 0


@pytest.mark.parametrize("longer", [0.0, 0.7])
def test_p_values_of_noise_are_uniform(longer):
    rng = np.random.default_rng(5)
    records = rnas(rng, 90, 1, longer, longer)
    families = Families.of(noise(rng, records, 1500), records)
    p = permutation_p_values(families.adjusted(), families.members(TYPES), families.stratum_G, rng)
    for name, values in zip(TYPES, p):
        assert kstest(values, "uniform").pvalue > 1e-3, name
        assert np.mean(values <= 0.05) == pytest.approx(0.05, abs=0.02)  # 3.5 standard errors


def test_permutation_p_values_equal_a_plain_loop(monkeypatch):
    monkeypatch.setattr(selectivity, "ENOUGH", np.inf)
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
    """All 6 x 4 placements of a type within two strata; tolerance 4 standard errors of 10,000 permutations."""
    monkeypatch.setattr(selectivity, "ENOUGH", np.inf)
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
    with pytest.raises(ValueError, match="3 families or more, there are 2"):
        effect_size(np.zeros((2, 1)), np.array([[1, 0]]))


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


def test_gini_by_hand_and_its_extremes():
    table = np.array([[1.0, 0.0, 1.0, 0.0], [1.0, 0.0, 2.0, 0.0], [1.0, 5.0, 3.0, 0.0]])
    np.testing.assert_allclose(gini(table), [0, 2 / 3, 2 / 9, np.nan])
    pairs = np.abs(table[:, None, 2] - table[None, :, 2]).mean() / (2 * table[:, 2].mean())
    assert gini(table)[2] == pytest.approx(pairs)


def fixed(rows):
    """Records from (type, family, length)."""
    return pd.DataFrame(
        [(kind, family, "AC" * (length // 2)) for kind, family, length in rows],
        columns=["type", "family", "sequence"],
    )


def test_types_whose_families_cannot_move_are_reported():
    rows = (
        [("alone", f"a{n}", 10) for n in range(3)]
        + [("b", f"b{n}", 20) for n in range(4)]
        + [("c", f"c{n}", 20) for n in range(2)]
    )
    table = permutable_types(fixed([*rows, rows[-1]])).set_index("type")
    assert table.families.to_dict() == {"alone": 3, "b": 4, "c": 2} and table.sequences["c"] == 3
    assert table.movable.to_dict() == {"alone": 0, "b": 4, "c": 2}
    assert table.smallest_p.tolist() == [1, 1 / 15, 1 / 15]
    assert table.tested.to_dict() == {"alone": False, "b": True, "c": False}


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
    pooled = noise(rng, records)
    unknown = records.assign(family=None)
    own, none = (Families.of(pooled, table) for table in (records, unknown))
    assert len(none.type_G) == 60 and sorted(none.mean_GF[:, 0]) == pytest.approx(sorted(own.mean_GF[:, 0]))


def test_the_same_seed_gives_the_same_table():
    sets = [planted(np.random.default_rng(seed)) for seed in (14, 15)]
    pd.testing.assert_frame_equal(type_selectivity(*sets, seed=1), type_selectivity(*sets, seed=1))


def test_sets_that_cannot_be_tested_are_refused():
    rng = np.random.default_rng(16)
    pooled, records = planted(rng)
    with pytest.raises(ValueError, match="179 rows for 180 records"):
        type_selectivity((pooled[1:], records), (pooled, records))
    with pytest.raises(ValueError, match="family 4 has sequences of more than one type"):
        type_selectivity(
            (pooled, records.assign(type=np.where(np.arange(180) == 12, "rRNA", records.type))),
            (pooled, records),
        )
    with pytest.raises(ValueError, match="40 features, held-out ones 39"):
        type_selectivity((pooled, records), (pooled[:, 1:], records))
    with pytest.raises(ValueError, match="no RNA type has 21 families"):
        type_selectivity((pooled, records), (pooled, records), min_families=21)
    with pytest.raises(
        ValueError, match="15 families are too few to hold length and GC content constant: give 18"
    ):
        type_selectivity((pooled, records), (pooled[:45], records[:45]))
    with pytest.raises(ValueError, match="nothing to test"):
        type_selectivity((pooled, records), (pooled, records), np.zeros(40, bool))


@given(st.lists(st.text("ACGUN", min_size=1, max_size=12), min_size=1, max_size=4), st.integers(1, 3))
def test_kmer_frequencies_are_counts_of_substrings(sequences, k):
    names = ["".join(letters) for letters in product("ACGU", repeat=k)]
    table = kmer_frequencies(sequences, k).toarray()
    assert table.shape == (len(sequences), 4**k)
    for sequence, row in zip(sequences, table):
        found = Counter(sequence[start : start + k] for start in range(len(sequence) - k + 1))
        counts = np.array([found[name] for name in names])
        np.testing.assert_allclose(row, counts / max(counts.sum(), 1))
    strong = [
        sum(map(sequence.count, "GC")) / max(sum(map(sequence.count, "ACGU")), 1) for sequence in sequences
    ]
    np.testing.assert_allclose(gc_content(sequences), strong)


def probe_sets(rng):
    known, unseen = rnas(rng, 48, 4), rnas(rng, 36, 4)
    return known, unseen, (known.type, unseen.type, (known.family, unseen.family))


def test_a_probe_reads_planted_types_with_few_weights_and_nothing_from_noise_or_families():
    rng = np.random.default_rng(17)
    known, unseen, labels = probe_sets(rng)
    marked, blank = [], []
    for records in (known, unseen):
        values = noise(rng, records, 60)
        blank.append(values.copy())
        for column, kind in enumerate(TYPES):
            values[:, column] += 5 * (records.type == kind)
        marked.append(sparse.csr_matrix(values))
    table = type_probe({"marked": marked, "blank": blank}, *labels).set_index("representation")
    assert table.loc["marked", "balanced_accuracy"] > 0.95 and table.loc["marked", "nonzero_weights"] < 30
    assert table.loc["blank", "low"] < 1 / 3 < table.loc["blank", "high"]
    assert table.loc["blank", "balanced_accuracy"] == pytest.approx(1 / 3, abs=0.15)
    assert (
        (table.chance == 1 / 3).all()
        and (table.types == 3).all()
        and (table.families == 36).all()
        and (table["columns"] == 60).all()
    )
    assert (table.low <= table.balanced_accuracy).all() and (table.balanced_accuracy <= table.high).all()
    assert abs(table.loc["marked", "macro_f1"] - table.loc["marked", "balanced_accuracy"]) < 0.05


def test_a_probe_of_kmers_tells_types_of_different_composition_apart():
    rng = np.random.default_rng(18)
    known, unseen = rnas(rng, 36, 2, richer=4), rnas(rng, 36, 2, richer=4)
    sets = {
        "k-mers": [kmer_frequencies(records.sequence, 1) for records in (known, unseen)],
        "length and GC": [length_and_gc(records.sequence) for records in (known, unseen)],
    }
    table = type_probe(sets, known.type, unseen.type, (known.family, unseen.family))
    assert (table.balanced_accuracy > 0.7).all() and table.representation.tolist() == list(sets)


def test_types_of_one_family_take_no_part_in_the_probe():
    rng = np.random.default_rng(19)
    known, unseen, _ = probe_sets(rng)
    known.loc[known.family == "family 0", "type"] = "lone"
    unseen.loc[unseen.family == "family 0", "type"] = "lone"
    table = type_probe(
        {"noise": (noise(rng, known), noise(rng, unseen))},
        known.type,
        unseen.type,
        (known.family, unseen.family),
    )
    assert table.types[0] == 3 and table.sequences[0] == 35 * 4 and table.families[0] == 35


def test_the_interval_draws_families_not_sequences():
    """Two families of a type, one right and one wrong: recall 0, 1/2 or 1. The other type's single family leaves no doubt."""
    right = np.array([True] * 50 + [False] * 50 + [True] * 10)
    kind, family = np.array(["a"] * 100 + ["b"] * 10), np.repeat(["one", "two", "three"], [50, 50, 10])
    rng = np.random.default_rng(0)
    assert selectivity._bootstrap(right, kind, family, rng) == (0.75, 0.5, 1.0)
    assert selectivity._bootstrap(right[50:], kind[50:], family[50:], rng) == (0.5, 0.5, 0.5)


def test_probes_that_cannot_be_fitted_are_refused():
    rng = np.random.default_rng(20)
    known, unseen, labels = probe_sets(rng)
    with pytest.raises(ValueError, match="short has 143 held-out rows for 144 held-out sequences"):
        type_probe({"short": (np.zeros((192, 2)), np.zeros((143, 2)))}, *labels)
    with pytest.raises(ValueError, match="1 RNA types have 2 families to fit on"):
        type_probe({}, ["tRNA"] * 192, ["tRNA"] * 144, labels[2])
