"""Tables as HTML, and numbers as people write them."""

import html
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pandas as pd
import pytest

from sae_rna.publishing.tables import table_html

HOSTILE = '</script><script>alert("1")</script><!-- & \u2028'


TABLE = pd.DataFrame({"x": [1, 2], "id": [HOSTILE, "<b>bold</b>"]})


def rows_of(text: str) -> list[list[tuple[str, str]]]:
    """Text and alignment of every cell, row by row; the HTML has to be well-formed."""
    table = ElementTree.fromstring(text)
    return [
        [("".join(cell.itertext()), cell.get("style").split(": ")[1]) for cell in row]
        for row in table.iter("tr")
    ]


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


def test_words_that_come_in_runs_are_headings_of_numbers_with_decimals_of_their_own():
    table = pd.DataFrame({"setting": ["seen_it"] * 2 + ["not"] * 2, "x": [0.12345, 2.0, 1234.5, 200.25]})
    shown = table_html(table)
    assert rows_of(shown) == [
        [("x", "right")],
        [("seen_it", "left")], [("0.123", "right")], [("2.000", "right")],
        [("not", "left")], [("1,234", "right")], [("200", "right")],
    ]  # fmt: skip
    assert "seen_<wbr/>it</th>" in shown  # where a long name may break
    mixed = table.iloc[[0, 2, 1, 3]]
    assert rows_of(table_html(mixed))[0] == [("setting", "left"), ("x", "right")]


def test_signed_numbers_keep_three_decimals():
    assert [row[0][0] for row in rows_of(table_html(pd.DataFrame({"r2": [-0.0002, 0.5]})))] == [
        "r2",
        "−0.000",
        "0.500",
    ]


def test_a_table_without_rows_is_still_a_table():
    assert rows_of(table_html(pd.DataFrame({"a": [], "b": []}))) == [[("a", "right"), ("b", "right")]]


@pytest.mark.parametrize(
    ("text", "kind"), [("short", ["sae-rna-table"]), ("x " * 31, ["sae-rna-table", "sae-rna-words"])]
)
def test_a_table_of_words_is_marked_for_phones(text, kind):
    assert (
        re.search('<table class="(.*?)">', table_html(pd.DataFrame({"a": [1], "b": [text]})))[1].split()
        == kind
    )


def test_links_to_pages_of_the_book_and_no_others_become_links():
    texts = ["[08-controls](../executed/08-controls.html#fig-controls)", "[a](https://b.org)"]
    texts += ["[x](javascript:alert(1))", "see [07](../executed/07.html)", "[<b>](../executed/07.html)"]
    cells = re.findall(r"<td.*?>(.*)</td>", table_html(pd.DataFrame({"evidence": texts})))
    assert cells == [
        '<a href="../executed/08-controls.html#fig-controls">08-controls</a>',
        *map(html.escape, texts[1:4]),
        '<a href="../executed/07.html">&lt;b&gt;</a>',
    ]
