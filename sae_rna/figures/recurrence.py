"""Features that other autoencoders find, too."""

from itertools import cycle

import altair as alt
import pandas as pd

from sae_rna.figures import theme

_COLOURS = (theme.BLUE, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_RANDOM, _NULL = "random directions", "random directions, 95th percentile"


def recurrence(table: pd.DataFrame) -> alt.HConcatChart:
    """Share of features that another dictionary has, too, and their similarity, beside random directions'.

    Both axes fit the data. `table`: one row per layer x comparison, with layer, comparison (which other
    dictionary), share and share_null (0..1; of the features, and of random directions), median_cosine (of a
    feature and its counterpart) and null_cosine (95th percentile of random directions).
    """
    columns = "layer comparison share share_null median_cosine null_cosine"
    table = theme.checked(table, "recurrence", columns)
    names, x = list(dict.fromkeys(table.comparison)), theme.layer_axis(table.layer)
    looks = {name: (colour, [1, 0]) for name, colour in zip(names, cycle(_COLOURS))}
    series = theme.series("series", looks | {_RANDOM: (theme.MIDDLE, [4, 3])})
    tooltip = ["comparison:N", alt.Tooltip("block:Q", title="layer")]
    tooltip += theme.tooltips(".1%", share="features that recur")
    tooltip += theme.tooltips(".2~%", share_null="of random directions")
    tooltip += theme.tooltips(".3f", median_cosine="median cosine", null_cosine=_NULL)
    # the same line for all comparisons of random directions, each beside what it is compared with
    null = theme.side_by_side(table.assign(series=_RANDOM), len(names), len(names) + 1)
    nulls = [rows for _, rows in null.groupby("comparison", sort=False)]
    places = table.comparison.map(names.index)
    table = theme.side_by_side(table.assign(series=table.comparison), places, len(names) + 1)

    def panel(columns: tuple[str, str], title: str, heading: alt.Title, axis: alt.Axis):
        drawn = table[[*columns]]
        low, high = min(0, drawn.min(axis=None)), max(0.01, drawn.max(axis=None))
        y = {"title": title, "axis": axis, "scale": alt.Scale(domain=[low, high], nice=True)}
        own, other = (alt.Y(f"{column}:Q", **y) for column in columns)
        random = [theme.lines(rows, x, other, series, tooltip) for rows in nulls]
        chart = alt.layer(*random, theme.lines(table, x, own, series, tooltip))
        return chart.properties(width=288, height=190, title=heading)

    heading = alt.Title("Features that recur", subtitle="grey: share of random directions")
    axis = alt.Axis(format="~%", tickCount=5)
    left = panel(("share", "share_null"), "share of features", heading, axis)
    heading = alt.Title("Similarity to the counterpart", subtitle=f"median; grey: {_NULL}")
    right = panel(("median_cosine", "null_cosine"), "cosine", heading, alt.Axis(tickCount=5))
    return alt.hconcat(left, right, spacing=18).properties(
        description=f"Share of the features of layer {theme.layer_range(table.block)} that recur in "
        f"{' and '.join(map(str, names))}: {table.share.min():.0%} to {table.share.max():.0%}, of random "
        f"directions {table.share_null.max():.2%} at most."
    )
