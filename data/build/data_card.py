"""Write the data card, `data/README.md`, from the file that it describes.

For maintainers, after `build_records.py`:

    python data/build/data_card.py
"""

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
from build_records import CORPUS_EXPONENTS, SEEN, TRAIN, UNSEEN
from families import (
    EXPONENTS,
    LENGTH,
    MOST_TRAINING_FAMILIES,
    MOST_UNSEEN_FAMILIES,
    NATURAL,
    NATURAL_LENGTH,
    RNACENTRAL,
)

DATA = Path(__file__).resolve().parents[1]


def markdown(table: pd.DataFrame) -> str:
    """A pipe table."""
    cells = [
        [
            f"{value:,}"
            if isinstance(value, int)
            else f"{value:.3f}"
            if isinstance(value, float)
            else str(value)
            for value in row
        ]
        for row in table.itertuples(index=False)
    ]
    lines = [list(map(str, table.columns)), ["---"] * table.shape[1], *cells]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


#: What each split is for.
SPLITS = {
    "train": "autoencoders (and, in plenty, the language model) are trained on these",
    "validation": "unseen sequences of training families, to watch training",
    "seen-selection": "unseen sequences of training families: to choose on",
    "seen-heldout": "unseen sequences of training families: to score on",
    "selection": "families never trained on: to choose on",
    "heldout": "families never trained on: to score on",
    "natural": "natural RNAs of families never trained on: to score on",
}


def data_card(records: pd.DataFrame, facts: dict) -> str:
    """The data card; `facts` is what `build_records.py` noted in the file."""
    length = records.sequence.str.len()
    keys = ["split", "exposure", "origin"]
    splits = (
        records.assign(nt=length)
        .groupby(keys)
        .agg(RNAs=("id", "size"), families=("family", "nunique"), nucleotides=("nt", "sum"))
        .reset_index()
    )
    splits["order"] = splits.split.map(list(SPLITS).index)
    splits = splits.sort_values(["order", "origin"]).drop(columns="order")
    splits["what it is for"] = splits.split.map(SPLITS)
    types = pd.crosstab(records.type, records.split)[list(SPLITS)].reset_index()
    for place, exposure in enumerate(("seen", "unseen"), 1):
        families = records[records.exposure == exposure].groupby("type").family.nunique()
        types.insert(place, f"{exposure} families", types.type.map(families).fillna(0).astype(int))
    shares = (
        length.groupby(records.origin)
        .describe(percentiles=[0.1, 0.5, 0.9])[["min", "10%", "50%", "90%", "max"]]
        .astype(int)
        .reset_index()
    )
    sampled, natural = records[records.origin == "sampled"], records[records.origin == "natural"]
    natural_names = ", ".join(
        f"{name} ({kind})" for name, kind in sorted(set(zip(natural.family_name, natural.type)))
    )
    corpus, within, across = facts["corpus"], facts["within families"], facts["across families"]
    return f"""# Data card: records.parquet

{len(records):,} RNAs with secondary structure, type and family, made for the embedded setting.

**Natural and sampled.** {len(sampled):,} records are *sampled*: emitted by a covariance model of their family, so that they
obey its consensus structure and its base frequencies but were never seen in a genome. {len(natural):,} records are *natural*: sequences of published
alignments: {natural_names}. The column `origin` says which is which.

**Seen and unseen.** The column `exposure` says whether the embedded language model was trained on the family. Together that makes four sets to score on:
sampled and natural RNAs, of seen and of unseen families. Of seen families only sequences that were not trained on are scored.

## Columns

`id`, `sequence`, `secondary_structure` (dot-bracket, letters are pseudoknots), `element` (one letter per nucleotide), `type`, `family` (the model's or alignment's name), `family_name` (Rfam's description),
`architecture` (of the family's nested consensus), `origin`, `exposure`, `split`.

## Sources and licences

| source | what was taken | licence |
| --- | --- | --- |
| Rfam 14.1 covariance models of bacteria, viruses and archaea, as packaged in Debian's prokka 1.14.6 | {sampled[~sampled.family.isin([*natural.family, *sampled.family[sampled.type == "rRNA"]])].family.nunique():,} families with {LENGTH[0]}-{LENGTH[1]} nt sequences | CC0 (Rfam) |
| 5S and 5.8S rRNA profiles of Debian's barrnap 0.9 (made from Rfam's RF00001 and RF00002) | 2 families, through covariance models made from them | CC0 (Debian's copyright file on barrnap's `db/`; Rfam) |
| alignments in the test suite of Infernal 1.1.4 (Debian's infernal package): {", ".join(NATURAL)} | rows made of A, C, G and U, {NATURAL_LENGTH[0]}-{NATURAL_LENGTH[1]} nt | tRNA, Plant_SRP, Vault and snR75 are Rfam seed alignments (CC0); the others are distributed with Infernal |

`data/build/build_records.py` makes the file again from these Debian packages.

## How it was made

**Families.** Families are few and balanced, since a small language model learns none of a thousand: at most {MOST_TRAINING_FAMILIES} training families a type and at most {MOST_UNSEEN_FAMILIES} a type in each of selection and heldout, drawn by
the seed alone. Every training family was sampled {TRAIN} times for `train` and {SEEN} times for `seen-selection` or `seen-heldout` at each of the exponents {", ".join(map(str, EXPONENTS))} (`cmemit --exp`), every unseen family {UNSEEN} times. At exponent 1 the samples are
noisier than natural homologues; sharpening brings them closer to the consensus. Exact duplicates were removed.

**Natural families.** tRNA, SRP RNA and snR75 belong to training; whole clusters of near-identical sequences, a fifth of each family, were put aside as natural RNAs of seen families. Covariance models of the
training part alone (`cmbuild`) gave sampled relatives of these. Bacterial RNase P and vault RNA, and Rfam's models of their relatives, were never trained on.

**rRNA.** barrnap's profiles keep Rfam's consensus structure but draw every column on its own. Consensus pairs that came out broken were drawn again from their two columns' frequencies among the canonical pairs, and covariance models
made from 1,000 such sequences are the families'. Their pairs therefore covary as chance does among canonical pairs, less than natural ones. All three domains of life are one family (Rfam has one model), and 5S and 5.8S are all there is of rRNA: no long subunits.

**Structure.** The consensus was projected onto each sequence: a pair survives only if both its ends are present, are canonical or GU, and enclose 3 nt or more. Letters of the consensus mark pseudoknots and are kept as
such. `element` is forgi's decomposition: S stem, H hairpin loop, I internal loop, B bulge, M multiloop, X external loop, E end, K pseudoknot. So all structures are the families' consensus, none was measured, and none was predicted.

**Types** are the leaf of Rfam's type path, in RNAcentral's words where it has another one ({", ".join(f"{theirs} for Rfam's {ours}" for ours, theirs in RNACENTRAL.items())}; SRP_RNA, RNase_P_RNA and rRNA by the family). CD-box and HACA-box are both RNAcentral's snoRNA. miRNA means precursors. CRISPR, cis-reg, leader, riboswitch,
thermoregulator, frameshift_element, IRES and antitoxin have no word there; `other` are RNA genes without a finer type. Clans are not part of the source and therefore not here.

**The language model's corpus** is larger and not shipped: {corpus["sequences"]:,} sequences ({corpus["nucleotides"] / 1e6:.1f} million nucleotides, {corpus["natural"]:,} sequences natural) of the {corpus["families"]} training families, at the exponents {", ".join(map(str, CORPUS_EXPONENTS))}. The split `train` is a part of it.
Natural families longer than {LENGTH[1]} nt lose an end there.

## Near-identical sequences

Two sequences are near-identical if 1 - (edit distance / length of the longer one) is 0.9 or more. None stand on two sides: training, choosing (`selection`, `seen-selection`) and scoring (`heldout`, `seen-heldout`, `natural`).
Natural sequences were divided by single-linkage clusters. {within["training"]:,} samples near one that was put aside were dropped from the corpus and from `train`, so that what is put aside is a fair draw of its family; in {within["conserved families"]} short or conserved
families that would have been more than half of the samples, and {within["evaluation"]:,} samples were dropped from evaluation instead (what is left of these is further from the consensus than the average). Between families,
{across["near training"]:,} sequences were dropped from evaluation for being near the split `train`, and {across["chosen on, near scored"]:,} from choosing for being near one to score.

## Splits

Unseen families stand on one side only; seen families have sequences in `train`, `validation` and one of `seen-selection` and `seen-heldout` (types with a single family: in both, by cluster). Rfam families are not
independent of each other: families of one clan can fall on both sides. The unseen families were unseen by the first version of the language model, too.

{markdown(splits)}

## Types

{markdown(types)}

## Lengths (nt)

{markdown(shares)}
"""


def main():
    facts = json.loads(pq.read_schema(DATA / "records.parquet").metadata[b"build"])
    (DATA / "README.md").write_text(data_card(pd.read_parquet(DATA / "records.parquet"), facts))


if __name__ == "__main__":
    main()
