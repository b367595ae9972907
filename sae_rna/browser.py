"""Annotated RNAs as text: a table, marked structures, and tracks for genome browsers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from urllib.parse import quote

import numpy as np
import pandas as pd

from sae_rna.records.places import Place


@dataclass(eq=False)
class Part:
    """Some RNAs with the activations of features along them."""

    records: pd.DataFrame
    placed: Sequence[Place | None]  # where each record stands
    table: pd.DataFrame  # a row per nucleotide: id, position, base ... and a column per feature
    features: pd.DataFrame  # name, label (what it was chosen for, "" if nothing), maximum

    @cached_property
    def nucleotides(self) -> pd.DataFrame:
        """`table` with `rna`, the number of the record in this part."""
        return self.table.assign(rna=np.arange(len(self.records)).repeat(self.records.sequence.str.len()))

    @cached_property
    def on_chromosomes(self) -> pd.DataFrame:
        """The nucleotides of RNAs that have a place, with `at` (from 0), in ascending order of rna and at."""
        nowhere = [np.full(len(text), -1) for text in self.records.sequence]
        at_T = np.concatenate([of.positions if of else none for of, none in zip(self.placed, nowhere)])
        table = self.nucleotides.assign(at=at_T)
        return table[at_T >= 0].sort_values(["rna", "at"])

    @cached_property
    def stretches(self) -> pd.DataFrame:
        """Neighbours on a chromosome on which a feature fires, by RNA and feature: rna, name, start (from 0),
        end (excluded), value (the highest)."""
        tables = []
        for name in self.features.name:
            fires = self.on_chromosomes.loc[self.on_chromosomes[name] > 0, ["rna", "at", name]]
            new_T = (fires.rna.diff() != 0) | (fires["at"].diff() != 1)
            runs = fires.groupby(new_T.cumsum().to_numpy())
            ends = {"start": runs["at"].min(), "end": runs["at"].max() + 1, "value": runs[name].max()}
            tables.append(pd.DataFrame({"rna": runs.rna.min(), "name": name} | ends))
        return pd.concat(tables).sort_values("rna", kind="stable")


def files(features: pd.DataFrame, columns: Sequence[str], placed: bool) -> dict[str, tuple[str, Callable]]:
    """How each file begins, and what makes its text of a part, by name; tracks only if RNAs are `placed`."""
    found: dict = {"nucleotides.tsv": ("\t".join(columns) + "\n", tsv), "marked.sto": ("", stockholm)}
    for of in features.itertuples() if placed else ():
        head = f'track type=bedGraph name="{of.name}" description="{of.label or of.name}"\n'
        found[f"{of.name.replace('/', '-')}.bedgraph"] = head, partial(bedgraph, name=of.name)
    return found | (
        {"features.bed": ("", bed), "features.gff3": ("##gff-version 3\n", gff)} if placed else {}
    )


def tsv(part: Part) -> str:
    """A line per nucleotide, an empty field where a value is missing."""
    return part.table.to_csv(sep="\t", index=False, header=False, float_format="%.6g")


def stockholm(part: Part) -> str:
    """An alignment of each RNA alone, with its structure and the features in tenths of their maxima."""
    share_TF = np.nan_to_num((part.table[part.features.name] / part.features.maximum.to_numpy()).to_numpy())
    tenth_TF = np.where(share_TF > 0, np.minimum(share_TF * 10, 9).astype(int) + 1, 0)
    marks = [bytes(of_T).decode() for of_T in np.frombuffer(b".0123456789", np.uint8)[tenth_TF].T]
    start, lines = 0, list[str]()
    for record in part.records.itertuples():
        name, end = "_".join(record.id.split()), start + len(record.sequence)
        structure = getattr(record, "secondary_structure", "")
        rows = {name: record.sequence} | ({f"#=GR {name} SS": structure} if structure else {})
        rows |= {f"#=GR {name} {feature}": of[start:end] for feature, of in zip(part.features.name, marks)}
        width, start = max(map(len, rows)), end
        lines += ["# STOCKHOLM 1.0", *(f"{head:{width}} {row}" for head, row in rows.items()), "//", ""]
    return "\n".join(lines)


def bedgraph(part: Part, name: str) -> str:
    """The activation of a feature wherever it fires."""
    table = part.on_chromosomes[part.on_chromosomes[name] > 0]
    rows = zip(table.rna, table["at"], table[name])
    return "".join(f"{part.placed[rna].chromosome}\t{at}\t{at + 1}\t{value:.6g}\n" for rna, at, value in rows)


def bed(part: Part) -> str:
    """BED12, a line per RNA and feature: blocks where it fires, as score thousandths of its maximum."""
    lines, maximum, names = list[str](), part.features.set_index("name").maximum, part.records.id.tolist()
    stretches = part.stretches.itertuples(index=False)
    for (rna, name), own in groupby(stretches, lambda row: (row.rna, row.name)):
        blocks, place = list(own), part.placed[rna]
        first, last = blocks[0].start, blocks[-1].end
        score = min(1000, round(1000 * max(block.value for block in blocks) / maximum[name]))
        sizes = ",".join(str(block.end - block.start) for block in blocks)
        starts = ",".join(str(block.start - first) for block in blocks)
        title = "_".join(f"{names[rna]}|{name}".split())
        row = [place.chromosome, first, last, title, score, place.strand, first, last, 0]
        lines.append("\t".join(map(str, [*row, len(blocks), sizes, starts])) + "\n")
    return "".join(lines)


def gff(part: Part) -> str:
    """GFF3, a line per stretch on which a feature fires; one ID for those of an RNA and feature."""
    lines, label, names = list[str](), part.features.set_index("name").label, part.records.id.tolist()
    for stretch in part.stretches.itertuples(index=False):
        place, name = part.placed[stretch.rna], stretch.name
        seqid = quote(place.chromosome, safe=":^*$@!+?|")
        row = [seqid, "sae-rna", "sequence_feature", stretch.start + 1, stretch.end, f"{stretch.value:.6g}"]
        facts = [f"ID={quote(f'{names[stretch.rna]}|{name}', safe='/:|()+')}", f"Name={name}"]
        facts += [f"Note={quote(label[name])}"] if label[name] else []
        lines.append("\t".join(map(str, [*row, place.strand, ".", ";".join(facts)])) + "\n")
    return "".join(lines)
