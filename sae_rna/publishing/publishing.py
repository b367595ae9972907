"""From a chart or a table to a page of the book, without a network.

`publish` is the last line of a figure's cell: it writes the static files and displays one output. `execute` runs a notebook
and fills the numbers into its captions. `write_vega_bundle` builds the JavaScript that the pages' charts need.
"""

import ast
import difflib
import html
import json
import math
import os
import re
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import altair as alt
import nbformat
import numpy as np
import pandas as pd
import vl_convert
from IPython.display import display

#: Environment variable with the folder of the static files; `execute` sets it for the notebook.
FIGURES = "SAE_RNA_FIGURES"
#: Version of Vega-Lite that vl-convert and the book's bundle have to speak, Altair's own: "6.4".
_VEGALITE = ".".join(alt.VEGALITE_VERSION.split(".")[:2])
#: SVG stays sharp and can be searched; no menu, since every caption links to the same files.
_EMBED = {"renderer": "svg", "actions": False}
_ID = re.compile(r"(fig|tab)(-[a-z0-9]+)+")
_CHART_FILES, _TABLE_FILES = ("svg", "png", "pdf", "csv", "vl.json"), ("csv", "html")
#: Numbers that are names and get no thousands separators.
_IDENTIFIERS = {"feature", "layer", "seed"}
_PROGRESS = "{desc}: cell {n_fmt} of {total_fmt}, {elapsed}"
_PLACEHOLDER = re.compile(r"\{([A-Za-z_]\w*)(?::([^{}]*))?\}")


class NotebookError(RuntimeError):
    """A notebook that could not be executed or whose captions could not be filled."""


def write_atomically(path: Path, content: str | bytes):
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part of it."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


# ---------------------------------------------------------------- figures and tables


def figure_folder() -> Path:
    """Where static files go: the folder in the environment variable `SAE_RNA_FIGURES`, else `figures` in the current folder."""
    return Path(os.environ.get(FIGURES) or "figures")


def publish(
    figure_id: str, content: alt.TopLevelMixin | pd.DataFrame, table: pd.DataFrame | None = None, **numbers
):
    """Write a figure's or table's static files and display it.

    A chart is written as `<id>.svg .png .pdf .vl.json` with its `table` as `<id>.csv`; a table as `<id>.csv` and `<id>.html`.
    One output is displayed: interactive HTML with a PNG for readers without JavaScript, or an HTML table. `numbers` travel in
    its metadata and fill the placeholders of the cell's caption (`fill_captions`).

    Raises ValueError for an id that is not like fig-name or tab-name, a chart without table, and a number that is NaN.
    """
    if not _ID.fullmatch(figure_id):
        raise ValueError(
            f"{figure_id!r} is no figure id: use fig- or tab- and lower-case words joined by hyphens, like fig-training"
        )
    numbers = {name: _plain(value, figure_id, name) for name, value in numbers.items()}
    folder = figure_folder()
    metadata: dict = {"sae_rna": {"figure": figure_id, "numbers": numbers}}
    if isinstance(content, pd.DataFrame):
        fragment = table_html(content)
        write_atomically(folder / f"{figure_id}.csv", content.to_csv(index=False))
        write_atomically(
            folder / f"{figure_id}.html",
            f'<!DOCTYPE html>\n<meta charset="utf-8">\n<title>{figure_id}</title>\n{fragment}\n',
        )
        bundle = {"text/html": fragment, "text/plain": content.to_string(index=False, max_rows=60)}
    else:
        if table is None:
            raise ValueError(f"{figure_id}: a chart is published together with its tidy table")
        spec = content.to_dict()
        png = vl_convert.vegalite_to_png(spec, vl_version=_VEGALITE, scale=2)
        files = {
            "svg": _described(
                vl_convert.vegalite_to_svg(spec, vl_version=_VEGALITE), spec.get("description", figure_id)
            ),
            "png": png,
            "pdf": vl_convert.vegalite_to_pdf(spec, vl_version=_VEGALITE),
            "vl.json": json.dumps(spec, indent=1),
            "csv": table.to_csv(index=False),
        }
        for suffix, file in files.items():
            write_atomically(folder / f"{figure_id}.{suffix}", file)
        bundle = {
            "text/html": chart_html(content, figure_id),
            "image/png": png,
            "text/plain": spec.get("description", figure_id),
        }
        metadata["image/png"] = dict(zip(("width", "height"), _png_size(png, scale=2)))
    display(bundle, raw=True, metadata=metadata)


def _plain(value, figure_id: str, name: str):
    """`value` as JSON knows it: NumPy scalars become Python's, strings stay, NaN and other objects are refused."""
    value = value.item() if isinstance(value, np.generic) else value
    if not isinstance(value, (str, int, float)):
        raise ValueError(
            f"{figure_id}: {name} is a {type(value).__name__}; a caption takes numbers and strings"
        )
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{figure_id}: {name} is {value}, which no caption should say")
    return value


def _described(svg: str, description: str) -> str:
    """vl-convert leaves a chart's description out of the picture; a screen reader needs it there too."""
    return svg.replace("<svg ", f'<svg role="img" aria-label="{html.escape(description)}" ', 1)


def _png_size(png: bytes, scale: int) -> tuple[int, int]:
    return tuple(
        int.from_bytes(png[start : start + 4]) // scale for start in (16, 20)
    )  # width and height stand in IHDR


class _ScriptSafe(json.JSONEncoder):
    """JSON for use inside <script>: no string of it can end the script or open a comment."""

    def encode(self, value) -> str:
        encoded = super().encode(value)
        for character in "<>&\u2028\u2029":
            encoded = encoded.replace(character, f"\\u{ord(character):04x}")
        return encoded


def chart_html(chart: alt.TopLevelMixin, figure_id: str) -> str:
    """HTML fragment that draws `chart`: Altair's stock template, which loads nothing where `write_vega_bundle`'s file is."""
    return chart.to_html(
        fullhtml=False,
        template="universal",
        output_div=f"{figure_id}-chart",
        embed_options=dict(_EMBED),
        json_kwds={"cls": _ScriptSafe},
    )


def table_html(table: pd.DataFrame) -> str:
    """HTML table without index: everything escaped, numbers to the right with thousands separators, missing values as a dash.

    Floats of one column share their number of decimals: none where all are whole, three below 10, one below 1,000, none
    above; columns that reach below 0.001 are written with three significant digits.
    """
    numeric = [
        pd.api.types.is_numeric_dtype(table[column]) and not pd.api.types.is_bool_dtype(table[column])
        for column in table
    ]
    align = ["right" if number else "left" for number in numeric]
    columns = [_cells(table[column]) for column in table]
    cell = '<{tag} style="text-align: {align}">{text}</{tag}>'.format
    head = "".join(
        cell(tag="th", align=a, text=html.escape(str(column))) for column, a in zip(table.columns, align)
    )
    rows = [
        "".join(cell(tag="td", align=a, text=html.escape(text)) for text, a in zip(row, align))
        for row in zip(*columns)
    ]
    body = "\n".join(f"<tr>{row}</tr>" for row in rows)
    content = f"<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>"
    return f'<div style="overflow-x: auto">\n<table class="sae-rna-table">\n{content}\n</table>\n</div>'


def _cells(column: pd.Series) -> list[str]:
    """A column as text."""
    style = None
    if pd.api.types.is_float_dtype(column):
        size = column.abs().replace(np.inf, np.nan).dropna()
        top, least = size.max(), size[size > 0].min()  # NaN, and no comparison holds, where there are none
        style = (
            ",.0f"
            if (size % 1 == 0).all()
            else ",.3g"
            if least < 1e-3
            else ",.3f"
            if top < 10
            else ",.1f"
            if top < 1000
            else ",.0f"
        )
        style = style.replace(",", "") if column.name in _IDENTIFIERS else style
    return [
        "–" if missing else _text(value, str(column.name), style)
        for value, missing in zip(column, column.isna())
    ]


def _text(value, name: str, style: str | None) -> str:
    """One value of a table or a caption: `style` is Python's format, by default thousands separators and three significant digits."""
    if isinstance(value, (bool, np.bool)):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return format(value, style or ("d" if name in _IDENTIFIERS else ",d"))
    if isinstance(value, (float, np.floating)):
        return format(value, style or ",.3g")
    return str(value)


# ---------------------------------------------------------------- captions


def fill_captions(notebook: nbformat.NotebookNode, links: str = "../figures") -> nbformat.NotebookNode:
    """`notebook` with numbers in the captions and alternative texts of its figures, and links to their files. In place.

    A cell whose metadata has mystnb.figure {name, caption} must have published exactly one figure of that name. Each
    `{number}` or `{number:format}` in the caption and in mystnb.image.alt is replaced by the number that `publish` was given:
    integers get thousands separators (but a feature, layer or seed is a name), other numbers three significant digits, unless
    a format (Python's) says otherwise.
    `links` is the address of the static files as seen from the page.

    Raises NotebookError naming the figure where a number is missing, a brace is left or the figure was not published.
    """
    for cell in notebook.cells:
        options = cell.get("metadata", {}).get("mystnb", {})
        figure = options.get("figure")
        if cell.cell_type != "code" or not figure:
            continue
        name = figure.get("name", "without a name")
        published = [
            o.metadata["sae_rna"] for o in cell.get("outputs", []) if "sae_rna" in o.get("metadata", {})
        ]
        names = [record["figure"] for record in published]
        if names != [name]:
            found = f"published {', '.join(names)}" if names else "published nothing"
            raise NotebookError(f"figure {name}: its cell {found}; it must end with publish({name!r}, ...)")
        numbers = published[0]["numbers"]
        caption = _filled(str(figure.get("caption", "")), numbers, name, markdown=True)
        figure["caption"] = f"{caption.rstrip()} {_file_links(name, links)}"
        if "alt" in options.get("image", {}):
            options["image"]["alt"] = _filled(str(options["image"]["alt"]), numbers, name, markdown=False)
    return notebook


def _filled(text: str, numbers: Mapping, figure: str, markdown: bool) -> str:
    def write(match: re.Match) -> str:
        name, style = match.groups()
        if name not in numbers:
            raise NotebookError(
                f"figure {figure}: its caption asks for {{{name}}}, publish was given {', '.join(numbers) or 'no numbers'}"
            )
        value = numbers[name]
        try:
            text = _text(value, name, style)
        except ValueError as error:
            raise NotebookError(f"figure {figure}: {{{name}:{style}}} in its caption: {error}") from None
        return _escaped(text) if markdown and isinstance(value, str) else text

    rest = _PLACEHOLDER.sub("", text)
    if "{" in rest or "}" in rest:
        raise NotebookError(
            f"figure {figure}: a brace in its caption belongs to no placeholder like {{n_tokens}}: {text!r}"
        )
    return _PLACEHOLDER.sub(write, text)


def _escaped(text: str) -> str:
    """`text` from data as harmless Markdown: entities for HTML's characters and for those that start Markdown or MyST syntax."""
    return re.sub(r"[\\`*_\[\]{}<>&\"'$|#!~^%@:]", lambda match: f"&#{ord(match[0])};", text)


def _file_links(figure_id: str, links: str) -> str:
    # HTML, since Sphinx takes a Markdown link for a reference to a page and complains that there is none.
    suffixes = _TABLE_FILES if figure_id.startswith("tab-") else _CHART_FILES
    names = {"vl.json": "Vega-Lite", "csv": "data (CSV)"}
    anchors = [
        f'<a href="{html.escape(f"{links}/{figure_id}.{s}")}">{names.get(s, s.upper())}</a>' for s in suffixes
    ]
    return f'<span class="figure-files">Files: {", ".join(anchors)}.</span>'


# ---------------------------------------------------------------- execution


def parameter_names(notebook: nbformat.NotebookNode) -> list[str]:
    """Names assigned in the notebook's cell tagged `parameters`; none if there is no such cell."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.get("metadata", {}).get("tags", [])]
    statements = ast.parse(cells[0].source).body if cells else []
    targets = [
        t
        for s in statements
        for t in (s.targets if isinstance(s, ast.Assign) else [getattr(s, "target", None)])
    ]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def execute(
    notebook: Path,
    output: Path,
    parameters: Mapping,
    figures: Path,
    links: str = "../figures",
    failures: Path = Path("runs/failed"),
):
    """Run a notebook and put it, captions filled, at `output`. It runs in the current folder, the root of the repository.

    Parameters: `parameters` replace values of the notebook's parameter cell; `figures` receives the static files, `links` is
    their address as seen from the page; `failures` receives a copy that failed, as `<name>.failed.ipynb`, and lies outside
    the book. Progress goes to standard error.

    Raises ValueError for a parameter that the notebook does not have, and NotebookError naming notebook, cell and error when
    it fails; then `output` and the static files stay what they were.
    """
    notebook, output = Path(notebook), Path(output)
    source = nbformat.read(notebook, as_version=4)
    _check_parameters(notebook, parameter_names(source), parameters)
    failed = Path(failures) / f"{output.stem}.failed.ipynb"
    from papermill import execute_notebook  # pulls in half of Jupyter
    from papermill.exceptions import PapermillExecutionError

    with tempfile.TemporaryDirectory() as scratch:
        copy, published = Path(scratch) / output.name, Path(scratch) / "figures"
        try:
            with _environment(FIGURES, str(published)):
                execute_notebook(
                    notebook,
                    copy,
                    dict(parameters),
                    cwd=os.getcwd(),
                    kernel_name="python3",
                    language="python",
                    extra_arguments=[
                        "--IPKernelApp.log_level=50"
                    ],  # the kernel's own remarks, not the notebook's
                    autosave_cell_every=0,
                    progress_bar={"desc": notebook.stem, "file": sys.stderr, "bar_format": _PROGRESS},
                )
            finished = nbformat.read(copy, as_version=4)
            fill_captions(finished, links)
        except (
            Exception
        ) as error:  # whatever stopped it, the old page stays and the reader learns where to look
            if isinstance(error, PapermillExecutionError):
                reason = f"cell [{error.exec_count}] failed with {error.ename}: {error.evalue}"
            else:
                reason = str(error).strip() or type(error).__name__
            if copy.exists():
                write_atomically(failed, copy.read_bytes())
                reason += f" (the copy with its traceback is {failed})"
            expected = isinstance(error, (PapermillExecutionError, NotebookError))
            raise NotebookError(f"{notebook}: {reason}") from (None if expected else error)
        # Papermill notes where it read and wrote; those paths are this machine's business.
        for key in ("input_path", "output_path"):
            finished.metadata.get("papermill", {}).pop(key, None)
        for file in sorted(published.glob("*")):
            write_atomically(Path(figures) / file.name, file.read_bytes())
        write_atomically(output, nbformat.writes(finished) + "\n")
    failed.unlink(missing_ok=True)


def _check_parameters(notebook: Path, known: list[str], given: Mapping):
    for name in given:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"it has {', '.join(known)}"
                if known
                else "it has no cell tagged parameters"
            )
            raise ValueError(f"{notebook}: there is no parameter {name!r}; {hint}")


@contextmanager
def _environment(name: str, value: str) -> Iterator[None]:
    """The kernel inherits our environment, papermill offers no other way to it."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        os.environ.pop(name) if before is None else os.environ.__setitem__(name, before)


# ---------------------------------------------------------------- JavaScript


def vega_bundle() -> str:
    """Vega, Vega-Lite and Vega-Embed as one script that tells Altair's HTML that they are there already.

    Altair's template looks for its own versions in `window.VEGA_DEBUG` and loads nothing when they match. Raises RuntimeError
    when vl-convert carries other versions than Altair asks for: then their pins have to be moved together.
    """
    carried = {"vega": vl_convert.get_vega_version(), "vega-embed": vl_convert.get_vega_embed_version()}
    asked = {"vega": alt.VEGA_VERSION, "vega-embed": alt.VEGAEMBED_VERSION}
    for library, version in asked.items():
        if not f"{carried[library]}.".startswith(f"{version}."):
            raise RuntimeError(
                f"Altair {alt.__version__} asks for {library} {version}, vl-convert carries {carried[library]}: move their pins together"
            )
    if _VEGALITE not in vl_convert.get_vegalite_versions():
        raise RuntimeError(
            f"Altair {alt.__version__} asks for vega-lite {_VEGALITE}, vl-convert carries none of it: move their pins together"
        )
    versions = {
        "vega_version": alt.VEGA_VERSION,
        "vegalite_version": alt.VEGALITE_VERSION,
        "vegaembed_version": alt.VEGAEMBED_VERSION,
    }
    # The function keeps the libraries' thousands of short names away from the page.
    return f"(function () {{\n{vl_convert.javascript_bundle(vl_version=_VEGALITE)}\n}})();\nwindow.VEGA_DEBUG = {json.dumps(versions)};\n"


def write_vega_bundle(path: Path):
    """Write `vega_bundle` to `path`, atomically."""
    write_atomically(path, vega_bundle())
