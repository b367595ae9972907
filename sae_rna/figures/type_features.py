"""Features against types of RNA: which ones each type lights up (Figure 5), how many are selective, and how
well probes of them tell types apart."""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage

from sae_rna.figures import theme

#: What is said of features that their confounds explain.
EXPLAINED_TYPE = "explained by length and composition"
_WIDTH = theme.WIDTH - 90  # of a panel of features
_DOT = "#e69f00"  # of cells whose feature prefers their type


def type_features(
    table: pd.DataFrame, layers: Sequence[int], top: int = 3, kind="retained"
) -> alt.VConcatChart:
    """Figure 5: the union of each type's `top` strongest features in each of `layers`, a panel for each.

    Rows (features) are clustered in each panel, columns (RNA types) once over all panels, so that panels can
    be compared: average linkage of Euclidean distances, leaves in optimal order. The colours end at the
    largest activation. `table`: one row per layer x feature x type, with layer, feature, type, activation
    (0..1), rank (1 = the type's strongest feature in that layer), survives (settings in which the feature
    prefers the type, joined by commas; such cells have a dot), explained (bool): a feature that its confounds
    explain for any type has a †; and page, if there is one: the address that a cell leads to. `kind` of
    features, for the panel that has none, which says so.
    """
    columns = "layer feature type activation rank survives explained".split()
    table = table[columns + ["page"] * ("page" in table)].reset_index(drop=True)
    table = table[table.layer.isin(layers)].astype({"activation": float, "rank": float})
    table = _chosen(table, top)
    matrix = table.pivot_table(index=["layer", "feature"], columns="type", values="activation").fillna(0.0)
    types = matrix.columns[clustered(matrix.to_numpy().T)].tolist()
    most, drawn, counts = float(table.activation.max()) if len(table) else 1.0, 0, []
    panels: list[alt.TopLevelMixin] = []
    marks = {"orange dot: the feature prefers this type": (table.survives != "").any()}
    notes = [note for note, used in (marks | {f"† {EXPLAINED_TYPE}": table.explained.any()}).items() if used]
    for layer in layers:
        title = alt.Title(f"layer {layer}", frame="group")
        rows = table[table.layer == layer]
        counts.append(f"{theme.layer_name(layer)} with {rows.feature.nunique()} features")
        if rows.empty:
            empty = theme.nothing(f"No {kind} feature in this layer.")
            panels.append(empty.properties(title=title, width=_WIDTH))
            continue
        drawn += 1
        if notes and drawn == 1:
            title.subtitle = ";  ".join(notes)
        features = matrix.loc[layer].index[clustered(matrix.loc[layer].to_numpy())].tolist()
        panel = _heat_map(rows, features, types, most, names=drawn == table.layer.nunique())
        panels.append(panel.properties(title=title))
    dagger = f"; a † marks a feature {EXPLAINED_TYPE}" if table.explained.any() else ""
    return alt.vconcat(*panels, spacing=10).properties(
        description=f"Heat map of normalised activation, {len(types)} RNA types by the union of each type's "
        f"{top} strongest {kind} features, {', '.join(counts)}; {(table.survives != '').sum()} cells are of "
        f"features that prefer the type{dagger}"
    )


def _chosen(table: pd.DataFrame, top: int) -> pd.DataFrame:
    """Rows of the features that are drawn; `explained` is a feature's, for any type."""
    chosen = table.loc[table["rank"] <= top, ["layer", "feature"]].drop_duplicates()
    table = table.merge(chosen, on=["layer", "feature"])
    explained = table.explained.eq(True).groupby([table.layer, table.feature]).transform("any")
    return table.assign(explained=explained.astype(bool))


def _heat_map(table, features: list[int], types: list[str], most: float, names: bool) -> alt.LayerChart:
    """The panel of one layer; colours end at `most`; `names`: whether those of the types stand below it."""
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
    tooltip += theme.tooltips(survives="prefers this type in", explained="explained by its confounds")
    x = alt.X("type:N", title=None, sort=types, axis=x_axis)
    y = alt.Y("feature:O", title=f"{len(features)} features", sort=features, axis=y_axis)
    ticks = {"tickCount": 4, "format": ".2f"}
    colour = theme.gradient("activation", "normalised activation", theme.ACTIVATION, 160, (0, most), **ticks)
    table = theme.fits(table.replace({"survives": {"": "–"}}), "type_features")
    base = alt.Chart(table).encode(x=x, y=y, tooltip=tooltip, **theme.links(table))
    dots = base.transform_filter("datum.survives != '–'")
    dots = dots.mark_point(size=min(24, 2 * step), color=_DOT, stroke="white", strokeWidth=0.6)
    chart = base.mark_rect().encode(color=colour) + dots
    return chart.properties(width=_WIDTH, height=alt.Step(step))


def clustered(matrix: np.ndarray) -> list[int]:
    """Row numbers of `matrix` [rows, columns] in the leaf order of an average-linkage clustering."""
    if len(matrix) < 3:
        return list(range(len(matrix)))
    return leaves_list(linkage(matrix, method="average", metric="euclidean", optimal_ordering=True)).tolist()


def type_effects(table: pd.DataFrame) -> alt.VConcatChart:
    """Heat map of how many features are selective for each RNA type in each layer, all tests passed.

    A panel per setting; types without such a feature in any of them are not drawn, the others stand in the
    order of their totals. `table`: one row per setting x layer x type, with setting, layer, type, surviving
    and tested (features; a dash stands where none could be tested).
    """
    columns = "setting layer type surviving tested"
    table = theme.fits(table[columns.split()].reset_index(drop=True), "type_effects")
    if table.empty:
        return theme.nothing("No feature could be tested: families are not known, or too few of each type.")
    tested = table.tested > 0
    table["surviving"] = table.surviving.where(tested, 0)
    table["label"] = table.surviving.map("{:,.0f}".format).where(tested, "–")
    totals = table.groupby("type", sort=False).surviving.sum().sort_values(ascending=False, kind="stable")
    types, most = totals.index[totals > 0].tolist(), int(table.surviving.max())
    if not types:
        words = f"No feature prefers a type beyond length and GC content, of {len(totals)} types tested."
        return theme.nothing(words)
    table, title = table[table.type.isin(types)], "type-selective features"
    panels: list[alt.TopLevelMixin] = []
    ticks = {"values": sorted({0, most // 2, most}), "format": ",d"}
    colour = theme.gradient("surviving", title, theme.SEQUENTIAL, 160, [0, most], **ticks)
    tooltip = ["layer:O", "type:N", *theme.tooltips(",", surviving=title, tested="features tested")]
    y = alt.Y("type:N", title=None, sort=types, axis=theme.bare_axis(labelLimit=theme.NAMES))
    dark = f"datum.tested > 0 && datum.surviving > {0.6 * most}"
    for setting, rows in table.groupby("setting", sort=False):
        cells, labels = theme.heat_map(rows, table.layer, y, dark)
        cells = cells.transform_filter("datum.tested > 0").encode(color=colour, tooltip=tooltip)
        step = alt.Step(22 if theme.few(table.layer) else 32)
        panel = (cells + labels.encode(tooltip=tooltip)).properties(title=setting, height=step)
        panels.append(panel.properties(width=theme.WIDTH - theme.NAMES - 10))
    return alt.vconcat(*panels, spacing=14).properties(
        description=f"Features selective for {len(types)} of {len(totals)} RNA types in layer "
        f"{theme.layer_range(table.layer)}, at most {most:,} in a layer; most for {types[0]}."
    )


def type_probe(table: pd.DataFrame) -> alt.HConcatChart:
    """Balanced accuracy of probes for RNA type with 95 % intervals, a panel per setting, chance as a line.

    Probes of SAE features are coloured, others grey. `table`: one row per setting x representation, with
    setting, representation, balanced_accuracy, low, high, chance, columns (read), nonzero_weights.
    """
    columns = "setting representation balanced_accuracy low high chance columns nonzero_weights"
    table = theme.checked(table, "type_probe", columns)
    table["written"] = list(map(theme.interval_text, table.balanced_accuracy, table.low, table.high))
    table["kind"] = np.where(table.representation.str.startswith("SAE"), "SAE features", "compared with")
    looks = {"SAE features": (theme.BLUE, "circle"), "compared with": (theme.DARK, "square")}
    colour, shape = theme.kinds("kind", looks, (alt.Color, alt.Shape), {"symbolSize": 75})
    tooltip = ["representation:N", *theme.tooltips(written="accuracy (95 % interval)")]
    tooltip += theme.tooltips(",", columns="columns", nonzero_weights="weights that are not 0")
    names, panels = list(dict.fromkeys(table.representation)), list[alt.TopLevelMixin]()
    settings = list(dict.fromkeys(table.setting))
    scale = alt.Scale(domain=[0, float(table.high.max())], nice=True)
    width = (theme.WIDTH - 200) // len(settings) - 20
    for setting in settings:
        rows = table[table.setting == setting]
        axis = theme.bare_axis(labels=not panels, labelLimit=180)
        y = alt.Y("representation:N", title=None, sort=names, axis=axis, scale=alt.Scale(domain=names))
        x = alt.X("balanced_accuracy:Q", title="balanced accuracy", scale=scale, axis=alt.Axis(tickCount=5))
        base = alt.Chart(rows).encode(colour, y=y)
        interval = base.mark_rule(strokeWidth=1.6).encode(x=alt.X("low:Q", scale=scale), x2="high:Q")
        points = base.mark_point(size=75).encode(shape, x=x, tooltip=tooltip)
        chance = alt.Chart(rows.head(1)).mark_rule(color=theme.GREY, strokeDash=[4, 3])
        chance = chance.encode(x=alt.X("chance:Q", scale=scale), tooltip=theme.tooltips(".3f", "chance"))
        title = alt.Title(setting, subtitle=f"dashes: chance, {rows.chance.iloc[0]:.3f}")
        panel = alt.layer(chance, interval, points)
        panels.append(panel.properties(width=width, height=alt.Step(24), title=title))
    features = table[table.kind == "SAE features"].balanced_accuracy
    return alt.hconcat(*panels, spacing=16).properties(
        description=f"Balanced accuracy of linear probes for RNA type from {len(names)} representations in "
        f"{' and '.join(settings)}; SAE features reach {features.min():.2f} to {features.max():.2f}."
    )
