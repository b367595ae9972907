"""What the book does to its pages beyond Sphinx: an extension, named in `_config.yml`.

Under every figure and table stands a line with how to cite it, its data and its code, all without a network.
Tables are numbered as tables. A page can repeat what another one says, and loads the libraries of charts and
formulas only if it has some.
"""

import hashlib
import json
import re
import shutil
import subprocess
from datetime import date
from functools import cache
from html import escape
from pathlib import Path

import yaml
from docutils import nodes
from sphinx.transforms import SphinxTransform

from sae_rna.build import FILES

_NAMES = {
    "csv": "data",
    "vl.json": "Vega-Lite",
    "notebooks": "page",
    "analysis": "numbers",
    "figures": "chart",
}
_LICENCE = '<a rel="license" href="https://creativecommons.org/licenses/by/4.0/">CC BY 4.0</a>'

#: A script of 1.5 MB that draws the font's icons again, and names for the ear that are not what is written.
_SURPLUS = re.compile(
    r'<script[^>]*/fontawesome\.js[^>]*></script>|(?<=<summary) aria-label="Toggle hidden content"'
    r'|(?<=search-button-field search-button__button pst-js-only" title="Search") aria-label="Search"'
)


class Table(nodes.figure):
    """A figure that is counted among the tables."""


class FigureLines(SphinxTransform):
    """Gives what was published, `fig-...` and `tab-...`, its line, and makes tables of the latter."""

    default_priority = 500  # before Sphinx lists what can be referred to by number

    def apply(self, **_):
        root, page = Path(self.app.srcdir).parent, self.env.docname
        title = next((node.astext() for node in self.document.findall(nodes.title)), page)
        for figure in list(self.document.findall(nodes.figure)):
            name = next((name for name in figure["ids"] if name[:4] in ("fig-", "tab-")), None)
            if name is None:
                continue
            figure += nodes.raw("", figure_line(root, page, title, name), format="html")
            if name.startswith("tab-"):
                table = Table("", *figure.children, **figure.attributes)
                figure.replace_self(table)
                self.document.ids |= dict.fromkeys(table["ids"], table)


def figure_line(root: Path, page: str, title: str, name: str) -> str:
    """HTML of the line under the figure `name` on a page of the book of the project in the folder `root`."""
    up = "../" * page.count("/")
    quotes = "".join(f'<div class="highlight"><pre>{escape(text)}</pre></div>'
                     for text in citation(root, page, title, name))  # fmt: skip
    data, *files = (f'<a href="{up}figures/{name}.{suffix}">{_NAMES.get(suffix, suffix.upper())}</a>'
                    for suffix in FILES[name[:3]])  # fmt: skip
    code = (f'<a href="{up}{published}" title="{path}">{_NAMES[path.parent.name]}</a>'
            for path, published in code_of(root, page).items())  # fmt: skip
    parts = [f"<details><summary>cite</summary>{quotes}</details>", data, f"code: {', '.join(code)}", *files]
    return f'<div class="figure-line">{"".join(f"<div>{part}</div>" for part in [*parts, _LICENCE])}</div>'


def citation(root: Path, page: str, title: str, name: str) -> tuple[str, str]:
    """How to cite a figure, as plain text and as BibTeX: without its number, which may change."""
    author, book, version, inputs = _about(root)
    digest = hashlib.sha256((root / f"book/public/figures/{name}.csv").read_bytes()).hexdigest()
    place, year = f"{page}.html#{name}", date.today().year
    note = f"Data: {name}.csv, SHA-256 {digest[:16]}{inputs}. CC BY 4.0"
    plain = f"{author} ({year}): {title}, {name}. In: {book}, {version}, {place}. {note}."
    fields = {"author": f"{{{author}}}", "title": f"{title}: {name}", "year": year, "version": version}
    fields |= {"howpublished": f"{book}, {place}", "note": note}
    body = "".join(f"  {key} = {{{value}}},\n" for key, value in fields.items())
    return plain, f"@misc{{sae-rna-{name},\n{body}}}"


@cache
def _about(root: Path) -> tuple[str, str, str, str]:
    """Author, title and version of the book, the commit in it, and the fingerprints of what the run read."""
    about = yaml.safe_load((root / "CITATION.cff").read_text())
    git = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    commit = subprocess.run(git, capture_output=True, text=True).stdout.strip() if shutil.which("git") else ""
    run = json.loads((root / "book/public/figures/run.json").read_text())
    inputs = "".join(f"; {kind} {of['hash']}" for kind, of in run["data"].items())
    inputs += f"; model {run['model']['fingerprint']}"
    version = f"version {about['version']}" + (f", commit {commit}" if commit else "")
    return about["authors"][0]["name"], about["title"], version, inputs


def code_of(root: Path, page: str) -> dict[Path, str]:
    """Notebook and modules of a page, by their path in the repository, and where the book has a copy."""
    name = page.rpartition("/")[2]
    module = name.partition("-")[2].replace("-", "_")
    paths = map(
        Path, (f"notebooks/{name}.ipynb", f"sae_rna/analysis/{module}.py", f"sae_rna/figures/{module}.py")
    )
    return {
        path: f"code/{path}{'.txt' if path.suffix == '.py' else ''}"
        for path in paths
        if (root / path).exists()
    }


def _offer_sentences(app, config):
    """What notebooks `say` under a name, other pages may repeat."""
    for notebook in Path(app.srcdir).glob("executed/*.ipynb"):
        for cell in json.loads(notebook.read_text())["cells"]:
            for output in cell.get("outputs", ()):
                if name := output.get("metadata", {}).get("sae_rna", {}).get("said"):
                    config.myst_substitutions[name] = "".join(output["data"]["text/markdown"])


def _choose_scripts(app, _page, _template, context, _doctree):
    body = context.get("body", "")
    if "vegaEmbed" in body:
        app.add_js_file("vendor/vega-bundle.js")  # blocking: charts find their library without a network
    if 'class="math' not in body:  # Sphinx asks the pages below it, too
        scripts = context.get("script_files", ())
        context["script_files"] = [
            script for script in scripts if app.config.mathjax_path not in str(script.filename)
        ]


def _finish(app, _error):
    """Copies the code that figures link to, and takes `_SURPLUS` out of the pages."""
    folder, root = Path(app.outdir), Path(app.srcdir).parent
    for page in app.env.found_docs if app.builder.name == "html" else ():
        for path, published in code_of(root, page).items():
            (folder / published).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, folder / published)
    for path in folder.rglob("*.html"):
        path.write_text(_SURPLUS.sub("", path.read_text()))


def setup(app) -> dict:
    """Called by Sphinx."""
    draw = (lambda writer, node: writer.visit_figure(node), lambda writer, node: writer.depart_figure(node))
    app.add_enumerable_node(Table, "table", html=draw)
    app.add_transform(FigureLines)
    app.connect("config-inited", _offer_sentences)
    app.connect("html-page-context", _choose_scripts, priority=900)
    app.connect("build-finished", _finish)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
