"""What is changed is said, once; what is refused names file, record, place and remedy."""

import re

import pandas as pd
import pytest

from sae_rna.records.checks import KNOWN_LETTERS, validate
from sae_rna.records.readers import read_records

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # who warns is expected to, with pytest.warns


def write(folder, name: str, text: str):
    path = folder / name
    path.write_text(text)
    return path


def refusal(path) -> str:
    with pytest.raises(ValueError) as caught:
        read_records(path)
    return str(caught.value)


def test_lower_case_and_dna_are_read_and_said_once(tmp_path):
    path = write(tmp_path, "dna.fa", ">a\nacgu\n>b\nACGT\n>c\nAcgTt\n>d\nACGU\n")
    with pytest.warns(UserWarning) as said:
        records = read_records(path)
    assert records.sequence.tolist() == ["ACGU", "ACGU", "ACGUU", "ACGU"]
    assert len(said) == 1
    text = str(said[0].message)
    assert "dna.fa: of 4 records" in text and "2 in lower case" in text and "2 with T, read as U" in text
    assert said[0].filename == __file__, "the warning points at the caller"


def test_other_known_letters_are_kept_and_counted(tmp_path):
    with pytest.warns(UserWarning, match="2 with letters other than A, C, G and U"):
        records = read_records(write(tmp_path, "n.fa", ">a\nACGUNRYSWKMBDHVIX\n>b\nNNNN\n>c\nACGU\n"))
    assert records.sequence.tolist() == ["ACGUNRYSWKMBDHVIX", "NNNN", "ACGU"]


def test_modified_base_p_is_read_as_unknown_base(tmp_path):
    with pytest.warns(
        UserWarning, match=re.escape("1 with P (a modified base), read as N; 1 with letters other")
    ):
        assert read_records(write(tmp_path, "p.fa", ">a\nACGP\n")).sequence.tolist() == ["ACGN"]


def test_every_letter_that_is_kept_is_a_token():
    multimolecule = pytest.importorskip("multimolecule")
    tokenizer = multimolecule.RnaTokenizer()
    tokens = tokenizer(KNOWN_LETTERS, add_special_tokens=False)["input_ids"]
    assert len(set(tokens)) == len(KNOWN_LETTERS) and tokenizer.unk_token_id not in tokens


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("z.fa", ">a\nACGU\n>b\nACGZU\n", ["record 'b'", "unknown letter", "'Z' at position 4", "write N"]),
        ("z.fa", ">a\nACGß\n", ["record 'a'", "unknown letter", "'ß' at position 4"]),
        ("z.fa", ">a\nMKTLEE\n>b\nEEE\n>c\nACG\n", ["record 'a'", "'L' at position 4", "2 records"]),
        (
            "g.fa",
            ">a\nACGU\n>b\nAC-GU\n>c\n--AC\n",
            ["record 'b'", "'-' at position 3", "2 records", "take gaps and spaces out"],
        ),
        ("g.fa", ">a\nACG U\n", ["record 'a'", "' ' at position 4"]),
        ("e.fa", ">a\nACGU\n>b\n>c\nAC\n", ["record 'b'", "empty sequence", "remove it"]),
        ("i.fa", ">a\nACGU\n>\nAC\n", ["record number 2", "no id"]),
        ("d.fa", ">a\nACGU\n>b\nAC\n>a\nGG\n", ["record 'a'", "number 1 and number 3", "an id of its own"]),
        ("none.fa", "# only a comment\n", ["holds no records"]),
        ("none.csv", "id,sequence\n", ["holds no records"]),
        ("c.csv", "name,sequence\na,ACGU\n", ["no column 'id'", "name, sequence", "rename"]),
        ("c.csv", "id,seq\na,ACGU\n", ["no column 'sequence'", "id, seq"]),
        ("c.csv", "id,sequence\na,ACGU\nb,\n", ["record 'b'", "empty sequence"]),
        ("c.csv", "id,sequence\na,ACGU\n,ACGU\n", ["record number 2", "no id"]),
        (
            "l.dbn",
            ">a\nACGU\n....\n>b\nACGU\n.....\n",
            ["'b'", "4 nucleotides", "5 symbols of secondary_structure"],
        ),
        (
            "u.dbn",
            ">a\nGGAAAACC\n((....))\n>b\nGGAAAACC\n((....).\n",
            ["record 'b'", "'(' at position 1", "mend"],
        ),
        ("u.dbn", ">a\nGGAAAACC\n((....)]\n", ["record 'a'", "']' at position 8 has no partner"]),
        ("u.dbn", ">a\nGGAAAACC\n((..!.))\n", ["record 'a'", "'!' at position 5 is no dot-bracket symbol"]),
        (
            "m.csv",
            "id,sequence,secondary_structure\na,ACGU,....\nb,ACGU,\n",
            ["record 'b'", "no secondary_structure"],
        ),
        (
            "m.csv",
            "id,sequence,element\na,ACGU,EEZE\n",
            ["record 'a'", "unknown element", "'Z' at position 3"],
        ),
        ("m.csv", "id,sequence,element\na,ACGU,EEE\n", ["record 'a'", "3 symbols of element"]),
    ],
)
def test_a_faulty_record_is_refused_in_one_sentence_that_names_the_place(tmp_path, name, text, parts):
    path = write(tmp_path, name, text)
    message = refusal(path)
    assert str(path) in message and "\n" not in message
    assert [part for part in parts if part not in message] == []


def test_one_fault_among_thousands_is_named_and_the_faults_are_counted(tmp_path):
    good = [f">r{i}\nGGCAAAAGCC\n(((....)))\n" for i in range(3000)]
    for i in (1234, 2000, 2999):
        good[i] = good[i].replace("(((", "((.")
    message = refusal(write(tmp_path, "many.dbn", "".join(good)))
    assert (
        "record 'r1234'" in message
        and "')' at position 10 has no partner" in message
        and "(3 records have this fault)" in message
    )


def test_pairs_that_are_not_canonical_are_allowed():
    frame = pd.DataFrame([{"id": "one", "sequence": "AAAAAAAAAA", "secondary_structure": "(((....)))"}])
    assert validate(frame, "here").to_dict("records") == frame.to_dict("records")


def test_validate_leaves_its_input_alone():
    frame = pd.DataFrame([{"id": "a", "sequence": "acgt", "family": None}])
    with pytest.warns(UserWarning):
        checked = validate(frame, "here")
    assert frame.sequence.tolist() == ["acgt"] and list(checked) == ["id", "sequence"]


@pytest.mark.parametrize(
    ("name", "text", "parts"),
    [
        ("a.csv", "id,sequence,type\nr1,ACGU,tRNA\nr2,ACGU,a, b\n", ["line 3 has 4 fields", "the header 3"]),
        ("a.csv", "id,sequence,type,note\nr1,GGG,tRNA,a, b\n", ["line 2 has 5 fields", "quote"]),
        ("a.csv", "id,sequence,type\n\nr1,ACGU,tRNA,\nr2,ACGU,tRNA,\n", ["line 3 has 4 fields"]),
        ("a.csv", "id,sequence\nr1,ACGU\n,,\n", ["line 3 has 3 fields"]),
        ("a.tsv", "id\tsequence\tnote\nr1\tACGU\tx\nr2\tACGU\n", ["line 3 has 2 fields", "the header 3"]),
        ("a.csv", "id,sequence,type\nr1,tRNA,ACGU\nr2,miRNA,ACGU\n", ["words such as 'tRNA'", "number 1"]),
        ("a.csv", "id,sequence,type\nr1,ACGU,a\nr2,lncRNA,b\nr3,snoRNA,c\n", ["such as 'lncRNA'"]),
        ("a.csv", "sequence,id\nURS0000A1_9606,ACGU\nURS0000A2_9606,ACGU\n", ["'URS0000A1_9606'"]),
    ],
)
def test_a_table_is_never_realigned_and_words_are_no_sequences(tmp_path, name, text, parts):
    path = write(tmp_path, name, text)
    message = refusal(path)
    assert str(path) in message and "\n" not in message
    assert [part for part in parts if part not in message] == []


def test_quoted_separators_and_lines_in_a_field_fit_the_header(tmp_path):
    path = write(tmp_path, "a.csv", 'id,sequence,note\nr1,NNNN,"a, b"\nr2,ACGUACGURY,"c\nd"\n\n')
    with pytest.warns(UserWarning, match="2 with letters other"):
        assert read_records(path).note.tolist() == ["a, b", "c\nd"]
