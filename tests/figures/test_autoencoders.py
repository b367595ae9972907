"""Training curves."""

from charts import training_table
from drawn import all_rows

from sae_rna import figures
from sae_rna.figures import theme


def test_training_curves_keep_their_ends_when_thinned():
    table = training_table(33, 300)
    drawn = all_rows(figures.training(table))
    assert len(drawn) <= theme.MAXIMUM_ROWS
    ends = drawn.groupby(["architecture", "layer"]).tokens.agg(["min", "max"])
    assert len(ends) == 66 and set(ends["min"]) == {1024} and set(ends["max"]) == {300 * 1024}
    short = training_table(2, 5)
    assert len(all_rows(figures.training(short))) == len(short)
