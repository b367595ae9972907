"""Captions with numbers in them."""

import re

import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output

from sae_rna.publishing import NotebookError
from sae_rna.publishing.captions import fill_captions, filled


def both(words: str, numbers: dict) -> tuple[str, str]:
    """A caption and an alternative text."""
    return filled(words, numbers, "fig-points"), filled(words, numbers, "fig-points", markdown=False)


@pytest.mark.parametrize(
    "caption, value, expected",
    [
        ("{n} tokens", 1234567, "1,234,567 tokens"),
        ("{n:d} tokens", 1234567, "1234567 tokens"),
        ("{n:.1%} of all", 0.1234, "12.3% of all"),
        ("F1 {n}.", 0.123456, "F1 0.123."),
        ("F1 {n:.2f}, {n:.1f}.", 0.126, "F1 0.13, 0.1."),
        ("of {n}", "tRNA", "of tRNA"),
        ("lead {n:.2f}", -0.5, "lead −0.50"),
        ("{n}", "rho -0.8 (-0.9 to -0.7) of L1-6, RF1-2", "rho −0.8 (−0.9 to −0.7) of L1-6, RF1-2"),
    ],
)
def test_placeholders_become_numbers(caption, value, expected):
    assert both(caption, {"n": value}) == (expected, expected)


def test_features_and_layers_are_names():
    assert (
        both("feature {feature} of layer {layer}, n = {n}", {"feature": 7783, "layer": 1033, "n": 7783})[0]
        == "feature 7783 of layer 1033, n = 7,783"
    )


def test_a_string_in_a_caption_is_text_whatever_it_holds():
    nasty = "<script>*a*_b_`c`[d](e) {f}$g$"
    caption, alternative = both("On {name}.", {"name": nasty})
    assert not re.search(r"[<>*_`\[\](){}$]", caption.replace("(e)", ""))
    assert alternative == f"On {nasty}."
    import html

    assert html.unescape(caption) == f"On {nasty}."


@pytest.mark.parametrize(
    "words, numbers, message",
    [
        ("{n} and {m}", {"n": 1}, r"figure fig-points: .*\{m\}.* given n$"),
        ("{m}", {}, r"figure fig-points: .*\{m\}.* no numbers"),
        ("{n:.1q}", {"n": 1}, r"figure fig-points: .*\{n:.1q\}"),
        ("a { b", {"n": 1}, "figure fig-points: .*'a { b'"),
        ("{n!r}", {"n": 1}, "figure fig-points: .*{n!r}"),
        ("{n.real}", {"n": 1}, "figure fig-points: .*{n.real}"),
    ],
)
@pytest.mark.parametrize("markdown", [True, False])
def test_a_caption_that_cannot_be_filled_says_why(words, numbers, message, markdown):
    with pytest.raises(NotebookError, match=message):
        filled(words, numbers, "fig-points", markdown)


def published_cell(*figures: str, **metadata):
    """A cell whose figures have their captions from `publish`, each displayed below its figure, too."""
    outputs = []
    for figure in figures:
        record = {"figure": figure, "caption": "7,000 points", "alt": "7,000 dots"}
        below = {"sae_rna": {"caption_of": figure}}
        outputs.append(new_output("display_data", {"text/html": "<p>"}, metadata={"sae_rna": record}))
        outputs.append(new_output("display_data", {"text/markdown": "7,000 points"}, metadata=below))
    return new_code_cell("publish(...)", metadata=metadata, outputs=outputs)


def test_a_caption_given_to_publish_becomes_the_figures_in_the_book_and_stands_there_once():
    cell = published_cell("fig-points", tags=["hide-input"])
    fill_captions(new_notebook(cells=[cell]))
    options = cell.metadata.mystnb
    assert options.figure.name == "fig-points" and options.figure.caption == "7,000 points"
    assert options.image == {"alt": "7,000 dots"} and cell.metadata.tags == ["hide-input"]
    assert [output.data for output in cell.outputs] == [{"text/html": "<p>"}]


def test_other_options_of_the_cell_stay():
    options = {"figure": {"align": "left"}, "image": {"width": "80%"}, "remove_code_source": True}
    cell = published_cell("fig-points", mystnb=options)
    fill_captions(new_notebook(cells=[cell]))
    assert cell.metadata.mystnb.figure.align == "left" and cell.metadata.mystnb.remove_code_source
    assert cell.metadata.mystnb.image == {"width": "80%", "alt": "7,000 dots"}


def test_two_figures_of_one_cell_are_refused_and_one_without_caption_is_left_alone():
    with pytest.raises(NotebookError, match="published fig-one, fig-two"):
        fill_captions(new_notebook(cells=[published_cell("fig-one", "fig-two")]))
    cell = published_cell("fig-points")
    cell.outputs[0].metadata["sae_rna"]["caption"] = ""
    fill_captions(new_notebook(cells=[cell]))
    assert "mystnb" not in cell.metadata
