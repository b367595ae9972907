"""Masked-base accuracy."""

import re

from charts import masked_table, svg_of, texts

from sae_rna import figures


def test_masked_accuracy_writes_the_tested_predictors_numbers():
    table = masked_table()
    svg = svg_of(figures.masked_accuracy(table))
    written = [text for text in texts(svg) if re.fullmatch(r"0\.\d{3}", text)]
    assert sorted(written) == sorted(f"{value:.3f}" for value in table[table.predictor == "model"].accuracy)
