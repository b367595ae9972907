"""Features that other autoencoders find, too."""

import altair as alt
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import BLUE, MIDDLE

_COLOURS = (BLUE, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_RANDOM = "random dictionary"


def recurrence(table: pd.DataFrame) -> alt.HConcatChart:
    """Share of features that another dictionary has, too, beside a random dictionary's, and their similarity.

    `table`: one row per layer x comparison, with layer, comparison (which other dictionary), share and
    share_null (0..1; of the features, and of a random dictionary's), median_cosine (of a feature and the
    closest one).
    """
    columns = "layer comparison share share_null median_cosine"
    table = theme.checked(table, "recurrence", columns, unique=["layer", "comparison"])
    names, x = list(dict.fromkeys(table.comparison)), theme.layer_axis(table.layer)
    looks = [(_COLOURS[number % len(_COLOURS)], [1, 0]) for number in range(len(names))]
    series = theme.series("series", [*names, _RANDOM], [*looks, (MIDDLE, [4, 3])])
    tooltip = [
        alt.Tooltip("comparison:N"),
        alt.Tooltip("block:Q", title="layer"),
        alt.Tooltip("share:Q", format=".1%", title="features that recur"),
        alt.Tooltip("share_null:Q", format=".2~%", title="of a random dictionary"),
        alt.Tooltip("median_cosine:Q", format=".3f", title="median cosine"),
    ]

    def share(column: str) -> alt.Y:
        axis = alt.Axis(format="%", tickCount=5)
        return alt.Y(column, title="share of features", axis=axis, scale=alt.Scale(domain=[0, 1]))

    null = theme.side_by_side(table.assign(series=_RANDOM), len(names), len(names) + 1)
    nulls = [rows for _, rows in null.groupby("comparison", sort=False)]
    places = table.comparison.map(names.index)
    table = theme.side_by_side(table.assign(series=table.comparison), places, len(names) + 1)
    scale = alt.Scale(domain=[min(0, table.median_cosine.min()), 1])
    cosine = alt.Y("median_cosine:Q", title="cosine", axis=alt.Axis(tickCount=5), scale=scale)
    left = alt.layer(
        *(theme.lines(rows, x, share("share_null:Q"), series, tooltip) for rows in nulls),
        theme.lines(table, x, share("share:Q"), series, tooltip),
    )
    right = theme.lines(table, x, cosine, series, tooltip)
    panels = [(left, "Features that recur"), (right, "Median similarity to the closest feature")]
    panels = [chart.properties(width=288, height=190, title=title) for chart, title in panels]
    return alt.hconcat(*panels, spacing=18).properties(
        description=f"Share of the features of layer {theme.layer_range(table.block)} that recur in "
        f"{' and '.join(map(str, names))}: {table.share.min():.0%} to {table.share.max():.0%}, of a random "
        f"dictionary's {table.share_null.max():.2%} at most."
    )
