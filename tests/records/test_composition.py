"""Windows, k-mers, GC content and lengths."""

from collections import Counter
from itertools import product

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sae_rna.records.composition import gc_content, kmer_frequencies


@given(st.lists(st.text("ACGUN", min_size=1, max_size=12), min_size=1, max_size=4), st.integers(1, 3))
def test_kmer_frequencies_are_counts_of_substrings(sequences, k):
    names = ["".join(letters) for letters in product("ACGU", repeat=k)]
    table = kmer_frequencies(sequences, k).toarray()
    assert table.shape == (len(sequences), 4**k)
    for sequence, row in zip(sequences, table):
        found = Counter(sequence[start : start + k] for start in range(len(sequence) - k + 1))
        counts = np.array([found[name] for name in names])
        np.testing.assert_allclose(row, counts / max(counts.sum(), 1))
    strong = [
        sum(map(sequence.count, "GC")) / max(sum(map(sequence.count, "ACGU")), 1) for sequence in sequences
    ]
    np.testing.assert_allclose(gc_content(sequences), strong)
