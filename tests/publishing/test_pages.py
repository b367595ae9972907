"""The line under each figure, tables that are counted as tables, and what a page loads."""

import hashlib
import json
import re
from html import unescape
from pathlib import Path

import pytest
from sphinx.application import Sphinx

CSV = b"layer,score\n1,0.5\n"
PAGE = """# Layers <and> more

```{{figure}} x.png
:name: fig-depth
How deep.
```
```{{figure}} x.png
:name: tab-depth
The numbers.
```

As {{numref}}`tab-depth` and {{numref}}`fig-depth` say. {more}
"""


SAID = {
    "cells": [
        {
            "outputs": [
                {
                    "metadata": {"sae_rna": {"said": "found"}},
                    "data": {"text/markdown": ["- **Stems:** 0.7\n", "- Loops: 50&#37;"]},
                }
            ]
        }
    ]
}


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """A small book of three pages: with a chart, with a formula, with neither."""
    root = tmp_path_factory.mktemp("project")
    files = {
        "CITATION.cff": 'title: "The book"\nversion: 1.2.3\nauthors:\n  - name: "A & B"\n',
        "book/conf.py": "extensions = ['myst_parser', 'sphinx.ext.mathjax', 'sae_rna.publishing.pages']\n"
        "numfig, mathjax_path, suppress_warnings = True, 'math.js', ['image.not_readable']\n"
        "myst_enable_extensions = ['dollarmath', 'substitution']\n",
        "book/index.md": "# First\n\n```{toctree}\nexecuted/05-depth\nformula\n```\n\n{{ found }}\n",
        "book/executed/said.ipynb": json.dumps(SAID),
        "book/executed/05-depth.md": PAGE.format(more="<script>vegaEmbed()</script>"),
        "book/formula.md": "# Formula\n\n$x$\n",
        "book/columns.yml": "all: {layer: ['', which block], score: [nats, how good]}\n",
        "notebooks/05-depth.ipynb": "{}",
        "sae_rna/analysis/depth.py": "# <numbers>\n",
        "book/public/figures/run.json": json.dumps(
            {"data": {"structures": {"hash": "abc"}}, "model": {"fingerprint": "def"}}
        ),
    }
    for name in ("fig", "tab"):
        files[f"book/public/figures/{name}-depth.csv"] = CSV.decode()
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    source, out, settings = str(root / "book"), root / "html", {"html_extra_path": ["public"]}
    Sphinx(source, source, str(out), str(root / "trees"), "html", settings, status=None, warning=None).build()
    return out


def line(book: Path, name: str) -> str:
    page = (book / "executed/05-depth.html").read_text()
    return re.search(rf'id="{name}".*?(<div class="figure-line">.*?)</figure>', page, re.S)[1]


def test_tables_are_counted_as_tables(book):
    page = re.sub("<[^>]*>", "", (book / "executed/05-depth.html").read_text())
    assert "Fig. 1 How deep." in page and "Table 1 The numbers." in page
    assert "As Table 1 and Fig. 1 say." in page


@pytest.mark.parametrize("name", ["fig-depth", "tab-depth"])
def test_a_figure_is_cited_with_version_data_and_address_but_without_number(book, name):
    plain, bibtex = (unescape(text) for text in re.findall("<pre>(.*?)</pre>", line(book, name), re.S))
    digest = hashlib.sha256(CSV).hexdigest()[:16]
    for text in (plain, bibtex):
        facts = (
            "A & B",
            "Layers <and> more",
            "1.2.3",
            f"cite/{name}.html",
            digest,
            "abc",
            "def",
            "CC BY 4.0",
        )
        assert all(fact in text for fact in facts)
        assert not re.search("(Fig|Table)[.]? [0-9]", text)
    assert bibtex.count("{") == bibtex.count("}") and bibtex.startswith(f"@misc{{sae-rna-{name},\n")


@pytest.mark.parametrize("name", ["fig-depth", "tab-depth"])
def test_the_address_of_a_figure_leads_to_where_it_stands(book, name):
    page = (book / f"cite/{name}.html").read_text()
    place = f"../executed/05-depth.html#{name}"
    assert f'content="0; url={place}"' in page and f'<a href="{place}">' in page
    assert f'id="{name}"' in (book / "executed/05-depth.html").read_text()


def test_every_table_says_what_its_columns_mean(book):
    said = json.loads((book / "figures/fig-depth.csv-metadata.json").read_text())
    columns = [
        (c["titles"], c["schema:unitText"], c["dc:description"]) for c in said["tableSchema"]["columns"]
    ]
    assert columns == [("layer", "", "which block"), ("score", "nats", "how good")]
    assert "Layers <and> more" in said["dc:title"] and said["dc:identifier"] == "cite/fig-depth.html"
    assert "../figures/fig-depth.csv-metadata.json" in line(book, "fig-depth")


def test_the_line_leads_to_the_data_and_to_copies_of_the_code(book):
    links = dict(re.findall(r'<a href="([^"]+)"[^>]*>(\w[\w -]*)</a>', line(book, "fig-depth")))
    assert links["../figures/fig-depth.csv"] == "data" and "../figures/fig-depth.svg" in links
    code = {place: (book / "executed" / place).read_text() for place in links if "/code/" in place}
    assert code == {
        "../code/notebooks/05-depth.ipynb": "{}",
        "../code/sae_rna/analysis/depth.py.txt": "# <numbers>\n",
    }


def test_a_page_repeats_what_a_notebook_says(book):
    page = (book / "index.html").read_text()
    assert "<strong>Stems:</strong> 0.7" in page and "Loops: 50%</p></li>" in page


@pytest.mark.parametrize(
    "page, scripts", [("executed/05-depth", {"vega-bundle"}), ("formula", {"math"}), ("index", set())]
)
def test_a_page_loads_what_it_needs(book, page, scripts):
    loaded = re.findall(r'<script[^>]* src="[^"]*?([\w-]+)\.js', (book / f"{page}.html").read_text())
    assert set(loaded) & {"vega-bundle", "math"} == scripts
