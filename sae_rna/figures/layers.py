"""Features over layers: retained features (Figure 2) and the passage from diffuse to sparse."""

import altair as alt
import pandas as pd

from sae_rna.figures import theme


def retained_features(layers: pd.DataFrame, min_sequences: int = 10) -> alt.HConcatChart:
    """Figure 2: features that fire in `min_sequences` or more sequences, dead share and firing density.

    `layers`: one row per layer x architecture, with layer, architecture, latents (dictionary size), retained
    (features), dead_share (0..1), density_p10, density_p50 and density_p90 (share of tokens, over live
    features).
    """
    columns = "layer architecture latents retained dead_share density_p10 density_p50 density_p90"
    table = theme.checked(layers, "retained_features", columns)
    colours = {name: theme.ARCHITECTURE_COLOURS.get(name, theme.GREY) for name in theme.architectures(table)}
    looks = {theme.architecture_name(name): [colour] for name, colour in colours.items()}
    colour = theme.kinds("architecture", looks, [alt.Color], {"symbolType": "stroke"})
    table["architecture"] = table.architecture.map(theme.architecture_name)
    density = {"density_p10": "10th percentile", "density_p50": "median", "density_p90": "90th percentile"}
    density = {column: f"firing density, {name}" for column, name in density.items()}
    tooltip = ["architecture:N", "layer:Q"]
    tooltip += theme.tooltips(",", retained="retained features", latents="dictionary size")
    tooltip += theme.tooltips(".1%", dead_share="dead") + theme.tooltips(".2~%", **density)
    base = alt.Chart(table).encode(*colour, x=theme.layer_axis(table.layer))
    size = 45 if theme.few(table.layer) else 20

    def lines(shorthand: str, **y) -> alt.LayerChart:
        y = alt.Y(shorthand, **y)
        return base.mark_line().encode(y=y) + base.mark_point(size=size).encode(y=y, tooltip=tooltip)

    title = f"features active in ≥ {min_sequences} sequences"
    retained = lines("retained:Q", title=title, scale=alt.Scale(domainMin=0))
    sizes = alt.Chart(pd.DataFrame({"latents": sorted(table.latents.unique())})).encode(y="latents:Q")
    place = {"align": "right", "baseline": "bottom", "x": "width", "dy": -3}
    names = sizes.transform_calculate(name="'dictionary size ' + format(datum.latents, ',')")
    names = names.mark_text(**place, color=theme.GREY, fontSize=11).encode(text="name:N")
    retained = alt.layer(sizes.mark_rule(strokeDash=[4, 3], color=theme.GREY), names, retained)
    retained = retained.properties(width=325, height=345, title="Retained features")
    axis, share = alt.Axis(format="%", tickCount=4), alt.Scale(domain=[0, 1])
    dead = lines("dead_share:Q", title="share of features", axis=axis, scale=share)
    dead = dead.properties(width=240, height=125, title="Dead share")
    axis, scale = theme.log_axis(table[["density_p10", "density_p90"]].stack(), format="~%")
    y = alt.Y("density_p10:Q", title="share of tokens", axis=axis, scale=scale)
    band = base.mark_area(opacity=0.18).encode(y=y, y2="density_p90:Q")
    subtitle = "median of live features, band 10th to 90th percentile"
    title = alt.Title("Firing density", subtitle=subtitle)
    firing = (band + lines("density_p50:Q", scale=scale)).properties(width=240, height=125, title=title)
    return alt.hconcat(retained, alt.vconcat(dead, firing, spacing=18), spacing=20).properties(
        description=f"Features retained per layer, {table.retained.min():,} to {table.retained.max():,}, "
        f"with the share of dead features ({table.dead_share.min():.0%} to {table.dead_share.max():.0%}) and "
        "the firing density of live features."
    )


_MEASURES = {  # column -> how it is written in the figure and in its cells
    "l0_share": ("active latents (L0 share)", "{:.2%}"),
    "dead_share": ("dead features", "{:.1%}"),
    **{f"density_p{p}": (f"firing density, {p}th percentile", "{:.2%}") for p in range(90, 0, -10)},
    "explained_variance": ("explained variance", "{:.3f}"),
    "type_selectivity": ("type selectivity", "{:.3f}"),
}


def layer_sparsity(layers: pd.DataFrame) -> alt.VConcatChart:
    """Heat map layer x sparsity measures, one panel per architecture: the passage from diffuse to sparse.

    Every row is coloured on its own scale, from its smallest to its largest value in that panel; the value
    itself stands in the cell. `layers`: one row per layer x architecture, with layer, architecture, latents,
    l0, dead_share, density_p10 ... density_p90, explained_variance, type_selectivity.
    """
    columns = ["layer", "architecture", "latents", "l0", *list(_MEASURES)[1:]]
    table = theme.checked(layers, "layer_sparsity", " ".join(columns))
    long = theme.fits(_cells(table), "layer_sparsity")
    names = [name for name, _ in _MEASURES.values()]
    y = alt.Y("measure:N", title=None, sort=names, axis=theme.bare_axis(labelLimit=220))
    ends = {"values": [0, 1], "labelExpr": "datum.value == 0 ? 'lowest' : 'highest'"}
    colour = theme.gradient("shade", "within each row", theme.SEQUENTIAL, 140, **ends)
    tooltip = ["layer:O", "measure:N", *theme.tooltips(".4~g", "value")]
    architectures, panels = theme.architectures(table), []
    for architecture in architectures:
        rows = long[long.architecture == architecture]
        cells, labels = theme.heat_map(rows, table.layer, y, dark="datum.shade > 0.6")
        panel = cells.encode(color=colour, tooltip=tooltip) + labels
        step = alt.Step(19 if theme.few(table.layer) else 36)
        title = theme.architecture_name(architecture)
        panels.append(panel.properties(width=theme.WIDTH - 185, height=step, title=title))
    return alt.vconcat(*panels, spacing=20).properties(
        description="Heat map of sparsity measures per layer, each row on its own scale with the value in "
        "the cell, for " + " and ".join(map(theme.architecture_name, architectures))
    )


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """A row per layer, architecture and measure, with value, shade (0..1 in its row of cells) and label."""
    table = table.assign(l0_share=table.l0 / table.latents)
    long = table.melt(["layer", "architecture"], list(_MEASURES), "measure", "value").dropna(subset="value")
    values = long.groupby(["architecture", "measure"]).value
    low, high = values.transform("min"), values.transform("max")
    long["shade"] = ((long.value - low) / (high - low)).where(high > low, 0.0)
    long["label"] = [_short(_MEASURES[m][1].format(value)) for m, value in zip(long.measure, long.value)]
    return long.assign(measure=[_MEASURES[measure][0] for measure in long.measure])


def _short(number: str) -> str:
    """At most four characters and a unit fit into a cell: 12.50% -> 12.5%, 100.0% -> 100%."""
    if number.endswith("%") and len(number) > 5:
        number = f"{float(number[:-1]):.1f}%" if float(number[:-1]) < 99.95 else "100%"
    return number
