"""Two groups of RNAs: which features differ between them, and where in the RNAs."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme

_LOOKS = {"differs": [theme.BLUE], "differs as a 3-mer does": ["#e08214"], "does not differ": [theme.LIGHT]}
_DIVERGING = ["#b35806", "#f1a340", "#f7f7f7", "#998ec3", "#542788"]
_MOST = 4000  # points that are drawn: the surest


def volcano(table: pd.DataFrame, a: str, b: str) -> alt.LayerChart:
    """Effect and p-value of every feature between the groups called `a` and `b`; the surest are labelled.

    `table`: one row per feature, with layer, effect, low, high, p_value, q_value, share_a, share_b, kmer,
    left and verdict.
    """
    columns = "layer feature effect low high p_value q_value share_a share_b kmer left verdict"
    table = theme.select(table, "volcano", columns).nsmallest(_MOST, "p_value")
    table = theme.fits(table[np.isfinite(table.effect)].iloc[::-1], "volcano")
    table = table.assign(name=[f"L{layer}/{of}" for layer, of in zip(table.layer, table.feature)])
    table["surprise"] = -np.log10(table.p_value)
    ends = max(0.5, 1.08 * table.effect.abs().max())
    x = alt.X("effect:Q", title=f"effect (Hedges' g): fires more in {b}  ←  →  in {a}",
              scale=alt.Scale(domain=[-ends, ends], nice=False))  # fmt: skip
    y = alt.Y(
        "surprise:Q", title="−log10 p", scale=alt.Scale(domain=[0, 1.1 * table.surprise.max()], nice=False)
    )
    looks = {name: look for name, look in _LOOKS.items() if name in set(table.verdict)}
    channels = theme.kinds("verdict", looks, [alt.Color], {"columns": 3, "labelLimit": 240})
    tooltip = ["name:N", "verdict:N", *theme.tooltips("+.2f", effect="effect", low="95 % from", high="to")]
    tooltip += theme.tooltips(".2g", p_value="p", q_value="q")
    tooltip += theme.tooltips(".1%", share_a=f"fires in {a}", share_b=f"fires in {b}")
    tooltip += theme.tooltips("", kmer="3-mer") + theme.tooltips("+.2f", left="effect beyond it")
    base = alt.Chart(table).encode(x=x, y=y)
    found = table[table.verdict != "does not differ"]
    named: list = []
    for row in found.iloc[::-1].itertuples():  # the surest first; no two names touch
        if all(
            max(abs(row.effect - of.effect) / ends * 7, abs(row.surprise - of.surprise)) > 1 for of in named
        ):
            named.append(row)
    words = alt.Chart(pd.DataFrame(named[:6], columns=["Index", *found]))
    words = words.mark_text(dy=-9, fontSize=11).encode(x=x, y=y, text="name:N")
    chart = base.mark_point(size=26, opacity=0.8).encode(*channels, tooltip=tooltip)
    chart = chart + words if named else alt.layer(chart)
    return chart.properties(width=theme.WIDTH - 70, height=280).properties(
        description=f"Effect and p-value of {len(table):,} features between {a} and {b}; {len(found)} differ."
    )


def firing_places(table: pd.DataFrame, a: str, b: str) -> alt.HConcatChart | alt.Chart:
    """Where a feature fires more in the group `a` than in `b`, a row per feature, a cell per place.

    A panel for tenths of the RNA and one for elements; colour in shares of each feature's largest difference.
    `table`: one row per feature and place, with layer, part, share_a and share_b.
    """
    if table.empty:
        return theme.nothing("No feature differs between the groups, so there is nothing to place.")
    table = theme.checked(table, "firing_places", "layer feature part place share_a share_b")
    table["name"] = [f"L{layer}/{of}" for layer, of in zip(table.layer, table.feature)]
    table["difference"] = table.share_a - table.share_b
    most = table.difference.abs().groupby(table.name).transform("max")
    table["relative"] = table.difference / most
    title = f"more in {b}  ←  →  in {a}"
    colour = theme.gradient("relative", title, _DIVERGING, 150, (-1, 1), format="+", titleLimit=400)
    tooltip = ["name:N", "place:N", *theme.tooltips(".1%", share_a=f"fires in {a}", share_b=f"in {b}")]
    tooltip += theme.tooltips("+.1%", difference="difference")
    panels: list[alt.TopLevelMixin] = []
    for part, rows in table.groupby("part", sort=False):
        axis = theme.bare_axis(labelAngle=0 if rows.place.iloc[0] == "1" else 315)
        x = alt.X("place:N", title=str(part), sort=list(dict.fromkeys(rows.place)), axis=axis)
        axis = theme.bare_axis(labels=not panels)
        y = alt.Y("name:N", title=None, sort=list(dict.fromkeys(table.name)), axis=axis)
        chart = alt.Chart(rows).mark_rect(stroke="white").encode(x=x, y=y, color=colour, tooltip=tooltip)
        panels.append(chart.properties(width=26 * rows.place.nunique(), height=alt.Step(20)))
    widest = table.loc[table.difference.abs().idxmax()]
    return alt.hconcat(*panels, spacing=14).properties(
        description=f"Heat maps of how much more {table.name.nunique()} features fire in {a} than in {b}, by "
        f"place and element; most for {widest['name']}, {widest.place}: {widest.difference:+.2f}."
    )
