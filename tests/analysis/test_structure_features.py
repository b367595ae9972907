"""The best feature of every element, and its tracks on example RNAs."""

import numpy as np
import pandas as pd
import pytest
from given import Given
from scipy import sparse

from sae_rna.analysis import structure_features
from sae_rna.analysis.statistics.choosing import score_elements
from sae_rna.analysis.structure_features import best, best_by_element, element_table, evaluated, tracks
from sae_rna.records.structure import add_elements
from sae_rna.sae.encoding import token_table


@pytest.fixture(scope="module")
def rnas(study):
    return study.activations("structures")


@pytest.fixture(scope="module")
def scores(study, rnas):
    p = study.parameters
    return study.kept(structure_features.score_elements, rnas, shuffles=p.shuffles, seed=p.seed)


def row(element="S", layer=1, **changes):
    found = {
        "element": element,
        "feature": 7,
        "f1": 0.6,
        "selection_f1": 0.5,
        "base_f1": 0.4,
        "null_p95": 0.5,
    }
    return found | {"precision": 0.6, "base_rate": 0.3, "auroc": 0.7, "layer": layer} | changes


TABLE = pd.DataFrame(
    [
        row("H", 1, f1=0.9, selection_f1=0.3),
        row("H", 2, f1=0.2, selection_f1=0.4),
        row("S", 1, selection_f1=0.9, explained=True),
        row("S", 2, f1=0.7, selection_f1=0.8),
    ]
)


@pytest.mark.parametrize("split", ["heldout", "selection"])
def test_scores_of_every_layer_are_those_of_its_own_activations(study, rnas, split):
    table = structure_features.score_elements(rnas, split, shuffles=2, seed=3)
    assert sorted(set(table.layer)) == study.layers
    sets = (rnas.of_split(2, part) for part in ("selection", split))
    expected = score_elements(*sets, rnas.retained(2), shuffles=2, seed=3)
    found = table[table.layer == 2].drop(columns="layer").reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


def test_a_split_without_records_is_named(rnas):
    with pytest.raises(ValueError, match="'natural'"):
        structure_features.score_elements(rnas, "natural", shuffles=1)


def test_the_best_feature_is_chosen_on_the_selection_families_and_elements_keep_their_order():
    found = best_by_element(TABLE)
    assert found.concept.tolist() == ["stem", "hairpin loop"]
    assert found.layer.tolist() == [1, 2] and found.f1.tolist() == [0.6, 0.2]
    chosen = best(TABLE, "hairpin loop")
    assert (chosen.element, chosen.layer, chosen.f1) == ("H", 2, 0.2)


@pytest.mark.parametrize("element", ["pseudoknot", "S", "helix"])
def test_an_element_that_no_record_has_and_one_that_does_not_exist_are_named_with_those_there_are(element):
    with pytest.raises(ValueError, match=f"'{element}'.* stem, hairpin loop"):
        best(TABLE, element)


def test_the_table_names_elements_and_numbers_count_those_above_both_controls():
    table = element_table(TABLE)
    assert table.element.tolist() == ["stem", "hairpin loop"] and "selection_f1" not in table
    assert table.explained.iloc[0] and np.isnan(table.explained.iloc[1])
    assert "explained" not in element_table(TABLE.drop(columns="explained"))
    assert structure_features.numbers(TABLE) == {"elements": 2, "beat": 1, "explained": 1}
    high = TABLE.assign(null_p95=0.65)
    assert structure_features.numbers(high) == {"elements": 2, "beat": 0, "explained": 0}
    assert structure_features.numbers(TABLE.drop(columns="explained"))["explained"] == 0


def test_tracks_hold_every_nucleotide_of_the_examples(rnas, scores):
    hairpin = best(scores, "hairpin loop")
    table, records = tracks(hairpin, rnas, count=2), rnas.records.set_index("id")
    assert table.record.nunique() == 2 and records.family[table.record.unique()].nunique() == 2
    for name, mine in table.groupby("record"):
        record = records.loc[name]
        assert record.split == "heldout" and "H" in record.element
        for column, letters in (
            ("base", "sequence"),
            ("bracket", "secondary_structure"),
            ("element", "element"),
        ):
            assert "".join(mine[column]) == record[letters]
        paired = mine.set_index("position").partner
        assert all(paired[j] == i for i, j in paired.items() if j)
        assert mine.position.tolist() == list(range(1, len(record.sequence) + 1))
    assert (table[["layer", "feature"]] == [hairpin.layer, hairpin.feature]).all(axis=None)
    assert "explained" not in table
    assert tracks(pd.concat([hairpin, pd.Series({"explained": True})]), rnas).explained.all()


def planted():
    """Six RNAs of known activation, of which the feature's maximum on the selection split is 4."""
    rows = [
        # id, split, family, structure, sequence, activation at its second nucleotide
        ("chosen on", "selection", "a", "((...))", "GGAAACC", 4),
        ("strongest", "heldout", "b", "((...))", "GGAAACC", 8),
        ("its sister", "heldout", "b", "((...))", "GGAAACC", 7),
        ("second", "heldout", "c", "((...))", "GGNAACC", 2),
        ("no hairpin", "heldout", "d", ".......", "GGAAACC", 9),
        ("too long", "heldout", "e", "((....))", "GGAAAACC", 9),
    ]
    names = ["id", "split", "family", "secondary_structure", "sequence", "activation"]
    records = add_elements(pd.DataFrame(rows, columns=names))
    tokens = token_table(records)
    tokens = tokens[tokens.base != "N"].reset_index(drop=True)
    values = np.where(tokens.position == 1, records.activation[tokens.record], 0)
    return Given(sparse.csr_matrix(values[:, None].astype(float)), records, tokens)


def test_examples_are_the_held_out_rnas_in_which_the_feature_is_strongest_one_of_each_family():
    feature = pd.Series({"element": "H", "layer": 1, "feature": 0})
    table = tracks(feature, planted(), count=3, longest=7)
    assert list(table.record.unique()) == ["strongest", "second"]
    assert table.activation.tolist() == [0, 1, 0, 0, 0, 0, 0] + [0, 0.5, 0, 0, 0, 0, 0]
    assert list(tracks(feature, planted(), count=1, longest=9).record.unique()) == ["too long"]


def test_a_feature_that_is_silent_on_the_selection_split_has_tracks_of_zeros():
    rnas = planted()
    rnas.by_layer[1] = rnas.by_layer[1].multiply(~rnas.rows("selection")[:, None]).tocsr()
    table = tracks(pd.Series({"element": "H", "layer": 1, "feature": 0}), rnas)
    assert len(table) and (table.activation == 0).all()


def test_captions_count_the_rnas_and_nucleotides_of_their_split():
    records = planted().records
    expected = {"rnas": 5, "tokens": 36, "structures": "known", "split": "heldout"}
    assert evaluated(records) == expected
    assert evaluated(records, "selection")["tokens"] == 7
    assert structure_features.second_split(records) == "selection"
    assert structure_features.second_split(records.assign(split="natural")) == "natural"
    feature = pd.Series(row("H", feature=0, explained=np.nan))
    numbers = structure_features.feature_numbers(feature, tracks(feature, planted(), count=2, longest=7))
    assert numbers["names"] == "strongest and second" and numbers["f1"] == 0.6 and "explained" not in numbers
