"""A feature along example RNAs and on their drawn structure."""

import re

import numpy as np
import pandas as pd
import pytest
from charts import CLOVERLEAF, KNOT, LONG, svg_of, tracks_table
from drawn import all_rows, marks, texts
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_rna import figures
from sae_rna.records.structure import pair_table


@pytest.mark.parametrize("structure", [CLOVERLEAF, KNOT, "." * 7, "((...))"])
def test_every_nucleotide_and_every_pair_is_drawn_once(structure):
    table = tracks_table(structure)
    svg = svg_of(figures.feature_tracks(table))
    assert len(marks(svg, "circle")) == len(structure)
    cells = [label for label in marks(svg, "rect mark")]
    assert len(cells) == 2 * len(structure)  # activation, element
    for position, activation in zip(table.position, table.activation):
        mine = [label for label in cells + marks(svg, "circle") if f"position: {position};" in label]
        assert [float(re.search("activation: ([^;]+)", label)[1]) for label in mine] == pytest.approx(
            [activation] * 3, abs=6e-4
        )
    assert len(marks(svg, "rule mark")) == (pair_table(structure) >= 0).sum() // 2
    for base in "ACGU":
        assert texts(svg).count(base) == 2 * (table.base == base).sum()  # track and drawing


def test_a_long_rna_is_wrapped_into_rows_of_sixty():
    table = tracks_table(LONG)
    rows = all_rows(figures.feature_tracks(table))
    assert rows.groupby("top").size().tolist() == [60, 60, 30]
    assert rows["column"].max() == 59


def test_rnas_are_drawn_in_the_order_of_the_table():
    table = pd.concat([tracks_table(KNOT, "second"), tracks_table(CLOVERLEAF, "first")])
    titles = [
        panel["title"]["text"]
        for panel in figures.feature_tracks(table).to_dict()["vconcat"]
        if "title" in panel
    ]
    assert titles == ["second of a family", "first of a family"]


def test_every_rna_says_which_it_is_among_how_many():
    spec = figures.feature_tracks(tracks_table(KNOT)).to_dict()
    (panel,) = [panel for panel in spec["vconcat"] if "title" in panel]
    assert panel["title"]["subtitle"] == "feature 2053 of L18, best of 3 RNAs, 21 nt"
    assert "best of 3 RNAs" in spec["description"] and "title" not in spec


def test_a_feature_that_does_not_pass_is_said_to_be_the_best_there_is_in_title_and_description():
    table = tracks_table(KNOT).assign(fault="its 95 % interval reaches chance")
    spec = figures.feature_tracks(table).to_dict()
    assert spec["title"]["text"].startswith("No single stem feature passes")
    assert "its 95 % interval reaches chance" in spec["title"]["subtitle"]
    assert spec["title"]["text"] in spec["description"]


def test_a_hairpin_lies_with_its_five_prime_strand_on_top():
    structure = "((((((((((....))))))))))"
    place = figures.layout(structure)
    assert np.ptp(place.x) > 2 * np.ptp(place.y)
    assert place.x[:10].is_monotonic_increasing and place.x[14:].is_monotonic_decreasing
    assert (place.y[:10].to_numpy() > place.y[14:][::-1].to_numpy()).all()


def test_a_cloverleaf_hangs_from_its_ends():
    place = figures.layout(CLOVERLEAF)
    partner = pair_table(CLOVERLEAF)
    ends, anticodon = place.y[[0, partner[0]]].mean(), place.y[31:38].mean()
    assert ends > place.y.mean() > anticodon
    assert place.x[0] < place.x[partner[0]]  # 5' on the left
    assert place.x[13:21].mean() < place.x.mean() < place.x[52:60].mean()  # D arm left, T arm right


def helix(inside):
    return st.tuples(st.integers(2, 6), inside).map(lambda part: "(" * part[0] + part[1] + ")" * part[0])


def branch(inside):
    parts = st.lists(helix(inside), min_size=1, max_size=3)
    return parts.map(lambda parts: "." + "..".join(parts) + ".")


def nested(draw_depth: int = 3):
    loop = st.integers(3, 7).map(lambda n: "." * n)
    return st.recursive(loop, branch, max_leaves=draw_depth)


@given(nested())
@settings(max_examples=30)
def test_drawn_pairs_and_neighbours_keep_their_distance(structure):
    place = figures.layout(structure).to_numpy()
    assert place.shape == (len(structure), 2) and np.isfinite(place).all()
    partner = pair_table(structure)
    paired = partner >= 0
    across = np.linalg.norm(place[paired] - place[partner[paired]], axis=1)
    along = np.linalg.norm(np.diff(place, axis=0), axis=1)
    assert (np.abs(across - 1) < 0.3).all()
    assert (along > 0.4).all() and (along < 1.7).all()


def test_layout_of_a_simple_helix_keeps_pairs_exactly_one_step_apart():
    structure = "((((((((....))))))))"
    place, partner = figures.layout(structure).to_numpy(), pair_table(structure)
    np.testing.assert_allclose(np.linalg.norm(place[:8] - place[partner[:8]], axis=1), 1, atol=0.02)


@pytest.mark.parametrize("length", [1, 2, 5])
def test_layout_of_tiny_and_unpaired_rnas(length):
    assert figures.layout("." * length).shape == (length, 2)


def test_layout_refuses_what_is_no_structure():
    with pytest.raises(ValueError):
        figures.layout("((..)")
