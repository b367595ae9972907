"""Features that go on from layer to layer."""

import json

import altair as alt
import pandas as pd

from sae_rna.figures import theme

_OTHER = "#d55e00"  # of links from one chain to another


def lineage(table: pd.DataFrame) -> alt.LayerChart | alt.Chart:
    """Chains of features from left to right; a dot is a feature, and leads to its page if there is one.

    `table`: one row per feature, with place (row of its chain, from 0), name (of the chain), layer, feature,
    concept and auroc (missing where it has none), from_place and from_correlation (chain and strength of its
    strongest link to the layer before, missing where there is none), into_place and into_correlation (of the
    last feature of a chain that merges into another). Thicker lines are stronger links; links to another
    chain have a colour of their own.
    """
    columns = "place name layer feature concept auroc from_place from_correlation into_place into_correlation"
    pages = (table[["page"]] if "page" in table else table[[]]).reset_index(drop=True)
    table = theme.fits(table[columns.split()].reset_index(drop=True), "lineage").assign(**pages)
    if table.empty:
        return theme.nothing("No feature goes on in the next layer.")
    layers, names = sorted(table.layer.unique()), table.drop_duplicates("place").sort_values("place").name
    step = {layer: n for n, layer in enumerate(layers)}
    table["x"] = table.layer.map(step)
    table["told"] = [
        f"{concept}, {auroc:.3f}" if auroc == auroc else "–"
        for concept, auroc in zip(table.concept, table.auroc)
    ]
    back = table[table.from_place.notna()].assign(x2=lambda of: of.x - 1, y2=lambda of: of.from_place)
    forth = table[table.into_place.notna()].assign(x2=lambda of: of.x + 1, y2=lambda of: of.into_place)
    back, forth = back.assign(strength=back.from_correlation), forth.assign(strength=forth.into_correlation)
    links = pd.concat([back, forth]).drop(columns=["page"], errors="ignore")
    links["kind"] = (links.y2 == links.place).map({True: "the same chain", False: "another chain"})
    axis = alt.Axis(
        values=[*range(len(names))], labelExpr=f"{json.dumps([*names])}[datum.value]", labelOverlap=False,
        grid=False, domain=False, ticks=False, labelLimit=theme.NAMES + 20,
    )  # fmt: skip
    y = alt.Y("place:Q", title=None, axis=axis, scale=alt.Scale(domain=[len(names) - 0.5, -0.8], nice=False))
    labels = json.dumps([f"L{layer}" for layer in layers])
    axis = alt.Axis(values=[*step.values()], labelExpr=f"{labels}[datum.value]", grid=False, orient="top")
    x = alt.X("x:Q", title=None, axis=axis, scale=alt.Scale(domain=[-0.3, len(layers) - 0.7], nice=False))
    looks = {"the same chain": theme.LIGHT, "another chain": _OTHER}
    there = theme.known(links.kind, looks)
    kinds = alt.Scale(domain=there, range=[looks[kind] for kind in there])
    width = alt.Scale(domain=[0.7, 1], range=[1, 6], clamp=True)
    rules = alt.Chart(links).mark_rule().encode(
        x=x, x2="x2:Q", y=y, y2="y2:Q", tooltip=theme.tooltips(".3f", strength="correlation"),
        color=alt.Color("kind:N", title="strongest link to", scale=kinds,
                        legend=alt.Legend(orient="bottom") if len(there) > 1 else None),
        strokeWidth=alt.StrokeWidth("strength:Q", scale=width, title="correlation",
                                    legend=alt.Legend(orient="bottom", values=[0.7, 0.85, 1])),
    )  # fmt: skip
    tooltip = ["layer:O", "feature:O", alt.Tooltip("told:N", title="closest concept, AUROC within bases")]
    tooltip += theme.tooltips(".3f", from_correlation="correlation with the layer before")
    fill = alt.condition("isValid(datum.auroc)", alt.value(theme.BLUE), alt.value("white"))
    dots = alt.Chart(table).encode(x=x, y=y, tooltip=tooltip, **theme.links(table))
    points = dots.mark_point(filled=True, size=80, opacity=1, stroke=theme.BLUE, strokeWidth=1.2)
    numbers = dots.mark_text(fontSize=10, dy=-11, color=theme.INK).encode(text="feature:N")
    sizes = table.groupby("place").size()
    return (rules + points.encode(fill=fill) + numbers).properties(
        width=theme.WIDTH - theme.NAMES - 40,
        height=27 * len(names),
        description=f"{len(names)} chains of features over layers {theme.layer_range(pd.Series(layers))}, "
        f"{int((sizes == len(layers)).sum())} of them through all; such as {names.iloc[0]}.",
    )
