"""The pipeline (Figure 1) and the data that go into it."""

import textwrap

import altair as alt
import numpy as np
import pandas as pd

from sae_rna.figures import theme
from sae_rna.figures.theme import GREY, INK, WIDTH

_ARROW, _PADDING = 34, 12  # pixels between boxes and inside them
_COLUMNS = 3


def overview(steps: pd.DataFrame) -> alt.LayerChart:
    """Figure 1: the pipeline as boxes and arrows, the run's own numbers in the boxes.

    Parameters: `steps`, one row per box in reading order, with step (what flows out of it, a word or two), title (what is
    done) and detail (numbers of this run; lines separated by newlines). Three boxes stand in a row.
    """
    table = theme.checked(steps, "overview", ["step", "title", "detail"])
    columns = min(_COLUMNS, len(table))
    width = (WIDTH - 2 - (columns - 1) * _ARROW) / columns
    room = int((width - 2 * _PADDING) / 5.7)  # characters of the detail text in a line
    table["detail"] = [_wrapped(str(detail), room) for detail in table.detail]
    box_height = 54 + 15 * (table.detail.str.count("\n").max() + 1) + _PADDING
    row, column = np.divmod(np.arange(len(table)), columns)
    table["left"], table["top"] = column * (width + _ARROW) + 1, row * (box_height + _ARROW) + 1
    table["right"], table["bottom"] = table.left + width, table.top + box_height
    height = table.bottom.max() + 1
    scale = {
        "x": alt.Scale(domain=[0, WIDTH], nice=False),
        "y": alt.Scale(domain=[0, height], reverse=True, nice=False),
    }

    def x(field: str) -> alt.X:
        return alt.X(field, axis=None, scale=scale["x"])

    def y(field: str) -> alt.Y:
        return alt.Y(field, axis=None, scale=scale["y"])

    base = alt.Chart(table).encode(tooltip=["step:N", "title:N", "detail:N"])
    place = base.transform_calculate(
        text_x=f"datum.left + {_PADDING}",
        title_y="datum.top + 34",
        detail_y="datum.top + 54",
        step_y="datum.top + 17",
    )
    boxes = base.mark_rect(cornerRadius=6, fill="#f3f7f9", stroke="#2b7c86", strokeWidth=1.2).encode(
        x("left:Q"), y("top:Q"), x2="right:Q", y2="bottom:Q"
    )
    step = place.mark_text(align="left", baseline="middle", fontSize=11, color="#2b7c86").encode(
        x("text_x:Q"), y("step_y:Q"), text="step:N"
    )
    title = place.mark_text(
        align="left", baseline="middle", fontSize=14, fontWeight="bold", color=INK
    ).encode(x("text_x:Q"), y("title_y:Q"), text="title:N")
    detail = place.mark_text(
        align="left", baseline="top", fontSize=11.5, lineHeight=15, lineBreak="\n", color="#444444"
    ).encode(x("text_x:Q"), y("detail_y:Q"), text="detail:N")
    lines, heads = _arrows(table)
    line = (
        alt.Chart(lines)
        .mark_line(color=GREY, strokeWidth=1.6)
        .encode(x("x:Q"), y("y:Q"), detail="arrow:N", order="point:Q")
    )
    head = alt.Chart(heads).mark_point(shape="triangle-up", color=GREY, size=70).encode(
        x("x:Q"), y("y:Q"), angle=alt.Angle("angle:Q", scale=None)
    )  # fmt: skip
    drawn = [boxes, step, title, detail] + ([line, head] if len(table) > 1 else [])
    return alt.layer(*drawn).properties(
        width=WIDTH,
        height=height,
        description="The pipeline: " + " → ".join(f"{s.title} ({s.step})" for s in table.itertuples()),
    )


def _wrapped(text: str, room: int) -> str:
    return "\n".join(textwrap.fill(line, room, break_on_hyphens=False) for line in text.split("\n"))


def _arrows(table: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Corner points of every arrow from box to box, and their heads. A new row is entered from above, at its left."""
    lines, heads = [], []
    for arrow in range(len(table) - 1):
        here, there = table.iloc[arrow], table.iloc[arrow + 1]
        if there.top == here.top:
            middle = (here.top + here.bottom) / 2
            corners, angle = [(here.right + 3, middle), (there.left - 6, middle)], 90
        else:
            between, start, end = (
                (here.bottom + there.top) / 2,
                (here.left + here.right) / 2,
                (there.left + there.right) / 2,
            )
            corners, angle = (
                [(start, here.bottom + 3), (start, between), (end, between), (end, there.top - 6)],
                180,
            )
        lines += [{"arrow": arrow, "point": point, "x": x, "y": y} for point, (x, y) in enumerate(corners)]
        heads.append({"x": corners[-1][0], "y": corners[-1][1], "angle": angle})
    return pd.DataFrame(lines, columns=["arrow", "point", "x", "y"]), pd.DataFrame(
        heads, columns=["x", "y", "angle"]
    )


def length_distribution(lengths: pd.DataFrame, bin_width: int = 10) -> alt.ConcatChart:
    """Lengths of the records, a panel per group.

    Parameters: `lengths`, one row per group x length, with group (a split or an RNA type), length (nt), records (count);
    `bin_width` in nucleotides.
    """
    lengths = theme.select(lengths, "length_distribution", ["group", "length", "records"])
    lengths["length"] = lengths.length // bin_width * bin_width
    table = theme.fits(
        lengths.groupby(["group", "length"], sort=False, as_index=False).records.sum(), "length_distribution"
    )
    table["end"] = table.length + bin_width
    domain = [int(table.length.min()), int(table.end.max())]
    groups = list(dict.fromkeys(table.group))
    x_axis, y_axis = alt.Axis(grid=False, tickCount=6), alt.Axis(tickCount=3, format=",.0f", minExtent=40)
    panels = []
    for group in groups:
        rows = table[table.group == group]
        bars = alt.Chart(rows).mark_bar(color="#2b7c86", binSpacing=0.5)
        bars = bars.encode(
            x=alt.X(
                "length:Q", bin="binned", title="length (nt)", scale=alt.Scale(domain=domain), axis=x_axis
            ),
            x2="end:Q",
            y=alt.Y("records:Q", title="records", axis=y_axis),
            tooltip=[
                alt.Tooltip("length:Q", title="from (nt)"),
                alt.Tooltip("end:Q", title="to (nt)"),
                alt.Tooltip("records:Q", format=","),
            ],
        )
        title = alt.Title(str(group), subtitle=f"n = {int(rows.records.sum()):,}")
        panels.append(bars.properties(width=WIDTH // 2 - 70, height=90, title=title))
    return alt.concat(*panels, columns=2, spacing=14).properties(
        description=f"Length distribution of {int(table.records.sum()):,} records, {domain[0]} to {domain[1]} nt, for "
        + ", ".join(map(str, groups))
    )
