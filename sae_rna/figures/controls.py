"""Scores of a dictionary beside those of its controls."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import BLUE, DARK, GREY, INK, MIDDLE, NAMES, STROKE, WIDTH

_SCORES = {"base_auroc": "AUROC within bases", "f1": "F1"}
_CHANCE = {"base_auroc": ("null_p95", "shuffled null, 95th percentile")}
_CHANCE |= {"f1": ("base_f1", "always-on feature")}
_RIVAL, _OTHERS = "best control", "other controls"
#: A stroke in dashes, taller than `STROKE`.
_DASHES = "M-.13,-1.6H.13V-.8H-.13Z M-.13,-.4H.13V.4H-.13Z M-.13,.8H.13V1.6H-.13Z"
_NUMBER = 46  # pixels beside a plot, in which the leads stand
#: Colours of leads: clearly positive, clearly negative, neither.
_LEADS = {"ahead": BLUE, "behind": "#b34700", "neither": GREY}


def controls(table: pd.DataFrame, score: str = "base_auroc") -> alt.VConcatChart:
    """Scores of a dictionary above its controls', a row a concept, side by side for each setting.

    The dictionary under test and the best control have their intervals; what is missing is not drawn. By
    base-stratified AUROC the lead over the best control stands beside each row, blue where its interval lies
    above 0, orange where it lies below, grey where it does neither.

    table : one row per setting x concept x source, with setting, concept, group (of concepts, a panel each),
        source (the first one is under test), layer, base_auroc and f1 with _low and _high, and of the source
        under test null_p95 (of base_auroc), base_f1 (of an always-on feature), lead, lead_low, lead_high
    score : "base_auroc" or "f1"
    """
    columns = "setting concept group source layer null_p95 base_f1 lead lead_low lead_high"
    columns += f" {score} {score}_low {score}_high"
    table = theme.checked(table, "controls", columns)
    tested = str(table.source[0])
    table[["value", "low", "high"]] = table[[score, f"{score}_low", f"{score}_high"]]
    own, keys = table.source == tested, ["setting", "group", "concept"]
    rivals = table[~own].dropna(subset="value").groupby(keys).value.idxmax()
    table["kind"] = np.where(own, tested, np.where(table.index.isin(rivals), _RIVAL, _OTHERS))
    column, chance = _CHANCE[score]
    null = table[own].assign(kind=chance, source=chance, low=np.nan, value=table[column])
    drawn = pd.concat([table, null], ignore_index=True).dropna(subset="value")
    drawn["layer"] = [theme.layer_name(layer) if pd.notna(layer) else "–" for layer in drawn.layer]
    drawn["written"] = list(map(theme.interval_text, drawn.value, drawn.low, drawn.high))
    looks = {tested: (BLUE, "circle"), _RIVAL: (DARK, "square"), _OTHERS: (MIDDLE, STROKE)}
    looks |= {chance: (MIDDLE, _DASHES)}
    looks = {kind: look for kind, look in looks.items() if kind in set(drawn.kind)}
    ends = drawn[["value", "low", "high"]]
    least = min(0.5, ends.min(axis=None)) if score == "base_auroc" else 0
    scale = alt.Scale(domain=[least, ends.max(axis=None)], nice=True, zero=False)
    x = {"title": _SCORES[score], "scale": scale}
    leads = _leads(table[own]) if score == "base_auroc" else None
    rows, groups, names = [], list(dict.fromkeys(table.group)), list(dict.fromkeys(table.setting))
    width = (WIDTH - NAMES - 10) // len(names) - _NUMBER - 14
    for group in groups:
        concepts, panels = list(dict.fromkeys(table.concept[table.group == group])), []
        for setting in names:
            here = (drawn.group == group) & (drawn.setting == setting)
            y = theme.concept_rows(concepts)
            if setting != names[0]:
                y.axis = None
            y.scale = alt.Scale(domain=concepts)
            layers = _marks(drawn[here], y, x, group == groups[-1], looks)
            if leads is not None:
                own = (leads.group == group) & (leads.setting == setting)
                layers.append(_lead_texts(leads[own], y, width))
            if setting == names[0]:
                layers.append(theme.heading(str(group), -NAMES, fontSize=12, fontWeight="bold", color=INK))
            if group == groups[0]:
                layers.append(theme.heading(setting, 0, fontSize=12, color=INK))
                if leads is not None:
                    layers.append(theme.heading("lead", width + _NUMBER, align="right", color=GREY))
            panels.append(alt.layer(*layers).properties(width=width, height=alt.Step(24)))
        rows.append(alt.hconcat(*panels, spacing=_NUMBER + 14, bounds="flush"))
    return alt.vconcat(*rows, spacing=8).properties(description=_words(table, tested, score))


def _words(table: pd.DataFrame, tested: str, score: str) -> str:
    """What the chart shows, in a sentence."""
    of = f"{_SCORES[score]} of {tested} and its controls on {table.concept.nunique()} concepts"
    ahead, behind = (table.lead_low > 0).sum(), (table.lead_high < 0).sum()
    return (
        f"{of}. Its lead over the best control is clearly positive {ahead} times, clearly negative {behind}."
    )


def _leads(own: pd.DataFrame) -> pd.DataFrame:
    """A row per setting and concept of the source under test: its lead as text, and the verdict on it."""
    known = own.dropna(subset="lead")
    texts = [f"{lead:+.3f}".replace("-", "−") for lead in known.lead.round(3) + 0.0]
    verdict = np.where(known.lead_low > 0, "ahead", np.where(known.lead_high < 0, "behind", "neither"))
    written = map(theme.interval_text, known.lead, known.lead_low, known.lead_high)
    table = known[["setting", "group", "concept"]]
    return table.assign(text=texts, verdict=verdict, written=list(written))


def _lead_texts(leads: pd.DataFrame, y: alt.Y, width: int) -> alt.LayerChart:
    """The leads beside the plot; clear ones are bold, so that they are told apart without colour, too."""
    layers = []
    for verdict, colour in _LEADS.items():
        rows = alt.Chart(leads[leads.verdict == verdict])
        weight = "normal" if verdict == "neither" else "bold"
        mark = rows.mark_text(x=width + _NUMBER, align="right", fontSize=11, fontWeight=weight, color=colour)
        tooltip = ["concept:N", *theme.tooltips(written="lead over the best control")]
        layers.append(mark.encode(y=y, text="text:N", tooltip=tooltip))
    return alt.layer(*layers)


def _marks(rows: pd.DataFrame, y: alt.Y, x: dict, last: bool, looks: dict) -> list:
    """A line at the 0.5 of chance, points of all sources, intervals of the one under test and its rival."""
    shown = dict.fromkeys(("labels", "ticks", "domain"), last)
    axis = alt.Axis(title=x["title"] if last else None, tickCount=5, labelFlush=False, **shown)
    legend = {"labelLimit": 260, "symbolSize": 75, "symbolStrokeWidth": 0, "offset": 26}
    colour, shape = theme.kinds("kind", looks, (alt.Color, alt.Shape), legend)
    tooltip, layers = ["concept:N", "source:N", "layer:N", *theme.tooltips(written=x["title"])], []
    if x["title"] == _SCORES["base_auroc"]:
        half = alt.Chart(pd.DataFrame({"value": [0.5]})).mark_rule(color="#c9c9c9", strokeWidth=1.5)
        layers.append(half.encode(x=alt.X("value:Q", axis=axis, **x)))
    tested, *others = looks
    for kind in reversed([tested, *others]):
        lane = y.copy()
        lane.bandPosition = {tested: 0.3, _RIVAL: 0.7, _OTHERS: 0.7}.get(kind, 0.5)
        base = alt.Chart(rows[rows.kind == kind]).encode(colour, y=lane)
        if kind in (tested, _RIVAL):
            interval = base.transform_filter("isValid(datum.low)").mark_rule(strokeWidth=1.6)
            layers.append(interval.encode(x=alt.X("low:Q", axis=axis, **x), x2="high:Q"))
        points = base.mark_point(size=75).encode(shape, x=alt.X("value:Q", axis=axis, **x), tooltip=tooltip)
        layers.append(points)
    return layers
