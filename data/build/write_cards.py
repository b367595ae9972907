"""Write the data card, `data/README.md`, from the file that it describes.

For maintainers, after `build_records.py`:

    python data/build/write_cards.py
"""

from pathlib import Path

import pandas as pd
from build_records import EXPONENTS, LENGTH, NATURAL, NATURAL_LENGTH, PER_EXPONENT

DATA = Path(__file__).resolve().parents[1]


def markdown(table: pd.DataFrame) -> str:
    """A pipe table."""
    cells = [
        [f"{value:,}" if isinstance(value, int) else f"{value:.3f}" if isinstance(value, float) else str(value) for value in row]
        for row in table.itertuples(index=False)
    ]
    lines = [list(map(str, table.columns)), ["---"] * table.shape[1], *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def data_card(records: pd.DataFrame) -> str:
    length = records.sequence.str.len()
    splits = records.groupby(["origin", "split"]).agg(RNAs=("id", "size"), families=("family", "nunique"), types=("type", "nunique"))
    splits["nucleotides"] = length.groupby([records.origin, records.split]).sum()
    types = pd.crosstab(records.type, records.split).reset_index()
    types.insert(1, "families", types.type.map(records.groupby("type").family.nunique()))
    shares = (
        length.groupby(records.origin).describe(percentiles=[0.1, 0.5, 0.9])[["min", "10%", "50%", "90%", "max"]].astype(int).reset_index()
    )
    natural = ", ".join(sorted({f"{family} ({kind})" for kind, family in NATURAL.values()}))
    return f"""# Data card: records.parquet

{len(records):,} RNAs with secondary structure, type and family, made for the embedded setting.

**Natural and sampled.** {(records.origin == "sampled").sum():,} records are *sampled*: emitted by a covariance model of their Rfam family, so that they
obey its consensus structure and its base frequencies but were never seen in a genome. {(records.origin == "natural").sum():,} records are *natural*: sequences of published
alignments ({natural}). The column `origin` says which is which, and the natural ones form a split of their own.

## Sources and licences

| source | what was taken | licence |
| --- | --- | --- |
| Rfam 14.1 covariance models of bacteria, viruses and archaea, as packaged in Debian's prokka 1.14.6 | {records[records.origin == "sampled"].family.nunique():,} families with {LENGTH[0]}-{LENGTH[1]} nt sequences | CC0 (Rfam) |
| alignments in the test suite of Infernal 1.1.4 (Debian's infernal package): {", ".join(NATURAL)} | rows made of A, C, G and U, {NATURAL_LENGTH[0]}-{NATURAL_LENGTH[1]} nt | tRNA, Plant_SRP, Vault and snR75 are Rfam seed alignments (CC0); the others are distributed with Infernal |

`data/build/build_records.py` makes the file again from these two Debian packages.

## How it was made

Every family was sampled {PER_EXPONENT} times at each of the exponents {", ".join(map(str, EXPONENTS))} (`cmemit --exp`). At exponent 1 the samples are noisier than natural homologues;
sharpening brings them closer to the consensus. Exact duplicates were removed, and families with fewer than 20 sequences left.

The consensus structure was projected onto each sequence: a pair survives only if both its ends are present, are canonical or GU, and enclose 3 nt or more. Letters of the consensus mark pseudoknots and are kept as
such. `element` holds one letter per nucleotide, from forgi: S stem, H hairpin loop, I internal loop, B bulge, M multiloop, X external loop, E end, K pseudoknot. `type` is the leaf of Rfam's type path, in RNAcentral's words
where the family is a known one. `architecture` describes the family's nested consensus. Clans are not part of the source and therefore not here.

## Splits

By family: no family has sampled sequences on two sides of train (with its `validation` sequences), selection and held-out. `validation` holds one sequence in twenty of the training families. Sampled relatives of the natural
records (RNase P, SRP, tRNA-like, vault, snR75, tmRNA) are all in the held-out split. Rfam families are not independent of each other: families of one clan can fall on both sides.

{markdown(splits.reset_index())}

## Types

{markdown(types)}

## Lengths (nt)

{markdown(shares)}
"""


def main():
    (DATA / "README.md").write_text(data_card(pd.read_parquet(DATA / "records.parquet")))


if __name__ == "__main__":
    main()
