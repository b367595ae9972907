"""Write the data card and the model card, `data/README.md` and `data/rinalmo-nano/README.md`, from the files they describe.

For maintainers, after `build_records.py` or a new pre-training:

    python data/build/write_cards.py
"""

import json
from pathlib import Path

import pandas as pd
from build_records import EXPONENTS, LENGTH, NATURAL, NATURAL_LENGTH, PER_EXPONENT
from synthetic import STAGES

from sae_rna.parameters import Parameters
from sae_rna.study import Study

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


def data_card(records: pd.DataFrame) -> str:
    length = records.sequence.str.len()
    splits = records.groupby(["origin", "split"]).agg(
        RNAs=("id", "size"), families=("family", "nunique"), types=("type", "nunique")
    )
    splits["nucleotides"] = length.groupby([records.origin, records.split]).sum()
    types = pd.crosstab(records.type, records.split).reset_index()
    types.insert(1, "families", types.type.map(records.groupby("type").family.nunique()))
    shares = (
        length.groupby(records.origin)
        .describe(percentiles=[0.1, 0.5, 0.9])[["min", "10%", "50%", "90%", "max"]]
        .astype(int)
        .reset_index()
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


def model_card(facts: dict) -> str:
    recipe, history = facts["recipe"], facts["history"]
    study = Study(Parameters(run="runs/cards"))
    masked = study.masked_table(per_set=600).drop(columns=["bases", "paired_bases"])
    stages = pd.DataFrame(
        {
            "stage": range(1, len(STAGES) + 1),
            "stems (bp)": [f"{grammar.stem[0]}-{grammar.stem[1]}" for grammar, _ in STAGES],
            "hairpin loops (nt)": [f"{grammar.hairpin[0]}-{grammar.hairpin[1]}" for grammar, _ in STAGES],
            "length (nt)": [f"{grammar.length[0]}-{grammar.length[1]}" for grammar, _ in STAGES],
            "branching": [grammar.branching for grammar, _ in STAGES],
            "left at accuracy": [threshold for _, threshold in STAGES],
            "accuracy at the end": facts["accuracy"],
        }
    )
    synthetic = facts["synthetic"] / facts["seen"]
    return f"""# Model card: rinalmo-nano

A masked language model of RNA with RiNALMo's architecture (multimolecule's `RiNALMoForMaskedLM`): {recipe["blocks"]} blocks of width {recipe["width"]}, {recipe["heads"]} heads, {study.model.parameters:,} parameters without
the head. It exists so that the whole study runs offline on two cores. It is no substitute for RiNALMo: it saw {facts["seen"] / 1e6:.1f} million nucleotides, RiNALMo-giga billions.

## Training

{facts["step"]:,} steps, {facts["seen"] / 1e6:.1f} million nucleotides, of which {synthetic:.0%} were synthetic: RNAs of random helices drawn afresh for every batch (`data/build/synthetic.py`), among them structures of training families with
fresh bases. The rest are samples of the training families of `data/records.parquet`; natural records and the families of the other splits were never seen. Muon for the encoder's matrices at learning rate
{recipe["learning_rate"]:g}, AdamW for the rest at half of it; seed {recipe["seed"]}. `sae-rna pretrain` repeats the run; `pretraining.json` beside this file holds its whole history ({len(history):,} reports).

Synthetic batches mostly use a mask that hides one end of half of the pairs and never both; family batches do so half of the time and otherwise hide 15 % as RiNALMo does. Of the chosen positions 50 % become the mask token, 35 % a random base, 15 % stay.

The run that made these weights was watched and steered, on two cores shared with other work: the learning rate was lowered from 4e-3 to 2e-3 and later to the value above, the batch halved from 8,192 tokens
after the first minutes, thresholds of the curriculum were lowered twice, it was sent back to its third stage once, and the shares of masked, random and kept bases and of family batches were changed once (from 65/20/15 and 60 %).
At 57.5 million nucleotides the rate had fallen to zero; the run was then gone on with from the value above, falling to zero once more until the end. `pretraining.json` shows where. A repeat with today's settings follows the same curriculum and does not give the same weights.

The curriculum, with the accuracy on masked paired bases (15 % masked) at which each stage was left; what can be reached falls from stage to stage:

{markdown(stages)}

## Masked bases

{masked.sequences.max():,} RNAs a set at most, 15 % of their bases hidden at once. `validation`: unseen sequences of training families; `selection` and `heldout`: families never seen; `natural`: natural RNAs of families never seen.
The Markov chain sees both sides of a hidden base.

{markdown(masked)}

## Licence

AGPL-3.0-or-later, as the code.
"""


def main():
    (DATA / "README.md").write_text(data_card(pd.read_parquet(DATA / "records.parquet")))
    folder = DATA / "rinalmo-nano"
    (folder / "README.md").write_text(model_card(json.loads((folder / "pretraining.json").read_text())))


if __name__ == "__main__":
    main()
