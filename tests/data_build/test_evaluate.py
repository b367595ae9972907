"""Scoring a language model: contacts of known coupling, and one row for a folder."""

import numpy as np
import pandas as pd
import pytest
from evaluate import contact_precision, evaluate, jacobian_contacts, record_sets

from sae_rna.extraction.language_model import LanguageModel
from sae_rna.parameters import ROOT


def test_contact_precision_counts_pairs_among_as_many_top_contacts():
    contacts = np.zeros((12, 12))
    contacts[0, 11] = contacts[1, 10] = 2.0
    contacts[2, 3] = contacts[3, 6] = 9.0  # neighbours are not asked
    assert contact_precision(contacts, "((((....))))") == pytest.approx(0.5, abs=0.26)
    contacts[2, 9] = contacts[3, 8] = 1.0
    assert contact_precision(contacts, "((((....))))") == 1.0
    contacts[0, 6] = 3.0
    assert contact_precision(contacts, "((((....))))") == 0.75


def test_the_jacobian_of_the_embedded_model_finds_a_hairpin():
    model = LanguageModel.load(str(ROOT / "data" / "rinalmo-nano"), masked=True)
    contacts = jacobian_contacts(model, "GGCGACCGAAAGGUCGCC")
    assert np.allclose(contacts, contacts.T, atol=1e-4)
    assert contact_precision(contacts, "(((((((....)))))))") > 0.5


def test_a_model_gets_a_score_on_every_set():
    records = pd.read_parquet(ROOT / "data" / "records.parquet")
    scores = evaluate(str(ROOT / "data" / "rinalmo-nano"), records, per_set=4, bprna=None, audit=False)
    assert set(scores) == set(record_sets(records, 4)) and len(scores) >= 4
    assert all(0 <= value["accuracy"] <= 1 and value["loss"] > 0 for value in scores.values())
