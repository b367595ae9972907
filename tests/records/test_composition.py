"""Windows, k-mers and GC content: known answers, and counted by hand."""

import os
import subprocess
import sys
from collections import Counter
from itertools import pairwise, permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sae_rna.records.composition import (
    encode_bases,
    gc_content,
    kmer_frequencies,
    kmer_names,
    kmers,
    length_and_gc,
    one_hot_windows,
    shuffle_dinucleotides,
    windows,
)

texts = st.lists(st.text("ACGUN", min_size=1, max_size=12), min_size=1, max_size=4)


def test_bases_have_codes_and_other_letters_none():
    assert [codes.tolist() for codes in encode_bases(["ACGU", "NUX"])] == [[0, 1, 2, 3], [-1, 3, -1]]


def test_windows_hold_the_neighbours_and_nothing_beyond_the_ends():
    names = [f"{base}{offset:+d}" for base in "ACGU" for offset in (-1, 0, 1)]
    for encoded in (one_hot_windows(["GAC"], reach=1), windows(["GAC"], reach=1).toarray()):
        found = [{names[column] for column in np.flatnonzero(row)} for row in encoded]
        assert found == [{"G+0", "A+1"}, {"G-1", "A+0", "C+1"}, {"A-1", "C+0"}] and encoded.max() == 1


def test_letters_other_than_the_bases_have_no_window_and_are_in_none():
    encoded = one_hot_windows(["ACNG"], reach=1).reshape(3, 4, 3)
    assert encoded.sum((1, 2)).tolist() == [2, 2, 1]
    assert one_hot_windows(["NN", "ACG"], reach=1).shape == (3, 12)


def test_kmers_name_their_columns():
    assert kmer_names(1) == list("ACGU") and kmer_names(2)[:6] == ["AA", "AC", "AG", "AU", "CA", "CC"]
    assert kmer_names(2)[-1] == "UU" and len(kmer_names(5)) == 1024
    encoded, names = kmers(["GACU", "A"], 3), kmer_names(3)
    assert [[names[column] for column in row.indices] for row in encoded] == [[], ["GAC"], ["ACU"], [], []]


@given(texts, st.integers(1, 4))
def test_kmers_are_the_substrings_around_each_nucleotide(sequences, k):
    encoded, names = kmers(sequences, k), kmer_names(k)
    expected = []
    for sequence in sequences:
        for place, base in enumerate(sequence):
            start = place - (k - 1) // 2
            around = sequence[max(start, 0) : start + k]
            if base != "N":
                expected.append([around] if start >= 0 and len(around) == k and "N" not in around else [])
    assert encoded.shape == (len(expected), 4**k) and (encoded.data == 1).all()
    rows = zip(encoded.indptr, encoded.indptr[1:])
    assert [[names[column] for column in encoded.indices[a:b]] for a, b in rows] == expected


@given(texts)
def test_windows_of_no_reach_are_kmers_of_one(sequences):
    np.testing.assert_array_equal(windows(sequences, 0).toarray(), kmers(sequences, 1).toarray())


def test_kmers_without_letters_are_refused():
    with pytest.raises(ValueError, match="k is 1 or more"):
        kmers(["ACGU"], 0)


@given(texts, st.integers(1, 3))
def test_kmer_frequencies_are_counts_of_substrings(sequences, k):
    names = ["".join(letters) for letters in product("ACGU", repeat=k)]
    table = kmer_frequencies(sequences, k).toarray()
    assert table.shape == (len(sequences), 4**k)
    for sequence, row in zip(sequences, table):
        found = Counter(sequence[start : start + k] for start in range(len(sequence) - k + 1))
        counts = np.array([found[name] for name in names])
        np.testing.assert_allclose(row, counts / max(counts.sum(), 1))
    strong = [sum(map(text.count, "GC")) / max(sum(map(text.count, "ACGU")), 1) for text in sequences]
    np.testing.assert_allclose(gc_content(sequences), strong)
    lengths = np.log([len(text) for text in sequences])
    np.testing.assert_allclose(length_and_gc(sequences), np.column_stack([lengths, strong]))


def test_a_shuffle_keeps_every_dinucleotide_and_both_ends():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sequence = "".join(rng.choice(list("ACGUN"), rng.integers(1, 60)))
        shuffled = shuffle_dinucleotides(sequence, rng)
        assert Counter(pairwise(shuffled)) == Counter(pairwise(sequence))
        assert (shuffled[0], shuffled[-1], len(shuffled)) == (sequence[0], sequence[-1], len(sequence))


def test_all_orders_with_the_same_dinucleotides_are_equally_likely():
    rng, sequence, draws = np.random.default_rng(0), "AACACGCA", 4000
    counts = Counter(pairwise(sequence))
    orders = {"".join(order) for order in permutations(sequence)}
    orders = {order for order in orders if Counter(pairwise(order)) == counts}
    found = Counter(shuffle_dinucleotides(sequence, rng) for _ in range(draws))
    assert set(found) == orders and len(orders) > 5
    expected = draws / len(orders)
    assert max(abs(number - expected) for number in found.values()) < 5 * expected**0.5


def test_a_shuffle_depends_on_its_seed_alone():
    """Not on the order in which Python's sets come, which is another in every process."""
    code = "import numpy as np; from sae_rna.records.composition import shuffle_dinucleotides as shuffle; "
    code += "print(shuffle('GCAUGGCAUUACGGAUCUAGCUA' * 3, np.random.default_rng(0)))"
    drawn = {
        subprocess.check_output([sys.executable, "-c", code], env=os.environ | {"PYTHONHASHSEED": seed})
        for seed in "123"
    }
    assert len(drawn) == 1
