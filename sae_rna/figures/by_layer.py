"""Figures over layers: retained features (Figure 2), the passage from diffuse to sparse, and the training curves."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import GREY, INK, LAYERS, SEQUENTIAL, WIDTH

DECILES = [f"density_p{p}" for p in range(10, 100, 10)]


def retained_features(layers: pd.DataFrame, min_sequences: int = 10) -> alt.HConcatChart:
    """Figure 2: features per layer that fire in `min_sequences` or more distinct sequences, beside it dead share and firing density.

    Parameters: `layers`, one row per layer x architecture, with layer, architecture, latents (dictionary size), retained
    (features), dead_share (0..1), density_p10, density_p50 and density_p90 (share of tokens, over live features).
    """
    columns = [
        "layer",
        "architecture",
        "latents",
        "retained",
        "dead_share",
        "density_p10",
        "density_p50",
        "density_p90",
    ]
    table = theme.with_architecture_names(theme.checked(layers, "retained_features", columns))
    colour = alt.Color("architecture:N", title=None, scale=theme.architecture_scale(theme.architectures(layers)),
                       legend=alt.Legend(orient="top", symbolType="stroke"))  # fmt: skip
    tooltip = [
        alt.Tooltip("architecture:N"),
        alt.Tooltip("layer:Q"),
        alt.Tooltip("retained:Q", format=",", title="retained features"),
        alt.Tooltip("latents:Q", format=",", title="dictionary size"),
        alt.Tooltip("dead_share:Q", format=".1%", title="dead"),
        alt.Tooltip("density_p10:Q", format=".2~%", title="firing density, 10th percentile"),
        alt.Tooltip("density_p50:Q", format=".2~%", title="firing density, median"),
        alt.Tooltip("density_p90:Q", format=".2~%", title="firing density, 90th percentile"),
    ]
    base = alt.Chart(table).encode(x=theme.layer_axis(table.layer), color=colour)
    size = 45 if table.layer.nunique() <= 12 else 20

    def lines(y: alt.Y) -> alt.LayerChart:
        return base.mark_line().encode(y=y) + base.mark_point(size=size).encode(y=y, tooltip=tooltip)

    ceiling = alt.Chart(pd.DataFrame({"latents": sorted(table.latents.unique())})).encode(y="latents:Q")
    ceiling_name = ceiling.transform_calculate(name="'dictionary size ' + format(datum.latents, ',')")
    retained = alt.layer(
        ceiling.mark_rule(strokeDash=[4, 3], color=GREY),
        ceiling_name.mark_text(
            align="right", baseline="bottom", x="width", dy=-3, color=GREY, fontSize=11
        ).encode(text="name:N"),
        lines(
            alt.Y(
                "retained:Q",
                title=f"features active in ≥ {min_sequences} sequences",
                scale=alt.Scale(domainMin=0),
            )
        ),
    )
    dead = lines(
        alt.Y(
            "dead_share:Q",
            title="share of features",
            axis=alt.Axis(format="%", tickCount=4),
            scale=alt.Scale(domain=[0, 1]),
        )
    )
    axis, scale = theme.log_axis(table[["density_p10", "density_p90"]].stack(), format="~%")
    band = alt.Y("density_p10:Q", title="share of tokens", axis=axis, scale=scale)
    density = base.mark_area(opacity=0.18).encode(y=band, y2="density_p90:Q") + lines(
        alt.Y("density_p50:Q", scale=scale)
    )
    density_title = alt.Title(
        "Firing density", subtitle="median of live features, band 10th to 90th percentile"
    )
    beside = alt.vconcat(
        dead.properties(width=240, height=125, title="Dead share"),
        density.properties(width=240, height=125, title=density_title),
        spacing=18,
    )
    return alt.hconcat(
        retained.properties(width=325, height=345, title="Retained features"), beside, spacing=20
    ).properties(
        description=f"Features retained per layer, {table.retained.min():,} to {table.retained.max():,}, with the share of dead features "
        f"({table.dead_share.min():.0%} to {table.dead_share.max():.0%}) and the firing density of live features."
    )


_MEASURES = {  # column -> how it is written in the figure and in its cells
    "l0_share": ("active latents (L0 share)", "{:.2%}"),
    "dead_share": ("dead features", "{:.1%}"),
    **{
        column: (f"firing density, {column.removeprefix('density_p')}th percentile", "{:.2%}")
        for column in reversed(DECILES)
    },
    "explained_variance": ("explained variance", "{:.3f}"),
    "type_selectivity": ("type selectivity", "{:.3f}"),
}


def layer_sparsity(layers: pd.DataFrame) -> alt.VConcatChart:
    """Heat map layer x sparsity measures, one panel per architecture: the passage from diffuse to sparse.

    Every row is coloured on its own scale, from its smallest to its largest value in that panel; the value itself stands in
    the cell. Parameters: `layers`, one row per layer x architecture, with layer, architecture, latents, l0, dead_share,
    density_p10 ... density_p90, explained_variance, type_selectivity.
    """
    measured = ["dead_share", *DECILES, "explained_variance", "type_selectivity"]
    table = theme.checked(layers, "layer_sparsity", ["layer", "architecture", "latents", "l0", *measured])
    table["l0_share"] = table.l0 / table.latents
    long = table.melt(["layer", "architecture"], list(_MEASURES), "measure", "value").dropna(subset="value")
    span = long.groupby(["architecture", "measure"]).value.agg(["min", "max"])
    low, high = span.loc[pd.MultiIndex.from_frame(long[["architecture", "measure"]])].to_numpy().T
    long["shade"] = np.where(high > low, (long.value - low) / np.where(high > low, high - low, 1), 0.0)
    long["label"] = [_short(_MEASURES[m][1].format(v)) for m, v in zip(long.measure, long.value)]
    long["measure"] = [_MEASURES[m][0] for m in long.measure]
    long = theme.fits(long, "layer_sparsity")
    crowded = table.layer.nunique() > 12  # then the numbers stand upright
    x = alt.X(
        "layer:O",
        title="layer",
        axis=alt.Axis(
            values=theme.layer_ticks(table.layer),
            labelExpr="'L' + datum.value",
            labelAngle=0,
            ticks=False,
            domain=False,
        ),
    )
    y = alt.Y(
        "measure:N",
        title=None,
        sort=[name for name, _ in _MEASURES.values()],
        axis=alt.Axis(labelLimit=220, ticks=False, domain=False),
    )
    legend = alt.Legend(
        orient="top",
        titleOrient="left",
        gradientLength=140,
        gradientThickness=9,
        values=[0, 1],
        labelExpr="datum.value == 0 ? 'lowest' : 'highest'",
    )
    colour = alt.Color(
        "shade:Q", title="within each row", scale=alt.Scale(domain=[0, 1], range=SEQUENTIAL), legend=legend
    )
    tooltip = [alt.Tooltip("layer:O"), alt.Tooltip("measure:N"), alt.Tooltip("value:Q", format=".4~g")]
    panels = []
    for architecture in theme.architectures(table):
        base = alt.Chart(long[long.architecture == architecture]).encode(x=x, y=y)
        cells = base.mark_rect(stroke="white").encode(color=colour, tooltip=tooltip)
        numbers = base.mark_text(fontSize=10 if crowded else 11, angle=270 if crowded else 0).encode(
            text="label:N", color=alt.condition("datum.shade > 0.6", alt.value("white"), alt.value(INK))
        )
        title = theme.ARCHITECTURES.get(architecture, architecture)
        panels.append(
            (cells + numbers).properties(
                width=WIDTH - 185, height=alt.Step(36 if crowded else 19), title=title
            )
        )
    return alt.vconcat(*panels, spacing=20).properties(
        description="Heat map of sparsity measures per layer, each row on its own scale with the value in the cell, for "
        + " and ".join(theme.ARCHITECTURES.get(a, a) for a in theme.architectures(table))
    )


def _short(number: str) -> str:
    """At most four characters and a unit fit into a cell: 12.50% -> 12.5%, 100.0% -> 100%."""
    if number.endswith("%") and len(number) > 5:
        number = f"{float(number[:-1]):.1f}%" if float(number[:-1]) < 99.95 else "100%"
    return number


_CURVES = {
    "loss": "loss",
    "l0": "active latents (L0)",
    "explained_variance": "explained variance",
    "dead_share": "dead features",
}
_LOWEST_VARIANCE = (
    -0.25
)  # an autoencoder that has not learnt yet can be far below; that would flatten everything else


def training(table: pd.DataFrame) -> alt.VConcatChart:
    """Training curves: loss, L0, explained variance and dead share over tokens, a column per architecture, a line per layer.

    The losses of two architectures are different sums (ReLU + L1 counts its penalty), so each column has its own loss axis;
    the other rows share theirs. Explained variance is cut off at -0.25. Long runs are thinned evenly to fit the page.
    Parameters: `table`, one row per layer x architecture x log step, with tokens, layer, architecture, loss, l0,
    explained_variance, dead_share (0..1).
    """
    table = theme.fits(
        _thinned(theme.select(table, "training", ["tokens", "layer", "architecture", *_CURVES])), "training"
    )
    names = theme.architectures(table)
    width = (WIDTH - 50) // len(names) - 55
    low, high = int(table.layer.min()), int(table.layer.max())
    legend = alt.Legend(
        orient="top",
        titleOrient="left",
        gradientLength=260,
        gradientThickness=9,
        values=theme.layer_ticks(table.layer),
        labelExpr="'L' + datum.value",
    )
    colour = alt.Color(
        "layer:Q",
        title="layer",
        scale=alt.Scale(domain=[low, max(high, low + 1)], range=LAYERS),
        legend=legend,
    )
    x_axis = alt.Axis(format="~s", labelExpr="datum.value ? datum.label : '0'", tickCount=4, grid=False)
    rows = []
    for measure, title in _CURVES.items():
        panels = []
        for name in names:
            curves = table[table.architecture == name]
            axis, scale = _curve_axis(measure, curves if measure == "loss" else table)
            base = alt.Chart(curves).encode(
                x=alt.X(
                    "tokens:Q", title="training tokens" if measure == "dead_share" else None, axis=x_axis
                ),
                y=alt.Y(f"{measure}:Q", title=title if name == names[0] else None, axis=axis, scale=scale),
                color=colour,
                detail="layer:N",
            )
            # A line has one tooltip for all its points, so unseen points carry them.
            points = base.mark_point(opacity=0, size=40, clip=True).encode(
                tooltip=[
                    "layer:Q",
                    alt.Tooltip("tokens:Q", format=","),
                    alt.Tooltip(f"{measure}:Q", format=".4~g", title=title),
                ]
            )
            heading = theme.ARCHITECTURES.get(name, name) if measure == "loss" else ""
            panels.append(
                (base.mark_line(strokeWidth=1.5, clip=True) + points).properties(
                    width=width, height=105, title=heading
                )
            )
        rows.append(alt.hconcat(*panels, spacing=18))
    return alt.vconcat(*rows, spacing=8).properties(
        description=f"Loss, L0, explained variance and dead share over {table.tokens.max():,} training tokens, "
        f"for layers {low} to {high} and {len(names)} architectures."
    )


def _curve_axis(measure: str, table: pd.DataFrame) -> tuple[alt.Axis, alt.Scale]:
    values = table[measure]
    if measure in ("loss", "l0"):
        return theme.log_axis(values, format=",.4~f", minExtent=36)
    if measure == "dead_share":
        return alt.Axis(format="%", minExtent=36, tickCount=4), alt.Scale(
            domain=[0, max(0.05, float(values.max()))], nice=True
        )
    low, high = max(_LOWEST_VARIANCE, float(values.min())), float(values.max())
    return alt.Axis(format="~g", minExtent=36, tickCount=4), alt.Scale(
        domain=[min(low, high), max(high, low + 0.01)], nice=True
    )


def _thinned(table: pd.DataFrame) -> pd.DataFrame:
    """At most 60 evenly spaced rows of every curve, first and last kept, and fewer where there are many curves."""
    curves = [
        curve for _, curve in table.sort_values("tokens").groupby(["architecture", "layer"], sort=False)
    ]
    room = max(2, min(60, theme.MAXIMUM_ROWS // 2 // len(curves)))
    return pd.concat(
        [curve.iloc[np.unique(np.linspace(0, len(curve) - 1, room).round().astype(int))] for curve in curves],
        ignore_index=True,
    )
