"""Places of RNAs on chromosomes: counted from 0 or 1, on either strand, in one or several exons."""

import pandas as pd
import pytest

from sae_rna.records.places import Place, of_name, places


@pytest.mark.parametrize(
    ("name", "length", "expected"),
    [
        ("chr1:100-104", 4, Place("chr1", ".", ((100, 104),))),  # bedtools getfasta: from 0, end excluded
        ("chr1:100-104(-)", 4, Place("chr1", "-", ((100, 104),))),
        ("tRNA::chr1:100-104(+)", 4, Place("chr1", "+", ((100, 104),))),
        ("chr1:101-104", 4, Place("chr1", ".", ((100, 104),))),  # samtools faidx: from 1, end included
        ("AB0001.1/101-104", 4, Place("AB0001.1", "+", ((100, 104),))),  # Rfam: from 1
        ("5S_rRNA/AB0001.1/104-101", 4, Place("AB0001.1", "-", ((100, 104),))),  # and backwards
        ("chr1:0-3", 4, None),  # 0 is no first position if positions count from 1
        ("chr1:100-104", 9, None),
        ("chr1:104-100", 4, None),
        ("bpRNA_RFAM_25894", 4, None),
    ],
)
def test_a_name_tells_the_place_and_the_length_whether_it_counts_from_0_or_1(name, length, expected):
    assert of_name(name, length) == expected


def test_an_rna_on_the_minus_strand_begins_at_its_highest_position():
    assert Place("c", "-", ((2, 4), (7, 9))).positions.tolist() == [8, 7, 3, 2]
    assert Place("c", ".", ((2, 4), (7, 9))).positions.tolist() == [2, 3, 7, 8]


RNAS = pd.DataFrame({"id": ["one", "two", "three"], "sequence": ["ACGU", "ACGUA", "AC"]})


def test_a_bed_file_gives_places_by_name_and_its_blocks_are_exons(tmp_path):
    file = tmp_path / "rnas.bed"
    file.write_text(
        "track name=x\n#\n\nchr2\t10\t20\ttwo\t0\t-\t10\t20\t0\t2\t2,3,\t0,7,\nchr1\t5\t9\tone\nchr9\t1\t9\tother\n"
    )
    two = Place("chr2", "-", ((10, 12), (17, 20)))
    assert places(RNAS, file) == [Place("chr1", ".", ((5, 9),)), two, None]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("chr1\t5\t9\tone\nchr1\t9\t5\ttwo\n", r"line 2 is no place: .*write chromosome"),
        ("chr1 5 9 one\n", "line 1 is no place"),
        ("chr1\t5\t9\n", "line 1 is no place"),
        ("chr1\t-1\t3\tone\n", "line 1 is no place"),
        ("chr1\t5\t9\tone\t0\t*\n", "line 1 is no place"),
        ("chr1\t5\t9\tone\t0\t+\t5\t9\t0\t2\t3,3\t0,1\n", "line 1 is no place"),  # exons overlap
        (
            "chr1\t5\t9\tone\nchr2\t5\t9\tone\n",
            "line 2: 'one' has a place in line 1, too; give every RNA one",
        ),
        ("chr1\t5\t8\tone\n", "line 1: the place of record 'one' has 3 nt, the record 4; mend"),
        ("chr1\t5\t9\tother\n", "no place of any RNA.*such as one"),
    ],
)
def test_a_faulty_bed_file_is_refused_with_its_line_and_the_remedy(tmp_path, text, fault):
    (tmp_path / "rnas.bed").write_text(text)
    with pytest.raises(ValueError, match=fault):
        places(RNAS, tmp_path / "rnas.bed")


def test_names_like_places_of_other_lengths_give_none_and_one_warning_counts_them():
    rnas = pd.DataFrame({"id": ["chr1:0-4", "chr1:0-9", "X1/1-9"], "sequence": ["ACGU"] * 3})
    with pytest.warns(UserWarning, match="2 RNAs have names like places.*such as chr1:0-9: they get no"):
        assert places(rnas) == [Place("chr1", ".", ((0, 4),)), None, None]
