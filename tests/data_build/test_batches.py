"""Batches: masks, targets, mixture, and hardly any padding."""

import numpy as np
import pytest
from batches import CHOSEN, Corpus, Mixture, Pools, Rnas, draw_helices, encode, ragged

ALL = Mixture(families=0.5, redrawn=0.25, natural=0.1, sharpness=0.0)


@pytest.fixture(scope="module")
def pools(corpus):
    return Pools(corpus, seed=0, batch_tokens=512, batches=32)


@pytest.mark.parametrize("spared", [1.0, 0.0])
def test_masks_change_only_chosen_positions_and_know_the_truth(pools, spared):
    rng = np.random.default_rng(0)
    rnas = Rnas.joined(draw_helices(20_000, rng))
    ids, chosen, targets = pools.mask(rnas, np.full(len(rnas.lengths), spared), rng)
    truth = pools.base_ids[rnas.bases]
    assert (ids == truth)[~chosen].all()
    hidden, stays = ids == pools.special[3], (targets == np.eye(4)[rnas.bases]).all(1)
    assert hidden[chosen].mean() == pytest.approx(0.5, abs=0.03)
    assert (targets[chosen & ~stays] == rnas.probability[chosen & ~stays]).all()
    assert (targets[hidden] == rnas.probability[hidden]).all()
    assert (hidden | stays | (ids != truth) | (targets == rnas.probability).all(1))[chosen].all()
    both = chosen & (rnas.partner >= 0) & chosen[rnas.partner]
    assert both.any() != bool(spared)
    if not spared:
        assert chosen.mean() == pytest.approx(CHOSEN, abs=0.02)


def test_batches_are_a_function_of_seed_and_number_alone(pools, corpus):
    one, again, other = (pools.draw(number, ALL)[0] for number in (3, 3, 4))
    for first, second in zip(one, again):
        assert all(np.array_equal(a, b) for a, b in zip(first, second))
    assert len(one[0].ids) != len(other[0].ids) or not np.array_equal(one[0].ids, other[0].ids)
    reseeded = Pools(corpus, seed=1, batch_tokens=512, batches=32).draw(3, ALL)[0]
    assert not all(np.array_equal(a.ids, b.ids) for a, b in zip(one, reseeded))


def test_a_pool_is_full_and_hardly_padded(corpus):
    batches, _ = Pools(corpus, 0, 2048, 64).draw(0, ALL)
    assert len(batches) == 64 and max(batch.ids.size for batch in batches) <= 2048
    special = 2 * sum(len(batch.lengths) for batch in batches)
    read = sum(batch.nucleotides for batch in batches) + special
    assert read / sum(batch.ids.size for batch in batches) > 0.95  # padding behind RNAs
    assert read / (64 * 2048) > 0.9  # and rows that are filled up for the compiled model


def test_families_and_grammars_come_in_their_share(pools):
    batches, synthetic = pools.draw(0, ALL)
    assert synthetic == pytest.approx(0.5 * sum(batch.nucleotides for batch in batches), rel=0.1)
    drawn = draw_helices(40_000, np.random.default_rng(0))
    assert [part.lengths.sum() for part in drawn] == pytest.approx([6_000] * 4 + [16_000], rel=0.05)


def test_rows_are_as_wide_as_asked_for(corpus):
    batches, _ = Pools(corpus, 0, 1024, 16, (24, 48, 80, 160)).draw(0, ALL)
    assert {batch.ids.shape[1] for batch in batches} <= {24, 48, 80, 160}
    assert all(batch.ids.size <= 1024 and batch.lengths.max() <= batch.ids.shape[1] for batch in batches)


def test_a_batch_holds_whole_rnas_with_targets_at_their_places(pools):
    rng = np.random.default_rng(0)
    rnas = pools.corpus.take(np.arange(3))
    chosen = np.ones(len(rnas.bases), bool)
    (batch,) = pools.cut(rnas, pools.base_ids[rnas.bases], chosen, np.eye(4)[rnas.bases], rng)
    assert batch.ids.shape == (3, 16) and sorted(batch.lengths) == [13, 14, 16]
    flat = batch.ids.ravel()
    assert (pools.base_ids[batch.targets.argmax(1)] == flat[batch.chosen]).all()
    assert batch.paired.sum() == 24 and batch.nucleotides == len(batch.chosen) == 37
    assert (flat == pools.special[0]).sum() == (flat == pools.special[1]).sum() == 3


def test_targets_of_families_follow_the_partners_base():
    """GAAAC: the model pairs G with C, with the five rows of the first base beginning at 0 and none for the
    others."""
    targets = np.full((5, 4), 0.25)
    targets[1], targets[4] = (0.1, 0.0, 0.9, 0.0), (0.4, 0.3, 0.2, 0.1)  # partner C, and no partner
    partner = np.array([4, -1, -1, -1, 0, -1, -1, -1, -1])
    tensors = {
        "bases": encode("GAAACGAAA"), "partner": partner, "cm_partner": partner,
        "target": np.array([0, -1, -1, -1, -1, 0, -1, -1, -1]), "targets": targets,
        "start": np.array([0, 5, 9]),
        "family": np.zeros(2), "type": np.zeros(2), "noise": np.ones(2), "natural": np.zeros(2),
    }  # fmt: skip
    rnas = Corpus(tensors).take(np.array([1, 0]))
    assert rnas.probability[0].tolist() == [0.4, 0.3, 0.2, 0.1]
    assert rnas.probability[4].tolist() == [0.1, 0.0, 0.9, 0.0]
    assert rnas.probability[8].tolist() == [0, 1, 0, 0] and rnas.partner.tolist() == [
        -1,
        -1,
        -1,
        -1,
        8,
        -1,
        -1,
        -1,
        4,
    ]


def test_of_two_corpora_every_rna_keeps_its_own(corpus):
    first = Corpus(vars(corpus) | {"target": np.zeros(len(corpus.bases), int), "targets": np.eye(5, 4)})
    second = Corpus(
        vars(corpus) | {"target": np.zeros(len(corpus.bases), int), "targets": np.eye(5, 4)[::-1]}
    )
    both, count = first.joined(second), len(corpus.lengths)
    assert both.lengths.tolist() == [*corpus.lengths, *corpus.lengths]
    assert len(set(both.family)) == 2 * len(set(corpus.family)) and len(set(both.type)) == 2
    for part, rows in ((first, np.arange(count)), (second, np.arange(count, 2 * count))):
        for ours, theirs in zip(both.take(rows), part.take(np.arange(count))):
            assert np.array_equal(ours, theirs)


def test_families_and_natural_rnas_are_drawn_in_their_shares(corpus):
    mixed = Corpus(
        vars(corpus) | {"natural": np.arange(15) < 3, "noise": np.where(np.arange(15) < 9, 1.4, 3.0)}
    )
    tokens = mixed.weights(0.2, 0.0) * mixed.lengths
    assert tokens[:3].sum() == pytest.approx(0.2) and tokens.sum() == pytest.approx(1)
    of_family = np.bincount(mixed.family[3:], tokens[3:])
    assert of_family == pytest.approx([0.4, 0.4])
    sharp = mixed.weights(0.2, 2.0) * mixed.lengths
    assert sharp[9:].sum() > 0.7 and np.bincount(mixed.family[3:], sharp[3:]) == pytest.approx([0.4, 0.4])


def test_ragged_ranges():
    assert ragged(np.array([5, 0]), np.array([2, 3])).tolist() == [5, 6, 0, 1, 2]
