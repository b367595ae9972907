"""What `publish` writes and displays."""

import json
import re
import struct
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import NamedTuple
from unittest import mock

import altair as alt
import numpy as np
import pandas as pd
import pytest

from sae_rna.publishing import NotebookError, outputs, publish
from sae_rna.publishing.outputs import FIGURES, chart_html

HOSTILE = '</script><script>alert("1")</script><!-- & \u2028'


TABLE = pd.DataFrame({"x": [1, 2], "id": [HOSTILE, "<b>bold</b>"]})


def chart(description: str = "two points") -> alt.Chart:
    return alt.Chart(TABLE, description=description).mark_point().encode(x="x:Q", y="id:N", tooltip="id:N")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(FIGURES, str(tmp_path / "figures"))
    return tmp_path / "figures"


class Output(NamedTuple):
    data: dict
    metadata: dict


def published(*arguments, **numbers) -> Output:
    """The one output that `publish` displays."""
    with mock.patch.object(outputs, "display") as display:
        publish(*arguments, **numbers)
    display.assert_called_once_with(mock.ANY, raw=True, metadata=mock.ANY)
    return Output(display.call_args.args[0], display.call_args.kwargs["metadata"])


def test_figures_go_to_the_current_folder_unless_told_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv(FIGURES, raising=False)
    monkeypatch.chdir(tmp_path)
    published("tab-points", TABLE)
    assert (tmp_path / "figures" / "tab-points.csv").exists()


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


def test_marks_that_nobody_sees_are_left_out_of_pictures(folder):
    seen = alt.Chart(TABLE, description="two points").mark_point().encode(x="x:Q")
    published("fig-points", seen + seen.mark_point(opacity=0), TABLE)
    svg = (folder / "fig-points.svg").read_text()
    assert svg.count('aria-roledescription="point"') == 2 and 'opacity="0"' not in svg


def test_one_output_carries_html_picture_and_numbers(folder):
    words = dict.fromkeys(("caption", "alt"), "{n} of {share} {name} {seen}")
    numbers = {"n": np.int64(7), "share": np.float32(0.5), "name": "L5", "seen": True}
    with mock.patch.object(outputs, "display") as display:
        publish("fig-points", chart(), TABLE, **words, **numbers)
    figure = display.call_args_list[0]
    output = Output(figure.args[0], figure.kwargs["metadata"])
    assert set(output.data) == {"text/html", "image/png", "text/plain"}
    assert output.data["text/plain"] == "two points"
    record = output.metadata["sae_rna"]
    words = "7 of 0.5 L5 yes"
    assert record == {"figure": "fig-points", "caption": words, "alt": words}
    assert json.loads(json.dumps(record)) == record
    assert (
        '<noscript><img src="../figures/fig-points.svg" alt="two points"></noscript>'
        in output.data["text/html"]
    )
    png = (folder / "fig-points.png").read_bytes()
    resolution = struct.unpack(">I", png[(start := png.index(b"pHYs") + 4) : start + 4])[0]
    assert resolution * 0.0254 == pytest.approx(216, abs=0.1)  # pixels per inch
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
    with pytest.raises(ValueError, match=f"{re.escape(repr(figure_id))}.*like fig-"):
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
    with pytest.raises(ValueError, match="fig-points: .*table"):
        publish("fig-points", chart())


def test_no_string_of_the_data_ends_the_charts_script():
    html = chart_html(chart(HOSTILE), "fig-points")
    assert html.count("<script") == 1 and html.count("</script>") == 1
    assert "alert" in html and "<!--" not in html and "\u2028" not in html
    spec = re.search(r"\}\)\((\{.*\}), (\{.*\})\);", html)
    assert json.loads(spec[1])["description"] == HOSTILE  # escaped, not changed
    assert json.loads(spec[2])["renderer"] == "svg"


def test_the_same_chart_gives_the_same_html():
    assert chart_html(chart(), "fig-points") == chart_html(chart(), "fig-points")
    assert 'id="fig-points-chart"' in chart_html(chart(), "fig-points")


def test_a_caption_is_displayed_below_with_its_numbers_and_travels_with_them(folder):
    words = {"caption": "*Points* of {name}, {n:.1f} {m}.", "alt": "{m} points"}
    with mock.patch.object(outputs, "display") as display:
        publish("fig-points", chart(), TABLE, **words, n=0.25, m=7000, name="<L5>")
    figure, below = display.call_args_list
    record = figure.kwargs["metadata"]["sae_rna"]
    caption = "*Points* of &#60;L5&#62;, 0.2 7,000."
    assert record == {"figure": "fig-points", "caption": caption, "alt": "7,000 points"}
    assert below.args[0] == {"text/markdown": caption, "text/plain": "*Points* of <L5>, 0.2 7,000."}
    assert below.kwargs["metadata"] == {"sae_rna": {"caption_of": "fig-points"}}


@pytest.mark.parametrize("words", [{"caption": "{n} of {m}"}, {"alt": "{m}"}, {"caption": "a { b"}])
def test_a_caption_that_cannot_be_filled_stops_before_anything_is_written(words, folder):
    with pytest.raises(NotebookError, match="figure tab-points"):
        publish("tab-points", TABLE, **words, n=1)
    assert not folder.exists()
