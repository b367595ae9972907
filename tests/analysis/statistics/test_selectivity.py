"""How well a sparse probe tells RNA types of unseen families apart."""

from collections import Counter
from itertools import product

import numpy as np
import pytest
from analysis.statistics.samples import TYPES, noise_of_families, rnas
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from sae_rna.analysis.statistics import selectivity
from sae_rna.analysis.statistics.selectivity import type_probe
from sae_rna.records.composition import gc_content, kmer_frequencies, length_and_gc


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


def probe_sets(rng):
    known, unseen = rnas(rng, 48, 4), rnas(rng, 36, 4)
    return known, unseen, (known.type, unseen.type, (known.family, unseen.family))


def test_a_probe_reads_planted_types_with_few_weights_and_nothing_from_noise_or_families():
    rng = np.random.default_rng(17)
    known, unseen, labels = probe_sets(rng)
    marked, blank = [], []
    for records in (known, unseen):
        values = noise_of_families(rng, records, 60)
        blank.append(values.copy())
        for column, kind in enumerate(TYPES):
            values[:, column] += 5 * (records.type == kind)
        marked.append(sparse.csr_matrix(values))
    table = type_probe({"marked": marked, "blank": blank}, *labels).set_index("representation")
    assert table.loc["marked", "balanced_accuracy"] > 0.95 and table.loc["marked", "nonzero_weights"] < 30
    assert table.loc["blank", "low"] < 1 / 3 < table.loc["blank", "high"]
    assert table.loc["blank", "balanced_accuracy"] == pytest.approx(1 / 3, abs=0.15)
    assert (
        (table.chance == 1 / 3).all()
        and (table.types == 3).all()
        and (table.families == 36).all()
        and (table["columns"] == 60).all()
    )
    assert (table.low <= table.balanced_accuracy).all() and (table.balanced_accuracy <= table.high).all()
    assert abs(table.loc["marked", "macro_f1"] - table.loc["marked", "balanced_accuracy"]) < 0.05


def test_a_probe_of_kmers_tells_types_of_different_composition_apart():
    rng = np.random.default_rng(18)
    known, unseen = rnas(rng, 36, 2, richer=4), rnas(rng, 36, 2, richer=4)
    sets = {
        "k-mers": [kmer_frequencies(records.sequence, 1) for records in (known, unseen)],
        "length and GC": [length_and_gc(records.sequence) for records in (known, unseen)],
    }
    table = type_probe(sets, known.type, unseen.type, (known.family, unseen.family))
    assert (table.balanced_accuracy > 0.7).all() and table.representation.tolist() == list(sets)


def test_types_of_one_family_take_no_part_in_the_probe():
    rng = np.random.default_rng(19)
    known, unseen, _ = probe_sets(rng)
    known.loc[known.family == "family 0", "type"] = "lone"
    unseen.loc[unseen.family == "family 0", "type"] = "lone"
    table = type_probe(
        {"noise": (noise_of_families(rng, known), noise_of_families(rng, unseen))},
        known.type,
        unseen.type,
        (known.family, unseen.family),
    )
    assert table.types[0] == 3 and table.sequences[0] == 35 * 4 and table.families[0] == 35


def test_the_interval_draws_families_not_sequences():
    """Two families of a type, one right and one wrong: recall 0, 1/2 or 1; the other type has a single family."""
    right = np.array([True] * 50 + [False] * 50 + [True] * 10)
    kind, family = np.array(["a"] * 100 + ["b"] * 10), np.repeat(["one", "two", "three"], [50, 50, 10])
    rng = np.random.default_rng(0)
    assert selectivity._bootstrap(right, kind, family, rng) == (0.75, 0.5, 1.0)
    assert selectivity._bootstrap(right[50:], kind[50:], family[50:], rng) == (0.5, 0.5, 0.5)


def test_probes_that_cannot_be_fitted_are_refused():
    rng = np.random.default_rng(20)
    known, unseen, labels = probe_sets(rng)
    with pytest.raises(ValueError, match="short has 143 held-out rows for 144 held-out sequences"):
        type_probe({"short": (np.zeros((192, 2)), np.zeros((143, 2)))}, *labels)
    with pytest.raises(ValueError, match="1 RNA types have 2 families to fit on"):
        type_probe({}, ["tRNA"] * 192, ["tRNA"] * 144, labels[2])
