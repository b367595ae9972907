"""Captions with the numbers of the run in them."""

import re
from collections.abc import Mapping

import nbformat

from sae_rna.publishing.tables import MINUS, written

#: What means something in HTML, Markdown or MyST.
_SPECIAL = re.compile(r"[\\`*_\[\]{}<>&\"'$|#!~^%@:]")
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
            words = MINUS.sub("−", written(numbers[name], name, style))
        except ValueError as error:
            raise NotebookError(f"{place} has {{{name}:{style}}}: {error}") from None
        if markdown and isinstance(numbers[name], str):
            words = _SPECIAL.sub(lambda special: f"&#{ord(special[0])};", words)
        return words

    place = f"figure {figure}: its caption"
    if re.search("[{}]", _PLACEHOLDER.sub("", text)):
        raise NotebookError(f"{place} has a brace that belongs to no placeholder like {{n_rnas}}: {text!r}")
    return _PLACEHOLDER.sub(number, text)


def fill_captions(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """`notebook` with its figures captioned as the book wants them. In place.

    A cell that published a figure with a caption gets the metadata mystnb.figure {name, caption} and
    mystnb.image {alt}; the caption displayed below the figure goes.
    Raises NotebookError where a cell published more than one figure.
    """
    for cell in notebook.cells:
        records = [output.get("metadata", {}).get("sae_rna", {}) for output in cell.get("outputs", ())]
        published = [record for record in records if "figure" in record]
        if not any(record["caption"] for record in published):
            continue
        name, alt = published[0]["figure"], published[0]["alt"]
        if len(published) > 1:
            found = ", ".join(record["figure"] for record in published)
            raise NotebookError(f"figure {name}: its cell published {found}; a cell can publish one figure")
        options = cell.metadata.get("mystnb", {})
        figure = {"name": name, "caption": published[0]["caption"].rstrip()}
        options["figure"] = options.get("figure", {}) | figure
        if alt:
            options["image"] = options.get("image", {}) | {"alt": alt}
        cell.metadata["mystnb"] = options
        cell.outputs = [output for output, record in zip(cell.outputs, records) if "caption_of" not in record]
    return notebook
