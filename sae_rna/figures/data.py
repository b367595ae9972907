"""The data that go into a run."""

import altair as alt
import pandas as pd

from sae_rna.figures import theme


def length_distribution(lengths: pd.DataFrame, bin_width: int = 10) -> alt.ConcatChart:
    """Lengths of the records in bins of `bin_width` nucleotides, a panel per group.

    `lengths`: one row per group x length, with group (a split or an RNA type), length (nt), records (count).
    """
    lengths = theme.select(lengths, "length_distribution", "group length records")
    lengths["length"] = lengths.length // bin_width * bin_width
    table = lengths.groupby(["group", "length"], sort=False, as_index=False).records.sum()
    table = theme.fits(table, "length_distribution").assign(end=table.length + bin_width)
    low, high = int(table.length.min()), int(table.end.max())
    axis, scale = alt.Axis(grid=False, tickCount=6), alt.Scale(domain=[low, high])
    x = alt.X("length:Q", bin="binned", title="length (nt)", axis=axis, scale=scale)
    y = alt.Y("records:Q", title="records", axis=alt.Axis(tickCount=3, format=",.0f", minExtent=40))
    ends = [alt.Tooltip("length:Q", title="from (nt)"), alt.Tooltip("end:Q", title="to (nt)")]
    tooltip, panels = ends + theme.tooltips(",", "records"), []
    for group, rows in table.groupby("group", sort=False):
        bars = alt.Chart(rows).mark_bar(color=theme.TEAL, binSpacing=0.5)
        bars = bars.encode(x=x, x2="end:Q", y=y, tooltip=tooltip)
        title = alt.Title(str(group), subtitle=f"n = {int(rows.records.sum()):,}")
        panels.append(bars.properties(width=theme.WIDTH // 2 - 70, height=90, title=title))
    return alt.concat(*panels, columns=2, spacing=14).properties(
        description=f"Length distribution of {int(table.records.sum()):,} records, {low} to {high} nt, for "
        + ", ".join(map(str, dict.fromkeys(table.group)))
    )
