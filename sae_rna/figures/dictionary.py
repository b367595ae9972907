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


def dictionary_features(table: pd.DataFrame) -> alt.VConcatChart:
    """What the best features of every dictionary score, and how many features recur; both training lengths.

    An open circle is half of the training, a full one all of it. `table`: one row per candidate, share of the
    training and measure, with candidate, share, measure and value (0..1).
    """
    table = theme.checked(table, "dictionary_features", "candidate share measure value")
    table["training"] = table.share.map(lambda share: "all tokens" if share == 1 else "half of them")
    looks = {"all tokens": ["#0072b2"], "half of them": ["white"]}
    legend = {"symbolStrokeColor": "#0072b2", "symbolStrokeWidth": 1.5}
    fill = theme.kinds("training", looks, [alt.Fill], legend)
    order = table.candidate.drop_duplicates().tolist()
    tooltip = theme.tooltips(candidate="dictionary", training="training") + theme.tooltips(".3f", "value")
    panels, measures = list[alt.TopLevelMixin](), table.measure.drop_duplicates().tolist()
    for measure in measures:
        rows = table[table.measure == measure]
        axis = theme.bare_axis(**({"labels": False} if panels else {"labelLimit": 190, "minExtent": 150}))
        y = alt.Y("candidate:N", sort=order, title=None, axis=axis)
        x = alt.X("value:Q", title=None, scale=alt.Scale(zero=False, padding=10), axis=alt.Axis(tickCount=4))
        base = alt.Chart(rows).encode(x=x, y=y)
        line = base.mark_line(color=theme.LIGHT, strokeWidth=1).encode(detail="candidate:N")
        points = base.mark_point(filled=True, stroke="#0072b2", strokeWidth=1.5, size=55)
        width = (theme.WIDTH - 165) // len(measures) - 14
        panel = (line + points.encode(*fill, tooltip=tooltip)).properties(width=width, height=alt.Step(19))
        panels.append(panel.properties(title=alt.Title(measure.split(", "), fontSize=11)))
    return alt.hconcat(*panels, spacing=10).properties(
        description=f"Dot plot of {', '.join(measures)} for {len(order)} dictionaries after half and all of "
        "their training."
    )
