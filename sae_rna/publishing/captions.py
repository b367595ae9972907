"""Captions with the numbers of the run in them."""

import html
import re
from collections.abc import Mapping

import nbformat

from sae_rna.publishing.tables import written

#: What is written of a chart and of a table, `<id>.<suffix>` each.
CHART_FILES, TABLE_FILES = ("svg", "png", "pdf", "csv", "vl.json"), ("csv", "html")
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)(?::([^{}]*))?\}")


class NotebookError(RuntimeError):
    """A notebook that could not be executed or whose captions could not be filled."""


def filled(text: str, numbers: Mapping, figure: str, markdown: bool = True) -> str:
    """`text` with a number for each `{name}` or `{name:format}`, written as in `tables.written`.

    In Markdown a string among the numbers stays text, whatever it holds. Raises NotebookError naming the
    figure where a number is missing or a brace is left.
    """

    def number(match: re.Match) -> str:
        name, style = match.groups()
        if name not in numbers:
            given = ", ".join(numbers) or "no numbers"
            raise NotebookError(f"{place} asks for {{{name}}}, publish was given {given}")
        try:
            words = written(numbers[name], name, style)
        except ValueError as error:
            raise NotebookError(f"{place} has {{{name}:{style}}}: {error}") from None
        return _escaped(words) if markdown and isinstance(numbers[name], str) else words

    place = f"figure {figure}: its caption"
    if re.search("[{}]", _PLACEHOLDER.sub("", text)):
        raise NotebookError(f"{place} has a brace that belongs to no placeholder like {{n_rnas}}: {text!r}")
    return _PLACEHOLDER.sub(number, text)


def fill_captions(notebook: nbformat.NotebookNode, links: str = "../figures") -> nbformat.NotebookNode:
    """`notebook` with its figures numbered and captioned as the book wants them. In place.

    A cell that published a figure with a caption gets the metadata mystnb.figure {name, caption} and
    mystnb.image {alt}, with links to the figure's files, whose address as seen from the page is `links`; the
    caption displayed below the figure goes. A caption may also stand in the cell's metadata, as mystnb.figure
    {name, caption}.

    Raises NotebookError naming the figure where a caption cannot be filled (`filled`), and where a cell
    published more than one figure or another one than its metadata says.
    """
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        records = [output.get("metadata", {}).get("sae_rna", {}) for output in cell.outputs]
        published = [record for record in records if "figure" in record]
        options = cell.metadata.get("mystnb", {})
        declared, image = options.get("figure", {}), options.get("image", {})
        if not declared and not any(record.get("caption") for record in published):
            continue
        names = [record["figure"] for record in published]
        name = declared.get("name") or next(iter(names), "without a name")
        if names != [name]:
            found = f"published {', '.join(names)}" if names else "published nothing"
            raise NotebookError(f"figure {name}: its cell {found}; it must end with publish({name!r}, ...)")
        record, numbers = published[0], published[0]["numbers"]
        caption = filled(record.get("caption") or declared.get("caption", ""), numbers, name).rstrip()
        figure = declared | {"name": name, "caption": f"{caption} {_file_links(name, links)}"}
        alt = filled(record.get("alt") or image.get("alt", ""), numbers, name, markdown=False)
        image = {"image": image | {"alt": alt}} if alt else {}
        cell.metadata["mystnb"] = options | {"figure": figure} | image
        cell.outputs = [output for output, record in zip(cell.outputs, records) if "caption_of" not in record]
    return notebook


def _escaped(text: str) -> str:
    """`text` as harmless Markdown: entities for what means something in HTML, Markdown or MyST."""
    return re.sub(r"[\\`*_\[\]{}<>&\"'$|#!~^%@:]", lambda match: f"&#{ord(match[0])};", text)


def _file_links(figure_id: str, links: str) -> str:
    # HTML, since Sphinx takes a Markdown link for a reference to a page and complains that there is none.
    names = {"vl.json": "Vega-Lite", "csv": "data (CSV)"}
    anchors = [
        f'<a href="{html.escape(f"{links}/{figure_id}.{suffix}")}">{names.get(suffix, suffix.upper())}</a>'
        for suffix in (TABLE_FILES if figure_id.startswith("tab-") else CHART_FILES)
    ]
    return f'<span class="figure-files">Files: {", ".join(anchors)}.</span>'
