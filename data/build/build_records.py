"""Build the embedded data set, `data/records.parquet`, and its data card.

For maintainers, on Debian or Ubuntu with ``apt install prokka infernal infernal-doc``; users read the Parquet file.

    python data/build/build_records.py

Sampled records are emitted by Infernal's cmemit from the Rfam 14.1 covariance models that prokka ships; natural records are
the sequences of real alignments in Infernal's test suite. The consensus structure is projected onto every sequence.
"""

import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
from Bio import AlignIO
from tqdm import tqdm

from sae_rna.records.readers import project
from sae_rna.records.structure import element_string, pair_table, split_pseudoknots

MODELS = Path("/usr/share/prokka/db/cm")
ALIGNMENTS = Path("/usr/share/doc/infernal/examples/testsuite")
DATA = Path(__file__).resolve().parents[1]
SEED = 20251003
#: cmemit --exp sharpens a model's distributions: identity to the consensus rises from 60 % at 1.0 to about 80 % at 1.8,
#: which is near natural homologues. A few exponents around that give close and remote members of a family.
EXPONENTS = (1.4, 1.8, 2.2)
PER_EXPONENT = 20
LENGTH = (20, 256)
NATURAL_LENGTH = (20, 450)
#: alignment -> type, family, and the Rfam families whose samples must not be trained on because they are its relatives
NATURAL = {
    "tRNA1415G": ("tRNA", "tRNA"),
    "tRNA": ("tRNA", "tRNA"),
    "rnaseP-eubact": ("RNase_P_RNA", "RNaseP_bact"),
    "srp-euk": ("SRP_RNA", "SRP_euk"),
    "Plant_SRP": ("SRP_RNA", "Plant_SRP"),
    "Vault": ("vault_RNA", "Vault"),
    "snR75": ("CD-box", "snR75"),
}
RELATIVES_OF_NATURAL = re.compile(r"RNase?P|RNaseMRP|SRP|tRNA|[Vv]ault|snR75|tmRNA")


def rna_types() -> dict[str, str]:
    """Type of every accession: the leaf of Rfam's type path, in RNAcentral's words where the family is a known one."""
    types = {}
    for path in sorted((MODELS / "__build").glob("Rfam_*.txt")):
        for line in path.read_text().splitlines():
            accession, lineage, description = line.split("\t")[:3]
            leaf = lineage.rstrip("; ").split("; ")[-1]
            if re.search("ribonuclease p|rnase p|rnase mrp", description, re.I):
                leaf = "RNase_P_RNA"
            elif re.search("signal recognition particle", description, re.I):
                leaf = "SRP_RNA"
            elif re.search("transfer-messenger", description, re.I):
                leaf = "tmRNA"
            types[accession] = {
                "Gene": "other",
                "Cis-reg": "cis-reg",
                "Intron": "intron",
                "splicing": "snRNA",
            }.get(leaf, leaf)
    return types


def architecture(structure: str) -> str:
    """What the nested consensus looks like: hairpin, several hairpins, or its widest multiloop; 'unpaired' without pairs."""
    partner, _ = split_pseudoknots(structure)
    ways, position = [], 0
    domains = 0
    while position < len(partner):
        if partner[position] > position:
            domains += 1
            position = partner[position]
        position += 1
    for i, j in enumerate(partner):
        if j > i:
            inner, branches = i + 1, 0
            while inner < j:
                if partner[inner] > inner:
                    branches += 1
                    inner = partner[inner]
                inner += 1
            ways.append(branches + 1)
    if not ways:
        return "unpaired"
    if max(ways) > 2:
        return f"{max(ways)}-way junction"
    return "hairpin" if domains == 1 else "several hairpins"


def sampled_families() -> list[dict]:
    """Records emitted from every distinct covariance model, `PER_EXPONENT` a model and exponent."""
    types, records, seen = rna_types(), [], set()
    with tempfile.TemporaryDirectory() as folder:
        for kingdom in ("Archaea", "Bacteria", "Viruses"):
            models = Path(folder) / f"{kingdom}.cm"
            models.write_text(
                subprocess.run(
                    ["cmconvert", "-a", MODELS / kingdom], check=True, capture_output=True, text=True
                ).stdout
            )
            text = models.read_text()
            accession = dict(re.findall(r"^NAME +(\S+)\nACC +(\S+)", text, re.M))
            fresh = {name for name, key in accession.items() if key not in seen}
            seen |= set(accession.values())
            for exponent in EXPONENTS:
                emitted = Path(folder) / "emitted.sto"
                subprocess.run(
                    [
                        "cmemit",
                        "-a",
                        "--exp",
                        str(exponent),
                        "-N",
                        str(PER_EXPONENT),
                        "--seed",
                        str(SEED),
                        "-o",
                        emitted,
                        models,
                    ],
                    check=True,
                )
                names = re.findall(r"^#=GF ID +(\S+)", emitted.read_text(), re.M)
                for name, alignment in tqdm(
                    zip(names, AlignIO.parse(emitted, "stockholm")), kingdom, len(names)
                ):
                    if name in fresh:
                        key = accession[name]
                        records += from_alignment(
                            alignment, f"{key}-e{exponent}", types.get(key, "other"), name, "sampled", LENGTH
                        )
    return records


def natural_records() -> list[dict]:
    """Records of the real alignments in `NATURAL`."""
    records = []
    for stem, (rna_type, family) in NATURAL.items():
        alignment = AlignIO.read(ALIGNMENTS / f"{stem}.sto", "stockholm")
        records += from_alignment(alignment, stem, rna_type, family, "natural", NATURAL_LENGTH)
    return records


def from_alignment(
    alignment, stem: str, rna_type: str, family: str, origin: str, length: tuple[int, int]
) -> list[dict]:
    """One record per row of `alignment` that is made of A, C, G and U alone and has an allowed length."""
    consensus = alignment.column_annotations["secondary_structure"]
    consensus = re.sub(r"[^][(){}<>A-Za-z]", ".", consensus)
    partner = pair_table(consensus)
    shape = architecture(consensus)
    records = []
    for number, row in enumerate(alignment, 1):
        sequence, structure = project(str(row.seq), consensus, partner)
        if length[0] <= len(sequence) <= length[1] and set(sequence) <= set("ACGU"):
            name = f"{stem}-{number}" if origin == "sampled" else f"{stem}/{row.id}"
            records.append(
                {
                    "id": name,
                    "sequence": sequence,
                    "secondary_structure": structure,
                    "type": rna_type,
                    "family": family,
                    "architecture": shape,
                    "origin": origin,
                }
            )
    return records


def assign_splits(records: pd.DataFrame) -> pd.Series:
    """train / selection / heldout by family, 80 / 10 / 10 within every type; natural records apart.

    One sequence in twenty of the training families becomes the split `validation`: never trained on, of a known family. Sampled
    relatives of the natural records are held out, so that the natural split is unseen in every sense.
    """
    rng = np.random.default_rng(SEED)
    split = {}
    for _, families in records[records.origin == "sampled"].groupby("type").family:
        names = rng.permutation(sorted(set(families)))
        tenth = max(1, round(len(names) / 10)) if len(names) >= 5 else 0
        split |= {name: "selection" for name in names[:tenth]} | {
            name: "heldout" for name in names[tenth : 2 * tenth]
        }
        split |= {name: "train" for name in names[2 * tenth :]}
    split |= {name: "heldout" for name in split if RELATIVES_OF_NATURAL.search(name)}
    splits = pd.Series(
        np.where(records.origin == "natural", "natural", records.family.map(split)), records.index
    )
    return splits.mask((splits == "train") & (rng.random(len(splits)) < 0.05), "validation")


def main():
    records = pd.DataFrame(sampled_families() + natural_records()).drop_duplicates(
        "sequence", ignore_index=True
    )
    records = records[records.groupby("family").sequence.transform("size") >= 20].reset_index(drop=True)
    records["element"] = [
        element_string(structure) for structure in tqdm(records.secondary_structure, "elements")
    ]
    records["split"] = assign_splits(records)
    columns = [
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
    records[columns].to_parquet(
        DATA / "records.parquet", compression="zstd", compression_level=19, index=False
    )
    print(records.groupby(["origin", "split"]).agg(records=("id", "size"), families=("family", "nunique")))
    print(Counter(records.type).most_common())


if __name__ == "__main__":
    main()
