"""Pictures of single features: heights, counts and colours with known answers, and nothing unescaped."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from sae_rna.figures import atlas


def test_a_histogram_says_every_count():
    counts = np.array([120, 0, 7, 1])
    svg = atlas.histogram(counts, 2.0)
    assert [int(n) for n in re.findall(r"<title>[^:]*: (\d+)</title>", svg)] == counts.tolist()
    heights = [float(h) for h in re.findall(r'<rect[^>]* height="([\d.]+)"', svg)]
    assert_allclose(np.diff(np.argsort(heights)), np.diff(np.argsort(counts)))
    assert heights[1] == 0


@pytest.mark.parametrize(
    ("shares", "bits"),
    [
        ([1, 0, 0, 0], [2, 0, 0, 0]),
        ([0.5, 0.5, 0, 0], [0.5, 0.5, 0, 0]),
        ([0.25] * 4, [0] * 4),
        ([np.nan] * 4, [0] * 4),
    ],
)
def test_letters_are_as_high_as_their_information(shares, bits):
    assert_allclose(atlas.information(np.array([shares])), [bits], atol=1e-9)


def test_a_logo_draws_the_letters_that_say_something():
    shares = np.full((11, 4), 0.25)
    shares[5] = [0, 0, 1, 0]
    assert re.findall(r'<use href="#(\w)"', atlas.peak_logo(shares)) == ["G"]


def example(sequence="GGGAAACCC", structure="(((...)))", share=None, marked=None, name="tRNA"):
    share = np.zeros(len(sequence)) if share is None else np.array(share)
    marked = np.zeros(len(sequence), bool) if marked is None else np.array(marked)
    return SimpleNamespace(
        name=name, split="heldout", sequence=sequence, structure=structure, share_L=share, marked_L=marked
    )


def test_an_rna_is_coloured_by_activation_and_its_concept_underlined():
    html = atlas.rna(example("GGA", "(.)", [1.0, 0, 0.01], [True, True, False]))
    assert "<b class=a9>G</b>G<b class=a1>A</b>\n" in html
    assert '<b class="m a9">(</b><b class=m>.</b><b class=a1>)</b>' in html
    assert "unseen families: 100% of the maximum" in html


def test_the_letters_of_an_rna_are_all_there_in_order():
    rng = np.random.default_rng(0)
    sequence, structure = "".join(rng.choice(list("ACGU"), 37)), "." * 37
    html = atlas.rna(example(sequence, structure, rng.random(37) * (rng.random(37) < 0.5)))
    chunks = [re.sub("<[^>]*>", "", chunk) for chunk in re.findall(r"<span>(.*?)</span>", html, re.S)]
    assert "".join(chunk.split("\n")[0] for chunk in chunks) == sequence
    assert "".join(chunk.split("\n")[1] for chunk in chunks) == structure


def test_a_name_with_a_script_is_escaped():
    html = atlas.rna(example(name="<script>alert(1)</script>"))
    assert "<script>" not in html and "&lt;script&gt;" in html and "silent" in html
