"""What the files of a figure say of themselves."""

import re
import xml.etree.ElementTree as ElementTree
import zlib

import altair as alt
import pandas as pd
import pytest
import vl_convert

from sae_rna.publishing import metadata
from sae_rna.publishing.vega import VEGALITE

FACTS = metadata.Facts(
    "Layers <and> more: fig-x", "A & B", "cite/fig-x.html", "x.csv, SHA-256 ab", "A & B (2026): ü"
)
CHART = alt.Chart(pd.DataFrame({"x": [1, 2]})).mark_point().encode(x="x:Q").to_dict()


def test_an_svg_says_what_it_is_in_the_terms_of_dublin_core():
    drawn = vl_convert.vegalite_to_svg(CHART, vl_version=VEGALITE)
    svg = ElementTree.fromstring(metadata.svg(drawn.encode(), FACTS))
    (work,) = svg.iter("{http://creativecommons.org/ns#}Work")
    said = {element.tag.split("}")[1]: element.text for element in work}
    assert said.pop("license") is None
    assert work[-1].attrib["{http://www.w3.org/1999/02/22-rdf-syntax-ns#}resource"] == metadata.LICENCE
    assert said == {
        "title": FACTS.title, "creator": FACTS.author, "description": FACTS.description,
        "identifier": FACTS.address, "source": FACTS.data,
    }  # fmt: skip
    svg.remove(svg[0])
    assert ElementTree.tostring(svg) == ElementTree.tostring(ElementTree.fromstring(drawn))


def test_a_png_says_it_in_whole_chunks_of_text():
    drawn = vl_convert.vegalite_to_png(CHART, vl_version=VEGALITE)
    content, said, kept, place = metadata.png(drawn, FACTS), {}, b"", 8
    while place < len(content):
        size = int.from_bytes(content[place : place + 4])
        chunk, check = content[place + 4 : place + 8 + size], content[place + 8 + size : place + 12 + size]
        assert zlib.crc32(chunk) == int.from_bytes(check)
        if chunk[:4] == b"iTXt":
            keyword, _, words = chunk[4:].partition(b"\0\0\0\0\0")
            said[keyword.decode()] = words.decode()
        else:
            kept += content[place : place + 12 + size]
        place += 12 + size
    assert (said["Title"], said["Author"], said["Description"]) == (
        FACTS.title,
        FACTS.author,
        FACTS.description,
    )
    assert "CC BY 4.0" in said["Copyright"] and drawn[:8] + kept == drawn


def test_a_pdf_says_it_in_its_document_information():
    drawn = vl_convert.vegalite_to_pdf(CHART, vl_version=VEGALITE)
    content = metadata.pdf(drawn, FACTS)
    assert content.startswith(drawn)
    table = int(re.findall(rb"startxref\n(\d+)\n%%EOF\n$", content)[0])
    assert content[table:].startswith(b"xref\n")
    number, start = re.search(rb"(\d+) 1\n(\d{10}) 00000 n", content[table:]).groups()
    information = content[int(start) :]
    assert information.startswith(number + b" 0 obj") and b"/Info " + number + b" 0 R" in content[table:]
    said = {key: bytes.fromhex(words.decode()).decode("utf-16") for key, words in
            re.findall(rb"/(\w+) <(\w+)>", information)}  # fmt: skip
    assert (said[b"Title"], said[b"Author"], said[b"Subject"]) == (
        FACTS.title,
        FACTS.author,
        FACTS.description,
    )
    old, new = (re.findall(rb"/Root (\d+)", part)[-1] for part in (drawn, content))
    before = re.findall(rb"startxref\s+(\d+)", drawn)[-1]
    assert old == new and b"/Prev " + before in content[table:]


@pytest.mark.parametrize(
    ("figure", "column", "found"),
    [
        ("fig-x", "loss", ("nats", "of this figure")),
        ("fig-y", "loss", ("bits", "of all")),
        ("fig-y", "L12", ("", "a layer")),
        ("fig-x", "L12", ("", "of this figure, too")),
        ("fig-y", "Lx", ("", "")),
    ],
)
def test_the_meaning_of_a_column_is_that_of_its_figure_first(figure, column, found):
    known = {"all": {"L[0-9]*": ["", "a layer"], "loss": ["bits", "of all"]}}
    known["fig-x"] = {"L*": ["", "of this figure, too"], "loss": ["nats", "of this figure"]}
    assert metadata.meaning(known, figure, column) == found
