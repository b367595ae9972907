"""Two groups of RNAs: planted differences are found, halves of one family are alike, queries call nothing."""

import numpy as np
import pandas as pd
import pytest

from sae_rna.analysis import compare
from sae_rna.analysis.compare import COMPOSITION, DIFFERS, Units, between_groups, groups, select, separation
from sae_rna.parameters import Parameters
from sae_rna.records.composition import kmer_frequencies, length_and_gc


def rnas(families: int, each: int = 4, seed: int = 0, lengths=(60, 90), **columns) -> pd.DataFrame:
    """RNAs of as many families, every other one of which is in group A; those of a family are as long."""
    rng, rows = np.random.default_rng(seed), []
    for family in range(families):
        size = int(rng.integers(*lengths))
        for number in range(each):
            sequence = "".join(rng.choice(list("ACGU"), size))
            rows.append([f"{family}-{number}", sequence, f"f{family}", "AB"[family % 2]])
    table = pd.DataFrame(rows, columns=["id", "sequence", "family", "group"])
    return table.assign(name=table.group, **columns)


def noise(table: pd.DataFrame, features: int = 30, seed: int = 0) -> np.ndarray:
    """Shares that differ between families more than within them."""
    rng = np.random.default_rng(seed)
    of_family = rng.normal(0.3, 0.05, (table.family.nunique(), features))
    return of_family[pd.factorize(table.family)[0]] + rng.normal(0, 0.02, (len(table), features))


def test_a_planted_difference_is_found_with_its_size_and_no_other():
    table = rnas(60)
    shares = noise(table)
    shares[:, 7] += 0.15 * (table.group == "A")
    found = between_groups(shares, table)
    assert found.index[found.differs].tolist() == [7] and found.verdict[7] == DIFFERS
    row = found.loc[7]
    assert row.share_a - row.share_b == pytest.approx(0.15, abs=0.04)
    assert row.low < row.effect < row.high and row.low > 1
    assert row.effect == pytest.approx(0.15 / 0.05, abs=1)
    mirrored = between_groups(shares, table.assign(group=table.group.map({"A": "B", "B": "A"})))
    assert mirrored.effect.to_numpy() == pytest.approx(-found.effect.to_numpy())


def test_what_length_and_gc_content_explain_is_no_difference():
    table = rnas(80, lengths=(60, 200))
    longer = table.groupby("family").sequence.transform(lambda of: len(of.iloc[0])) > 110
    table["group"] = np.where(longer ^ (np.arange(len(table)) // 4 % 7 == 0), "A", "B")
    length, gc = length_and_gc(table.sequence).T
    shares = noise(table)
    shares[:, 3] += 0.4 * length
    raw = between_groups(shares, table.assign(sequence=table.sequence.iloc[0]))  # as if all were alike
    assert raw.differs[3]
    assert not between_groups(shares, table).differs.any()


def test_two_halves_of_one_family_differ_in_nothing_in_19_of_20_draws():
    table, hits = rnas(1, each=60), 0
    shares = noise(table.assign(family=table.id), 200)  # every RNA is its own
    for seed in range(20):
        half = np.random.default_rng(seed).permutation(len(table)) % 2
        hits += between_groups(shares, table.assign(group=np.where(half, "A", "B")), seed).differs.any()
    assert hits <= 1


def test_copies_of_few_families_are_no_evidence():
    """As RNAs 200 copies would tell anything apart; as families 2 against 2 say nothing."""
    table = rnas(8, each=50)
    shares = noise(table, 200)
    assert Units.of(table).kind == "family"
    assert not between_groups(shares, table).differs.any()


def test_without_families_rnas_are_the_unit():
    units = Units.of(rnas(8, each=20).drop(columns="family"))
    assert units.kind == "RNA" and len(units.in_a_U) > 100


def test_a_3mer_that_does_the_same_is_named():
    table = rnas(60)
    tail = np.where(table.group == "A", "GAGGAGGAGG", "CUCCUCCUCC")
    table["sequence"] = table.sequence + tail  # of one length and GC content
    share = kmer_frequencies(table.sequence, 3).toarray()[:, [34]]  # GAG
    found = between_groups(np.hstack([noise(table), share + 0.001 * noise(table, 1, 3)]), table)
    assert found.verdict.iloc[-1] == COMPOSITION and found.kmer.iloc[-1] == "GAG"


def test_families_of_both_groups_are_compared_within():
    table = rnas(6, each=20)
    table["group"] = np.tile(["A", "B"], 60)
    units = Units.of(table)
    assert units.kind == "RNA" and len(units.in_a_U) <= 120
    kept = units.of_S >= 0
    strata = units.stratum_U[units.of_S[kept]]
    assert pd.Series(table.family[kept].to_numpy()).groupby(strata).nunique().eq(1).all()


def test_units_unlike_all_of_the_other_group_are_left_out():
    table = rnas(40)
    alone = table.family.isin(["f0", "f2", "f4", "f6", "f8", "f10", "f12", "f14", "f16", "f18", "f20", "f22"])
    table.loc[alone, "sequence"] = "GC" * 150
    units = Units.of(table)
    assert (units.of_S[alone] == -1).all() and (units.of_S >= 0).any()
    with pytest.raises(ValueError, match="fewer than 3 families each are alike"):
        Units.of(rnas(4))


def test_groups_are_told_apart_by_what_differs_and_not_by_noise():
    table = rnas(60)
    shares = noise(table)
    at, low, high = separation(shares, table)
    assert low < 0.5 < high and low < at < high
    shares[:, :3] += 0.15 * (table.group == "A").to_numpy()[:, None]
    at, low, high = separation(shares, table)
    assert low > 0.8


def test_a_feature_is_placed_where_it_fires():
    table = rnas(10, each=2).assign(element=lambda of: ["S" * (len(x) - 20) + "H" * 20 for x in of.sequence])
    tokens = compare.token_table(table)
    places = compare._places(tokens, table, Units.of(table).of_S, "A")
    fires = (tokens.element == "H").to_numpy(float)
    share = places @ fires
    assert share[:6].tolist() == [0] * 6 and share[9] == pytest.approx(1)
    assert share[compare.TENTHS : compare.TENTHS + 2] == pytest.approx([0, 1])  # stem, hairpin loop


RECORDS = pd.DataFrame(
    {
        "id": ["tRNA/DA1", "tRNA/DG7", "x", "y"],
        "sequence": ["ACGUACGU", "ACGUACGA", "ACGUACGC", "ACGUACGG"],
        "type": ["tRNA", "tRNA", "rRNA", None],
        "name of it": "a and b",
        "family": ["f and g", "f", "h", "h"],
        "split": "heldout",
    }
)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ('type == "tRNA"', [0, 1]),
        ("type=='tRNA' and id == 'tRNA/?G*'", [1]),
        ('type != "tRNA"', [2, 3]),
        ('family in ["h", "f"]', [1, 2, 3]),
        ('id == "tRNA/D?[6-9]"', [1]),
        ('family == "f and g"', [0]),
    ],
)
def test_conditions_choose_records(text, rows):
    assert Parameters(group_a=text).group_a == text
    assert select(text, RECORDS).index.tolist() == rows


@pytest.mark.parametrize(
    "text",
    [
        '@print("x") == "y"',
        '__import__("os").system("x") == "y"',
        'type == "a" or type == "b"',
        'type == "a" and',
        "type == tRNA",
        "type in []",
        'type in [f("a")]',
        'type = "a"',
    ],
)
def test_anything_else_is_refused_before_it_runs(text):
    with pytest.raises(ValueError, match="parameter 'group_b' cannot be .* a file of RNAs or conditions"):
        Parameters(group_b=text)


def test_what_is_not_there_is_named():
    with pytest.raises(ValueError, match="no column organism, choose id, sequence"):
        select('organism == "x"', RECORDS)
    with pytest.raises(ValueError, match="fits none of 4 RNAs: type is tRNA, rRNA"):
        select('type == "trna"', RECORDS)
    with pytest.raises(ValueError, match=r"record 'x' of group_a is in group_b, too \(1 are\)"):
        groups('family == "h"', 'type == "rRNA"', RECORDS, 100)


def test_files_and_conditions_go_together_and_large_families_do_not_crowd_out_others(tmp_path):
    (tmp_path / "own.fa").write_text("".join(f">o{n}\n{'ACGU' * 3}{'ACGU'[n]}\n" for n in range(4)))
    found = groups(str(tmp_path / "own.fa"), 'type == "tRNA"', RECORDS, 100)
    assert found.group.tolist() == ["A"] * 4 + ["B"] * 2
    assert found.name.unique().tolist() == ["own.fa", "tRNA"]
    many = rnas(5, each=200).assign(type="many", split="heldout").drop(columns=["group", "name"])
    few = many[many.family != "f0"].groupby("family").head(3)
    records = pd.concat([many[many.family == "f0"], few]).reset_index(drop=True)
    rest = rnas(3, seed=9).assign(type="other", split="heldout", id=lambda of: "r" + of.id)
    chosen = groups('type == "many"', 'type == "other"', pd.concat([records, rest]), 100)
    assert chosen[chosen.group == "A"].groupby("family").size().to_dict() == {"f0": 200} | dict.fromkeys(
        ["f1", "f2", "f3", "f4"], 3
    )


def test_without_groups_the_types_of_most_families_are_compared():
    records = pd.concat([rnas(n, seed=n).assign(type=f"t{n}", split="heldout") for n in (3, 9, 6)])
    records["id"] = records.type + records.id
    records["family"] = records.type + records.family
    found = groups(None, None, records, 200)
    assert found.groupby("group").name.unique().explode().tolist() == ["t9", "t6"]


def test_groups_change_no_step_that_trains_or_encodes(study):
    from dataclasses import replace

    from sae_rna.study import Study

    other = Study(replace(study.parameters, group_a='type == "hairpin"'))
    assert other.autoencoders().key == study.autoencoders().key
    assert other.activations("types").key == study.activations("types").key


def test_what_numbers_say_of_units_and_letters():
    """Reasons, sizes, and what the two AUROCs together say."""
    table = rnas(1, each=12).drop(columns="family")
    table["group"] = np.tile(["A", "B"], 6)
    shares = noise(table.assign(family=table.id))
    found = between_groups(shares, table)
    found[["features_auroc", "features_low", "features_high", "kmers_auroc", "kmers_low", "kmers_high"]] = (
        np.nan
    )
    said = compare.numbers(found, table)
    assert "since a file names no families" in said["unit"] and "fewer than 10 RNAs" in said["unit"]
    assert said["size_a"] == f"{said['units_a']} RNAs"
    assert said["features"] == "unknown (too few RNAs)" and "unknown" in said["letters"]
    assert said["least_p"] == f"{2 / 10_001:.2g}" and said["listed"] == "of which there are none"
    assert Units.of(table.assign(family="f")).why == "all are of one family"
    columns = ["features_auroc", "features_low", "kmers_auroc", "kmers_low"]
    for values, words in (
        ([0.75, 0.6, 0.8, 0.7], "3-mers tell as much"),
        ([0.75, 0.6, 0.65, 0.6], "3-mers may tell as much"),
        ([0.75, 0.6, 0.55, 0.52], "tell more"),
        ([0.75, 0.6, 0.3, 0.1], "too few RNAs to rule"),
    ):
        assert words in compare._letters(pd.Series(values, columns), "RNAs")


@pytest.mark.filterwarnings("error")
def test_where_a_draw_of_units_has_no_pair_nothing_is_said_of_the_auroc():
    table = rnas(2)
    table["group"] = np.tile(["A", "B"], 4)  # two RNAs of each group in each of two families
    assert np.isnan(separation(noise(table), table)).all()


def test_a_value_that_is_nearly_one_is_suggested():
    with pytest.raises(ValueError, match=r'fits none of 4 RNAs: .*; did you mean "tRNA"\?$'):
        select('type == "trna"', RECORDS)
    with pytest.raises(ValueError, match=r"tRNA is no file or folder here; .*'type == \"tRNA\"'$"):
        groups("tRNA", "rRNA", RECORDS, 100)
