"""Dictionaries against principal components, and what their features score."""

import pytest
from charts import dictionaries_table, svg_named
from drawn import all_rows, marks, texts

from sae_rna import figures


def test_every_dictionary_is_a_point_in_both_panels_and_components_are_a_line():
    points = marks(svg_named("dictionary frontier"), "point")
    assert len(points) == 2 * len(dictionaries_table())
    assert len(marks(svg_named("dictionary frontier"), "line mark")) == 2
    rows = all_rows(figures.dictionary_frontier(dictionaries_table()))
    assert {"BatchTopK", "ReLU + L1"} <= set(rows.architecture)


def test_both_lengths_of_training_are_told_apart():
    svg = svg_named("dictionary features")
    assert {"all tokens", "half of them"} <= set(texts(svg))
    assert len(marks(svg, "point")) == 3 * 2 * 2  # dictionaries, lengths, measures


def test_a_table_without_rows_is_refused():
    with pytest.raises(ValueError, match="dictionary_frontier: the table has no rows"):
        figures.dictionary_frontier(dictionaries_table().head(0))
