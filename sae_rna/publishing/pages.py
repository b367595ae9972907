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
from sae_rna.publishing import metadata
from sae_rna.publishing.metadata import LICENCE, Facts

_NAMES = {"csv": "data", "csv-metadata.json": "units", "vl.json": "Vega-Lite"}
_NAMES |= {"notebooks": "page", "analysis": "numbers", "figures": "chart"}
CITED = "cite"  # folder of addresses that stay: a figure's leads to the page where it stands today
_COLUMNS = "columns.yml"  # in the book's folder: what the columns of the figures' tables mean

#: A script of 1.5 MB that draws the font's icons again, and names for the ear that are not what is written.
_SURPLUS = re.compile(
    r'<script[^>]*/fontawesome\.js[^>]*></script>|(?<=<summary) aria-label="Toggle hidden content"'
    r'|(?<=search-button-field search-button__button pst-js-only" title="Search") aria-label="Search"'
)
#: The theme's list of pages, and the same with what says to a screen reader that it is one.
_SIDEBAR = (
    '<div id="pst-primary-sidebar" class',
    ('<div id="pst-primary-sidebar" role="complementary" aria-label="Pages of the book" class'),
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
            facts, bibtex = citation(root, title, name)
            figure += nodes.raw("", figure_line(root, page, name, facts.description, bibtex), format="html")
            self.app.sae_rna_figures[name] = page, facts
            if name.startswith("tab-"):
                table = Table("", *figure.children, **figure.attributes)
                figure.replace_self(table)
                self.document.ids |= dict.fromkeys(table["ids"], table)


def figure_line(root: Path, page: str, name: str, *quotes: str) -> str:
    """HTML of the line under the figure `name` on a page of the book of the project in the folder `root`."""
    up = "../" * page.count("/")
    boxes = "".join(f'<div class="highlight"><pre>{escape(text)}</pre></div>' for text in quotes)
    data, *files = (f'<a href="{up}figures/{name}.{suffix}">{_NAMES.get(suffix, suffix.upper())}</a>'
                    for suffix in ("csv", "csv-metadata.json", *FILES[name[:3]][1:]))  # fmt: skip
    units, *files = files
    code = (f'<a href="{up}{published}" title="{path}">{_NAMES[path.parent.name]}</a>'
            for path, published in code_of(root, page).items())  # fmt: skip
    licence = f'<a rel="license" href="{LICENCE}">CC BY 4.0</a>'
    cite = f"<details><summary>cite</summary>{boxes}</details>"
    parts = [cite, f"{data} ({units})", f"code: {', '.join(code)}", *files, licence]
    return f'<div class="figure-line">{"".join(f"<div>{part}</div>" for part in parts)}</div>'


def citation(root: Path, title: str, name: str) -> tuple[Facts, str]:
    """What is said of a figure on a page, and its entry in BibTeX: both by an address that stays."""
    author, book, version, inputs = _about(root)
    digest = hashlib.sha256((root / f"book/public/figures/{name}.csv").read_bytes()).hexdigest()
    place, year = f"{CITED}/{name}.html", date.today().year
    data = f"{name}.csv, SHA-256 {digest[:16]}{inputs}"
    note, whole = f"Data: {data}. CC BY 4.0", f"{title}: {name}"
    plain = f"{author} ({year}): {whole}. In: {book}, {version}, {place}. {note}."
    fields = {"author": f"{{{author}}}", "title": whole, "year": year, "version": version}
    fields |= {"howpublished": f"{book}, {place}", "note": note}
    body = "".join(f"  {key} = {{{value}}},\n" for key, value in fields.items())
    return Facts(whole, author, place, data, plain), f"@misc{{sae-rna-{name},\n{body}}}"


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
    files = f"notebooks/{name}.ipynb", f"sae_rna/analysis/{module}.py", f"sae_rna/figures/{module}.py"
    copies = {Path(file): f"code/{file}{'.txt' if file.endswith('.py') else ''}" for file in files}
    return {path: copy for path, copy in copies.items() if (root / path).exists()}


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
        scripts, mathjax = context.get("script_files", ()), app.config.mathjax_path
        context["script_files"] = [script for script in scripts if mathjax not in str(script.filename)]


def _finish(app, error):
    """Copies the code that figures link to, has them say what they are, and takes `_SURPLUS` away."""
    folder, root = Path(app.outdir), Path(app.srcdir).parent
    for page in app.env.found_docs if app.builder.name == "html" else ():
        for path, published in code_of(root, page).items():
            (folder / published).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(root / path, folder / published)
    for path in set(folder.rglob("*.html")) - set((folder / "atlas").rglob("*.html")):
        path.write_text(_SURPLUS.sub("", path.read_text()).replace(*_SIDEBAR))
    if app.builder.name == "html" and not error:
        _describe(app.sae_rna_figures, folder, Path(app.srcdir) / _COLUMNS)


def _describe(figures: dict, folder: Path, columns: Path):
    """Write each figure's facts into its files and a page at its address."""
    known = yaml.safe_load(columns.read_text())
    (folder / CITED).mkdir(exist_ok=True)
    for name, (page, facts) in figures.items():
        metadata.write(folder / "figures", name, facts, known)
        (folder / facts.address).write_text(metadata.redirect(f"../{page}.html#{name}"))


def setup(app) -> dict:
    """Called by Sphinx."""
    app.sae_rna_figures = {}  # page and facts of every figure, as the pages are read
    draw = (lambda writer, node: writer.visit_figure(node), lambda writer, node: writer.depart_figure(node))
    app.add_enumerable_node(Table, "table", html=draw)
    app.add_transform(FigureLines)
    app.connect("config-inited", _offer_sentences)
    app.connect("html-page-context", _choose_scripts, priority=900)
    app.connect("build-finished", _finish)
    return {"parallel_write_safe": True}
