"""Tables as HTML, and numbers as people write them."""

import html

import numpy as np
import pandas as pd

#: Numbers that are names and get no thousands separators.
_IDENTIFIERS = {"feature", "layer", "seed"}


def table_html(table: pd.DataFrame) -> str:
    """HTML table without index: all escaped, numbers to the right, missing values as a dash.

    Floats of one column share their number of decimals: none where all are whole, three below 10, one below
    1,000, none above; columns that reach below 0.001 are written with three significant digits.
    """

    def row(tag: str, texts) -> str:
        cells = zip(table.dtypes, texts)
        return "".join(
            f'<{tag} style="text-align: {_side(kind)}">{html.escape(str(text))}</{tag}>'
            for kind, text in cells
        )

    body = "\n".join(
        f"<tr>{row('td', texts)}</tr>" for texts in zip(*(_cells(table[name]) for name in table))
    )
    content = f"<thead><tr>{row('th', table.columns)}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div style="overflow-x: auto">\n<table class="sae-rna-table">\n{content}\n</table>\n</div>'


def _side(kind) -> str:
    """The side at which the texts of a column of this type stand."""
    number = pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)
    return "right" if number else "left"


def _cells(column: pd.Series) -> list[str]:
    """A column as text."""
    style = _float_style(column) if pd.api.types.is_float_dtype(column) else None
    return ["–" if pd.isna(value) else written(value, str(column.name), style) for value in column]


def _float_style(column: pd.Series) -> str:
    """The format that all numbers of a column share."""
    size = column.abs().replace(np.inf, np.nan).dropna()
    most, least = size.max(), size[size > 0].min()  # NaN, and no comparison holds, where there are none
    if (size % 1 == 0).all():
        style = ",.0f"
    elif least < 1e-3:
        style = ",.3g"
    else:
        style = ",.3f" if most < 10 else ",.1f" if most < 1000 else ",.0f"
    return style.replace(",", "") if column.name in _IDENTIFIERS else style


def written(value, name: str, style: str | None = None) -> str:
    """One value of a table or caption as text: `style` is Python's format.

    By default integers get thousands separators (but a feature, layer or seed is a name) and other numbers
    three significant digits.
    """
    if isinstance(value, (bool, np.bool)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return format(value, style or ("d" if name in _IDENTIFIERS else ",d"))
    if isinstance(value, (float, np.floating)):
        return format(value, style or ",.3g")
    return str(value)
