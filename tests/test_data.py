"""The embedded data set and model keep what their cards promise."""

import json

import numpy as np
import pandas as pd
import pytest

from sae_rna.parameters import ROOT
from sae_rna.records.structure import CANONICAL_PAIRS, element_string, pair_table

FILE = ROOT / "data" / "records.parquet"
CHOOSING, SCORING = ["selection", "seen-selection"], ["heldout", "seen-heldout", "natural"]
UNSEEN = ["selection", "heldout", "natural"]


@pytest.fixture(scope="module")
def records():
    return pd.read_parquet(FILE)


def highest_identity(sequence: str, others: pd.Series) -> float:
    """The highest 1 - (edit distance / longer length) to one of the others: the textbook's recursion, on all at once."""
    letters = np.zeros((len(others), others.str.len().max()), np.uint8)
    for row, other in enumerate(others):
        letters[row, : len(other)] = np.frombuffer(other.encode(), np.uint8)
    columns = np.arange(letters.shape[1] + 1)
    distance = np.tile(columns, (len(others), 1))
    for letter in sequence.encode():
        without_insertion = distance + 1
        without_insertion[:, 1:] = np.minimum(
            without_insertion[:, 1:], distance[:, :-1] + (letters != letter)
        )
        distance = np.minimum.accumulate(without_insertion - columns, axis=1) + columns
    length = others.str.len().to_numpy()
    return float((1 - distance[np.arange(len(others)), length] / np.maximum(length, len(sequence))).max())


def test_identity_of_the_test_itself():
    assert highest_identity("ACGUACGUAC", pd.Series(["ACGUACGUAC"])) == 1
    assert highest_identity("ACGUACGUAC", pd.Series(["ACGUACGUA", "UUUUU"])) == pytest.approx(0.9)
    assert highest_identity("AACGUACGUAC", pd.Series(["ACGUACGUACC"])) == pytest.approx(9 / 11)


def test_columns_and_ids(records):
    expected = ["id", "sequence", "secondary_structure", "element", "type", "family", "family_name"]
    assert list(records.columns) == [*expected, "architecture", "origin", "exposure", "split"]
    assert records.id.is_unique and records.sequence.is_unique and records.notna().all(axis=None)
    assert set("".join(records.sequence)) == set("ACGU")
    assert FILE.stat().st_size < 6e6


def test_every_family_has_one_type_and_one_readable_name(records):
    families = records.groupby("family")[["type", "family_name"]].agg(["nunique", "first"])
    assert (families.xs("nunique", axis=1, level=1) == 1).all(axis=None)
    names = families["family_name", "first"]
    assert (
        names.str.contains(" ").all() and not names.str.contains("&[a-z#]+;|RF[0-9]{5}|_", regex=True).any()
    )
    assert names["tRNA"] == "Transfer RNA" and names["5S_rRNA"] == "5S ribosomal RNA"
    assert names["yybP-ykoY"] == "yybP-ykoY manganese riboswitch" and names["sraA"] == "sraA (sRNA)"


def test_unseen_families_stand_on_one_side_and_no_training_set_holds_them(records):
    unseen = records[records.exposure == "unseen"]
    assert set(unseen.split) == set(UNSEEN) and (unseen.groupby("family").split.nunique() == 1).all()
    seen = records[records.exposure == "seen"]
    assert not set(unseen.family) & set(seen.family) and not set(seen.split) & set(UNSEEN)
    assert not seen.family.str.contains("RNaseP|RNase_P|RNaseMRP|ault").any()
    assert not seen.family_name.str.contains("RNase P|RNase MRP|ibonuclease P|ault", regex=True).any()


def test_seen_families_are_chosen_on_or_scored_on_unless_the_only_one_of_their_type(records):
    seen = records[records.split.isin(["seen-selection", "seen-heldout"])]
    assert set(seen.family) <= set(records.family[records.split == "train"])
    both = seen.groupby("family").split.nunique() == 2
    assert set(both.index[both]) == {"tRNA"}


def test_families_are_few_and_balanced(records):
    training = records[records.split == "train"].groupby("type").family.nunique()
    assert (
        training.max() <= 41 and 350 <= training.sum() <= 450 and len(training) == 20
    )  # natural snR75 is one more
    unseen = records[records.split.isin(["selection", "heldout"])].groupby(["split", "type"]).family.nunique()
    assert unseen.max() <= 12 and len(unseen) >= 30


def test_four_sets_to_score_on(records):
    scored = records[records.split.isin([*CHOOSING, *SCORING])]
    sizes = scored.groupby(["origin", "exposure"]).size()
    assert len(sizes) == 4 and sizes.min() >= 300
    natural = scored[(scored.origin == "natural") & (scored.exposure == "seen")]
    assert (natural.type == "tRNA").sum() >= 250 and set(natural.type) == {"tRNA", "SRP_RNA", "CD-box"}


@pytest.mark.parametrize("family", ["tRNA", "Plant_SRP", "snR75"])
def test_natural_sequences_put_aside_are_not_near_identical_to_training_ones(records, family):
    rows = records[(records.family == family) & (records.origin == "natural")]
    aside, train = rows[rows.split != "train"], rows[rows.split == "train"]
    for sequence in aside.sequence.sample(min(40, len(aside)), random_state=0):
        assert highest_identity(sequence, train.sequence) < 0.9


def test_samples_put_aside_are_not_near_identical_to_training_ones(records):
    seen = records[(records.exposure == "seen") & (records.origin == "sampled")]
    aside = seen[seen.split != "train"].sample(150, random_state=0)
    highest = [highest_identity(row.sequence, seen.sequence[(seen.family == row.family) & (seen.split == "train")])
               for row in aside.itertuples()]  # fmt: skip
    assert 0.6 < np.mean(highest) and max(highest) < 0.9


def test_unseen_sequences_are_not_near_identical_to_any_training_sequence_of_their_length(records):
    train = records.sequence[records.split == "train"]
    length = train.str.len()
    for sequence in records.sequence[records.exposure == "unseen"].sample(25, random_state=0):
        alike = train[(length - len(sequence)).abs() <= len(sequence) // 9]
        assert (
            alike.empty
            or highest_identity(sequence, alike.sample(min(4000, len(alike)), random_state=0)) < 0.9
        )


def test_every_pair_is_canonical_or_wobble_closes_three_nucleotides_and_gives_the_elements(records):
    chosen = pd.concat([records.sample(400, random_state=0), records[records.type == "rRNA"].head(20)])
    for row in chosen.itertuples():
        assert len(row.sequence) == len(row.secondary_structure) == len(row.element)
        for i, j in enumerate(pair_table(row.secondary_structure)):
            assert j < 0 or (abs(j - i) > 3 and row.sequence[i] + row.sequence[j] in CANONICAL_PAIRS)
        # Which helix of a natural pseudoknot is the K, these records have from their families' alignments.
        assert "K" in row.element or element_string(row.secondary_structure) == row.element


def test_known_structures(records):
    """tRNA: a cloverleaf, with the variable arm as a fifth in one alignment; 5S rRNA: a three-way junction."""
    trna = records[(records.family == "tRNA") & (records.split == "train") & (records.origin == "natural")]
    assert set(trna.architecture) == {"4-way junction", "5-way junction"}
    paired = [(pair_table(structure) >= 0).sum() for structure in trna.secondary_structure]
    assert 36 <= np.median(paired) <= 42
    t_loop = trna.sequence.str.contains("UUC[AG]A", regex=True)  # T-psi-C-R-A
    assert t_loop.mean() > 0.5
    rrna = records[records.family == "5S_rRNA"]
    assert (rrna.architecture == "3-way junction").all() and rrna.sequence.str.len().median() in range(
        115, 124
    )


def test_selection_and_held_out_families_cover_the_same_types(records):
    types = records[records.split.isin(["selection", "heldout"])].groupby("split").type.agg(set)
    assert len(types["selection"] & types["heldout"]) >= 10


def test_the_model_is_small_and_never_saw_the_other_splits():
    folder = ROOT / "data" / "rinalmo-nano"
    assert (folder / "model.safetensors").stat().st_size <= 16e6
    facts = json.loads((folder / "pretraining.json").read_text())
    assert 0 < facts["synthetic"] < facts["seen"]
