"""The best feature of every element, and its tracks on example RNAs."""

import numpy as np
import pandas as pd
import pytest
from given import Given
from scipy import sparse

from sae_rna.analysis import structure_features
from sae_rna.analysis.statistics.choosing import score_elements
from sae_rna.analysis.statistics.probing import association, base_auroc, probe
from sae_rna.analysis.structure_features import best, best_by_element, element_table, evaluated, tracks
from sae_rna.extraction.stream import hidden_states
from sae_rna.records.structure import add_elements
from sae_rna.sae.encoding import token_table


@pytest.fixture(scope="module")
def rnas(study):
    return study.activations("structures")


@pytest.fixture(scope="module")
def scores(study, rnas):
    p = study.parameters
    return study.kept(structure_features.score_elements, rnas, shuffles=p.shuffles, seed=p.seed)


UNSEEN = "unseen families"


def row(element="S", layer=1, **changes):
    found = {"setting": UNSEEN, "element": element, "layer": layer, "feature": 7, "threshold": 0.15}
    found |= {"base_auroc": 0.6, "base_auroc_low": 0.55, "base_auroc_high": 0.65, "null_p95": 0.52}
    found |= {"selection_base_auroc": 0.5, "f1": 0.6, "token_f1": 0.5, "base_f1": 0.4, "precision": 0.6}
    return found | {"base_rate": 0.3} | changes


TABLE = pd.DataFrame(
    [
        row("H", 1, base_auroc=0.9, selection_base_auroc=0.3),
        row("H", 2, base_auroc=0.56, base_auroc_low=0.51, selection_base_auroc=0.4),
        row("S", 1, selection_base_auroc=0.9, explained=True),
        row("S", 2, base_auroc=0.7, selection_base_auroc=0.8),
        row("S", 2, setting="seen families", base_auroc=0.8, selection_base_auroc=0.7, explained=False),
    ]
)


def test_scores_of_every_layer_are_those_of_its_own_activations(study, rnas):
    table = structure_features.score_elements(rnas, shuffles=2, seed=3)
    assert sorted(set(table.layer)) == study.layers and set(table.setting) == {UNSEEN}
    sets = [rnas.of_split(2, part) for part in ("selection", "heldout")]
    families = [rnas.records[rnas.records.split == part].family for part in ("selection", "heldout")]
    expected = score_elements(*sets, rnas.retained(2), families, 2, 3, structure_features.BOOTSTRAPS)
    found = table[table.layer == 2].drop(columns=["layer", "setting"]).reset_index(drop=True)
    pd.testing.assert_frame_equal(found, expected)


def test_a_split_without_records_is_named_and_no_setting_is_a_table_without_rows(rnas):
    with pytest.raises(ValueError, match="'natural'"):
        structure_features.score_elements(rnas, structure_features.NATURAL, shuffles=1)
    assert structure_features.natural(rnas.records) == {}
    assert structure_features.natural(pd.DataFrame({"split": ["natural"]})) == structure_features.NATURAL
    assert structure_features.score_elements(rnas, {}).empty


def test_the_best_feature_is_chosen_on_the_selection_families_and_settings_and_elements_keep_their_order():
    found = best_by_element(TABLE)
    assert found.concept.tolist() == ["stem", "stem", "hairpin loop"]
    assert found.setting.tolist() == ["seen families", UNSEEN, UNSEEN]
    assert found.layer.tolist() == [2, 1, 2] and found.base_auroc.tolist() == [0.8, 0.6, 0.56]
    chosen = best(TABLE, "hairpin loop")
    assert (chosen.element, chosen.layer, chosen.base_auroc) == ("H", 2, 0.56)
    assert best(TABLE, "stem", "seen families").base_auroc == 0.8


@pytest.mark.parametrize("element", ["pseudoknot", "S", "helix"])
def test_an_element_that_no_record_has_and_one_that_does_not_exist_are_named_with_those_there_are(element):
    with pytest.raises(ValueError, match=f"'{element}'.* stem, hairpin loop"):
        best(TABLE, element)


def test_the_best_feature_says_what_speaks_against_it():
    assert best(TABLE, "hairpin loop").fault == "its 95 % interval reaches chance"
    assert best(TABLE, "stem").fault == "its confounds explain it"
    assert best(TABLE, "stem", "seen families").fault == ""
    assert best(TABLE.drop(columns="explained"), "stem").fault == ""
    unknown = best(TABLE.assign(base_auroc_low=np.nan), "stem", "seen families")
    assert unknown.fault == "its 95 % interval reaches chance"


def test_the_table_names_elements_and_shows_intervals_and_a_second_table_below():
    natural = TABLE[TABLE.element == "S"].head(1).assign(setting="natural RNAs", base_auroc=0.61)
    table = element_table(TABLE, natural.drop(columns="explained"), natural.head(0))
    assert table.setting.tolist() == ["seen families", UNSEEN, UNSEEN, "natural RNAs"]
    assert table.element.tolist() == ["stem", "stem", "hairpin loop", "stem"]
    assert table["AUROC within bases"].tolist() == [0.8, 0.6, 0.56, 0.61]
    assert table["95 % interval"].tolist() == ["0.550 to 0.650"] * 2 + ["0.510 to 0.650", "0.550 to 0.650"]
    assert not {"selection_base_auroc", "concept"} & set(table)
    assert "explained by confounds" not in element_table(TABLE.drop(columns="explained"))


def test_numbers_say_for_each_setting_what_is_above_chance_explained_and_passing():
    assert structure_features.numbers(TABLE) == {
        "above": "1 of 1 in seen families and 1 of 2 in unseen families",
        "explained": "0 in seen families and 1 in unseen families",
        "stem": "0.800 in seen families and 0.600 in unseen families",
        "hairpin": "0.560 in unseen families",
        "tried": 3,
        "passing": 1,
    }
    assert structure_features.numbers(TABLE.drop(columns="explained"))["passing"] == 2


def test_tracks_hold_every_nucleotide_of_the_examples(rnas, scores):
    hairpin = best(scores, "hairpin loop")
    table, records = tracks(hairpin, rnas), rnas.records.set_index("id")
    assert table.record.nunique() == 3
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
    assert (table.fault == hairpin.fault).all() and (table.concept == "hairpin loop").all()


def planted(**changes):
    """RNAs of a feature that fires on fewer of the hairpin loop's four A the further down an RNA stands here,
    and in the worst on an A of the stem instead."""
    structure, sequence = "(((....)))", "GAAAAAAUUC"
    firing = {"best": [3, 4, 5, 6], "good": [3, 4, 5], "middle": [3, 4], "poor": [3], "worst": [1]}
    rows = [("chosen on", "selection", structure, sequence, [3])]
    rows += [(name, "heldout", structure, sequence, places) for name, places in firing.items()]
    rows += [
        ("no hairpin", "heldout", "..........", sequence, [3]),
        ("N", "heldout", structure, "GNAAAAAUUC", [6]),
    ]
    names = ["id", "split", "secondary_structure", "sequence", "places"]
    records = add_elements(pd.DataFrame(rows, columns=names).assign(family="f", **changes))
    tokens = token_table(records)
    places = records.places[tokens.record].reset_index(drop=True)
    values = np.array([2.0 * (at in own) for at, own in zip(tokens.position, places)])
    values[tokens.record == 0] *= 2  # the maximum on the selection split is 4
    return Given(sparse.csr_matrix(values[:, None]), records, tokens)


HAIRPIN = pd.Series(row("H", feature=0, concept="hairpin loop", fault=""))


def test_examples_are_the_best_the_median_and_the_worst_rna_by_the_features_own_score():
    table = tracks(HAIRPIN, planted())
    assert list(table.record.unique()) == ["best", "N", "worst"]
    places = table.drop_duplicates("record").place.tolist()
    assert [place.split(" (")[0] for place in places] == [
        f"{word} of 6 RNAs" for word in ("best", "median", "worst")
    ]
    assert places[0].endswith("(AUROC 1.00)")
    assert table.activation[table.record == "best"].tolist() == [0, 0, 0, 0.5, 0.5, 0.5, 0.5, 0, 0, 0]


def test_natural_rnas_are_shown_alone_if_there_are_three():
    origin = ["sampled", "sampled", "natural", "natural", "natural", "sampled", "natural", "sampled"]
    table = tracks(HAIRPIN, planted(origin=origin))
    assert list(table.record.unique()) == ["good", "middle", "poor"]
    two = ["natural" if place in (2, 3) else "sampled" for place in range(8)]
    assert tracks(HAIRPIN, planted(origin=two)).record.unique()[0] == "best"


def test_an_rna_is_called_by_its_family_its_origin_and_its_id():
    record = pd.Series({"id": "x1", "family": "RF5", "family_name": "Transfer RNA", "origin": "natural"})
    assert structure_features.rna_name(record) == "Transfer RNA (natural, x1)"
    assert structure_features.rna_name(record.drop(["family_name", "origin"])) == "RF5 (x1)"
    assert structure_features.rna_name(record[["id"]]) == "x1"
    assert structure_features.rna_name(record.replace("natural", np.nan)) == "Transfer RNA (x1)"


def test_where_all_rnas_are_long_the_three_shortest_are_shown_and_where_none_fits_it_is_said():
    assert tracks(HAIRPIN, planted(), longest=5).record.nunique() == 3
    only = planted()
    only.records["split"] = ["selection", "heldout", *["train"] * 6]
    assert tracks(HAIRPIN, only).place.unique().tolist() == ["the only RNA"]
    with pytest.raises(ValueError, match="'heldout' has a multiloop"):
        tracks(pd.Series({**HAIRPIN, "element": "M", "concept": "multiloop"}), planted())


def test_a_feature_that_is_silent_on_the_selection_split_has_tracks_of_zeros():
    rnas = planted()
    rnas.by_layer[1] = rnas.by_layer[1].multiply(~rnas.rows("selection")[:, None]).tocsr()
    table = tracks(HAIRPIN, rnas)
    assert len(table) and (table.activation == 0).all()


def test_captions_count_scored_rnas_and_the_most_common_base_among_all_scored_nucleotides():
    rnas = planted()
    assert evaluated(rnas.records) == {"rnas": 7, "tokens": 70, "structures": "known"}
    assert evaluated(rnas.records, "selection")["tokens"] == 10
    numbers = structure_features.feature_numbers(HAIRPIN, rnas)
    assert (numbers["base"], numbers["base_share"]) == ("A", 1.0)
    assert numbers["interval"] == "0.550 to 0.650" and numbers["concept"] == "hairpin loop"
    rnas.by_layer[1] = sparse.csr_matrix((rnas.tokens.base.isin(["G", "A"]) * 1.0).to_numpy()[:, None])
    share = (rnas.tokens.base == "A")[10:].sum() / rnas.tokens.base.isin(["G", "A"])[10:].sum()
    assert structure_features.feature_numbers(HAIRPIN, rnas)["base_share"] == pytest.approx(share)
    rnas.by_layer[1] = rnas.by_layer[1] * 0
    silent = structure_features.feature_numbers(HAIRPIN, rnas)
    assert (silent["base"], silent["base_share"]) == ("none", 0.0)


def test_a_sparse_probe_reads_no_more_columns_than_there_are_and_all_of_them_at_last(study, rnas):
    table = structure_features.sparse_probe(rnas, study.model, 2, "S")
    assert set(table.setting) == {UNSEEN} and set(table.element) == {"S"}
    columns = {"latents": rnas.retained(2).sum(), "neurons": 32, "principal components": 32}
    for source, rows in table.groupby("source"):
        assert rows.k.tolist() == sorted(
            {min(k, columns[source]) for k in (1, 2, 4, 8, 16, 32, columns[source])}
        )
        assert (rows["columns"] == columns[source]).all()
    records = [rnas.records[rnas.records.split == split] for split in ("selection", "heldout")]
    assert max(map(len, records)) <= structure_features.PROBED_RNAS  # so that all are read
    known, other = (hidden_states(study.model, part.sequence.tolist(), [2])[:, 0] for part in records)
    (_, seen), (_, unseen) = (rnas.of_split(2, split) for split in ("selection", "heldout"))
    is_seen, is_unseen = ((tokens.element == "S").to_numpy() for tokens in (seen, unseen))
    neurons = table[table.source == "neurons"].set_index("k").base_auroc
    dense = base_auroc(probe(known, is_seen, other), is_unseen, unseen.base)
    assert neurons[32] == pytest.approx(dense, abs=1e-3)  # the order of columns rounds otherwise
    chosen = association(known, is_seen, seen.base).argmax()
    alone = base_auroc(other[:, chosen], is_unseen, unseen.base)  # a probe of one column ranks as it does
    assert min(abs(neurons[1] - alone), abs(neurons[1] - (1 - alone))) < 1e-3


def test_probe_numbers_say_what_few_columns_and_all_neurons_give():
    rows = [("latents", 1, 0.6), ("latents", 16, 0.7), ("latents", 64, 0.75), ("neurons", 16, 0.65)]
    rows += [("neurons", 64, 0.8), ("principal components", 8, 0.61)]
    table = pd.DataFrame(rows, columns=["source", "k", "base_auroc"]).assign(setting=UNSEEN, element="S")
    numbers = structure_features.probe_numbers(table)
    assert numbers.pop("few") == 16
    scores = {"one": "0.600", "latents": "0.700", "neurons": "0.650", "components": "0.610", "dense": "0.800"}
    assert numbers == {name: f"{score} in unseen families" for name, score in scores.items()}
