"""Leads and relations."""

import numpy as np
import pytest
from charts import funnel_table, logos_table, relations_table, svg_of
from drawn import all_rows, marks, texts

from sae_rna import figures


def test_a_bar_is_as_long_as_what_is_left():
    svg = svg_of(figures.funnel(funnel_table()))
    assert [text for text in texts(svg) if text in ("300", "100", "20", "0")].count("20") == 1
    assert len(marks(svg, "bar")) == 4


def test_a_logo_has_letters_where_something_is_told_and_one_panel_a_feature():
    chart = figures.lead_logos(logos_table(3))
    shapes = all_rows(chart).dropna(subset="order")
    assert set(shapes.position) == {0} and set(shapes.predicted) == {"G"}
    assert shapes.y.max() == pytest.approx(2)
    names = texts(svg_of(chart))
    assert {"L4/0", "L4/1", "L4/2"} <= set(names) and names.count("fires on G; 12 families") == 3


def test_every_pair_is_a_line_between_its_families_and_names_stand_upright():
    chart = figures.relations(relations_table(4), relations_table(1))
    rows = all_rows(chart)
    lines = rows[rows.similarity.notna()]
    assert len(lines) == 5 and sorted(lines.kind) == ["of one type"] * 3 + ["of two types"] * 2
    nodes = rows[rows.angle.notna()].drop_duplicates("family").set_index("family")
    assert len(nodes) == 5
    for line in lines.itertuples():
        ends = nodes.loc[[line.family_a, line.family_b], ["x", "y"]].to_numpy()
        assert np.allclose(ends, [[line.x, line.y], [line.x2, line.y2]])
    turned = (nodes.angle + 180) % 360 - 180
    assert (turned.abs() <= 90 + 1e-6).all()
