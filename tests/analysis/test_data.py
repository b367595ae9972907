"""Page 01: counts of records, two programs' letters, and what keeps training and scoring apart."""

from dataclasses import replace

import pandas as pd
import pytest

from sae_rna.analysis import data
from sae_rna.study import Study


def test_every_record_of_this_run_is_counted_once(study):
    types = pd.concat([study.training, study.types])
    table = data.record_sets({"types": types, "structures": study.structures})
    assert table.RNAs.sum() == len(study.training) + len(study.types) + len(study.structures)
    assert set(table.structures[table.use == "structures"]) == {"known"}
    assert set(table.structures[table.use == "types"]) == {"–"}
    stems = table[table.use == "structures"].set_index("split")["in stems"]
    heldout = "".join(study.structures.element[study.structures.split == "heldout"])
    assert stems["heldout"] == heldout.count("S") / len(heldout)


def test_splits_stand_in_the_order_of_their_use_with_what_is_known_of_them():
    records = pd.DataFrame(
        {
            "split": ["heldout", "train", "heldout"],
            "sequence": ["AC", "ACGU", "ACGUAC"],
            "family": ["a", "b", "a"],
            "element": ["SS", "HHHH", "SSHHHH"],
        }
    )
    table = data.record_sets({"mine": records})
    assert table.split.tolist() == ["train", "heldout"] and table.RNAs.tolist() == [1, 2]
    assert table.families.tolist() == [1, 1] and table.types.isna().all()
    assert table.nucleotides.tolist() == [4, 8] and table["median length"].tolist() == [4, 4]
    assert table["in stems"].tolist() == [0, 0.5]


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
    assert all(table.loc[name].to_dict() == {c: float(c == name[0]) for c in table} for name in table.index)


def test_the_datas_own_annotation_is_counted_in_shares_of_each_element():
    records = pd.DataFrame({"element": ["SSHH", "SS"], "structural_annotation": ["SSHE", "SK"]})
    counts = data.count_letters(records)
    assert data.agreement(counts) == {"nucleotides": 6, "agreement": pytest.approx(4 / 6)}
    table = data.element_agreement(counts).set_index("element")
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
    table = data.record_sets({"structures": folded.structures})
    assert table.structures.str.fullmatch(r"predicted \(ViennaRNA [\d.]+, MFE\)").all()
    assert data.structure_source(folded.structures) == table.structures[0]
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
    assert data.separation(training, evaluated) == {"unit": "families", "heldout": 3, "shared": 2}
    alone = data.separation(training.drop(columns="family"), evaluated)
    assert alone == {"unit": "sequences", "heldout": 3, "shared": 2}


def test_this_runs_heldout_families_took_no_part_in_training_or_selection(study):
    facts = data.separation(study.training, study.structures)
    heldout = study.structures.family[study.structures.split == "heldout"]
    assert facts == {"unit": "families", "heldout": heldout.nunique(), "shared": 0}
