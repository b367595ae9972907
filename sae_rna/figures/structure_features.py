"""Features against structural elements; what one of them does on example RNAs is drawn in `tracks`."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import ELEMENT_COLOURS, GREY, WIDTH
from sae_rna.records.structure import ELEMENTS

#: What is said of features that their confounds explain.
EXPLAINED = "explained by base, neighbours, position, length"
_SERIES = {"f1": "best feature", "base_f1": "always-on feature", "null_p95": "shuffled null, 95th percentile"}
_DASHES = dict(zip(_SERIES.values(), ([[1, 0]], [[2, 2]], [[7, 3]])))


def element_scores(table: pd.DataFrame) -> alt.VConcatChart:
    """Best held-out F1 per structural element and layer, beside an always-on feature's and a shuffled null's.

    A point is filled where the feature beats both controls and a hollow diamond where its confounds explain
    it. `table`: one row per layer x element, with layer, element (letter), feature, f1, base_f1, null_p95
    (all 0..1), auroc, elements (count of held-out elements) and explained (bool, missing where not known).
    """
    columns = "layer element feature f1 base_f1 null_p95 auroc elements explained"
    table = theme.checked(table, "element_scores", columns)
    explained = table.explained.eq(True)
    table["filled"] = (table.f1 > table[["base_f1", "null_p95"]].max(axis=1)) & ~explained
    table["verdict"] = np.where(explained, EXPLAINED, "not explained")
    x = theme.layer_axis(table.layer, title=None)
    panels: list[alt.TopLevelMixin] = []
    for letter in theme.known(table.element, ELEMENTS):
        rows = table[table.element == letter]
        title = alt.Title(ELEMENTS[letter], subtitle=f"n = {int(rows.elements.max()):,} elements")
        panel = _element(rows, letter, x, leftmost=len(panels) % 4 == 0)
        panels.append(panel.properties(width=WIDTH // 4 - 28, height=130, title=title))
    rows = [alt.hconcat(*panels[start : start + 4], spacing=10) for start in range(0, len(panels), 4)]
    best = table.loc[table.f1.idxmax()]
    return alt.vconcat(*rows, spacing=14).properties(
        description=f"Best held-out F1 per structural element for layers {table.layer.min()} to "
        f"{table.layer.max()}, highest {best.f1:.2f} for {ELEMENTS[best.element]} in "
        f"{theme.layer_name(best.layer)}, with always-on feature and null beside it. {explained.sum()} of "
        f"{len(table)} are {EXPLAINED}."
    )


def _element(rows: pd.DataFrame, letter: str, x: alt.X, leftmost: bool) -> alt.LayerChart:
    """The panel of one element: a line for the feature and for each control, points on the feature's."""
    colour, shown = ELEMENT_COLOURS[letter], dict.fromkeys(("labels", "ticks", "domain"), leftmost)
    axis = alt.Axis(values=[0, 0.2, 0.4, 0.6, 0.8, 1], format=".1f", labelFlush=True, **shown)
    y = {"title": "held-out F1" if leftmost else None, "axis": axis, "scale": alt.Scale(domain=[0, 1])}
    dash = theme.kinds("series", _DASHES, [alt.StrokeDash], {"symbolSize": 400, "labelLimit": 300})
    base, layers = alt.Chart(rows).encode(x=x), []
    for column, name in reversed(_SERIES.items()):
        look = {"color": colour, "strokeWidth": 2} if column == "f1" else {"color": GREY, "strokeWidth": 1.5}
        line = base.mark_line(**look).transform_calculate(series=f"'{name}'")
        layers.append(line.encode(*dash, y=alt.Y(f"{column}:Q", **y)))
    scores = {"f1": "held-out F1", "base_f1": "always-on feature", "null_p95": "null, 95th percentile"}
    tooltip = ["layer:Q", "feature:Q", *theme.tooltips(".3f", **scores, auroc="AUROC")]
    tooltip += [*theme.tooltips(",", elements="held-out elements"), "verdict:N"]
    legend = {"values": [EXPLAINED], "symbolSize": 60, "padding": 5, "labelLimit": 300}
    shapes = {EXPLAINED: ["diamond"], "not explained": ["circle"]}
    points = base.mark_point(strokeWidth=1.5, size=40 if theme.few(rows.layer) else 18).encode(
        *theme.kinds("verdict", shapes, [alt.Shape], legend),
        y=alt.Y("f1:Q", **y),
        fill=alt.condition("datum.filled", alt.value(colour), alt.value("white")),
        # The colour is the panel's; a legend takes the value for where a condition does not hold.
        stroke=alt.condition("true", alt.value(colour), alt.value(GREY)),
        tooltip=tooltip,
    )
    return alt.layer(*layers, points)
