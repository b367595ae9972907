"""Where RNAs stand on chromosomes, from their names or a BED file. Places count from 0, ends are excluded."""

import re
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd

_NAME = re.compile(r"(?:.*::)?([^:\s]+):(\d+)-(\d+)(?:\(([-+.])\))?")  # of bedtools getfasta, samtools faidx
_RFAM = re.compile(r"(?:.*/)?([^/\s]+)/(\d+)-(\d+)")  # from 1; the minus strand begins at its higher end


class Place(NamedTuple):
    """Of one RNA; `blocks` are its exons, (start, end) in ascending order on either strand."""

    chromosome: str
    strand: str  # + or -, or . if it is not known, which is read as +
    blocks: tuple[tuple[int, int], ...]

    @property
    def positions(self) -> np.ndarray:
        """Of every nucleotide, from the RNA's 5' end on."""
        ascending = np.concatenate([np.arange(*block) for block in self.blocks])
        return ascending[::-1] if self.strand == "-" else ascending


def of_name(name: str, length: int) -> Place | None:
    """The place in a name like chr1:100-200(+) or AB012345.1/200-101; None if it has none of this `length`.

    Tools that write a colon count from 0 or from 1: the length tells which.
    """
    if found := _NAME.fullmatch(name):
        first, end, strand = int(found[2]), int(found[3]), found[4] or "."
        first -= end - first == length - 1
    elif found := _RFAM.fullmatch(name):
        first, end, strand = int(found[2]) - 1, int(found[3]), "+"
        if end <= first:
            first, end, strand = end - 1, first + 1, "-"
    return Place(found[1], strand, ((first, end),)) if found and 0 <= first == end - length else None


def read_bed(file: str | Path) -> dict[str, tuple[int, Place]]:
    """Line and place of every name in a BED file of 4 to 12 columns. ValueError naming line and remedy."""
    found: dict[str, tuple[int, Place]] = {}
    for number, line in enumerate(Path(file).read_text("latin-1").splitlines(), 1):
        if not line.strip() or re.match(r"#|(track|browser)\b", line):
            continue
        try:
            name, place = _place(line.rstrip().split("\t"))
        except (ValueError, IndexError):
            remedy = "write chromosome, start, end, name, score and strand between tabs"
            raise ValueError(f"{file}, line {number} is no place: {line[:60]!r}; {remedy}") from None
        if name in found:
            fault = f"'{name}' has a place in line {found[name][0]}, too"
            raise ValueError(f"{file}, line {number}: {fault}; give every RNA one line")
        found[name] = number, place
    return found


def _place(fields: list[str]) -> tuple[str, Place]:
    """Name and place in a line of BED. ValueError or IndexError if there are none."""
    start, end, strand = int(fields[1]), int(fields[2]), fields[5] if len(fields) > 5 else "."
    blocks = [(start, end)]
    if len(fields) > 11:
        sizes, starts = ([int(size) for size in text.split(",") if size] for text in fields[10:12])
        blocks = [(start + first, start + first + size) for first, size in zip(starts, sizes, strict=True)]
    ends = [at for block in blocks for at in block]
    if not (0 <= start <= ends[0] and ends[-1] <= end and ends == sorted(ends) and strand in "+-."):
        raise ValueError
    return fields[3], Place(fields[0], strand, tuple(blocks))


def places(records: pd.DataFrame, bed: str | Path | None = None) -> list[Place | None]:
    """Every record's place: by its name in a BED file if one is given, else from the name itself.

    Raises ValueError if a place in the file is not as long as its RNA, and if no record is in the file. A
    warning counts names that look like places of another length.
    """
    named = [*zip(records.id, records.sequence.str.len())]
    if bed is None:
        found = [of_name(name, length) for name, length in named]
        unlike = [name for (name, _), place in zip(named, found)
                  if not place and (_NAME.fullmatch(name) or _RFAM.fullmatch(name))]  # fmt: skip
        if unlike:
            said = f"{len(unlike):,} RNAs have names like places, but of other lengths, such as {unlike[0]}"
            warnings.warn(f"{said}: they get no coordinates", stacklevel=3)
        return found
    lines = read_bed(bed)
    if not any(name in lines for name, _ in named):
        raise ValueError(
            f"{bed} has no place of any RNA: its fourth column names them, such as {named[0][0]}"
        )
    for name, length in named:
        if name in lines and (size := len(lines[name][1].positions)) != length:
            fault = f"the place of record '{name}' has {size} nt, the record {length}"
            raise ValueError(f"{bed}, line {lines[name][0]}: {fault}; mend the line or take it out")
    return [lines[name][1] if name in lines else None for name, _ in named]
