"""What features do: interventions beside their controls, doses, and predictions as a logo."""

from itertools import cycle

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme

_PLACES = {"partner": (theme.BLUE, "circle"), "unpaired nucleotide": ("#e08214", "diamond")}
_FEATURES = theme.BLUE, theme.TEAL, "#cc79a7"
_DIRECTIONS = (theme.DARK, [6, 3]), (theme.MIDDLE, [2, 2]), (theme.LIGHT, [9, 3, 2, 3])
_BASES = {"A": "#009e73", "C": "#0072b2", "G": "#e69f00", "U": "#d55e00"}  # of Okabe & Ito
_LEAST = 0.02  # bits: lower letters are not drawn


def interventions(table: pd.DataFrame) -> alt.HConcatChart:
    """Change of the log-odds at the masked partner and at an unpaired nucleotide, a row per feature.

    A panel per intervention. Grey: from the least to the most of the matched features' effects on the
    partner. `table`: one row per feature, intervention and place, with layer, effect, low, high, least, most,
    controls, beyond (bool).
    """
    columns = "layer feature intervention place effect low high least most controls beyond"
    table = theme.checked(table, "interventions", columns)
    table["name"] = [
        f"{theme.layer_name(layer)}/{feature}" for layer, feature in zip(table.layer, table.feature)
    ]
    order = list(dict.fromkeys(table.name))
    looks = {name: look for name, look in _PLACES.items() if name in set(table.place)}
    channels = theme.kinds("place", looks, (alt.Color, alt.Shape), {"columns": 2})
    tooltip = theme.tooltips("", name="feature") + ["place:N"]
    tooltip += theme.tooltips("+.3f", effect="change of log-odds", low="95 % from", high="to")
    tooltip += theme.tooltips("+.3f", least="least of the matched", most="most") + ["controls:Q", "beyond:N"]
    panels: list[alt.TopLevelMixin] = []
    for name, rows in table.groupby("intervention", sort=False):
        axis = theme.bare_axis(labels=not panels, grid=False)
        y = alt.Y("name:N", title=None if panels else "feature", sort=order, axis=axis)
        title = "change of the log-odds of the true base"
        x = alt.X("effect:Q", title=title, axis=alt.Axis(tickCount=5))
        base = alt.Chart(rows).encode(y=y, tooltip=tooltip)
        zero = alt.Chart(pd.DataFrame({"effect": [0.0]})).mark_rule(color=theme.GREY).encode(x="effect:Q")
        band = base.transform_filter(alt.datum.place == "partner").mark_bar(color="#dddddd", height=9)
        band = band.encode(x=alt.X("least:Q", title=title), x2="most:Q")
        ends = base.mark_rule(strokeWidth=1.2).encode(channels[0], x=alt.X("low:Q", title=title), x2="high:Q")
        points = base.mark_point(filled=True, size=45).encode(*channels, x=x)
        chart = alt.layer(band, zero, ends, points)
        width = (theme.WIDTH - 110) // table.intervention.nunique()
        panels.append(chart.properties(width=width, height=alt.Step(17), title=str(name)))
    own = table[table.place == "partner"]
    words = ", ".join(f"{name} {of.beyond.sum()} of {len(of)}" for name, of in own.groupby("intervention"))
    return alt.hconcat(*panels, spacing=16).properties(
        description="Dot plots of the change of the log-odds of the true base at the masked partner and at "
        f"an unpaired nucleotide, by feature and intervention; beyond all matched features: {words}."
    )


def dose_response(table: pd.DataFrame) -> alt.HConcatChart:
    """Change of the log-odds by dose, a line per feature and direction, a panel per masked nucleotide.

    `table`: one row per source, dose and place, with layer, effect, low, high. Features are coloured, other
    directions grey.
    """
    table = theme.checked(table, "dose_response", "source layer dose place effect low high")
    features, others = cycle((colour, [1, 0]) for colour in _FEATURES), cycle(_DIRECTIONS)
    names = dict.fromkeys(table.source)
    looks = {name: next(features if name.startswith("feature") else others) for name in names}
    colour, dash = theme.series("source", looks)
    tooltip = ["source:N", "place:N", alt.Tooltip("dose:Q", title="dose, multiples of the maximum")]
    tooltip += theme.tooltips("+.3f", effect="change of log-odds", low="95 % from", high="to")
    panels: list[alt.TopLevelMixin] = []
    ends = [float(table.low.min()), float(table.high.max())]
    for place, rows in table.groupby("place", sort=False):
        x = alt.X("dose:Q", title="dose, in multiples of the feature's maximum", axis=alt.Axis(tickCount=5))
        title = None if panels else "change of the log-odds of the true base"
        y = alt.Y("effect:Q", title=title, scale=alt.Scale(domain=ends))
        base = alt.Chart(rows).encode(colour, x=x)
        ranges = base.mark_rule(opacity=0.5).encode(y=alt.Y("low:Q", title=title), y2="high:Q")
        line, points = base.mark_line().encode(dash, y=y), base.mark_point().encode(y=y, tooltip=tooltip)
        panels.append((ranges + line + points).properties(width=285, height=210, title=str(place)))
    last = table[table.dose == table.dose.max()]
    words = "; ".join(f"{row.source} {row.effect:+.2f} ({row.place})" for row in last.itertuples())
    return alt.hconcat(*panels, spacing=18).properties(
        description=f"Change of the log-odds of the true base by dose. At the highest dose: {words}."
    )


def letter_outlines() -> dict[str, np.ndarray]:
    """Outlines of A, C, G and U in a box of side 1, vertices [n, 2] in order."""
    a = [(0, 0), (0.4, 1), (0.6, 1), (1, 0), (0.78, 0), (0.7, 0.22), (0.5, 0.22), (0.5, 0.4), (0.64, 0.4),
         (0.5, 0.8), (0.36, 0.4), (0.5, 0.4), (0.5, 0.22), (0.3, 0.22), (0.22, 0)]  # fmt: skip
    turn = np.linspace(0.22 * np.pi, 1.78 * np.pi, 12)
    outer = 0.5 + 0.5 * np.column_stack([np.cos(turn) * 1.15, np.sin(turn)])
    inner = 0.5 + np.column_stack([0.34 * np.cos(turn[::-1]), 0.31 * np.sin(turn[::-1])])
    bar = np.array([(0.92, outer[-1][1]), (0.92, 0.52), (0.55, 0.52), (0.55, 0.36), (0.74, 0.36)])
    down = np.linspace(np.pi, 2 * np.pi, 9)
    bowl = np.column_stack([0.5 + 0.46 * np.cos(down), 0.42 + 0.42 * np.sin(down)])
    hollow = np.column_stack([0.5 + 0.25 * np.cos(down[::-1]), 0.42 + 0.23 * np.sin(down[::-1])])
    u = np.concatenate([[(0.04, 1)], bowl, [(0.96, 1), (0.75, 1)], hollow, [(0.25, 1)]])
    return {
        "A": np.array(a),
        "C": np.concatenate([outer, inner]),
        "G": np.concatenate([outer, bar, inner]),
        "U": u,
    }


def outlines(share: pd.DataFrame) -> pd.DataFrame:
    """Vertices of the letters of a logo: position, predicted, share, x, y, order.

    share : a row a position, a column a letter. The height of a position is 2 bits less its entropy, that of
        a letter its share (Schneider & Stephens 1990, NAR 18:6097)
    """
    rows, letters = [], letter_outlines()
    bits = 2 + (share * np.log2(share.clip(lower=1e-12))).sum(axis=1)
    for position, own in share.iterrows():
        foot = 0.0
        for letter, part in own.sort_values().items():
            height = part * bits[position]
            if height >= _LEAST:
                x, y = (letters[letter] * [0.9, height] + [position - 0.45, foot]).T.round(3)
                facts = {"position": position, "predicted": letter, "share": part}
                rows.append(pd.DataFrame(facts | {"x": x, "y": y, "order": range(len(x))}))
            foot += height
    columns = ["position", "predicted", "share", "x", "y", "order"]
    return pd.concat(rows) if rows else pd.DataFrame(columns=columns)


def stacks(shapes: pd.DataFrame, x: alt.X, y: alt.Y, share: str) -> alt.Chart:
    """The letters of `outlines`; `share` is what tooltips call theirs."""
    colour = alt.Fill("predicted:N", scale=alt.Scale(domain=[*_BASES], range=[*_BASES.values()]), legend=None)
    marks = alt.Chart(shapes).mark_line(filled=True, strokeWidth=0, interpolate="linear-closed")
    return marks.encode(
        colour, x=x, y=y, order="order:Q", detail=["position:N", "predicted:N"],
        tooltip=["position:Q", "predicted:N", *theme.tooltips(".1%", share=share)],
    )  # fmt: skip


def logo(table: pd.DataFrame) -> alt.VConcatChart:
    """Sequence logos of what is predicted, without and with a change: letters as high as their information.

    `table`: one row per position (from 1) and predicted base, with base (that stands there), predicted, own
    and steered (probabilities); see `outlines`. Above stands the sequence itself.
    """
    table = theme.select(table, "logo", "position base predicted own steered")
    names = {"own": "as it is", "steered": "with the feature changed"}
    pivots = [table.pivot(index="position", columns="predicted", values=column) for column in names]
    shapes = pd.concat([outlines(of).assign(column=column) for column, of in zip(names, pivots)])
    size, panels = int(table.position.max()), list[alt.TopLevelMixin]()
    x = alt.X(
        "x:Q", title=None, scale=alt.Scale(domain=[0.4, size + 0.6], nice=False), axis=alt.Axis(grid=False)
    )
    one = table.drop_duplicates("position")
    above = alt.Chart(one).mark_text(font=theme.MONOSPACE, fontSize=min(12, 900 // size), baseline="bottom")
    for column, title in names.items():
        y = alt.Y("y:Q", title="bits", scale=alt.Scale(domain=[0, 2]), axis=alt.Axis(values=[0, 1, 2]))
        drawn = stacks(shapes[shapes.column == column], x, y, "probability")
        letters = above.encode(
            x=alt.X("position:Q"), y=alt.value(-2), text="base:N", tooltip=["position:Q", "base:N"]
        )
        panels.append(
            (drawn + letters).properties(width=theme.WIDTH - 60, height=90, title=alt.Title(title, offset=14))
        )
    own, steered = (table.loc[table.groupby("position")[column].idxmax()].predicted for column in names)
    changed = int((own.to_numpy() != steered.to_numpy()).sum())
    return alt.vconcat(*panels, spacing=10).properties(
        description=f"Sequence logos of the predicted bases of {size} positions, as the model predicts them "
        f"and with a feature changed; at {changed} positions another base becomes the likeliest."
    )
