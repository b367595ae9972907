import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_rna.analysis.statistics.annotations import (
    SEQUENCE_GROUPS,
    TOKEN_GROUPS,
    Annotations,
    annotate,
    annotate_elements,
)
from sae_rna.records.structure import ELEMENTS, element_string, split_pseudoknots

quick = settings(deadline=None, max_examples=50)  # no deadline: a busy machine is no failure


def records_of(*pairs, **columns):
    """Records given by (sequence, structure), and their token table."""
    records = pd.DataFrame(pairs, columns=["sequence", "secondary_structure"]).assign(**columns)
    rows = [
        (number, position, base, element)
        for number, (sequence, structure) in enumerate(pairs)
        for position, (base, element) in enumerate(zip(sequence, element_string(structure)))
    ]
    return records, pd.DataFrame(rows, columns=["record", "position", "base", "element"])


def rows_of(labels, concept):
    """Numbers of the rows that have a concept."""
    return np.flatnonzero(labels.members.toarray()[:, labels.concepts.index(concept)]).tolist()


def instances_of(labels, concept):
    """Instances of a concept as lists of row numbers, from their numbers."""
    number_N = labels.instance_NC.toarray()[:, labels.concepts.index(concept)]
    return [np.flatnonzero(number_N == number).tolist() for number in np.unique(number_N[number_N > 0])]


@st.composite
def rna(draw):
    """A sequence and a nested structure whose hairpin loops have 3 nt or more, with ends, bulges, internal loops and multiloops."""

    def stretch(depth):
        unpaired = "." * draw(st.integers(0, 3))
        if not depth or not draw(st.integers(0, 3)):
            return unpaired
        stem = draw(st.integers(1, 3))
        inside = stretch(depth - 1) + stretch(depth - 1)
        inside = inside if "(" in inside else "." * draw(st.integers(3, 9))
        return unpaired + "(" * stem + inside + ")" * stem + stretch(depth - 1)

    structure = stretch(3) or "."
    return draw(st.text("ACGU", min_size=len(structure), max_size=len(structure))), structure


# --- concepts of nucleotides ----------------------------------------------------------------------------------------------------------


def test_concepts_of_a_structure_by_hand():
    records, tokens = records_of(("AAGCGGAAAUGCAAAGAUACCCAAACU", "..(((....)))..((.((...)).))"))
    labels = annotate(tokens, records)
    expected = {
        "stem": [2, 3, 4, 9, 10, 11, 14, 15, 17, 18, 22, 23, 25, 26],
        "hairpin loop": [5, 6, 7, 8, 19, 20, 21],
        "internal loop": [16, 24],
        "external loop": [12, 13],
        "end": [0, 1],
        "5' strand": [2, 3, 4, 14, 15, 17, 18],
        "3' strand": [9, 10, 11, 22, 23, 25, 26],
        "hairpin-closing pair": [4, 9, 18, 22],
        "helix-end pair": [2, 4, 9, 11, 14, 15, 17, 18, 22, 23, 25, 26],
        "hairpin loop of 3 nt": [19, 20, 21],
        "hairpin loop of 4 nt": [5, 6, 7, 8],
        "GNRA tetraloop": [5, 6, 7, 8],
        "GC pair": [2, 3, 10, 11, 15, 25],
        "AU pair": [14, 17, 23, 26],
        "GU pair": [4, 9],
        "strand start": [2, 9, 14, 17, 22, 25],
        "strand end": [4, 11, 15, 18, 23, 26],
        "strand middle": [3, 10],
    }
    assert {
        concept: rows_of(labels, concept) for concept in labels.concepts if rows_of(labels, concept)
    } == expected
    assert instances_of(labels, "helix-end pair") == [
        [2],
        [4],
        [9],
        [11],
        [14, 15],
        [17, 18],
        [22, 23],
        [25, 26],
    ]
    assert instances_of(labels, "stem") == [[2, 3, 4], [9, 10, 11], [14, 15], [17, 18], [22, 23], [25, 26]]
    assert not labels.per_sequence and set(labels.groups) == set(TOKEN_GROUPS)
    assert labels.groups[labels.concepts.index("GU pair")] == "pair"


@pytest.mark.parametrize(
    ("loop", "concept"),
    [
        ("GAAA", "GNRA"),
        ("GUGA", "GNRA"),
        ("GCAA", "GNRA"),
        ("UUCG", "UNCG"),
        ("UACG", "UNCG"),
        ("GAAG", None),
        ("GACA", None),
        ("UUUG", None),
    ],
)
def test_tetraloops_are_read_from_the_sequence(loop, concept):
    records, tokens = records_of(("CC" + loop + "GG", "((....))"), ("CC" + loop + "AGG", "((.....))"))
    labels = annotate(tokens, records, ["tetraloop"])
    assert {name: rows_of(labels, name) for name in labels.concepts} == {
        name: [2, 3, 4, 5] if name == f"{concept} tetraloop" else []
        for name in ("GNRA tetraloop", "UNCG tetraloop")
    }


@pytest.mark.parametrize(("length", "size"), [(2, None), (3, "3"), (5, "5"), (6, "6"), (7, "7+"), (12, "7+")])
def test_hairpin_loops_by_size(length, size):
    records, tokens = records_of(("C" + "A" * length + "G", "(" + "." * length + ")"))
    labels = annotate(tokens, records, ["hairpin size"])
    loop = list(range(1, length + 1))
    assert {name: rows_of(labels, name) for name in labels.concepts if rows_of(labels, name)} == (
        {f"hairpin loop of {size} nt": loop} if size else {}
    )


def test_a_pseudoknot_counts_for_the_size_of_its_loop_and_has_no_concept_of_pairs():
    records, tokens = records_of(("GGAACCAACCAAAAGGA", "((..[[..))....]]."))
    labels = annotate(tokens, records)
    assert rows_of(labels, "hairpin loop of 6 nt") == rows_of(labels, "hairpin loop") == [2, 3, 6, 7]
    assert rows_of(labels, "pseudoknot") == [4, 5, 14, 15] and rows_of(labels, "GC pair") == [0, 1, 8, 9]
    assert rows_of(labels, "hairpin-closing pair") == [1, 8]


@quick
@given(st.lists(rna(), min_size=1, max_size=3))
def test_concepts_agree_with_each_other_and_with_the_pairs(pairs):
    records, tokens = records_of(*pairs)
    labels = annotate(tokens, records)
    has = {name: set(rows_of(labels, name)) for name in labels.concepts}
    stem = has["stem"]
    assert (
        has["5' strand"] | has["3' strand"]
        == stem
        == has["strand start"] | has["strand end"] | has["strand middle"]
    )
    assert not has["5' strand"] & has["3' strand"] and not has["strand middle"] & (
        has["strand start"] | has["strand end"]
    )
    assert has["helix-end pair"] == has["strand start"] | has["strand end"]
    assert has["hairpin-closing pair"] <= has["helix-end pair"]
    sizes = [has[name] for name, group in zip(labels.concepts, labels.groups) if group == "hairpin size"]
    assert set().union(*sizes) == has["hairpin loop"] and sum(map(len, sizes)) == len(has["hairpin loop"])
    assert has["GNRA tetraloop"] | has["UNCG tetraloop"] <= has["hairpin loop of 4 nt"]
    assert len(has["strand start"]) == len(has["strand end"])
    start = 0
    for sequence, structure in pairs:  # pair by pair, in a plain loop
        partner = split_pseudoknots(structure)[0]
        for i, j in enumerate(partner):
            letters = "".join(sorted(sequence[i] + sequence[j])) if j >= 0 else ""
            for name, letters_of_pair in (("GC pair", "CG"), ("AU pair", "AU"), ("GU pair", "GU")):
                assert (start + i in has[name]) == (letters == letters_of_pair)
            if j > i:
                stacked = [
                    k for k in (-1, 1) if 0 <= i + k < j - k < len(partner) and partner[i + k] == j - k
                ]
                assert (
                    (start + i in has["strand middle"])
                    == (start + j in has["strand middle"])
                    == (len(stacked) == 2)
                )
                assert (start + i in has["hairpin-closing pair"]) == (
                    j - i > 1 and (partner[i + 1 : j] < 0).all()
                )
        start += len(sequence)


@quick
@given(st.lists(rna(), min_size=2, max_size=4), st.data())
def test_missing_nucleotides_and_records_leave_the_others_as_they_are(pairs, data):
    records, tokens = records_of(*pairs)
    whole = annotate(tokens, records).members.toarray()
    kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens))))
    part = annotate(tokens[kept], records)
    assert (part.members.toarray() == whole[kept]).all()
    assert part.record_N.tolist() == pd.factorize(tokens["record"][kept])[0].tolist()


def test_elements_are_those_of_annotate_elements():
    records, tokens = records_of(("GGAAAACCA", "((....)).."[:9]), ("GAAAC", "(...)"))
    general, elements = annotate(tokens, records, ["element"]), annotate_elements(tokens)
    assert general.concepts == tuple(ELEMENTS.values()) and elements.concepts == tuple(ELEMENTS)
    assert (general.instance_NC != elements.instance_NC).nnz == 0


# --- instances, shifts, permutations --------------------------------------------------------------------------------------------------

overlapping = st.integers(1, 30).flatmap(
    lambda rows: st.tuples(
        st.lists(st.lists(st.booleans(), min_size=rows, max_size=rows), min_size=1, max_size=4),
        st.lists(st.booleans(), min_size=rows, max_size=rows),
    )
)


def labels_of(masks, borders):
    record_N = np.cumsum([False, *borders[1:]])
    names = tuple(map(str, range(len(masks))))
    return Annotations.of(
        names, ("made up",) * len(masks), [np.flatnonzero(mask) for mask in masks], record_N
    )


def plain_runs(mask, record_N):
    runs = []
    for row in np.flatnonzero(mask).tolist():
        if runs and runs[-1][-1] == row - 1 and record_N[row - 1] == record_N[row]:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


@quick
@given(overlapping)
def test_instances_of_overlapping_concepts_are_runs_within_a_record(case):
    labels = labels_of(*case)
    for concept, mask in zip(labels.concepts, case[0]):
        assert instances_of(labels, concept) == plain_runs(mask, labels.record_N)
    assert labels.rows_C.tolist() == [sum(mask) for mask in case[0]]
    assert labels.elements_C.tolist() == [len(plain_runs(mask, labels.record_N)) for mask in case[0]]
    numbers = labels.instance_NC.data
    assert sorted(set(numbers.tolist())) == list(range(1, len(set(numbers.tolist())) + 1))


@quick
@given(overlapping, st.integers(0, 2**32))
def test_a_shift_turns_all_concepts_of_a_record_together(case, seed):
    labels = labels_of(*case)
    shifted = labels.shifted(np.random.default_rng(seed))
    before, after = labels.members.toarray(), shifted.members.toarray()
    for record in range(labels.record_N[-1] + 1):
        rows = labels.record_N == record
        turns = [np.roll(before[rows], -offset, axis=0) for offset in range(1, max(rows.sum(), 2))]
        assert any((after[rows] == turned).all() for turned in turns)
    assert (shifted.elements_C == labels.elements_C).all()


def test_records_of_one_family_are_shifted_alike():
    lengths = [101, 201, 101, 101]
    record_N = np.repeat(np.arange(4), lengths)
    first = np.cumsum([0, *lengths[:-1]])
    labels = Annotations.of(("first",), ("made up",), [first], record_N)
    for seed in range(5):
        places = (
            np.array(rows_of(labels.shifted(np.random.default_rng(seed), np.array([7, 7, 7, 3])), "first"))
            - first
        )
        assert places[0] == places[2] != places[3]
        assert abs(places[1] / 201 - places[0] / 101) < 2 / 101


def test_families_are_permuted_whole_and_single_sequences_one_by_one():
    type_S, family_S = np.array(list("aabbbc")), np.array([4, 4, 9, 9, 9, 2])
    labels = Annotations.of(
        tuple("abc"), ("type",) * 3, [np.flatnonzero(type_S == name) for name in "abc"], np.arange(6)
    )
    assert labels.per_sequence
    rng, by_family, one_by_one = np.random.default_rng(0), set(), set()
    for _ in range(800):
        by_family.add("".join("abc"[c] for c in labels.shuffled(rng, family_S).instance_NC.indices))
        one_by_one.add("".join("abc"[c] for c in labels.shuffled(rng).instance_NC.indices))
    assert by_family == {x * 2 + y * 3 + z for x, y, z in ("abc", "acb", "bac", "bca", "cab", "cba")}
    assert {"".join(sorted(letters)) for letters in one_by_one} == {"aabbbc"} and len(one_by_one) == 60


# --- concepts of sequences, and what is refused -----------------------------------------------------------------------------------------


def test_types_families_and_clans_are_concepts_of_sequences():
    records, tokens = records_of(
        *[("GAAAC", "(...)")] * 4,
        type=["x", "y", "y", None],
        family=["f", "g", "h", "g"],
        clan=["k", np.nan, "k", "k"],
    )
    labels = annotate(tokens[tokens.record != 1], records, SEQUENCE_GROUPS)
    assert labels.concepts == ("x", "y", "f", "g", "h", "k")
    assert labels.groups == ("type",) * 2 + ("family",) * 3 + ("clan",)
    assert [rows_of(labels, name) for name in labels.concepts] == [[0], [1], [0], [2], [1], [0, 1, 2]]
    assert labels.per_sequence and labels.elements_C.tolist() == [1, 1, 1, 1, 1, 3]


def test_annotations_that_do_not_fit_are_refused():
    records, tokens = records_of(("GAAAC", "(...)"), ("GAAAC", "(...)"), type=["x", "y"])
    with pytest.raises(ValueError, match="of nucleotides .* or of sequences .*, not stem"):
        annotate(tokens, records, ["stem"])
    with pytest.raises(ValueError, match="not element, type"):
        annotate(tokens, records, ["element", "type"])
    with pytest.raises(ValueError, match="not none"):
        annotate(tokens, records, [])
    with pytest.raises(ValueError, match="no column family"):
        annotate(tokens, records, ["type", "family"])
    with pytest.raises(ValueError, match="no column secondary_structure"):
        annotate(tokens, records.drop(columns="secondary_structure"))
    with pytest.raises(ValueError, match="tokens are of records up to 1, but there are 1"):
        annotate(tokens, records.iloc[:1])
    with pytest.raises(ValueError, match="record 1 has 5 nucleotides and a secondary structure of 4 symbols"):
        annotate(tokens, records.assign(secondary_structure=["(...)", "(..)"]))
    with pytest.raises(ValueError, match="record 0 has 5 nucleotides and a secondary structure of nothing"):
        annotate(tokens, records.assign(secondary_structure=[None, "(...)"]))
    with pytest.raises(ValueError, match="record 1, position 2: token and sequence differ"):
        annotate(tokens, records.assign(sequence=["GAAAC", "GCAAC"]))
    with pytest.raises(ValueError, match="record 0, position 5: token and sequence differ"):
        annotate(tokens, records.assign(sequence=["GAAA", "GAAAC"], secondary_structure=["(..)", "(...)"]))
    with pytest.raises(ValueError, match="record 0, position 1: 'Q' is no element"):
        annotate(tokens.assign(element=["Q", *"HHHS", *"SHHHS"]), records)
