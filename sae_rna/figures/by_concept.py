"""Figures of features against annotations: structural elements and RNA types (Figure 5)."""

import altair as alt
import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import leaves_list, linkage

from sae_rna.figures import theme
from sae_rna.figures.theme import ACTIVATION, ELEMENT_COLOURS, GREY, WIDTH
from sae_rna.records.structure import ELEMENTS

#: What is said of features that their confounds explain: of those for elements, and for types.
EXPLAINED, EXPLAINED_TYPE = (
    "explained by base, neighbours, position, length",
    "explained by length and composition",
)
_SERIES = {"f1": "best feature", "base_f1": "always-on feature", "null_p95": "shuffled null, 95th percentile"}


def element_scores(table: pd.DataFrame) -> alt.VConcatChart:
    """Best held-out F1 per structural element and layer, beside what an always-on feature and a shuffled null reach.

    A point is filled where the feature beats both controls and a hollow diamond where its confounds explain it. Parameters: `table`,
    one row per layer x element, with layer, element (letter), feature, f1, base_f1, null_p95 (all 0..1), auroc, elements (count of
    held-out elements), and explained (bool) where it is known.
    """
    columns = ["layer", "element", "feature", "f1", "base_f1", "null_p95", "auroc", "elements"]
    judged = "explained" in table
    table = theme.checked(table, "element_scores", columns + ["explained"] * judged)
    explained = table.explained.eq(True) if judged else pd.Series(False, table.index)
    table["filled"] = (table.f1 > table[["base_f1", "null_p95"]].max(axis=1)) & ~explained
    table["verdict"] = np.where(explained, EXPLAINED, "not explained")
    dash = alt.Scale(domain=list(_SERIES.values()), range=[[1, 0], [2, 2], [7, 3]])
    scale = alt.Scale(domain=[EXPLAINED, "not explained"], range=["diamond", "circle"])
    legend = alt.Legend(orient="top", values=[EXPLAINED], symbolSize=60, padding=5, labelLimit=300)
    shape = {"shape": alt.Shape("verdict:N", title=None, scale=scale, legend=legend)} if judged else {}
    width = WIDTH // 4 - 28
    x = theme.layer_axis(table.layer, title=None)
    panels = []
    for letter in theme.known_elements(table.element, "element_scores"):
        rows = table[table.element == letter]
        base = alt.Chart(rows).encode(x=x)
        leftmost = len(panels) % 4 == 0
        axis = alt.Axis(
            values=[0, 0.2, 0.4, 0.6, 0.8, 1],
            format=".1f",
            labelFlush=True,
            labels=leftmost,
            ticks=leftmost,
            domain=leftmost,
        )
        y = {"title": "held-out F1" if leftmost else None, "axis": axis, "scale": alt.Scale(domain=[0, 1])}
        tooltip = [
            alt.Tooltip("layer:Q"),
            alt.Tooltip("feature:Q"),
            alt.Tooltip("f1:Q", format=".3f", title="held-out F1"),
            alt.Tooltip("base_f1:Q", format=".3f", title="always-on feature"),
            alt.Tooltip("null_p95:Q", format=".3f", title="null, 95th percentile"),
            alt.Tooltip("auroc:Q", format=".3f", title="AUROC"),
            alt.Tooltip("elements:Q", format=",", title="held-out elements"),
            *([alt.Tooltip("verdict:N")] if judged else []),
        ]
        colour = ELEMENT_COLOURS[letter]
        layers = [
            base.mark_line(color=colour if column == "f1" else GREY, strokeWidth=2 if column == "f1" else 1.5).transform_calculate(
                series=f"'{name}'"
            ).encode(y=alt.Y(f"{column}:Q", **y), strokeDash=alt.StrokeDash(
                "series:N", title=None, scale=dash, legend=alt.Legend(orient="top", symbolSize=400, labelLimit=300)))
            for column, name in reversed(_SERIES.items())
        ]  # fmt: skip
        points = base.mark_point(strokeWidth=1.5, size=40 if rows.layer.nunique() <= 12 else 18).encode(
            y=alt.Y("f1:Q", **y), fill=alt.condition("datum.filled", alt.value(colour), alt.value("white")), tooltip=tooltip,
            # The colour is the panel's; a legend takes the value for where a condition does not hold.
            stroke=alt.condition("true", alt.value(colour), alt.value(GREY)), **shape,
        )  # fmt: skip
        title = alt.Title(f"{ELEMENTS[letter]}", subtitle=f"n = {int(rows.elements.max()):,} elements")
        panels.append(alt.layer(*layers, points).properties(width=width, height=130, title=title))
    rows = [alt.hconcat(*panels[start : start + 4], spacing=10) for start in range(0, len(panels), 4)]
    best = table.loc[table.f1.idxmax()]
    return alt.vconcat(*rows, spacing=14).properties(
        description=f"Best held-out F1 per structural element for layers {table.layer.min()} to {table.layer.max()}, highest "
        f"{best.f1:.2f} for {ELEMENTS[best.element]} in {theme.layer_name(best.layer)}, with always-on feature and null beside it."
        + (f" {explained.sum()} of {len(table)} are {EXPLAINED}." if judged else "")
    )


def type_features(table: pd.DataFrame, top: int = 3) -> alt.VConcatChart:
    """Figure 5: union of each type's `top` features for the first, a middle and the last layer, types x features.

    Rows (features) are clustered in each panel, columns (RNA types) once over all panels, so that panels can be compared:
    average linkage of Euclidean distances, leaves in optimal order. Parameters: `table`, one row per layer x feature x type,
    with layer, feature, type, activation (0..1), rank (1 = the type's strongest feature in that layer), and explained (bool)
    where it is known: a feature that its confounds explain for any type has a †. Of more than three layers the first, the
    middle and the last are drawn.
    """
    judged = ["explained"] if "explained" in table else []
    if table.empty:
        return theme.nothing("No feature prefers a type of RNA here.")
    table = theme.select(table, "type_features", ["layer", "feature", "type", "activation", "rank", *judged])
    layers = sorted(table.layer.unique())
    layers = layers if len(layers) <= 3 else [layers[0], layers[len(layers) // 2], layers[-1]]
    table = table[table.layer.isin(layers)]
    chosen = table.loc[table["rank"] <= top, ["layer", "feature"]].drop_duplicates()
    table = table.merge(chosen, on=["layer", "feature"])
    if judged:
        table["explained"] = table.explained.eq(True).groupby([table.layer, table.feature]).transform("any")
    matrices = {
        layer: rows.pivot_table(index="feature", columns="type", values="activation")
        .reindex(columns=sorted(table.type.unique()))
        .fillna(0.0)
        for layer, rows in table.groupby("layer")
    }
    types = list(np.array(sorted(table.type.unique()))[clustered(np.vstack(list(matrices.values())).T)])
    legend = alt.Legend(
        orient="top", titleOrient="left", gradientLength=160, gradientThickness=9, tickCount=3
    )
    colour = alt.Color(
        "activation:Q",
        title="normalised activation",
        scale=alt.Scale(domain=[0, 1], range=ACTIVATION),
        legend=legend,
    )
    tooltip = [
        "type:N",
        "feature:O",
        alt.Tooltip("activation:Q", format=".3f"),
        alt.Tooltip("rank:Q", title="rank within type"),
    ]
    tooltip += [alt.Tooltip("explained:N", title="explained by its confounds") for _ in judged]
    panels = []
    for layer, matrix in matrices.items():
        features = matrix.index[clustered(matrix.to_numpy())].tolist()
        step = max(4.0, min(14.0, 320 / len(features)))
        x_axis = alt.Axis(
            labels=bool(layer == layers[-1]), labelAngle=-45, labelLimit=140, ticks=False, domain=False
        )
        explained = (
            table[(table.layer == layer) & table.explained].feature.unique().tolist() if judged else []
        )
        y_axis = alt.Axis(
            labels=bool(step >= 8), labelFontSize=min(10, step), minExtent=30, ticks=False, domain=False
        )
        if explained:  # rows too low for names still show their daggers
            name = "datum.label" if step >= 8 else "''"
            y_axis.labels, y_axis.labelFontSize, y_axis.labelOverlap = True, max(8, min(10, step)), False
            y_axis.labelExpr = f"{name} + (indexof({explained}, datum.value) < 0 ? '' : '†')"
        panel = (
            alt.Chart(theme.fits(table[table.layer == layer], "type_features"))
            .mark_rect()
            .encode(
                x=alt.X("type:N", title=None, sort=types, axis=x_axis),
                y=alt.Y("feature:O", title=f"{len(features)} features", sort=features, axis=y_axis),
                color=colour,
                tooltip=tooltip,
            )
        )
        title = alt.Title(f"layer {theme.layer_name(layer)}", frame="group")
        if layer == layers[0] and judged and table.explained.any():
            title.subtitle = f"† {EXPLAINED_TYPE}"
        panels.append(panel.properties(width=WIDTH - 90, height=alt.Step(step), title=title))
    return alt.vconcat(*panels, spacing=10).properties(
        description=f"Heat map of normalised activation, {len(types)} RNA types by the union of each type's {top} strongest features, "
        + ", ".join(
            f"{theme.layer_name(layer)} with {len(matrix)} features" for layer, matrix in matrices.items()
        )
        + (f"; a † marks a feature {EXPLAINED_TYPE}" if judged and table.explained.any() else "")
    )


def clustered(matrix: np.ndarray) -> list[int]:
    """Row numbers of `matrix` [rows, columns] in the leaf order of an average-linkage clustering."""
    if len(matrix) < 3:
        return list(range(len(matrix)))
    return leaves_list(linkage(matrix, method="average", metric="euclidean", optimal_ordering=True)).tolist()


_POSITIONS = {"all": "all masked bases", "paired": "paired bases", "unpaired": "unpaired bases"}


def masked_accuracy(table: pd.DataFrame) -> alt.HConcatChart:
    """Masked-base accuracy of predictors (a language model and its baselines) on several sets of RNAs.

    Parameters: `table`, one row per set x predictor x positions, with set, predictor, positions ("all", "paired" or
    "unpaired"), tokens (masked bases), accuracy (0..1). The first predictor of the table is the one under test.
    """
    table = theme.checked(table, "masked_accuracy", ["set", "predictor", "positions", "tokens", "accuracy"])
    unknown = sorted(set(table.positions) - set(_POSITIONS))
    if unknown:
        raise ValueError(
            f"masked_accuracy: {unknown[0]!r} is no kind of position; there are {', '.join(_POSITIONS)}"
        )
    sets, predictors = list(dict.fromkeys(table["set"])), list(dict.fromkeys(table.predictor))
    table["positions"] = table.positions.map(_POSITIONS)
    baselines = range(len(predictors) - 1)
    colours = alt.Scale(
        domain=predictors, range=["#0072b2", *(["#5a5a5a", "#8a8a8a", "#b3b3b3"][i % 3] for i in baselines)]
    )
    shapes = alt.Scale(
        domain=predictors,
        range=["circle", *(["diamond", "triangle-up", "square", "cross"][i % 4] for i in baselines)],
    )
    legend = alt.Legend(orient="top", columns=4, labelLimit=260)
    tooltip = [
        alt.Tooltip("set:N"),
        alt.Tooltip("predictor:N"),
        alt.Tooltip("accuracy:Q", format=".3f"),
        alt.Tooltip("tokens:Q", format=",", title="masked bases"),
    ]
    x = alt.X(
        "accuracy:Q",
        title="accuracy",
        axis=alt.Axis(format="%", values=[0, 0.25, 0.5, 0.75, 1]),
        scale=alt.Scale(domain=[0, 1]),
    )
    shown = [name for name in _POSITIONS.values() if name in set(table.positions)]
    panels = []
    for positions in shown:
        axis = alt.Axis(labels=not panels, labelLimit=260, ticks=False, domain=False, grid=True)
        base = alt.Chart(table[table.positions == positions]).encode(
            x=x, y=alt.Y("set:N", title=None, sort=sets, axis=axis)
        )
        points = base.mark_point(size=75).encode(
            color=alt.Color("predictor:N", sort=predictors, title=None, scale=colours, legend=legend),
            shape=alt.Shape("predictor:N", sort=predictors, title=None, scale=shapes, legend=legend),
            tooltip=tooltip,
        )
        number = base.mark_text(dy=-11, fontSize=10.5, color="#0072b2").encode(
            text=alt.Text("accuracy:Q", format=".3f")
        )
        number = number.transform_filter(alt.datum.predictor == predictors[0])
        panels.append(
            (points + number).properties(
                width=(WIDTH - 230) // len(shown) - 12, height=alt.Step(34), title=positions
            )
        )
    return alt.hconcat(*panels, spacing=14).properties(
        description="Masked-base accuracy of "
        + ", ".join(map(str, predictors))
        + " on "
        + ", ".join(map(str, sets))
        + ", by pairing."
    )
