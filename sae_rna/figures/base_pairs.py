"""Contacts read out of a language model, beside the pairs of the known structure."""

import altair as alt
import pandas as pd

from sae_rna.figures import theme

_SCORES = {"jacobian": "categorical Jacobian", "dependency": "nucleotide dependencies"}
_HEADLESS = "The checkpoint has no head for masked bases, so no contacts can be read from it."
_LOOKS = (
    (theme.BLUE, "circle"),
    ("#d55e00", "square"),
    (theme.MIDDLE, "triangle-up"),
    (theme.DARK, theme.STROKE),
)


def contact_maps(table: pd.DataFrame) -> alt.VConcatChart | alt.Chart:
    """Contact scores of some RNAs as heat maps, a row of panels an RNA, its true pairs in the lower triangle.

    `table`: one row per pair of positions, with set, rna, nucleotides, i < j (from 1), bases ("GC"),
    jacobian, dependency (as shares of the highest), paired. Pairs that are missing are white.
    """
    if table.empty:
        return theme.nothing(_HEADLESS)
    columns = "set rna nucleotides i j bases jacobian dependency paired"
    table = theme.checked(table, "contact_maps", columns)
    rows: list[alt.TopLevelMixin] = []
    for (of, rna), cells in table.groupby(["set", "rna"], sort=False):
        panels: list[alt.TopLevelMixin] = [_contact_map(cells, score) for score in _SCORES]
        title = f"{rna}, {cells.nucleotides.iloc[0]} nt, {of}"
        rows.append(alt.hconcat(*panels, spacing=24).properties(title=title))
    names = " and ".join(dict.fromkeys(table.rna))
    return alt.vconcat(*rows, spacing=18).properties(
        description=f"Heat maps of contacts in {names}, by categorical Jacobian and nucleotide dependencies "
        "of the language model, with the true pairs in the lower triangle."
    )


def _contact_map(cells: pd.DataFrame, score: str) -> alt.LayerChart:
    """One panel: the score at column j of row i, and each pair at column i of row j."""
    length, tooltip = int(cells.nucleotides.iloc[0]), theme.tooltips("", "i", "j", "bases", "paired")
    tooltip += theme.tooltips(".2f", **{score: "share of the highest score"})
    scale = alt.Scale(domain=[0.5, length + 0.5], nice=False, zero=False)
    axis = alt.Axis(grid=False, tickCount=5, title=None)
    base = alt.Chart(cells).transform_calculate(left="datum.i - 0.5", right="datum.i + 0.5",
                                                top="datum.j - 0.5", bottom="datum.j + 0.5")  # fmt: skip
    down = scale.copy()
    down.reverse = True
    x, y = {"scale": scale, "axis": axis}, {"scale": down, "axis": axis}
    colour = theme.gradient(score, "score", theme.SEQUENTIAL, 90, format=".1f")
    heat = base.transform_filter(f"datum.{score} > 0").mark_rect().encode(
        alt.X("top:Q", **x), alt.Y("left:Q", **y), x2="bottom:Q", y2="right:Q", color=colour, tooltip=tooltip
    )  # fmt: skip
    pairs = base.transform_filter("datum.paired").mark_rect(color=theme.INK).encode(
        alt.X("left:Q", **x), alt.Y("top:Q", **y), x2="right:Q", y2="bottom:Q", tooltip=tooltip
    )  # fmt: skip
    ends = alt.Chart(pd.DataFrame({"at": [0.5], "to": [length + 0.5]}))
    diagonal = ends.mark_rule(color=theme.LIGHT).encode(
        alt.X("at:Q", **x), alt.Y("at:Q", **y), x2="to:Q", y2="to:Q"
    )
    size = 280
    return alt.layer(diagonal, heat, pairs).properties(width=size, height=size, title=_SCORES[score])


def contact_precision(table: pd.DataFrame) -> alt.HConcatChart | alt.Chart:
    """Precision of predicted contacts by length, a panel for each set: each RNA as a faint point, the mean as
    a bold one.

    `table`: one row per RNA and predictor, with id, set, length (a class), predictor (the first one is under
    test), precision (0..1). Predictors of a class stand below each other.
    """
    if table.empty:
        return theme.nothing(_HEADLESS)
    table = theme.checked(table, "contact_precision", "id set length predictor precision")
    sets, predictors = list(dict.fromkeys(table["set"])), list(dict.fromkeys(table.predictor))
    lengths = sorted(set(table.length))
    legend = {"columns": 2, "labelLimit": 320}
    looks = dict(zip(predictors, _LOOKS))
    channels = theme.kinds("predictor", looks, (alt.Color, alt.Shape), legend, sort=predictors)
    x = alt.X("precision:Q", title="precision", scale=alt.Scale(domain=[0, 1]), axis=alt.Axis(tickCount=5))
    panels: list[alt.TopLevelMixin] = []
    for of in sets:
        axis = theme.bare_axis(labels=not panels, grid=False)
        y = alt.Y("length:N", title=None, sort=lengths, axis=axis, scale=alt.Scale(paddingInner=0.3))
        base = alt.Chart(table[table["set"] == of])
        base = base.encode(x=x, y=y, yOffset=alt.YOffset("predictor:N", sort=predictors))
        tooltip = theme.tooltips("", "id", "length", "predictor") + theme.tooltips(".3f", "precision")
        single = base.mark_point(size=30, opacity=0.3).encode(*channels, tooltip=tooltip)
        summary = base.transform_aggregate(
            mean="mean(precision)", rnas="count()", groupby=["length", "predictor"]
        )
        tooltip = theme.tooltips("", "length", "predictor", rnas="RNAs")
        tooltip += theme.tooltips(".3f", mean="mean precision")
        bold = summary.mark_point(size=80).encode(*channels, x=alt.X("mean:Q"), tooltip=tooltip)
        width = (theme.WIDTH - 110) // len(sets) - 12
        panels.append((single + bold).properties(width=width, height=64 * len(lengths), title=of))
    return alt.hconcat(*panels, spacing=14).properties(
        description=f"Precision of predicted contacts by length of the RNA: {', '.join(predictors)}, "
        f"in {' and '.join(sets)}."
    )
