"""Known answers for every format, what was written read back, broken files, and real data."""

import gzip
import re
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sae_rna.records.readers import project, read_records
from sae_rna.records.splits import SPLITS, assign_splits, balanced_sample, select_length
from sae_rna.records.structure import CANONICAL_PAIRS, add_elements, element_string, pair_table

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # who warns is expected to, with pytest.warns


HAIRPIN = {"id": "one", "sequence": "GGCAAAAGCC", "secondary_structure": "(((....)))"}
KNOTTED = {"id": "two", "sequence": "GGGAACCCAACCCUUGGG", "secondary_structure": "(((..[[[..)))..]]]"}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def as_dicts(records: pd.DataFrame) -> list[dict]:
    return records.to_dict("records")


def refusal(path, **arguments) -> str:
    with pytest.raises(ValueError) as caught:
        read_records(path, **arguments)
    return str(caught.value)


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


def ct(title: str) -> str:
    rows = zip(range(1, 11), "GGCAAAAGCC", [10, 9, 8, 0, 0, 0, 0, 3, 2, 1], strict=True)
    return f"10 {title}\n" + "".join(f"{i} {base} {i - 1} {i + 1} {j} {i}\n" for i, base, j in rows)


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
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dot_bracket_file_reads_as_it_was_written(tmp_path, records):
    path = write(
        tmp_path,
        "round.dbn",
        "".join(">{id}\n{sequence}\n{secondary_structure}\n".format(**record) for record in records),
    )
    assert as_dicts(read_records(path)) == records


@given(structures(), st.data())
@settings(max_examples=100, deadline=None)
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


# ---- files as they are found in the field


@pytest.mark.parametrize("title", ["r1\tHomo", "r1\xa0Homo", " r1 Homo", "ENERGY = -3.1  r1", "dG=-3.1 r1 x"])
@pytest.mark.parametrize("name", ["a.fa", "a.dbn", "a.ct"])
def test_a_name_ends_at_white_space_and_follows_the_energy(tmp_path, name, title):
    text = {"a.fa": f">{title}\nGGCAAAAGCC\n", "a.dbn": f">{title}\nGGCAAAAGCC\n(((....)))\n"}
    records = read_records(write(tmp_path, name, text.get(name, ct(title))))
    assert records.id.tolist() == ["r1"] and records.sequence.tolist() == ["GGCAAAAGCC"]


def test_mfold_titles_have_a_second_energy(tmp_path):
    path = write(tmp_path, "a.ct", ct("dG = -3.1 [Initially -4.0] r1"))
    assert read_records(path).id.tolist() == ["r1"]


BPSEQ = "".join(f"{i} {b} {j}\n" for i, b, j in zip(range(1, 7), "GAAAAC", [6, 0, 0, 0, 0, 1], strict=True))
HEADER = "Filename: one.bpseq\nOrganism: E. coli (\xe9)\nAccession Number: J01695\n\n"


@pytest.mark.parametrize("header", ["# File one\n# header\n\n", "; said\n", HEADER])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1"])
@pytest.mark.parametrize("name", ["one.ct", "one.bpseq"])
def test_headers_comments_and_encodings_of_databases(tmp_path, name, encoding, header):
    text, path = header + (ct("one") if name == "one.ct" else BPSEQ), tmp_path / name
    path.write_bytes(text.replace("\n", "\r\n").encode(encoding))
    (record,) = as_dicts(read_records(path))
    known = {"id": "one", "sequence": "GAAAAC", "secondary_structure": "(....)"}
    assert record == (HAIRPIN if name == "one.ct" else known)


def test_a_fault_after_comments_is_named_with_the_line_of_the_file(tmp_path):
    message = refusal(write(tmp_path, "a.bpseq", "# said\n\n1 G 3\n# more\n2 A\n3 C 1\n"))
    assert "line 5 has no position, base and partner: 2 A" in message
    message = refusal(write(tmp_path, "a.ct", "# said\n" + ct("one").replace("2 G 1 3 9", "2 G 1 3 x")))
    assert "line 4 has no" in message and message.count("a.ct") == 1


FIELD = {
    "a.fa": ">one\nGGCAAAAGCC\n",
    "a.csv": "id,sequence\none,GGCAAAAGCC\n",
    "a.dbn": ">one\nGGCAAAAGCC\n(((....)))\n",
    "a.ct": ct("one"),
    "a.sto": "# STOCKHOLM 1.0\none GGCAAAAGCC\n#=GC SS_cons <<<....>>>\n//\n",
    "a.st": "#Name: one\nGGCAAAAGCC\n(((....)))\nSSSHHHHSSS\nNNNNNNNNNN\n",
}


@pytest.mark.parametrize("name", FIELD)
def test_content_is_recognised_whatever_the_name_says(tmp_path, name):
    plain, path = FIELD[name].encode(), tmp_path / name
    expected = as_dicts(read_records(write(tmp_path, name, FIELD[name])))
    assert expected[0].items() >= {"id": "one", "sequence": "GGCAAAAGCC"}.items()
    for data in (gzip.compress(plain), FIELD[name].encode("utf-16"), b"\xef\xbb\xbf" + plain):
        path.write_bytes(data)
        assert as_dicts(read_records(path)) == expected
    (tmp_path / f"{name}.gz").write_bytes(gzip.compress(plain))
    assert as_dicts(read_records(tmp_path / f"{name}.gz")) == expected
    for data, said in [
        (b"PK\3\4..", "packed with zip"),
        (b"\xfd7zXZ\0..", "with xz"),
        (b"AC\0U", "is no text"),
    ]:
        path.write_bytes(data)
        assert said in refusal(path)


def test_a_folder_treats_names_compressed_and_hidden_files_alike(tmp_path):
    (tmp_path / "a.ct.gz").write_bytes(gzip.compress(ct("").encode()))
    (tmp_path / "b.dbn.gz").write_bytes(gzip.compress(b">ENERGY = -1.2\nGGCAAAAGCC\n(((....)))\n"))
    write(tmp_path, "c.st", FIELD["a.st"])
    for hidden in (".a.ct", "._b.dbn", ".c.st"):
        write(tmp_path, hidden, "not to be read")
    records = read_records(tmp_path)
    assert records.id.tolist() == ["a", "b", "one"], "who has no name is called like the file"
    assert records.secondary_structure.eq("(((....)))").all()
    assert records.structural_annotation.isna().tolist() == [True, True, False]


def test_a_fault_in_a_folder_names_file_record_and_line(tmp_path):
    write(tmp_path, "a.dbn", ">one\nGGCAAAAGCC\n(((....)))\n")
    write(tmp_path, "b.dbn", "\n>two\nGGCAAAAGCC\n(((....))\n")
    assert refusal(tmp_path).startswith(
        f"{tmp_path / 'b.dbn'}, line 2: record 'two' has a secondary_structure"
    )
    write(tmp_path, "b.dbn", "\n>one\nGGCAAAAGCC\n(((....)))\n")
    both = f"{tmp_path / 'a.dbn'}, line 1 and {tmp_path / 'b.dbn'}, line 2"
    assert refusal(tmp_path).startswith(f"{both}: record 'one' stands twice, as number 1 and number 2")


def test_what_is_in_the_folders_of_a_folder_is_said_to_be_left_out(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / ".git").mkdir()
    write(tmp_path, "a.dbn", ">one\nGGCAAAAGCC\n(((....)))\n")
    write(tmp_path / "more", "b.dbn", ">two\nGGCAAAAGCC\n(((....)))\n")
    with pytest.warns(UserWarning, match=f"^{tmp_path}: folders in it are not read: 1, such as more$"):
        assert read_records(tmp_path).id.tolist() == ["one"]


def test_a_header_that_names_a_column_twice_is_refused_with_its_line(tmp_path):
    path = write(tmp_path, "a.csv", "\nid,sequence,sequence\na,ACGU,GGCC\n")
    assert "the header in line 2 names 'sequence' twice" in refusal(path)
    assert refusal(write(tmp_path, "b.csv", "name,letters\na,ACGU\n")).endswith(
        "b.csv has no column 'id', only name, letters; add or rename it"
    )


def test_of_two_columns_that_mean_the_same_the_first_is_taken(tmp_path):
    path = write(tmp_path, "a.csv", "id,sequence,rna_type,rna_class\na,ACGU,tRNA,other\n")
    assert read_records(path)[["type", "rna_type"]].to_numpy().tolist() == [["other", "tRNA"]]


def test_a_fault_in_a_table_names_the_line(tmp_path):
    path = write(tmp_path, "a.csv", 'id,sequence,note\na,ACGU,"two\nlines"\n\nb,ACZU,\n')
    assert refusal(path).startswith(f"{path}, line 5: record 'b' has an unknown letter: 'Z' at position 3")


# ---- broken files


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("none.fa", "", ["is empty", "at least one record"]),
        ("c.csv", 'id,sequence\na,"ACGU\n', ["cannot be read as .csv"]),
        ("l.dbn", ">a\nACGU\n", ["record 'a' (line 1) has 1 lines"]),
        ("l.dbn", "ACGU\n....\nACGU\n....\n", ["record 'l' (line 1) has 4 lines"]),
        ("b.bpseq", "1 A 2\n2 C 0\n", ["cannot be read as .bpseq", "1 -> 2"]),
        ("b.parquet", "no parquet", ["cannot be read as .parquet"]),
        ("b.bpseq", "1 A 0\n3 C 0\n", ["line 2 should be of nucleotide 2"]),
        ("b.bpseq", "1 A 9999999999\n", ["line 1 should be of nucleotide 1"]),
        ("b.ct", "3 a\n1 A 0 2 0 1\n", ["line 1 announces 3", "1 lines follow", "cut off"]),
        ("b.st", "#Name: a\nA\n.\nE\nN\n#Name: b\nA\n.\nE\nN\n", ["second record begins in line 6"]),
        ("b.st", "#Name: a\nACGU\n", ["cannot be read as .st", "Incomplete"]),
        ("b.sto", "no alignment\n", ["cannot be read as .sto"]),
        ("b.fa.gz", "not zipped", ["cannot be read as .fa", "gzip"]),
        ("b.txt", "ACGU", ["suffix '.txt'", ".fasta"]),
    ],
)
def test_a_file_that_is_not_of_its_format_is_refused_in_one_sentence(tmp_path, name, text, parts):
    path = write(tmp_path, name, text)
    message = refusal(path)
    assert str(path) in message and "\n" not in message
    assert [part for part in parts if part not in message] == []


def test_absent_paths_revisions_and_empty_folders_are_refused(tmp_path):
    assert "is no file or folder" in refusal(tmp_path / "absent.fa")
    assert "is no file or folder" in refusal("absent/records.parquet"), (
        "a file name is never asked of the hub"
    )
    (tmp_path / "empty").mkdir()
    assert ".bpseq" in refusal(tmp_path / "empty")


# ---- real data


def test_real_bprna_reads(shared_data):
    with pytest.warns(
        UserWarning,
        match="of 8,185 records 10 in lower case, read as upper case; 1 with P .* 72 with letters other",
    ):
        records = read_records(shared_data / "bprna-90-short.parquet")
    assert len(records) == 8185 and "element" not in records
    assert {"bpRNA_RFAM_25894", "bpRNA_RFAM_42383", "bpRNA_CRW_29143"} <= set(records.id)
    sample = add_elements(records.iloc[::40])
    assert (sample.element.str.len() == sample.sequence.str.len()).all()
    ours, theirs = "".join(sample.element), "".join(sample.structural_annotation)
    agreement = [a == b for a, b in zip(ours, theirs, strict=True)]
    assert sum(agreement) / len(agreement) > 0.95, "our elements are bpRNA's, but for definitions"


def test_real_rnacentral_reads_and_balances(shared_data):
    with pytest.warns(UserWarning, match="of 13,337 records 315 with letters other"):
        records = read_records(shared_data / "rnacentral-6types.parquet")
    assert records.id[0] == "URS0000AA131E_9643"
    with pytest.warns(UserWarning, match="of 13,337 records are longer than 440 nt"):
        records = select_length(records, 440)
    sample = balanced_sample(records, "type", 100, 0)
    assert sample.type.value_counts().to_dict() == dict.fromkeys(
        ["rRNA", "snoRNA", "snRNA", "miRNA", "lncRNA", "tRNA"], 100
    )
    assert assign_splits(sample, 0).attrs["split_by"] == "sequence"


def test_real_rfam_classes_are_split_by_family(shared_data):
    with pytest.warns(UserWarning, match="of 5,946 records 127 with letters other"):
        records = read_records(shared_data / "nrc-13classes.parquet")
    assert (records.type.nunique(), records.family.nunique()) == (12, 392)
    with pytest.warns(UserWarning, match="no selection set"):
        split = assign_splits(records, 0)
    assert split.attrs["split_by"] == "family" and split.groupby("family").split.nunique().max() == 1


def test_real_archive_ii_reads(shared_data):
    records = read_records(shared_data / "archiveII.parquet")
    assert len(records) == 3864
    split = assign_splits(records, 0)
    assert split.drop_duplicates("family").split.value_counts().to_dict() == {
        "train": 7,
        "selection": 1,
        "heldout": 1,
    }


def test_embedded_data_reads_and_keeps_held_out_families_apart():
    path = Path(__file__).resolve().parents[2] / "data" / "records.parquet"
    records = assign_splits(read_records(path), 0)
    assert records.attrs["split_by"] == "given" and {*SPLITS, "natural"} <= set(records.split)
    families = records.groupby("split").family.agg(set)
    assert not families["heldout"] & (families["train"] | families["selection"])
