import numpy as np
import pandas as pd
import pytest
from analysis.statistics.samples import (
    letters_of,
    overlapping,
    overlapping_bases,
    planted_concepts,
    quick,
    rows_of,
    runs,
    token_table,
)
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from sae_rna.analysis.statistics.annotations import annotate_elements, annotate_types
from sae_rna.analysis.statistics.choosing import score_concepts
from sae_rna.analysis.statistics.nulls import _pooled_p_values, discoveries, shifted, shuffled


@quick
@given(st.lists(st.text("SHEK", min_size=1, max_size=9), min_size=1, max_size=5), st.integers(0, 2**32))
def test_a_shift_rotates_every_record_and_keeps_its_instances(strings, seed):
    labels = annotate_elements(token_table(strings))
    moved = shifted(labels, np.random.default_rng(seed), np.arange(len(strings)))
    assert (moved.record_N == labels.record_N).all()
    for number, letters in enumerate(strings):
        rows = labels.record_N == number
        after = "".join(np.array(list(letters_of(moved)))[rows])
        offsets = range(1, len(letters)) if len(letters) > 1 else [0]
        assert after in {letters[k:] + letters[:k] for k in offsets}
        before, turned = (labels.instance_NC.data[rows], moved.instance_NC.data[rows])
        assert any((np.roll(before, -k) == turned).all() for k in offsets)
    assert (moved.elements_C == labels.elements_C).all()


def test_shifts_reach_every_offset_but_the_identity():
    labels = annotate_elements(token_table(["SHEK"]))
    rng = np.random.default_rng(0)
    seen = {letters_of(shuffled(labels, rng, np.arange(1))) for _ in range(200)}
    assert seen == {"HEKS", "EKSH", "KSHE"}


@quick
@given(overlapping(), st.integers(0, 2**32))
def test_a_shift_turns_all_concepts_of_a_record_together(case, seed):
    _, masks, record_N = case
    assume(len(record_N) > record_N[-1] + 1)  # else they are sequences, which are permuted
    labels = runs(masks, record_N)
    shifted = shuffled(labels, np.random.default_rng(seed), np.arange(record_N[-1] + 1))
    before, after = labels.members.toarray(), shifted.members.toarray()
    for record in range(labels.record_N[-1] + 1):
        rows = labels.record_N == record
        turns = [np.roll(before[rows], -offset, axis=0) for offset in range(1, max(rows.sum(), 2))]
        assert any((after[rows] == turned).all() for turned in turns)
    assert (shifted.elements_C == labels.elements_C).all()


@quick
@given(overlapping_bases(), st.integers(0, 2**32))
def test_shuffling_moves_concepts_and_leaves_the_bases(case, seed):
    _, masks, record_N, base_N = case
    labels = runs(masks, record_N, base_N)
    moved = shuffled(labels, np.random.default_rng(seed), np.arange(record_N[-1] + 1))
    assert (moved.base_N == base_N).all() and (moved.stratum_N == labels.stratum_N).all()


def test_records_of_one_family_are_shifted_alike():
    lengths = [101, 201, 101, 101]
    record_N = np.repeat(np.arange(4), lengths)
    first = np.cumsum([0, *lengths[:-1]])
    labels = runs(np.isin(np.arange(len(record_N)), first)[:, None], record_N)
    for seed in range(5):
        places = (
            np.array(
                rows_of(shuffled(labels, np.random.default_rng(seed), np.array([7, 7, 7, 3])), "concept 0")
            )
            - first
        )
        assert places[0] == places[2] != places[3]
        assert abs(places[1] / 201 - places[0] / 101) < 2 / 101


def test_families_are_permuted_whole_and_single_sequences_one_by_one():
    type_S, family_S = np.array(list("aabbbc")), np.array([4, 4, 9, 9, 9, 2])
    labels = annotate_types(type_S, list("abc"))
    assert labels.per_sequence
    rng, by_family, one_by_one = np.random.default_rng(0), set(), set()
    for _ in range(800):
        by_family.add("".join("abc"[c] for c in shuffled(labels, rng, family_S).instance_NC.indices))
        one_by_one.add("".join("abc"[c] for c in shuffled(labels, rng, np.arange(6)).instance_NC.indices))
    assert by_family == {x * 2 + y * 3 + z for x, y, z in ("abc", "acb", "bac", "bca", "cab", "cba")}
    assert {"".join(sorted(letters)) for letters in one_by_one} == {"aabbbc"} and len(one_by_one) == 60


def test_pooled_p_values_by_plain_loops():
    rng = np.random.default_rng(2)
    null, value = rng.normal(size=(6, 4)) * [1, 2, 3, 0], np.array([1.0, 9.0, -3.0, 0.0])
    floor = np.median([np.std(column, ddof=1) for column in null.T])
    pool = []
    for column in null.T:
        for r in range(6):
            others = np.delete(column, r)
            pool.append((column[r] - others.mean()) / (others.std(ddof=1) + floor))
    for c, p_value in enumerate(_pooled_p_values(value, null)):
        z = (value[c] - null[:, c].mean()) / (null[:, c].std(ddof=1) + floor)
        assert p_value == pytest.approx((1 + sum(x >= z for x in pool)) / 25)


def test_discoveries_are_those_of_benjamini_and_hochberg():
    p_values = [0.001, 0.02, 0.045, 0.2, 0.9]  # 5 % * rank / 5: .01, .02, .03, .04, .05
    scores = pd.DataFrame({"p_pooled": p_values})
    assert discoveries(scores).tolist() == [True, True, False, False, False]
    assert not discoveries(scores.iloc[:0]).size


def test_twenty_shuffles_can_discover_a_single_concept_of_many_only_by_pooling():
    rng = np.random.default_rng(5)
    sets = [planted_concepts(rng, 60) for _ in range(2)]
    one = [(a, runs(labels.members.toarray()[:, [2, *range(7, 20)]], labels.record_N)) for a, labels in sets]
    table = score_concepts(*one, seed=3)
    assert discoveries(table)[0] and not (false_discovery_control(table["p_value"]) <= 0.05).any()
