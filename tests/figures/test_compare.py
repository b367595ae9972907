"""Two groups of RNAs."""

import pytest
from charts import places_table, svg_of, volcano_table
from drawn import all_rows, linear, marks, placed, said, texts

from sae_rna import figures


def test_every_feature_is_a_point_and_no_two_names_touch():
    table = volcano_table()
    svg = svg_of(figures.volcano(table, "tRNA", "rRNA"))
    points = placed(svg)
    assert len(points) == len(table)
    effects = [said(label, "effect") for label, *_ in points]
    assert linear(effects, [x for _, x, _ in points])
    names = [text for text in texts(svg) if text.startswith("L") and "/" in text]
    assert 2 <= len(names) <= 6 and {"L1/0", "L5/40"} <= set(names)
    with pytest.raises(ValueError, match="no rows"):
        figures.volcano(table.head(0), "a", "b")


def test_features_that_do_not_differ_get_no_name():
    table = volcano_table().assign(verdict="does not differ")
    assert not [text for text in texts(svg_of(figures.volcano(table, "a", "b"))) if "/" in text]


def test_a_rare_feature_is_as_visible_as_a_frequent_one():
    table = places_table()
    chart = figures.firing_places(table, "tRNA", "rRNA")
    rows = all_rows(chart)
    assert (rows.relative == rows.place.isin(["3", "stem"])).all() and rows.feature.nunique() == 2
    assert len(marks(svg_of(chart), "rect mark")) == len(table)
