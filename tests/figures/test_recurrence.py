"""Features that recur."""

from charts import recurrence_table, svg_of
from drawn import linear, placed, said

from sae_rna import figures


def test_recurrence_has_a_null_for_each_comparison():
    table = recurrence_table(4)
    points = placed(svg_of(figures.recurrence(table)))
    random = [place for place in points if "series: random directions" in place[0]]
    assert len(points) == 4 * len(table) and len(random) == 2 * len(table)  # in both panels
    cosines = [(said(label, "cosine"), y) for label, _, y in points if "cosine" in label.split("; ")[1]]
    assert len(cosines) == 2 * len(table) and linear(*zip(*cosines))
    shares = [(said(label, "share of features"), y) for label, _, y in points if "share of features" in label]
    assert len(shares) == 2 * len(table) and linear(*zip(*shares))
