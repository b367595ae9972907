"""Features by RNA type, and how many are selective."""

import re

import numpy as np
import pytest
from charts import effects_table, probe_table, svg_of, types_table
from drawn import all_rows, marks, of_kind, placed, said, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_rna import figures
from sae_rna.figures.type_features import EXPLAINED_TYPE, clustered
from sae_rna.publishing.outputs import chart_svg


def test_type_features_draws_the_union_of_the_top_features_with_their_values():
    table = types_table(2, types=4, features=9)
    rows = all_rows(figures.type_features(table, [1, 2], top=2))
    for layer in (1, 2):
        expected = set(table[(table.layer == layer) & (table["rank"] <= 2)].feature)
        assert set(rows[rows.layer == layer].feature) == expected
    merged = rows.merge(table, on=["layer", "feature", "type"], suffixes=("", "_given"), validate="1:1")
    assert len(merged) == len(rows)
    np.testing.assert_allclose(merged.activation, merged.activation_given)


def test_a_layer_without_features_has_a_panel_that_says_so():
    table = types_table(6)
    chart = figures.type_features(table[table.layer > 1], [1, 4, 6])
    panels = chart.to_dict()["vconcat"]
    assert [panel["title"]["text"] for panel in panels] == ["layer 1", "layer 4", "layer 6"]
    assert "No retained feature in this layer." in texts(svg_of(chart))
    assert set(table.type) <= set(texts(svg_of(chart)))


def test_cells_of_survivors_have_a_dot_and_colours_end_at_the_largest_activation():
    table = types_table(2)
    table["activation"] *= 0.6
    cell = (table.layer == 2) & (table["rank"] == 1) & (table.type == "type 3")
    table["survives"] = np.where(cell, "unseen families", "")
    chart = figures.type_features(table, [1, 2])
    (dot,) = marks(svg_of(chart), "point")
    assert "type: type 3" in dot and f"feature: {table.feature[cell].item()}" in dot
    colour = chart.to_dict()["vconcat"][0]["layer"][0]["encoding"]["color"]
    shown = all_rows(chart).activation.max()
    assert colour["scale"]["domain"] == [0, shown] and shown < 0.61


def test_all_panels_of_type_features_share_the_order_of_types():
    spec = figures.type_features(types_table(3), [1, 2, 3]).to_dict()
    orders = [panel["layer"][0]["encoding"]["x"]["sort"] for panel in spec["vconcat"]]
    assert orders[0] == orders[1] == orders[2]
    assert sorted(orders[0]) == [f"type {i}" for i in range(6)]


@given(st.integers(1, 12), st.integers(1, 5), st.integers(0, 99))
@settings(max_examples=40)
def test_clustering_is_a_permutation(rows, columns, seed):
    assert sorted(clustered(np.random.default_rng(seed).random((rows, columns)))) == list(range(rows))


def test_clustering_brings_equal_rows_together():
    order = clustered(np.array([[0.0, 1], [1, 0], [0, 1], [1, 0], [0, 1]]))
    assert sorted(order[:2]) in ([1, 3], [0, 2], [0, 4], [2, 4]) and {1, 3} in ({*order[:2]}, {*order[3:]})


@pytest.mark.parametrize("count", [7, 60])  # rows with names, and rows too low for names
def test_a_dagger_marks_explained_features_of_types_in_their_layer_alone(count):
    table = types_table(2, types=20, features=count)
    table["explained"] = (table.layer == 2) & (table.feature == 4) & (table.type == "type 3")
    svg = svg_of(figures.type_features(table, [1, 2], top=20))
    assert [text for text in texts(svg) if "†" in text] == [
        "† " + EXPLAINED_TYPE,
        "4†" if count == 7 else "†",
    ]
    plain = svg_of(figures.type_features(table.assign(explained=False), [1, 2], top=20))
    assert not [text for text in texts(plain) if "†" in text]


def test_type_effects_write_every_number_of_types_that_have_any_by_setting():
    table = effects_table(2)
    table.loc[(table.setting == "seen families") & (table.type == "tRNA"), "surviving"] = 0
    svg = svg_of(figures.type_effects(table))
    assert len(marks(svg, "rect mark")) == 2 * 2 * 2  # snoRNA has none in either setting
    assert texts(svg).count("141") == 2 and texts(svg).count("142") == 3  # the highest in the legend, too
    assert texts(svg).count("4") == texts(svg).count("5") == 1
    order = [text for text in texts(svg) if text in set(table.type)]
    assert order == ["5S rRNA", "tRNA"] * 2 and {"seen families", "unseen families"} <= set(texts(svg))
    assert "2 of 3 RNA types" in figures.type_effects(table).to_dict()["description"]


def test_a_dash_stands_where_nothing_could_be_tested():
    table = effects_table(2)
    table.loc[(table.type == "tRNA") & (table.layer == 1), "tested"] = 0
    svg = svg_of(figures.type_effects(table))
    assert texts(svg).count("–") == 2 and len(marks(svg, "rect mark")) == 6


def test_probes_stand_at_their_accuracy_with_their_interval_and_chance_in_each_setting():
    table = probe_table()
    svg = svg_of(figures.type_probe(table))
    assert len(marks(svg, "point")) == len(table)
    for row in table.itertuples():
        written = f"{row.balanced_accuracy:.3f} ({row.low:.3f} to {row.high:.3f})"
        (point,) = [one for one in marks(svg, "point") if written in one]
        assert f"representation: {row.representation}" in point
    features = of_kind(svg, "SAE features")
    assert len(features) == 2 and len(placed(svg)) == len(table)
    assert texts(svg).count("dashes: chance, 0.062") == 2
    assert [said(label, "columns") for label, *_ in features] == [256, 256]


def test_cells_lead_to_the_pages_of_their_features():
    table = types_table(4)
    pages = [f"../atlas/abc-L{layer}-{of}.html" for layer, of in zip(table.layer, table.feature)]
    chart = figures.type_features(table.assign(page=pages), [1, 4])
    svg = chart_svg(chart.to_dict(), "")
    assert set(re.findall(r'xlink:href="([^"]*)"', svg)) == set(all_rows(chart).page)
    assert "href" not in chart_svg(figures.type_features(table, [1, 4]).to_dict(), "")
