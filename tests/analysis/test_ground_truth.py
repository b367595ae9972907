"""Planted latents are known and found again; a feature keeps its name only where every test that applies lets it."""

import numpy as np
import pandas as pd
import pytest
import torch

from sae_rna.analysis import ground_truth
from sae_rna.analysis.ground_truth import KEEPS, LOSES, UNKNOWN, Planted, known_latents, verdicts
from sae_rna.analysis.statistics.falsification import FALLS, STAYS, SURVIVAL, survival
from sae_rna.records.structure import CANONICAL_PAIRS, pair_table
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders


def test_what_is_true_of_a_nucleotide_is_known():
    records = pd.DataFrame({"sequence": ["GCAUUCGUGCA"], "secondary_structure": ["(((....)))."]})
    truth = known_latents(records)
    rows = {name: "".join("x" if value else "." for value in truth[name]) for name in truth}
    assert rows["base", "U"] == "...xx..x..."
    assert rows["pairing", "paired"] == "xxx....xxx."
    assert rows["pairing", "partner is A"] == ".......x..."
    assert rows["pairing", "partner is C"] == "x.......x.."
    assert rows["place", "5' strand"] == "xxx........"
    assert rows["place", "hairpin-closing pair"] == "..x....x..."
    assert rows["loop", "hairpin loop of 4 nt"] == rows["loop", "UNCG tetraloop"] == "...xxxx...."
    trimers = truth[[name for name in truth if name[0] == ground_truth.TRIMERS]]
    assert trimers.sum(axis=1).tolist() == [0, *[1] * 9, 0]
    assert set(truth.columns.get_level_values(0)) == {
        "base",
        "pairing",
        "place",
        "loop",
        ground_truth.TRIMERS,
    }


def test_synthetic_rnas_obey_their_pairs():
    rng = np.random.default_rng(0)
    for _ in range(50):
        sequence, structure = ground_truth.draw_rna(rng)
        partner = pair_table(structure)
        assert (partner >= 0).sum() >= 8 and len(sequence) == len(structure)
        assert all(sequence[i] + sequence[j] in CANONICAL_PAIRS for i, j in enumerate(partner) if j >= 0)


def directions(seed=0):
    count = known_latents(
        pd.DataFrame({"sequence": ["GCAUUCGUGC"], "secondary_structure": ["(((....)))"]})
    ).shape[1]
    values = np.random.default_rng(seed).normal(size=(count, ground_truth.WIDTH))
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def test_a_dictionary_of_the_planted_directions_has_precision_recall_and_cosine_one(monkeypatch):
    monkeypatch.setattr(ground_truth, "NOISE", 0)
    orthogonal = np.eye(84, 84, dtype=float)
    known, other = (Planted(40, orthogonal, (0, number)) for number in (0, 1))
    config = AutoencoderConfig("relu-l1", (Member(1, 0.1),), 84, 84)
    sae = SparseAutoencoders(config, known.standardise)
    with torch.no_grad():  # a latent fires where its direction is there at all
        sae.encoder_weight[0] = torch.diag(known.standardise.std[0])
        sae.encoder_bias[0] = known.standardise.mean - 1e-4
        sae.decoder_weight[0] = torch.diag(1 / known.standardise.std[0])
        sae.decoder_bias[0] = -known.standardise.mean / known.standardise.std
    present = known.truth.to_numpy().any(0) & other.truth.to_numpy().any(0)
    table = ground_truth._matched(sae, known, other, orthogonal)[present]
    assert present.sum() > 60 and table.found.all()
    assert table[["precision", "recall", "cosine"]].to_numpy() == pytest.approx(1)
    assert table.explained_variance.iloc[0] == pytest.approx(1, abs=1e-3)
    assert table.l0.iloc[0] == pytest.approx(other.truth.to_numpy().sum(1).mean())


def test_a_trained_dictionary_finds_planted_latents_and_frozen_ones_do_not(monkeypatch):
    monkeypatch.setattr(ground_truth, "ARCHITECTURES", ("batchtopk",))
    monkeypatch.setattr(ground_truth, "PLANTED_RNAS", {"train": 500, "matched": 100, "scored": 100})
    table = ground_truth.recover("batchtopk", {})
    letters = table[table.group == ground_truth.TRIMERS].groupby("source")
    assert letters[["precision", "recall"]].median().loc["batchtopk"].min() > 0.95
    found = table.groupby("source").found.mean()
    assert found["batchtopk"] > 0.6 and found[["frozen decoder", "frozen encoder", "untrained"]].max() < 0.05
    assert letters.cosine.median()["batchtopk"] > 0.95 > 0.5 > letters.cosine.median()["frozen decoder"]


def shares(**by_test):
    """Rows of one feature in `falsify`."""
    facts = {"source": "SAE", "setting": "unseen families", "group": "element", "layer": 1, "feature": 0}
    tests = dict(zip((*FALLS, *STAYS), "kmers shuffled mirrored moved".split()))
    return [facts | {"test": test, "share": by_test.get(name, np.nan)} for test, name in tests.items()]


@pytest.mark.parametrize(
    ("by_test", "verdict"),
    [
        ({"kmers": 0.1, "shuffled": 0.4, "mirrored": 0.9, "moved": 0.8}, KEEPS),
        ({"shuffled": 0.4, "mirrored": 0.9}, KEEPS),
        ({"kmers": 0.6, "shuffled": 0.4, "mirrored": 0.9, "moved": 0.8}, LOSES),
        ({"kmers": 0.1, "shuffled": 0.4, "mirrored": 0.9, "moved": 0.5}, LOSES),
        ({"moved": 0.2}, LOSES),
        ({"mirrored": 0.9, "moved": 0.8}, UNKNOWN),
        ({"kmers": 0.1}, UNKNOWN),
        ({}, UNKNOWN),
    ],
)
def test_a_name_is_kept_where_every_test_that_applies_lets_it(by_test, verdict):
    table = pd.DataFrame([row | {"concept": "stem"} for row in shares(**by_test)])
    (row,) = verdicts(table).itertuples()
    assert row.verdict == verdict and row.concept == "stem"


def test_the_table_of_names_says_so_where_there_is_none():
    none = ground_truth.name_table(verdicts(pd.DataFrame(columns=["source", "setting", *SURVIVAL])))
    assert none.verdict.tolist() == ["no feature counts as found"] and none["k-mers pasted"].tolist() == ["–"]


def test_features_of_a_study_fire_as_they_were_encoded_and_those_found_are_tested(study):
    rnas, autoencoders = study.activations("structures"), study.autoencoders()
    features = [(3, 5), (1, 0), (3, 2)]
    values_TN = ground_truth.fire(study.model, autoencoders, rnas.records.sequence.tolist(), features)
    expected = np.column_stack([rnas.features(layer)[:, [n]].toarray().ravel() for layer, n in features])
    np.testing.assert_allclose(values_TN, expected, atol=1e-4)
    facts = {"source": "SAE", "setting": "unseen families", "group": "element", "layer": 2, "feature": 7}
    rows = [facts | {"concept": name, "discovery": name == "stem"} for name in ("stem", "bulge")]
    concepts = pd.DataFrame(rows).assign(base_auroc_low=0.6, null_p95=0.5)
    tested = ground_truth.falsify({"SAE": (study.model, autoencoders)}, concepts, rnas.records, seed=1)
    assert tested.concept.unique().tolist() == ["stem"] and tested.test.tolist() == [*FALLS, *STAYS]
    scored = (
        rnas.records[rnas.records.split == "heldout"].sample(frac=1, random_state=1).reset_index(drop=True)
    )
    fire = lambda sequences, of: ground_truth.fire(study.model, autoencoders, sequences, of)  # noqa: E731
    pd.testing.assert_frame_equal(tested[SURVIVAL], survival(fire, concepts[:1], scored, seed=1))
    assert ground_truth.falsify({}, concepts, rnas.records).columns.tolist() == tested.columns.tolist()
