"""The embedded data set and model keep what their cards promise."""

import json

import pandas as pd
import pytest

from sae_rna.parameters import ROOT
from sae_rna.records.structure import CANONICAL_PAIRS, element_string, pair_table


@pytest.fixture(scope="module")
def records():
    return pd.read_parquet(ROOT / "data" / "records.parquet")


def test_columns_and_ids(records):
    expected = [
        "id",
        "sequence",
        "secondary_structure",
        "element",
        "type",
        "family",
        "architecture",
        "origin",
        "split",
    ]
    assert list(records.columns) == expected
    assert records.id.is_unique and records.sequence.is_unique and records.notna().all(axis=None)
    assert set("".join(records.sequence.head(5000))) == set("ACGU")


def test_no_family_of_samples_is_on_two_sides(records):
    sampled = records[records.origin == "sampled"]
    sides = sampled.assign(side=sampled.split.replace("validation", "train")).groupby("family").side.nunique()
    assert (sides == 1).all()
    assert set(sampled.split) == {"train", "validation", "selection", "heldout"}


def test_natural_records_stand_apart_from_training_and_from_its_families(records):
    natural = records[records.origin == "natural"]
    assert (natural.split == "natural").all()
    training = records[records.split.isin(["train", "validation", "selection"])]
    assert not set(natural.family) & set(training.family)
    assert not training.type.isin(set(natural.type) - {"CD-box"}).any()


def test_every_pair_is_canonical_or_wobble_closes_three_nucleotides_and_gives_the_elements(records):
    for row in records.sample(400, random_state=0).itertuples():
        assert len(row.sequence) == len(row.secondary_structure) == len(row.element)
        for i, j in enumerate(pair_table(row.secondary_structure)):
            assert j < 0 or (abs(j - i) > 3 and row.sequence[i] + row.sequence[j] in CANONICAL_PAIRS)
        # Which helix of a natural pseudoknot is the K, these records have from their families' alignments.
        assert "K" in row.element or element_string(row.secondary_structure) == row.element


def test_selection_and_held_out_families_cover_the_same_types(records):
    types = records[records.split.isin(["selection", "heldout"])].groupby("split").type.agg(set)
    assert len(types["selection"] & types["heldout"]) >= 10


def test_the_model_is_small_and_never_saw_the_other_splits():
    folder = ROOT / "data" / "rinalmo-nano"
    assert (folder / "model.safetensors").stat().st_size <= 16e6
    facts = json.loads((folder / "pretraining.json").read_text())
    assert 0 < facts["synthetic"] < facts["seen"]
