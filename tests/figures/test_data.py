"""Lengths of the records."""

from charts import LENGTHS
from drawn import all_rows

from sae_rna import figures


def test_lengths_are_binned_without_losing_a_record():
    rows = all_rows(figures.length_distribution(LENGTHS))
    assert rows[["group", "length", "end", "records"]].to_numpy().tolist() == [
        ["train", 20, 30, 12],
        ["natural", 200, 210, 11],
    ]
