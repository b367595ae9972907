"""Page 02: baselines, masked bases and probes against known answers."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from sae_rna.analysis import language_model as page
from sae_rna.analysis.language_model import (
    MarkovBaseline,
    choose_masked,
    choose_order,
    masked_scores,
    stem_probe,
)
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import hidden_states
from sae_rna.records.composition import encode_bases, one_hot_windows


def texts(count, seed, period="ACGGUC"):
    rng = np.random.default_rng(seed)
    return ["".join((period * 20)[start : start + 60]) for start in rng.integers(0, len(period), count)]


def with_elements(sequences):
    return pd.DataFrame({"sequence": sequences, "element": [("SE" * 99)[: len(text)] for text in sequences]})


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
    scores = masked_scores(with_elements(texts(10, 2)), masked, baseline.probabilities(texts(10, 2), masked))
    assert scores["accuracy"] > 0.97 and scores["loss"] < 0.1  # a window at the very end may fit twice


def test_scores_split_paired_and_unpaired_bases():
    records = pd.DataFrame({"sequence": ["AACC"], "element": ["SSHH"]})
    sure = np.eye(4)[[0, 0, 0, 1]]  # right, right, wrong, right
    scores = masked_scores(records, [np.arange(4)], [sure])
    assert (scores["accuracy"], scores["paired"], scores["unpaired"]) == (0.75, 1.0, 0.5)
    assert (scores["bases"], scores["paired_bases"]) == (4, 2)


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
    model = LanguageModel.load(str(tiny_model), masked=True)
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("ACGU"), 50)) for _ in range(60)]
    masked = choose_masked(sequences, 0)
    guess = [np.exp(values) for values in page.model_log_probabilities(model, sequences, masked)]
    np.testing.assert_allclose(np.concatenate(guess).sum(1), 1, rtol=1e-5)
    assert masked_scores(with_elements(sequences), masked, guess)["accuracy"] == pytest.approx(0.25, abs=0.08)


def test_a_sequence_without_nucleotides_has_no_windows():
    assert one_hot_windows(["NN", "ACG"], reach=1).shape == (3, 12)


# -- tables of the page


@pytest.fixture(scope="module")
def masked(study):
    training, tested = page.masked_samples(study.all_records("structures"), 0)
    models = page.masked_models(study.masked_model)
    return page.masked_accuracy(models, training, study.with_elements(tested), 0)


def test_samples_are_of_the_training_records_and_of_every_other_split():
    splits = ["train"] * 4500 + ["selection"] * 400 + ["natural"] * 7
    training, tested = page.masked_samples(pd.DataFrame({"split": splits}), 0)
    assert len(training) == 4000 and set(training.split) == {"train"}
    assert tested.split.value_counts().to_dict() == {"selection": 300, "natural": 7}


def test_every_predictor_meets_the_same_masked_bases_of_every_set(study, masked):
    records = study.all_records("structures")
    expected = records[records.split != "train"].split.value_counts()
    assert (masked.groupby("set").sequences.first() == expected.clip(upper=300).sort_index()).all()
    assert (masked.groupby("set")[["bases", "paired_bases"]].nunique() == 1).all(axis=None)
    for _, rows in masked.groupby("set"):
        assert rows.predictor.tolist()[:3] == [page.TRAINED, page.RANDOM, "most common base"]
        assert len(rows) == 4 and rows.predictor.iloc[3].startswith("Markov chain of order")


def test_without_a_head_for_masked_bases_the_baselines_stand_alone(study):
    def headless(random):
        raise ValueError("these weights have no head")

    with pytest.warns(UserWarning, match="no head"):
        models = page.masked_models(headless)
    training, tested = page.masked_samples(study.all_records("structures"), 0)
    accuracy = page.masked_accuracy(models, training, study.with_elements(tested.head(20)), 0)
    assert not set(accuracy.predictor) & {page.TRAINED, page.RANDOM} and len(accuracy) >= 2
    known = accuracy.assign(set="heldout", paired=[0.25, 0.5] * (len(accuracy) // 2))
    assert page.paired_accuracy(known) == {
        "model": "unknown", "baseline": "50.0%"
    }  # fmt: skip


def test_accuracies_by_position_are_those_of_the_table(masked):
    long = page.masked_by_position(masked).set_index(["set", "predictor", "positions"]).sort_index()
    for row in masked.itertuples():
        of = long.loc[(row.set, row.predictor)]
        assert of.accuracy.to_dict() == {"all": row.accuracy, "paired": row.paired, "unpaired": row.unpaired}
        assert of.tokens["all"] == row.bases == of.tokens["paired"] + of.tokens["unpaired"]
        right = of.accuracy * of.tokens
        assert right["all"] == pytest.approx(right["paired"] + right["unpaired"])


def test_paired_accuracy_is_of_heldout_rnas_beside_the_best_other_predictor():
    accuracy = pd.DataFrame(
        {
            "set": ["heldout"] * 3 + ["natural"],
            "predictor": [page.TRAINED, "a", "b", page.TRAINED],
            "paired": [0.5, 0.25, 0.3, 0.9],
        }
    )
    assert page.paired_accuracy(accuracy) == {"model": "50.0%", "baseline": "30.0%"}


def test_probes_are_of_every_layer_of_every_model_and_of_windows(study):
    models = {page.TRAINED: study.model, page.RANDOM: study.random_model}
    probes = page.linear_probes(models, study.structures, [1, 3], 0)
    assert probes.source.tolist() == ["one-hot window of 11 nt"] + [page.TRAINED] * 2 + [page.RANDOM] * 2
    assert probes.layer.tolist()[1:] == [1, 3, 1, 3] and np.isnan(probes.layer[0])
    parts = [study.structures[study.structures.split == split] for split in ("selection", "heldout")]
    parts = [part.sample(len(part), random_state=0) for part in parts]
    states = [hidden_states(study.model, part.sequence.tolist(), [3])[:, 0] for part in parts]
    stems = [np.array(list("".join(part.element))) == "S" for part in parts]
    assert probes.auroc[2] == pytest.approx(stem_probe(states, stems), abs=1e-6)
    assert (probes.tokens == len(stems[1])).all()


def test_a_single_features_auroc_is_that_of_its_activations_and_the_best_of_the_selection(study):
    rnas = study.activations("structures")
    table = page.single_features(rnas, "H")
    assert table.layer.tolist() == study.layers and set(table.source) == {"best single feature (topk)"}
    row = table.iloc[-1]
    for split in ("heldout", "selection"):
        features, tokens = rnas.of_split(row.layer, split)
        hairpin = (tokens.element == "H").to_numpy()
        aurocs = [roc_auc_score(hairpin, column) for column in features.toarray().T]
        if split == "heldout":
            assert row.auroc == pytest.approx(aurocs[row.feature])
        else:
            assert aurocs[row.feature] == pytest.approx(np.max(np.array(aurocs)[rnas.retained(row.layer)]))


def test_the_best_readers_are_the_best_layers():
    window, single = "one-hot window of 11 nt", "best single feature (topk)"
    probes = pd.DataFrame(
        [(window, np.nan, 0.6), (page.TRAINED, 1, 0.7), (page.TRAINED, 2, 0.8), (page.RANDOM, 1, 0.65)],
        columns=["source", "layer", "auroc"],
    )
    features = pd.DataFrame({"source": single, "layer": [1, 2], "feature": [9, 4], "auroc": [0.55, 0.5]})
    readers = page.stem_readers(probes, features)
    assert readers.source.tolist() == [*probes.source, single, single] and readers.layer[5] == 2
    assert page.best_readers(readers) == {"best": 0.8, "random": 0.65, "window": 0.6, "single": 0.55}


def test_sizes_are_those_of_the_models(study):
    sizes = page.models(study.model, [study.autoencoders(variant) for variant in study.parameters.main])
    assert sizes.model.tolist() == [study.model.source, "topk", "relu-l1", "relu-l1-mean"]
    assert sizes.layers.tolist() == ["3", "1, 2, 3", "1, 2, 3", "1, 2, 3"]
    assert sizes.latents[1:].tolist() == [96] * 3 and pd.isna(sizes.latents[0])
    assert sizes.parameters[1] == 3 * (2 * 96 * 32 + 96 + 32)  # two matrices and two biases a layer
    assert sizes.sparsity[1] == "k = 4" and "summed" in sizes.sparsity[2] and "averaged" in sizes.sparsity[3]
