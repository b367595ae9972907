"""Scores of structural elements, and sparse probes."""

import numpy as np
import pytest
from charts import SETTINGS, scores_table, sparse_probe_table, svg_of
from drawn import linear, marks, placed, said, texts

from sae_rna import figures
from sae_rna.figures import theme
from sae_rna.figures.structure_features import CHANCE, CLEAR, EXPLAINED, UNCLEAR


def points_of(table):
    """The points of a drawn chart as SVG elements, from the first layer to the last."""
    points = [mark for mark in svg_of(figures.element_scores(table)).iter() if is_point(mark)]
    return sorted(points, key=lambda point: said(point.get("aria-label"), "layer"))


def is_point(mark):
    return mark.get("aria-roledescription") == "point" and "verdict" in mark.get("aria-label")


def stems(setting="unseen families", **changes):
    table = scores_table(6)
    return table[(table.element == "S") & (table.setting == setting)].assign(**changes)


@pytest.mark.parametrize("setting", SETTINGS)
def test_only_features_whose_interval_is_above_the_null_get_a_filled_point_in_the_colour_of_the_setting(
    setting,
):
    points, colour = points_of(stems(setting, null_p95=0.57)), theme.SETTING_COLOURS[setting]
    # intervals start at .43, .48, .53, .58, .63 and .68
    assert [point.get("fill") for point in points] == ["white"] * 3 + [colour] * 3
    assert [UNCLEAR in point.get("aria-label") for point in points] == [True] * 3 + [False] * 3
    assert all(colour in (point.get("fill"), point.get("stroke")) for point in points)


def test_features_that_confounds_explain_are_hollow_diamonds_and_the_legend_says_so():
    table = stems(explained=[True, False, False, True, False, np.nan], null_p95=0.3)
    points = points_of(table)
    # an arc makes a circle
    assert ["A" in point.get("d") for point in points] == [False, True, True, False, True, True]
    hollow = [point.get("fill") == "white" for point in points]
    assert hollow == [True, False, False, True, False, False]
    written = texts(svg_of(figures.element_scores(table)))
    assert EXPLAINED in written and UNCLEAR in written and CLEAR not in written and CHANCE in written


def test_scores_stand_at_their_height_and_nothing_is_cut_off():
    table = stems().assign(base_auroc_high=0.93)
    points = [place for place in placed(svg_of(figures.element_scores(table))) if "verdict" in place[0]]
    scores = [said(label, "AUROC within bases") for label, _, _ in points]
    assert sorted(scores) == pytest.approx(sorted(table.base_auroc)) and linear(
        scores, [y for *_, y in points]
    )
    assert "0.95" in figures.element_scores(table).to_json()  # a twentieth that covers the highest interval


def test_elements_of_each_setting_are_counted_in_the_order_of_the_settings():
    table = scores_table(2)
    table.loc[table.setting == "seen families", "elements"] = 7
    written = texts(svg_of(figures.element_scores(table)))
    assert written.count("n = 7 / 1,200") == table.element.nunique()


def test_a_sparse_probe_has_a_line_for_each_source_in_each_panel_and_the_dense_probe_as_a_square():
    table = sparse_probe_table()
    svg = svg_of(figures.sparse_probe(table))
    points = marks(svg, "point")
    assert len(points) == len(table) and len(marks(svg, "line mark")) == 3 * 2 * 2
    dense = [label for label in points if "columns read: 128" in label]
    assert len(dense) == 12 and all("all columns" in label for label in dense)
    assert sum("all columns" in label for label in points) == 12
    assert {"stem, seen families", "hairpin loop, unseen families"} <= set(texts(svg))


def test_the_number_of_columns_read_is_drawn_on_a_logarithmic_axis():
    table = sparse_probe_table().query(
        "setting == 'seen families' and element == 'S' and source == 'latents'"
    )
    points = placed(svg_of(figures.sparse_probe(table)))
    read = [np.log2(said(label, "columns read")) for label, _, _ in points]
    assert linear(read, [x for _, x, _ in points])
