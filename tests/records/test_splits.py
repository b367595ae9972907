"""Samples and splits: by hand, and whatever the order of the records."""

import random

import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from sae_rna.records import splits
from sae_rna.records.splits import (
    EVALUATION_SPLITS,
    SETTINGS,
    SPLITS,
    assign_splits,
    balanced_sample,
    largest_sizes,
    places,
    select_length,
)

pytestmark = pytest.mark.filterwarnings("error::UserWarning")  # who warns is expected to, with pytest.warns


def test_longer_records_are_skipped_and_counted():
    frame = pd.DataFrame({"id": list("abc"), "sequence": ["A" * 10, "A" * 11, "A" * 12]})
    with pytest.warns(UserWarning, match="1 of 3 records are longer than 11 nt"):
        assert select_length(frame, 11).id.tolist() == ["a", "b"]
    assert select_length(frame, 12).equals(frame)
    with pytest.raises(ValueError, match="all 3 records are longer than the 9 nt"):
        select_length(frame, 9)


kinds = st.sampled_from(["tRNA", "rRNA", "miRNA", None])


@st.composite
def frames(draw):
    """Records of a few types, some without one, in up to 31 families; some sequences stand more than once."""
    rows = draw(st.lists(st.tuples(kinds, st.integers(0, 30)), min_size=3, max_size=60))
    frame = pd.DataFrame(rows, columns=["type", "family"]).astype({"type": "str"})
    frame["sequence"] = ["A" * (family + 4) + "C" * (i % 2) for i, family in enumerate(frame.family)]
    return frame.assign(family="f" + frame.family.astype("str"), id=[f"r{i}" for i in frame.index])


@given(frames(), st.integers(1, 10), st.integers(0, 5), st.randoms())
@settings(max_examples=60)
def test_balanced_sample_takes_all_it_may_and_no_more_in_any_order(frame, per_group, seed, shuffle):
    sample = balanced_sample(frame, "type", per_group, seed)
    expected = frame.type.value_counts().clip(upper=per_group).to_dict()
    assert sample.type.value_counts().to_dict() == expected
    assert sample.id.is_unique and sample.id.tolist() == [name for name in frame.id if name in set(sample.id)]
    order = list(frame.index)
    shuffle.shuffle(order)
    assert set(balanced_sample(frame.loc[order], "type", per_group, seed).id) == set(sample.id)


def test_balanced_sample_depends_on_the_seed_and_refuses_nonsense():
    frame = pd.DataFrame({"id": [f"r{i}" for i in range(100)], "sequence": "ACGU", "type": "tRNA"})
    assert set(balanced_sample(frame, "type", 20, 0).id) != set(balanced_sample(frame, "type", 20, 1).id)
    assert balanced_sample(frame, "type", 3, 0).id.tolist() == ["r6", "r23", "r84"], (
        "the same on every machine"
    )
    with pytest.raises(ValueError, match="no column 'clan'.*id, sequence, type"):
        balanced_sample(frame, "clan", 3, 0)
    with pytest.raises(ValueError, match="0 records of every type"):
        balanced_sample(frame, "type", 0, 0)


def test_places_count_the_smallest_draws_of_each_group_and_none_without_a_group():
    draws = pd.Series([0.3, 0.1, 0.2, 0.5, 0.4], index=list("abcde"))
    group = pd.Series(["x", "x", "y", None, "x"], index=draws.index)
    assert places(draws, [group]).fillna(0).to_dict() == {"a": 2, "b": 1, "c": 1, "d": 0, "e": 3}


def test_a_split_is_shared_out_equally_among_its_types_but_training_is_not():
    split = pd.Series(["train", "Training", "heldout", "heldout", "heldout", "natural", "natural"])
    kind = pd.Series(["x", "y", "x", "y", "y", "x", "x"])
    assert largest_sizes(split, kind, 50, 7).tolist() == [50, 50, 3, 3, 3, 7, 7]
    assert largest_sizes(split, kind, 50, 1).tolist() == [50, 50, 1, 1, 1, 1, 1]


# ---- splits


@given(frames(), st.integers(0, 5), st.randoms())
@settings(max_examples=60)
def test_splits_never_share_a_family_or_a_sequence_and_ignore_the_order(frame, seed, shuffle):
    assume(frame.sequence.nunique() >= 3)
    split = assign_splits(frame, seed)
    unit = {"family": "family", "sequence": "sequence"}[split.attrs["split_by"]]
    assert (unit == "family") == (frame.family.nunique() >= 3)
    assert set(split.split) == set(SPLITS)
    assert (split.groupby(unit).split.nunique() == 1).all()
    order = list(frame.index)
    shuffle.shuffle(order)
    pd.testing.assert_series_equal(assign_splits(frame.loc[order], seed).split.sort_index(), split.split)


def test_family_shares_hold_within_every_common_type():
    rows = [
        {"id": f"{kind}{i}", "sequence": "A" * (i + 1) + kind, "type": kind, "family": f"{kind}{i // 3}"}
        for kind, count in {"C": 300, "G": 60, "U": 6}.items()
        for i in range(count)
    ]
    frame = pd.DataFrame(rows)
    split = assign_splits(frame, 7)
    families = split.drop_duplicates("family").groupby("type").split.value_counts().to_dict()
    expected = {("C", "train"): 80, ("C", "selection"): 10, ("C", "heldout"): 10, ("U", "train"): 2}
    assert families == expected | {("G", "train"): 16, ("G", "selection"): 2, ("G", "heldout"): 2}
    assert not split.split.equals(assign_splits(frame, 8).split)


def test_families_of_rare_types_are_split_together():
    rare = [{"type": f"rare{i}", "family": f"rare{i}"} for i in range(20)]
    common = [{"type": "common", "family": f"f{i}"} for i in range(10)]
    frame = pd.DataFrame(rare + common).assign(
        id=lambda f: f.family, sequence=["A" * (i + 1) for i in range(30)]
    )
    split = assign_splits(frame, 0)
    assert split.iloc[:20].split.value_counts().to_dict() == {"train": 16, "selection": 2, "heldout": 2}
    assert split.iloc[20:].split.value_counts().to_dict() == {"train": 8, "selection": 1, "heldout": 1}


def test_record_of_unknown_family_is_a_family_of_its_own():
    frame = pd.DataFrame({"id": [f"r{i}" for i in range(40)], "sequence": ["A" * (i + 1) for i in range(40)],
                          "family": ["x", "y", "z", *[None] * 37]})  # fmt: skip
    split = assign_splits(frame, 0)
    assert split.attrs["split_by"] == "family" and split.split.value_counts().to_dict() == {
        "train": 32,
        "selection": 4,
        "heldout": 4,
    }


def test_sequences_keep_their_side_when_others_are_added_and_shares_hold():
    rng = random.Random(0)
    frame = pd.DataFrame(
        {
            "id": [f"r{i}" for i in range(5000)],
            "sequence": ["".join(rng.choices("ACGU", k=30)) for _ in range(5000)],
        }
    )
    whole = assign_splits(frame, 3)
    assert whole.attrs["split_by"] == "sequence"
    shares = whole.split.value_counts(normalize=True)
    assert all(abs(shares[name] - share) < 0.02 for name, share in SPLITS.items())
    part = assign_splits(frame.iloc[:1000], 3)
    assert part.split.equals(whole.split.iloc[:1000])


def test_given_splits_are_kept_under_our_names():
    frame = pd.DataFrame(
        {"id": list("abcd"), "sequence": "ACGU", "split": ["Train", "validation", "test", "natural"]}
    )
    split = assign_splits(frame, 0)
    assert (
        split.split.tolist() == ["train", "selection", "heldout", "natural"]
        and split.attrs["split_by"] == "given"
    )


def test_validation_beside_selection_stays_validation():
    names = ["train", "selection", "heldout", "validation", "natural"]
    frame = pd.DataFrame(
        {"id": list("abcde"), "sequence": "ACGU", "split": names, "family": ["x", "y", "z", "x", "z"]}
    )
    assert assign_splits(frame, 0).split.tolist() == names


def test_the_two_halves_of_seen_families_are_given_splits_that_nothing_is_renamed_to():
    names = ["train", "selection", "heldout", "seen-selection", "seen-heldout"]
    frame = pd.DataFrame(
        {"id": list("abcde"), "sequence": "ACGU", "split": names, "family": ["x", "y", "z", "x", "x"]}
    )
    given = assign_splits(frame, 0)  # whose seen families are those of train: no reason to warn
    assert given.split.tolist() == names and given.attrs["split_by"] == "given"


def test_a_setting_is_there_if_both_of_its_splits_are():
    frame = pd.DataFrame({"split": ["train", "selection", "heldout", "seen-selection", "seen-heldout"]})
    assert splits.settings(frame) == SETTINGS and list(SETTINGS) == ["seen families", "unseen families"]
    unseen = {"unseen families": ("selection", "heldout")}
    assert splits.settings(frame.iloc[:3]) == splits.settings(frame.iloc[:4]) == unseen
    assert splits.settings(frame.iloc[:1]) == {}


def test_no_split_serves_two_settings_and_all_but_the_training_ones_are_evaluated():
    used = sum(SETTINGS.values(), ())
    assert len(set(used)) == 4 and set(EVALUATION_SPLITS) == {*used, "natural"}
    assert len(EVALUATION_SPLITS) == 5 and "train" not in EVALUATION_SPLITS


def test_given_splits_that_share_held_out_families_are_pointed_at():
    frame = pd.DataFrame({"id": list("abcd"), "sequence": "ACGU", "family": list("xyxz")})
    frame["split"] = ["train", "selection", "heldout", "heldout"]
    with pytest.warns(UserWarning, match="1 of 2 families of the given held-out split"):
        assert assign_splits(frame, 0).attrs["split_by"] == "given"


def test_unusable_splits_are_made_anew_or_refused():
    frame = pd.DataFrame(
        {"id": list("abc"), "sequence": ["A", "C", "G"], "split": ["train", "train", "test"]}
    )
    with pytest.warns(UserWarning, match="no selection set"):
        assert set(assign_splits(frame, 0).split) == set(SPLITS)
    with pytest.raises(ValueError, match="record 'b' has the split 'fold2'"):
        assign_splits(frame.assign(split=["train", "fold2", "test"]), 0)
    with pytest.raises(ValueError, match="record 'c' has no split; use train"):
        assign_splits(frame.assign(split=["train", "test", None]), 0)
    with pytest.raises(ValueError, match="2 distinct sequences cannot be split"):
        assign_splits(frame.drop(columns="split").assign(sequence=["A", "A", "C"]), 0)
