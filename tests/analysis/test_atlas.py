"""The atlas: addresses that stay, scores of planted features, and verdicts by their rules."""

import numpy as np
import pandas as pd
import pytest
import torch
from given import Given
from numpy.testing import assert_allclose
from scipy import sparse

from sae_rna.analysis import atlas, ground_truth
from sae_rna.analysis.statistics.falsification import TESTS
from sae_rna.extraction.stream import Standardiser
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.encoding import token_table


def autoencoder(layer=3, width=4, latents=6) -> SparseAutoencoders:
    """With weights 0, 1, 2, ... / 10."""
    config = AutoencoderConfig("topk", (Member(layer, 2, 0),), width, latents, fingerprint="abc", model="m")
    sae = SparseAutoencoders(config, Standardiser(torch.zeros(1, width), torch.ones(1, width)))
    with torch.no_grad():
        for weights in sae.parameters():
            weights.copy_(torch.arange(weights.numel()).reshape(weights.shape) / 10)
    return sae


def test_an_address_depends_on_the_weights_alone_and_stays(tmp_path):
    sae, rows = autoencoder(), pd.DataFrame({"layer": [3], "feature": [5]})
    assert atlas.addresses({3: sae}, rows).tolist() == [
        "../atlas/4d885450fe66-L3-5.html"
    ]  # whatever the code
    sae.save(tmp_path)
    again = SparseAutoencoders.from_pretrained(tmp_path)
    assert atlas.dictionary(again) == atlas.dictionary(sae)
    with torch.no_grad():
        again.decoder_weight[0, 0, 0] += 1e-6
    assert atlas.dictionary(again) != atlas.dictionary(sae)


def test_numbers_of_features_become_links_where_there_are_pages():
    table = pd.DataFrame({"layer": [3, 9], "feature": [5, 5], "other": 1.0})
    linked = atlas.linked({3: autoencoder()}, table)
    assert linked.feature.tolist() == [f"[5](../atlas/{atlas.dictionary(autoencoder())}-L3-5.html)", 5]
    assert linked.other.equals(table.other) and table.feature.tolist() == [5, 5]


def hairpins(count=40) -> tuple[pd.DataFrame, pd.DataFrame]:
    """RNAs of random letters, half of each split, and their tokens."""
    rng = np.random.default_rng(0)
    letters = ["".join(rng.choice(list("ACGU"), 16)) for _ in range(count)]
    records = pd.DataFrame({"id": [f"r{n}" for n in range(count)], "sequence": letters})
    records = records.assign(secondary_structure="..((((....))))..", element="EESSSSHHHHSSSSEE")
    records["family"] = [f"f{n % 8}" for n in range(count)]
    records["split"] = np.where(np.arange(count) < count // 2, "selection", "heldout")
    return records, token_table(records)


def planted() -> Given:
    """Features: is in a stem; is a G; noise."""
    records, tokens = hairpins()
    noise = np.random.default_rng(1).random(len(tokens))
    values = np.column_stack([tokens.element == "S", tokens.base == "G", noise]).astype(float)
    return Given(sparse.csr_matrix(values), records, tokens)


def concepts(rnas: Given, chance=0.6) -> pd.DataFrame:
    rows = [("element", "stem", rnas.name, chance, 0.8), ("element", "stem", "neurons", np.nan, 0.9),
            ("element", "hairpin loop", rnas.name, chance, 0.8)]  # fmt: skip
    table = pd.DataFrame(rows, columns=["group", "concept", "source", "null_p95", "base_auroc"])
    return table.assign(setting=atlas.UNSEEN, layer=1, selection_base_auroc=table.base_auroc)


def test_scores_tell_a_stem_feature_from_one_of_letters_and_carry_chance_and_control():
    rnas = planted()
    scores = atlas.score_concepts(rnas, concepts(rnas))
    stem = scores[scores.concept == "stem"].set_index("feature")
    assert (stem.auroc[0], stem.auroc[1]) == (1, 0.5) and abs(stem.auroc[2] - 0.5) < 0.1
    assert (stem.precision[0], stem.recall[0], stem.base_rate[0]) == (1, 1, 0.5)
    assert stem.chance[0] == 0.6 and (stem.control[0], stem.control_auroc[0]) == ("neurons", 0.9)
    assert scores[scores.concept == "hairpin loop"].set_index("feature").auroc[0] < 0.5


def test_letters_predict_a_feature_of_letters_and_not_one_of_structure():
    table = atlas.letters(planted()).set_index("feature")
    assert table.base[1] == "G" and table.base_share[1] == 1
    assert table.kmer_r2[0] < 0.1 and table.kmer_r2[2] < 0.1


@pytest.mark.parametrize("seed", range(3))
def test_the_r2_of_means_by_group_is_that_of_a_plain_regression(seed):
    rng = np.random.default_rng(seed)
    group, values = rng.integers(0, 5, 300), rng.random((300, 3)) * (rng.random((300, 3)) < 0.4)
    one_hot = (group[:, None] == np.arange(4)).astype(float)  # rows of group 4 are of none
    known = np.arange(300) < 150
    found = atlas._grouped_r2(sparse.csr_matrix(one_hot), sparse.csr_matrix(values), known, ~known)
    means = np.stack([values[known & (group == g)].mean(0) for g in range(4)] + [values[known].mean(0)])
    error = ((values - means[group])[~known] ** 2).sum(0)
    assert_allclose(found, 1 - error / ((values[~known] - values[~known].mean(0)) ** 2).sum(0))


def found(names: list[tuple], explained=()) -> atlas.Found:
    """Of other pages: these verdicts (feature, setting, concept, verdict); nothing else is known."""
    keys, none = ["layer", "feature"], pd.DataFrame
    verdicts = none(names, columns=["feature", "setting", "concept", "verdict"])
    verdicts = verdicts.assign(layer=1, source="given", group="element", **dict.fromkeys(TESTS, 0.5))
    confounds = none(explained, columns=["feature", "setting", "element", "explained"]).assign(layer=1)
    pairing = none(
        {"layer": 1, "feature": [0], "gamma": 0.1, "low": 0.0, "high": 0.2, "q": 0.01, "pairing": True}
    )
    effects = none(columns=[*keys, "intervention", "place", "effect", "beyond"])
    twins = none({"layer": 1, "feature": [0, 1, 2], "comparison": "another seed", "dead": False})
    twins = twins.assign(match=[4, 5, 6], cosine=0.9, correlation=0.8, recurs=[True, False, False])
    types = none(columns=[*keys, "type", "replicates", "effect", "adjusted_effect", "setting"])
    return atlas.Found(verdicts, confounds, pairing, effects, twins, types)


def table_of(rnas: Given, other: atlas.Found) -> pd.DataFrame:
    rnas.summarise = lambda: pd.DataFrame(
        {"layer": 1, "feature": range(3), "density": 0.1, "sequences": 9, "maximum": 1.0, "tau": 0.5}
    )
    scores = atlas.score_concepts(rnas, concepts(rnas))
    return atlas.features(rnas, {1: autoencoder(1)}, scores, atlas.letters(rnas), other).set_index("feature")


STEM_KEEPS = (0, atlas.UNSEEN, "stem", ground_truth.KEEPS)


@pytest.mark.parametrize(
    ("names", "explained", "verdict"),
    [
        ([STEM_KEEPS], [], ground_truth.KEEPS),
        ([STEM_KEEPS, (0, "seen families", "stem", ground_truth.LOSES)], [], ground_truth.LOSES),
        ([STEM_KEEPS], [(0, atlas.UNSEEN, "S", True)], ground_truth.LOSES),
        ([STEM_KEEPS], [(0, "seen families", "S", True)], ground_truth.KEEPS),
        ([(0, atlas.UNSEEN, "stem", ground_truth.LOSES)], [], ground_truth.LOSES),
        ([(0, "seen families", "stem", ground_truth.LOSES)], [], ground_truth.LOSES),
        ([], [], atlas.UNTESTED),
    ],
)
def test_a_name_is_kept_only_if_no_setting_takes_it(names, explained, verdict):
    table = table_of(planted(), found(names, explained))
    assert table.verdict[0] == verdict and table.concept[0] == "stem"
    assert table.named.tolist() == [verdict == ground_truth.KEEPS, False, False]
    assert table.verdict[1] == atlas.NOTHING and table.concept[1] == "" and np.isnan(table.auroc[1])


def test_the_table_has_what_other_pages_found_and_says_what_was_not_tested():
    table = table_of(planted(), found([]))
    assert table.pairing[0] and pd.isna(table.pairing[1]) and pd.isna(table.needed[0])
    assert table.twin.tolist() == [4, 5, 6] and table.recurs.tolist() == [True, False, False]
    assert table.page[2] == f"{atlas.dictionary(autoencoder(1))}-L1-2.html"


def test_every_feature_has_its_details_and_its_histogram_counts_where_it_fires():
    rnas, other = planted(), found([])
    table = table_of(rnas, other).reset_index()
    scores = atlas.score_concepts(rnas, concepts(rnas))
    details = [*atlas.details(rnas, {1: autoencoder(1)}, table, scores, other)]
    assert [detail.row.feature for detail in details] == [0, 1, 2]
    fires = np.asarray((rnas.features(1) > 0).sum(0)).ravel()
    assert [detail.counts.sum() for detail in details] == fires.tolist()
    assert all(detail.row.feature not in set(detail.near.feature) for detail in details)
