"""Features beside what their confounds predict of them."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import BLUE, DARK, GREY, INK, STROKE

_EXPLAINED, _PREDICTION = "feature explained by its confounds", "prediction from its confounds"
#: Stroke, fill, shape.
_LOOKS = {"feature": (BLUE, BLUE, "circle"), _EXPLAINED: (BLUE, "white", "diamond")}
_LOOKS |= {_PREDICTION: (DARK, DARK, STROKE)}
#: Pixels: width of the plot; beside it, where the names begin, the numbers end and the verdicts begin.
_PLOT, _NAME, _NUMBER, _VERDICT = 302, 18, 114, 128
_SCORE = "AUROC within bases"


def confounds(table: pd.DataFrame) -> alt.VConcatChart:
    """Each element's best feature and its prediction from confounds, by their base-stratified AUROC, and R².

    A panel a setting; a line marks the 0.5 of chance. A feature that its confounds explain is a hollow
    diamond, as in `element_scores`. `table`: one row per setting x concept, with setting, concept, layer,
    feature, base_auroc, confound_base_auroc, r2 (of the feature's activation, on the scored families) and
    explained (bool).
    """
    columns = "setting concept layer feature base_auroc confound_base_auroc r2 explained"
    table = theme.checked(table, "confounds", columns)
    explained = table.explained.eq(True)
    table["kind"], table["prediction"] = np.where(explained, _EXPLAINED, "feature"), _PREDICTION
    table["verdict"] = np.where(explained, "explained by confounds", "")
    table["name"] = [f"{theme.layer_name(row.layer)}, {row.feature:.0f}" for row in table.itertuples()]
    table["written"] = ["–" if np.isnan(r2) else f"{r2:.2f}".replace("-", "−") for r2 in table.r2]
    looks = {kind: look for kind, look in _LOOKS.items() if kind in {_PREDICTION, *table.kind}}
    ends = table[["base_auroc", "confound_base_auroc"]]
    scale = alt.Scale(domain=[min(0.5, ends.min(axis=None)), ends.max(axis=None)], nice=True, zero=False)
    names = list(dict.fromkeys(table.setting))
    panels = [_panel(table[table.setting == name], looks, scale, name, name == names[-1]) for name in names]
    return alt.vconcat(*panels, spacing=14).properties(
        description=f"AUROC within bases of the best feature of {len(table)} elements in "
        f"{' and '.join(names)} beside that of its prediction from its confounds, which explain "
        f"{explained.sum()} of them."
    )


def _panel(rows: pd.DataFrame, looks: dict, scale: alt.Scale, setting: str, last: bool) -> alt.LayerChart:
    """The rows of one setting."""
    legend = {"labelLimit": 300, "symbolSize": 75, "symbolStrokeWidth": 1.6, "offset": 26}
    tooltip = ["concept:N", *theme.tooltips(name="feature")]
    tooltip += theme.tooltips(".3f", base_auroc=_SCORE, confound_base_auroc=f"{_SCORE} of the prediction")
    tooltip += theme.tooltips(written="R² of the prediction", kind="verdict")
    axis = {"title": _SCORE if last else None, "scale": scale}
    axis["axis"] = alt.Axis(tickCount=6, labelFlush=False, labels=last, ticks=last, domain=last)
    x, predicted = alt.X("base_auroc:Q", **axis), alt.X("confound_base_auroc:Q", **axis)
    base = alt.Chart(rows).encode(y=theme.concept_rows(rows.concept))
    half = alt.Chart(pd.DataFrame({"base_auroc": [0.5]})).mark_rule(color="#c9c9c9", strokeWidth=1.5)

    def points(column: str, x: alt.X, **mark) -> alt.Chart:
        look = theme.kinds(column, looks, (alt.Stroke, alt.Fill, alt.Shape), legend)
        return base.mark_point(size=75, **mark).encode(*look, x=x, tooltip=tooltip)

    def text(column: str, x: int, colour: str = INK, align: str = "left") -> alt.Chart:
        return base.mark_text(x=_PLOT + x, align=align, fontSize=11, color=colour).encode(text=f"{column}:N")

    return alt.layer(
        half.encode(x=x),
        base.mark_rule(strokeWidth=2, color="#c9d9e4").encode(x=x, x2="confound_base_auroc:Q"),
        points("prediction", predicted),
        points("kind", x, strokeWidth=1.6),
        text("name", _NAME),
        text("written", _NUMBER, align="right"),
        text("verdict", _VERDICT, GREY),
        theme.heading(setting, -theme.NAMES, fontSize=12, fontWeight="bold", color=INK),
        theme.heading("feature", _PLOT + _NAME, color=GREY),
        theme.heading("R²", _PLOT + _NUMBER, align="right", color=GREY),
    ).properties(width=_PLOT, height=alt.Step(20))
