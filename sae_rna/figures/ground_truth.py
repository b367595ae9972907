"""Planted latents that dictionaries find again, and what of the firing of named features survives."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import BLUE, GREY, INK, MIDDLE, STROKE, WIDTH

_RIGHT, _WRONG = "as the structure", "as the letters"
_MOST = 1.5  # shares above are drawn there
_PANEL, _VERDICT = 96, 118  # pixels: width of a test's panel, and of the verdicts


def planted_latents(table: pd.DataFrame) -> alt.LayerChart:
    """Heat map of planted latents by dictionary: F1, the harmonic mean of precision and recall, in the cell.

    table : one row per source x latent, with source, latent, f1, precision, recall and cosine (0..1)
    """
    table = theme.checked(table, "planted_latents", "source latent f1 precision recall cosine")
    table["source"] = table.source.map(theme.architecture_name)
    table["label"] = table.f1.map("{:.2f}".format)
    sources, latents = (list(dict.fromkeys(table[column])) for column in ("source", "latent"))
    axis = theme.bare_axis(labelAngle=-35, orient="top", labelLimit=150)
    x = alt.X("source:N", sort=sources, title=None, axis=axis)
    y = alt.Y("latent:N", sort=latents, title=None, axis=theme.bare_axis(labelLimit=theme.NAMES + 20))
    colour = theme.gradient("f1", "F1", theme.SEQUENTIAL, 140, values=[0, 0.5, 1])
    tooltip = ["source:N", "latent:N"]
    tooltip += theme.tooltips(".2f", f1="F1", precision="precision", recall="recall")
    tooltip += theme.tooltips(".2f", cosine="cosine with the planted direction")
    base = alt.Chart(table).encode(x=x, y=y, tooltip=tooltip)
    ink = alt.condition("datum.f1 > 0.6", alt.value("white"), alt.value(INK))
    chart = base.mark_rect(stroke="white").encode(color=colour) + base.mark_text(fontSize=10).encode(
        text="label:N", color=ink
    )
    means = table.groupby("source", sort=False).f1.mean()
    words = ", ".join(f"{source} {mean:.2f}" for source, mean in means.items())
    return chart.properties(
        width=WIDTH - theme.NAMES - 50,
        height=alt.Step(17),
        description=f"Heat map of F1 of {len(latents)} planted latents in {len(sources)} dictionaries; "
        f"means: {words}.",
    )


def falsification(table: pd.DataFrame) -> alt.VConcatChart | alt.Chart:
    """What of each named feature's firing survives each test, a column a test and a panel a setting.

    Blue on the side of the structure, orange and hollow on that of the letters; grey strokes are the features
    of the control. table : one row per source x setting x concept x test, with source (the first one is under
    test), setting, concept, test, stays (whether the structure does), bound, share, low, high and verdict
    """
    columns = "source setting concept test stays bound share low high verdict"
    if table.empty:
        return theme.nothing("No feature counts as found, so none has a name that could be tested.")
    table = theme.checked(table, "falsification", columns)
    tested = table.source == table.source.iloc[0]
    right = (table.share > table.bound) == table.stays.eq(True)
    table["kind"] = np.where(~tested, "control", np.where(right, _RIGHT, _WRONG))
    table["written"] = list(map(theme.interval_text, table.share, table.low, table.high))
    for column in ("share", "low", "high"):
        table[column] = table[column].clip(upper=_MOST)
    names, panels = list(dict.fromkeys(table.setting[tested])), []
    for setting in names:
        rows = table[table.setting == setting]
        concepts = list(dict.fromkeys(rows.concept[rows.source == table.source.iloc[0]]))
        rows = rows[rows.concept.isin(concepts)]
        panels.append(_setting(rows, concepts, setting, setting == names[0], setting == names[-1]))
    kept = table[tested].groupby(["setting", "concept"]).verdict.first().str.startswith("keeps")
    return alt.vconcat(*panels, spacing=14).properties(
        description=f"Dot plots of the share of firing that survives each of {table.test.nunique()} tests: "
        f"{kept.sum()} of {len(kept)} features keep their names."
    )


def _setting(rows: pd.DataFrame, concepts: list, setting: str, first: bool, last: bool) -> alt.HConcatChart:
    """The panels of one setting."""
    panels: list[alt.LayerChart] = []
    for test in dict.fromkeys(rows.test):
        here = rows[rows.test == test]
        y = theme.concept_rows(concepts)
        y.scale = alt.Scale(domain=concepts)
        if panels:
            y.axis = None
        layers = _marks(here.dropna(subset="share"), y, float(here.bound.iloc[0]), last)
        if first:
            layers.append(theme.heading(test, 0, y=-24, limit=_PANEL + 8, color=INK))
            wanted = "must stay" if here.stays.iloc[0] else "must fall"
            layers.append(theme.heading(wanted, 0, color=GREY))
        if not panels:
            layers.append(theme.heading(setting, -theme.NAMES, fontSize=12, fontWeight="bold", color=INK))
        if test == rows.test.iloc[-1]:
            own = here[here.kind != "control"]
            words = alt.Chart(own).mark_text(x=_PANEL + 12, align="left", fontSize=11)
            bold = alt.condition("datum.verdict == 'keeps its name'", alt.value(BLUE), alt.value(GREY))
            layers.append(words.encode(y=y, text="verdict:N", color=bold))
        panels.append(alt.layer(*layers).properties(width=_PANEL, height=alt.Step(19)))
    return alt.hconcat(*panels, spacing=14, bounds="flush")


def _marks(rows: pd.DataFrame, y: alt.Y, bound: float, last: bool) -> list:
    """The bound, intervals of the features under test, and points of these and of the control."""
    axis = alt.Axis(values=[0, 0.5, 1], format=".0%", title=None, labels=last, ticks=last, domain=last)
    scale = alt.Scale(domain=[0, _MOST])
    x, low = alt.X("share:Q", axis=axis, scale=scale), alt.X("low:Q", axis=axis, scale=scale)
    looks = {_RIGHT: (BLUE, BLUE, "circle"), _WRONG: ("#b34700", "white", "diamond")}
    looks["control"] = (MIDDLE, MIDDLE, STROKE)
    legend = {"symbolSize": 75, "symbolStrokeWidth": 1.6, "offset": 30}
    look = theme.kinds("kind", looks, (alt.Stroke, alt.Fill, alt.Shape), legend)
    tooltip = [
        "source:N",
        "concept:N",
        "test:N",
        *theme.tooltips(written="share that survives", verdict="verdict"),
    ]
    own = alt.Chart(rows[rows.kind != "control"]).encode(y=y)
    rule = alt.Chart(pd.DataFrame({"share": [bound]})).mark_rule(color="#c9c9c9", strokeWidth=1.5)
    control = alt.Chart(rows[rows.kind == "control"]).encode(y=y)
    interval = own.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.4, color=GREY)
    return [
        rule.encode(x=x),
        control.mark_point(size=60).encode(*look, x=x, tooltip=tooltip),
        interval.encode(x=low, x2="high:Q"),
        own.mark_point(size=60, strokeWidth=1.6).encode(*look, x=x, tooltip=tooltip),
    ]
