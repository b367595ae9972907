"""Build the embedded data set, `data/records.parquet`, and the corpus that the language model is trained on.

For maintainers, on Debian or Ubuntu with ``apt install prokka barrnap hmmer infernal infernal-doc``; users read the Parquet file.

    python data/build/build_records.py                        # data/records.parquet and _build/corpus.safetensors

Sampled records are emitted by Infernal's cmemit from covariance models: those of Rfam 14.1 that prokka ships, two made from
barrnap's rRNA models, and four made from the training part of natural alignments. Natural records are the sequences of real
alignments in Infernal's test suite. The consensus structure is projected onto every sequence.
"""

import argparse
import html
import json
import re
import subprocess
import tempfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pandas as pd
from covariance import BASES, BLOCK, Alignment, base_distributions, build_model, emit, read_alignments
from safetensors.numpy import save_file
from similarity import clusters, near_pairs
from tqdm import tqdm

from sae_rna.sequences import project
from sae_rna.structure import element_string, pair_table, split_pseudoknots

MODELS = Path("/usr/share/prokka/db/cm")
RRNA_MODELS = Path("/usr/share/barrnap/db/euk.hmm")
ALIGNMENTS = Path("/usr/share/doc/infernal/examples/testsuite")
ROOT = Path(__file__).resolve().parents[2]
SEED = 20251003
#: cmemit --exp sharpens a model's distributions: identity to the consensus rises from 60 % at 1.0 to about 80 % at 1.8,
#: which is near natural homologues. A few exponents around that give close and remote members of a family.
EXPONENTS = (1.4, 1.8, 2.2)
#: The corpus has clearer samples, too: families are learnt from these first.
CORPUS_EXPONENTS = (*EXPONENTS, 3.0)
CORPUS_PER_EXPONENT = 375
#: Samples a family and exponent in the shipped file: of training families (train, validation, evaluation), of unseen ones.
TRAIN, VALIDATION, SEEN, UNSEEN = 40, 1, 4, 20
LENGTH = (20, 256)
NATURAL_LENGTH = (20, 450)
MOST_TRAINING_FAMILIES = 40
MOST_UNSEEN_FAMILIES = 12
#: alignment -> type, family, its readable name, and whether the language model is trained on (a part of) it
NATURAL = {
    "tRNA1415G": ("tRNA", "tRNA", "Transfer RNA", True),
    "tRNA": ("tRNA", "tRNA", "Transfer RNA", True),
    "srp-euk": ("SRP_RNA", "SRP_euk", "Eukaryotic signal recognition particle RNA", True),
    "Plant_SRP": ("SRP_RNA", "Plant_SRP", "Plant signal recognition particle RNA", True),
    "snR75": ("CD-box", "snR75", "Small nucleolar RNA snR75", True),
    "rnaseP-eubact": ("RNase_P_RNA", "RNaseP_bact", "Bacterial RNase P RNA", False),
    "Vault": ("vault_RNA", "Vault", "Vault RNA", False),
}
#: Relatives of natural families, which go where these go.
UNSEEN_RELATIVES = re.compile(r"RNase?P|RNaseMRP|[Vv]ault")
SEEN_RELATIVES = re.compile(r"SRP|(?<!c)tRNA|snR75|tmRNA")
#: Rfam's words -> RNAcentral's, where it has another one
RNACENTRAL = {"antisense": "antisense_RNA", "intron": "autocatalytically_spliced_intron"}
COLUMNS = ["id", "sequence", "secondary_structure", "element", "type", "family", "family_name", "architecture", "origin", "exposure", "split"]  # fmt: skip


# ---- families


@dataclass
class Family:
    """One family, its covariance model and its natural sequences."""

    name: str
    accession: str
    type: str
    readable: str
    side: str
    """train, selection, heldout or natural (of natural families that are never trained on)"""
    models: list[str] = field(default_factory=list)
    """Texts of its covariance models; natural families trained on have one made from each alignment's training part."""
    natural: dict[str, Alignment] = field(default_factory=dict)


def rfam_words() -> dict[str, tuple[str, str]]:
    """Type and description of every accession: the type is the leaf of Rfam's path, SRP and the like by the description."""
    words = {}
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
            leaf = {"Gene": "other", "Cis-reg": "cis-reg", "Intron": "intron", "splicing": "snRNA"}.get(leaf, leaf)
            words[accession] = leaf, html.unescape(description).strip()
    return words


def rfam_families(folder: Path) -> list[Family]:
    """Rfam families that give 20 distinct sequences of an allowed length among 60, on their sides.

    selection and heldout are a tenth of every type each. This survey is the first version's and must stay as it is: whatever
    it puts aside has never been in a training set, so that a model may go on from older weights.
    """
    words, texts, accessions = rfam_words(), {}, {}
    found: list[tuple[str, str]] = []
    for kingdom in ("Archaea", "Bacteria", "Viruses"):
        models = folder / f"{kingdom}.cm"
        command = ["cmconvert", "-a", MODELS / kingdom]
        models.write_text(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        fresh = []
        for text in re.split(r"^(?=INFERNAL1/a)", models.read_text(), flags=re.M)[1:]:
            name, accession = re.search(r"^NAME +(\S+)\nACC +(\S+)", text, re.M).groups()
            fresh.append(None if accession in accessions.values() else name)
            if fresh[-1]:
                texts[name], accessions[name] = text, accession
        for exponent in EXPONENTS:
            for name, alignment in zip(fresh, tqdm(emit(models, exponent, 20, SEED), f"survey of {kingdom}"), strict=True):
                if name:
                    sequences = [row.replace("-", "") for row in alignment.rows()]
                    found += [(name, sequence) for sequence in sequences if LENGTH[0] <= len(sequence) <= LENGTH[1]]
    survey = pd.DataFrame(found, columns=["family", "sequence"]).drop_duplicates("sequence")
    sizes = survey.groupby("family").size()
    families = pd.Series({name: words.get(accessions[name], ("other",))[0] for name in sizes[sizes >= 20].index})
    rng = np.random.default_rng(SEED)
    sides = {}
    for _, of_type in families.groupby(families):
        names = rng.permutation(sorted(of_type.index))
        tenth = max(1, round(len(names) / 10)) if len(names) >= 5 else 0
        sides |= {name: ("selection", "heldout")[number // tenth] if number < 2 * tenth else "train" for number, name in enumerate(names)}
    for name in sides:
        if UNSEEN_RELATIVES.search(name) or re.search("ctRNA", name):  # ctRNA: put aside by the first version, too
            sides[name] = "heldout"
        elif SEEN_RELATIVES.search(name):
            sides[name] = "train"
    return [
        Family(name, accessions[name], RNACENTRAL.get(kind, kind), words[accessions[name]][1], sides[name], [texts[name]])
        for name, kind in families.items()
    ]


def balanced(families: list[Family]) -> list[Family]:
    """At most so many families of a type and side, drawn by the seed alone."""
    rng = np.random.default_rng([SEED, 2])
    table = pd.DataFrame({"family": families, "type": [family.type for family in families], "side": [family.side for family in families]})
    chosen = []
    for (_, side), rows in table.groupby(["type", "side"]):
        most = MOST_TRAINING_FAMILIES if side == "train" else MOST_UNSEEN_FAMILIES
        order = np.sort(rng.permutation(len(rows))[:most])
        chosen += [rows.family.iloc[number] for number in order]
    return chosen


def rrna_families(folder: Path) -> list[Family]:
    """5S and 5.8S rRNA. barrnap's profiles know no pairs, but keep Rfam's consensus structure.

    Sequences are emitted from a profile, a consensus pair that is broken in one of them is drawn again from the two columns'
    own distributions among the canonical pairs, and the covariance model of this alignment is used as all the others are.
    """
    families = []
    for name, readable in (("5S_rRNA", "5S ribosomal RNA"), ("5_8S_rRNA", "5.8S ribosomal RNA")):
        text = next(part for part in RRNA_MODELS.read_text().split("//\n") if f"\nNAME  {name}\n" in part)
        columns = [line.split() for line in text.splitlines() if re.match(r" +\d+ .* \S \S \S \S$", line)]
        structure = re.sub(r"[^][(){}<>]", ".", "".join(column[-1] for column in columns))
        profile = np.exp(-np.array([column[1:5] for column in columns], float))
        path = folder / f"{name}.hmm"
        path.write_text(text + "//\n")
        command = ["hmmemit", "-a", "-N", "1000", "--seed", str(SEED), path]
        emitted = read_alignments(subprocess.run(command, check=True, capture_output=True, text=True).stdout)[0]
        codes = emitted.codes[:, emitted.position >= 0]
        rng = np.random.default_rng(SEED)
        canonical = np.zeros((4, 4))
        canonical[[0, 1, 2, 3, 2, 3], [3, 2, 1, 0, 3, 2]] = 1
        for i, j in enumerate(pair_table(structure)):
            if j > i:
                both = np.outer(profile[i], profile[j]) * canonical
                present = (codes[:, i] >= 0) & (codes[:, j] >= 0)
                broken = np.nonzero(present & (canonical[codes[:, i], codes[:, j]] == 0))[0]
                drawn = rng.choice(16, len(broken), p=both.ravel() / both.sum())
                codes[broken, i], codes[broken, j] = drawn // 4, drawn % 4
        alignment = Alignment(emitted.names, codes, structure, np.arange(len(structure)))
        model = build_model(alignment, name, folder).read_text()
        families.append(Family(name, re.search(r"^ACC +(\S+)", text, re.M)[1], "rRNA", readable, "train", [model]))
    return families


def natural_families() -> list[Family]:
    """The families of the real alignments; rows with letters other than A, C, G and U are left out."""
    families: dict[str, Family] = {}
    for stem, (kind, name, readable, trained) in NATURAL.items():
        alignment = read_alignments((ALIGNMENTS / f"{stem}.sto").read_text())[0]
        length = (alignment.codes >= 0).sum(1)
        sound = (alignment.codes != -2).all(1) & (length >= NATURAL_LENGTH[0]) & (length <= NATURAL_LENGTH[1])
        family = families.setdefault(name, Family(name, "", kind, readable, "train" if trained else "natural"))
        known = set(sum(map(sequences_of, family.natural.values()), []))
        fresh = ~(pd.Series(sequences_of(alignment)).isin(known) | pd.Series(sequences_of(alignment)).duplicated())
        family.natural[stem] = subset(alignment, np.nonzero(sound & fresh)[0])
    return list(families.values())


def subset(alignment: Alignment, rows: np.ndarray) -> Alignment:
    """Some rows of an alignment."""
    return replace(alignment, names=[alignment.names[row] for row in rows], codes=alignment.codes[rows])


# ---- records


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


def sequences_of(alignment: Alignment) -> list[str]:
    """The sequences without gaps."""
    return [row.replace("-", "") for row in alignment.rows()]


def table_of(alignment: Alignment, family: Family, prefix: str, origin: str, split: str) -> pd.DataFrame:
    """One record per row of `alignment`."""
    partner = pair_table(alignment.structure)
    projected = [project(row, alignment.structure, partner) for row in alignment.rows()]
    table = pd.DataFrame(projected, columns=["sequence", "secondary_structure"])
    table["id"] = [f"{prefix}/{name}" if origin == "natural" else f"{prefix}-{number}" for number, name in enumerate(alignment.names, 1)]
    facts = {"type": family.type, "family": family.name, "family_name": family.readable,
             "architecture": architecture(alignment.structure), "origin": origin, "split": split}  # fmt: skip
    return table.assign(**facts)


def of_allowed_length(alignment: Alignment) -> Alignment:
    length = (alignment.codes >= 0).sum(1)
    return subset(alignment, np.nonzero((length >= LENGTH[0]) & (length <= LENGTH[1]))[0])


def unseen_records(family: Family, folder: Path) -> list[pd.DataFrame]:
    """Records of a family that is never trained on."""
    tables = [table_of(alignment, family, stem, "natural", "natural") for stem, alignment in family.natural.items()]
    for text in family.models:
        model = folder / "model.cm"
        model.write_text(text)
        for exponent in EXPONENTS:
            alignment = of_allowed_length(emit(model, exponent, UNSEEN, SEED, "--nohmmonly")[0])
            tables.append(table_of(alignment, family, f"{family.accession}-e{exponent}", "sampled", family.side))
    return tables


def divide_natural(family: Family) -> tuple[dict[str, Alignment], dict[str, Alignment]]:
    """Training part and evaluation part of a family's natural sequences: whole clusters, a fifth for evaluation.

    Clusters are taken in random order until the fifth is full; one with more than a twentieth of the sequences is trained on.
    """
    if not family.natural:
        return {}, {}
    sequences = sum((sequences_of(alignment) for alignment in family.natural.values()), [])
    cluster = clusters(sequences)
    sizes = np.bincount(cluster)
    rng = np.random.default_rng([SEED, 3])
    evaluated: set[int] = set()
    for number in rng.permutation(len(sizes)):
        taken = sum(sizes[list(evaluated)]) if evaluated else 0
        if sizes[number] <= max(2, len(sequences) / 20) and taken + sizes[number] <= len(sequences) / 5 + 1:
            evaluated.add(number)
    is_evaluated = np.isin(cluster, list(evaluated))
    parts, start = ({}, {}), 0
    for stem, alignment in family.natural.items():
        here = is_evaluated[start : start + len(alignment.names)]
        start += len(alignment.names)
        parts[0][stem], parts[1][stem] = subset(alignment, np.nonzero(~here)[0]), subset(alignment, np.nonzero(here)[0])
    return parts


@dataclass
class Training:
    """What one training family gives: shipped records, and alignments for the corpus with their exponent (0: natural)."""

    records: list[pd.DataFrame]
    corpus: list[tuple[float, str | None, Alignment]]
    dropped: dict[str, int]


def training_family(family: Family, folder: Path, per_exponent: int) -> Training:
    """Records and corpus of a family that is trained on.

    No training sequence is near-identical to a sequence put aside: samples that would be are dropped from the training side,
    or, in families where that would be more than half of them, from the evaluation side.
    """
    kept, aside = divide_natural(family)
    texts = list(family.models)
    texts += [build_model(alignment, stem, folder).read_text() for stem, alignment in kept.items()]
    models = []
    for number, text in enumerate(texts):
        models.append(folder / f"model{number}.cm")
        models[-1].write_text(text)
    label = [family.accession or family.name] if len(models) == 1 else list(family.natural)
    held: list[pd.DataFrame] = [table_of(alignment, family, stem, "natural", "seen") for stem, alignment in aside.items()]
    for exponent in EXPONENTS:
        for number, model in enumerate(models):
            drawn = of_allowed_length(emit(model, exponent, VALIDATION + SEEN, SEED + 1, "--nohmmonly")[0])
            table = table_of(drawn, family, f"{label[number]}-e{exponent}-aside", "sampled", "seen")
            table.loc[table.index < VALIDATION, "split"] = "validation"
            held.append(table)
    held = pd.concat(held, ignore_index=True).drop_duplicates("sequence", ignore_index=True)
    trained = [(0.0, stem, None, alignment) for stem, alignment in kept.items()]
    for exponent in CORPUS_EXPONENTS:
        for name, model in zip(label, models):
            drawn = emit(model, exponent, per_exponent // len(models), SEED, "--nohmmonly")[0]
            if not family.natural:
                drawn = of_allowed_length(drawn)
            trained.append((exponent, name, model.read_text(), drawn))
    sequences = [sequences_of(alignment) for *_, alignment in trained]
    pairs = near_pairs(list(held.sequence), sum(sequences, []))
    near_held = np.isin(np.arange(len(held)), pairs[:, 0])
    near_trained = np.isin(np.arange(sum(map(len, sequences))), pairs[:, 1])
    natural = sum(len(part) for part, (exponent, *_) in zip(sequences, trained) if exponent == 0)
    if near_trained.mean() > 0.5 or near_trained[:natural].any():
        by_sample = near_held & (held.origin == "sampled").to_numpy()
        near_trained = np.isin(np.arange(len(near_trained)), pairs[np.isin(pairs[:, 0], np.nonzero(~by_sample)[0]), 1])
        held = held[~by_sample]
    else:
        by_sample = np.zeros(0, bool)
    records, corpus, start = [held], [], 0
    for (exponent, name, text, alignment), part in zip(trained, sequences):
        here = np.nonzero(~near_trained[start : start + len(part)])[0]
        start += len(part)
        alignment = subset(alignment, here)
        corpus.append((exponent, text, alignment))
        if exponent == 0:
            records.append(table_of(alignment, family, name, "natural", "train"))
        elif exponent in EXPONENTS:
            shipped = of_allowed_length(alignment)
            shipped = subset(shipped, np.arange(min(len(shipped.names), TRAIN // len(models))))
            records.append(table_of(shipped, family, f"{name}-e{exponent}", "sampled", "train"))
    return Training(records, corpus, {"training": int(near_trained.sum()), "evaluation": int(by_sample.sum())})


def halve_seen(records: pd.DataFrame) -> pd.Series:
    """'seen' becomes seen-selection and seen-heldout: by family where a type has two or more, else by sequence, whole clusters."""
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
    """Drop what is near-identical across sides, between families too: from evaluation if near to training, from choosing if near to scoring."""
    choosing, scoring = ["selection", "seen-selection"], ["heldout", "seen-heldout", "natural"]
    steps = {"of training": (["validation", *choosing, *scoring], ["train"]), "of scoring": (choosing, scoring)}
    dropped = {}
    for name, (left, right) in steps.items():
        candidates, others = records[records.split.isin(left)], records[records.split.isin(right)]
        pairs = near_pairs(list(candidates.sequence), list(others.sequence))
        rows = candidates.index[np.unique(pairs[:, 0])]
        dropped[name] = len(rows)
        records = records.drop(rows)
    return records.reset_index(drop=True), dropped


# ---- corpus


class Corpus:
    """Everything that the language model is trained on, with the exact distribution of every drawn base.

    Tensors (N nucleotides, S sequences): bases [N], index into ACGU. partner [N], index within the sequence of the partner in
    the projected structure, -1 unpaired. cm_partner [N], the same for the consensus pair whatever its bases, -1 none.
    target [N], first of five rows of `targets` [R, 4]: P(base) given that the base at cm_partner is A, C, G, U, and given
    nothing; -1 in natural sequences, where no distribution is known. start [S + 1]. Per sequence family and type (numbers in
    the metadata's lists), noise (cmemit's exponent, 0 natural) and natural.
    """

    def __init__(self, families: list[Family]):
        self.families = [family.name for family in families]
        self.types = sorted({family.type for family in families})
        self.parts: dict[str, list[np.ndarray]] = {}
        self.rows = [np.full((BLOCK, 4), 0.25, np.float32)]  # of insertions
        self.row_count = BLOCK
        self.rng = np.random.default_rng([SEED, 5])

    def add(self, family: Family, exponent: float, model: Path | None, alignment: Alignment):
        """Add the sequences of an alignment; those that are too long lose an end, those that are too short are left out."""
        codes = alignment.codes
        there = codes >= 0
        length = there.sum(1)
        rank = np.cumsum(there, 1) - 1
        first = (self.rng.random(len(codes)) < 0.5) * np.maximum(length - LENGTH[1], 0)
        window = there & (rank >= first[:, None]) & (rank < first[:, None] + LENGTH[1])
        window &= (length >= LENGTH[0])[:, None]
        place = np.cumsum(window, 1) - 1
        mate_column = split_pseudoknots(alignment.structure)[0]
        has_mate = mate_column >= 0
        mate_codes = codes[:, mate_column]
        mated = has_mate & there[:, mate_column]
        cm_partner = np.where(mated & window[:, mate_column], place[:, mate_column], -1)
        canonical = np.zeros((4, 4), bool)
        canonical[[0, 1, 2, 3, 2, 3], [3, 2, 1, 0, 3, 2]] = True
        partner = np.where((cm_partner >= 0) & canonical[codes, mate_codes] & (np.abs(cm_partner - place) > 3), cm_partner, -1)
        target = np.full(codes.shape, -1)
        if model is not None:
            blocks = base_distributions(model).blocks(exponent)
            assert len(blocks) == alignment.position.max() + 1
            block = self.row_count + BLOCK * (2 * alignment.position + ~mated)
            target = np.where(alignment.position >= 0, block, 0)
            self.rows.append(blocks.reshape(-1, 4))
            self.row_count += len(self.rows[-1])
        length = window.sum(1)
        length = length[length > 0]
        values = {"bases": (codes[window], np.uint8), "partner": (partner[window], np.int16), "cm_partner": (cm_partner[window], np.int16),
                  "target": (target[window], np.int32), "length": (length, np.int64),
                  "family": (np.full(len(length), self.families.index(family.name)), np.int16),
                  "type": (np.full(len(length), self.types.index(family.type)), np.int16),
                  "noise": (np.full(len(length), exponent), np.float32),
                  "natural": (np.full(len(length), model is None), np.uint8)}  # fmt: skip
        for name, (value, kind) in values.items():
            self.parts.setdefault(name, []).append(value.astype(kind))

    def save(self, path: Path):
        """Write the corpus; the file is there whole or not at all."""
        tensors = {name: np.concatenate(values) for name, values in self.parts.items()}
        tensors["start"] = np.concatenate([[0], np.cumsum(tensors.pop("length"))])
        tensors["targets"] = np.concatenate(self.rows)
        path.parent.mkdir(exist_ok=True)
        save_file(tensors, path.with_suffix(".tmp"), {"families": json.dumps(self.families), "types": json.dumps(self.types)})
        path.with_suffix(".tmp").rename(path)
        print(f"{path.name}: {len(tensors['family']):,} sequences, {len(tensors['bases']):,} nucleotides, {path.stat().st_size / 1e6:.0f} MB")


def main(arguments: list[str] | None = None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=ROOT / "data" / "records.parquet")
    parser.add_argument("--corpus", type=Path, default=ROOT / "_build" / "corpus.safetensors")
    parser.add_argument("--per_exponent", type=int, default=CORPUS_PER_EXPONENT, help="corpus sequences a family and exponent")
    given = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        families = balanced(rfam_families(folder)) + rrna_families(folder) + natural_families()
        trained = [family for family in families if family.side == "train"]
        corpus, tables, dropped = Corpus(trained), [], []
        for family in tqdm(trained, "training families"):
            result = training_family(family, folder, given.per_exponent)
            tables += result.records
            dropped.append({"family": family.name} | result.dropped)
            for exponent, text, alignment in result.corpus:
                model = folder / "model.cm" if text else None
                if text:
                    model.write_text(text)
                corpus.add(family, exponent, model, alignment)
        corpus.save(given.corpus)
        for family in tqdm(families, "unseen families"):
            if family.side != "train":
                tables += unseen_records(family, folder)
    dropped = pd.DataFrame(dropped).set_index("family")
    print(f"near-identical within a family: {dropped.sum().to_dict()}; families without sampled evaluation sequences are to be seen here:")
    print(dropped[dropped.evaluation > 0].evaluation.to_dict())
    records = pd.concat(tables, ignore_index=True).drop_duplicates("sequence", ignore_index=True)
    records["split"] = halve_seen(records)
    records, across = without_near(records)
    print(f"near-identical across families, dropped from evaluation: {across}")
    records["exposure"] = np.where(records.split.isin(["selection", "heldout", "natural"]), "unseen", "seen")
    records["element"] = [element_string(structure) for structure in tqdm(records.secondary_structure, "elements")]
    records[COLUMNS].to_parquet(given.records, compression="zstd", compression_level=19, index=False)
    print(records.groupby(["split", "exposure", "origin"]).agg(RNAs=("id", "size"), families=("family", "nunique"), types=("type", "nunique")))
    print(pd.crosstab(records.type, records.split).to_string())


if __name__ == "__main__":
    main()
