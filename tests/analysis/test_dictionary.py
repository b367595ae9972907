"""The sweep of dictionaries, when one counts as trained, and which one the rule chooses."""

import numpy as np
import pandas as pd
import pytest

from sae_rna.analysis import dictionary
from sae_rna.analysis.dictionary import Candidate, by_measure, candidates, choose, numbers, trained
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
    assert found[1] == Candidate(architecture, 2, p.sparsity(architecture)) and len(set(found)) == len(found)
    for one in found:  # such as k = 2.5 or 0.003 is not
        AutoencoderConfig(one.architecture, (Member(1, one.sparsity),), 128, 128 * one.expansion)


def test_a_dictionary_is_trained_when_the_second_half_of_its_training_changes_little():
    table = pd.DataFrame([
        row("a", 0.5, explained_variance=0.899, recurring=0.46), row("a"),
        row("b", 0.5, explained_variance=0.89), row("b"),
        row("c", 0.5, recurring=0.44), row("c"),
    ])  # fmt: skip
    assert trained(table).to_dict() == {"a": True, "b": False, "c": False}


def test_the_rule_takes_the_best_features_among_those_that_beat_components_by_the_choosing_families_alone():
    table = pd.DataFrame([
        row("a", **{"chosen: stem, unseen families": 0.7}),
        row("b", **{"stem, unseen families": 0.9}),  # better only where it is scored
        row("c", explained_variance=0.7, **{"chosen: stem, unseen families": 0.9}),
        row("d", 0.5, **{"chosen: stem, unseen families": 0.95}),  # half of the training
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
    table = pd.DataFrame([row(name, share) for name in (shown, paper) for share in (0.5, 1.0)])
    assert numbers(table, p)["agree"] == "the one shown" and numbers(table, p)["steady"] == 2
    better = table.assign(**{"chosen: stem, unseen families": np.where(table.candidate == paper, 0.9, 0.5)})
    facts = numbers(better, p)
    assert facts["chosen"] == paper and facts["agree"] == f"not the one shown, {shown}"
    assert facts["beating"] == 2 and facts["candidates"] == 2


def test_the_sweep_measures_every_candidate_after_both_trainings(study):
    p, found = study.parameters, [Candidate("batchtopk", 2, 4), Candidate("relu-l1", 1, 1e-3)]
    models, recipe = (study.model, study.masked_model()), dictionary.recipe(p) | {"sae_learning_rate": 1e-3}
    table = dictionary.sweep(*models, study.training, study.structures, 2, found, recipe)
    assert table[["candidate", "share"]].to_numpy().tolist() == [
        [one.name, share] for share in (0.5, 1.0) for one in found
    ]
    assert table.latents.tolist() == [64, 32, 64, 32]
    first = table.set_index(["candidate", "share"])
    sparse = first.loc[found[0].name]
    assert sparse.l0.between(1, 8).all() and first.loc[(found[1].name, 1.0), "l0"] > sparse.l0[1.0]
    assert (sparse.explained_variance.diff().dropna() > 0).all()  # longer training explains more
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
