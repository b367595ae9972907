"""Scores beside those of controls."""

import re

import numpy as np
import pytest
from charts import controls_table, linear, marks, of_kind, placed, said, svg_named, svg_of, texts

from sae_rna import figures
from sae_rna.figures import theme


def test_controls_name_the_best_control_and_write_the_lead():
    svg = svg_named("controls")
    written = texts(svg)
    leads = {"stem": ("+0.100", "neurons"), "GC pair": ("+0.050", "PCA"), "AU pair": ("−0.020", "neurons")}
    for lead, rival in leads.values():
        assert lead in written and rival in written
    assert len([text for text in written if re.fullmatch(r"[+−]0\.\d{3}", text)]) == len(
        leads
    )  # bulge has no control
    fills = {
        text: element.get("fill")
        for element, text in zip([e for e in svg.iter() if e.tag.endswith("}text")], written)
    }
    assert fills["+0.050"] == fills["+0.100"] == "#0072b2" and fills["−0.020"] == theme.GREY
    assert (
        "ahead of every control on 2 of the 3" in figures.controls(controls_table()).to_dict()["description"]
    )


@pytest.mark.parametrize(
    "f1, text, colour",
    [(0.4, "0.000", theme.GREY), (0.4004, "0.000", theme.GREY), (0.402, "+0.002", "#0072b2")],
)
def test_a_tie_is_no_lead(f1, text, colour):
    table = controls_table().query("concept == 'GC pair'")
    svg = svg_of(figures.controls(table.assign(f1=table.f1.replace(0.45, f1))))
    assert [
        element.get("fill")
        for element in svg.iter()
        if element.tag.endswith("}text") and element.text == text
    ] == [colour]


def test_every_known_score_is_one_mark_at_its_place():
    table, svg = controls_table(), svg_named("controls")
    kinds = {kind: of_kind(svg, kind) for kind in ("SAE", "best control", "other controls", "shuffled null")}
    assert {kind: len(points) for kind, points in kinds.items()} == {
        "SAE": 4, "best control": 3, "other controls": 8, "shuffled null": 4}  # fmt: skip
    points = placed(svg)
    assert len(points) == table.f1.notna().sum() + 4
    assert linear([said(label, "held-out F1") for label, *_ in points], [x for _, x, _ in points])
    assert len(marks(svg, "rule mark")) == 4 + 3  # intervals of the one under test and of the best controls


def test_the_first_source_of_the_table_is_under_test():
    table = controls_table()
    svg = svg_of(figures.controls(table.iloc[np.argsort(table.source != "PCA", kind="stable")]))
    assert len(of_kind(svg, "PCA")) == 3 and "−0.200" in texts(svg)  # of stems, SAE being its best control


def test_controls_by_auroc_have_no_null_and_intervals_only_where_they_are_known():
    svg = svg_named("controls by AUROC")
    assert not marks(svg, "rule mark") and not of_kind(svg, "shuffled null")
    assert "−0.300" in texts(svg)  # stems: AUROC .4 against ICA's .7
    table = controls_table()
    svg = svg_of(
        figures.controls(table.assign(auroc_low=table.auroc - 0.1, auroc_high=table.auroc + 0.1), "auroc")
    )
    assert len(marks(svg, "rule mark")) == 4 + 3


def test_a_concept_that_only_controls_have_is_drawn():
    table = controls_table().query("not (concept == 'stem' and source == 'SAE')")
    svg = svg_of(
        figures.controls(table.sort_values("source", key=lambda source: source != "SAE", kind="stable"))
    )
    assert "stem" in texts(svg) and len(of_kind(svg, "best control")) == 3
