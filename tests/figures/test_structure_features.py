"""Scores of structural elements."""

import numpy as np
from charts import scores_table, svg_of, texts

from sae_rna import figures
from sae_rna.figures import theme
from sae_rna.figures.structure_features import EXPLAINED


def test_only_features_above_both_controls_get_a_filled_point():
    svg = svg_of(figures.element_scores(scores_table(6)[lambda table: table.element == "S"]))
    points = [element for element in svg.iter() if element.get("aria-roledescription") == "point"]
    assert [point.get("fill") for point in points] == ["white"] * 3 + [
        theme.ELEMENT_COLOURS["S"]
    ] * 3  # F1 .1 ... .6, null .35


def test_features_that_confounds_explain_are_hollow_diamonds_and_the_legend_says_so():
    table = scores_table(6)[lambda table: table.element == "S"].assign(
        explained=[True, False, False, True, False, np.nan]
    )
    svg = svg_of(figures.element_scores(table))
    points = [element for element in svg.iter() if element.get("aria-roledescription") == "point"]
    assert ["A" in point.get("d") for point in points] == [
        False,
        True,
        True,
        False,
        True,
        True,
    ]  # an arc makes a circle
    assert [point.get("fill") for point in points] == ["white"] * 4 + [theme.ELEMENT_COLOURS["S"]] * 2
    assert EXPLAINED in texts(svg) and "not explained" not in texts(svg)
