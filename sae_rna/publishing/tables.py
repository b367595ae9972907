"""Tables as HTML, and numbers as people write them."""

import html
import re

import numpy as np
import pandas as pd

#: Numbers that are names and get no thousands separators.
_IDENTIFIERS = {"feature", "layer", "seed"}
#: A page of the book, from the folder of the figures as from the folder of the pages.
_LINK = re.compile(r"\[([^\[\]]+)\]\((\.\./executed/[\w.#-]+)\)")


def table_html(table: pd.DataFrame) -> str:
    """HTML table without index: all escaped, numbers to the right, missing values as a dash.

    A text like [name](../executed/page.html#figure) becomes a link, if it leads to a page beside this one.

    Floats of one column share their number of decimals: none where all are whole, three below 10, one below
    1,000, none above; columns that reach below 0.001 are written with three significant digits.
    """
    numeric, boolean = pd.api.types.is_numeric_dtype, pd.api.types.is_bool_dtype
    sides = ["right" if numeric(kind) and not boolean(kind) else "left" for kind in table.dtypes]

    def row(tag: str, texts) -> str:
        opened = [f'<{tag} style="text-align: {side}">' for side in sides]
        cells = [f"{start}{_linked(str(text))}</{tag}>" for start, text in zip(opened, texts)]
        return f"<tr>{''.join(cells)}</tr>"

    body = "\n".join(row("td", texts) for texts in zip(*(_cells(table[name]) for name in table)))
    content = f"<thead>{row('th', table.columns)}</thead>\n<tbody>\n{body}\n</tbody>"
    box = '<div class="sae-rna-scroll" tabindex="0" style="overflow-x: auto">'
    return f'{box}\n<table class="sae-rna-table">\n{content}\n</table>\n</div>'


def _linked(text: str) -> str:
    """`text` escaped, and as a link where it is one."""
    link = _LINK.fullmatch(text)
    return f'<a href="{html.escape(link[2])}">{html.escape(link[1])}</a>' if link else html.escape(text)


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
