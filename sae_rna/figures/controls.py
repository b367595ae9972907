"""Scores of a dictionary beside those of its controls."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import BLUE, DARK, GREY, INK, MIDDLE, NAMES, STROKE

_SCORES = {"f1": "held-out F1", "auroc": "held-out AUROC"}
_RIVAL, _OTHERS, _NULL = "best control", "other controls", "shuffled null, 95th percentile"
#: A stroke in dashes, taller than `STROKE`.
_DASHES = "M-.13,-1.6H.13V-.8H-.13Z M-.13,-.4H.13V.4H-.13Z M-.13,.8H.13V1.6H-.13Z"
#: Pixels: width of the plot; beside it, the right end of the numbers and the left end of the names.
_PLOT, _NUMBER, _NAME = 382, 48, 60


def controls(table: pd.DataFrame, score: str = "f1") -> alt.VConcatChart:
    """Held-out scores of a dictionary above its controls', a row per concept, with its lead in numbers.

    The dictionary under test and the best control have their intervals; what is missing is not drawn.
    `table`: one row per concept x source, with concept, group (of concepts, a panel each), source (the first
    one is under test), layer, f1, auroc, their intervals f1_low, f1_high, auroc_low and auroc_high, and
    null_p95 (F1, of the source under test). `score`: "f1" or "auroc".
    """
    columns = "concept group source layer f1 f1_low f1_high auroc auroc_low auroc_high null_p95"
    table = theme.checked(table, "controls", columns)
    table[["value", "low", "high"]] = table[[score, f"{score}_low", f"{score}_high"]]
    tested = str(table.source[0])
    own = table.source == tested
    rivals = table[~own].dropna(subset="value").groupby(["group", "concept"]).value.idxmax()
    table["kind"] = np.where(own, tested, np.where(table.index.isin(rivals), _RIVAL, _OTHERS))
    leads = _leads(table[["group", "concept"]].drop_duplicates(), table[own], table.loc[rivals])
    null = table[own].assign(kind=_NULL, source=_NULL, low=np.nan)
    null["value"] = null.null_p95 if score == "f1" else np.nan
    table = pd.concat([table, null], ignore_index=True).dropna(subset="value")
    table["layer"] = [theme.layer_name(layer) if pd.notna(layer) else "–" for layer in table.layer]
    table["written"] = list(map(theme.interval_text, table.value, table.low, table.high))
    ends = table[["value", "low", "high"]]
    domain = [min(0 if score == "f1" else 0.5, ends.min(axis=None)), ends.max(axis=None)]
    x = {"title": _SCORES[score], "scale": alt.Scale(domain=domain, nice=True, zero=False)}
    looks = {tested: (BLUE, "circle"), _RIVAL: (DARK, "square"), _OTHERS: (MIDDLE, STROKE)}
    looks |= {_NULL: (MIDDLE, _DASHES)}
    looks = {kind: look for kind, look in looks.items() if kind in set(table.kind)}
    panels, groups = [], list(dict.fromkeys(leads.group))
    for group in groups:
        beside, shown = leads[leads.group == group], group == groups[-1]
        line = dict.fromkeys(("labels", "ticks", "domain"), shown)
        axis = alt.Axis(title=_SCORES[score] if shown else None, tickCount=6, labelFlush=False, **line)
        rows, y = table[table.group == group], theme.concept_rows(beside.concept)
        layers = [*_marks(rows, tested, y, x, axis, looks), *_texts(beside, group)]
        if group == groups[0] and len(rivals):
            layers.append(theme.heading("lead over the best control", _PLOT + 12, color=GREY))
        panels.append(alt.layer(*layers).properties(width=_PLOT, height=alt.Step(24)))
    return alt.vconcat(*panels, spacing=8).properties(
        description=f"{_SCORES[score]} of {tested} and its controls on {len(leads)} concepts: ahead of every "
        f"control on {leads.ahead.sum()} of the {(leads.lead != '').sum()} that both have."
    )


def _leads(concepts: pd.DataFrame, own: pd.DataFrame, rivals: pd.DataFrame) -> pd.DataFrame:
    """A row per concept: the lead of the source under test and over which control, empty if unknown."""
    keys = ["group", "concept"]
    both = concepts.merge(own[[*keys, "value"]], on=keys, how="left")
    both = both.merge(rivals[[*keys, "value", "source"]], on=keys, how="left", suffixes=("", "_rival"))
    lead = (both.value - both.value_rival).round(3)
    texts = [f"{number:+.3f}".replace("-", "−") if number else "0.000" for number in lead.fillna(0)]
    both["lead"] = np.where(lead.isna(), "", texts)
    return both[[*keys, "lead"]].assign(ahead=lead > 0, rival=both.source.fillna(""))


def _marks(rows: pd.DataFrame, tested: str, y: alt.Y, x: dict, axis: alt.Axis, looks: dict) -> list:
    """Points of all sources, and intervals of the one under test and of the best control."""
    legend = {"labelLimit": 260, "symbolSize": 75, "symbolStrokeWidth": 0, "offset": 26}
    colour, shape = theme.kinds("kind", looks, (alt.Color, alt.Shape), legend)
    tooltip, layers = ["concept:N", "source:N", "layer:N", *theme.tooltips(written=x["title"])], []
    for place, kind in [(0.5, _NULL), (0.7, _OTHERS), (0.7, _RIVAL), (0.3, tested)]:
        lane = y.copy()
        lane.bandPosition = place
        base = alt.Chart(rows[rows.kind == kind]).encode(colour, y=lane)
        if kind not in (_NULL, _OTHERS):
            interval = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.6)
            layers.append(interval.encode(x=alt.X("low:Q", **x), x2="high:Q"))
        points = base.mark_point(size=75).encode(shape, x=alt.X("value:Q", axis=axis, **x), tooltip=tooltip)
        layers.append(points)
    return layers


def _texts(leads: pd.DataFrame, group: str) -> list[alt.Chart]:
    """The leads and the controls they are over, beside the plot, and the group's name above the concepts."""
    text = alt.Chart(leads).encode(y=theme.concept_rows(leads.concept))
    colour = alt.condition("datum.ahead", alt.value(BLUE), alt.value(GREY))
    lead = text.mark_text(x=_PLOT + _NUMBER, align="right", fontSize=11).encode(text="lead:N", color=colour)
    rival = text.mark_text(x=_PLOT + _NAME, align="left", fontSize=11, limit=118, color=INK)
    name = theme.heading(str(group), -NAMES, fontSize=12, fontWeight="bold", color=INK)
    return [lead, rival.encode(text="rival:N"), name]
