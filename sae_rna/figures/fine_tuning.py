"""Fine-tuning: how far each method lowers the loss, from how many examples, and what it costs elsewhere."""

import altair as alt
import pandas as pd

from sae_rna.figures import theme

_LOOKS = (theme.BLUE, [1, 0]), (theme.DARK, [6, 3]), (theme.MIDDLE, [2, 2]), (theme.LIGHT, [9, 3, 2, 3])
_SIDES = {"RNAs of the task": (theme.BLUE, "circle"), "other RNAs": ("#e08214", "diamond")}
_PANEL = "change of the loss, nats"


def tuned_methods(table: pd.DataFrame) -> alt.HConcatChart:
    """Change of the loss by method, those of fewest parameters on top, a panel per task.

    Points are means over the seeds; on the task's own RNAs with an interval and a stroke for each seed.
    `table`: one row per task, method, side (the task's own RNAs or others) and seed, with parameters, change
    (of the mean), low, high (missing for other RNAs), of_seed.
    """
    columns = "task method parameters side seed change low high of_seed"
    table = theme.checked(table, "tuned_methods", columns)
    sizes = table.drop_duplicates("method").sort_values("parameters", kind="stable")
    names = {row.method: f"{row.method} ({row.parameters:,})" for row in sizes.itertuples()}
    table["name"] = table.method.map(names)
    colour, shape = theme.kinds("side", _SIDES, (alt.Color, alt.Shape), {"columns": 2})
    tooltip = ["task:N", "method:N", "side:N", alt.Tooltip("parameters:Q", format=",")]
    tooltip += theme.tooltips("+.4f", change="change of the loss", low="95 % from", high="to")
    panels: list[alt.TopLevelMixin] = []
    width = (theme.WIDTH - 230) // table.task.nunique()
    for task, rows in table.groupby("task", sort=False):
        y = alt.Y("name:N", title=None, sort=[*names.values()],
                  axis=theme.bare_axis(labels=not panels, grid=True, labelLimit=210))  # fmt: skip
        base = alt.Chart(rows).encode(y=y)
        x = alt.X("change:Q", title=_PANEL, axis=alt.Axis(tickCount=3))
        one = base.transform_filter("datum.seed === " + str(rows.seed.min()))
        zero = alt.Chart(pd.DataFrame({"change": [0.0]})).mark_rule(color=theme.GREY).encode(x="change:Q")
        strokes = base.mark_tick(thickness=1, size=8, opacity=0.6).encode(colour, x="of_seed:Q")
        ends = one.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.4)
        ends = ends.encode(colour, x=alt.X("low:Q", title=_PANEL), x2="high:Q")
        points = one.mark_point(filled=True, size=50).encode(colour, shape, x=x, tooltip=tooltip)
        panel = alt.layer(zero, strokes, ends, points)
        panels.append(panel.properties(width=width, height=alt.Step(20), title=str(task)))
    own = table[table.side == [*_SIDES][0]].drop_duplicates(["task", "method"])
    best = own.loc[own.groupby("task", sort=False).change.idxmin()]
    words = "; ".join(f"{row.task}: {row.method} ({row.change:+.3f})" for row in best.itertuples())
    return alt.hconcat(*panels, spacing=12).properties(
        description=f"Change of the loss by method and task, on its own RNAs and on others. Lowest: {words}."
    )


def tuned_examples(table: pd.DataFrame) -> alt.HConcatChart:
    """Change of the loss by the number of RNAs learnt from, a line per method, a panel per task.

    `table`: one row per task, method and number of examples, with change, low, high.
    """
    table = theme.checked(table, "tuned_examples", "task method examples change low high")
    colour, dash = theme.series("method", dict(zip(table.method.unique(), _LOOKS)))
    tooltip = ["task:N", "method:N", alt.Tooltip("examples:Q", title="RNAs learnt from")]
    tooltip += theme.tooltips("+.4f", change="change of the loss", low="95 % from", high="to")
    panels: list[alt.TopLevelMixin] = []
    for task, rows in table.groupby("task", sort=False):
        axis, scale = theme.log_axis(rows.examples)
        x = alt.X("examples:Q", title="RNAs learnt from", axis=axis, scale=scale)
        title = None if panels else _PANEL
        y = alt.Y("change:Q", title=title)
        base = alt.Chart(rows).encode(colour, x=x)
        zero = alt.Chart(pd.DataFrame({"change": [0.0]})).mark_rule(color=theme.GREY).encode(y="change:Q")
        ranges = base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
        line, points = base.mark_line().encode(dash, y=y), base.mark_point().encode(y=y, tooltip=tooltip)
        panel = zero + ranges + line + points
        panels.append(panel.properties(width=285, height=200, title=str(task)))
    most = table[table.examples == table.groupby("task").examples.transform("max")]
    words = "; ".join(f"{row.method} {row.change:+.3f} ({row.task})" for row in most.itertuples())
    return alt.hconcat(*panels, spacing=18).properties(
        description=f"Change of the loss by the number of RNAs learnt from. With all of them: {words}."
    )
