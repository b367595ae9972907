"""Leads: how many features fall at each filter, what is around those that are left, and related families."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.use import outlines, stacks

_SAME, _OTHER = "of one type", "of two types"
_LONGEST = 26  # letters of a family's name


def funnel(table: pd.DataFrame) -> alt.LayerChart:
    """Features left after each filter, a bar per step.

    `table`: one row per step, in order, with step, rule, left and fell.
    """
    table = theme.checked(table, "funnel", "step rule left fell")
    axis = theme.bare_axis(labelLimit=theme.NAMES + 40, grid=False)
    y = alt.Y("step:N", title=None, sort=table.step.tolist(), axis=axis)
    x = alt.X("left:Q", title="features left", axis=alt.Axis(tickCount=5))
    base = alt.Chart(table).encode(x=x, y=y)
    tooltip = ["step:N", "rule:N", *theme.tooltips(",", "left", "fell")]
    words = base.mark_text(align="left", dx=4, fontSize=11).encode(text=alt.Text("left:Q", format=","))
    chart = base.mark_bar(color=theme.TEAL, height=14).encode(tooltip=tooltip) + words
    counts = ", ".join(f"{row.step} {row.left}" for row in table.itertuples())
    return chart.properties(
        width=theme.WIDTH - 210,
        height=alt.Step(22),
        description=f"Features left after each filter: {counts}.",
    )


def lead_logos(table: pd.DataFrame) -> alt.VConcatChart | alt.Chart:
    """Sequence logos of the bases around the strongest nucleotide of features, two side by side.

    `table`: one row per feature, position (0: the strongest) and base, with layer, reading, share, families.
    """
    if table.empty:
        return theme.nothing("No feature passes all filters: there is no lead.")
    table = theme.checked(table, "lead_logos", "layer feature position base share reading families")
    ends, panels = (table.position.min() - 0.6, table.position.max() + 0.6), list[alt.TopLevelMixin]()
    axis = alt.Axis(grid=False, labelExpr="(datum.value > 0 ? '+' : '') + datum.label")
    x = alt.X("x:Q", title=None, scale=alt.Scale(domain=ends, nice=False), axis=axis)
    groups = [*table.groupby(["layer", "feature"], sort=False)]
    drawn = [outlines(rows.pivot(index="position", columns="base", values="share")) for _, rows in groups]
    scale = alt.Scale(domain=[0, np.ceil(2 * max(of.y.max() for of in drawn)) / 2])
    y = alt.Y("y:Q", title="bits", scale=scale, axis=alt.Axis(tickCount=3))
    for ((layer, feature), rows), shapes in zip(groups, drawn):
        said = f"{rows.reading.iloc[0]}; {rows.families.iloc[0]} families"
        title = alt.Title(f"{theme.layer_name(layer)}/{feature}", subtitle=said)
        panels.append(stacks(shapes, x, y, "share").properties(width=280, height=70, title=title))
    pairs = [alt.hconcat(*panels[at : at + 2], spacing=30) for at in range(0, len(panels), 2)]
    names = ", ".join(
        f"L{layer}/{of}" for layer, of in table[["layer", "feature"]].drop_duplicates().to_numpy()
    )
    return alt.vconcat(*pairs).properties(
        description=f"Logos of the bases around {names}, where each is strongest."
    )


def relations(table: pd.DataFrame, control: pd.DataFrame) -> alt.HConcatChart | alt.Chart:
    """Related families as a graph, beside that of the control; families stand in a circle, by type.

    `table`, `control`: one row per pair, with family_a, name_a, type_a, the same of b, similarity, q_value.
    """
    if table.empty and control.empty:
        return theme.nothing("No two families share more features than chance and composition predict.")
    columns = "family_a name_a type_a family_b name_b type_b similarity q_value"
    table, control = (
        theme.fits(of[columns.split()].reset_index(drop=True), "relations") for of in (table, control)
    )
    both = pd.concat([table, control])
    sides = [both[[f"{name}_{side}" for name in ("family", "name", "type")]] for side in "ab"]
    nodes = pd.concat([of.set_axis(["family", "name", "type"], axis=1) for of in sides]).drop_duplicates(
        "family"
    )
    nodes = nodes.sort_values(["type", "name", "family"], ignore_index=True)
    turn = 2 * np.pi * np.arange(len(nodes)) / len(nodes)
    nodes = nodes.assign(x=np.cos(turn), y=np.sin(turn), left=np.cos(turn) < -1e-9)
    nodes["angle"] = np.degrees(-turn) + 180 * nodes.left  # so that no name stands on its head
    nodes["short"] = [name if len(name) <= _LONGEST else f"{name[: _LONGEST - 1]}…" for name in nodes.name]
    at = nodes.set_index("family")[["x", "y"]]
    looks = {_SAME: [theme.BLUE], _OTHER: [theme.MIDDLE]}
    colour = theme.kinds("kind", looks, [alt.Color], {"columns": 2, "symbolType": "stroke"})
    panels: list[alt.TopLevelMixin] = []
    for title, rows, size in (("language model", table, 260), ("random weights", control, 110)):
        room = 1 + 190 / size if not panels else 1.2  # for the names
        place = theme.places([-room, room], [-room, room])
        ends = {f"{axis}{n}": at[axis].loc[rows[f"family_{side}"]].to_numpy()
                for side, n in (("a", ""), ("b", "2")) for axis in "xy"}  # fmt: skip
        kind = np.where(rows.type_a == rows.type_b, _SAME, _OTHER)
        lines = alt.Chart(rows.assign(**ends, kind=kind)).mark_rule(strokeWidth=1.5, opacity=0.8)
        tooltip = [
            "name_a:N",
            "name_b:N",
            *theme.tooltips(".2f", "similarity"),
            *theme.tooltips(".2g", q_value="q"),
        ]
        drawn = lines.encode(*colour, **place("x:Q", "y:Q"), x2="x2:Q", y2="y2:Q", tooltip=tooltip)
        points = alt.Chart(nodes).mark_point(size=18, color=theme.INK).encode(
            **place("x:Q", "y:Q"), tooltip=["name:N", "type:N"])  # fmt: skip
        layers = [drawn, points] if len(rows) else [points]
        if not panels:
            words = alt.Chart(nodes).encode(
                **place("x:Q", "y:Q"), text="short:N", angle=alt.Angle("angle:Q", scale=None)
            )
            for left, align, dx in ((False, "left", 7), (True, "right", -7)):
                layers.append(
                    words.transform_filter(alt.datum.left == left).mark_text(align=align, dx=dx, fontSize=10)
                )
        side = size * 2 * room / 2 if not panels else size
        panels.append(
            alt.layer(*layers).properties(width=side, height=side, title=f"{title}: {len(rows)} drawn")
        )
    same = (table.type_a == table.type_b).sum()
    return alt.hconcat(*panels, spacing=20).properties(
        description=f"Graph of {len(table)} pairs of families that share features, {same} of one type; "
        f"beside it {len(control)} pairs of the control."
    )
