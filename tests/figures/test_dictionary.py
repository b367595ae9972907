"""Dictionaries against principal components, and what their features score."""

import pytest
from charts import dictionaries_table, svg_named
from drawn import all_rows, marks, texts

from sae_rna import figures


def test_every_dictionary_is_a_point_in_both_panels_and_components_are_a_line():
    points = marks(svg_named("dictionary frontier"), "point")
    assert len(points) == 2 * 3
    assert len(marks(svg_named("dictionary frontier"), "line mark")) == 2
    rows = all_rows(figures.dictionary_frontier(dictionaries_table()))
    assert {"BatchTopK", "ReLU + L1"} <= set(rows.architecture)


def test_every_dictionary_is_a_point_of_each_measure():
    assert len(marks(svg_named("dictionary features"), "point")) == 3 * 2  # dictionaries, measures


def test_every_measure_has_a_panel_of_all_lengths_of_training():
    svg = svg_named("dictionary training")
    assert {"explained variance", "dead latents"} <= set(texts(svg))
    assert len(marks(svg, "point")) == 4 * 3  # measures, lengths


def test_a_table_without_rows_is_refused():
    with pytest.raises(ValueError, match="dictionary_frontier: the table has no rows"):
        figures.dictionary_frontier(dictionaries_table().head(0))
