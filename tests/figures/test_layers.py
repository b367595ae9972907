"""Retained features and sparsity over layers."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
from charts import layers_table, sparsity_table, svg_of
from drawn import all_rows, marks, placed, texts

from sae_rna import figures


def test_equal_cells_have_one_colour_and_colours_are_those_of_absolute_values():
    table = layers_table(3)
    table["explained_variance"] = [0.1, 0.2, 0.3, 0.9, 0.8, 0.7]
    table.loc[table.architecture == "topk", "l0"] = [16, 15.999999999999998, 16]
    rows = all_rows(figures.layer_sparsity(table, "topk"))
    variance = rows[rows.measure == "explained variance"].sort_values(["architecture", "layer"])
    assert variance.label.tolist() == ["0.100", "0.200", "0.300", "0.900", "0.800", "0.700"]
    np.testing.assert_allclose(variance.shade, [0.1, 0.2, 0.3, 0.9, 0.8, 0.7])
    dead = rows[rows.measure == "dead features"]
    assert set(dead.label) == {"30.0%"} and set(dead.shade) == {0.3}
    active = rows[rows.measure == "active latents per nucleotide"]
    assert active.shade.nunique() == active.rounded.nunique() == active.label.nunique() == 1
    assert not (rows[rows.architecture == "relu-l1"].measure == "type selectivity (tau)").any()


def test_ten_times_more_is_as_far_on_the_scale_of_shares_everywhere():
    table = layers_table(3)
    table = table[table.architecture == "topk"].assign(density_p50=[0.001, 0.01, 0.1])
    rows = all_rows(figures.layer_sparsity(table, "topk"))
    np.testing.assert_allclose(rows[rows.column == "density_p50"].shade, [0.25, 0.5, 0.75])
    fills = re.findall(r'aria-label="layer: ([123]); measure: firing density, 50th[^"]*"[^>]*fill="([^"]+)"',
                       ElementTree.tostring(svg_of(figures.layer_sparsity(table, "topk")), "unicode"))  # fmt: skip
    assert len({fill for _, fill in fills}) >= 3


def test_every_cell_and_every_label_has_a_tooltip():
    svg = svg_of(figures.layer_sparsity(layers_table(2), "topk"))
    spoken = [
        label for kind in ("rect mark", "text mark") for label in marks(svg, kind) if "measure" in label
    ]
    cells = len(all_rows(figures.layer_sparsity(layers_table(2), "topk")))
    assert len(spoken) == 2 * cells and all("value: " in label for label in spoken)


def test_compared_architectures_have_fewer_rows_and_none_where_they_read_like_another():
    table = layers_table(3)
    twin = table[table.architecture == "topk"].assign(architecture="batchtopk")
    spec = figures.layer_sparsity(pd.concat([table, twin]), "topk").to_dict()
    assert [panel["title"] for panel in spec["vconcat"]] == ["TopK", "ReLU + L1"]
    rows = all_rows(figures.layer_sparsity(table, "topk"))
    assert rows[rows.architecture == "topk"].measure.nunique() == 13
    assert set(rows[rows.architecture == "relu-l1"].column) == {
        "l0_share", "density_p50", "dead_share", "explained_variance"
    }  # fmt: skip


def test_type_sparsity_draws_both_models_on_one_scale_with_types_by_the_first_ones_shares():
    table = sparsity_table(3)
    table.loc[table.source == "random weights", "active"] /= 2
    chart = figures.type_sparsity(table)
    svg = svg_of(chart)
    assert len([label for label in marks(svg, "rect mark") if "type: " in label]) == 12
    assert len([label for label in marks(svg, "point") if "source: " in label]) == 2 * 2 * 3
    scales = [panel["layer"][0]["encoding"]["color"]["scale"]["domain"] for panel in
              chart.to_dict()["vconcat"][0]["hconcat"]]  # fmt: skip
    assert scales == [[0, table.active.max()]] * 2
    assert [text for text in texts(svg) if text in ("tRNA", "miRNA")] == ["miRNA", "tRNA"]


def test_a_layer_whose_features_are_all_dead_is_still_drawn():
    table = layers_table(3)
    density = [column for column in table if column.startswith("density")]
    table.loc[0, density] = np.nan
    table.loc[1, density] = 0.0
    table.loc[0, ["dead_share", "retained", "l0"]] = [1.0, 0, 0.0]
    svg = svg_of(figures.retained_features(table))
    assert sum("retained features: 0" in label for label in marks(svg, "point")) >= 1
    svg_of(figures.layer_sparsity(table, "topk"))


def test_retained_features_draws_a_point_per_layer_and_architecture_in_each_panel():
    points = marks(svg_of(figures.retained_features(layers_table(4))), "point")
    assert len(points) == 3 * 2 * 4
    assert sum("retained features: 304" in point and "TopK" in point for point in points) == 3


def test_points_of_two_architectures_with_equal_values_do_not_hide_each_other():
    table = layers_table(3).assign(dead_share=0.3, retained=300)
    places = {(round(x), round(y)) for label, x, y in placed(svg_of(figures.retained_features(table)))}
    assert len(places) == 2 * 3 * 3
