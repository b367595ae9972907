"""What features do."""

import numpy as np
import pytest
from causal_tables import doses_table, interventions_table, steered_table
from charts import svg_of
from drawn import all_rows, linear, placed, said

from sae_rna import figures


def test_every_effect_is_a_point_where_it_belongs():
    table = interventions_table()
    points = placed(svg_of(figures.interventions(table)))
    assert len(points) == len(table)
    for half in (points[: len(table) // 2], points[len(table) // 2 :]):
        effects = [said(label, "change of the log-odds of the true base") for label, *_ in half]
        assert linear(effects, [x for _, x, _ in half])


def test_doses_have_a_line_for_each_source_and_the_same_scale_in_both_panels():
    table = doses_table()
    points = placed(svg_of(figures.dose_response(table)))
    effects = [said(label, "change of log-odds") for label, *_ in points]
    assert len(points) == len(table) and linear(effects, [y for *_, y in points])


def test_letters_are_as_high_as_what_they_tell():
    shapes = all_rows(figures.logo(steered_table(12))).dropna(subset="order")
    assert set(shapes.column) == {"own"}  # where all bases have as much, nothing is told
    heights = shapes.groupby(["position", "predicted"]).y.agg(np.ptp).unstack()
    bits = 2 + 0.97 * np.log2(0.97) + 3 * 0.01 * np.log2(0.01)
    assert len(heights) == 12 and heights["A"].tolist() == pytest.approx([0.97 * bits] * 12, abs=0.02)
    assert shapes.y.max() <= 2 and set(shapes.predicted) == {"A"}
