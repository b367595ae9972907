"""How the autoencoders were trained."""

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme

_CURVES = {"loss": "loss", "l0": "active latents (L0)", "explained_variance": "explained variance",
           "dead_share": "dead features"}  # fmt: skip
# An autoencoder that has not learnt yet can be far below; that would flatten everything else.
_LOWEST_VARIANCE = -0.25


def training(table: pd.DataFrame) -> alt.VConcatChart:
    """Training curves over tokens, a column per architecture, a line per layer.

    The losses of two architectures are different sums (ReLU + L1 counts its penalty), so each column has its
    own loss axis; the other rows share theirs. Explained variance is cut off at -0.25. Long runs are thinned
    evenly. `table`: one row per layer x architecture x log step, with tokens, layer, architecture, loss, l0,
    explained_variance, dead_share (0..1).
    """
    table = theme.select(table, "training", "tokens layer architecture " + " ".join(_CURVES))
    table = theme.fits(_thinned(table), "training")
    names = theme.architectures(table)
    low, high = int(table.layer.min()), int(table.layer.max())
    domain, labels = [low, max(high, low + 1)], theme.layer_labels(table.layer)
    colour = theme.gradient("layer", "layer", theme.LAYERS, 260, domain, **labels)
    rows = []
    for measure, title in _CURVES.items():
        panels: list[alt.TopLevelMixin] = []
        for name in names:
            curves = table[table.architecture == name]
            axis, scale = _curve_axis(measure, curves if measure == "loss" else table)
            y = alt.Y(f"{measure}:Q", title=None if panels else title, axis=axis, scale=scale)
            heading = theme.architecture_name(name) if measure == "loss" else ""
            panel = _curves(curves, measure, y, colour)
            width = (theme.WIDTH - 50) // len(names) - 55
            panels.append(panel.properties(width=width, height=105, title=heading))
        rows.append(alt.hconcat(*panels, spacing=18))
    return alt.vconcat(*rows, spacing=8).properties(
        description=f"Loss, L0, explained variance and dead share over {table.tokens.max():,} training "
        f"tokens, for layers {low} to {high} and {len(names)} architectures."
    )


def _curves(curves: pd.DataFrame, measure: str, y: alt.Y, colour: alt.Color) -> alt.LayerChart:
    """One measure of one architecture: a line per layer."""
    axis = alt.Axis(format="~s", labelExpr="datum.value ? datum.label : '0'", tickCount=4, grid=False)
    x = alt.X("tokens:Q", title="training tokens" if measure == "dead_share" else None, axis=axis)
    base = alt.Chart(curves).encode(x=x, y=y, color=colour, detail="layer:N")
    values = theme.tooltips(",", "tokens") + theme.tooltips(".4~g", **{measure: _CURVES[measure]})
    # A line has one tooltip for all its points, so unseen points carry them.
    points = base.mark_point(opacity=0, size=40, clip=True).encode(tooltip=["layer:Q", *values])
    return base.mark_line(strokeWidth=1.5, clip=True) + points


def _curve_axis(measure: str, table: pd.DataFrame) -> tuple[alt.Axis, alt.Scale]:
    """Axis and scale of one of `_CURVES`, over all its values in `table`."""
    if measure in ("loss", "l0"):
        return theme.log_axis(table[measure], format=",.4~f", minExtent=36)
    low, high = max(_LOWEST_VARIANCE, float(table[measure].min())), float(table[measure].max())
    style, domain = "~g", [min(low, high), max(high, low + 0.01)]
    if measure == "dead_share":
        style, domain = "%", [0, max(0.05, high)]
    return alt.Axis(format=style, minExtent=36, tickCount=4), alt.Scale(domain=domain, nice=True)


def _thinned(table: pd.DataFrame) -> pd.DataFrame:
    """At most 60 evenly spaced rows of every curve, with first and last; fewer where curves are many."""
    by_curve = table.sort_values("tokens").groupby(["architecture", "layer"], sort=False)
    count = max(2, min(60, theme.MAXIMUM_ROWS // 2 // by_curve.ngroups))
    kept = []
    for _, curve in by_curve:
        kept.append(curve.iloc[np.unique(np.linspace(0, len(curve) - 1, count).round().astype(int))])
    return pd.concat(kept, ignore_index=True)
