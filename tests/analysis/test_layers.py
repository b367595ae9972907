"""Page 04: sparsity and selectivity by layer are those of the features themselves."""

import numpy as np
import pandas as pd
import pytest

from sae_rna.analysis import layers
from sae_rna.sae.features import tau


def test_the_table_agrees_with_the_features_themselves(study):
    rnas, summary = study.activations("types"), study.summary(study.parameters.main)
    table = layers.by_layer(summary, rnas).set_index(["architecture", "layer"])
    assert set(table.index.unique("architecture")) == set(study.parameters.architectures)
    for layer in study.layers:
        matrix, row = rnas.features(layer), table.loc[("topk", layer)]
        density = np.asarray((matrix > 0).mean(0)).ravel()
        by_record = pd.DataFrame(matrix.toarray() > 0).groupby(rnas.tokens.record.to_numpy()).any().sum()
        assert row.l0 == pytest.approx(matrix.getnnz() / matrix.shape[0])
        assert row.retained == (by_record >= 2).sum() and row.dead_share == (density == 0).mean()
        assert row.density_p90 == pytest.approx(np.quantile(density[density > 0], 0.9))
        assert (row.tokens, row.sequences) == (len(rnas.tokens), len(rnas.records))


def test_selectivity_for_types_is_the_mean_of_retained_features(study):
    rnas = study.activations("types")
    table = layers.by_layer(rnas.summary, rnas).set_index("layer")
    for layer in study.layers:
        pooled, records = rnas.pooled(layer)
        means = pd.DataFrame(pooled.toarray()).groupby(records.type.to_numpy()).mean().to_numpy()
        selectivity = np.mean(tau(means)[rnas.retained(layer)])
        assert table.type_selectivity[layer] == pytest.approx(selectivity, rel=1e-4)


def table_of(density: list[float], selectivity: list[float]) -> pd.DataFrame:
    depth = range(1, len(density) + 1)
    shown = {"architecture": "topk", "layer": depth, "density_p50": density, "type_selectivity": selectivity}
    other = pd.DataFrame(shown).assign(architecture="relu-l1", density_p50=0.9)
    return pd.concat([other, pd.DataFrame(shown)])


def test_the_conclusion_tells_how_one_architecture_changes_with_depth():
    facts = layers.conclusion(table_of([0.04, 0.02, 0.01], [0.5, 0.7, 0.6]), "topk")
    assert (facts["first"], facts["last"]) == (1, 3)
    assert (facts["density_first"], facts["density_last"]) == ("4.00%", "1.00%")
    assert facts["density_trend"] == "-1.00" and facts["tau_trend"] == "0.50"


def test_a_single_layer_has_no_trend():
    assert layers.conclusion(table_of([0.04], [0.5]), "topk")["density_trend"] == "unknown"
