"""What features answer to, and what changing them does."""

import altair as alt
import pandas as pd

from sae_rna.figures import theme

_KINDS = {
    "random weights": (theme.LIGHT, 12),
    "other features": (theme.MIDDLE, 18),
    "pairing features": (theme.BLUE, 60),
}
_CHANGES = ["#b35806", "#f1a340", "#f7f7f7", "#998ec3", "#542788"]


def pairing_effects(table: pd.DataFrame) -> alt.HConcatChart:
    """Break against rescue, and gamma against the AUROC for stems, a point per feature.

    `table`: one row per feature, with kind ("pairing features", "other features", "random weights"), layer,
    feature, broken, rescued, gamma, low, high (shares of the feature's maximum), auroc, q. What is under test
    is drawn last, above the rest.
    """
    columns = "kind layer feature broken rescued gamma low high auroc q"
    table = theme.checked(table, "pairing_effects", columns)
    looks = {name: look for name, look in _KINDS.items() if name in set(table.kind)}
    channels = theme.kinds("kind", looks, (alt.Color, alt.Size), {"columns": 3, "symbolType": "circle"})
    tooltip = theme.tooltips("", "kind") + ["layer:Q", alt.Tooltip("feature:Q", format="d")]
    tooltip += theme.tooltips(
        ".2%", broken="break", rescued="rescue", gamma="gamma", low="95 % from", high="to"
    )
    tooltip += theme.tooltips(".3f", auroc="AUROC within bases, stems") + theme.tooltips(".2g", q="q")
    size = theme.WIDTH // 2 - 75

    def panel(x: alt.X, y: alt.Y, *behind: alt.Chart, **options) -> alt.LayerChart:
        base = alt.Chart(table).encode(*channels, x=x, y=y, tooltip=tooltip)
        points = [
            base.transform_filter(alt.datum.kind == kind).mark_point(filled=True, opacity=0.75)
            for kind in looks
        ]
        return alt.layer(*behind, *points).properties(width=size, height=size, **options)

    percent = alt.Axis(format=".2~%", tickCount=5)
    ends = table[["broken", "rescued"]].to_numpy()
    ends = [ends.min(), ends.max()]
    line = alt.Chart(pd.DataFrame({"broken": ends, "rescued": ends}))
    line = line.mark_line(color=theme.GREY, strokeDash=[4, 3], strokeWidth=1)
    line = line.encode(x="broken:Q", y="rescued:Q")
    subtitle = "dashed: all that a mutation broke is brought back"
    left = panel(
        alt.X("broken:Q", title="lost when one base is changed", axis=percent),
        alt.Y("rescued:Q", title="brought back by the other", axis=percent),
        line,
        title=alt.Title("Break and rescue", subtitle=subtitle),
    )
    right = panel(
        alt.X(
            "auroc:Q",
            title="AUROC within bases, stems",
            scale=alt.Scale(zero=False),
            axis=alt.Axis(tickCount=5),
        ),
        alt.Y("gamma:Q", title="gamma", axis=percent),
        alt.Chart(pd.DataFrame({"gamma": [0.0]})).mark_rule(color=theme.GREY).encode(y="gamma:Q"),
        title=alt.Title("Cause and annotation", subtitle="gamma in shares of the feature's maximum"),
    )
    counts = table.kind.value_counts()
    return alt.hconcat(left, right, spacing=22).properties(
        description="Two scatter plots of features: what breaking a pair costs against what the second "
        "mutation brings back, and gamma against the AUROC for stems; "
        + ", ".join(f"{counts[name]} {name}" for name in looks)
    )


def mutation_map(table: pd.DataFrame) -> alt.LayerChart:
    """A matrix of position x substituted base: how much each substitution changes a feature elsewhere.

    `table`: one row per position (from 1) and substitute, with rna, position, base, bracket, substitute,
    change (shares of the feature's maximum).
    """
    table = theme.checked(table, "mutation_map", "rna position base bracket substitute change")
    most = max(float(table.change.abs().max()), 1e-9)
    colour = theme.gradient(
        "change", "change of the feature elsewhere", _CHANGES, 140, (-most, most), format="+.2~f"
    )
    axis = theme.bare_axis(labels=False)
    x = alt.X("position:O", title=None, axis=axis)
    y = alt.Y("substitute:N", title="substituted base", sort=list("ACGU"), axis=theme.bare_axis())
    tooltip = ["position:O", "base:N", "substitute:N", "bracket:N", *theme.tooltips("+.3f", change="change")]
    cells = alt.Chart(table).mark_rect(stroke="white", strokeWidth=0.5)
    cells = cells.encode(x=x, y=y, color=colour, tooltip=tooltip)
    one = table.drop_duplicates("position")
    letters = []
    for number, column in enumerate(("base", "bracket")):
        text = alt.Chart(one).mark_text(font=theme.MONOSPACE, fontSize=10, baseline="top", dy=4 + 13 * number)
        letters.append(text.encode(x=x, y=alt.value(76), text=f"{column}:N", tooltip=tooltip))
    ticks = alt.Chart(one[one.position % 10 == 0]).mark_text(
        fontSize=10, color=theme.GREY, baseline="top", dy=31
    )
    ticks = ticks.encode(x=x, y=alt.value(76), text="position:O")
    strongest = table.loc[table.change.abs().idxmax()]
    return alt.layer(cells, *letters, ticks).properties(
        width=theme.WIDTH - 60,
        height=76,
        title=str(table.rna[0]),
        description=f"Matrix of substitutions in {table.rna[0]}: {len(one)} positions by substituted base; "
        f"the strongest change is {strongest.change:+.2f}, of {strongest.base}{strongest.position} to "
        f"{strongest.substitute}.",
    )
