"""What features answer to."""

import pytest
from causal_tables import mutations_table, pairing_table
from charts import svg_of
from drawn import linear, placed, said

from sae_rna import figures


def test_every_feature_is_a_point_in_both_panels_and_none_is_moved():
    table = pairing_table()
    points = placed(svg_of(figures.pairing_effects(table)))
    left = [point for point in points if point[0].startswith("lost when")]
    right = [point for point in points if point not in left]
    assert len(left) == len(right) == len(table)
    aurocs = [said(label, "AUROC within bases, stems") for label, *_ in right]
    assert sorted(aurocs) == pytest.approx(sorted(table.auroc), abs=6e-4)
    assert linear(aurocs, [x for _, x, _ in right])


def test_what_is_under_test_is_drawn_last():
    labels = [label for label, *_ in placed(svg_of(figures.pairing_effects(pairing_table())))]
    kinds = [label.split("kind: ")[1].split(";")[0] for label in labels if label.startswith("lost when")]
    assert kinds == ["random weights"] * 4 + ["other features"] * 6 + ["pairing features"] * 2


def test_a_matrix_has_a_cell_for_every_substitution():
    table = mutations_table()
    svg = svg_of(figures.mutation_map(table))
    cells = [element.get("aria-label") for element in svg.iter()
             if element.get("aria-roledescription") == "rect mark"]  # fmt: skip
    assert len(cells) == len(table)
    changes = [said(label, "change") for label in cells]
    assert sorted(changes) == pytest.approx(sorted(table.change), abs=6e-4)
