"""Figures on how far features can be trusted: controls, confounds, fidelity to the model, recurrence and tested selectivity.

What is under test has a colour; what it is compared with is grey.
"""

from collections.abc import Sequence

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import GREY, INK, SEQUENTIAL, WIDTH

BLUE, DARK, MIDDLE, LIGHT = "#0072b2", "#3d3d3d", "#8a8a8a", "#b8b8b8"
# Symbols of our own: an upright stroke, and a taller one in dashes.
_STROKE, _DASHES = (
    "M-.18,-1H.18V1H-.18Z",
    "M-.13,-1.6H.13V-.8H-.13Z M-.13,-.4H.13V.4H-.13Z M-.13,.8H.13V1.6H-.13Z",
)
# Where concepts stand in rows: width of their names and height of a row, pixels.
_NAMES, _ROW = 140, 24
_FEW = 12
"""Up to so many layers each gets points that can be told apart."""


def _refuse_repeats(table: pd.DataFrame, figure: str, keys: Sequence[str]):
    repeated = table[table.duplicated(list(keys))]
    if len(repeated):
        which = ", ".join(f"{key} {value}" for key, value in repeated.iloc[0][list(keys)].items())
        raise ValueError(f"{figure}: more than one row is of {which}: keep the one to be drawn")


def _with_interval(value: float, low: float, high: float) -> str:
    """A value and, as far as it is known, its interval."""
    return (
        f"{value:.3f} ({low:.3f} to {high:.3f})"
        if np.isfinite([low, high]).all()
        else f"{value:.3f}"
        if np.isfinite(value)
        else "–"
    )


# ---------------------------------------------------------------- a row per concept


def _rows(concepts: Sequence[str]) -> alt.Y:
    axis = alt.Axis(
        minExtent=_NAMES, labelPadding=9, labelLimit=_NAMES - 12, ticks=False, domain=False, grid=False
    )
    return alt.Y("concept:N", title=None, sort=list(concepts), axis=axis)


def _heading(text: str, x: int, **mark) -> alt.Chart:
    """Text above a plot, `x` pixels from its left; a title would stand higher than this and move the plot."""
    return alt.Chart(pd.DataFrame({"heading": [text]})).mark_text(**{"x": x, "y": -10, "fontSize": 11, "align": "left"} | mark).encode(
        text="heading:N")  # fmt: skip


_SCORES = {"f1": "held-out F1", "auroc": "held-out AUROC"}
_RIVAL, _OTHERS, _NULL = "best control", "other controls", "shuffled null, 95th percentile"


def controls(table: pd.DataFrame, score: str = "f1") -> alt.VConcatChart:
    """Held-out scores of a dictionary above those of its controls, a row per concept, with its lead over the best control in numbers.

    The dictionary under test and the best control have their intervals. Parameters: `table`, one row per concept x source, with
    concept, group (of concepts, a panel each), source (the first one of the table is under test), layer, f1, f1_low, f1_high, auroc,
    null_p95 (F1, of the source under test), and auroc_low and auroc_high where they are known; `score`, "f1" or "auroc". What is
    missing is not drawn.
    """
    if score not in _SCORES:
        raise ValueError(f"controls: {score!r} is no score to draw; there are {' and '.join(_SCORES)}")
    columns = ["concept", "group", "source", "layer", "f1", "f1_low", "f1_high", "auroc", "null_p95"]
    known = [column for column in ("auroc_low", "auroc_high") if column in table]
    table = theme.checked(table, "controls", columns + known).reindex(
        columns=[*columns, "auroc_low", "auroc_high"]
    )
    _refuse_repeats(table, "controls", ["group", "concept", "source"])
    table[["value", "low", "high"]] = table[[score, f"{score}_low", f"{score}_high"]]
    null_N = table.null_p95 if score == "f1" else np.nan
    tested = str(table.source[0])
    own = table.source == tested
    rivals = table[~own].dropna(subset="value").groupby(["group", "concept"]).value.idxmax()
    table["kind"] = np.where(own, tested, np.where(table.index.isin(rivals), _RIVAL, _OTHERS))
    leads = _leads(table[["group", "concept"]].drop_duplicates(), table[own], table.loc[rivals])
    null = table[own].assign(kind=_NULL, source=_NULL, value=null_N, low=np.nan)
    table = pd.concat([table, null], ignore_index=True).dropna(subset="value")
    if table.empty:
        raise ValueError(f"controls: no row has a number in {score}, so there is nothing to draw")
    table["layer"] = [theme.layer_name(layer) if pd.notna(layer) else "–" for layer in table.layer]
    table["written"] = list(map(_with_interval, table.value, table.low, table.high))

    plot, number, name = (
        382,
        48,
        60,
    )  # width of the plot; right end of the numbers and left end of the names beside it
    marks = {
        tested: (BLUE, "circle"),
        _RIVAL: (DARK, "square"),
        _OTHERS: (MIDDLE, _STROKE),
        _NULL: (MIDDLE, _DASHES),
    }
    marks = {kind: mark for kind, mark in marks.items() if (table.kind == kind).any()}
    colours, shapes = (alt.Scale(domain=list(marks), range=list(values)) for values in zip(*marks.values()))
    legend = alt.Legend(orient="top", labelLimit=260, symbolSize=75, symbolStrokeWidth=0, offset=26)
    colour = alt.Color("kind:N", title=None, scale=colours, legend=legend)
    shape = alt.Shape("kind:N", title=None, scale=shapes, legend=legend)
    tooltip = ["concept:N", "source:N", "layer:N", alt.Tooltip("written:N", title=_SCORES[score])]
    ends = table[["value", "low", "high"]]
    scale = alt.Scale(
        domain=[min(0 if score == "f1" else 0.5, ends.min(axis=None)), ends.max(axis=None)],
        nice=True,
        zero=False,
    )
    groups = list(dict.fromkeys(leads.group))
    panels = []
    for group in groups:
        rows, beside = table[table.group == group], leads[leads.group == group]
        names = _rows(beside.concept)
        last = group == groups[-1]
        axis = alt.Axis(
            title=_SCORES[score] if last else None,
            labels=last,
            ticks=last,
            domain=last,
            tickCount=6,
            labelFlush=False,
        )
        x = alt.X("value:Q", title=_SCORES[score], axis=axis, scale=scale)
        layers = []
        for place, kind in [(0.5, _NULL), (0.7, _OTHERS), (0.7, _RIVAL), (0.3, tested)]:
            lane = names.copy()
            lane.bandPosition = place
            base = alt.Chart(rows[rows.kind == kind]).encode(y=lane, color=colour)
            if kind in (_RIVAL, tested):
                interval = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.6)
                layers.append(
                    interval.encode(x=alt.X("low:Q", title=_SCORES[score], scale=scale), x2="high:Q")
                )
            layers.append(base.mark_point(size=75).encode(x=x, shape=shape, tooltip=tooltip))
        text = alt.Chart(beside).encode(y=names)
        lead_colour = alt.condition("datum.ahead", alt.value(BLUE), alt.value(GREY))
        layers += [
            text.mark_text(x=plot + number, align="right", fontSize=11).encode(
                text="lead:N", color=lead_colour
            ),
            text.mark_text(x=plot + name, align="left", fontSize=11, limit=118, color=INK).encode(
                text="rival:N"
            ),
            _heading(str(group), -_NAMES, fontSize=12, fontWeight="bold", color=INK),
        ]
        if group == groups[0] and len(rivals):
            layers.append(_heading("lead over the best control", plot + 12, color=GREY))
        panels.append(alt.layer(*layers).properties(width=plot, height=alt.Step(_ROW)))
    return alt.vconcat(*panels, spacing=8).properties(
        description=f"{_SCORES[score]} of {tested} and its controls on {len(leads)} concepts: ahead of every control on "
        f"{leads.ahead.sum()} of the {(leads.lead != '').sum()} that both have."
    )


def _leads(concepts: pd.DataFrame, own: pd.DataFrame, rivals: pd.DataFrame) -> pd.DataFrame:
    """By how much the source under test leads in each concept and over which control, as text, empty where that is unknown."""
    keys = ["group", "concept"]
    both = concepts.merge(own[[*keys, "value"]], on=keys, how="left")
    both = both.merge(rivals[[*keys, "value", "source"]], on=keys, how="left", suffixes=("", "_rival"))
    lead = (both.value - both.value_rival).round(3)
    texts = [f"{number:+.3f}".replace("-", "−") if number else "0.000" for number in lead.fillna(0)]
    texts = np.where(lead.isna(), "", texts)
    return both[keys].assign(lead=texts, ahead=lead > 0, rival=both.source.fillna(""))


_FEATURE, _EXPLAINED, _PREDICTION = (
    "feature",
    "feature explained by its confounds",
    "prediction from its confounds",
)
_MARKS = {
    _FEATURE: (BLUE, BLUE, "circle"),
    _EXPLAINED: (BLUE, "white", "diamond"),
    _PREDICTION: (DARK, DARK, _STROKE),
}


def confounds(table: pd.DataFrame) -> alt.LayerChart:
    """Each concept's best feature and the same feature as its confounds predict it: held-out F1 of both, and the prediction's R².

    A feature that its confounds explain is a hollow diamond, as in `element_scores`. Parameters: `table`, one row per concept, with
    concept, layer, feature, f1, confound_f1, r2 (of the feature's activation, held out) and explained (bool).
    """
    table = theme.checked(
        table, "confounds", ["concept", "layer", "feature", "f1", "confound_f1", "r2", "explained"]
    )
    _refuse_repeats(table, "confounds", ["concept"])
    explained = table.explained.eq(True)
    table["kind"], table["prediction"] = np.where(explained, _EXPLAINED, _FEATURE), _PREDICTION
    table["verdict"] = np.where(explained, "explained by confounds", "")
    table["name"] = [
        f"{theme.layer_name(layer)}, {feature:.0f}" for layer, feature in zip(table.layer, table.feature)
    ]
    table["written"] = ["–" if np.isnan(r2) else f"{r2:.2f}".replace("-", "−") for r2 in table.r2]

    plot, name, r2, verdict = (
        302,
        18,
        114,
        128,
    )  # width of the plot; where the texts beside it begin, the number ends
    kinds = [kind for kind in _MARKS if kind in {_PREDICTION, *table.kind}]
    scales = [
        alt.Scale(domain=kinds, range=list(values)) for values in zip(*(_MARKS[kind] for kind in kinds))
    ]
    legend = alt.Legend(orient="top", labelLimit=300, symbolSize=75, symbolStrokeWidth=1.6, offset=26)

    def series(column: str) -> list[alt.Stroke | alt.Fill | alt.Shape]:
        channels = zip((alt.Stroke, alt.Fill, alt.Shape), scales)
        return [channel(f"{column}:N", title=None, scale=scale, legend=legend) for channel, scale in channels]

    tooltip = [
        alt.Tooltip("concept:N"),
        alt.Tooltip("name:N", title="feature"),
        alt.Tooltip("f1:Q", format=".3f", title="held-out F1"),
        alt.Tooltip("confound_f1:Q", format=".3f", title="held-out F1 of the prediction"),
        alt.Tooltip("written:N", title="held-out R² of the prediction"),
        alt.Tooltip("kind:N", title="verdict"),
    ]
    scale = alt.Scale(domain=[0, float(table[["f1", "confound_f1"]].max(axis=None))], nice=True)
    x = alt.X("f1:Q", title=_SCORES["f1"], scale=scale, axis=alt.Axis(tickCount=6, labelFlush=False))
    base = alt.Chart(table).encode(y=_rows(table.concept))
    return alt.layer(
        base.mark_rule(strokeWidth=2, color="#c9d9e4").encode(x=x, x2="confound_f1:Q"),
        base.mark_point(size=75).encode(
            *series("prediction"), x=alt.X("confound_f1:Q", title=_SCORES["f1"], scale=scale), tooltip=tooltip
        ),
        base.mark_point(size=75, strokeWidth=1.6).encode(*series("kind"), x=x, tooltip=tooltip),
        base.mark_text(x=plot + name, align="left", fontSize=11, color=INK).encode(text="name:N"),
        base.mark_text(x=plot + r2, align="right", fontSize=11, color=INK).encode(text="written:N"),
        base.mark_text(x=plot + verdict, align="left", fontSize=11, color=GREY).encode(text="verdict:N"),
        _heading("feature", plot + name, color=GREY),
        _heading("R²", plot + r2, align="right", color=GREY),
    ).properties(
        width=plot,
        height=alt.Step(_ROW - 4),
        description=f"Held-out F1 of the best feature of {len(table)} concepts beside that of its prediction from its confounds, "
        f"which explain {explained.sum()} of them.",
    )


# ---------------------------------------------------------------- over layers


def _series(
    column: str, names: Sequence[str], colours: Sequence[str], dashes: Sequence[list[int]]
) -> tuple[alt.Color, alt.StrokeDash]:
    """Colour and dashes of each line, in one legend."""
    legend = alt.Legend(
        orient="top", columns=4, labelLimit=260, symbolType="stroke", symbolSize=400, symbolOpacity=1
    )
    colour, dash = (alt.Scale(domain=list(names), range=list(values)) for values in (colours, dashes))
    return (
        alt.Color(f"{column}:N", title=None, scale=colour, legend=legend),
        alt.StrokeDash(f"{column}:N", title=None, scale=dash, legend=legend),
    )


def _lines(
    table: pd.DataFrame,
    x: alt.X,
    y: alt.Y,
    series: tuple[alt.Color, alt.StrokeDash],
    size: int,
    tooltip: list,
) -> alt.LayerChart:
    """A line for each series, with points on it."""
    base = alt.Chart(table).encode(x=x, y=y, color=series[0])
    return base.mark_line().encode(strokeDash=series[1]) + base.mark_point(size=size).encode(tooltip=tooltip)


def _side_by_side(table: pd.DataFrame, place_N: pd.Series | int, places: int) -> pd.DataFrame:
    """`table` with its layers moved by less than a half, so that series which agree can be told apart; `block` keeps them."""
    return table.assign(block=table.layer, layer=table.layer + (place_N + 0.5 - places / 2) * 0.6 / places)


def _range(layers: pd.Series) -> str:
    low, high = theme.layer_name(layers.min()), theme.layer_name(layers.max())
    return low if low == high else f"{low} to {high}"


_MODEL, _ABLATION = "language model", "mean ablation"
_CONTROL_LINES = [(DARK, [5, 3]), (MIDDLE, [2, 2]), (LIGHT, [9, 3, 2, 3])]


def fidelity(table: pd.DataFrame) -> alt.HConcatChart:
    """What is left of the language model's predictions when a layer's states are replaced: loss recovered and KL divergence.

    Loss recovered is 1 for the model itself and 0 for mean ablation, drawn as references, and is not cut off at either. Intervals are
    rules, in many layers bands. Parameters: `table`, one row per layer x variant, with layer, variant (an architecture; anything else
    is a control), loss_recovered, low, high (its interval), kl (nats), l0 (active coefficients a token), explained_variance.
    """
    columns = ["layer", "variant", "loss_recovered", "low", "high", "kl", "l0", "explained_variance"]
    table = theme.checked(table, "fidelity", columns)
    _refuse_repeats(table, "fidelity", ["layer", "variant"])
    table = table[table.variant != _MODEL].rename(columns={"variant": "architecture"})
    order = sorted(
        theme.architectures(table), key=_ABLATION.__eq__
    )  # what is under test first, its controls, ablation last
    others = [name for name in order if name not in theme.ARCHITECTURES]
    lines = [
        _CONTROL_LINES[others.index(name) % len(_CONTROL_LINES)]
        if name in others
        else (theme.ARCHITECTURE_COLOURS[name], [1, 0])
        for name in order
    ]
    names = [theme.ARCHITECTURES.get(name, name) for name in order]
    series = _series("architecture", names, *zip(*lines))
    table = theme.with_architecture_names(table)
    table["written"] = list(map(_with_interval, table.loss_recovered, table.low, table.high))
    tooltip = [
        alt.Tooltip("architecture:N", title="states replaced by"),
        alt.Tooltip("block:Q", title="layer"),
        alt.Tooltip("written:N", title="loss recovered"),
        alt.Tooltip("kl:Q", format=".3~g", title="KL (nats)"),
        alt.Tooltip("l0:Q", format=",.1~f", title="active coefficients (L0)"),
        alt.Tooltip("explained_variance:Q", format=".3f", title="explained variance"),
    ]
    few = table.layer.nunique() <= _FEW
    x, size = theme.layer_axis(table.layer), 40 if few else 16
    table = _side_by_side(table, table.architecture.map(names.index) if few else 0, len(names) if few else 1)
    recovered = table[table.architecture != _ABLATION]  # whose 0 is the lower reference
    base = alt.Chart(recovered).transform_filter("isValid(datum.low) && isValid(datum.high)")
    interval = base.mark_rule(strokeWidth=1.2) if few else base.mark_area(opacity=0.12)
    interval = interval.encode(x=x, color=series[0], y="low:Q", y2="high:Q")
    references = (
        alt.Chart(pd.DataFrame({"loss_recovered": [0.0, 1.0]}))
        .mark_rule(color=GREY)
        .encode(y="loss_recovered:Q")
    )
    y = alt.Y("loss_recovered:Q", title="loss recovered", axis=alt.Axis(tickCount=6))
    left = references + interval + _lines(recovered, x, y, series, size, tooltip)
    axis, scale = theme.log_axis(table.kl, format="~g")
    right = _lines(
        table, x, alt.Y("kl:Q", title="nats per masked base", axis=axis, scale=scale), series, size, tooltip
    )
    titles = [
        alt.Title("Loss recovered", subtitle="1: the language model, 0: mean ablation"),
        alt.Title("KL divergence", subtitle="from the language model's own predictions"),
    ]
    panels = [
        chart.properties(width=284, height=230, title=title) for chart, title in zip((left, right), titles)
    ]
    return alt.hconcat(*panels, spacing=18).properties(
        description=f"Loss recovered and KL divergence when the states of layer {_range(table.block)} are replaced by {', '.join(names)}."
    )


_COLOURS = (BLUE, "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
_RANDOM = "random dictionary"


def recurrence(table: pd.DataFrame) -> alt.HConcatChart:
    """Share of features that another dictionary has, too, beside that of a random dictionary, and how alike the closest ones are.

    Parameters: `table`, one row per layer x comparison, with layer, comparison (which other dictionary), share and share_null (0..1; of
    the features, and of those of a random dictionary), median_cosine (of a feature and the closest one).
    """
    table = theme.checked(
        table, "recurrence", ["layer", "comparison", "share", "share_null", "median_cosine"]
    )
    _refuse_repeats(table, "recurrence", ["layer", "comparison"])
    names = list(dict.fromkeys(table.comparison))
    lines = [*((_COLOURS[number % len(_COLOURS)], [1, 0]) for number in range(len(names))), (MIDDLE, [4, 3])]
    series, few = _series("series", [*names, _RANDOM], *zip(*lines)), table.layer.nunique() <= _FEW
    x, size, places = theme.layer_axis(table.layer), 40 if few else 16, len(lines) if few else 1
    tooltip = [
        alt.Tooltip("comparison:N"),
        alt.Tooltip("block:Q", title="layer"),
        alt.Tooltip("share:Q", format=".1%", title="features that recur"),
        alt.Tooltip("share_null:Q", format=".2~%", title="of a random dictionary"),
        alt.Tooltip("median_cosine:Q", format=".3f", title="median cosine"),
    ]
    nulls = [
        _side_by_side(rows.assign(series=_RANDOM), len(names) if few else 0, places)
        for _, rows in table.groupby("comparison", sort=False)
    ]
    table = _side_by_side(
        table.assign(series=table.comparison), table.comparison.map(names.index) if few else 0, places
    )
    share = {
        "title": "share of features",
        "axis": alt.Axis(format="%", tickCount=5),
        "scale": alt.Scale(domain=[0, 1]),
    }
    cosine = alt.Y(
        "median_cosine:Q",
        title="cosine",
        axis=alt.Axis(tickCount=5),
        scale=alt.Scale(domain=[min(0, table.median_cosine.min()), 1]),
    )
    left = alt.layer(
        *(_lines(null, x, alt.Y("share_null:Q", **share), series, size, tooltip) for null in nulls),
        _lines(table, x, alt.Y("share:Q", **share), series, size, tooltip),
    )
    right = _lines(table, x, cosine, series, size, tooltip)
    panels = [(left, "Features that recur"), (right, "Median similarity to the closest feature")]
    return alt.hconcat(
        *(chart.properties(width=288, height=190, title=title) for chart, title in panels), spacing=18
    ).properties(
        description=f"Share of the features of layer {_range(table.block)} that recur in {' and '.join(map(str, names))}: "
        f"{table.share.min():.0%} to {table.share.max():.0%}, of a random dictionary's {table.share_null.max():.2%} at most."
    )


def type_effects(table: pd.DataFrame) -> alt.LayerChart:
    """How many features are selective for each RNA type in each layer once all tests are passed, as a heat map with the numbers.

    Types stand in the order of their totals. Parameters: `table`, one row per layer x type, with layer, type, surviving and tested
    (features; a dash stands where none could be tested).
    """
    if table.empty:
        return theme.nothing("No feature could be tested: families are not known, or too few of each type.")
    table = theme.checked(table, "type_effects", ["layer", "type", "surviving", "tested"])
    _refuse_repeats(table, "type_effects", ["layer", "type"])
    table["surviving"] = table.surviving.where(table.tested > 0, 0)
    most = int(table.surviving.max())
    scale = alt.Scale(domain=[0, max(most, 1)], range=SEQUENTIAL)
    table["label"] = [
        f"{surviving:,.0f}" if tested > 0 else "–" for surviving, tested in zip(table.surviving, table.tested)
    ]
    types = table.groupby("type", sort=False).surviving.sum().sort_values(ascending=False, kind="stable")
    crowded = table.layer.nunique() > _FEW  # then the numbers stand upright
    ticks = alt.Axis(
        values=theme.layer_ticks(table.layer),
        labelExpr="'L' + datum.value",
        labelAngle=0,
        ticks=False,
        domain=False,
    )
    names = alt.Axis(labelLimit=_NAMES, ticks=False, domain=False)
    values = sorted({0, max(most, 1) // 2, max(most, 1)})
    legend = alt.Legend(
        orient="top", titleOrient="left", gradientLength=160, gradientThickness=9, values=values, format=",d"
    )
    colour = alt.Color("surviving:Q", title="type-selective features", scale=scale, legend=legend)
    tooltip = [
        alt.Tooltip("layer:O"),
        alt.Tooltip("type:N"),
        alt.Tooltip("surviving:Q", format=",", title="type-selective features"),
        alt.Tooltip("tested:Q", format=",", title="features tested"),
    ]
    base = alt.Chart(table).encode(
        x=alt.X("layer:O", title="layer", axis=ticks),
        y=alt.Y("type:N", title=None, sort=types.index.tolist(), axis=names),
    )
    cells = (
        base.transform_filter("datum.tested > 0")
        .mark_rect(stroke="white")
        .encode(color=colour, tooltip=tooltip)
    )
    white = f"datum.tested > 0 && datum.surviving > {0.6 * most}"
    numbers = base.mark_text(fontSize=10 if crowded else 11, angle=270 if crowded else 0).encode(
        text="label:N", color=alt.condition(white, alt.value("white"), alt.value(INK))
    )
    return (cells + numbers).properties(
        width=WIDTH - _NAMES - 10,
        height=alt.Step(32 if crowded else 22),
        description=f"Features selective for {len(types)} RNA types in layer {_range(table.layer)}, from {table.surviving.min():,.0f} to "
        f"{most:,} in a layer; most for {types.index[0]}.",
    )
