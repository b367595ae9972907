"""From the last line of a figure's cell to its static files and to what the cell shows."""

import html
import json
import math
import os
import re
from pathlib import Path

import altair as alt
import numpy as np
import pandas as pd
import vl_convert
from IPython.display import Markdown, display

from sae_rna.files import write_atomically
from sae_rna.publishing.captions import filled
from sae_rna.publishing.tables import table_html
from sae_rna.publishing.vega import VEGALITE

#: Environment variable with the folder of the static files (else `figures`); `execute` sets it.
FIGURES = "SAE_RNA_FIGURES"
#: A mark that is there for its tooltip alone, as Vega draws it: thousands of them make a picture of 3 MB.
_UNSEEN = re.compile(r'<[a-z]+ [^>]*\sopacity="0"[^>]*/>')
#: What vl-convert puts before an address relative to the page.
_BASE = "https://vega.github.io/vega-datasets/"
_ID = re.compile(r"(fig|tab)(-[a-z0-9]+)+")


def publish(
    figure_id: str,
    content: alt.TopLevelMixin | pd.DataFrame,
    table: pd.DataFrame | None = None,
    *,
    caption: str = "",
    alt: str = "",
    **numbers,
):
    """Write a figure's or table's static files and display it, its caption below.

    A chart is written as `<id>.svg .png .pdf .vl.json` with its `table` as `<id>.csv`; a table as `<id>.html`
    and, or the `table` of which it shows a part, as `<id>.csv`. Displayed is interactive HTML, with a PNG for
    readers without JavaScript, or an HTML table. `caption` (Markdown) and `alt` (what the picture shows, for
    those who cannot see it) have placeholders like `{rnas}` or `{f1:.2f}` for the `numbers`; `fill_captions`
    puts both into the book.

    Raises, before anything is written, ValueError for an id that is not like fig-name or tab-name, a chart
    without table and a number that is NaN, NotebookError for a caption that cannot be filled (`filled`).
    """
    if not _ID.fullmatch(figure_id):
        remedy = "use fig- or tab- and lower-case words joined by hyphens, like fig-training"
        raise ValueError(f"{figure_id!r} is no figure id: {remedy}")
    numbers = {name: _plain(value, figure_id, name) for name, value in numbers.items()}
    caption, alt = filled(caption, numbers, figure_id), filled(alt, numbers, figure_id, markdown=False)
    metadata: dict = {"sae_rna": dict(figure=figure_id, caption=caption, alt=alt)}
    if isinstance(content, pd.DataFrame):
        fragment, head = table_html(content), f'<meta charset="utf-8">\n<title>{figure_id}</title>'
        bundle = {"text/html": fragment, "text/plain": content.to_string(index=False, max_rows=60)}
        whole = content if table is None else table
        files = {"csv": whole.to_csv(index=False), "html": f"<!DOCTYPE html>\n{head}\n{fragment}\n"}
    elif table is None:
        raise ValueError(f"{figure_id}: a chart is published together with its tidy table")
    else:
        bundle, files = _show_chart(content, figure_id)
        files["csv"] = table.to_csv(index=False)
        # Width and height stand in the PNG's header, at thrice the size that is shown.
        sides = (int.from_bytes(bundle["image/png"][start : start + 4]) // 3 for start in (16, 20))
        metadata["image/png"] = dict(zip(("width", "height"), sides))
    folder = Path(os.environ.get(FIGURES) or "figures")
    for suffix, file in files.items():
        write_atomically(folder / f"{figure_id}.{suffix}", file)
    display(bundle, raw=True, metadata=metadata)
    if caption:
        below = {"text/markdown": caption, "text/plain": html.unescape(caption)}
        display(below, raw=True, metadata={"sae_rna": {"caption_of": figure_id}})


def say(sentence: str, repeated_as: str = "", **numbers):
    """Display a sentence (Markdown), its placeholders filled, or refused, as in captions of `publish`.

    Any page of the book can repeat it, by `{{ name }}` with the name `repeated_as`.
    """
    numbers = {name: _plain(value, "say", name) for name, value in numbers.items()}
    metadata = {"sae_rna": {"said": repeated_as}} if repeated_as else None
    display(Markdown(filled(sentence, numbers, "say")), metadata=metadata)


def _show_chart(chart: alt.TopLevelMixin, figure_id: str) -> tuple[dict, dict]:
    """A chart's output by media type and its files by suffix."""
    spec = chart.to_dict()
    words = spec.get("description", figure_id)
    svg = chart_svg(spec, words)
    png, pdf = vl_convert.svg_to_png(svg, ppi=3 * 72), vl_convert.svg_to_pdf(svg)  # drawn once
    picture = f'<noscript><img src="../figures/{figure_id}.svg" alt="{html.escape(words)}"></noscript>'
    drawn = f'<div class="sae-rna-scroll" tabindex="0">{chart_html(chart, figure_id)}\n{picture}</div>'
    bundle = {"text/html": drawn, "image/png": png, "text/plain": words}
    return bundle, {"svg": svg, "png": png, "pdf": pdf, "vl.json": json.dumps(spec, indent=1)}


def chart_svg(spec: dict, words: str) -> str:
    """A chart's picture, with what a screen reader says of it: vl-convert leaves the description out."""
    svg = _UNSEEN.sub("", vl_convert.vegalite_to_svg(spec, vl_version=VEGALITE)).replace(_BASE, "")
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(words)}" ', 1)


def _plain(value, figure_id: str, name: str):
    """`value` as JSON knows it, NumPy's scalars as Python's. ValueError for NaN and for other objects."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, (str, int, float)):
        kind = type(value).__name__
        raise ValueError(f"{figure_id}: {name} is a {kind}; a caption takes numbers and strings")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{figure_id}: {name} is {value}, which no caption should say")
    return value


class _ScriptSafe(json.JSONEncoder):
    """JSON for use inside <script>: no string of it can end the script or open a comment."""

    def encode(self, value) -> str:
        encoded = super().encode(value)
        for character in "<>&\u2028\u2029":
            encoded = encoded.replace(character, f"\\u{ord(character):04x}")
        return encoded


def chart_html(chart: alt.TopLevelMixin, figure_id: str) -> str:
    """HTML that draws `chart`: Altair's template, which loads nothing where `write_vega_bundle`'s file is."""
    # SVG stays sharp and can be searched; no menu, since every caption links to the same files.
    options = {"embed_options": {"renderer": "svg", "actions": False}, "json_kwds": {"cls": _ScriptSafe}}
    return chart.to_html(fullhtml=False, template="universal", output_div=f"{figure_id}-chart", **options)
