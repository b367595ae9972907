"""Many small pages and an index of them, in one folder: static, without a network, linked to each other.

Texts and cells are escaped here; pictures are HTML that their makers have escaped.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sae_rna.files import placed
from sae_rna.publishing.captions import MINUS

_HERE = Path(__file__).parent
_ASSETS = "atlas.css", "atlas.js"
Cell = Any  # a text, a number, or (a text or number, address)
Table = tuple[Sequence[str], Iterable[Sequence[Cell]]]  # headers, rows
Section = tuple[str, str, Sequence[str | Table]]  # heading, a note below it, pictures (HTML) and tables
Page = tuple[str, str, str, Sequence[Section]]  # address, title, first sentence, sections


def write_atlas(
    folder: Path, title: str, lead: str, index: Table, pages: Iterable[Page],
    data: Mapping[str, pd.DataFrame], filters: Sequence[str] = (), book: str = "../index.html",
) -> int:  # fmt: skip
    """Write the pages, ``index.html``, what both need, and `data` as CSV and Parquet. Returns how many pages.

    index : its rows stand in the order of the pages; the first cell of each is the link to its page
    filters : headers of the index by whose values rows can be chosen
    book : address that every page links to

    The folder appears whole, in the place of the old one. Raises ValueError where index and pages differ.
    """
    headers, rows = index[0], [*index[1]]
    order, new = [row[0][1] for row in rows], folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(new, ignore_errors=True)
    with placed(folder):
        new.mkdir(parents=True)
        for place, (address, name, first, sections) in enumerate(pages):
            if order[place : place + 1] != [address]:
                shutil.rmtree(new)
                raise ValueError(f"page {place + 1} is {address}, but not so in the index: sort both alike")
            ends = zip(
                ("‹ before", "next ›"), (order[place - 1] if place else None, *order[place + 1 : place + 2])
            )
            links = "".join(f'<a href="{escape(to)}">{words}</a>' for words, to in ends if to)
            body = "".join(map(_section, sections))
            (new / address).write_text(_html(name, links, f"<p>{escape(first)}</p>{body}", title, book))
        for name, table in data.items():
            table.to_csv(new / f"{name}.csv", index=False, float_format="%.6g")
            table.to_parquet(new / f"{name}.parquet", index=False)
        body = f"<p>{escape(lead)}</p>{_downloads(data)}{_controls()}{_table((headers, rows), filters)}"
        (new / "index.html").write_text(
            _html(title, "", body, "", book, '<script defer src="atlas.js"></script>')
        )
        for name in _ASSETS:
            shutil.copyfile(_HERE / name, new / name)
        shutil.rmtree(folder, ignore_errors=True)
        new.replace(folder)
    return len(order)


def _html(title: str, links: str, body: str, index: str, book: str, script: str = "") -> str:
    to_index = f'<a href="index.html">{escape(index)}</a>' if index else ""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{escape(title)}</title><link rel="stylesheet" href="atlas.css">{script}</head><body>\n'
        f'<nav><a href="{escape(book)}">the book</a>{to_index}{links}</nav>\n'
        f"<main><h1>{escape(title)}</h1>{body}</main>\n</body></html>\n"
    )


def _section(section: Section) -> str:
    heading, note, parts = section
    body = "".join(part if isinstance(part, str) else _table(part) for part in parts)
    return f"<section><h2>{escape(heading)}</h2>{f'<p>{escape(note)}</p>' if note else ''}{body}</section>\n"


def _table(table: Table, filters: Sequence[str] | None = None) -> str:
    """HTML of a table; with `filters`, that of the index, whose script knows it by them."""
    headers, rows = table
    marks = [
        "" if filters is None else f' data-filter="{name}"' if name in filters else " data-sort"
        for name in headers
    ]
    head = "".join(f'<th scope="col"{mark}>{escape(name)}</th>' for name, mark in zip(headers, marks))
    body = "\n".join(f"<tr>{''.join(map(_cell, row))}</tr>" for row in rows)
    kind = "" if filters is None else ' id="index"'
    content = f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody>"
    return f'<div class="wide" tabindex="0"><table{kind}>{content}</table></div>'


def _cell(cell: Cell) -> str:
    value, link = cell if isinstance(cell, tuple) else (cell, "")
    truth, number = isinstance(value, (bool, np.bool)), isinstance(value, (int, float, np.number))
    words = str(value)
    if pd.isna(value):
        words = "–"
    elif truth:
        words = "yes" if value else "no"
    elif isinstance(value, (float, np.floating)):
        words = f"{value:.1e}" if 0 < abs(float(value)) < 5e-4 else f"{value:.3f}"
    text = escape(MINUS.sub("−", words))
    text = f'<a href="{escape(link)}">{text}</a>' if link else text
    return f"<td class=n>{text}</td>" if number and not truth else f"<td>{text}</td>"


def _downloads(data: Mapping[str, pd.DataFrame]) -> str:
    links = [
        f'{escape(name)}: <a href="{name}.csv">CSV</a>, <a href="{name}.parquet">Parquet</a>' for name in data
    ]
    return f"<p>{'; '.join(links)}</p>" if links else ""


def _controls() -> str:
    """What the script shows once it runs: without it there is nothing to search with."""
    search = '<label>search <input type="search" name="search"></label>'
    return f'<form id="filters" hidden>{search}</form><p id="count"></p>'
