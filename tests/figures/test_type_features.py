"""Features by RNA type, and how many are selective."""

import numpy as np
import pytest
from charts import all_rows, effects_table, marks, svg_of, texts, types_table
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_rna import figures
from sae_rna.figures.type_features import EXPLAINED_TYPE, clustered


def test_type_features_draws_the_union_of_the_top_features_with_their_values():
    table = types_table(2, types=4, features=9)
    rows = all_rows(figures.type_features(table, top=2))
    for layer in (1, 2):
        expected = set(table[(table.layer == layer) & (table["rank"] <= 2)].feature)
        assert set(rows[rows.layer == layer].feature) == expected
    merged = rows.merge(table, on=["layer", "feature", "type"], suffixes=("", "_given"), validate="1:1")
    assert len(merged) == len(rows)
    np.testing.assert_allclose(merged.activation, merged.activation_given)


def test_type_features_takes_first_middle_and_last_of_many_layers():
    spec = figures.type_features(types_table(6)).to_dict()
    assert [panel["title"]["text"] for panel in spec["vconcat"]] == ["layer L1", "layer L4", "layer L6"]


def test_all_panels_of_type_features_share_the_order_of_types():
    spec = figures.type_features(types_table(3)).to_dict()
    orders = [panel["encoding"]["x"]["sort"] for panel in spec["vconcat"]]
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
    svg = svg_of(figures.type_features(table, top=20))
    assert [text for text in texts(svg) if "†" in text] == [
        "† " + EXPLAINED_TYPE,
        "4†" if count == 7 else "†",
    ]
    plain = svg_of(figures.type_features(table.assign(explained=False), top=20))
    assert not [text for text in texts(plain) if "†" in text]


def test_type_effects_write_every_number_and_a_dash_where_nothing_could_be_tested():
    table = effects_table(2)
    svg = svg_of(figures.type_effects(table))
    assert len(marks(svg, "rect mark")) == 4  # snoRNA has none
    for text in ("4", "5", "141", "142"):
        assert text in texts(svg)
    assert texts(svg).count("–") == 2
    order = [text for text in texts(svg) if text in set(table.type)]
    assert order == ["5S rRNA", "tRNA", "snoRNA"]
    assert "from 0 to 142" in figures.type_effects(table).to_dict()["description"]
    assert "from 0 to 0" in figures.type_effects(table.assign(surviving=0)).to_dict()["description"]
