"""Features over layers: retained features (Figure 2) and the passage from diffuse to sparse."""

import math

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme


def retained_features(layers: pd.DataFrame, min_sequences: int = 10) -> alt.HConcatChart:
    """Figure 2: features that fire in `min_sequences` or more sequences, dead share and firing density.

    `layers`: one row per layer x architecture, with layer, architecture, latents (dictionary size), retained
    (features), dead_share (0..1), density_p10, density_p50 and density_p90 (share of
    nucleotides, over live features). Architectures stand side by side, so that equal ones can be told apart.
    """
    columns = "layer architecture latents retained dead_share density_p10 density_p50 density_p90"
    table = theme.checked(layers, "retained_features", columns)
    colours = {name: theme.ARCHITECTURE_COLOURS.get(name, theme.GREY) for name in theme.architectures(table)}
    looks = {theme.architecture_name(name): [colour] for name, colour in colours.items()}
    colour = theme.kinds("architecture", looks, [alt.Color], {"symbolType": "stroke"})
    table["architecture"] = table.architecture.map(theme.architecture_name)
    x, few = theme.layer_axis(table.layer), theme.few(table.layer)
    table = theme.side_by_side(table, table.architecture.map([*looks].index), len(looks))
    density = {"density_p10": "10th percentile", "density_p50": "median", "density_p90": "90th percentile"}
    density = {column: f"firing density, {name}" for column, name in density.items()}
    tooltip = ["architecture:N", alt.Tooltip("block:Q", title="layer")]
    tooltip += theme.tooltips(",", retained="retained features", latents="dictionary size")
    tooltip += theme.tooltips(".1%", dead_share="dead") + theme.tooltips(".2~%", **density)
    base = alt.Chart(table).encode(*colour, x=x)
    size = 45 if few else 20

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
    y = alt.Y("density_p10:Q", title="share of nucleotides", axis=axis, scale=scale)
    band = base.mark_area(opacity=0.18).encode(y=y, y2="density_p90:Q")
    title = alt.Title("Firing density", subtitle="median of live features, band 10th to 90th percentile")
    firing = (band + lines("density_p50:Q", scale=scale)).properties(width=240, height=125, title=title)
    return alt.hconcat(retained, alt.vconcat(dead, firing, spacing=18), spacing=20).properties(
        description=f"Features retained per layer, {table.retained.min():,} to {table.retained.max():,}, "
        f"with the share of dead features ({table.dead_share.min():.0%} to {table.dead_share.max():.0%}) and "
        "the firing density of live features."
    )


_LOWEST = 1e-4  # of the logarithmic scale of shares: one nucleotide in ten thousand
_SHARES = {  # column -> how it is written in the figure and in its cells, as shares on a logarithmic scale
    "l0_share": ("active latents per nucleotide", "{:.2%}"),
    **{f"density_p{p}": (f"firing density, {p}th percentile", "{:.2%}") for p in range(90, 0, -10)},
}
_NUMBERS = {  # the same on a linear scale from 0 to 1
    "dead_share": ("dead features", "{:.1%}"),
    "explained_variance": ("explained variance", "{:.3f}"),
    "type_selectivity": ("type selectivity (tau)", "{:.3f}"),
}
_MEASURES = _SHARES | _NUMBERS
_BRIEF = ["l0_share", "density_p50", *_NUMBERS]  # shown of architectures that are only compared


def layer_sparsity(layers: pd.DataFrame, shown: str) -> alt.VConcatChart:
    """Heat map layer x sparsity measures, a panel per architecture, on two scales that all cells share.

    Shares of nucleotides and of latents have a logarithmic scale, the other measures a linear one from 0
    to 1; colours are those of the values as they are written in the cells. The architecture `shown` has all
    deciles of firing density, others the median; one whose cells read as those of a panel above has none.
    `layers`: one row per layer x architecture, with layer, architecture, latents, l0, dead_share, density_p10
    ... density_p90, explained_variance, type_selectivity.
    """
    columns = ["layer", "architecture", "latents", "l0", *list(_MEASURES)[1:]]
    table = theme.checked(layers, "layer_sparsity", " ".join(columns))
    long = theme.fits(_cells(table), "layer_sparsity")
    order = sorted(theme.architectures(table), key=lambda name: name != shown)
    panels, drawn, read = list[alt.TopLevelMixin](), list[str](), list[pd.Series]()
    for architecture in order:
        rows = long[long.architecture == architecture]
        rows = rows if architecture == shown else rows[rows.column.isin(_BRIEF)]
        cells = rows.set_index(["layer", "column"]).label
        if any(cells.equals(other.reindex(cells.index)) for other in read):
            continue
        read.append(cells)
        drawn.append(theme.architecture_name(architecture))
        panels.append(_measures(rows, table.layer, legend=not panels).properties(title=drawn[-1]))
    return alt.vconcat(*panels, spacing=20).properties(
        description="Heat map of sparsity measures per layer with the value in the cell, shares on a "
        f"logarithmic scale and the other measures from 0 to 1, for {' and '.join(drawn)}"
    )


def _measures(rows: pd.DataFrame, layers: pd.Series, legend: bool) -> alt.LayerChart:
    """The panel of one architecture; `legend`: whether the two scales stand above it."""
    names = [name for name, _ in _MEASURES.values() if name in set(rows.measure)]
    y = alt.Y("measure:N", title=None, sort=names, axis=theme.bare_axis(labelLimit=220))
    decades = range(round(math.log10(_LOWEST)), 1, 2)
    title, ticks = "share (logarithmic)", [10.0**power for power in decades]
    shares = theme.gradient("rounded", title, theme.SEQUENTIAL, 140, (_LOWEST, 1), values=ticks, format="~%")
    shares["scale"]["type"], shares["scale"]["clamp"] = "log", True
    numbers = theme.gradient("rounded", "other measures", theme.ACTIVATION, 140, values=[0, 0.5, 1])
    if not legend:
        shares.legend = numbers.legend = None
    tooltip = ["layer:O", "measure:N", theme.tooltips(label="value")[0]]
    cells, labels = theme.heat_map(rows, layers, y, dark="datum.shade > 0.6")
    of = (cells.transform_filter(f"datum.logarithmic == {logical}") for logical in ("true", "false"))
    marks = [part.encode(color=colour, tooltip=tooltip) for part, colour in zip(of, (shares, numbers))]
    step = alt.Step(19 if theme.few(layers) else 36)
    chart = alt.layer(*marks, labels.encode(tooltip=tooltip)).resolve_scale(color="independent")
    return chart.properties(width=theme.WIDTH - 205, height=step)


def _cells(table: pd.DataFrame) -> pd.DataFrame:
    """A row per layer, architecture and measure: value, label (as written), rounded (the value of the label),
    logarithmic (its scale) and shade, 0 to 1 on that scale."""
    table = table.assign(l0_share=table.l0 / table.latents)
    long = table.melt(["layer", "architecture"], list(_MEASURES), "column", "value").dropna(subset="value")
    long["label"] = [_short(_MEASURES[name][1].format(value)) for name, value in zip(long.column, long.value)]
    long["rounded"] = [_number(label) for label in long.label]
    long["logarithmic"] = long.column.isin(_SHARES)
    decades = np.log10(long.rounded.clip(_LOWEST, 1)) / -math.log10(_LOWEST) + 1
    long["shade"] = np.where(long.logarithmic, decades, long.rounded)
    return long.assign(measure=[_MEASURES[name][0] for name in long.column])


def _short(number: str) -> str:
    """At most four characters and a unit fit into a cell: 12.50% -> 12.5%, 100.0% -> 100%."""
    if number.endswith("%") and len(number) > 5:
        number = f"{float(number[:-1]):.1f}%" if float(number[:-1]) < 99.95 else "100%"
    return number


def _number(label: str) -> float:
    """The number that a label shows."""
    return round(float(label[:-1]) / 100, 6) if label.endswith("%") else float(label)


def type_sparsity(table: pd.DataFrame) -> alt.VConcatChart:
    """Which share of a layer's features an RNA of each type uses, beside the control's on the same scale.

    Above, heat maps layer x type, a panel per source; types stand in the order of their shares in the first
    one. Below, by layer, the mean over types and the selectivity for types. `table`: one row per source x
    layer x type, with source (the first one is under test), layer, type, active (0..1), rnas and selectivity
    (tau of the layer, 0..1).
    """
    columns = "source layer type active rnas selectivity"
    table = theme.checked(table, "type_sparsity", columns)
    table["label"] = table.active.map("{:.0%}".format)
    sources, most = list(dict.fromkeys(table.source)), max(float(table.active.max()), 1e-9)
    means = table[table.source == sources[0]].groupby("type").active.mean()
    types = means.sort_values(ascending=False, kind="stable").index.tolist()
    title, ticks = "share of live features", {"tickCount": 4, "format": ".0%"}
    colour = theme.gradient("active", title, theme.SEQUENTIAL, 140, [0, most], **ticks)
    tooltip = ["source:N", "layer:O", "type:N", *theme.tooltips(".2%", active=title)]
    tooltip += theme.tooltips(",", rnas="RNAs")
    width, panels = (theme.WIDTH - theme.NAMES - 18) // len(sources), list[alt.TopLevelMixin]()
    for source in sources:
        axis = theme.bare_axis(labels=not panels, labelLimit=theme.NAMES)
        y = alt.Y("type:N", title=None, sort=types, axis=axis)
        rows, dark = table[table.source == source], f"datum.active > {0.6 * most}"
        cells, labels = theme.heat_map(rows, table.layer, y, dark)
        panel = cells.encode(color=colour, tooltip=tooltip)
        if theme.few(table.layer):
            panel = panel + labels.encode(tooltip=tooltip)
        panels.append(panel.properties(width=width, height=alt.Step(17), title=source))
    maps = alt.hconcat(*panels, spacing=14)
    lines = alt.hconcat(*_by_layer(table, sources), spacing=20)
    ranges = table.groupby("source", sort=False).active.agg(["min", "max"]).itertuples()
    words = "; ".join(f"{source} {low:.1%} to {high:.1%}" for source, low, high in ranges)
    chart = alt.vconcat(maps, lines, spacing=18)
    return chart.resolve_scale(color="independent", strokeDash="independent").properties(
        description=f"Share of live features that an RNA uses, {len(types)} types by layer: {words}; below, "
        "the mean over types and the selectivity for types by layer."
    )


def _by_layer(table: pd.DataFrame, sources: list[str]) -> list[alt.LayerChart]:
    """Mean share of active features, and selectivity, a line per source: the first coloured, others grey."""
    means = table.groupby(["source", "layer"], sort=False)[["active", "selectivity"]].mean().reset_index()
    looks = dict(zip(sources, zip((theme.TEAL, theme.MIDDLE, theme.LIGHT), ([1, 0], [5, 3], [2, 2]))))
    series, panels = theme.series("source", looks), []
    means["block"] = means.layer
    titles = {"active": "share of live features, mean of types", "selectivity": "type selectivity (tau)"}
    for (column, title), style in zip(titles.items(), (".1%", ".2f")):
        tooltip = ["source:N", "layer:Q", *theme.tooltips(style.replace("1", "2"), **{column: title})]
        y = alt.Y(f"{column}:Q", title=None, scale=alt.Scale(domainMin=0), axis=alt.Axis(format=style))
        panel = theme.lines(means, theme.layer_axis(table.layer), y, series, tooltip)
        panels.append(panel.properties(width=theme.WIDTH // 2 - 60, height=110, title=title))
    return panels
