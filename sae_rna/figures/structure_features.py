"""Features against structural elements; what one of them does on example RNAs is drawn in `tracks`."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import GREY, SETTING_COLOURS, WIDTH
from sae_rna.records.structure import ELEMENTS

#: What is said of features that their confounds explain, and of others beside the shuffled null.
EXPLAINED = "explained by base, neighbours, position, GC and length"
CLEAR, UNCLEAR = "above the shuffled null", "interval reaches the shuffled null"
CHANCE = "0.5: nothing but the base"
_SERIES = {"base_auroc": "best feature", "null_p95": "shuffled null, 95 %"}
_DASHES = dict(zip([*_SERIES.values(), CHANCE], ([[1, 0]], [[5, 3]], [[1, 2]])))
_HOLLOW = {UNCLEAR: "circle", EXPLAINED: "diamond"}


def element_scores(table: pd.DataFrame) -> alt.VConcatChart:
    """Base-stratified AUROC of the best feature per structural element and layer, a line for each setting.

    A point is filled where the interval is above the null and hollow where it is not; where confounds
    explain the feature it is a hollow diamond. `table`: one row per setting x layer x element, with setting,
    layer, element (letter), feature, base_auroc, base_auroc_low, base_auroc_high, null_p95, f1, base_f1 (all
    0..1), elements (count of scored elements) and explained (bool, missing where not known).
    """
    columns = "setting layer element feature base_auroc base_auroc_low base_auroc_high null_p95 f1 base_f1 "
    table = theme.checked(table, "element_scores", columns + "elements explained")
    clear = np.where(table.base_auroc_low > table.null_p95, CLEAR, UNCLEAR)
    table["verdict"] = np.where(table.explained.eq(True), EXPLAINED, clear)
    looks = theme.known(table.setting, SETTING_COLOURS)
    colours = alt.Scale(domain=looks, range=[SETTING_COLOURS[name] for name in looks])
    drawn = table[["base_auroc", "base_auroc_low", "base_auroc_high", "null_p95"]]
    options = {"x": theme.layer_axis(table.layer, title=None), "colours": colours}
    options |= {"y": theme.auroc_scale(drawn)}
    panels: list[alt.TopLevelMixin] = []
    for letter in theme.known(table.element, ELEMENTS):
        rows = table[table.element == letter]
        counts = rows.groupby("setting", sort=False).elements.max().reindex(looks).dropna()
        n = " / ".join(f"{count:,.0f}" for count in counts)
        panel = _element(rows, leftmost=len(panels) % 4 == 0, **options)
        title = alt.Title(ELEMENTS[letter], subtitle=f"n = {n}")
        panels.append(panel.properties(width=WIDTH // 4 - 28, height=150, title=title))
    rows = [alt.hconcat(*panels[start : start + 4], spacing=10) for start in range(0, len(panels), 4)]
    best = table.loc[table.base_auroc.idxmax()]
    return alt.vconcat(*rows, spacing=14).properties(
        description=f"Base-stratified AUROC of the best feature per structural element, "
        f"{theme.layer_range(table.layer)}, in {' and '.join(looks)}; highest {best.base_auroc:.2f} for "
        f"{ELEMENTS[best.element]} in {theme.layer_name(best.layer)}, {best.setting}. Beside it the shuffled "
        f"null's 95th percentile. {(table.verdict == CLEAR).sum()} of {len(table)} features are above it and "
        f"not explained by confounds, {(table.verdict == EXPLAINED).sum()} are {EXPLAINED}."
    )


def _element(rows: pd.DataFrame, x: alt.X, colours: alt.Scale, y: alt.Scale, leftmost: bool):
    """The panel of one element: for each setting a line with its interval, points on it, and the null."""
    edge = dict.fromkeys(("labels", "ticks", "domain"), leftmost)
    axis = alt.Axis(tickCount=5, format=".2f", labelFlush=True, **edge)
    title = "AUROC within bases" if leftmost else None

    def at(column: str) -> alt.Y:
        return alt.Y(f"{column}:Q", title=title, axis=axis, scale=y)

    legend = {"symbolSize": 400, "labelLimit": 300}
    dash = theme.kinds("series", _DASHES, [alt.StrokeDash], legend)
    legend = alt.Legend(orient="top", symbolOpacity=1)
    colour = alt.Color("setting:N", title=None, scale=colours, legend=legend)
    base = alt.Chart(rows).encode(colour, x=x)
    layers = [base.mark_area(opacity=0.18).encode(y=at("base_auroc_low"), y2="base_auroc_high:Q")]
    for (column, name), width in zip(reversed(_SERIES.items()), (1.3, 2)):
        line = base.mark_line(strokeWidth=width).transform_calculate(series=f"'{name}'")
        layers.append(line.encode(*dash, y=at(column)))
    chance = alt.Chart(pd.DataFrame({"y": [0.5], "series": [CHANCE]})).mark_rule(color=GREY)
    return alt.layer(chance.encode(*dash, y=at("y")), *layers, *_points(rows, x, at("base_auroc"), colours))


def _points(rows: pd.DataFrame, x: alt.X, y: alt.Y, colours: alt.Scale) -> list[alt.Chart]:
    """Filled points of features that pass, and the hollow ones with their legend."""
    scores = {"base_auroc": "AUROC within bases", "base_auroc_low": "95 % from", "base_auroc_high": "to"}
    scores |= {"null_p95": "null, 95th percentile", "f1": "F1 by element", "base_f1": "F1, always on"}
    tooltip = [*theme.tooltips("", "setting"), "layer:Q", "feature:Q", *theme.tooltips(".3f", **scores)]
    tooltip += [*theme.tooltips(",", elements="scored elements"), "verdict:N"]
    base = alt.Chart(rows).encode(x=x, y=y, tooltip=tooltip)
    size = 40 if theme.few(rows.layer) else 16
    filled = base.mark_point(filled=True, size=size).encode(alt.Fill("setting:N", scale=colours, legend=None))
    hollow = base.mark_point(filled=False, fill="white", strokeWidth=1.5, size=size)
    legend = alt.Legend(orient="bottom", symbolSize=60, labelLimit=400)
    shapes = alt.Scale(domain=[*_HOLLOW], range=[*_HOLLOW.values()])
    shape = alt.Shape("verdict:N", title=None, scale=shapes, legend=legend)
    # A legend takes the value for where a condition does not hold.
    stroke = alt.condition("true", alt.Stroke("setting:N", scale=colours, legend=None), alt.value(GREY))
    hollow = hollow.encode(shape, stroke=stroke)
    passes = alt.datum.verdict == CLEAR
    return [filled.transform_filter(passes), hollow.transform_filter(alt.datum.verdict != CLEAR)]


_READERS = {"latents": (theme.BLUE, [1, 0]), "neurons": (theme.DARK, [6, 3])}
_READERS |= {"principal components": (theme.MIDDLE, [2, 2])}


def sparse_probe(table: pd.DataFrame) -> alt.VConcatChart:
    """What few latents, neurons or principal components say together, beside a probe that reads all of them.

    `table`: one row per setting x element x source x number of columns read, with setting, element (letter),
    source, k, columns (there are), base_auroc. A row of panels per element, a column per setting.
    """
    table = theme.checked(table, "sparse_probe", "setting element source k columns base_auroc")
    dense = table.k == table["columns"]
    table["reads"] = np.where(dense, "all columns (dense probe)", "some columns")
    settings, y_scale = list(dict.fromkeys(table.setting)), theme.auroc_scale(table[["base_auroc"]])
    ticks = [2**power for power in range(int(table.k.max()).bit_length())]
    scale = alt.Scale(type="log", base=2, domain=[0.85, 1.2 * float(table.k.max())], nice=False)
    x = {"axis": alt.Axis(values=ticks, grid=False), "scale": scale}
    legend = {"labelLimit": 260, "symbolType": "stroke", "symbolSize": 400}
    colour, dash = theme.kinds("source", _READERS, (alt.Color, alt.StrokeDash), legend)
    looks = {"some columns": ["circle"], "all columns (dense probe)": ["square"]}
    shape = theme.kinds("reads", looks, [alt.Shape], {"values": [*looks][1:], "labelLimit": 260})
    tooltip = [*theme.tooltips("", "setting", "source"), *theme.tooltips(",", k="columns read")]
    tooltip += theme.tooltips(".3f", base_auroc="AUROC within bases")
    rows: list[alt.TopLevelMixin] = []
    elements = theme.known(table.element, ELEMENTS)
    for element in elements:
        panels: list[alt.TopLevelMixin] = []
        for setting in settings:
            mine = table[(table.element == element) & (table.setting == setting)]
            title = "number of columns read" if element == elements[-1] else None
            y = alt.Y("base_auroc:Q", title=None if panels else "AUROC within bases", scale=y_scale)
            base = alt.Chart(mine).encode(colour, x=alt.X("k:Q", title=title, **x), y=y)
            points = base.mark_point(filled=True, size=55).encode(*shape, tooltip=tooltip)
            width = (WIDTH - 70) // len(settings) - 30
            panel = (base.mark_line().encode(dash) + points).properties(width=width, height=190)
            panels.append(panel.properties(title=f"{ELEMENTS[element]}, {setting}"))
        rows.append(alt.hconcat(*panels, spacing=16))
    best, names = table.loc[table.base_auroc.idxmax()], [ELEMENTS[letter] for letter in elements]
    return alt.vconcat(*rows, spacing=14).properties(
        description=f"Base-stratified AUROC of logistic regressions that read 1 to {table.k.max():,} "
        f"latents, neurons or principal components, for {' and '.join(names)} in "
        f"{' and '.join(settings)}; highest {best.base_auroc:.2f} with {best.k:,} {best.source} for "
        f"{ELEMENTS[best.element]}, {best.setting}."
    )
