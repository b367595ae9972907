"""Known answers for every format, what was written read back, broken files, and real data."""

import gzip
import re

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rna_files import HAIRPIN, KNOTTED, as_dicts, ct, refusal, write

from sae_rna.records.readers import project, read_records
from sae_rna.records.structure import CANONICAL_PAIRS, add_elements, element_string, pair_table

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # who warns is expected to, with pytest.warns


# ---- one known answer per format


def test_fasta_joins_lines_and_takes_the_first_word_as_id(tmp_path):
    path = write(tmp_path, "a.fasta", ">one described here\nGGCA\nAAAG\n\n; a comment\nCC\n>two\nACGU\n")
    assert as_dicts(read_records(path)) == [
        {"id": "one", "sequence": "GGCAAAAGCC"},
        {"id": "two", "sequence": "ACGU"},
    ]


def test_gzipped_fasta(tmp_path):
    path = tmp_path / "a.fa.gz"
    path.write_bytes(gzip.compress(b">one\nACGU\n"))
    assert as_dicts(read_records(path)) == [{"id": "one", "sequence": "ACGU"}]


def test_sequence_without_a_name_is_called_like_its_file(tmp_path):
    assert read_records(write(tmp_path, "my.rna.fa", "ACGU\n")).id.tolist() == ["my.rna"]


@pytest.mark.parametrize("name", ["a.dbn", "a.db", "a.DBN"])
def test_dot_bracket_with_and_without_free_energy(tmp_path, name):
    text = ">one\nGGCAAAAGCC\n(((....))) ( -1.20)\n>two knotted\nGGGAACCCAACCCUUGGG\n(((..[[[..)))..]]]\n"
    assert as_dicts(read_records(write(tmp_path, name, text))) == [HAIRPIN, KNOTTED]


def test_bpseq(tmp_path):
    rows = zip(range(1, 11), "GGCAAAAGCC", [10, 9, 8, 0, 0, 0, 0, 3, 2, 1], strict=True)
    path = write(tmp_path, "one.bpseq", "# a comment\n" + "".join(f"{i} {base} {j}\n" for i, base, j in rows))
    assert as_dicts(read_records(path)) == [HAIRPIN]


def test_ct(tmp_path):
    assert as_dicts(read_records(write(tmp_path, "a.ct", ct("ENERGY = -1.2 one")))) == [HAIRPIN]


def test_ct_of_several_structures_is_refused_rather_than_cut(tmp_path):
    message = refusal(write(tmp_path, "a.ct", ct("one") + ct("one")))
    assert "a.ct" in message and "10 nucleotides of the first structure" in message


def test_st_keeps_the_annotation_of_bprna(tmp_path):
    text = "#Name: one\n#Length: 10\n#PageNumber: 1\nGGCAAAAGCC\n(((....)))\n"
    text += 'SSSHHHHSSS\nNNNNNNNNNN\nS1 1..3 "GGC" 8..10 "GCC"\n'
    assert as_dicts(read_records(write(tmp_path, "one.st", text))) == [
        HAIRPIN | {"structural_annotation": "SSSHHHHSSS"}
    ]


def test_folder_is_read_in_the_order_of_its_names(tmp_path):
    write(tmp_path, "b.ct", ct("second"))
    write(tmp_path, "a.dbn", ">first\nGGCAAAAGCC\n(((....)))\n")
    write(tmp_path, "README.txt", "no record")
    assert read_records(tmp_path).id.tolist() == ["first", "second"]


STOCKHOLM = """# STOCKHOLM 1.0
#=GF ID   little
#=GF TP   Gene; snRNA; snoRNA; CD-box;
whole/1-16        GGGAACCCAAAGGCCC
gapped/1-13       GGGAACCCA.-GG-CC
torn/1-15         AGG-AcccaaagGCCC
#=GC SS_cons      <<<._AA.___aa>>>
//
"""


def test_stockholm_projects_the_consensus_and_knows_family_and_type(tmp_path):
    records = read_records(write(tmp_path, "a.sto", STOCKHOLM))
    assert records.family.eq("little").all() and records.type.eq("CD-box").all()
    assert records.set_index("id")[["sequence", "secondary_structure"]].agg(tuple, axis=1).to_dict() == {
        "whole/1-16": ("GGGAACCCAAAGGCCC", "(((..((....)))))"),
        # one partner is a gap, and two that remain enclose only two nucleotides
        "gapped/1-13": ("GGGAACCCAGGCC", "((...(....)))"),
        # A and C do not pair; lower case and a gap in a loop change nothing
        "torn/1-15": ("AGGACCCAAAGGCCC", ".((.((....))))."),
    }


def test_stockholm_of_several_families_puts_the_family_into_the_id(tmp_path):
    records = read_records(write(tmp_path, "a.stk", STOCKHOLM + STOCKHOLM.replace("little", "large")))
    assert records.id.tolist()[::3] == ["little/whole/1-16", "large/whole/1-16"]
    assert records.family.value_counts().to_dict() == {"little": 3, "large": 3}


def test_stockholm_without_a_consensus_has_sequences_only(tmp_path):
    text = re.sub("#=G[CF].*\n", "", STOCKHOLM)
    assert list(read_records(write(tmp_path, "a.sto", text))) == ["id", "sequence"]


@pytest.mark.parametrize("consensus", ["<<<._[[.__>>>.]]", "AAA._((.__aaa.))", "(((.,<<:~~))).>>"])
def test_a_consensus_may_cross_in_any_brackets(tmp_path, consensus):
    text = f"# STOCKHOLM 1.0\na GGGAACCAAACCCAGG\n#=GC SS_cons {consensus}\n//\n"
    (record,) = as_dicts(read_records(write(tmp_path, "a.sto", text)))
    assert record["secondary_structure"] == "(((..[[...))).]]"


ROWS = """# STOCKHOLM 1.0
#=GF CC what nobody reads
#=GS a AC X00001
a GGGAAAUCCC
#=GR a SS <<<....>>>
#=GR a PP 9
b GGG-AAUCCC
#=GR b SS <<<-...>>>
c GAG-AAUCCC
#=GC RF x
#=GC SS_cons <<......>>
//
"""


def test_a_rows_own_structure_goes_before_the_consensus_and_unused_lines_stop_nothing(tmp_path):
    records = read_records(write(tmp_path, "a.sto", ROWS)).set_index("id").secondary_structure
    assert records.to_dict() == {"a": "(((....)))", "b": "(((...)))", "c": "(.......)"}
    without = re.sub("(c |#=GC).*\n", "", ROWS)
    records = read_records(write(tmp_path, "a.sto", without))
    assert records.secondary_structure.tolist() == ["(((....)))", "(((...)))"]


def test_wrapped_alignments_are_joined(tmp_path):
    text = "# STOCKHOLM 1.0\n\na GGGA\n#=GR a SS <<<.\n#=GC SS_cons <<<.\n\n"
    text += "a AAUCCC\n#=GR a SS ...>>>\n#=GC SS_cons ...>>>\n//\n"
    assert as_dicts(read_records(write(tmp_path, "a.sto", text))) == [
        {"id": "a", "sequence": "GGGAAAUCCC", "secondary_structure": "(((....)))"}
    ]


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("#=GR b SS <<<-...>>>", "#=GR b SS <<<..>>>", "record b has 8 symbols of SS for 10 columns in line 8"),
        ("#=GR b SS <<<-...>>>", "#=GR b SS <<<...H>>>", "record b has a faulty SS in line 8: 'H' at position 7"),
        ("SS_cons <<......>>", "SS_cons <<......>", "the consensus has 9 symbols of SS for 10 columns in line 11"),
        ("b GGG-AAUCCC", "b GGGAAUCCC", "record b (line 7) has 9 columns, and the first row 10"),
        ("b GGG-AAUCCC", "b GGG AAUCCC", "line 7 is no name with its aligned sequence"),
        ("# STOCKHOLM 1.0", "a", "the first line is not"),
    ],
)  # fmt: skip
def test_a_fault_in_stockholm_names_file_record_and_line(tmp_path, old, new, said):
    path = write(tmp_path, "a.sto", ROWS.replace(old, new))
    assert said in refusal(path) and str(path) in refusal(path)


def test_what_stockholm_loses_is_said(tmp_path):
    with pytest.warns(UserWarning, match="a.sto: the last alignment does not end with //"):
        read_records(write(tmp_path, "a.sto", ROWS.replace("//", "")))
    with pytest.warns(UserWarning, match="structures of z are dropped: there are no such rows"):
        read_records(write(tmp_path, "a.sto", ROWS.replace("//", "#=GR z SS ..\n//")))


def test_alignments_without_a_name_have_their_number(tmp_path):
    block = "# STOCKHOLM 1.0\n{}a GGGAAAUCCC\n//\n"
    blocks = block.format("") + block.format("#=GF AC RF00005\n") + block.format("")
    records = read_records(write(tmp_path, "a.sto", blocks))
    assert records.id.tolist() == ["alignment-1/a", "RF00005/a", "alignment-3/a"]


@pytest.mark.parametrize("structure", ["((..[[[.))..]]]", "[[..(((.]]..)))", "((....)).((...))"])
def test_the_same_rna_has_the_same_elements_in_every_format(tmp_path, structure):
    sequence, partner = "G" * len(structure), pair_table(structure) + 1
    rows = [(i, "G", int(j)) for i, j in enumerate(partner, 1)]
    texts = {
        "bpseq": "".join(f"{i} {base} {j}\n" for i, base, j in rows),
        "ct": f"{len(rows)} r\n" + "".join(f"{i} {base} 0 0 {j} 0\n" for i, base, j in rows),
        "dbn": f">r\n{sequence}\n{structure}\n",
        "st": f"#Name: r\n#Length: 3\n{sequence}\n{structure}\n",
        "sto": f"# STOCKHOLM 1.0\nr {sequence}\n#=GR r SS {structure}\n//\n",
    }
    for suffix, text in texts.items():
        records = add_elements(read_records(write(tmp_path, f"a.{suffix}", text)))
        assert records.element.tolist() == [element_string(structure)], suffix


@pytest.mark.parametrize(("name", "separator"), [("a.csv", ","), ("a.tsv", "\t")])
def test_tables_map_public_names_and_keep_the_rest(tmp_path, name, separator):
    text = "urs,rna_class,rfam_family,sequence,reads\nNA,tRNA,RF00005,ACGU,3\n007,tRNA,,CCCC,4\n"
    records = read_records(write(tmp_path, name, text.replace(",", separator)))
    assert list(records) == ["id", "type", "family", "sequence", "reads"]
    assert records.id.tolist() == ["NA", "007"]
    assert records.reads.tolist() == [3, 4]
    assert records.family.isna().tolist() == [False, True]


def test_parquet_gives_back_what_was_written(tmp_path):
    path = tmp_path / "a.parquet"
    frame = pd.DataFrame([HAIRPIN, KNOTTED]).assign(type=["tRNA", "snRNA"])
    frame["element"] = frame.secondary_structure.map(element_string)
    frame.to_parquet(path)
    pd.testing.assert_frame_equal(read_records(path), frame)


# ---- reading back what was written

names = st.text("abcXYZ019_/.-", min_size=1, max_size=12)


@st.composite
def structures(draw):
    """Nested structures of up to three levels, hairpin loops of 3 nt or more."""
    hairpin = st.builds(
        lambda stem, loop: "(" * stem + "." * loop + ")" * stem, st.integers(1, 5), st.integers(3, 6)
    )
    joined = st.lists(
        st.one_of(hairpin, st.integers(1, 4).map(lambda n: "." * n)), min_size=1, max_size=4
    ).map("".join)
    return draw(
        st.one_of(
            joined,
            joined.map(lambda inside: f"(...{inside})"),
            joined.map(lambda inside: f"[[{inside}...]]A....a"),
        )
    )


@st.composite
def record_lists(draw):
    records = []
    for name in draw(st.lists(names, min_size=1, max_size=6, unique=True)):
        structure = draw(structures())
        sequence = draw(st.text("ACGU", min_size=len(structure), max_size=len(structure)))
        records.append({"id": name, "sequence": sequence, "secondary_structure": structure})
    return records


@given(record_lists())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dot_bracket_file_reads_as_it_was_written(tmp_path, records):
    path = write(
        tmp_path,
        "round.dbn",
        "".join(">{id}\n{sequence}\n{secondary_structure}\n".format(**record) for record in records),
    )
    assert as_dicts(read_records(path)) == records


@given(structures(), st.data())
@settings(max_examples=100)
def test_projected_pairs_are_consensus_pairs_that_can_form(consensus, data):
    aligned = data.draw(st.text("ACGUacgu-.", min_size=len(consensus), max_size=len(consensus)))
    partner = pair_table(consensus)
    sequence, structure = project(aligned, partner)
    columns = [column for column, letter in enumerate(aligned) if letter not in "-."]
    assert sequence == re.sub("[-.]", "", aligned).upper()
    expected = {
        (i, columns.index(int(partner[column])))
        for i, column in enumerate(columns)
        if partner[column] > column and partner[column] in columns
    }
    expected = {(i, j) for i, j in expected if j - i > 3 and sequence[i] + sequence[j] in CANONICAL_PAIRS}
    assert {(i, int(j)) for i, j in enumerate(pair_table(structure)) if j > i} == expected
