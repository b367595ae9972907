"""The pipeline (Figure 1)."""

import textwrap

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import GREY, INK, TEAL, WIDTH

_ARROW, _PADDING = 34, 12  # pixels between boxes and inside them
_COLUMNS = 3


def overview(steps: pd.DataFrame) -> alt.LayerChart:
    """Figure 1: the pipeline as boxes and arrows, the run's own numbers in the boxes, three boxes in a row.

    `steps`: one row per box in reading order, with step (what flows out of it, a word or two), title (what is
    done) and detail (numbers of this run; lines separated by newlines).
    """
    table = theme.checked(steps, "overview", "step title detail")
    height = _place_boxes(table)
    at = theme.places([0, WIDTH], [0, height], down=True)
    base = alt.Chart(table).encode(tooltip=["step:N", "title:N", "detail:N"])
    tops = {"title_y": "datum.top + 34", "detail_y": "datum.top + 54", "step_y": "datum.top + 17"}
    place = base.transform_calculate(text_x=f"datum.left + {_PADDING}", **tops)

    def text(column: str, baseline: str = "middle", **mark) -> alt.Chart:
        words = place.mark_text(align="left", baseline=baseline, **mark)
        return words.encode(**at("text_x:Q", f"{column}_y:Q"), text=f"{column}:N")

    boxes = base.mark_rect(cornerRadius=6, fill="#f3f7f9", stroke=TEAL, strokeWidth=1.2)
    drawn = [
        boxes.encode(**at("left:Q", "top:Q"), x2="right:Q", y2="bottom:Q"),
        text("step", fontSize=11, color=TEAL),
        text("title", fontSize=14, fontWeight="bold", color=INK),
        text("detail", "top", fontSize=11.5, lineHeight=15, lineBreak="\n", color="#444444"),
    ]
    if len(table) > 1:
        lines, heads = map(alt.Chart, _arrows(table))
        line = lines.mark_line(color=GREY, strokeWidth=1.6).encode(detail="arrow:N", order="point:Q")
        head = heads.mark_point(shape="triangle-up", color=GREY, size=70)
        head = head.encode(angle=alt.Angle("angle:Q", scale=None))
        drawn += [chart.encode(**at("x:Q", "y:Q")) for chart in (line, head)]
    words = " → ".join(f"{step.title} ({step.step})" for step in table.itertuples())
    return alt.layer(*drawn).properties(width=WIDTH, height=height, description=f"The pipeline: {words}")


def _place_boxes(table: pd.DataFrame) -> float:
    """Wrap the details to their boxes and add the boxes' edges, in place; returns the height, pixels."""
    columns = min(_COLUMNS, len(table))
    width = (WIDTH - 2 - (columns - 1) * _ARROW) / columns
    letters = int((width - 2 * _PADDING) / 5.7)  # of the detail text in a line
    wrapper = textwrap.TextWrapper(letters, break_on_hyphens=False)
    table["detail"] = ["\n".join(map(wrapper.fill, str(detail).split("\n"))) for detail in table.detail]
    height = 54 + 15 * (table.detail.str.count("\n").max() + 1) + _PADDING
    row, column = np.divmod(np.arange(len(table)), columns)
    table["left"], table["top"] = column * (width + _ARROW) + 1, row * (height + _ARROW) + 1
    table["right"], table["bottom"] = table.left + width, table.top + height
    return table.bottom.max() + 1


def _arrows(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Corner points of every arrow from box to box, and their heads. A new row is entered from above."""
    lines, heads = [], []
    boxes = list(table.itertuples())
    for arrow, (here, there) in enumerate(zip(boxes, boxes[1:])):
        if there.top == here.top:
            middle = (here.top + here.bottom) / 2
            corners, angle = [(here.right + 3, middle), (there.left - 6, middle)], 90
        else:
            between, angle = (here.bottom + there.top) / 2, 180
            start, end = (here.left + here.right) / 2, (there.left + there.right) / 2
            corners = [(start, here.bottom + 3), (start, between), (end, between), (end, there.top - 6)]
        lines += [{"arrow": arrow, "point": point, "x": x, "y": y} for point, (x, y) in enumerate(corners)]
        heads.append({"x": corners[-1][0], "y": corners[-1][1], "angle": angle})
    return pd.DataFrame(lines), pd.DataFrame(heads)


def findings(table: pd.DataFrame) -> alt.VConcatChart:
    """Base-stratified AUROC by layer of the best feature, the best control and chance.

    A row per setting, a panel per concept. `table`: one row per setting, concept, layer and line, with these,
    source and base_auroc; lines are "autoencoder", "best control" and "chance".
    """
    table = theme.checked(table, "findings", "setting concept layer line source base_auroc")
    looks = {"autoencoder": (theme.BLUE, [1, 0]), "best control": (theme.DARK, [5, 3])}
    looks["chance"] = theme.LIGHT, [2, 2]
    looks = {line: looks[line] for line in theme.known(table.line, looks)}
    channels = theme.series("line", looks)
    concepts, settings = (table[column].drop_duplicates().tolist() for column in ("concept", "setting"))
    low, high = min(0.45, table.base_auroc.min()), max(0.75, table.base_auroc.max())
    x, tooltip = theme.layer_axis(table.layer), theme.tooltips("", "line", "source")
    tooltip += [
        alt.Tooltip("block:Q", title="layer"),
        *theme.tooltips(".3f", base_auroc="AUROC within bases"),
    ]
    rows, width = [], (theme.WIDTH - 60) // len(concepts) - 14
    for setting in settings:
        panels: list[alt.TopLevelMixin] = []
        for concept in concepts:
            part = table[(table.setting == setting) & (table.concept == concept)].assign(block=table.layer)
            axis = alt.Axis(title=None if panels else "AUROC within bases", labels=not panels, tickCount=5)
            y = alt.Y("base_auroc:Q", scale=alt.Scale(domain=[low, high], zero=False), axis=axis)
            title = concept if setting == settings[0] else ""
            panel = theme.lines(part, x, y, channels, tooltip) if len(part) else theme.nothing("")
            panels.append(panel.properties(width=width, height=130, title=title))
        rows.append(alt.hconcat(*panels, spacing=10).properties(title=alt.Title(setting, fontSize=12)))
    return alt.vconcat(*rows, spacing=12).properties(
        description=f"AUROC within bases by layer for {', '.join(map(str, concepts))} in "
        f"{' and '.join(settings)}: the autoencoder's best feature, the best control and chance."
    )
