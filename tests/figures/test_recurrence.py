"""Features that recur."""

from charts import linear, placed, recurrence_table, said, svg_of

from sae_rna import figures


def test_recurrence_has_a_null_for_each_comparison():
    table = recurrence_table(4)
    points = placed(svg_of(figures.recurrence(table)))
    random = [place for place in points if "series: random dictionary" in place[0]]
    assert len(points) == 3 * len(table) and len(random) == len(table)
    shares = [(said(label, "share of features"), y) for label, _, y in points if "share of features" in label]
    assert len(shares) == 2 * len(table) and linear(*zip(*shares))
