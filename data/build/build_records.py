"""Build the embedded data set, `data/records.parquet`, and the corpus that the language model is trained on.

For maintainers, on Debian or Ubuntu with ``apt install prokka barrnap hmmer infernal``; users
read the Parquet file. Some ten minutes.

    python data/build/build_records.py        # data/records.parquet and _build/corpus.safetensors

Sampled records are emitted by Infernal's cmemit from covariance models: Rfam 14.1's as prokka ships them, two
made from barrnap's rRNA profiles, and some made from the training part of natural alignments. Natural records
are the sequences of real alignments in Infernal's test suite. The consensus structure is projected onto every
sequence.
"""

import argparse
import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from corpus import Corpus
from covariance import Alignment, build_model, emit_from
from families import EXPONENTS, LENGTH, SEED, Family, balanced, natural_families, rfam_families, rrna_families
from similarity import clusters, near_pairs
from tqdm import tqdm

from sae_rna.records.readers import project
from sae_rna.records.structure import element_string, pair_table, split_pseudoknots

ROOT = Path(__file__).resolve().parents[2]
#: The corpus has clearer samples, too: families are learnt from these first.
CORPUS_EXPONENTS = (*EXPONENTS, 3.0)
CORPUS_PER_EXPONENT = 375
#: Samples a family and exponent of those that the balance leaves out, in the corpus alone: families in plenty
#: teach themselves, many families teach what is common to all.
FURTHER = 20
#: Samples a family and exponent in the shipped file: of training families for the splits train, validation
#: and seen-..., and of families that are never trained on.
TRAIN, VALIDATION, SEEN, UNSEEN = 40, 1, 4, 20
COLUMNS = ["id", "sequence", "secondary_structure", "element", "type", "family", "family_name",
           "architecture", "origin", "exposure", "split"]  # fmt: skip
CHOOSING, SCORING = ["selection", "seen-selection"], ["heldout", "seen-heldout", "natural"]


def architecture(structure: str) -> str:
    """What the nested consensus looks like: a hairpin, several, its widest multiloop, or 'unpaired'."""
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


def to_records(alignment: Alignment, family: Family, stem: str, origin: str, split: str) -> pd.DataFrame:
    """One record per sequence of `alignment`."""
    partner = pair_table(alignment.structure)
    projected = [project(row, partner) for row in alignment.rows()]
    records = pd.DataFrame(projected, columns=["sequence", "secondary_structure"])
    is_natural = origin == "natural"
    names = alignment.names if is_natural else range(1, len(alignment.names) + 1)
    records["id"] = [f"{stem}{'/' if is_natural else '-'}{name}" for name in names]
    return records.assign(
        type=family.type,
        family=family.name,
        family_name=family.readable,
        architecture=architecture(alignment.structure),
        origin=origin,
        split=split,
    )


def unseen_records(family: Family, folder: Path) -> list[pd.DataFrame]:
    """Records of a family that is never trained on."""
    records = [to_records(rows, family, stem, "natural", "natural") for stem, rows in family.natural.items()]
    if family.model:
        for exponent in EXPONENTS:
            drawn = emit_from(family.model, exponent, UNSEEN, SEED, folder).of_length(*LENGTH)
            stem = f"{family.accession}-e{exponent}"
            records.append(to_records(drawn, family, stem, "sampled", family.side))
    return records


# ---- families that are trained on


@dataclass
class Part:
    """Training sequences of one alignment: natural (exponent 0, no model) or emitted from `model`."""

    stem: str
    exponent: float
    model: str
    alignment: Alignment


def divide_natural(family: Family) -> tuple[dict[str, Alignment], dict[str, Alignment]]:
    """Training part and a fifth put aside, of every natural alignment, in clusters of near-identical rows.

    Clusters are taken in random order until the fifth is full; the largest (above a twentieth of all) are
    trained on.
    """
    if not family.natural:
        return {}, {}
    cluster = clusters(sum((alignment.sequences() for alignment in family.natural.values()), []))
    sizes = np.bincount(cluster)
    put_aside, taken = [], 0
    for number in np.random.default_rng([SEED, 3]).permutation(len(sizes)):
        if sizes[number] <= max(2, len(cluster) / 20) and taken + sizes[number] <= len(cluster) / 5 + 1:
            put_aside.append(number)
            taken += sizes[number]
    is_aside = np.isin(cluster, put_aside)
    kept, aside, start = {}, {}, 0
    for stem, alignment in family.natural.items():
        here = is_aside[start : start + len(alignment.names)]
        kept[stem] = alignment.subset(np.nonzero(~here)[0])
        aside[stem] = alignment.subset(np.nonzero(here)[0])
        start += len(here)
    return kept, aside


def training_family(
    family: Family, folder: Path, per_exponent: int
) -> tuple[list[pd.DataFrame], list[Part], dict]:
    """Shipped records of a training family, its part of the corpus, and the numbers of dropped sequences."""
    kept, aside = divide_natural(family)
    models = {family.accession: family.model} if family.model else {}
    models |= {stem: build_model(alignment, stem, folder) for stem, alignment in kept.items()}
    held = [to_records(alignment, family, stem, "natural", "seen") for stem, alignment in aside.items()]
    parts = [Part(stem, 0.0, "", alignment) for stem, alignment in kept.items()]
    for exponent in CORPUS_EXPONENTS:
        for stem, model in models.items():
            if exponent in EXPONENTS:
                drawn = emit_from(model, exponent, VALIDATION + SEEN, SEED + 1, folder).of_length(*LENGTH)
                held.append(to_records(drawn, family, f"{stem}-e{exponent}-aside", "sampled", "seen"))
                held[-1].loc[: VALIDATION - 1, "split"] = "validation"
            drawn = emit_from(model, exponent, per_exponent // len(models), SEED, folder)
            if not family.natural:  # the corpus crops long natural families
                drawn = drawn.of_length(*LENGTH)
            parts.append(Part(stem, exponent, model, drawn))
    held = pd.concat(held, ignore_index=True).drop_duplicates("sequence", ignore_index=True)
    held, parts, dropped = keep_apart(held, parts)
    records = [held]
    for part in parts:
        if not part.model:
            records.append(to_records(part.alignment, family, part.stem, "natural", "train"))
        elif part.exponent in EXPONENTS:
            shipped = part.alignment.of_length(*LENGTH)
            shipped = shipped.subset(np.arange(len(shipped.names))[: TRAIN // len(models)])
            records.append(to_records(shipped, family, f"{part.stem}-e{part.exponent}", "sampled", "train"))
    return records, parts, dropped


def keep_apart(held: pd.DataFrame, parts: list[Part]) -> tuple[pd.DataFrame, list[Part], dict[str, int]]:
    """Leave no training sequence of a family near-identical to one put aside.

    Samples on the training side go, which leaves what is put aside a fair draw of the family. Where that
    would be more than half of the training side (short or conserved families), the samples put aside go.
    """
    sequences = [part.alignment.sequences() for part in parts]
    is_natural = np.repeat([not part.model for part in parts], [len(rows) for rows in sequences])
    pairs = near_pairs(list(held.sequence), sum(sequences, []))
    is_sample = (held.origin == "sampled").to_numpy()
    too_many = len(np.unique(pairs[:, 1])) > len(is_natural) / 2
    leaves_held = is_sample[pairs[:, 0]] & (too_many | is_natural[pairs[:, 1]])
    held_gone = np.isin(np.arange(len(held)), pairs[leaves_held, 0])
    gone = np.isin(np.arange(len(is_natural)), pairs[~held_gone[pairs[:, 0]], 1])
    start = 0
    for part, rows in zip(parts, sequences):
        part.alignment = part.alignment.subset(np.nonzero(~gone[start : start + len(rows)])[0])
        start += len(rows)
    counts = {"training": gone.sum(), "evaluation": held_gone.sum(), "conserved families": too_many}
    return held[~held_gone], parts, {name: int(count) for name, count in counts.items()}


def further_families(families: list[Family], chosen: list[Family]) -> list[Family]:
    """Training families that `balanced` has left out, their types apart so that they do not shift the balance."""
    names = {family.name for family in chosen}
    left = [family for family in families if family.side == "train" and family.name not in names]
    return [replace(family, type=f"further {family.type}") for family in left]


# ---- splits


def halve_seen(records: pd.DataFrame) -> pd.Series:
    """Splits with 'seen' halved to seen-selection and seen-heldout, by family, else by cluster."""
    rng = np.random.default_rng([SEED, 4])
    split = records.split.copy()
    for _, rows in records[records.split == "seen"].groupby("type"):
        names = rng.permutation(sorted(set(rows.family)))
        first = rows.family.isin(names[: len(names) // 2]).to_numpy()
        if len(names) == 1:
            cluster = clusters(list(rows.sequence))
            first = (rng.random(cluster.max() + 1) < 0.5)[cluster]
        split[rows.index] = np.where(first, "seen-selection", "seen-heldout")
    return split


def without_near(records: pd.DataFrame) -> tuple[pd.DataFrame, dict[str, int]]:
    """Drop what is near-identical across sides, between families too: the less important side goes."""
    sides = {
        "near training": (["validation", *CHOOSING, *SCORING], ["train"]),
        "chosen on, near scored": (CHOOSING, SCORING),
    }
    dropped = {}
    for name, (leaving, staying) in sides.items():
        candidates, others = records[records.split.isin(leaving)], records[records.split.isin(staying)]
        rows = candidates.index[np.unique(near_pairs(list(candidates.sequence), list(others.sequence))[:, 0])]
        dropped[name] = len(rows)
        records = records.drop(rows)
    return records.reset_index(drop=True), dropped


def write(records: pd.DataFrame, path: Path, facts: dict):
    """Write the records; what the card says about the build stands in the file's metadata as `build`."""
    table = pa.Table.from_pandas(records[COLUMNS], preserve_index=False)
    table = table.replace_schema_metadata({**table.schema.metadata, b"build": json.dumps(facts).encode()})
    pq.write_table(table, path, compression="zstd", compression_level=19)


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description="Build the embedded data set and the training corpus.")
    parser.add_argument("--records", type=Path, default=ROOT / "data" / "records.parquet")
    parser.add_argument("--corpus", type=Path, default=ROOT / "_build" / "corpus.safetensors")
    parser.add_argument(
        "--per_exponent", type=int, default=CORPUS_PER_EXPONENT, help="corpus samples a family and exponent"
    )
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rfam = rfam_families(folder)
        families = balanced(rfam) + rrna_families(folder) + natural_families()
        further = further_families(rfam, families)
        trained = [family for family in families if family.side == "train"]
        corpus, records, dropped = Corpus(trained + further), [], []
        for family in tqdm(trained, "training families"):
            shipped, parts, counts = training_family(family, folder, given.per_exponent)
            records += shipped
            dropped.append(counts)
            for part in parts:
                corpus.add(family, part.exponent, part.model, part.alignment)
        for family in tqdm(further, "further training families"):
            for exponent in EXPONENTS:
                drawn = emit_from(family.model, exponent, FURTHER, SEED, folder).of_length(*LENGTH)
                corpus.add(family, exponent, family.model, drawn)
        for family in tqdm(families, "unseen families"):
            if family.side != "train":
                records += unseen_records(family, folder)
    facts = {"corpus": corpus.save(given.corpus), "within families": pd.DataFrame(dropped).sum().to_dict()}
    records = pd.concat(records, ignore_index=True).drop_duplicates("sequence", ignore_index=True)
    records["split"] = halve_seen(records)
    records, facts["across families"] = without_near(records)
    records["exposure"] = np.where(records.split.isin(["selection", "heldout", "natural"]), "unseen", "seen")
    records["element"] = [
        element_string(structure) for structure in tqdm(records.secondary_structure, "elements")
    ]
    write(records, given.records, facts)
    print(json.dumps(facts, indent=1))
    print(
        records.groupby(["split", "exposure", "origin"]).agg(
            RNAs=("id", "size"), families=("family", "nunique")
        )
    )


if __name__ == "__main__":
    main()
