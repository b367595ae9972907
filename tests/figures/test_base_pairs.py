"""Contact maps and the precision of contacts."""

import pytest
from charts import svg_of
from contact_tables import contacts_table, maps_table
from drawn import marks, placed, said

from sae_rna import figures


def test_scores_stand_above_the_diagonal_and_true_pairs_below_it():
    table = maps_table()
    labels = marks(svg_of(figures.contact_maps(table)), "rect mark")
    shown = sum((table[score] > 0).sum() for score in ("jacobian", "dependency"))
    assert len(labels) == shown + 2 * table.paired.sum()
    found = {(said(label, "i"), said(label, "j")) for label in labels if "paired: true" in label}
    assert found == {(i, 21 - i) for i in range(1, 11)}


def test_every_rna_and_the_mean_of_each_predictor_stand_at_their_precision():
    table = contacts_table(3)
    points = placed(svg_of(figures.contact_precision(table)))
    means = [(said(label, "mean precision"), x) for label, x, _ in points if "mean precision" in label]
    single = [(said(label, "precision"), x) for label, x, _ in points if "mean precision" not in label]
    expected = table.groupby(["set", "length", "predictor"]).precision.mean()
    assert sorted(value for value, _ in means) == pytest.approx(sorted(expected), abs=6e-4)
    assert sorted(value for value, _ in single) == pytest.approx(sorted(table.precision), abs=6e-4)
    places = {x / value for value, x in means + single}
    assert max(places) == pytest.approx(min(places), abs=0.6)
