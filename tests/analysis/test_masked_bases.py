"""Baselines and probes: known answers."""

import numpy as np
import pandas as pd
import pytest

from sae_rna.analysis.language_model import (
    MarkovBaseline,
    choose_masked,
    choose_order,
    masked_scores,
    stem_probe,
)
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.composition import encode_bases, one_hot_windows


def texts(count, seed, period="ACGGUC"):
    rng = np.random.default_rng(seed)
    return ["".join((period * 20)[start : start + 60]) for start in rng.integers(0, len(period), count)]


def test_order_zero_predicts_the_most_common_base():
    baseline = MarkovBaseline(0, ["AAAC", "AAGA"])
    (guess,) = baseline.probabilities(["CCCC"], [np.array([0, 3])])
    assert guess.argmax(1).tolist() == [0, 0]
    assert guess[0, 0] == pytest.approx((6 + 0.5) / (8 + 2))


@pytest.mark.parametrize("order", [1, 2, 3])
def test_the_two_sided_conditional_equals_brute_force_over_the_chain(order):
    rng = np.random.default_rng(order)
    training = ["".join(rng.choice(list("ACGU"), 200)) for _ in range(5)]
    baseline = MarkovBaseline(order, training)
    sequence = "GACUUGCAUGGCA"
    for place in (0, 1, 5, len(sequence) - 1):
        scores = []
        for base in "ACGU":
            codes = encode_bases([sequence[:place] + base + sequence[place + 1 :]])[0]
            padded = np.concatenate([np.zeros(order, int), codes])
            total = 0.0
            for i in range(order, len(padded)):
                context = 0
                for code in padded[i - order : i]:
                    context = 4 * context + code
                total += baseline.log_probability[context, padded[i]]
            scores.append(total)
        expected = np.exp(scores - np.max(scores))
        (guess,) = baseline.probabilities([sequence], [np.array([place])])
        np.testing.assert_allclose(guess[0], expected / expected.sum(), rtol=1e-6)


def test_a_periodic_text_needs_an_order_that_tells_its_repeats_apart():
    baseline = choose_order(texts(30, 0), texts(10, 1), seed=0)
    masked = choose_masked(texts(10, 2), 0)
    scores = masked_scores(
        pd.DataFrame({"sequence": texts(10, 2)}), masked, baseline.probabilities(texts(10, 2), masked)
    )
    assert scores["accuracy"] > 0.97 and scores["loss"] < 0.1  # a window at the very end may fit twice


def test_scores_split_paired_and_unpaired_bases():
    records = pd.DataFrame({"sequence": ["AACC"], "element": ["SSHH"]})
    sure = np.eye(4)[[0, 0, 0, 1]]  # right, right, wrong, right
    scores = masked_scores(records, [np.arange(4)], [sure])
    assert (scores["accuracy"], scores["paired"], scores["unpaired"], scores["bases"]) == (0.75, 1.0, 0.5, 4)


def test_masks_hide_fifteen_per_cent_of_the_known_bases_only():
    sequences = ["ACGUN" * 400] * 5
    hidden = choose_masked(sequences, 0)
    assert all(sequences[0][place] != "N" for place in hidden[0])
    assert np.mean([len(h) / 1600 for h in hidden]) == pytest.approx(0.15, abs=0.02)


def test_windows_hold_the_neighbours_and_nothing_beyond_the_ends():
    windows = one_hot_windows(["ACNG"], reach=1).reshape(3, 4, 3)
    assert windows[0].sum() == 2 and windows[1].sum() == 2 and windows[2].sum() == 1
    assert windows[0, 0, 1] == 1 and windows[0, 1, 2] == 1


def test_a_probe_reads_a_linear_rule_and_finds_nothing_in_noise():
    rng = np.random.default_rng(0)
    x, noise = rng.normal(size=(2, 3000, 8)), rng.normal(size=(2, 3000, 8))
    labels = x[..., 0] + 0.3 * x[..., 1] > 0
    assert stem_probe((x[0], x[1]), (labels[0], labels[1])) > 0.99
    assert stem_probe((noise[0], noise[1]), (labels[0], labels[1])) == pytest.approx(0.5, abs=0.04)


def test_a_model_with_random_weights_does_no_better_than_chance(tiny_model):
    from sae_rna.analysis.language_model import model_probabilities

    model = LanguageModel.load(str(tiny_model), masked=True)
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGU"), 50)) for _ in range(60)]
    masked = choose_masked(sequences, 0)
    scores = masked_scores(
        pd.DataFrame({"sequence": sequences}), masked, model_probabilities(model, sequences, masked)
    )
    assert scores["accuracy"] == pytest.approx(0.25, abs=0.08)


def test_a_sequence_without_nucleotides_has_no_windows():
    assert one_hot_windows(["NN", "ACG"], reach=1).shape == (3, 12)
