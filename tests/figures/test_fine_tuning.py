"""What fine-tuning gives."""

from causal_tables import curves_table, tuned_table
from charts import svg_of
from drawn import linear, placed, said

from sae_rna import figures


def test_every_method_has_a_point_for_each_side_where_its_change_is():
    table = tuned_table()
    points = placed(svg_of(figures.tuned_methods(table)))
    assert len(points) == len(table.drop_duplicates(["task", "method", "side"]))
    for task in table.task.unique():
        own = [(label, x) for label, x, *_ in points if task in label]
        assert linear([said(label, "change of the loss") for label, _ in own], [x for _, x in own])


def test_methods_of_fewer_parameters_stand_above_those_of_more():
    labels = [(label, y) for label, _, y in placed(svg_of(figures.tuned_methods(tuned_table())))]
    foot = {y for label, y in labels if "(235,065)" in label}
    assert foot == {max(y for _, y in labels)} and len(foot) == 1


def test_curves_have_a_point_for_each_number_of_examples():
    table = curves_table()
    points = placed(svg_of(figures.tuned_examples(table)))
    assert len(points) == len(table)
    half = len(points) // 2
    for panel in (points[:half], points[half:]):
        assert linear([said(label, "change of the loss") for label, *_ in panel], [y for *_, y in panel])
