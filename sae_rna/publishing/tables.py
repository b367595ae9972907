"""Tables as HTML, and numbers as people write them."""

import html
import re

import numpy as np
import pandas as pd

#: Numbers that are names and get no thousands separators.
_IDENTIFIERS = {"feature", "layer", "seed"}
_LONG = 60  # characters of a cell that makes a table one of words: on a phone its rows are read as paragraphs
#: A hyphen before a number, not within a name, stands for a minus sign.
MINUS = re.compile(r"(?<![\w-])-(?=\d)")
#: A page of the book or of the atlas, from the folder of the figures as from the folder of the pages.
_LINK = re.compile(r"\[([^\[\]]+)\]\((\.\./(?:executed|atlas)/[\w.#-]+)\)")


def table_html(table: pd.DataFrame) -> str:
    """HTML table without index: all escaped, numbers to the right, missing values as a dash.

    A first column of words that come in runs (of two rows or more, in the mean) becomes headings above them.
    A text like [name](../executed/page.html#figure) becomes a link, if it leads to a page beside this one.

    Floats of one column under one heading share their number of decimals: none where all are whole, three
    below 10, one below 1,000, none above; positive ones that reach below 0.001 have three significant digits.
    """
    first = table.iloc[:, 0]
    runs = (first != first.shift()).cumsum()
    headings = table.size > len(table) > 0 and not _numeric(first.dtype)
    headings = headings and runs.nunique() == first.nunique() <= len(first) / 2
    shown = table.iloc[:, 1:] if headings else table
    sides = ["right" if _numeric(kind) else "left" for kind in shown.dtypes]

    def row(tag: str, texts) -> str:
        opened = [f'<{tag} style="text-align: {side}">' for side in sides]
        cells = [f"{start}{_linked(str(text))}</{tag}>" for start, text in zip(opened, texts)]
        return f"<tr>{''.join(cells)}</tr>"

    bodies = []
    for _, rows in shown.groupby(runs) if headings else [(0, shown)]:
        over = f'<th colspan="{len(sides)}" scope="rowgroup" style="text-align: left">'
        lines = [f"<tr>{over}{_linked(str(first[rows.index[0]]))}</th></tr>"] if headings else []
        lines += [row("td", texts) for texts in zip(*(_cells(rows[name]) for name in rows))]
        bodies.append("<tbody>\n" + "\n".join(lines) + "\n</tbody>")
    content = f"<thead>{row('th', shown.columns)}</thead>\n" + "\n".join(bodies)
    longest = max((len(_LINK.sub(r"\1", str(cell))) for cell in shown.to_numpy().ravel()), default=0)
    kind = "sae-rna-table sae-rna-words" if longest > _LONG else "sae-rna-table"
    box = '<div class="sae-rna-scroll" tabindex="0" style="overflow-x: auto">'
    return f'{box}\n<table class="{kind}">\n{content}\n</table>\n</div>'


def _numeric(kind) -> bool:
    return pd.api.types.is_numeric_dtype(kind) and not pd.api.types.is_bool_dtype(kind)


def _linked(text: str) -> str:
    """`text` escaped, and as a link where it is one; a long name may break after each underscore."""
    link = _LINK.fullmatch(text)
    words = html.escape(link[1] if link else text).replace("_", "_<wbr/>")
    return f'<a href="{html.escape(link[2])}">{words}</a>' if link else words


def _cells(column: pd.Series) -> list[str]:
    """A column as text."""
    style = _float_style(column) if pd.api.types.is_float_dtype(column) else None
    texts = ["–" if pd.isna(value) else written(value, str(column.name), style) for value in column]
    numeric = _numeric(column.dtype)
    return [text.replace("-", "−") if numeric else MINUS.sub("−", text) for text in texts]


def _float_style(column: pd.Series) -> str:
    """The format that all numbers of a column share."""
    size = column.abs().replace(np.inf, np.nan).dropna()
    most, least = size.max(), size[size > 0].min()  # NaN, and no comparison holds, where there are none
    if (size % 1 == 0).all():
        style = ",.0f"
    elif least < 1e-3 and not column.min() < 0:
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
