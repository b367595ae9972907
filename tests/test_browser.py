"""Annotated RNAs as text: coordinates by hand, and a structure that our own reader reads back."""

import numpy as np
import pandas as pd
import pytest

from sae_rna import browser
from sae_rna.records.places import Place
from sae_rna.records.readers import read_records

FEATURES = pd.DataFrame({"name": ["L1/7", "L2/0"], "label": ["stem; or not", ""], "maximum": [2.0, 1.0]})
RECORDS = pd.DataFrame(
    {
        "id": ["plus", "my RNA=1", "nowhere"],
        "sequence": ["GGAACC", "ACGUNA", "GAC"],
        "secondary_structure": ["((..))", "......", "(.)"],
    }
)
PLACED = [Place("chr1", "+", ((100, 106),)), Place("chr 2", "-", ((10, 12), (20, 24))), None]
# Of the second RNA, on the minus strand: nucleotides 1 to 6 stand at 23, 22, 21, 20, 11, 10.
VALUES = {
    "L1/7": [1.0, 0.5, 0, 0, 0, 3.0, 0, 0.1, 0.2, 0.4, np.nan, 0.8, 2.0, 0, 0],
    "L2/0": [0.0, 0, 0, 0, 0, 0, 0.25, 0, 0, 0, np.nan, 0, 0, 0, 1.0],
}


@pytest.fixture
def part():
    letters = list("".join(RECORDS.sequence))
    positions = [at for sequence in RECORDS.sequence for at in range(1, len(sequence) + 1)]
    columns = {
        "id": RECORDS.id.repeat(RECORDS.sequence.str.len()).to_numpy(),
        "position": positions,
        "base": letters,
    }
    table = pd.DataFrame(columns | {name: np.float32(of) for name, of in VALUES.items()})
    return browser.Part(RECORDS, PLACED, table, FEATURES)


def test_bedgraph_has_the_activation_at_every_position_from_0_in_ascending_order(part):
    found = [line.split("\t") for line in browser.bedgraph(part, "L1/7").splitlines()]
    assert [(of[0], int(of[1]), int(of[2]), float(of[3])) for of in found] == [
        ("chr1", 100, 101, 1.0), ("chr1", 101, 102, 0.5), ("chr1", 105, 106, 3.0),
        ("chr 2", 10, 11, 0.8), ("chr 2", 20, 21, 0.4), ("chr 2", 21, 22, 0.2), ("chr 2", 22, 23, 0.1),
    ]  # fmt: skip


def test_bed12_has_a_block_for_every_stretch_and_none_over_an_intron(part):
    assert browser.bed(part).splitlines() == [
        "chr1\t100\t106\tplus|L1/7\t1000\t+\t100\t106\t0\t2\t2,1\t0,5",
        "chr 2\t10\t23\tmy_RNA=1|L1/7\t400\t-\t10\t23\t0\t2\t1,3\t0,10",
        "chr 2\t23\t24\tmy_RNA=1|L2/0\t250\t-\t23\t24\t0\t1\t1\t0",
    ]


def test_gff3_counts_from_1_and_escapes_what_would_end_an_attribute(part):
    assert browser.gff(part).splitlines() == [
        "chr1\tsae-rna\tsequence_feature\t101\t102\t1\t+\t.\tID=plus|L1/7;Name=L1/7;Note=stem%3B%20or%20not",
        "chr1\tsae-rna\tsequence_feature\t106\t106\t3\t+\t.\tID=plus|L1/7;Name=L1/7;Note=stem%3B%20or%20not",
        "chr%202\tsae-rna\tsequence_feature\t11\t11\t0.8\t-\t.\tID=my%20RNA%3D1|L1/7;Name=L1/7;Note=stem%3B%20or%20not",
        "chr%202\tsae-rna\tsequence_feature\t21\t23\t0.4\t-\t.\tID=my%20RNA%3D1|L1/7;Name=L1/7;Note=stem%3B%20or%20not",
        "chr%202\tsae-rna\tsequence_feature\t24\t24\t0.25\t-\t.\tID=my%20RNA%3D1|L2/0;Name=L2/0",
    ]


def test_marks_are_tenths_of_the_maximum_and_the_file_is_read_back_with_its_structures(part, tmp_path):
    text = browser.stockholm(part)
    marks = [line.split()[-1] for line in text.splitlines() if " L1/7 " in line]
    assert marks == ["52...9", ".0" + "12" + ".4", "9.."]  # 0.4 / 2 is two tenths
    (tmp_path / "marked.sto").write_text(text)
    read = read_records(tmp_path / "marked.sto")
    assert read.sequence.tolist() == RECORDS.sequence.tolist()
    assert read.secondary_structure.tolist() == RECORDS.secondary_structure.tolist()


def test_tsv_leaves_fields_of_other_letters_empty(part):
    lines = browser.tsv(part).splitlines()
    assert lines[0] == "plus\t1\tG\t1\t0" and lines[10] == "my RNA=1\t5\tN\t\t" and len(lines) == 15


def test_tracks_are_written_only_where_places_are_known():
    columns = ["id", "L1/7", "L2/0"]
    assert set(browser.files(FEATURES, columns, False)) == {"nucleotides.tsv", "marked.sto"}
    files = browser.files(FEATURES, columns, True)
    assert files["nucleotides.tsv"][0] == "id\tL1/7\tL2/0\n"
    assert files["L2-0.bedgraph"][0] == 'track type=bedGraph name="L2/0" description="L2/0"\n'
    assert files["features.gff3"][0] == "##gff-version 3\n" and "features.bed" in files
