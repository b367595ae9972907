"""Page 02: baselines, masked bases and probes against known answers."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from sae_rna.analysis import language_model as page
from sae_rna.analysis.language_model import MarkovBaseline, choose_masked, choose_order, masked_scores
from sae_rna.analysis.statistics.probing import base_auroc, probe
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


def test_samples_are_of_the_training_records_and_of_every_set_of_an_evaluation_split():
    splits = ["train"] * 4500 + ["selection"] * 400 + ["natural"] * 7 + ["validation"] * 5
    training, tested = page.masked_samples(pd.DataFrame({"split": splits}), 0)
    assert len(training) == 4000 and set(training.split) == {"train"}
    assert tested["set"].value_counts().to_dict() == {"unseen families": 300, "unseen families, natural": 7}


def test_masked_bases_count_in_one_set_by_exposure_and_natural_ones_apart():
    rows = [
        ("seen-heldout", "sampled", "tRNA", "seen families"),
        ("seen-selection", "natural", "tRNA", "seen families, natural tRNA"),
        ("seen-heldout", "natural", "CD-box", "seen families, natural"),
        ("selection", "sampled", "tRNA", "unseen families"),
        ("heldout", "sampled", "CD-box", "unseen families"),
        ("natural", "natural", "vault_RNA", "unseen families, natural"),
        ("train", "natural", "tRNA", ""),
        ("validation", "sampled", "tRNA", ""),
    ]
    records = pd.DataFrame(rows, columns=["split", "origin", "type", "expected"])
    found = page.masked_set(records)
    assert ["" if pd.isna(name) else name for name in found] == records.expected.tolist()
    order = dict.fromkeys(page.masked_samples(records, 0)[1]["set"])
    assert list(order) == [name for name in found.categories if name in set(records.expected)]


def test_every_predictor_meets_the_same_masked_bases_of_every_set(study, masked):
    records = study.all_records("structures")
    expected = (records.split != "train").sum()  # of unseen families all
    assert set(masked["set"]) == {"unseen families"} and (masked.sequences == min(expected, 300)).all()
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
    known = accuracy.assign(set="unseen families", paired=[0.25, 0.5] * (len(accuracy) // 2))
    numbers = page.masked_numbers(known)
    assert numbers["model"] == "unknown" and numbers["baseline"] == "50.0% in unseen families"


def test_accuracies_by_position_are_those_of_the_table(masked):
    long = page.masked_by_position(masked).set_index(["set", "predictor", "positions"]).sort_index()
    for row in masked.itertuples():
        of = long.loc[(row.set, row.predictor)]
        assert of.accuracy.to_dict() == {"all": row.accuracy, "paired": row.paired, "unpaired": row.unpaired}
        assert of.tokens["all"] == row.bases == of.tokens["paired"] + of.tokens["unpaired"]
        right = of.accuracy * of.tokens
        assert right["all"] == pytest.approx(right["paired"] + right["unpaired"])


def test_masked_numbers_are_of_sampled_rnas_in_each_setting_beside_the_best_other_predictor():
    seen, unseen = "seen families", "unseen families"
    accuracy = pd.DataFrame(
        {
            "set": [seen] * 3 + [unseen] * 2 + [f"{unseen}, natural"] * 2,
            "predictor": [page.TRAINED, "a", "b", page.TRAINED, "a", page.TRAINED, "a"],
            "accuracy": [0.5, 0.4, 0.3, 0.5, 0.4, 0.5, 0.4],
            "paired": [0.5, 0.25, 0.3, 0.2, 0.2, 0.9, 0.1],  # as good as the model in the second set
            "unpaired": [0.5, 0.6, 0.3, 0.5, 0.4, 0.3, 0.4],  # ahead in the first and the last
            "bases": [10] * 3 + [20] * 2 + [5] * 2,
        }
    )
    assert page.masked_numbers(accuracy) == {
        "bases": 35,
        "model": "50.0% in seen families and 20.0% in unseen families",
        "baseline": "30.0% in seen families and 20.0% in unseen families",
        "compared": 9,
        "ahead": 3,
    }


def test_probes_are_of_every_layer_of_every_model_and_of_windows(study):
    models = {page.TRAINED: study.model, page.RANDOM: study.random_model}
    probes = page.linear_probes(models, study.structures, [1, 3], 0)
    assert probes.source.tolist() == ["one-hot window of 11 nt"] + [page.TRAINED] * 2 + [page.RANDOM] * 2
    assert probes.layer.tolist()[1:] == [1, 3, 1, 3] and np.isnan(probes.layer[0])
    parts = [study.structures[study.structures.split == split] for split in ("selection", "heldout")]
    parts = [part.sample(len(part), random_state=0) for part in parts]
    states = [hidden_states(study.model, part.sequence.tolist(), [3])[:, 0] for part in parts]
    stems = [np.array(list("".join(part.element))) == "S" for part in parts]
    guess_T = probe(states[0], stems[0], states[1])
    assert probes.auroc[2] == pytest.approx(roc_auc_score(stems[1], guess_T), abs=1e-6)
    bases = np.array(list("".join(parts[1].sequence)))
    assert probes.base_auroc[2] == pytest.approx(base_auroc(guess_T, stems[1], bases), abs=1e-6)
    assert set(probes.setting) == {"unseen families"}
    assert (probes.tokens == len(stems[1])).all()


def test_the_best_readers_are_the_best_layers_of_each_setting():
    window, unseen = "one-hot window of 11 nt", "unseen families"
    rows = [(unseen, window, np.nan, 0.6), (unseen, page.TRAINED, 1, 0.7), (unseen, page.TRAINED, 2, 0.8)]
    rows += [(unseen, page.RANDOM, 1, 0.65), ("seen families", page.TRAINED, 1, 0.9)]
    probes = pd.DataFrame(rows, columns=["setting", "source", "layer", "base_auroc"]).assign(auroc=0.5)
    scores = pd.DataFrame({"element": ["S", "H", "S"], "layer": [1, 1, 2], "feature": [9, 5, 4]})
    scores = scores.assign(
        setting=unseen, base_auroc=0.55, base_auroc_low=0.5, base_auroc_high=0.6, auroc=0.5
    )
    readers = page.stem_readers(probes, scores)
    assert readers.source.tolist() == [*probes.source, page.SINGLE, page.SINGLE]
    assert readers.feature.tolist()[-2:] == [9, 4] and readers.layer.tolist()[-2:] == [1, 2]
    assert page.best_readers(readers) == {
        "best": "0.800 in unseen families and 0.900 in seen families",
        "random": "0.650 in unseen families",
        "window": "0.600 in unseen families",
    }


def test_sizes_are_those_of_the_models(study):
    sizes = page.models(study.model, [study.autoencoders(variant) for variant in study.parameters.main])
    assert sizes.model.tolist() == [study.model.source, "relu-l1-matched", "relu-l1", "batchtopk"]
    assert sizes.layers.tolist() == ["3", "1, 2, 3", "1, 2, 3", "1, 2, 3"]
    assert sizes.latents[1:].tolist() == [96] * 3 and pd.isna(sizes.latents[0])
    assert sizes.parameters[1] == 3 * (2 * 96 * 32 + 96 + 32)  # two matrices and two biases a layer
    assert sizes.sparsity[1] == "k = 4" and "summed" in sizes.sparsity[2] and sizes.sparsity[3] == "k = 4"
