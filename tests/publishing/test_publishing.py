"""Publishing: files, captions, notebooks and the offline bundle, from a figure's last line to the page."""

import json
import os
import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import altair as alt
import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from sae_rna.publishing import publishing
from sae_rna.publishing.publishing import (
    NotebookError,
    execute,
    fill_captions,
    publish,
    table_html,
    write_atomically,
)

HOSTILE = '</script><script>alert("1")</script><!-- & \u2028'
TABLE = pd.DataFrame({"x": [1, 2], "id": [HOSTILE, "<b>bold</b>"]})


def chart(description: str = "two points") -> alt.Chart:
    return alt.Chart(TABLE, description=description).mark_point().encode(x="x:Q", y="id:N", tooltip="id:N")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(publishing.FIGURES, str(tmp_path / "figures"))
    return tmp_path / "figures"


class Output(NamedTuple):
    data: dict
    metadata: dict


def published(*arguments, **numbers) -> Output:
    """The one output that `publish` displays."""
    with mock.patch.object(publishing, "display") as display:
        publish(*arguments, **numbers)
    display.assert_called_once_with(mock.ANY, raw=True, metadata=mock.ANY)
    return Output(display.call_args.args[0], display.call_args.kwargs["metadata"])


# ---------------------------------------------------------------- files


def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "new folder" / "file.txt"
    write_atomically(path, "old")
    write_atomically(path, b"older is better")
    assert path.read_text() == "older is better"

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError):
        write_atomically(path, "half")
    assert path.read_text() == "older is better"
    assert [file.name for file in path.parent.iterdir()] == ["file.txt"]


def test_figures_go_to_the_current_folder_unless_told_otherwise(monkeypatch):
    monkeypatch.delenv(publishing.FIGURES, raising=False)
    assert publishing.figure_folder() == Path("figures")


def test_a_published_chart_has_all_its_static_files(folder):
    published("fig-points", chart('a "quoted" <description>'), TABLE, n=2)
    assert sorted(file.name for file in folder.iterdir()) == [
        f"fig-points.{s}" for s in ("csv", "pdf", "png", "svg", "vl.json")
    ]
    svg = ElementTree.fromstring((folder / "fig-points.svg").read_text())
    assert svg.tag.endswith("svg") and svg.get("aria-label") == 'a "quoted" <description>'
    assert (folder / "fig-points.png").read_bytes().startswith(b"\x89PNG\r\n\x1a\n")
    assert (folder / "fig-points.pdf").read_bytes().startswith(b"%PDF-")
    pd.testing.assert_frame_equal(pd.read_csv(folder / "fig-points.csv"), TABLE)
    spec = json.loads((folder / "fig-points.vl.json").read_text())
    assert alt.Chart.from_dict(spec).to_dict()["mark"]["type"] == "point"


def test_one_output_carries_html_picture_and_numbers(folder):
    output = published(
        "fig-points", chart(), TABLE, n=np.int64(7), share=np.float32(0.5), name="L5", seen=True
    )
    assert set(output.data) == {"text/html", "image/png", "text/plain"}
    assert output.data["text/plain"] == "two points"
    record = output.metadata["sae_rna"]
    assert record == {"figure": "fig-points", "numbers": {"n": 7, "share": 0.5, "name": "L5", "seen": True}}
    assert json.loads(json.dumps(record)) == record
    svg = ElementTree.fromstring((folder / "fig-points.svg").read_text())
    assert output.metadata["image/png"] == pytest.approx(
        {"width": float(svg.get("width")), "height": float(svg.get("height"))}, abs=1
    )


def test_a_published_table_has_its_files_and_one_output(folder):
    output = published("tab-points", TABLE, n=2)
    assert sorted(file.name for file in folder.iterdir()) == ["tab-points.csv", "tab-points.html"]
    assert set(output.data) == {"text/html", "text/plain"}
    assert output.data["text/html"] in (folder / "tab-points.html").read_text()


@pytest.mark.parametrize(
    "figure_id", ["points", "fig-", "Fig-points", "fig-Points", "fig-../x", "fig-a b", "fig-<b>"]
)
def test_an_id_that_cannot_be_a_file_and_an_anchor_is_refused(figure_id, folder):
    with pytest.raises(ValueError, match="is no figure id"):
        publish(figure_id, TABLE)
    assert not folder.exists()


@pytest.mark.parametrize(
    "value, message",
    [(float("nan"), "n is nan"), (np.inf, "n is inf"), ([1], "n is a list"), (None, "n is a NoneType")],
)
def test_a_number_that_no_caption_should_say_is_refused(value, message, folder):
    with pytest.raises(ValueError, match=f"tab-points: {message}"):
        publish("tab-points", TABLE, n=value)
    assert not folder.exists()


def test_a_chart_needs_its_table(folder):
    with pytest.raises(ValueError, match="fig-points: a chart is published together with its tidy table"):
        publish("fig-points", chart())


# ---------------------------------------------------------------- HTML


def test_no_string_of_the_data_ends_the_charts_script():
    html = publishing.chart_html(chart(HOSTILE), "fig-points")
    assert html.count("<script") == 1 and html.count("</script>") == 1
    assert "alert" in html and "<!--" not in html and "\u2028" not in html
    spec = re.search(r"\}\)\((\{.*\}), (\{.*\})\);", html)
    assert json.loads(spec[1])["description"] == HOSTILE  # escaped, not changed
    assert json.loads(spec[2])["renderer"] == "svg"


def test_the_same_chart_gives_the_same_html():
    assert publishing.chart_html(chart(), "fig-points") == publishing.chart_html(chart(), "fig-points")
    assert 'id="fig-points-chart"' in publishing.chart_html(chart(), "fig-points")


def rows_of(html: str) -> list[list[tuple[str, str]]]:
    """Text and alignment of every cell, row by row; the HTML has to be well-formed."""
    table = ElementTree.fromstring(html)
    return [[(cell.text or "", cell.get("style").split(": ")[1]) for cell in row] for row in table.iter("tr")]


def test_tables_escape_everything():
    html = table_html(TABLE.rename(columns={"x": "<i>x</i>"}))
    assert "<b>" not in html and "<i>" not in html and "<script" not in html
    cells = rows_of(html)
    assert cells[0][0][0] == "<i>x</i>" and cells[1][1][0] == HOSTILE


def test_numbers_of_a_table_are_written_for_people():
    table = pd.DataFrame(
        {
            "name": ["a", "b"],
            "count": [1234567, 5],
            "some": pd.array([1000, None], dtype="Int64"),
            "share": [0.12345, np.nan],
            "long": [1234.5, 12.25],
            "tiny": [0.00012345, 2.0],
            "whole": [3.0, np.nan],
            "feature": [7783, 2053],
            "kept": [True, False],
            "mixed": ["text", 0.123456],
        }
    )
    head, first, second = rows_of(table_html(table))
    assert [text for text, _ in head] == list(table.columns)
    assert [text for text, _ in first] == [
        "a",
        "1,234,567",
        "1,000",
        "0.123",
        "1,234",
        "0.000123",
        "3",
        "7783",
        "yes",
        "text",
    ]
    assert [text for text, _ in second] == ["b", "5", "–", "–", "12", "2", "–", "2053", "no", "0.123"]
    assert [align for _, align in first] == ["left", *["right"] * 7, "left", "left"]


def test_a_table_without_rows_is_still_a_table():
    assert rows_of(table_html(pd.DataFrame({"a": [], "b": []}))) == [[("a", "right"), ("b", "right")]]


# ---------------------------------------------------------------- captions


def figure_cell(
    caption: str,
    alternative: str = "",
    name: str = "fig-points",
    numbers: dict | None = None,
    figure: str | None = None,
):
    outputs = []
    if numbers is not None:
        record = {"figure": figure or name, "numbers": numbers}
        outputs = [new_output("display_data", {"text/html": "<p>"}, metadata={"sae_rna": record})]
    metadata = {"mystnb": {"figure": {"name": name, "caption": caption}, "image": {"alt": alternative}}}
    return new_code_cell("publish(...)", metadata=metadata, outputs=outputs)


def filled(caption: str, numbers: dict, alternative: str = "", **options) -> tuple[str, str]:
    """Caption without its links, and alternative text."""
    notebook = fill_captions(
        new_notebook(
            cells=[new_markdown_cell("{not mine}"), figure_cell(caption, alternative, numbers=numbers)]
        ),
        **options,
    )
    assert notebook.cells[0].source == "{not mine}"
    options = notebook.cells[1].metadata.mystnb
    return options.figure.caption.split(' <span class="figure-files">')[0], options.image.alt


@pytest.mark.parametrize(
    "caption, value, expected",
    [
        ("{n} tokens", 1234567, "1,234,567 tokens"),
        ("{n:d} tokens", 1234567, "1234567 tokens"),
        ("{n:.1%} of all", 0.1234, "12.3% of all"),
        ("F1 {n}.", 0.123456, "F1 0.123."),
        ("F1 {n:.2f}, {n:.1f}.", 0.126, "F1 0.13, 0.1."),
        ("of {n}", "tRNA", "of tRNA"),
    ],
)
def test_placeholders_become_numbers(caption, value, expected):
    assert filled(caption, {"n": value}, alternative=caption) == (expected, expected)


def test_features_and_layers_are_names():
    assert (
        filled("feature {feature} of layer {layer}, n = {n}", {"feature": 7783, "layer": 1033, "n": 7783})[0]
        == "feature 7783 of layer 1033, n = 7,783"
    )


def test_a_string_in_a_caption_is_text_whatever_it_holds():
    nasty = "<script>*a*_b_`c`[d](e) {f}$g$"
    caption, alternative = filled("On {name}.", {"name": nasty}, alternative="On {name}.")
    assert not re.search(r"[<>*_`\[\](){}$]", caption.replace("(e)", ""))
    assert alternative == f"On {nasty}."
    import html

    assert html.unescape(caption) == f"On {nasty}."


def test_a_caption_ends_with_links_to_its_files():
    notebook = fill_captions(
        new_notebook(cells=[figure_cell("Title.", numbers={}), figure_cell("T.", name="tab-x", numbers={})]),
        links="../files",
    )
    chart_caption, table_caption = (cell.metadata.mystnb.figure.caption for cell in notebook.cells)
    assert re.findall('href="(.*?)"', chart_caption) == [
        f"../files/fig-points.{s}" for s in ("svg", "png", "pdf", "csv", "vl.json")
    ]
    assert re.findall('href="(.*?)"', table_caption) == ["../files/tab-x.csv", "../files/tab-x.html"]
    assert "](" not in chart_caption and "\n" not in chart_caption


@pytest.mark.parametrize(
    "cell, message",
    [
        (
            figure_cell("{n} and {m}", numbers={"n": 1}),
            r"figure fig-points: its caption asks for \{m\}, publish was given n",
        ),
        (figure_cell("ok", "{m}", numbers={}), r"asks for \{m\}, publish was given no numbers"),
        (figure_cell("{n:.1q}", numbers={"n": 1}), r"figure fig-points: \{n:.1q\} in its caption"),
        (figure_cell("a { b", numbers={"n": 1}), "a brace in its caption belongs to no placeholder"),
        (figure_cell("{n!r}", numbers={"n": 1}), "a brace in its caption"),
        (figure_cell("{n.real}", numbers={"n": 1}), "a brace in its caption"),
        (figure_cell("{n}"), "figure fig-points: its cell published nothing"),
        (
            figure_cell("{n}", numbers={"n": 1}, figure="fig-other"),
            "its cell published fig-other; it must end with publish",
        ),
    ],
)
def test_a_caption_that_cannot_be_filled_says_why(cell, message):
    with pytest.raises(NotebookError, match=message):
        fill_captions(new_notebook(cells=[cell]))


# ---------------------------------------------------------------- execution

SETTINGS = 'layers = [1]  # blocks\nname: str = "nano"'
WORK = "import pandas as pd\nfrom sae_rna.publishing.publishing import publish\ntable = pd.DataFrame({'layer': layers})"
PUBLISH = 'publish("tab-layers", table, n=len(table), name=name)'


def write_notebook(path: Path, *sources: str, settings: str | None = SETTINGS) -> Path:
    cells = [new_code_cell(settings, metadata={"tags": ["parameters"]})] if settings else []
    cells += [new_code_cell(source) for source in sources]
    cells[-1].metadata["mystnb"] = {
        "figure": {"name": "tab-layers", "caption": "{n} layers of {name}."},
        "image": {"alt": "{n} layers"},
    }
    nbformat.write(new_notebook(cells=cells), path)
    return path


def test_a_notebook_runs_with_its_parameters_and_fills_its_captions(tmp_path, capfd):
    notebook = write_notebook(tmp_path / "toy.ipynb", WORK, PUBLISH)
    output, figures = tmp_path / "book" / "executed" / "toy.ipynb", tmp_path / "figures"
    before = os.environ.get(publishing.FIGURES)
    stale = tmp_path / "failed" / "toy.failed.ipynb"
    write_atomically(stale, "an older failure")
    execute(notebook, output, {"layers": [1, 5, 33]}, figures, failures=tmp_path / "failed")
    result = nbformat.read(output, as_version=4)
    nbformat.validate(result)
    last = result.cells[-1]
    assert last.metadata.mystnb.figure.caption.startswith("3 layers of nano. <span")
    assert last.metadata.mystnb.image.alt == "3 layers"
    assert [o.output_type for cell in result.cells if cell.cell_type == "code" for o in cell.outputs] == [
        "display_data"
    ]
    assert pd.read_csv(figures / "tab-layers.csv").layer.tolist() == [1, 5, 33]
    assert [path.name for path in output.parent.iterdir()] == ["toy.ipynb"]
    assert os.environ.get(publishing.FIGURES) == before
    assert not stale.exists()
    assert "/tmp" not in json.dumps(result.metadata)
    shown = capfd.readouterr()
    assert "WARNING" not in shown.err and shown.out == ""


def test_a_failure_names_its_cell_and_leaves_page_and_files_as_they_were(tmp_path):
    notebook = write_notebook(
        tmp_path / "toy.ipynb", WORK, PUBLISH, "record = 'RF1'\nraise ValueError(f'{record}: no structure')"
    )
    output, figures = tmp_path / "executed" / "toy.ipynb", tmp_path / "figures"
    write_atomically(output, "the old page")
    write_atomically(figures / "tab-layers.csv", "the old table")
    with pytest.raises(
        NotebookError,
        match=r"toy.ipynb: cell \[\d\] failed with ValueError: RF1: no structure .*toy.failed.ipynb",
    ):
        execute(notebook, output, {}, figures, failures=tmp_path / "failed")
    assert output.read_text() == "the old page"
    assert (figures / "tab-layers.csv").read_text() == "the old table"
    assert [path.name for path in output.parent.iterdir()] == ["toy.ipynb"]
    assert "RF1: no structure" in (tmp_path / "failed" / "toy.failed.ipynb").read_text()


def test_a_caption_that_cannot_be_filled_is_a_failure_too(tmp_path):
    notebook = write_notebook(tmp_path / "toy.ipynb", WORK, 'publish("tab-layers", table, name=name)')
    with pytest.raises(NotebookError, match=r"toy.ipynb: figure tab-layers: its caption asks for \{n\}"):
        execute(
            notebook,
            tmp_path / "executed" / "toy.ipynb",
            {},
            tmp_path / "figures",
            failures=tmp_path / "failed",
        )
    assert not (tmp_path / "executed").exists() and not (tmp_path / "figures").exists()


@pytest.mark.parametrize(
    "settings, parameters, message",
    [
        (SETTINGS, {"layrs": 5}, "there is no parameter 'layrs'; did you mean layers?"),
        (SETTINGS, {"zzz": 5}, "there is no parameter 'zzz'; it has layers, name"),
        (None, {"layers": 5}, "there is no parameter 'layers'; it has no cell tagged parameters"),
    ],
)
def test_a_misplaced_parameter_stops_before_anything_runs(tmp_path, settings, parameters, message):
    notebook = write_notebook(
        tmp_path / "toy.ipynb", f"open({str(tmp_path / 'it ran')!r}, 'w')", settings=settings
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        execute(
            notebook,
            tmp_path / "executed" / "toy.ipynb",
            parameters,
            tmp_path / "figures",
            failures=tmp_path / "failed",
        )
    assert [path.name for path in tmp_path.iterdir()] == ["toy.ipynb"]


# ---------------------------------------------------------------- JavaScript


def test_the_bundle_says_what_altairs_page_asks_for(tmp_path):
    publishing.write_vega_bundle(tmp_path / "vendor" / "vega-bundle.js")
    bundle = (tmp_path / "vendor" / "vega-bundle.js").read_text()
    said = json.loads(re.search(r"window\.VEGA_DEBUG = (\{.*\});\s*$", bundle)[1])
    asked = dict(
        re.findall(r'maybeLoadScript\("([\w-]+)", "([^"]+)"\)', publishing.chart_html(chart(), "fig-points"))
    )
    assert (
        said == {f"{library.replace('-', '')}_version": version for library, version in asked.items()}
        and len(said) == 3
    )
    assert bundle.startswith("(function () {")
    assert all(f"window.{name}=" in bundle for name in ("vegaEmbed", "vega", "vegaLite"))


@pytest.mark.parametrize(
    "owner, attribute, value, library",
    [
        (alt, "VEGA_VERSION", "7", "vega 7"),
        (alt, "VEGAEMBED_VERSION", "8", "vega-embed 8"),
        (publishing, "_VEGALITE", "7.0", "vega-lite 7.0"),
    ],
)
def test_no_bundle_is_made_when_altair_has_moved_on(monkeypatch, owner, attribute, value, library):
    monkeypatch.setattr(owner, attribute, value)
    with pytest.raises(RuntimeError, match=f"asks for {library}.*move their pins together"):
        publishing.vega_bundle()
