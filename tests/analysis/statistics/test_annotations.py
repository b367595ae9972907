import numpy as np
import pandas as pd
import pytest
from analysis.statistics.samples import letters_of, quick, rows_of, runs, token_table
from hypothesis import given
from hypothesis import strategies as st

from sae_rna.analysis.statistics.annotations import annotate, annotate_elements, annotate_types
from sae_rna.records.structure import ELEMENTS, element_string, split_pseudoknots


def records_of(*pairs, **columns):
    """Records given by (sequence, structure), and their token table."""
    records = pd.DataFrame(pairs, columns=["sequence", "secondary_structure"]).assign(**columns)
    rows = [
        (number, position, base, element)
        for number, (sequence, structure) in enumerate(pairs)
        for position, (base, element) in enumerate(zip(sequence, element_string(structure)))
    ]
    return records, pd.DataFrame(rows, columns=["record", "position", "base", "element"])


def instances_of(labels, concept):
    """Instances of a concept as lists of row numbers, from their numbers."""
    number_N = labels.instance_NC.toarray()[:, labels.concepts.index(concept)]
    return [np.flatnonzero(number_N == number).tolist() for number in np.unique(number_N[number_N > 0])]


@st.composite
def rna(draw):
    """A sequence and a nested structure of hairpin loops of 3 nt or more, with all other kinds of loops."""

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
    assert not labels.per_sequence and list(dict.fromkeys(labels.groups)) == [
        "element", "strand", "closing pair", "hairpin size", "tetraloop", "pair", "position",
    ]  # fmt: skip
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
    labels = annotate(tokens, records)
    assert {name: rows_of(labels, name) for name in labels.concepts if "tetraloop" in name} == {
        name: [2, 3, 4, 5] if name == f"{concept} tetraloop" else []
        for name in ("GNRA tetraloop", "UNCG tetraloop")
    }


@pytest.mark.parametrize(("length", "size"), [(2, None), (3, "3"), (5, "5"), (6, "6"), (7, "7+"), (12, "7+")])
def test_hairpin_loops_by_size(length, size):
    records, tokens = records_of(("C" + "A" * length + "G", "(" + "." * length + ")"))
    labels = annotate(tokens, records)
    loop = list(range(1, length + 1))
    sizes = [name for name, group in zip(labels.concepts, labels.groups) if group == "hairpin size"]
    assert {name: rows_of(labels, name) for name in sizes if rows_of(labels, name)} == (
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
    general, elements = annotate(tokens, records), annotate_elements(tokens)
    assert general.concepts[: len(ELEMENTS)] == tuple(ELEMENTS.values())
    assert elements.concepts == tuple(ELEMENTS)
    assert (general.members[:, : len(ELEMENTS)] != elements.members).nnz == 0
    assert [instances_of(general, name) for name in ELEMENTS.values()] == [
        instances_of(elements, letter) for letter in ELEMENTS
    ]


def test_elements_are_runs_of_a_letter_within_a_record():
    labels = annotate_elements(token_table(["EESSHHHSSE", "ESS"]))
    numbers = labels.instance_NC.data
    assert [(numbers == number).sum() for number in dict.fromkeys(numbers)] == [2, 2, 3, 2, 1, 1, 2]
    assert letters_of(labels) == "EESSHHHSSEESS"
    counts = {"S": (3, 6), "H": (1, 3), "E": (3, 4)}
    found = dict(zip(labels.concepts, zip(labels.elements_C, labels.rows_C)))
    assert found == {letter: counts.get(letter, (0, 0)) for letter in ELEMENTS}


masks_and_borders = st.integers(1, 30).flatmap(
    lambda rows: st.tuples(
        st.lists(st.lists(st.booleans(), min_size=rows, max_size=rows), min_size=1, max_size=4),
        st.lists(st.booleans(), min_size=rows, max_size=rows),
    )
)


def labels_of(masks, borders):
    return runs(np.array(masks).T, np.cumsum([False, *borders[1:]]))


def plain_runs(mask, record_N):
    runs = []
    for row in np.flatnonzero(mask).tolist():
        if runs and runs[-1][-1] == row - 1 and record_N[row - 1] == record_N[row]:
            runs[-1].append(row)
        else:
            runs.append([row])
    return runs


@quick
@given(masks_and_borders)
def test_instances_of_overlapping_concepts_are_runs_within_a_record(case):
    labels = labels_of(*case)
    for concept, mask in zip(labels.concepts, case[0]):
        assert instances_of(labels, concept) == plain_runs(mask, labels.record_N)
    assert labels.rows_C.tolist() == [sum(mask) for mask in case[0]]
    assert labels.elements_C.tolist() == [len(plain_runs(mask, labels.record_N)) for mask in case[0]]
    numbers = labels.instance_NC.data
    assert sorted(set(numbers.tolist())) == list(range(1, len(set(numbers.tolist())) + 1))


def test_type_annotations_make_every_sequence_its_own_instance():
    labels = annotate_types(["b", "a", "a"], ["a", "b"])
    assert (
        labels.members.toarray().tolist() == [[False, True], [True, False], [True, False]]
        and labels.per_sequence
    )
    assert labels.elements_C.tolist() == labels.rows_C.tolist() == [2, 1]
