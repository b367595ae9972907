"""What all figures share: colours, fonts, checks of their tables, axes, legends and marks.

The element and architecture colours are Okabe & Ito's (2008) colour-blind-safe set. Activations use one
ordered scale that starts near white, so that "silent" looks silent and both scales survive a black-and-white
print. What is under test has a colour; what it is compared with is grey.
"""

import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence

import altair as alt
import numpy as np
import pandas as pd

#: Width of what a figure draws, pixels: with its padding it fits into a page of the book, 720 wide.
WIDTH = 708
#: Most rows a chart may carry inside itself: a reader loads them with the page.
MAXIMUM_ROWS = 5000
#: Width of the names beside the rows of a chart, pixels.
NAMES = 140
FONT = "Arial, Helvetica, Liberation Sans, DejaVu Sans, sans-serif"
MONOSPACE = "DejaVu Sans Mono, Menlo, Consolas, monospace"
INK, GREY = "#222222", "#767676"
#: What is under test, and what it is compared with.
BLUE, DARK, MIDDLE, LIGHT = "#0072b2", "#3d3d3d", "#8a8a8a", "#b8b8b8"
#: Colour of each setting in which features are chosen and scored, in the order of `splits.SETTINGS`.
SETTING_COLOURS = {"seen families": "#e08214", "unseen families": BLUE, "natural RNAs": "#542788"}
#: Colour of boxes, bars and other shapes that stand for themselves.
TEAL = "#2b7c86"
KL_TITLE = alt.Title("KL divergence", subtitle="from the language model's own predictions; lower is better")
#: Symbol of what a score is compared with: an upright stroke.
STROKE = "M-.18,-1H.18V1H-.18Z"

#: One fixed colour per structural element, in the order of `structure.ELEMENTS`.
ELEMENT_COLOURS = {"S": "#0072b2", "H": "#d55e00", "I": "#009e73", "B": "#cc79a7",
                   "M": "#e69f00", "X": "#56b4e9", "E": "#999999", "K": "#111111"}  # fmt: skip
#: Name written for each architecture, in the order in which they stand side by side.
ARCHITECTURES = {"topk": "TopK", "batchtopk": "BatchTopK", "matryoshka": "Matryoshka", "jumprelu": "JumpReLU",
                 "relu-l1": "ReLU + L1", "relu-l1-mean": "ReLU + L1, mean error",
                 "relu-l1-matched": "ReLU + L1, matched"}  # fmt: skip
_COLOURS = ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7", "#7f3b08")
ARCHITECTURE_COLOURS = dict(zip(ARCHITECTURES, _COLOURS, strict=True))
#: Activation from 0 (silent) to 1 (the feature's maximum).
ACTIVATION = ["#f4f3f7", "#dcd3ec", "#b59fd6", "#8a63b8", "#5e2b91", "#31064f"]
#: Layers from first to last, as lines.
LAYERS = ["#6fc45a", "#22a884", "#2a788e", "#414487", "#440154"]
#: Any other quantity, as cells.
SEQUENTIAL = ["#f1f7f6", "#cfe5e3", "#9bcbcb", "#5da7ab", "#2b7c86", "#0e4d5a"]


@alt.theme.register("sae_rna", enable=True)
def _theme() -> alt.theme.ThemeConfig:
    text = {"titleFontSize": 12, "titleFontWeight": "normal", "titleColor": INK}
    text |= {"labelFontSize": 11, "labelColor": INK}
    axis = {"gridColor": "#ececec", "domainColor": GREY, "tickColor": GREY, "titlePadding": 6}
    title = {"fontSize": 13, "color": INK, "anchor": "start", "subtitleColor": GREY, "subtitleFontSize": 11}
    config = {"padding": 4, "font": FONT, "view": {"stroke": None}, "axis": text | axis, "title": title}
    config["background"] = "white"  # stays white in a dark page: the colours were chosen on white
    config["legend"] = text | {"symbolStrokeWidth": 2, "gradientStrokeWidth": 0}
    config["header"] = text | {"titleFontSize": 13, "labelFontSize": 12, "labelFontWeight": "bold"}
    marks = {"line": {"strokeWidth": 2}, "point": {"size": 45, "filled": True, "opacity": 1}}
    return {"config": config | marks}


def select(table: pd.DataFrame, figure: str, columns: str) -> pd.DataFrame:
    """The columns of `table` that a figure needs (a string, blanks between them). ValueError without rows."""
    if table.empty:
        raise ValueError(f"{figure}: the table has no rows, so there is nothing to draw")
    return table[columns.split()].reset_index(drop=True)


def links(table: pd.DataFrame) -> dict:
    """The encoding that makes marks lead to the address in the column page, if the table has one."""
    return {"href": alt.Href("page:N")} if "page" in table else {}


def fits(table: pd.DataFrame, figure: str) -> pd.DataFrame:
    """`table`, once it is known to fit into a page. ValueError above `MAXIMUM_ROWS` rows."""
    if len(table) <= MAXIMUM_ROWS:
        return table
    rows = f"{len(table):,} rows are more than a page can carry ({MAXIMUM_ROWS:,})"
    raise ValueError(f"{figure}: {rows}: aggregate or select first")


def checked(table: pd.DataFrame, figure: str, columns: str) -> pd.DataFrame:
    """`select` and `fits`, for a table that is drawn as it is."""
    return fits(select(table, figure, columns), figure)


def known(values: pd.Series, names: Iterable[str]) -> list[str]:
    """The ones of `names` that occur in `values`, in their order."""
    return [name for name in names if name in set(values)]


def nothing(text: str) -> alt.Chart:
    """A chart that says why there is nothing to draw: a result is a result, also where it is none."""
    words = alt.Chart(pd.DataFrame({"text": [text]})).mark_text(color=GREY, fontSize=13).encode(text="text:N")
    return words.properties(width=WIDTH, height=40, description=text)


def architectures(table: pd.DataFrame) -> list[str]:
    """Architectures of `table` in reading order, unknown ones last."""
    present, order = dict.fromkeys(table.architecture), list(ARCHITECTURES)
    return sorted(present, key=lambda name: order.index(name) if name in order else len(order))


def architecture_name(name: str) -> str:
    """An architecture as it is written in a figure."""
    return ARCHITECTURES.get(name, name)


def readable(words):
    """`words` with architectures as they are written in figures: a table, its headers too, or a dictionary of
    a caption's numbers."""
    name = re.compile(rf"\b({'|'.join(sorted(ARCHITECTURES, key=len, reverse=True))})\b")
    written = lambda of: name.sub(lambda found: ARCHITECTURES[found[0]], of) if isinstance(of, str) else of  # noqa: E731
    if isinstance(words, dict):
        return {key: written(value) for key, value in words.items()}
    return words.rename(columns=written).map(written)


def layer_name(layer: int) -> str:
    """ "L5" for the output of block 5, "L0" being the embedding layer."""
    return f"L{int(layer)}"


def layer_range(layers: pd.Series) -> str:
    """ "L1 to L6", or "L5" where there is one layer."""
    low, high = layer_name(layers.min()), layer_name(layers.max())
    return low if low == high else f"{low} to {high}"


def few(layers: pd.Series) -> bool:
    """Whether there are so few layers that each gets points that can be told apart and upright numbers."""
    return layers.nunique() <= 12


def layer_labels(layers: pd.Series) -> dict:
    """Options of an axis or legend of layers, L1, L2, ...: of more than ten the ends and every fifth."""
    low, high = int(layers.min()), int(layers.max())
    shown = range(low, high + 1) if high - low < 10 else {low, *range(5 * (low // 5 + 1), high - 1, 5), high}
    return {"values": sorted(shown), "labelExpr": "'L' + datum.value"}


def layer_axis(layers: pd.Series, title: str | None = "layer") -> alt.X:
    """Quantitative axis over layers."""
    scale = alt.Scale(domain=[int(layers.min()) - 0.5, int(layers.max()) + 0.5], nice=False, zero=False)
    return alt.X("layer:Q", title=title, scale=scale, axis=alt.Axis(grid=False, **layer_labels(layers)))


def bare_axis(**axis) -> alt.Axis:
    """An axis of names or cells, which need no line and no ticks."""
    return alt.Axis(ticks=False, domain=False, **axis)


def places(x: list, y: list, down: bool = False, **scale) -> Callable[[str, str], dict]:
    """`at("x:Q", "y:Q")`: channels of a drawing without axes, of these domains. `down`: y grows downwards."""
    x_scale = alt.Scale(domain=x, nice=False, **scale)
    y_scale = alt.Scale(domain=y, nice=False, reverse=down or alt.Undefined, **scale)
    return lambda x, y: {"x": alt.X(x, axis=None, scale=x_scale), "y": alt.Y(y, axis=None, scale=y_scale)}


def log_axis(values: pd.Series, **axis) -> tuple[alt.Axis, alt.Scale]:
    """Logarithmic axis, its round ticks denser where decades are few; zero and less stick to its foot."""
    values = values[values > 0]
    low, high = (float(values.min()) / 1.3, float(values.max()) * 1.3) if len(values) else (0.5, 2.0)
    width = math.log10(high / low)
    steps = (1, 1.5, 2, 3, 4, 5, 7) if width < 0.9 else (1, 2, 5) if width < 2.2 else (1,)
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
    ticks = [float(f"{step}e{decade}") for decade in decades for step in steps]
    scale = alt.Scale(type="log", domain=[low, high], nice=False, clamp=True)
    # A clamped scale would draw a tick from outside at its end, labelled with a value that is not there.
    return alt.Axis(values=[tick for tick in ticks if low <= tick <= high], **axis), scale


def tooltips(style: str = "", /, *columns: str, **titles: str) -> list[alt.Tooltip]:
    """Tooltips of columns, without and with a title: numbers in d3's format `style`, or text without one."""
    kind, options = ("Q", {"format": style}) if style else ("N", {})
    own = [alt.Tooltip(f"{column}:{kind}", **options) for column in columns]
    return own + [alt.Tooltip(f"{column}:{kind}", title=title, **options) for column, title in titles.items()]


def gradient(
    column: str, title: str, colours: list, length: int, domain: Sequence = (0, 1), **legend
) -> alt.Color:
    """A number as colour; its legend, `length` pixels long, stands above the chart, its title to the left."""
    size = {"gradientLength": length, "gradientThickness": 9}
    bar = alt.Legend(orient="top", titleOrient="left", **size, **legend)
    return alt.Color(f"{column}:Q", title=title, scale=alt.Scale(domain=domain, range=colours), legend=bar)


def kinds(column: str, looks: Mapping, channels: Sequence, legend: dict, **options) -> list:
    """Channels that give each kind of rows its look (`looks`: a value per channel), in one legend on top."""
    scales = [alt.Scale(domain=list(looks), range=list(values)) for values in zip(*looks.values())]
    options |= {"title": None, "legend": alt.Legend(orient="top", **legend)}
    return [channel(f"{column}:N", scale=scale, **options) for channel, scale in zip(channels, scales)]


def heat_map(table: pd.DataFrame, layers: pd.Series, y: alt.Y, dark: str) -> tuple[alt.Chart, alt.Chart]:
    """Cells over `layers` and `y`; and the column `label` in them, white where the condition `dark` holds."""
    x = alt.X("layer:O", title="layer", axis=bare_axis(labelAngle=0, **layer_labels(layers)))
    base, colour = alt.Chart(table).encode(x=x, y=y), alt.condition(dark, alt.value("white"), alt.value(INK))
    size, angle = (11, 0) if few(layers) else (10, 270)
    labels = base.mark_text(fontSize=size, angle=angle).encode(text="label:N", color=colour)
    return base.mark_rect(stroke="white"), labels


def concept_rows(concepts: Sequence[str]) -> alt.Y:
    """A row per concept, in the given order."""
    axis = bare_axis(minExtent=NAMES, labelPadding=9, labelLimit=NAMES - 12, grid=False)
    return alt.Y("concept:N", title=None, sort=list(concepts), axis=axis)


def heading(text: str, x: int, **mark) -> alt.Chart:
    """Text above a plot, `x` pixels from its left; a title would stand higher than this and move the plot."""
    mark = {"x": x, "y": -10, "fontSize": 11, "align": "left"} | mark
    return alt.Chart(pd.DataFrame({"heading": [text]})).mark_text(**mark).encode(text="heading:N")


def interval_text(value: float, low: float, high: float) -> str:
    """A value and its interval, as far as they are known."""
    if np.isfinite([low, high]).all():
        return f"{value:.3f} ({low:.3f} to {high:.3f})"
    return f"{value:.3f}" if np.isfinite(value) else "–"


def series(column: str, looks: Mapping[str, tuple[str, list[int]]]) -> list:
    """Channels that give each line its colour and dashes, in one legend."""
    legend = {"columns": 4, "labelLimit": 260, "symbolType": "stroke", "symbolSize": 400, "symbolOpacity": 1}
    return kinds(column, looks, (alt.Color, alt.StrokeDash), legend)


def auroc_scale(values: pd.DataFrame) -> alt.Scale:
    """From the lowest to the highest of all values, 0.5 (chance) among them, in steps of a twentieth."""
    low, high = min(0.5, np.nanmin(values.to_numpy(float))), max(0.5, np.nanmax(values.to_numpy(float)))
    domain = [math.floor(20 * low + 1e-9) / 20, math.ceil(20 * high - 1e-9) / 20]
    return alt.Scale(domain=domain if domain[0] < domain[1] else [0.45, 0.55], nice=False, zero=False)


def lines(table: pd.DataFrame, x: alt.X, y: alt.Y, channels: list, tooltip: list) -> alt.LayerChart:
    """A line for each of the `series`, with points on it."""
    colour, dash = channels
    base = alt.Chart(table).encode(colour, x=x, y=y)
    points = base.mark_point(size=40 if few(table.block) else 16).encode(tooltip=tooltip)
    return base.mark_line().encode(dash) + points


def side_by_side(table: pd.DataFrame, place_N: pd.Series | int, places: int) -> pd.DataFrame:
    """`table` with `layer` moved by less than a half to each series' place, the true one being `block`.

    So series which agree can be told apart; where there are many layers nothing is moved.
    """
    if not few(table.layer):
        place_N, places = 0, 1
    return table.assign(block=table.layer, layer=table.layer + (place_N + 0.5 - places / 2) * 0.6 / places)
