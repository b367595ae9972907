"""Masked-base accuracy, and what reads stems."""

import re

import numpy as np
import pytest
from charts import masked_table, readers_table, svg_of
from drawn import linear, marks, placed, said, texts

from sae_rna import figures


def test_masked_accuracy_writes_the_tested_predictors_numbers():
    table = masked_table()
    svg = svg_of(figures.masked_accuracy(table))
    written = [text for text in texts(svg) if re.fullmatch(r"0\.\d{3}", text)]
    assert sorted(written) == sorted(f"{value:.3f}" for value in table[table.predictor == "model"].accuracy)


def test_predictors_of_a_set_stand_below_each_other_and_no_two_points_meet():
    table = masked_table().assign(accuracy=0.5)
    points = placed(svg_of(figures.masked_accuracy(table)))
    assert len(points) == len(table)
    assert len({round(y, 3) for *_, y in points}) == 2 * 3  # two sets of three predictors, in every panel


@pytest.mark.parametrize("count", [1, 6])
def test_probes_are_lines_by_layer_and_what_reads_the_sequence_is_a_rule_across(count):
    table = readers_table(count)
    svg = svg_of(figures.stem_readers(table))
    labels = marks(svg, "point")
    assert len(labels) == table.layer.notna().sum()
    rules = [label for label in marks(svg, "rule mark") if "one-hot window" in label]
    assert sorted(said(label, "AUROC within bases") for label in rules) == [0.6, 0.61]


def test_scores_of_probes_stand_at_their_height():
    table = readers_table(6).round(2)
    points = placed(svg_of(figures.stem_readers(table)))
    scores = [said(label, "AUROC within bases") for label, _, _ in points]
    np.testing.assert_allclose(sorted(scores), sorted(table.dropna(subset="layer").base_auroc), atol=6e-4)
    assert linear(scores, [y for *_, y in points])
