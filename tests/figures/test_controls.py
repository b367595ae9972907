"""Scores beside those of controls."""

import re

import numpy as np
import pytest
from charts import controls_table, svg_named, svg_of
from drawn import linear, marks, of_kind, placed, said, texts

from sae_rna import figures
from sae_rna.figures import theme

SCORE = "AUROC within bases"


def fills(svg):
    """Colour of every text."""
    elements = [element for element in svg.iter() if element.tag.endswith("}text")]
    return {"".join(element.itertext()): element.get("fill") for element in elements}


def test_the_colour_of_a_lead_follows_its_interval_and_not_its_sign():
    colours = fills(svg_named("controls"))
    leads = {text: colour for text, colour in colours.items() if re.fullmatch(r"[+−]0\.\d{3}", text)}
    # clearly positive; positive, but its interval reaches 0; clearly negative. Bulge has no control
    assert leads == {"+0.100": theme.BLUE, "+0.050": theme.GREY, "−0.020": "#b34700"}
    said = figures.controls(controls_table()).to_dict()["description"]
    assert "clearly positive 1 times, clearly negative 1" in said


def test_a_lead_of_nothing_has_no_sign():
    table = controls_table().query("concept == 'GC pair'").reset_index(drop=True)
    for lead in (0.0, 0.0004, -0.0004):
        table.loc[0, ["lead", "lead_low", "lead_high"]] = lead, -0.01, 0.01
        assert fills(svg_of(figures.controls(table)))["+0.000"] == theme.GREY


def test_every_known_score_is_one_mark_at_its_place():
    table, svg = controls_table(), svg_named("controls")
    kinds = {kind: of_kind(svg, kind) for kind in ("SAE", "best control", "other controls", "shuffled null")}
    assert {kind: len(points) for kind, points in kinds.items()} == {
        "SAE": 4, "best control": 3, "other controls": 8, "shuffled null": 4}  # fmt: skip
    points = placed(svg)
    assert len(points) == table.base_auroc.notna().sum() + 4
    assert linear([said(label, SCORE) for label, *_ in points], [x for _, x, _ in points])
    # intervals of the one under test and of the best controls, and the line at 0.5 in both groups
    assert len(marks(svg, "rule mark")) == 4 + 3 + 2


def test_settings_stand_side_by_side_on_one_axis():
    svg, written = svg_named("controls in two settings"), texts(svg_named("controls in two settings"))
    assert {"seen families", "unseen families"} <= set(written) and written.count("stem") == 1
    points = [place for place in of_kind(svg, "SAE") if "concept: stem" in place[0]]
    alone = [place for place in of_kind(svg, "SAE") if "concept: GC pair" in place[0]]
    values, places = zip(*((said(label, SCORE), x) for label, x, _ in points + alone))
    assert len(points) == 2 and linear(values, places)  # in panels of the same width and scale
    assert written.count("+0.100") == 2


def test_the_first_source_of_the_table_is_under_test():
    table = controls_table()
    svg = svg_of(figures.controls(table.iloc[np.argsort(table.source != "PCA", kind="stable")]))
    assert len(of_kind(svg, "PCA")) == 3


def test_controls_by_f1_have_an_always_on_feature_no_leads_and_intervals_where_they_are_known():
    svg = svg_named("controls by F1")
    assert not marks(svg, "rule mark") and len(of_kind(svg, "always-on feature")) == 4
    assert not [text for text in texts(svg) if re.fullmatch(r"[+−]0\.\d{3}", text)]
    table = controls_table()
    svg = svg_of(figures.controls(table.assign(f1_low=table.f1 - 0.1, f1_high=table.f1 + 0.1), "f1"))
    assert len(marks(svg, "rule mark")) == 4 + 3


def test_a_concept_that_only_controls_have_is_drawn():
    table = controls_table().query("not (concept == 'stem' and source == 'SAE')")
    svg = svg_of(
        figures.controls(table.sort_values("source", key=lambda source: source != "SAE", kind="stable"))
    )
    assert "stem" in texts(svg) and len(of_kind(svg, "best control")) == 3


def test_a_column_is_missed_by_name():
    with pytest.raises(KeyError, match="lead_low"):
        figures.controls(controls_table().drop(columns="lead_low"))
