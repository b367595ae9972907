"""What the language model still predicts from reconstructed states."""

import altair as alt
import pandas as pd

from sae_rna.figures import theme

_MODEL, _ABLATION = "language model", "mean ablation"
_CONTROLS = [(theme.DARK, [5, 3]), (theme.MIDDLE, [2, 2]), (theme.LIGHT, [9, 3, 2, 3])]


def fidelity(table: pd.DataFrame) -> alt.HConcatChart:
    """KL divergence and loss recovered when the language model's states of a layer are replaced.

    Loss recovered is 1 for the model itself and 0 for mean ablation, drawn as references, and is not cut off
    at either. Intervals are rules, in many layers bands. `table`: one row per layer x variant, with layer,
    variant (an architecture; anything else is a control), kl (nats) with kl_low and kl_high, loss_recovered
    with low and high, l0 (active coefficients a token), explained_variance.
    """
    columns = "layer variant kl kl_low kl_high loss_recovered low high l0 explained_variance"
    table = theme.checked(table, "fidelity", columns)
    table = table[table.variant != _MODEL].rename(columns={"variant": "architecture"})
    # What is under test first, its controls, ablation last.
    order = sorted(theme.architectures(table), key=_ABLATION.__eq__)
    others = [name for name in order if name not in theme.ARCHITECTURES]
    looks = {name: _CONTROLS[number % len(_CONTROLS)] for number, name in enumerate(others)}
    looks |= {name: (colour, [1, 0]) for name, colour in theme.ARCHITECTURE_COLOURS.items()}
    looks = {theme.architecture_name(name): looks[name] for name in order}
    series, names = theme.series("architecture", looks), list(looks)
    table["architecture"] = table.architecture.map(theme.architecture_name)
    table["written"] = list(map(theme.interval_text, table.loss_recovered, table.low, table.high))
    tooltip = theme.tooltips(architecture="states replaced by") + [alt.Tooltip("block:Q", title="layer")]
    tooltip += theme.tooltips(".3~g", kl="KL (nats)") + theme.tooltips(written="loss recovered")
    tooltip += theme.tooltips(",.1~f", l0="active coefficients (L0)")
    tooltip += theme.tooltips(".3f", explained_variance="explained variance")
    x = theme.layer_axis(table.layer)
    table = theme.side_by_side(table, table.architecture.map(names.index), len(names))
    recovered = table[table.architecture != _ABLATION]  # whose 0 is the lower reference
    references = alt.Chart(pd.DataFrame({"loss_recovered": [0.0, 1.0]})).mark_rule(color=theme.GREY)
    y = alt.Y("loss_recovered:Q", title="loss recovered", axis=alt.Axis(tickCount=6))
    right = references.encode(y="loss_recovered:Q") + _interval(recovered, series, x, ("low", "high"), y)
    right += theme.lines(recovered, x, y, series, tooltip)
    axis, scale = theme.log_axis(table[["kl", "kl_low", "kl_high"]].stack(), format="~g")
    y = alt.Y("kl:Q", title="nats per masked base", axis=axis, scale=scale)
    left = _interval(table, series, x, ("kl_low", "kl_high"), y) + theme.lines(table, x, y, series, tooltip)
    left = left.properties(width=284, height=230, title=theme.KL_TITLE)
    title = alt.Title("Loss recovered", subtitle="1: the language model, 0: mean ablation")
    right = right.properties(width=284, height=230, title=title)
    return alt.hconcat(left, right, spacing=18).properties(
        description="KL divergence and loss recovered when the states of layer "
        f"{theme.layer_range(table.block)} are replaced by {', '.join(names)}."
    )


def _interval(rows: pd.DataFrame, series: list, x: alt.X, ends: tuple[str, str], y: alt.Y) -> alt.Chart:
    """Intervals between two columns: a rule each, of many layers a band."""
    low, high = ends
    base = alt.Chart(rows).transform_filter(f"isValid(datum.{low}) && isValid(datum.{high})")
    marked = base.mark_rule(strokeWidth=1.2) if theme.few(rows.block) else base.mark_area(opacity=0.12)
    y = y.copy()
    y.shorthand = f"{low}:Q"
    return marked.encode(series[0], x=x, y=y, y2=f"{high}:Q")
