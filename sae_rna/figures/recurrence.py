"""Features that other autoencoders find, too."""

from itertools import cycle

import altair as alt
import pandas as pd

from sae_rna.figures import theme

_COLOURS = (theme.BLUE, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_RANDOM = "random dictionary"


def recurrence(table: pd.DataFrame) -> alt.HConcatChart:
    """Share of features that another dictionary has, too, beside a random dictionary's, and their similarity.

    `table`: one row per layer x comparison, with layer, comparison (which other dictionary), share and
    share_null (0..1; of the features, and of a random dictionary's), median_cosine (of a feature and the
    closest one).
    """
    columns = "layer comparison share share_null median_cosine"
    table = theme.checked(table, "recurrence", columns)
    names, x = list(dict.fromkeys(table.comparison)), theme.layer_axis(table.layer)
    looks = {name: (colour, [1, 0]) for name, colour in zip(names, cycle(_COLOURS))}
    series = theme.series("series", looks | {_RANDOM: (theme.MIDDLE, [4, 3])})
    tooltip = ["comparison:N", alt.Tooltip("block:Q", title="layer")]
    tooltip += theme.tooltips(".1%", share="features that recur")
    tooltip += theme.tooltips(".2~%", share_null="of a random dictionary")
    tooltip += theme.tooltips(".3f", median_cosine="median cosine")
    y = {"title": "share of features", "axis": alt.Axis(format="%", tickCount=5)}
    y["scale"] = alt.Scale(domain=[0, 1])
    null = theme.side_by_side(table.assign(series=_RANDOM), len(names), len(names) + 1)
    nulls = [rows for _, rows in null.groupby("comparison", sort=False)]
    places = table.comparison.map(names.index)
    table = theme.side_by_side(table.assign(series=table.comparison), places, len(names) + 1)
    scale = alt.Scale(domain=[min(0, table.median_cosine.min()), 1])
    cosine = alt.Y("median_cosine:Q", title="cosine", axis=alt.Axis(tickCount=5), scale=scale)
    left = alt.layer(
        *(theme.lines(rows, x, alt.Y("share_null:Q", **y), series, tooltip) for rows in nulls),
        theme.lines(table, x, alt.Y("share:Q", **y), series, tooltip),
    ).properties(width=288, height=190, title="Features that recur")
    right = theme.lines(table, x, cosine, series, tooltip)
    right = right.properties(width=288, height=190, title="Median similarity to the closest feature")
    return alt.hconcat(left, right, spacing=18).properties(
        description=f"Share of the features of layer {theme.layer_range(table.block)} that recur in "
        f"{' and '.join(map(str, names))}: {table.share.min():.0%} to {table.share.max():.0%}, of a random "
        f"dictionary's {table.share_null.max():.2%} at most."
    )
