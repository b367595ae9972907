"""Page 01: counts of records, two programs' letters, and what keeps training and scoring apart."""

import re
from dataclasses import replace

import pandas as pd
import pytest

from sae_rna.analysis import data
from sae_rna.study import Study


def test_no_rna_of_this_run_is_counted_twice(study):
    typed = pd.concat([study.training, study.types])
    there = data.distinct(study.all_records("types"), study.all_records("structures"))
    table = data.record_sets(there, typed, study.structures).set_index("split")
    ids = {split: set(typed.id[typed.split == split]) | set(study.structures.id[study.structures.split == split])
           for split in ("train", "selection", "heldout")}  # fmt: skip
    assert {split: table.rnas[split] for split in ids} == {split: len(own) for split, own in ids.items()}
    assert table.rnas["all"] == len(set.union(*ids.values())) == table.rnas.drop("all").sum()
    assert table.there["all"] == there.id.nunique() == table.there.drop("all").sum()
    assert table.structures["all"] == len(study.structures) and table.typed["all"] == len(typed)
    heldout = "".join(study.structures.element[study.structures.split == "heldout"])
    assert table.in_stems["heldout"] == heldout.count("S") / len(heldout)


def test_every_split_of_the_data_has_a_row_in_the_order_of_its_use():
    typed = pd.DataFrame(
        {
            "id": ["one", "two", "three"],
            "split": ["heldout", "train", "seen-heldout"],
            "sequence": ["AC", "ACGU", "ACGUAC"],
            "family": ["a", "b", "b"],
        }
    )
    structures = typed.head(1).assign(element="SH")
    other = {"id": ["watched", "four"], "split": ["validation", "natural"], "sequence": ["A", "C"]}
    table = data.record_sets(data.distinct(typed, pd.DataFrame(other)), typed, structures)
    assert table.split.tolist() == ["train", "validation", "seen-heldout", "heldout", "natural", "all"]
    assert table.there.tolist() == [1, 1, 1, 1, 1, 5] and table.rnas.tolist() == [1, 0, 1, 1, 0, 3]
    assert table.typed.tolist() == [1, 0, 1, 1, 0, 3] and table.structures.tolist() == [0, 0, 0, 1, 0, 1]
    assert table.families.dropna().tolist() == [1, 1, 1, 2] and table.types.isna().all()
    assert table.nucleotides.dropna().tolist() == [4, 6, 2, 12] and table.in_stems.dropna().tolist() == [
        0.5,
        0.5,
    ]
    assert data.headed(table)["RNAs used"].tolist() == table.rnas.tolist()


def test_an_rna_is_the_same_only_with_the_same_name_and_sequence():
    table = pd.DataFrame({"id": ["a", "a", "b"], "sequence": ["AC", "GG", "AC"]})
    assert len(data.distinct(table, table.head(2))) == 3


def test_lengths_are_counted_by_split():
    records = pd.DataFrame({"split": ["b", "a", "b"], "sequence": ["ACG", "AC", "UUU"]})
    assert data.lengths(records).to_dict("records") == [
        {"group": "a", "length": 2, "records": 1}, {"group": "b", "length": 3, "records": 2}
    ]  # fmt: skip


def test_on_nested_structures_forgi_and_bprna_do_not_differ(study):
    counts = data.count_letters(study.structures)
    facts = data.agreement(counts)
    assert facts == {"agreement": 1.0, "nucleotides": study.structures.sequence.str.len().sum()}
    table = data.element_agreement(counts).set_index("element")
    assert table.pop("nucleotides").sum() == facts["nucleotides"]
    assert all(table.loc[name].to_dict() == {c: float(c == name[0]) for c in table} for name in table.index)


def test_the_datas_own_annotation_is_counted_in_shares_of_each_element():
    records = pd.DataFrame({"element": ["SSHH", "SS"], "structural_annotation": ["SSHE", "SK"]})
    counts = data.count_letters(records)
    assert data.agreement(counts) == {"nucleotides": 6, "agreement": pytest.approx(4 / 6)}
    table = data.element_agreement(counts).set_index("element")
    shown = data.in_percent(table.reset_index())
    assert shown["bpRNA: S"].tolist() == ["75.00%", ""] and shown.nucleotides.tolist() == [4, 2]
    assert table.pop("nucleotides").tolist() == [4, 2]
    assert table.index.tolist() == ["S (stem)", "H (hairpin loop)"]
    assert table.loc["S (stem)"].to_dict() == {"E": 0, "H": 0, "K": 0.25, "S": 0.75}
    assert table.loc["H (hairpin loop)"].to_dict() == {"E": 0.5, "H": 0.5, "K": 0, "S": 0}


def test_records_without_the_annotation_that_others_have_are_not_compared():
    records = pd.DataFrame({"element": ["SSHH", "SS"], "structural_annotation": ["SSHE", None]})
    assert data.agreement(data.count_letters(records)) == {"nucleotides": 4, "agreement": 0.75}


def test_folded_structures_are_called_predicted(study, records_file, tmp_path):
    pytest.importorskip("RNA", reason="needs ViennaRNA")
    plain = tmp_path / "plain.csv"
    pd.read_parquet(records_file)[["id", "sequence", "type", "family"]].to_csv(plain, index=False)
    folded = Study(replace(study.parameters, structures=str(plain), fold=True, run=str(tmp_path / "run")))
    assert re.fullmatch(r"predicted \(ViennaRNA [\d.]+, MFE\)", data.structure_source(folded.structures))
    assert data.structure_source(study.structures) == "known"


def test_families_that_are_held_out_and_learnt_from_are_counted():
    training = pd.DataFrame({"family": ["a", "b"], "sequence": ["A", "C"]})
    evaluated = pd.DataFrame(
        {
            "split": ["heldout", "heldout", "heldout", "heldout", "selection"],
            "family": ["b", "c", "d", None, "d"],
            "sequence": ["G", "G", "A", "U", "U"],
        }
    )
    none = {"seen_rnas": 0, "seen_shared": 0}
    assert data.separation(training, evaluated) == {"unit": "families", "heldout": 3, "shared": 2} | none
    alone = data.separation(training.drop(columns="family"), evaluated)
    assert alone == {"unit": "sequences", "heldout": 3, "shared": 2} | none


def test_sequences_of_seen_families_that_were_learnt_from_are_counted():
    training = pd.DataFrame({"family": ["a", "b"], "sequence": ["A", "C"]})
    splits = ["seen-selection", "seen-heldout", "seen-heldout", "seen-heldout", "seen-heldout"]
    seen = {"split": splits, "family": list("abaab"), "sequence": ["G", "G", "C", "U", "U"]}
    facts = data.separation(training, pd.DataFrame(seen))
    assert (facts["heldout"], facts["seen_rnas"], facts["seen_shared"]) == (0, 3, 2)


def test_this_runs_heldout_families_took_no_part_in_training_or_selection(study):
    facts = data.separation(study.training, study.structures)
    heldout = study.structures.family[study.structures.split == "heldout"]
    assert facts["heldout"] == heldout.nunique() and facts["shared"] == 0
