"""What all figures share: colours, fonts, axes and the checks on their tables.

The eight element colours and the two architecture colours are Okabe & Ito's (2008) colour-blind-safe set; activations use
one ordered scale that starts near white, so that "silent" looks silent and both scales survive a black-and-white print.
"""

import math
from collections.abc import Sequence

import altair as alt
import pandas as pd

#: Width of what a figure draws, pixels: with its padding it fits into a page of the book, 720 wide.
WIDTH = 708
#: Most rows a chart may carry inside itself: a reader loads them with the page.
MAXIMUM_ROWS = 5000
FONT = "Arial, Helvetica, Liberation Sans, DejaVu Sans, sans-serif"
MONOSPACE = "DejaVu Sans Mono, Menlo, Consolas, monospace"
INK, GREY, PALE = "#222222", "#767676", "#dddddd"

#: One fixed colour per structural element, in the order of `structure.ELEMENTS`.
ELEMENT_COLOURS = {
    "S": "#0072b2",
    "H": "#d55e00",
    "I": "#009e73",
    "B": "#cc79a7",
    "M": "#e69f00",
    "X": "#56b4e9",
    "E": "#999999",
    "K": "#111111",
}
#: Name written for each architecture, in the order in which they stand side by side.
ARCHITECTURES = {
    "topk": "TopK",
    "batchtopk": "BatchTopK",
    "matryoshka": "Matryoshka",
    "jumprelu": "JumpReLU",
    "relu-l1": "ReLU + L1",
    "relu-l1-mean": "ReLU + L1, mean error",
}
ARCHITECTURE_COLOURS = dict(
    zip(ARCHITECTURES, ("#0072b2", "#56b4e9", "#009e73", "#e69f00", "#d55e00", "#cc79a7"))
)
#: Activation from 0 (silent) to 1 (the feature's maximum).
ACTIVATION = ["#f4f3f7", "#dcd3ec", "#b59fd6", "#8a63b8", "#5e2b91", "#31064f"]
#: Layers from first to last, as lines.
LAYERS = ["#6fc45a", "#22a884", "#2a788e", "#414487", "#440154"]
#: Any other quantity, as cells.
SEQUENTIAL = ["#f1f7f6", "#cfe5e3", "#9bcbcb", "#5da7ab", "#2b7c86", "#0e4d5a"]


@alt.theme.register("sae_rna", enable=True)
def _theme() -> alt.theme.ThemeConfig:
    title = {"titleFontSize": 12, "titleFontWeight": "normal", "titleColor": INK}
    label = {"labelFontSize": 11, "labelColor": INK}
    return {
        "config": {
            "background": "white",  # stays white in a dark page: the colours were chosen on white
            "padding": 4,
            "font": FONT,
            "view": {"stroke": None},
            "axis": title
            | label
            | {"gridColor": "#ececec", "domainColor": GREY, "tickColor": GREY, "titlePadding": 6},
            "legend": title | label | {"symbolStrokeWidth": 2, "gradientStrokeWidth": 0},
            "header": title | label | {"titleFontSize": 13, "labelFontSize": 12, "labelFontWeight": "bold"},
            "title": {
                "fontSize": 13,
                "color": INK,
                "anchor": "start",
                "subtitleColor": GREY,
                "subtitleFontSize": 11,
            },
            "line": {"strokeWidth": 2},
            "point": {"size": 45, "filled": True, "opacity": 1},
        }
    }


def select(table: pd.DataFrame, figure: str, columns: Sequence[str]) -> pd.DataFrame:
    """The columns of `table` that a figure needs. ValueError where one is missing or the table is empty."""
    missing = [column for column in columns if column not in table]
    if missing:
        raise ValueError(
            f"{figure}: the table has no column {', '.join(missing)}; it has {', '.join(map(str, table.columns))}"
        )
    if table.empty:
        raise ValueError(f"{figure}: the table has no rows, so there is nothing to draw")
    return table[list(columns)].reset_index(drop=True)


def nothing(text: str) -> alt.Chart:
    """A chart that says why there is nothing to draw: a result is a result, also where it is none."""
    words = alt.Chart(pd.DataFrame({"text": [text]})).mark_text(color=GREY, fontSize=13).encode(text="text:N")
    return words.properties(width=WIDTH, height=40, description=text)


def fits(table: pd.DataFrame, figure: str) -> pd.DataFrame:
    """`table`, once it is known to fit into a page. ValueError above `MAXIMUM_ROWS` rows."""
    if len(table) > MAXIMUM_ROWS:
        raise ValueError(
            f"{figure}: {len(table):,} rows are more than a page can carry ({MAXIMUM_ROWS:,}): aggregate or select first"
        )
    return table


def checked(table: pd.DataFrame, figure: str, columns: Sequence[str]) -> pd.DataFrame:
    """Both checks for a table that is drawn as it is."""
    return fits(select(table, figure, columns), figure)


def known_elements(letters: pd.Series, figure: str) -> list[str]:
    """Element letters that occur, in the order of `structure.ELEMENTS`. ValueError for a letter that is none."""
    unknown = sorted(set(letters) - set(ELEMENT_COLOURS))
    if unknown:
        raise ValueError(
            f"{figure}: {unknown[0]!r} is no structural element; the letters are {', '.join(ELEMENT_COLOURS)}"
        )
    return [letter for letter in ELEMENT_COLOURS if letter in set(letters)]


def architectures(table: pd.DataFrame) -> list[str]:
    """Architectures of `table` in reading order, unknown ones last."""
    present = list(dict.fromkeys(table["architecture"]))
    return [name for name in ARCHITECTURES if name in present] + [
        name for name in present if name not in ARCHITECTURES
    ]


def architecture_scale(names: Sequence[str]) -> alt.Scale:
    """Fixed colour of each architecture; the scale's domain is the written name."""
    return alt.Scale(
        domain=[ARCHITECTURES.get(n, n) for n in names],
        range=[ARCHITECTURE_COLOURS.get(n, GREY) for n in names],
    )


def with_architecture_names(table: pd.DataFrame) -> pd.DataFrame:
    """`table` with architectures as they are written in a figure."""
    return table.assign(architecture=[ARCHITECTURES.get(name, name) for name in table["architecture"]])


def layer_name(layer: int) -> str:
    """ "L5" for the output of block 5, "L0" being the embedding layer."""
    return f"L{int(layer)}"


def layer_axis(layers: pd.Series, title: str | None = "layer", **axis) -> alt.X:
    """Quantitative axis over layers, each labelled L1, L2, ... as far as there is room."""
    low, high = int(layers.min()), int(layers.max())
    return alt.X("layer:Q", title=title, scale=alt.Scale(domain=[low - 0.5, high + 0.5], nice=False, zero=False),
                 axis=alt.Axis(values=layer_ticks(layers), labelExpr="'L' + datum.value", grid=False, **axis))  # fmt: skip


def layer_ticks(layers: pd.Series) -> list[int]:
    """Layers that get a label: all of up to ten, else the first, the last and every fifth."""
    low, high = int(layers.min()), int(layers.max())
    return (
        list(range(low, high + 1))
        if high - low < 10
        else sorted({low, *range(5 * (low // 5 + 1), high - 1, 5), high})
    )


def log_axis(values: pd.Series, **axis) -> tuple[alt.Axis, alt.Scale]:
    """Logarithmic axis over the positive ones of `values`, with round ticks that are the denser the fewer decades there are.

    What is not positive sticks to the lower end.
    """
    values = values[values > 0]
    low, high = (float(values.min()) / 1.3, float(values.max()) * 1.3) if len(values) else (0.5, 2.0)
    width = math.log10(high / low)
    steps = (1, 1.5, 2, 3, 4, 5, 7) if width < 0.9 else (1, 2, 5) if width < 2.2 else (1,)
    ticks = [
        float(f"{step}e{decade}")
        for decade in range(math.floor(math.log10(low)), math.ceil(math.log10(high)))
        for step in steps
    ]
    scale = alt.Scale(type="log", domain=[low, high], nice=False, clamp=True)
    # A clamped scale would draw a tick from outside at its end, labelled with a value that is not there.
    return alt.Axis(values=[tick for tick in ticks if low <= tick <= high], **axis), scale
