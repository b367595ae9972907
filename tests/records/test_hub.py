"""Samples of streams that are too long to be read whole."""

import random
import warnings
from collections import defaultdict

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sae_rna.records.checks import validate
from sae_rna.records.hub import is_hub_name, sample_stream
from sae_rna.records.readers import read_records
from sae_rna.records.splits import SPLITS, assign_splits, side, uniform

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # who warns is expected to, with pytest.warns

CHOICE = {"by": "type", "per_train": 3, "per_split": 4, "longest": 50, "seed": 0}


def make(count: int, seed: int = 0) -> pd.DataFrame:
    """Records of three types, every sequence under one or two ids."""
    rng = random.Random(seed)
    names = ["".join(rng.choices("ACGU", k=12)) for _ in range(max(1, 2 * count // 3))]
    rows = [(f"r{i}", rng.choice(names)) for i in range(count)]
    frame = pd.DataFrame(rows, columns=["id", "sequence"])
    return frame.assign(
        type=["tRNA rRNA lncRNA".split()[sum(map(ord, sequence)) % 3] for sequence in frame.sequence]
    )


def batches(frame: pd.DataFrame, size: int):
    return (frame.iloc[start : start + size] for start in range(0, len(frame), size))


def by_hand(frame: pd.DataFrame, per_train: int, per_split: int, seed: int) -> set[str]:
    """Ids of the sample, from all records at once and one group after the other."""
    groups = defaultdict(dict)
    for row in frame.itertuples():
        groups[row.split, row.type].setdefault(row.sequence, []).append(row.id)
    types = {split: len({kind for other, kind in groups if other == split}) for split, _ in groups}
    chosen = set()
    for (split, _), ids in groups.items():
        most = per_train if split == "train" else max(1, per_split // types[split])
        drawn = sorted(ids, key=lambda sequence: uniform(seed, f"sample/{sequence}"))[:most]
        chosen |= {min(ids[sequence]) for sequence in drawn}
    return chosen


@given(
    st.integers(1, 300),
    st.integers(1, 40),
    st.integers(1, 6),
    st.integers(1, 9),
    st.integers(0, 3),
    st.randoms(),
)
@settings(max_examples=40)
def test_a_sample_is_the_smallest_draws_of_every_split_and_type_whatever_the_order_and_the_batches(
    count, size, per_train, per_split, seed, shuffle
):
    frame = make(count)
    frame["split"] = [
        shuffle.choice([*SPLITS]) if count % 2 else side(seed, sequence) for sequence in frame.sequence
    ]
    frame["split"] = frame.groupby("sequence").split.transform("first")
    given_splits = frame if count % 2 else frame.drop(columns="split")
    choice = CHOICE | {"per_train": per_train, "per_split": per_split, "seed": seed}
    sample = sample_stream(batches(given_splits, size), "here", **choice)
    assert set(sample.id) == by_hand(frame, per_train, per_split, seed)
    assert sample.id.is_unique and sample.sequence.is_unique
    known = frame.set_index("id").loc[sample.id].reset_index()
    pd.testing.assert_frame_equal(sample, known[sample.columns], check_like=True)
    order = list(frame.index)
    shuffle.shuffle(order)
    pd.testing.assert_frame_equal(
        sample_stream(batches(given_splits.loc[order], 7), "here", **choice), sample
    )


def test_a_sample_depends_on_the_seed_and_is_the_same_on_every_machine():
    frame = make(300)
    one, other = (sample_stream([frame], "here", **CHOICE | {"seed": seed}) for seed in (0, 1))
    assert set(one.id) != set(other.id)
    assert one.id[one.split != "train"].tolist() == ["r115", "r169", "r104", "r237", "r229", "r264"]


def test_sides_of_sequences_are_those_of_assign_splits():
    frame = make(300)
    sample = sample_stream([frame], "here", **CHOICE | {"per_train": 1000, "per_split": 1000})
    whole = assign_splits(frame, 0).set_index("id").split
    assert sample.split.tolist() == whole[sample.id].tolist()
    assert sample.sequence.nunique() == frame.sequence.nunique()


def test_families_of_a_stream_are_on_one_side_each():
    frame = make(300).assign(family=lambda f: f.sequence.str[:2])
    sample = sample_stream(batches(frame, 50), "here", **CHOICE | {"per_train": 1000, "per_split": 1000})
    assert (sample.groupby("family").split.nunique() == 1).all() and set(sample.split) == set(SPLITS)
    assert sample_stream(
        [frame.drop(columns="type")], "here", per_train=9, per_split=5, longest=50, seed=0
    ).groupby("split").size().to_dict() == {"heldout": 5, "selection": 5, "train": 9}


def test_a_sequence_under_two_types_or_splits_is_there_once():
    frame = pd.DataFrame(
        {"id": list("abcd"), "sequence": ["AC", "AC", "GU", "GU"], "type": ["tRNA", "rRNA", "tRNA", "tRNA"]}
    )
    frame["split"] = ["train", "train", "train", "heldout"]
    sample = sample_stream([frame], "here", **CHOICE)
    assert sample[["id", "type", "split"]].to_numpy().tolist() == [
        ["d", "tRNA", "heldout"],
        ["b", "rRNA", "train"],
    ]


FAULTY = {"an empty sequence": "", "a gap or space": "AC-G", "an unknown letter": "ACGZ"}


def test_one_rule_for_letters_files_are_refused_for_what_streams_leave_out():
    sound = pd.DataFrame(
        {"id": ["lower", "dna", "n", "p"], "sequence": ["acgu", "ACGTT", "ACGN", "ACGUP"], "type": "tRNA"}
    )
    with pytest.warns(UserWarning) as said:
        checked = validate(sound, "here")
    assert "1 in lower case" in str(said[0].message)
    bad = pd.DataFrame({"id": [*FAULTY], "sequence": FAULTY.values(), "type": "tRNA"})
    for fault in FAULTY:
        with pytest.raises(ValueError, match=f"'{fault}' has {fault}"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            validate(bad[bad.id == fault], "here")
    with pytest.warns(UserWarning) as said:
        sample = sample_stream([sound, bad], "here", **CHOICE | {"per_train": 9, "per_split": 9})
    assert sample.sort_values("id").sequence.tolist() == checked.sort_values("id").sequence.tolist()
    assert sample.attrs == {"records": 7, "left_out": {f"with {fault}": 1 for fault in FAULTY}}
    (sentence,) = [str(one.message) for one in said]
    faults = "; ".join(f"1 with {fault}" for fault in FAULTY)
    assert sentence.startswith(f"here: of 7 records {faults}, all left out; ")
    assert "1 with P (a modified base), read as N" in sentence


def test_long_nameless_and_untyped_records_and_faulty_structures_are_left_out_and_counted():
    hairpin = {"id": "a", "sequence": "GGAAAACC", "secondary_structure": "((....))", "type": "tRNA"}
    rows = [
        hairpin,
        hairpin | {"id": "b", "sequence": "A" * 51, "secondary_structure": "." * 51},
        hairpin | {"id": "c", "sequence": "GGAAAACA", "type": None},
        hairpin | {"id": None, "sequence": "GGAAAACU"},
        hairpin | {"id": "", "sequence": "GGAAAACU"},
        hairpin | {"id": "d", "sequence": "GGAAAACG", "secondary_structure": "((....)."},
        hairpin | {"id": "e", "sequence": "GGAAAACGG"},
        hairpin | {"id": "f", "sequence": "GGAAAAGG", "secondary_structure": None},
    ]
    with pytest.warns(
        UserWarning, match="of 8 records 3 without id or type; 1 longer than 50 nt; .*all left out$"
    ):
        sample = sample_stream([pd.DataFrame(rows)], "here", **CHOICE, needs=("secondary_structure",))
    assert sample.id.tolist() == ["a"]
    assert sample.attrs["left_out"] == {
        "without id or type": 3,
        "longer than 50 nt": 1,
        "with no secondary_structure": 1,
        "with a secondary_structure of another length than its sequence": 1,
        "with a faulty secondary_structure": 1,
    }


def test_a_stream_without_a_needed_column_is_refused_before_it_is_read_to_its_end():
    def stream():
        yield make(10)
        raise AssertionError("read on")

    with pytest.raises(ValueError, match="here has no column 'secondary_structure', only id, sequence, type"):
        sample_stream(stream(), "here", **CHOICE, needs=("secondary_structure",))
    with pytest.raises(ValueError, match="here has no column 'type', only id, sequence"):
        sample_stream([make(10).drop(columns="type")], "here", **CHOICE)


def test_a_stream_without_a_single_usable_record_is_refused():
    with pytest.raises(ValueError, match="here: none of 0 records can be used .it is empty"):
        sample_stream([], "here", **CHOICE)
    with pytest.raises(ValueError, match="here: none of 10 records can be used .10 longer than 5 nt"):
        sample_stream([make(10)], "here", **CHOICE | {"longest": 5})


def test_public_column_names_are_read_and_the_rest_is_kept():
    frame = make(9).rename(columns={"id": "urs", "type": "rna_type"}).assign(reads=range(9))
    sample = sample_stream([frame], "here", **CHOICE | {"per_train": 9, "per_split": 9})
    assert list(sample) == ["id", "sequence", "type", "reads", "split"]
    assert sample.set_index("id").reads.to_dict() == {
        f"r{i}": i for i in range(9) if f"r{i}" in set(sample.id)
    }


def test_a_written_sample_reads_as_it_was_drawn(tmp_path):
    sample = sample_stream(batches(make(300), 60), "here", **CHOICE)
    sample.to_parquet(tmp_path / "sample.parquet", index=False)
    read = assign_splits(read_records(tmp_path / "sample.parquet"), 0)
    pd.testing.assert_frame_equal(read, sample)
    assert read.attrs["split_by"] == "given"


def test_only_names_without_a_file_here_and_without_a_known_suffix_are_of_the_hub(tmp_path, monkeypatch):
    assert is_hub_name("multimolecule/bprna-90") and is_hub_name("multimolecule/rnacentral.1024")
    assert not any(
        map(
            is_hub_name, ["records.parquet", "data/records.parquet", "a/b.fa.gz", "a/b/c", "/a/b", "bprna-90"]
        )
    )
    (tmp_path / "multimolecule" / "bprna-90").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert not is_hub_name("multimolecule/bprna-90")
