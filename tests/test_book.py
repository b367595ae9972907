"""The book as a reader meets it: built with the smoke profile, opened page by page in a browser without a
network.

A book that is there already is looked at instead with ``SAE_RNA_BOOK=. pytest tests/test_book.py`` (the
folder that holds `_build/html`).
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from browser import chromium
from playwright.sync_api import Error

from sae_rna.build import published

ROOT = Path(__file__).resolve().parents[1]
SOURCES = (
    "CITATION.cff",
    "Snakefile",
    "_config.yml",
    "requirements.lock",
    "benchmarks",
    "book",
    "notebooks",
    "profiles",
    "sae_rna",
)
FILES: dict[str, list[str]] = {}  # that the notebooks publish, by figure and table
for name in {name for notebook in ROOT.glob("notebooks/*.ipynb") for name in published(notebook)}:
    FILES.setdefault(name.partition(".")[0], []).append(name.partition(".")[2])
CHARTS, TABLES = ([name for name in sorted(FILES) if name.startswith(kind)] for kind in ("fig-", "tab-"))
#: What a page says about itself once its scripts have run. A mark of the data has the class role-mark; axes
#: and legends have others.
LOOK = """() => ({
  undrawn: [...document.querySelectorAll('.vega-embed, [id$="-chart"]')]
    .filter(div => !div.querySelector('svg g.role-mark > *')).map(div => div.closest('figure')?.id || div.id),
  drawn: [...document.querySelectorAll('figure')].filter(figure => figure.querySelector('svg g.role-mark > *')).map(figure => figure.id),
  tables: [...document.querySelectorAll('figure')].filter(figure => figure.querySelector('thead th')).map(figure => figure.id),
  captions: [...document.querySelectorAll('figcaption')].map(caption => [caption.closest('figure')?.id, caption.innerText]),
  formulas: [document.querySelectorAll('.math').length, document.querySelectorAll('.math mjx-container').length,
             document.querySelectorAll('[data-mml-node="merror"]').length],
  images: [...document.images].filter(image => !image.naturalWidth || !image.alt).map(image => image.src),
  links: [...document.links].map(link => link.href),
  ids: [...document.querySelectorAll('[id]')].map(element => element.id),
  cited: [...document.querySelectorAll('figure')].filter(figure => figure.querySelectorAll('.figure-line details pre').length === 2 &&
    figure.querySelector('.figure-line a[rel=license]')).map(figure => figure.id),
  wide: [...document.querySelectorAll('figure .sae-rna-scroll')].filter(box => box.scrollWidth > box.clientWidth + 1)
    .map(box => box.closest('figure').id),
  numbered: [...document.querySelectorAll('figcaption .caption-number')].map(number => [number.closest('figure').id, number.innerText]),
})"""
#: How a page stands on a phone: whether it is wider than the screen, and the charts whose letters are far
#: below their size or that are not as high as they should be.
ON_A_PHONE = """() => [...document.documentElement.scrollWidth > innerWidth ? ['the page'] : [],
  ...[...document.querySelectorAll('.vega-embed svg')].filter(svg => {
    const box = svg.getBoundingClientRect(), whole = svg.viewBox.baseVal;
    return box.width < 0.85 * whole.width || Math.abs(box.height / box.width - whole.height / whole.width) > 0.02;
  }).map(svg => svg.closest('figure').id)].flat()"""
READY = """() => window.MathJax?.startup?.promise?.then(() => true) ?? true"""
DRAWN = f"() => ({LOOK})().undrawn.length === 0"


@dataclass
class Visit:
    """What happened when a page was opened."""

    seen: dict = field(default_factory=dict)
    """The answer to `LOOK`."""
    phone: list[str] = field(default_factory=list)
    """The answer to `ON_A_PHONE`."""
    requests: list[str] = field(default_factory=list)
    """Addresses asked for that are not files beside the page."""
    errors: list[str] = field(default_factory=list)
    """JavaScript errors, messages of the console's level error, and files that did not load."""


def copy_project(folder: Path) -> Path:
    """The sources of a book without anything built from them. The embedded data are linked: a book only reads
    them."""
    ignored = shutil.ignore_patterns("executed", "public", "vega-bundle.js", "__pycache__")
    for name in SOURCES:
        source, target = ROOT / name, folder / name
        shutil.copytree(source, target, ignore=ignored) if source.is_dir() else shutil.copy2(source, target)
    (folder / "data").symlink_to(ROOT / "data")
    return folder


def workflow(project: Path, *arguments: str) -> dict:
    """How the project's workflow is started, with the smoke profile and this Python's programs."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "PYTHONPATH": str(project), "SAE_RNA_ROOT": str(project)}
    command = [sys.executable, "-m", "snakemake", *arguments, "--cores", "2", "--config", "profile=smoke"]
    return {"args": command, "cwd": project, "env": environment, "stderr": subprocess.STDOUT}


def snakemake(project: Path, *arguments: str) -> subprocess.CompletedProcess:
    """Run the project's workflow; standard output and error together."""
    return subprocess.run(**workflow(project, *arguments), text=True, stdout=subprocess.PIPE)


def begin(project: Path) -> subprocess.Popen:
    """Start building the smoke book of a copy of the project, out of reach of the signals that tests send."""
    options = workflow(copy_project(project), "book", "--quiet", "rules", "host")
    with open(project / "log", "w") as log:
        return subprocess.Popen(**options, stdout=log, start_new_session=True)


@pytest.fixture(scope="session")
def smoke_project(smoke_build) -> Path:
    """A copy of the project with its smoke book built."""
    project, build = smoke_build
    if build.wait():
        pytest.fail(
            f"the smoke book could not be built:\n{(project / 'log').read_text()[-3000:]}", pytrace=False
        )
    return project


@pytest.fixture(scope="session")
def project(request) -> Path:
    """The folder whose book is looked at."""
    return (
        Path(os.environ["SAE_RNA_BOOK"]).resolve()
        if "SAE_RNA_BOOK" in os.environ
        else request.getfixturevalue("smoke_project")
    )


@pytest.fixture(scope="session")
def visits(project) -> dict[Path, Visit]:
    """Every page of the book, opened once in headless chromium; other hosts are blocked."""
    html = project / "_build/html"
    pages = [
        page
        for page in sorted(html.rglob("*.html"))
        if not {"figures", "cite", "_static", "atlas"} & set(page.relative_to(html).parts)
    ]
    pages += [html / "atlas/index.html", *sorted((html / "atlas").glob("*-L*.html"))[:2]]
    visits = {page: Visit() for page in pages}
    with chromium() as browser:
        for path, visit in visits.items():
            with browser.new_page() as page:
                _open(page, path, visit)
    return visits


def _open(page, path: Path, visit: Visit):
    def route(route):
        if urlsplit(route.request.url).scheme == "file":
            route.continue_()
        else:
            visit.requests.append(route.request.url)
            route.abort()

    page.route("**/*", route)
    page.on("pageerror", lambda error: visit.errors.append(str(error)))
    page.on("console", lambda message: visit.errors.append(message.text) if message.type == "error" else None)
    page.on("requestfailed", lambda request: visit.errors.append(f"{request.url} did not load"))
    page.goto(path.as_uri())
    try:
        page.wait_for_function(READY, timeout=10_000)
        page.wait_for_function(DRAWN, timeout=10_000)
    except Error:
        pass  # a chart that is never drawn is one of the things that the tests look for
    visit.seen = page.evaluate(LOOK)
    page.set_viewport_size({"width": 390, "height": 800})
    visit.phone = page.evaluate(ON_A_PHONE)


def faults(visits: dict[Path, Visit], find) -> dict[str, list]:
    """What `find` finds in each visit, by the page's name, where it finds anything."""
    found = {path.name: list(find(visit)) for path, visit in visits.items()}
    return {name: fault for name, fault in found.items() if fault}


def test_there_is_a_page_for_every_entry_of_the_table_of_contents(project, visits):
    entries = re.findall(r"(?:file|root): (\S+)", (project / "book/_toc.yml").read_text())
    pages = {path.relative_to(project / "_build/html").with_suffix("").as_posix() for path in visits}
    assert len(entries) > 10 and set(entries) <= pages


def test_no_page_asks_another_host_for_anything(visits):
    assert faults(visits, lambda visit: visit.requests) == {}


def test_no_script_fails(visits):
    assert faults(visits, lambda visit: visit.errors) == {}


def test_every_chart_is_drawn(visits):
    assert faults(visits, lambda visit: visit.seen["undrawn"]) == {}


def test_every_formula_is_typeset(visits):
    def wrong(visit):
        marked, typeset, faulty = visit.seen["formulas"]
        return (
            [f"{marked} formulas, {typeset} typeset, {faulty} with errors"]
            if marked > typeset or faulty
            else []
        )

    assert faults(visits, wrong) == {}
    assert any(visit.seen["formulas"][0] for visit in visits.values())


def test_every_figure_and_table_stands_in_the_book_once(visits):
    charts = Counter(figure for visit in visits.values() for figure in visit.seen["drawn"])
    tables = Counter(figure for visit in visits.values() for figure in visit.seen["tables"])
    assert {figure: charts[figure] for figure in CHARTS} == dict.fromkeys(CHARTS, 1)
    assert {table: tables[table] for table in TABLES} == dict.fromkeys(TABLES, 1)


def test_every_figure_has_its_files_at_stable_addresses(project):
    folder = project / "_build/html/figures"
    missing = [
        f"{figure}.{kind}"
        for figure, kinds in FILES.items()
        for kind in kinds
        if not (folder / f"{figure}.{kind}").is_file()
    ]
    assert missing == []
    assert all(json.loads((folder / f"{figure}.vl.json").read_text()) for figure in CHARTS)


def test_every_column_of_every_table_is_explained(project):
    silent = []
    for figure in FILES:
        said = json.loads((project / f"_build/html/figures/{figure}.csv-metadata.json").read_text())
        columns = said["tableSchema"]["columns"]
        silent += [(figure, column["titles"]) for column in columns if not column["dc:description"]]
    assert silent == []


def test_every_caption_is_filled(visits):
    assert (
        faults(
            visits,
            lambda visit: [caption for caption in visit.seen["captions"] if re.search("[{}]", caption[1])],
        )
        == {}
    )
    captioned = {
        figure for visit in visits.values() for figure, text in visit.seen["captions"] if len(text) > 20
    }
    assert set(FILES) <= captioned


def test_every_figure_says_how_to_cite_it_and_tables_are_counted_apart(visits):
    assert {figure for visit in visits.values() for figure in visit.seen["cited"]} == set(FILES)
    numbered = [number for visit in visits.values() for number in visit.seen["numbered"]]
    kinds = {figure: number.split()[0] for figure, number in numbered}
    assert kinds == {figure: "Table" if figure.startswith("tab-") else "Fig." for figure in FILES}


def test_charts_can_be_read_on_a_phone_and_nothing_is_cut_off_at_1280_pixels(visits):
    assert faults(visits, lambda visit: visit.phone) == {}
    assert faults(visits, lambda visit: visit.seen["wide"]) == {}


def test_the_first_page_says_what_was_found(project):
    overview = json.loads((project / "book/executed/00-overview.ipynb").read_text())
    outputs = [output for cell in overview["cells"] for output in cell.get("outputs", [])]
    (said,) = [
        output for output in outputs if output.get("metadata", {}).get("sae_rna", {}).get("said") == "found"
    ]
    numbers = re.findall(r"\d+\.\d+", "".join(said["data"]["text/markdown"]))
    first = (project / "_build/html/intro.html").read_text()
    assert len(numbers) > 5 and [number for number in numbers if number not in first] == []


def test_every_image_is_there_and_described(visits):
    assert faults(visits, lambda visit: visit.seen["images"]) == {}


def test_every_link_within_the_book_leads_somewhere(visits):
    ids = {path: set(visit.seen["ids"]) for path, visit in visits.items()}

    def leads_nowhere(link: str) -> bool:
        parts = urlsplit(link)
        target = Path(unquote(parts.path))
        if parts.scheme != "file":
            return False
        return not target.is_file() or bool(
            parts.fragment and target in ids and unquote(parts.fragment) not in ids[target]
        )

    assert faults(visits, lambda visit: filter(leads_nowhere, visit.seen["links"])) == {}


def test_no_executed_notebook_holds_an_error(project):
    notebooks = {
        path.stem: json.loads(path.read_text()) for path in (project / "book/executed").glob("*.ipynb")
    }
    assert set(notebooks) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    for name, notebook in notebooks.items():
        for cell in notebook["cells"]:
            assert "papermill-error-cell-tag" not in cell["metadata"].get("tags", []), name
            assert not [output for output in cell.get("outputs", []) if output["output_type"] == "error"], (
                name
            )


def test_an_unchanged_book_is_not_built_again(smoke_project):
    assert "Nothing to be done" in snakemake(smoke_project, "book", "--dry-run").stdout


def planned(project: Path) -> set[str]:
    """The rules that would run."""
    return set(re.findall(r"^(?:local)?rule (\w+):", snakemake(project, "book", "--dry-run").stdout, re.M))


def test_a_change_of_prose_runs_no_notebook(smoke_project):
    page = smoke_project / "book/limitations.md"
    before = page.read_text()
    try:
        page.write_text(before + "\nOne more sentence.\n")
        assert planned(smoke_project) == {"html", "book"}
    finally:
        page.write_text(before)


@pytest.mark.parametrize(
    ("deleted", "rules"),
    [
        ("runs", {"autoencoders", "features", "notebook_03_autoencoders", "figures", "html", "book"}),
        ("runs/smoke/figures/fig-training.svg", {"notebook_03_autoencoders", "figures", "html", "book"}),
        ("book/executed/03-autoencoders.ipynb", {"notebook_03_autoencoders", "figures", "html", "book"}),
        ("book/public", {"figures", "html", "book"}),
        ("book/public/figures/fig-training.svg", {"figures", "html", "book"}),
        ("_build/html/methods.html", {"html", "book"}),
    ],
)
def test_what_is_deleted_is_made_again_and_nothing_else(smoke_project, deleted, rules):
    file, away = smoke_project / deleted, smoke_project / "away"
    file.rename(away)
    try:
        plan = planned(smoke_project)
    finally:
        away.rename(file)
    # Only notebooks that read another one's results may follow it.
    follow = {"runs": re.compile("notebook_")}.get(deleted, re.compile("notebook_00"))
    assert plan >= rules and all(follow.match(rule) for rule in plan - rules)


def test_a_failed_notebook_stops_the_book_and_says_why(tmp_path):
    project = copy_project(tmp_path)
    notebook = project / "notebooks/01-data.ipynb"
    content = json.loads(notebook.read_text())
    first = next(
        cell
        for cell in content["cells"]
        if cell["cell_type"] == "code" and "parameters" not in cell["metadata"].get("tags", [])
    )
    first["source"] = ["raise ValueError('the sky fell on cell one')"]
    notebook.write_text(json.dumps(content))
    result = snakemake(project, "book/executed/01-data.ipynb")
    assert result.returncode
    assert "01-data" in result.stdout and "the sky fell on cell one" in result.stdout
    assert list((project / "book").rglob("*.ipynb")) == []
