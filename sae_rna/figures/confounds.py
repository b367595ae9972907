"""Features beside what their confounds predict of them."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import BLUE, DARK, GREY, INK, STROKE

_EXPLAINED, _PREDICTION = "feature explained by its confounds", "prediction from its confounds"
_LOOKS = {  # stroke, fill, shape
    "feature": (BLUE, BLUE, "circle"),
    _EXPLAINED: (BLUE, "white", "diamond"),
    _PREDICTION: (DARK, DARK, STROKE),
}
#: Pixels: width of the plot; beside it, where the names begin, the numbers end and the verdicts begin.
_PLOT, _NAME, _NUMBER, _VERDICT = 302, 18, 114, 128


def confounds(table: pd.DataFrame) -> alt.LayerChart:
    """Held-out F1 of each concept's best feature and of its prediction from confounds, and the latter's R².

    A feature that its confounds explain is a hollow diamond, as in `element_scores`. `table`: one row per
    concept, with concept, layer, feature, f1, confound_f1, r2 (of the feature's activation, held out) and
    explained (bool).
    """
    columns = "concept layer feature f1 confound_f1 r2 explained"
    table = theme.checked(table, "confounds", columns)
    explained = table.explained.eq(True)
    table["kind"], table["prediction"] = np.where(explained, _EXPLAINED, "feature"), _PREDICTION
    table["verdict"] = np.where(explained, "explained by confounds", "")
    table["name"] = [f"{theme.layer_name(row.layer)}, {row.feature:.0f}" for row in table.itertuples()]
    table["written"] = ["–" if np.isnan(r2) else f"{r2:.2f}".replace("-", "−") for r2 in table.r2]
    looks = {kind: look for kind, look in _LOOKS.items() if kind in {_PREDICTION, *table.kind}}
    legend = {"labelLimit": 300, "symbolSize": 75, "symbolStrokeWidth": 1.6, "offset": 26}
    tooltip = ["concept:N", *theme.tooltips(name="feature")]
    tooltip += theme.tooltips(".3f", f1="held-out F1", confound_f1="held-out F1 of the prediction")
    tooltip += theme.tooltips(written="held-out R² of the prediction", kind="verdict")
    scale = alt.Scale(domain=[0, float(table[["f1", "confound_f1"]].max(axis=None))], nice=True)
    x = alt.X("f1:Q", title="held-out F1", scale=scale, axis=alt.Axis(tickCount=6, labelFlush=False))
    base = alt.Chart(table).encode(y=theme.concept_rows(table.concept))

    def points(column: str, x: alt.X, **mark) -> alt.Chart:
        look = theme.kinds(column, looks, (alt.Stroke, alt.Fill, alt.Shape), legend)
        return base.mark_point(size=75, **mark).encode(*look, x=x, tooltip=tooltip)

    def text(column: str, x: int, colour: str = INK, align: str = "left") -> alt.Chart:
        return base.mark_text(x=_PLOT + x, align=align, fontSize=11, color=colour).encode(text=f"{column}:N")

    return alt.layer(
        base.mark_rule(strokeWidth=2, color="#c9d9e4").encode(x=x, x2="confound_f1:Q"),
        points("prediction", alt.X("confound_f1:Q", title="held-out F1", scale=scale)),
        points("kind", x, strokeWidth=1.6),
        text("name", _NAME),
        text("written", _NUMBER, align="right"),
        text("verdict", _VERDICT, GREY),
        theme.heading("feature", _PLOT + _NAME, color=GREY),
        theme.heading("R²", _PLOT + _NUMBER, align="right", color=GREY),
    ).properties(
        width=_PLOT,
        height=alt.Step(20),
        description=f"Held-out F1 of the best feature of {len(table)} concepts beside that of its prediction "
        f"from its confounds, which explain {explained.sum()} of them.",
    )
