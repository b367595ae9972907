"""Structural elements: known answers by hand, invariants, and agreement with bpRNA on real RNAs; folding."""

import builtins

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_rna.records import structure
from sae_rna.records.readers import read_records
from sae_rna.records.structure import (
    CANONICAL_PAIRS,
    ELEMENTS,
    add_elements,
    dot_bracket,
    element_string,
    fold,
    pair_table,
    split_pseudoknots,
)


@pytest.mark.parametrize(
    ("structure", "elements"),
    [
        ("((((...))))", "SSSSHHHSSSS"),
        ("..(((....)))...", "EESSSHHHHSSSEEE"),
        ("((.((...))))", "SSBSSHHHSSSS"),
        ("((.((...)).))", "SSISSHHHSSISS"),
        ("((..((...)).((...))))", "SSMMSSHHHSSMSSHHHSSSS"),
        ("((...))..((...))", "SSHHHSSXXSSHHHSS"),
        (".......", "EEEEEEE"),
        ("((..[[.))..]]", "SSHHKKHSSEEKK"),
    ],
)
def test_elements_of_textbook_structures(structure, elements):
    assert element_string(structure) == elements


@pytest.mark.parametrize(
    ("structure", "nested"),
    [
        ("((..[[[[.))..]]]]", "....((((.....))))"),  # the longer helix, whatever brackets it has
        ("[[..((((.]]..))))", "....((((.....))))"),
        ("((.((..[[[.)).)).]]]", "((.((......)).))...."),  # a bulge or internal loop ends no helix here
        ("((..[[.))..]]", "((.....))...."),  # of two alike, the first
        ("AA..((.aa..))", "((.....))...."),
        ("((.AA...aa.))", "((.((...)).))"),  # crosses nothing
    ],
)
def test_a_pseudoknot_is_what_crosses_whatever_bracket_writes_it(structure, nested):
    assert dot_bracket(split_pseudoknots(structure)[0]) == nested
    again = dot_bracket(pair_table(structure))
    assert (pair_table(again) == pair_table(structure)).all()
    assert element_string(again) == element_string(structure)


@given(st.permutations(range(12)), st.integers(0, 6))
def test_every_pair_table_is_read_back_from_its_dot_bracket(order, pairs):
    partner = np.full(12, -1)
    for i, j in zip(order[: 2 * pairs : 2], order[1 : 2 * pairs : 2]):
        partner[i], partner[j] = j, i
    assert pair_table(dot_bracket(partner)).tolist() == partner.tolist()


def test_elements_of_a_long_rna_with_thousands_of_bulges():
    structure = "((." * 2000 + "...." + "))" * 2000
    assert element_string(structure) == "SSB" * 1999 + "SSHHHHH" + "SS" * 2000


@pytest.mark.parametrize(
    ("structure", "position"),
    [
        ("((...)", "position 1 has no partner"),
        ("(...))", "position 6 has no partner"),
        ("((.!.))", "position 4 is no dot-bracket symbol"),
    ],
)
def test_a_broken_structure_names_the_position(structure, position):
    with pytest.raises(ValueError, match=position):
        pair_table(structure)


@st.composite
def nested_structures(draw):
    text = draw(
        st.recursive(
            st.integers(3, 6).map(lambda n: "." * n),
            lambda inner: st.lists(
                st.tuples(st.integers(1, 4), inner, st.integers(0, 3)).map(
                    lambda t: "." * t[2] + "(" * t[0] + t[1] + ")" * t[0]
                ),
                min_size=1,
                max_size=3,
            ).map("".join),
            max_leaves=6,
        )
    )
    return text


@given(nested_structures())
def test_elements_cover_every_nucleotide_and_stems_are_exactly_the_paired_ones(structure):
    elements = element_string(structure)
    partner = pair_table(structure)
    assert len(elements) == len(structure)
    assert set(elements) <= set(ELEMENTS)
    assert [letter == "S" for letter in elements] == list(partner >= 0)
    assert dot_bracket(partner) == structure
    paired = np.flatnonzero(partner >= 0)
    assert (partner[partner[paired]] == paired).all()


@given(nested_structures(), st.integers(10, 40))
def test_a_long_structure_that_is_cut_at_pairs_has_the_elements_of_the_whole(text, longest):
    whole = element_string(text)
    element_string.cache_clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(structure, "LONGEST_AT_ONCE", longest)
        cut = element_string(text)
    element_string.cache_clear()
    assert cut == whole


@given(nested_structures())
def test_a_hairpin_loop_is_what_one_pair_closes_without_another_inside(structure):
    partner, elements = pair_table(structure), element_string(structure)
    closed = np.zeros(len(structure), bool)
    for i, j in enumerate(partner):
        if j > i and (partner[i + 1 : j] < 0).all():
            closed[i + 1 : j] = True
    assert [letter == "H" for letter in elements] == list(closed)


def test_elements_of_real_structures_are_bprnas_on_all_but_pseudoknots(shared_data):
    records = pd.read_parquet(shared_data / "bprna-90-short.parquet")
    others = []
    for row in records.itertuples():
        ours = element_string(row.secondary_structure)
        differ = {mine for mine, theirs in zip(ours, row.structural_annotation) if mine != theirs}
        others += [row.id] * (not differ <= {"K"})
    assert len(others) <= 1, "of two crossing helices that are alike bpRNA takes the second"


HAIRPIN = {"id": "one", "sequence": "GGCAAAAGCC", "secondary_structure": "(((....)))"}
KNOTTED = {"id": "two", "sequence": "GGGAACCCAACCCUUGGG", "secondary_structure": "(((..[[[..)))..]]]"}


def test_elements_are_added_only_where_they_can_be_and_are_not():
    frame = pd.DataFrame([HAIRPIN, KNOTTED])
    assert add_elements(frame).element.tolist() == [
        "SSSHHHHSSS",
        element_string(KNOTTED["secondary_structure"]),
    ]
    assert add_elements(frame.drop(columns="secondary_structure")).equals(
        frame.drop(columns="secondary_structure")
    )
    assert add_elements(frame.assign(element="given")).element.tolist() == ["given", "given"]


def test_folding_says_where_its_structures_come_from(tmp_path):
    RNA = pytest.importorskip("RNA", reason="needs ViennaRNA")
    records = pd.DataFrame(
        {"id": ["hairpin", "open", "n"], "sequence": ["GGGGCGAAAGCCCC", "AAAAAAAA", "GGGGCGNAAGCCCC"]}
    )
    folded = fold(records)
    assert folded.secondary_structure.tolist() == ["(((((....)))))", "........", "(((((....)))))"]
    assert set(folded.structure_source) == {f"predicted (ViennaRNA {RNA.__version__}, MFE)"}
    for row in folded.itertuples():
        assert all(
            j < 0 or row.sequence[i] + row.sequence[j] in CANONICAL_PAIRS
            for i, j in enumerate(pair_table(row.secondary_structure))
        )
    folded.to_parquet(tmp_path / "folded.parquet")
    with pytest.warns(UserWarning, match="letters other"):
        assert (
            read_records(tmp_path / "folded.parquet").structure_source.tolist()
            == folded.structure_source.tolist()
        )
    assert list(records) == ["id", "sequence"]


def test_known_structures_are_left_as_they_are():
    records = pd.DataFrame({"id": ["a"], "sequence": ["GGAAAACC"], "secondary_structure": ["........"]})
    assert fold(records) is records


def test_folding_without_viennarna_names_the_remedy(monkeypatch):
    real = builtins.__import__
    monkeypatch.setattr(
        builtins, "__import__", lambda name, *rest: real("no_such_module" if name == "RNA" else name, *rest)
    )
    with pytest.raises(ImportError, match="pip install ViennaRNA.*leave fold false"):
        fold(pd.DataFrame({"id": ["a"], "sequence": ["ACGU"]}))
