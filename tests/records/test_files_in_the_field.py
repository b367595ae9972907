"""Files as they are found in the field, broken ones, and real data."""

import gzip
from pathlib import Path

import pytest
from rna_files import HAIRPIN, as_dicts, ct, refusal, write

from sae_rna.records.readers import read_records
from sae_rna.records.splits import SPLITS, assign_splits, balanced_sample, select_length
from sae_rna.records.structure import add_elements

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # who warns is expected to, with pytest.warns


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


def test_what_is_in_a_folder_and_is_no_file_of_one_record_is_said_to_be_left_out(tmp_path):
    (tmp_path / "more").mkdir()
    (tmp_path / ".git").mkdir()
    write(tmp_path, "a.dbn", ">one\nGGCAAAAGCC\n(((....)))\n")
    write(tmp_path / "more", "b.dbn", ">two\nGGCAAAAGCC\n(((....)))\n")
    write(tmp_path, "c.fa.gz", ">three\nGGCAAAAGCC\n")
    for name in ("notes.txt", ".d.fa"):
        write(tmp_path, name, "not to be read")
    said = "folders and files of several records in it are not read: 2, such as c.fa.gz"
    with pytest.warns(UserWarning, match=f"^{tmp_path}: {said}$"):
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
