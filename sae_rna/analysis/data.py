"""Page 01: which RNAs are studied, and how two programs name their structural elements."""

import numpy as np
import pandas as pd
from multimolecule.utils.rna.secondary_structure import RnaSecondaryStructureTopology, annotate_structure

from sae_rna.records.structure import ELEMENTS


def structure_source(records: pd.DataFrame) -> str:
    """Where structures come from, for captions: "known" or such as "predicted (ViennaRNA 2.7.0, MFE)"."""
    if "structure_source" not in records:
        return "known"
    return ", ".join(sorted(records.structure_source.fillna("known").unique()))


def in_settings(words: dict) -> str:
    """What is said of each setting, for captions: "0.81 in seen families and 0.74 in unseen families"."""
    return " and ".join(f"{word} in {setting}" for setting, word in words.items())


def record_sets(sets: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """tab-data: a row for every split of each set of records, with counts, lengths and the share in stems."""
    rows = []
    for use, records in sets.items():
        for split in ("train", "selection", "heldout", "natural"):
            if (records.split == split).any():
                rows.append({"use": use, "split": split} | _facts(records[records.split == split]))
    return pd.DataFrame(rows).astype({"families": "Int64", "types": "Int64"})


def _facts(records: pd.DataFrame) -> dict:
    element, lengths = "".join(records.get("element", [])), records.sequence.str.len()
    families, types = (records[name].nunique() if name in records else pd.NA for name in ("family", "type"))
    facts = {"RNAs": len(records), "families": families, "types": types, "nucleotides": int(lengths.sum())}
    facts |= {"median length": int(lengths.median())}
    if not element:
        return facts | {"structures": "–", "in stems": np.nan}
    return facts | {"structures": structure_source(records), "in stems": element.count("S") / len(element)}


def lengths(records: pd.DataFrame) -> pd.DataFrame:
    """The table of fig-lengths: group (the split), length in nucleotides, records (count)."""
    counts = records.groupby([records.split.rename("group"), records.sequence.str.len().rename("length")])
    return counts.size().rename("records").reset_index()


def count_letters(records: pd.DataFrame) -> pd.DataFrame:
    """How many nucleotides we call `element` and bpRNA calls `bprna`, for every pair of letters there is.

    bpRNA's letters are the data's own (`structural_annotation`) or those of multimolecule's bpRNA rules.
    Where some records have the data's own, only these are compared.
    """
    if "structural_annotation" in records and records.structural_annotation.notna().any():
        records = records.dropna(subset="structural_annotation")
        theirs = "".join(records.structural_annotation)
    else:
        structures = map(RnaSecondaryStructureTopology, records.sequence, records.secondary_structure)
        theirs = "".join(map(annotate_structure, structures))
    letters = pd.DataFrame({"element": list("".join(records.element)), "bprna": list(theirs)})
    return letters.value_counts(sort=False).rename("nucleotides").reset_index()


def element_agreement(counts: pd.DataFrame) -> pd.DataFrame:
    """tab-element-agreement: of each element's nucleotides (rows) the share that bpRNA calls each letter."""
    cross = counts.pivot(index="element", columns="bprna", values="nucleotides").fillna(0)
    shares = cross.div(cross.sum(axis=1), axis=0).reindex([name for name in ELEMENTS if name in cross.index])
    return shares.rename(lambda letter: f"{letter} ({ELEMENTS[letter]})").reset_index()


def agreement(counts: pd.DataFrame) -> dict:
    """Nucleotides that were compared, and the share of them that both programs call by the same letter."""
    same = counts.nucleotides[counts.element == counts.bprna].sum()
    return {"nucleotides": counts.nucleotides.sum(), "agreement": same / counts.nucleotides.sum()}


def separation(training: pd.DataFrame, evaluated: pd.DataFrame) -> dict:
    """How many heldout families (or sequences, if none are known) were trained or selected on (shared)."""
    known = "family" in training and "family" in evaluated
    column, unit = ("family", "families") if known else ("sequence", "sequences")
    heldout = set(evaluated.loc[evaluated.split == "heldout", column].dropna())
    seen = {*training[column], *evaluated.loc[evaluated.split == "selection", column]}
    return {"unit": unit, "heldout": len(heldout), "shared": len(heldout & seen)}
