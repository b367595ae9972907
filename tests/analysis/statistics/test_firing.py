"""Where a feature fires: histograms, logos, examples and counterexamples with known answers."""

import numpy as np
import pandas as pd
from given import Given
from numpy.testing import assert_allclose, assert_array_equal
from scipy import sparse

from sae_rna.analysis.statistics.firing import BINS, EXAMPLES, REACH, Firing, Known, correlations
from sae_rna.sae.encoding import token_table

STEM, LOOP = "((((....))))", "SSSSHHHHSSSS"


def rnas(sequences: list[str], families: list[str], split="heldout") -> Given:
    """Hairpins of 12 nucleotides."""
    names = [f"rna{n}" for n in range(len(sequences))]
    records = pd.DataFrame({"id": names, "sequence": sequences, "family": families, "split": split})
    records = records.assign(secondary_structure=STEM, element=LOOP)
    tokens = token_table(records)
    return Given(sparse.csr_matrix((len(tokens), 1)), records, tokens)


def firing(of: Given, values: dict[tuple[int, int], float]) -> Firing:
    """A feature with values at (RNA, position)."""
    rows = {12 * record + position: value for (record, position), value in values.items()}
    order = sorted(rows)
    return Firing(Known(of), np.array(order), np.array([rows[row] for row in order], float))


def test_the_histogram_counts_every_firing_nucleotide_once():
    of = firing(rnas(["GGGGAAAACCCC"], ["a"]), {(0, 0): 0.1, (0, 1): 1.0, (0, 2): 0.0, (0, 5): 0.52})
    counts, maximum = of.histogram()
    assert maximum == 1.0 and len(counts) == BINS and counts.sum() == 3
    assert_array_equal(np.flatnonzero(counts), [2, 10, 19])


def test_the_logo_has_the_letters_around_the_strongest_nucleotide_and_families_count_alike():
    sequences = ["GGGCAUAACCCC"] * 3 + ["GGGGAUAACCCC"]
    of = firing(rnas(sequences, ["a", "a", "a", "b"]), {(n, 4): 1 + n for n in range(4)} | {(0, 6): 0.5})
    shares, peaks, families = of.logo()
    assert (peaks, families, len(shares)) == (4, 2, 2 * REACH + 1)
    assert_allclose(shares[REACH], [1, 0, 0, 0])  # A at the peak
    assert_allclose(shares[REACH - 1], [0, 0.5, 0.5, 0])  # three C of one family, one G of another
    assert np.isnan(shares[0]).all()  # no RNA reaches 5 letters before its 5th


def test_examples_go_from_the_strongest_to_the_weakest_in_shares_of_the_maximum():
    of = firing(rnas(["GGGGAAAACCCC"] * 30, ["a"] * 30), {(n, 2): 1 + n for n in range(30)})
    shown = of.examples(of.known.has("element", "hairpin loop"))
    most = [example.share_L.max() for example in shown]
    assert (
        len(shown) == EXAMPLES and most[0] == 1 and most[-1] == 1 / 30 and most == sorted(most, reverse=True)
    )
    assert all(example.share_L[2] == example.share_L.max() for example in shown)
    assert_array_equal(np.flatnonzero(shown[0].marked_L), [4, 5, 6, 7])


def test_counterexamples_are_the_concept_without_the_feature_and_the_feature_without_the_concept():
    of = firing(rnas(["GGGGAAAACCCC"] * 4, list("abcd")), {(0, 4): 1, (1, 0): 0.5, (1, 5): 0.1, (2, 11): 0.2})
    silent, outside, numbers = of.counterexamples(of.known.has("element", "hairpin loop"))
    assert numbers == {"having": 4, "missed": 2, "firing": 3, "astray": 1}
    assert [example.name for example in silent] == ["c (rna2)", "d (rna3)"]
    assert [example.name for example in outside] == ["b (rna1)", "c (rna2)"]


def test_shares_of_the_firing_stand_beside_those_of_all_nucleotides():
    of = firing(rnas(["GGGGAAAACCCC"], ["a"]), {(0, 0): 1, (0, 4): 1, (0, 5): 2, (0, 6): 1})
    where = of.where().set_index("name")
    assert_allclose(where.loc[["A", "G", "hairpin loop", "stem"], "firing"], [0.75, 0.25, 0.75, 0.25])
    assert_allclose(where.loc[["A", "G", "hairpin loop", "stem"], "all"], [1 / 3, 1 / 3, 1 / 3, 2 / 3])


def test_correlations_are_pearsons():
    values = np.random.default_rng(0).random((200, 5)) * (np.random.default_rng(1).random((200, 5)) < 0.3)
    values[:, 4] = 2
    found = correlations(sparse.csc_matrix(values), sparse.csr_matrix(values))
    assert_allclose(found[:4, :4], np.corrcoef(values[:, :4].T), atol=1e-12)
    assert_array_equal(found[4], 0)  # what never changes goes with nothing
