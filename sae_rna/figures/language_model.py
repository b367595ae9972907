"""What the language model knows."""

from itertools import cycle

import altair as alt
import pandas as pd

from sae_rna.figures import theme

_POSITIONS = {"all": "all masked bases", "paired": "paired bases", "unpaired": "unpaired bases"}
_GREYS, _SHAPES = ("#5a5a5a", "#8a8a8a", "#b3b3b3"), ("diamond", "triangle-up", "square", "cross")


def masked_accuracy(table: pd.DataFrame) -> alt.HConcatChart:
    """Masked-base accuracy of predictors (a language model and its baselines) on several sets of RNAs.

    `table`: one row per set x predictor x positions, with set, predictor (the first one is under test),
    positions ("all", "paired" or "unpaired"), tokens (masked bases), accuracy (0..1).
    """
    table = theme.checked(table, "masked_accuracy", "set predictor positions tokens accuracy")
    shown = theme.known(table.positions, _POSITIONS)
    sets, predictors = list(dict.fromkeys(table["set"])), list(dict.fromkeys(table.predictor))
    looks = dict(zip(predictors[1:], zip(cycle(_GREYS), cycle(_SHAPES))))
    looks = {predictors[0]: (theme.BLUE, "circle")} | looks
    legend = {"columns": 4, "labelLimit": 260}
    channels = theme.kinds("predictor", looks, (alt.Color, alt.Shape), legend, sort=predictors)
    tooltip = theme.tooltips("", "set", "predictor") + theme.tooltips(".3f", "accuracy")
    tooltip += theme.tooltips(",", tokens="masked bases")
    axis = alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1])
    x = alt.X("accuracy:Q", title="accuracy", axis=axis, scale=alt.Scale(domain=[0, 1]))
    table["positions"] = table.positions.map(_POSITIONS)
    panels: list[alt.TopLevelMixin] = []
    for positions in map(_POSITIONS.get, shown):
        axis = theme.bare_axis(labels=not panels, labelLimit=260, grid=True)
        y = alt.Y("set:N", title=None, sort=sets, axis=axis)
        base = alt.Chart(table[table.positions == positions]).encode(x=x, y=y)
        points = base.mark_point(size=75).encode(*channels, tooltip=tooltip)
        number = base.mark_text(dy=-11, fontSize=10.5, color=theme.BLUE)
        number = number.encode(text=alt.Text("accuracy:Q", format=".3f"))
        panel = points + number.transform_filter(alt.datum.predictor == predictors[0])
        width = (theme.WIDTH - 230) // len(shown) - 12
        panels.append(panel.properties(width=width, height=alt.Step(34), title=positions))
    of, on = ", ".join(map(str, predictors)), ", ".join(map(str, sets))
    return alt.hconcat(*panels, spacing=14).properties(
        description=f"Masked-base accuracy of {of} on {on}, by pairing."
    )
