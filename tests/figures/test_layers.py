"""Retained features and sparsity over layers."""

import numpy as np
from charts import all_rows, layers_table, marks, svg_of

from sae_rna import figures


def test_sparsity_shows_the_value_in_its_cell_and_shades_each_row_on_its_own():
    table = layers_table(3)
    table["explained_variance"] = [0.1, 0.2, 0.3, 0.9, 0.8, 0.7]
    rows = all_rows(figures.layer_sparsity(table))
    variance = rows[rows.measure == "explained variance"].sort_values(["architecture", "layer"])
    assert variance.label.tolist() == ["0.100", "0.200", "0.300", "0.900", "0.800", "0.700"]
    np.testing.assert_allclose(variance.shade, [0, 0.5, 1, 1, 0.5, 0])
    dead = rows[rows.measure == "dead features"]
    assert set(dead.label) == {"30.0%"} and set(dead.shade) == {0}
    share = rows[rows.measure == "active latents (L0 share)"]
    np.testing.assert_allclose(share.value, 16 / 512)
    assert not (rows[rows.architecture == "relu-l1"].measure == "type selectivity").any()


def test_a_layer_whose_features_are_all_dead_is_still_drawn():
    table = layers_table(3)
    density = [column for column in table if column.startswith("density")]
    table.loc[0, density] = np.nan
    table.loc[1, density] = 0.0
    table.loc[0, ["dead_share", "retained", "l0"]] = [1.0, 0, 0.0]
    svg = svg_of(figures.retained_features(table))
    assert sum("retained features: 0" in label for label in marks(svg, "point")) >= 1
    svg_of(figures.layer_sparsity(table))


def test_retained_features_draws_a_point_per_layer_and_architecture_in_each_panel():
    points = marks(svg_of(figures.retained_features(layers_table(4))), "point")
    assert len(points) == 3 * 2 * 4
    assert sum("retained features: 304" in point and "TopK" in point for point in points) == 3
