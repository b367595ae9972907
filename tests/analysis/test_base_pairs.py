"""Page 15: which RNAs are asked, and what is made of contacts and of the audit."""

import numpy as np
import pandas as pd
import pytest

from sae_rna.analysis import base_pairs as page
from sae_rna.analysis.language_model import RANDOM, TRAINED, masked_models
from sae_rna.analysis.statistics import audit
from sae_rna.analysis.statistics.contacts import chance_precision, contact_precision, contact_scores

SPLITS = ["seen-selection", "seen-heldout", "selection", "heldout", "train"]


def records(lengths=(19, 30, 60, 61, 100, 121)) -> pd.DataFrame:
    rows = []
    for number in range(900):
        length = lengths[number % len(lengths)]
        facts = {"id": f"r{number}", "split": SPLITS[number % 5], "family": f"f{number // 2}"}
        text = {"sequence": "A" * length, "secondary_structure": "(((....)))" + "." * (length - 10)}
        rows.append(facts | text)
    return pd.DataFrame(rows)


def test_contacts_are_read_in_every_setting_and_length_in_rnas_of_different_families():
    table = records()
    table.loc[::7, "sequence"] = table.sequence.str.replace("A", "N")
    rnas = page.contact_rnas(table, per_split=900, seed=0)
    assert rnas.groupby(["set", "length"]).size().tolist() == [3] * 6
    assert not rnas.family.duplicated().any() and "train" not in set(rnas.split)
    assert not rnas.sequence.str.contains("N").any()
    assert set(rnas[rnas.length == "20 to 60 nt"].sequence.str.len()) <= {30, 60}
    assert len(page.contact_rnas(table.drop(columns="family"), 100, 0)) == 6


@pytest.fixture(scope="module")
def read(study):
    models = masked_models(study.masked_model)
    rnas = page.contact_rnas(study.structures, 900, 0)
    return models, rnas, page.contacts(models, rnas)


def test_precision_is_that_of_each_models_contacts(read):
    models, rnas, contacts = read
    assert len(contacts) == 4 * len(rnas) > 0
    rna = rnas.iloc[0]
    of = contacts[contacts.id == rna.id].set_index("predictor").precision
    for name, model, score in [
        (page.JACOBIAN, TRAINED, "jacobian"),
        (page.DEPENDENCIES, TRAINED, "dependency"),
        (page.UNTRAINED, RANDOM, "jacobian"),
    ]:
        scores = contact_scores(models[model], rna.sequence)[score]
        assert of[name] == contact_precision(scores, rna.secondary_structure)
    assert of[page.CHANCE] == chance_precision(rna.secondary_structure)


def test_the_map_is_of_the_rna_nearest_to_the_median_and_keeps_all_pairs(read):
    models, rnas, contacts = read
    contacts = contacts.assign(precision=np.linspace(0, 1, len(contacts)))
    maps = page.contact_maps(models, rnas, contacts)
    of = contacts[contacts.predictor == page.JACOBIAN]
    nearest = of.loc[(of.precision - of.precision.median()).abs().idxmin()]
    assert set(maps.rna) == {nearest.id}
    rna = rnas[rnas.id == nearest.id].iloc[0]
    assert maps.paired.sum() == rna.secondary_structure.count("(")
    scores = contact_scores(models[TRAINED], rna.sequence)["jacobian"]
    highest = scores[np.triu_indices(len(scores), 1)].max()
    row = maps.iloc[0]
    assert row.jacobian == pytest.approx(scores[row.i - 1, row.j - 1] / highest, rel=1e-4)
    assert row.bases == rna.sequence[row.i - 1] + rna.sequence[row.j - 1]
    assert f"{nearest.precision:.2f}" in page.shown_precision(maps)


def test_without_a_head_for_masked_bases_there_are_no_contacts_and_words_say_so(read):
    _, rnas, _ = read
    contacts = page.contacts({}, rnas)
    assert contacts.empty and page.contact_maps({}, rnas, contacts).empty
    assert page.shown_precision(page.contact_maps({}, rnas, contacts)) == "unknown"
    assert set(page.contact_numbers(contacts).values()) == {"unknown", 0}


def test_contact_numbers_are_means_of_each_setting_and_of_the_lengths():
    facts = {"id": list("abab"), "set": ["seen families", "unseen families"] * 2}
    facts |= {"length": ["20 to 60 nt", "61 to 90 nt"] * 2}
    contacts = pd.concat(
        [
            pd.DataFrame(facts | {"predictor": name, "precision": [place, 0.5, place, 0.25]})
            for place, name in enumerate((page.JACOBIAN, page.DEPENDENCIES, page.UNTRAINED, page.CHANCE))
        ]
    )
    numbers = page.contact_numbers(contacts)
    assert numbers["jacobian"] == "0.000 in seen families and 0.375 in unseen families"
    assert numbers["random"] == "2.000 in seen families and 0.375 in unseen families"
    assert (numbers["shortest"], numbers["longest"]) == ("0.000 (20 to 60 nt)", "0.375 (61 to 90 nt)")
    assert numbers["rnas"] == 2


def test_the_audits_numbers_and_table_are_of_its_rows():
    facts = {"rung": "precision", "arm": audit.NATURAL, "family": ["a", "b"] * 2, "layer": 1, "chance": 0.3}
    facts |= {"model": [TRAINED, TRAINED, RANDOM, RANDOM], "value": [0.5, 0.75, 0.25, 0.35]}
    rows = pd.DataFrame(facts).assign(null_p95=[0.6, 0.6, 0.5, 0.5], p_value=0.5)
    rnas = pd.DataFrame({"family": ["a", "b"], "set": ["seen families", "unseen families"]})
    assert page.audit_numbers(rows, rnas) == {
        "families": 2,
        "partner": "0.50 in seen families and 0.75 in unseen families",
        "rotated": "0.30 in seen families and 0.30 in unseen families",
        "random": "0.25 in seen families and 0.35 in unseen families",
    }
    table = page.audit_table(rows, 0)
    assert table["families above"].tolist() == ["1 of 2", "0 of 2"] and table["mean"].tolist() == [0.625, 0.3]
    assert page.audit_numbers(rows.head(0), rnas)["partner"] == "unknown"
    assert page.audit_table(rows.head(0), 0).empty
