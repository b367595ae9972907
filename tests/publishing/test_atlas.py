"""An atlas: a page per row of the index, links that lead somewhere, everything escaped, a script that finds."""

import re
from html.parser import HTMLParser

import pandas as pd
import pytest
from browser import chromium

from sae_rna.publishing import write_atlas

EVIL = '<script>alert("x")</script>'
HEADERS = ("feature", "layer", "concept", "score")
ROWS = [(("L1/0", "a-L1-0.html"), 1, "stem", 0.25), (("L1/7", "a-L1-7.html"), 1, EVIL, None),
        (("L2/3", "b-L2-3.html"), 2, "stem", -0.5)]  # fmt: skip
DATA = {"features": pd.DataFrame({"feature": [0, 7, 3], "score": [0.25, None, -0.5]})}


def pages(rows=ROWS):
    for (name, address), _, concept, _ in rows:
        near = ("feature", "cosine"), [(("neighbour", "b-L2-3.html"), 0.5), (EVIL, True)]
        yield (
            address,
            f"{name} {concept}",
            f"Verdict {concept}.",
            [(f"Near {EVIL}", EVIL, ["<svg></svg>", near])],
        )


@pytest.fixture
def folder(tmp_path):
    count = write_atlas(
        tmp_path / "atlas", "Atlas", "All.", (HEADERS, ROWS), pages(), DATA, ("layer", "concept")
    )
    assert count == len(ROWS)
    return tmp_path / "atlas"


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.scripts = [], []

    def handle_starttag(self, tag, attrs):
        self.found += [value for name, value in attrs if name in ("href", "src")]
        self.scripts += [tag] * (tag == "script")


def test_every_row_has_one_page_and_every_link_leads_somewhere(folder):
    assert {path.name for path in folder.glob("*-L*.html")} == {link for (_, link), *_ in ROWS}
    for path in folder.glob("*.html"):
        links = Links()
        links.feed(path.read_text())
        assert (
            links.found
            and [to for to in links.found if to != "../index.html" and not (folder / to).exists()] == []
        )
        assert len(links.scripts) == (path.name == "index.html")


def test_pages_lead_to_their_neighbours(folder):
    middle = (folder / "a-L1-7.html").read_text()
    assert re.findall(r"<nav>.*?</nav>", middle)[0].count("href") == 4
    assert 'href="a-L1-0.html"' in middle and 'href="b-L2-3.html"' in middle


def test_what_is_downloaded_is_the_table(folder):
    pd.testing.assert_frame_equal(pd.read_csv(folder / "features.csv"), DATA["features"])
    pd.testing.assert_frame_equal(pd.read_parquet(folder / "features.parquet"), DATA["features"])


def test_writing_again_changes_nothing_and_leaves_nothing_old(folder):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    write_atlas(folder, "Atlas", "All.", (HEADERS, ROWS), pages(), DATA, ("layer", "concept"))
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    write_atlas(folder, "Atlas", "All.", (HEADERS, ROWS[:1]), pages(ROWS[:1]), {})
    assert [path.name for path in folder.glob("*-L*.html")] == ["a-L1-0.html"]
    assert [path.name for path in folder.parent.iterdir()] == ["atlas"]


def test_pages_in_another_order_than_the_index_are_refused_and_the_old_ones_stay(folder):
    with pytest.raises(ValueError, match="page 1 is b-L2-3.html, but not so in the index"):
        write_atlas(folder, "Atlas", "All.", (HEADERS, ROWS), pages(ROWS[::-1]), DATA)
    assert len([*folder.glob("*-L*.html")]) == len(ROWS)


def test_the_index_is_searched_filtered_and_sorted_and_fits_every_screen(folder):
    errors = []
    with chromium() as browser:
        page = browser.new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        names = lambda: page.locator("tbody tr:visible td:first-child").all_inner_texts()  # noqa: E731
        page.goto((folder / "index.html").as_uri())
        assert names() == ["L1/0", "L1/7", "L2/3"]
        page.get_by_role("button", name="score").click()
        assert names() == ["L1/0", "L2/3", "L1/7"]  # 0.25, -0.5, unknown
        page.get_by_role("button", name="score").click()
        assert names() == ["L1/7", "L2/3", "L1/0"]
        page.get_by_label("layer").select_option("1")
        page.get_by_label("search").fill("STEM")
        assert names() == ["L1/0"] and page.locator("#count").inner_text() == "1 of 3"
        page.goto("about:blank")
        page.goto((folder / "index.html").as_uri() + "#layer=2")  # as another page links to it
        assert names() == ["L2/3"]
        for name in ("index.html", "a-L1-7.html"):
            for width in (390, 768, 1280):
                page.set_viewport_size({"width": width, "height": 800})
                page.goto((folder / name).as_uri())
                assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        with browser.new_context(java_script_enabled=False).new_page() as still:
            still.goto((folder / "index.html").as_uri())
            assert still.locator("tbody tr").count() == 3 and not still.locator("form").is_visible()
    assert errors == []
