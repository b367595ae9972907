"""Features that follow letters fail, features that follow pairs pass, and what is moved stays whole."""

import re

import numpy as np
import pandas as pd
import pytest

from sae_rna.analysis.statistics import falsification
from sae_rna.analysis.statistics.falsification import (
    FALLS,
    KMERS,
    MIRRORED,
    MOVED,
    SHUFFLED,
    STAYS,
    move_hairpin,
    survival,
)
from sae_rna.records.structure import add_elements, pair_table

HELIX = 10
MOTIF = "GGUGU"  # stands in the 5' strand of every planted helix, and nowhere else


def hairpins(count=24, seed=0):
    """RNAs of one hairpin: G and U on its 5' strand, A and C everywhere else, so that nothing else pairs."""
    rng, rows = np.random.default_rng(seed), []
    for number in range(count):
        strand = "".join(rng.choice(list("GU"), HELIX - 5)) + MOTIF
        left, loop, right = ("".join(rng.choice(list("AC"), size)) for size in (rng.integers(5, 30), 5, 25))
        other = strand[::-1].translate(str.maketrans("GU", "CA"))
        structure = "." * len(left) + "(" * HELIX + "." * 5 + ")" * HELIX + "." * 25
        facts = {"id": f"rna-{number}", "family": f"family-{number // 2}"}
        rows.append(
            facts | {"sequence": left + strand + loop + other + right, "secondary_structure": structure}
        )
    return add_elements(pd.DataFrame(rows))


def pairing(sequence, fewest=9):
    """1 where a nucleotide is in a run of `fewest` Watson-Crick pairs around a loop, read from letters alone."""
    pairs, found = {"GC", "CG", "AU", "UA"}, np.zeros(len(sequence))
    for first in range(len(sequence)):
        for last in range(first + 2 * fewest + 2, len(sequence)):
            run = 0
            while first + run < last - run - 3 and sequence[first + run] + sequence[last - run] in pairs:
                run += 1
            if run >= fewest:
                found[first : first + run] = found[last - run + 1 : last + 1] = 1
    return found


def motif(sequence):
    """1 at the middle of every `MOTIF`."""
    found = np.zeros(len(sequence))
    found[[match.start() + 2 for match in re.finditer(f"(?={MOTIF})", sequence)]] = 1
    return found


def base_g(sequence):
    return np.array([letter == "G" for letter in sequence], float)


DETECTORS = [pairing, motif, base_g]


def fire(sequences, features):
    return np.column_stack([np.concatenate([*map(DETECTORS[n], sequences)]) for _, n in features])


@pytest.fixture(scope="module")
def tested():
    names = {"group": "element", "concept": "stem", "layer": 1}
    named = pd.DataFrame([names | {"feature": feature} for feature in range(len(DETECTORS))])
    table = survival(fire, named, hairpins())
    return table.assign(detector=table.feature.map(lambda n: DETECTORS[n].__name__)).set_index(
        ["detector", "test"]
    )


def test_a_pairing_detector_fires_where_pairs_stay_and_falls_silent_where_they_go(tested):
    share = tested.loc["pairing"].share
    assert share[MIRRORED] == pytest.approx(1, abs=0.05) and share[MOVED] == pytest.approx(1, abs=0.05)
    assert share[KMERS] < 0.1 and share[SHUFFLED] < 0.3  # some shuffles leave the G-U strand as it was


def test_a_kmer_detector_fires_wherever_its_kmer_is_pasted_and_not_in_the_mirror(tested):
    share = tested.loc["motif"].share
    assert share[KMERS] == share[MOVED] == 1 and share[MIRRORED] < 0.3


def test_a_detector_of_one_base_does_not_feel_a_shuffle(tested):
    share = tested.loc["base_g"].share
    assert share[SHUFFLED] == share[KMERS] == 1


def test_shares_lie_in_their_intervals_over_families(tested):
    assert (tested.low <= tested.share).all() and (tested.share <= tested.high).all()
    assert tested.rnas.loc["pairing"].to_dict() == {
        KMERS: 20, SHUFFLED: 24, MIRRORED: 24, MOVED: 24}  # fmt: skip


def test_a_share_without_rnas_firing_or_meaning_is_missing(monkeypatch):
    rnas = hairpins(12)
    names = {"layer": 1, "feature": 0}
    rows = [{"group": "element", "concept": "end"}, {"group": "tetraloop", "concept": "GNRA tetraloop"}]
    share = (
        survival(fire, pd.DataFrame([row | names for row in rows]), rnas).set_index(["concept", "test"]).share
    )
    assert share["end"][[*FALLS]].isna().all()  # an RNA without pairs has ends, too
    assert share["GNRA tetraloop"][[*STAYS]].isna().all()  # no RNA has one
    monkeypatch.setattr(falsification, "FEWEST", 13)
    names = pd.DataFrame([names | {"group": "element", "concept": "stem"}])
    assert survival(fire, names, rnas).share.isna().all()


@pytest.mark.parametrize(
    "structure",
    ["....((((...))))............", "((..((..((....)).))..))..............", "((((....))))...((((....))))"],
)
def test_a_moved_hairpin_stays_whole_and_far_from_where_it_was(structure):
    partner = pair_table(structure)
    for seed in range(20):
        order, inside = move_hairpin(structure, np.random.default_rng(seed))
        assert sorted(order) == list(range(len(structure))) and inside.any()
        place = np.argsort(order)  # where every nucleotide went
        moved = np.flatnonzero(inside)
        assert np.array_equal(np.diff(place[moved]), np.ones(len(moved) - 1)) and (partner[moved] >= 0).any()
        assert set(partner[moved]) - {-1} <= set(moved)
        rest = np.flatnonzero(~inside)
        assert np.array_equal(np.sort(place[rest]), place[rest])
        assert abs(place[moved[0]] - moved[0]) >= falsification.FAR
        stacked = [(i, i + 1) for i in rest[:-1] if partner[i] >= 0 and partner[i + 1] == partner[i] - 1]
        assert all(place[b] == place[a] + 1 for a, b in stacked)


def test_what_cannot_be_moved_stays():
    order, inside = move_hairpin("((((....))))", np.random.default_rng(0))
    assert order.tolist() == list(range(12)) and not inside.any()


def test_a_hairpin_of_a_multiloop_is_moved_alone():
    structure = "((((..(((....)))..(((....)))..))))....................."
    found = {
        tuple(np.flatnonzero(move_hairpin(structure, np.random.default_rng(seed))[1])) for seed in range(30)
    }
    assert found == {tuple(range(6, 16)), tuple(range(18, 28))}
