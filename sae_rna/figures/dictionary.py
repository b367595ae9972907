"""What dictionaries of several architectures, sizes, sparsities and lengths of training give."""

import altair as alt
import pandas as pd

from sae_rna.figures import theme

_PCA = "each token's largest principal components"


def dictionary_frontier(table: pd.DataFrame) -> alt.HConcatChart:
    """L0 against explained variance and against KL, by architecture, beside principal components.

    Points are dictionaries, larger ones of more latents; the dashed line is what as many principal components
    of each token keep. `table`: one row per candidate after all of its training, with candidate,
    architecture, latents, l0, explained_variance, kl, pca_variance, pca_kl.
    """
    columns = "candidate architecture latents l0 explained_variance kl pca_variance pca_kl"
    table = theme.checked(table, "dictionary_frontier", columns)
    names = theme.architectures(table)
    looks = {theme.architecture_name(name): [theme.ARCHITECTURE_COLOURS[name]] for name in names}
    table["architecture"] = table.architecture.map(theme.architecture_name)
    colour = theme.kinds("architecture", looks, [alt.Color], {"symbolType": "circle"})
    sizes = sorted(int(size) for size in table.latents.unique())
    legend = alt.Legend(orient="top", values=sizes, title="latents", format=",d")
    size = alt.Size("latents:Q", scale=alt.Scale(range=[30, 260], domain=[0, sizes[-1]]), legend=legend)
    tooltip = theme.tooltips(candidate="dictionary") + theme.tooltips(",.1~f", l0="active latents (L0)")
    tooltip += theme.tooltips(".3f", explained_variance="explained variance", pca_variance="components'")
    tooltip += theme.tooltips(".3~g", kl="KL (nats)", pca_kl="components'")
    x_axis, x_scale = theme.log_axis(table.l0, format=",~g", grid=False)
    x = alt.X("l0:Q", title="active latents a nucleotide (L0)", axis=x_axis, scale=x_scale)

    def panel(column: str, reference: str, title: str, **y) -> alt.LayerChart:
        line = alt.Chart(table).mark_line(strokeDash=[5, 3], strokeWidth=1.5, color=theme.GREY)
        line = line.encode(x=x, y=alt.Y(f"{reference}:Q", **y))
        at = alt.Y(f"{column}:Q", title=title, **y)
        points = alt.Chart(table).mark_point(filled=True, opacity=0.85)
        points = points.encode(*colour, size=size, x=x, y=at, tooltip=tooltip)
        return (line + points).properties(width=theme.WIDTH // 2 - 75, height=260)

    low = max(0.0, table.explained_variance.quantile(0.1) - 0.1)
    scale = alt.Scale(domain=[round(low, 1), 1], clamp=True)
    variance = panel("explained_variance", "pca_variance", "explained variance", scale=scale)
    axis, scale = theme.log_axis(pd.concat([table.kl, table.pca_kl]), format="~g")
    divergence = panel("kl", "pca_kl", "nats a masked base", axis=axis, scale=scale)
    variance = variance.properties(title=alt.Title("Explained variance", subtitle=f"dashed: {_PCA}"))
    divergence = divergence.properties(title=theme.KL_TITLE)
    return alt.hconcat(variance, divergence, spacing=20).properties(
        description=f"Explained variance and KL divergence of {len(table)} dictionaries by L0, beside {_PCA}."
    )


def dictionary_features(table: pd.DataFrame) -> alt.HConcatChart:
    """How many features of every dictionary recur, and what the best ones score.

    `table`: one row per candidate and measure, with candidate, measure and value (0..1).
    """
    table = theme.checked(table, "dictionary_features", "candidate measure value")
    order = table.candidate.drop_duplicates().tolist()
    tooltip = theme.tooltips(candidate="dictionary") + theme.tooltips(".3f", "value")
    panels, measures = list[alt.TopLevelMixin](), table.measure.drop_duplicates().tolist()
    for measure in measures:
        rows = table[table.measure == measure]
        axis = theme.bare_axis(**({"labels": False} if panels else {"labelLimit": 190, "minExtent": 150}))
        y = alt.Y("candidate:N", sort=order, title=None, axis=axis)
        x = alt.X("value:Q", title=None, scale=alt.Scale(zero=False, padding=10), axis=alt.Axis(tickCount=4))
        points = alt.Chart(rows).mark_point(color=theme.BLUE, size=55).encode(x=x, y=y, tooltip=tooltip)
        panel = points.properties(width=(theme.WIDTH - 165) // len(measures) - 14, height=alt.Step(19))
        panels.append(panel.properties(title=alt.Title(measure.split(", "), fontSize=11)))
    return alt.hconcat(*panels, spacing=10).properties(
        description=f"Dot plot of {', '.join(measures)} for {len(order)} dictionaries."
    )


def dictionary_training(table: pd.DataFrame) -> alt.HConcatChart:
    """What longer training changes in one dictionary: shares from 0 to 1, and scores from 0.5, chance, on.

    `table`: one row per length of training and measure, with tokens, measure and value (0..1).
    """
    table = theme.checked(table, "dictionary_training", "tokens measure value")
    _, scale = theme.log_axis(table.tokens)
    axis = alt.Axis(values=sorted(table.tokens.unique()), format=".2~s", grid=False)
    x = alt.X("tokens:Q", title="nucleotides read", axis=axis, scale=scale)
    tooltip = theme.tooltips(measure="measure") + theme.tooltips(",d", tokens="nucleotides read")
    tooltip += theme.tooltips(".3f", "value")
    score_N, panels = table.measure.str.contains(", "), list[alt.Chart]()
    for rows, title in ((table[~score_N], "share"), (table[score_N], "AUROC within bases")):
        domain = theme.auroc_scale(rows[["value"]]) if title != "share" else alt.Scale(domain=[0, 1])
        looks = dict(zip(rows.measure.drop_duplicates(), map(list, zip(theme.ARCHITECTURE_COLOURS.values()))))
        colour = theme.kinds("measure", looks, [alt.Color], {"columns": 2, "symbolType": "stroke"})
        drawn = (
            alt.Chart(rows)
            .mark_line(point={"size": 45})
            .encode(*colour, x=x, y=alt.Y("value:Q", title=title, scale=domain), tooltip=tooltip)
        )
        panels.append(drawn.properties(width=theme.WIDTH // 2 - 75, height=200))
    measures = ", ".join(table.measure.drop_duplicates())
    return (
        alt.hconcat(*panels, spacing=20)
        .resolve_scale(color="independent")
        .properties(description=f"Line charts of {measures} by length of training.")
    )
