"""Features against types of RNA: which ones each type lights up (Figure 5), and how many are selective."""

import altair as alt
import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage

from sae_rna.figures import theme

#: What is said of features that their confounds explain.
EXPLAINED_TYPE = "explained by length and composition"


def type_features(table: pd.DataFrame, top: int = 3) -> alt.VConcatChart:
    """Figure 5: the union of each type's `top` features for the first, a middle and the last layer.

    Rows (features) are clustered in each panel, columns (RNA types) once over all panels, so that panels can
    be compared: average linkage of Euclidean distances, leaves in optimal order. `table`: one row per layer x
    feature x type, with layer, feature, type, activation (0..1), rank (1 = the type's strongest feature in
    that layer), explained (bool): a feature that its confounds explain for any type has a †.
    """
    if table.empty:
        return theme.nothing("No feature prefers a type of RNA here.")
    table = _chosen(table, top)
    matrix = table.pivot_table(index=["layer", "feature"], columns="type", values="activation").fillna(0.0)
    types = matrix.columns[clustered(matrix.to_numpy().T)].tolist()
    matrices = {layer: matrix.loc[layer] for layer in matrix.index.unique("layer")}
    panels: list[alt.TopLevelMixin] = []
    for layer, matrix in matrices.items():
        features = matrix.index[clustered(matrix.to_numpy())].tolist()
        title = alt.Title(f"layer {theme.layer_name(layer)}", frame="group")
        if table.explained.any() and not panels:
            title.subtitle = f"† {EXPLAINED_TYPE}"
        panel = _heat_map(table[table.layer == layer], features, types, names=layer == max(matrices))
        panels.append(panel.properties(title=title))
    counts = [f"{theme.layer_name(layer)} with {len(rows)} features" for layer, rows in matrices.items()]
    dagger = f"; a † marks a feature {EXPLAINED_TYPE}" if table.explained.any() else ""
    return alt.vconcat(*panels, spacing=10).properties(
        description=f"Heat map of normalised activation, {len(types)} RNA types by the union of each type's "
        f"{top} strongest features, {', '.join(counts)}{dagger}"
    )


def _chosen(table: pd.DataFrame, top: int) -> pd.DataFrame:
    """Rows of the layers and features that are drawn; `explained` is a feature's, for any type."""
    table = theme.select(table, "type_features", "layer feature type activation rank explained")
    layers = sorted(table.layer.unique())
    layers = layers if len(layers) <= 3 else [layers[0], layers[len(layers) // 2], layers[-1]]
    table = table[table.layer.isin(layers)]
    chosen = table.loc[table["rank"] <= top, ["layer", "feature"]].drop_duplicates()
    table = table.merge(chosen, on=["layer", "feature"])
    explained = table.explained.eq(True).groupby([table.layer, table.feature]).transform("any")
    return table.assign(explained=explained)


def _heat_map(table: pd.DataFrame, features: list[int], types: list[str], names: bool) -> alt.Chart:
    """The panel of one layer; `names`: whether those of the types stand below it."""
    step = max(4.0, min(14.0, 320 / len(features)))
    x_axis = theme.bare_axis(labels=names, labelAngle=-45, labelLimit=140)
    y_axis = theme.bare_axis(labels=step >= 8, labelFontSize=min(10, step), minExtent=30)
    explained = table[table.explained].feature.unique().tolist()
    if explained:  # rows too low for names still show their daggers
        name = "datum.label" if step >= 8 else "''"
        y_axis.labels, y_axis.labelFontSize, y_axis.labelOverlap = True, max(8, min(10, step)), False
        y_axis.labelExpr = f"{name} + (indexof({explained}, datum.value) < 0 ? '' : '†')"
    tooltip = ["type:N", "feature:O", *theme.tooltips(".3f", "activation")]
    tooltip.append(alt.Tooltip("rank:Q", title="rank within type"))
    tooltip += theme.tooltips(explained="explained by its confounds")
    x = alt.X("type:N", title=None, sort=types, axis=x_axis)
    y = alt.Y("feature:O", title=f"{len(features)} features", sort=features, axis=y_axis)
    colour = theme.gradient("activation", "normalised activation", theme.ACTIVATION, 160, tickCount=3)
    chart = alt.Chart(theme.fits(table, "type_features")).mark_rect()
    chart = chart.properties(width=theme.WIDTH - 90, height=alt.Step(step))
    return chart.encode(x=x, y=y, color=colour, tooltip=tooltip)


def clustered(matrix: np.ndarray) -> list[int]:
    """Row numbers of `matrix` [rows, columns] in the leaf order of an average-linkage clustering."""
    if len(matrix) < 3:
        return list(range(len(matrix)))
    return leaves_list(linkage(matrix, method="average", metric="euclidean", optimal_ordering=True)).tolist()


def type_effects(table: pd.DataFrame) -> alt.LayerChart:
    """Heat map of how many features are selective for each RNA type in each layer, all tests passed.

    Types stand in the order of their totals. `table`: one row per layer x type, with layer, type, surviving
    and tested (features; a dash stands where none could be tested).
    """
    if table.empty:
        return theme.nothing("No feature could be tested: families are not known, or too few of each type.")
    columns = "layer type surviving tested"
    table = theme.checked(table, "type_effects", columns)
    tested = table.tested > 0
    table["surviving"] = table.surviving.where(tested, 0)
    table["label"] = table.surviving.map("{:,.0f}".format).where(tested, "–")
    types = table.groupby("type", sort=False).surviving.sum().sort_values(ascending=False, kind="stable")
    most = int(table.surviving.max())
    top = max(most, 1)
    title, ticks = "type-selective features", {"values": sorted({0, top // 2, top}), "format": ",d"}
    colour = theme.gradient("surviving", title, theme.SEQUENTIAL, 160, [0, top], **ticks)
    tooltip = ["layer:O", "type:N", *theme.tooltips(",", surviving=title, tested="features tested")]
    y = alt.Y("type:N", title=None, sort=types.index.tolist(), axis=theme.bare_axis(labelLimit=theme.NAMES))
    dark = f"datum.tested > 0 && datum.surviving > {0.6 * most}"
    cells, labels = theme.heat_map(table, table.layer, y, dark)
    cells = cells.transform_filter("datum.tested > 0").encode(color=colour, tooltip=tooltip)
    return (cells + labels).properties(
        width=theme.WIDTH - theme.NAMES - 10,
        height=alt.Step(22 if theme.few(table.layer) else 32),
        description=f"Features selective for {len(types)} RNA types in layer {theme.layer_range(table.layer)}"
        f", from {table.surviving.min():,.0f} to {most:,} in a layer; most for {types.index[0]}.",
    )
