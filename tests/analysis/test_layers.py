"""Page 04: sparsity and selectivity by layer are those of the features themselves."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_rna.analysis import layers
from sae_rna.sae.features import tau


def test_the_table_agrees_with_the_features_themselves(study):
    rnas, summary = study.activations("types"), study.summary(study.parameters.main)
    table = layers.by_layer(summary, rnas).set_index(["architecture", "layer"])
    assert set(table.index.unique("architecture")) == set(study.parameters.architectures)
    for layer in study.layers:
        matrix, row = rnas.features(layer), table.loc[(study.parameters.architecture, layer)]
        density = np.asarray((matrix > 0).mean(0)).ravel()
        by_record = pd.DataFrame(matrix.toarray() > 0).groupby(rnas.tokens.record.to_numpy()).any().sum()
        assert row.l0 == pytest.approx(matrix.getnnz() / matrix.shape[0])
        assert row.retained == (by_record >= 2).sum() and row.dead_share == (density == 0).mean()
        assert row.density_p90 == pytest.approx(np.quantile(density[density > 0], 0.9))
        assert row.breadth == pytest.approx(by_record[by_record > 0].mean() / len(rnas.records))
        assert (row.tokens, row.sequences) == (len(rnas.tokens), len(rnas.records))


def test_selectivity_for_types_is_the_mean_of_retained_features(study):
    rnas = study.activations("types")
    table = layers.by_layer(rnas.summary, rnas).set_index("layer")
    for layer in study.layers:
        pooled, records = rnas.pooled(layer)
        means = pd.DataFrame(pooled.toarray()).groupby(records.type.to_numpy()).mean().to_numpy()
        selectivity = np.mean(tau(means)[rnas.retained(layer)])
        assert table.type_selectivity[layer] == pytest.approx(selectivity, rel=1e-4)


def table_of(breadth: list[float], selectivity: list[float]) -> pd.DataFrame:
    depth = range(1, len(breadth) + 1)
    shown = {"architecture": "topk", "layer": depth, "breadth": breadth, "type_selectivity": selectivity}
    other = pd.DataFrame(shown).assign(architecture="relu-l1", breadth=0.9)
    return pd.concat([other, pd.DataFrame(shown)])


def test_the_conclusion_tells_how_layers_change_with_depth():
    table, random = table_of([0.4, 0.2, 0.1], [0.5, 0.7, 0.6]), table_of([0.4, 0.2, 0.1], [0.3, 0.2, 0.1])
    facts = layers.conclusion(table, random, ["topk", "relu-l1"])
    assert (facts["tau_first"], facts["tau_last"], facts["tau_trend"]) == ("0.500", "0.600", "0.50")
    assert facts["random_tau_trend"] == "-1.00"
    assert facts["breadth_trends"] == "topk -1.00, relu-l1 0.00"


def test_a_single_layer_has_no_trend():
    table = table_of([0.4], [0.5])
    assert layers.conclusion(table, table, ["topk"])["tau_trend"] == "unknown"
    assert "no trend" in layers.in_words(layers.trend(shares_of({1: 0.5, 2: 0.4})))


@given(st.lists(st.integers(0, 5), min_size=3, max_size=8))
def test_rank_correlations_are_spearmans(values):
    rho = layers.rank_correlations(np.array([values, values]))
    expected = pd.Series(values).corr(pd.Series(range(len(values))), "spearman")
    np.testing.assert_allclose(rho, 0 if np.isnan(expected) else expected, atol=1e-12)


def shares_of(by_layer: dict, noise: float = 0.0) -> pd.DataFrame:
    rng, rows = np.random.default_rng(0), []
    for kind in ("a", "b"):
        for family in range(6):
            for layer, active in by_layer.items():
                value = active + noise * rng.normal()
                rows.append({"id": f"{kind}{family}", "type": kind, "family": f"{kind}{family}", "layer": layer,
                             "active": value})  # fmt: skip
    return pd.DataFrame(rows)


def test_a_trend_without_noise_is_certain_and_noise_alone_leaves_it_open():
    falling = layers.trend(shares_of({1: 0.4, 3: 0.3, 5: 0.1}))
    rho, ends = {"rho": -1, "low": -1, "high": -1}, {"first": 0.4, "last": 0.1, "fall": -0.3, "rise": -0.3}
    assert falling == pytest.approx(rho | ends)
    assert layers.in_words(falling).startswith("pass from diffuse to sparse (40.0% to 10.0%")
    rising = layers.trend(shares_of({1: 0.1, 3: 0.3, 5: 0.4}))
    assert layers.in_words(rising).startswith("pass from sparse to diffuse")
    flat = layers.trend(shares_of(dict.fromkeys(range(1, 7), 0.3), noise=0.05))
    assert flat["low"] < 0 < flat["high"] and layers.in_words(flat).startswith("show no clear trend")


def test_ranks_that_rise_while_the_last_layer_lies_below_the_first_are_no_trend():
    wave = layers.trend(shares_of({1: 0.38, 2: 0.2, 3: 0.3, 4: 0.5, 5: 0.6, 6: 0.35}))
    assert wave["low"] > 0 and layers.in_words(wave).startswith("show no clear trend")


def test_every_type_weighs_the_same_in_a_trend():
    shares = shares_of({1: 0.2, 2: 0.2, 3: 0.2})
    many = pd.concat([shares] + [shares[shares.type == "a"].assign(active=0.4)] * 9)
    assert layers.trend(many)["first"] == pytest.approx((0.38 + 0.2) / 2)


def test_active_shares_count_live_features_in_stretches_of_equal_length(study):
    rnas = study.activations("types")
    shares = layers.active_shares(rnas)
    lengths = rnas.records.sequence.str.len()
    stretch = int(lengths.groupby(rnas.records.type).median().min())
    assert (shares.stretch == stretch).all() and set(shares.layer) == set(study.layers)
    assert shares.id.nunique() == (lengths >= stretch).sum()
    assert (shares.groupby("type").id.nunique() >= rnas.records.groupby("type").size() / 2).all()
    matrix, tokens = rnas.features(3).toarray() > 0, rnas.tokens
    live = matrix.any(0).sum()
    for place in np.flatnonzero(lengths >= stretch)[[0, 7, -1]]:
        first = (lengths.iloc[place] - stretch) // 2
        within = (tokens.record == place) & tokens.position.between(first, first + stretch - 1)
        row = shares[(shares.id == rnas.records.id.iloc[place]) & (shares.layer == 3)]
        assert within.sum() == stretch and row.active.item() == matrix[within].any(0).sum() / live


def test_type_sparsity_takes_means_over_a_types_rnas_with_each_models_own_selectivity(study):
    rnas = study.activations("types")
    shares = layers.active_shares(rnas)
    table = layers.type_sparsity({"model": (rnas, shares), "other": (rnas, shares.assign(active=0.5))})
    row = table[(table.source == "model") & (table.layer == 3) & (table.type == "hairpin")].iloc[0]
    own = shares[(shares.layer == 3) & (shares.type == "hairpin")].active
    assert (row.active, row.rnas) == (pytest.approx(own.mean()), len(own))
    kept = rnas.summary[(rnas.summary.layer == 3) & rnas.summary.retained]
    assert row.selectivity == pytest.approx(kept.tau.mean())
    assert (table.active[table.source == "other"] == 0.5).all() and table.source.iloc[0] == "model"
