"""What the language model knows."""

import math
from itertools import cycle

import altair as alt
import pandas as pd

from sae_rna.figures import theme

_POSITIONS = {"all": "all masked bases", "paired": "paired bases", "unpaired": "unpaired bases"}
_GREYS, _SHAPES = ("#5a5a5a", "#8a8a8a", "#b3b3b3"), ("diamond", "triangle-up", "square", "cross")


def masked_accuracy(table: pd.DataFrame) -> alt.HConcatChart:
    """Masked-base accuracy of predictors (a language model and its baselines) on several sets of RNAs.

    `table`: one row per set x predictor x positions, with set, predictor (the first one is under test),
    positions ("all", "paired" or "unpaired"), tokens (masked bases), accuracy (0..1). Predictors of a set
    stand below each other.
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
    low, high = 0.1 * math.floor(10 * table.accuracy.min()), 0.1 * math.ceil(10 * table.accuracy.max() + 0.7)
    axis = alt.Axis(format="%", tickCount=4)
    x = alt.X("accuracy:Q", title="accuracy", axis=axis, scale=alt.Scale(domain=[low, high], nice=False))
    table["positions"] = table.positions.map(_POSITIONS)
    panels: list[alt.TopLevelMixin] = []
    for positions in map(_POSITIONS.get, shown):
        axis = theme.bare_axis(labels=not panels, labelLimit=260, grid=False)
        y = alt.Y("set:N", title=None, sort=sets, axis=axis, scale=alt.Scale(paddingInner=0.35))
        base = alt.Chart(table[table.positions == positions])
        base = base.encode(x=x, y=y, yOffset=alt.YOffset("predictor:N", sort=predictors))
        points = base.mark_point(size=55).encode(*channels, tooltip=tooltip)
        number = base.mark_text(dx=7, align="left", fontSize=10.5, color=theme.BLUE)
        number = number.encode(text=alt.Text("accuracy:Q", format=".3f"))
        panel = points + number.transform_filter(alt.datum.predictor == predictors[0])
        width = (theme.WIDTH - 230) // len(shown) - 12
        panels.append(panel.properties(width=width, height=58 * len(sets), title=positions))
    of, on = ", ".join(map(str, predictors)), ", ".join(map(str, sets))
    return alt.hconcat(*panels, spacing=14).properties(
        description=f"Masked-base accuracy of {of} on {on}, by pairing."
    )


def stem_readers(table: pd.DataFrame) -> alt.HConcatChart:
    """What linear probes and single features read of stems, layer by layer, a panel for each setting.

    `table`: one row per setting x source x layer, with setting, source, layer (missing for what reads the
    sequence, which is drawn across), base_auroc, base_auroc_low, base_auroc_high, auroc (all 0..1, the
    interval missing where it is not known).
    """
    columns = "setting source layer base_auroc base_auroc_low base_auroc_high auroc"
    table = theme.checked(table, "stem_readers", columns)
    layered = table.dropna(subset="layer")
    sources, settings = list(dict.fromkeys(table.source)), list(dict.fromkeys(table.setting))
    across = [source for source in sources if source not in set(layered.source)]
    order = [source for source in sources if source not in across]
    palette = iter([(theme.BLUE, [1, 0]), (theme.DARK, [6, 3]), ("#d55e00", [1, 0])])
    looks = {source: next(palette) for source in order} | dict.fromkeys(across, (theme.MIDDLE, [2, 2]))
    channels = theme.series("source", looks)
    x, scale = theme.layer_axis(layered.layer), theme.auroc_scale(table.filter(like="base_auroc"))
    tooltip = [*theme.tooltips("", "setting", "source"), "layer:Q"]
    names = {"base_auroc": "AUROC within bases", "base_auroc_low": "95 % interval from"}
    tooltip += theme.tooltips(".3f", **names, base_auroc_high="to", auroc="AUROC")
    panels: list[alt.TopLevelMixin] = []
    for setting in settings:
        y = {"title": None if panels else "AUROC within bases, stems", "scale": scale}
        at = alt.Y("base_auroc:Q", **y)
        here = table[table.setting == setting]
        own, rule = alt.Chart(here.dropna(subset="layer")), alt.Chart(here[here.layer.isna()])
        band = own.mark_area(opacity=0.18).encode(channels[0], x=x, y=alt.Y("base_auroc_low:Q", **y))
        band = band.encode(y2="base_auroc_high:Q").transform_filter("isValid(datum.base_auroc_low)")
        line = own.mark_line().encode(*channels, x=x, y=at)
        points = own.mark_point(size=40 if theme.few(layered.layer) else 16)
        points = points.encode(channels[0], x=x, y=at, tooltip=tooltip)
        level = rule.mark_rule(strokeWidth=2).encode(*channels, y=at, tooltip=tooltip)
        width = (theme.WIDTH - 60) // len(settings) - 20
        panel = alt.layer(band, level, line, points).properties(width=width, height=230, title=setting)
        panels.append(panel)
    best = table.loc[table.base_auroc.idxmax()]
    return alt.hconcat(*panels, spacing=16).properties(
        description=f"Base-stratified AUROC for stems of {', '.join(sources)} by layer, "
        f"{theme.layer_range(layered.layer)}, in {' and '.join(settings)}; highest {best.base_auroc:.2f} "
        f"({best.source}, {best.setting})."
    )
