"""The sweep of dictionaries, when one counts as trained, and which one the rule chooses."""

import numpy as np
import pandas as pd
import pytest

from sae_rna.analysis import dictionary
from sae_rna.analysis.dictionary import Candidate, by_length, by_measure, candidates, choose, numbers, trained
from sae_rna.parameters import ARCHITECTURES, Parameters
from sae_rna.sae.autoencoder import AutoencoderConfig, Member


def row(candidate, share=1.0, **changes):
    found = {
        "candidate": candidate,
        "architecture": candidate.split(",")[0],
        "share": share,
        "latents": 64,
        "expansion": 2,
    }
    found |= {"sparsity": 16.0, "tokens": 1000, "l0": 16.0, "explained_variance": 0.9, "kl": 0.1}
    found |= {"pca_variance": 0.8, "pca_kl": 0.2, "loss_recovered": 0.9, "recurring": 0.5, "dead": 0.0}
    found |= {"stem, unseen families": 0.6, "chosen: stem, unseen families": 0.6}
    return (
        found | {"hairpin loop, unseen families": 0.6, "chosen: hairpin loop, unseen families": 0.6} | changes
    )


def test_the_candidates_are_those_around_the_parameters_each_once():
    p = Parameters(architecture="batchtopk", expansion=2, k=16, l1=3e-3)
    found = candidates(p)
    assert Candidate("batchtopk", 2, 16) in found and len(set(found)) == len(found)
    assert {one.expansion for one in found if one[::2] == ("batchtopk", 16)} == {1, 2, 4, 8}
    assert {one.sparsity for one in found if one[:2] == ("batchtopk", 2)} == {8, 16, 32}
    assert {Candidate("relu-l1", 2, 3e-3), Candidate("relu-l1-matched", 2, 16)} < set(found)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_whatever_is_shown_the_candidates_are_possible_and_no_two_are_the_same(architecture):
    p = Parameters(architecture=architecture, k=5)
    found = candidates(p)
    assert found[0] == Candidate(architecture, 2, p.sparsity(architecture)) and len(set(found)) == len(found)
    for one in found:  # such as k = 2.5 or 0.003 is not
        AutoencoderConfig(one.architecture, (Member(1, one.sparsity),), 128, 128 * one.expansion)


@pytest.mark.parametrize(
    "longer, expected",
    [({"explained_variance": 0.904, "recurring": 0.54}, True), ({"explained_variance": 0.894}, False),
     ({"recurring": 0.56}, False), ({"recurring": 0.44}, False)],
)  # fmt: skip
def test_a_dictionary_is_trained_when_twice_its_training_changes_little(longer, expected):
    other = row("b"), row("a", 0.5, explained_variance=0.1)  # say nothing of it
    assert trained(pd.DataFrame([row("a"), row("a", 2.0, **longer), *other])) is expected


def test_the_rule_takes_the_best_features_among_those_that_beat_components_by_the_choosing_families_alone():
    table = pd.DataFrame([
        row("a", **{"chosen: stem, unseen families": 0.7}),
        row("b", **{"stem, unseen families": 0.9}),  # better only where it is scored
        row("c", explained_variance=0.7, **{"chosen: stem, unseen families": 0.9}),
        row("d", 2.0, **{"chosen: stem, unseen families": 0.95}),  # another length of training
        row("e", expansion=1, **{"chosen: stem, unseen families": 0.95}),  # not overcomplete
    ])  # fmt: skip
    assert choose(table).candidate == "a"
    assert choose(table[table.candidate == "c"]).candidate == "c"  # where none beats them


def test_of_candidates_with_features_as_good_the_rule_takes_the_one_whose_features_recur_most():
    table = pd.DataFrame([
        row("a", **{"chosen: stem, unseen families": 0.7}),
        row("b", recurring=0.7, **{"chosen: stem, unseen families": 0.67}),  # .015 less in the mean
        row("c", recurring=0.9, **{"chosen: stem, unseen families": 0.65}),  # .025 less
    ])  # fmt: skip
    assert choose(table).candidate == "b"


def test_numbers_say_whether_the_rule_chooses_what_is_shown():
    p = Parameters(architecture="batchtopk", expansion=2, k=16)
    shown, paper = Candidate("batchtopk", 2, 16).name, Candidate("relu-l1-matched", 2, 16).name
    table = pd.DataFrame([row(shown), row(paper), row(shown, 2.0, dead=0.25)])
    facts = numbers(table, p)
    assert facts["agree"] == "the one shown" and facts["is_trained"] == "is"
    assert (facts["dead"], facts["longer_dead"]) == (0.0, 0.25)
    better = table.assign(**{"chosen: stem, unseen families": np.where(table.candidate == paper, 0.9, 0.5)})
    facts = numbers(better, p)
    assert facts["chosen"] == paper and facts["agree"] == f"not the one shown, {shown}"
    assert facts["beating"] == 2 and facts["candidates"] == 2


def test_the_sweep_measures_every_candidate_and_the_first_after_every_length_of_training(study):
    p, found = study.parameters, [Candidate("batchtopk", 2, 4), Candidate("relu-l1", 1, 1e-3)]
    models, recipe = (study.model, study.masked_model()), dictionary.recipe(p) | {"sae_learning_rate": 1e-3}
    table = dictionary.sweep(*models, study.training, study.structures, 2, found, recipe)
    shown, other = (one.name for one in found)
    trainings = [[shown, 0.5], [shown, 1.0], [other, 1.0], [shown, 2.0]]
    assert table[["candidate", "share"]].to_numpy().tolist() == trainings
    assert table.latents.tolist() == [64, 64, 32, 64]
    first = table.set_index(["candidate", "share"])
    sparse = first.loc[found[0].name]
    assert sparse.l0.between(1, 8).all() and first.loc[(found[1].name, 1.0), "l0"] > sparse.l0[1.0]
    assert (sparse.explained_variance.diff().dropna() > 0).all()  # longer training explains more
    lengths = by_length(table)
    assert lengths.tokens.nunique() == 3 and {"dead latents", "explained variance"} < set(lengths.measure)
    assert table[["recurring", "dead"]].stack().between(0, 1).all()
    measured = by_measure(table)
    assert set(measured.measure) == {
        "recurring features",
        "stem, unseen families",
        "hairpin loop, unseen families",
    }
    again = dictionary.sweep(*models, study.training, study.structures, 2, found[:1], recipe)
    same = table[table.candidate == found[0].name].reset_index(drop=True)
    pd.testing.assert_frame_equal(again, same, check_dtype=False)
