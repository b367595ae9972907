"""Page 01: which RNAs are studied, and how two programs name their structural elements."""

import numpy as np
import pandas as pd
from multimolecule.utils.rna.secondary_structure import RnaSecondaryStructureTopology, annotate_structure

from sae_rna.records.splits import SETTINGS
from sae_rna.records.structure import ELEMENTS

_USES = {"train": "training of the autoencoders", "validation": "none here (was for the language model)"}
_USES |= {split: f"{use}, {setting}" for setting, splits in SETTINGS.items()
          for split, use in zip(splits, ("choosing features", "scoring them"))}  # fmt: skip
_USES |= {"natural": "scoring on natural RNAs"}
_HEADERS = {"split": "split", "use": "used for", "there": "RNAs in the data", "rnas": "RNAs used"}
_HEADERS |= {"typed": "of known type", "structures": "of known structure", "families": "families"}
_HEADERS |= {"types": "types", "nucleotides": "nucleotides", "in_stems": "share in stems"}


def structure_source(records: pd.DataFrame) -> str:
    """Where structures come from, for captions: "known" or such as "predicted (ViennaRNA 2.7.0, MFE)"."""
    if "structure_source" not in records:
        return "known"
    return ", ".join(sorted(records.structure_source.fillna("known").unique()))


def in_settings(words: dict) -> str:
    """What is said of each setting, for captions: "0.81 in seen families and 0.74 in unseen families"."""
    return " and ".join(f"{word} in {setting}" for setting, word in words.items())


def distinct(*tables: pd.DataFrame) -> pd.DataFrame:
    """All RNAs of the tables, each once: what has the same id and sequence is one RNA."""
    records = pd.concat(tables, ignore_index=True)
    return records.drop_duplicates(["id", "sequence"], ignore_index=True)


def record_sets(there: pd.DataFrame, typed: pd.DataFrame, structures: pd.DataFrame) -> pd.DataFrame:
    """tab-data: a row for every split that the data have, and one for all; no RNA is counted twice in a row.

    there : all `distinct` records of the data
    typed, structures : those of known type, training included, and of known structure that this run uses

    Columns split, use, there (RNAs in the data), rnas (used in this run), typed and structures (of them),
    families, types, nucleotides, median_length (nt) and in_stems (share of the nucleotides of those of known
    structure) of the RNAs used; missing where nothing is known or none are used.
    """
    used, rows = distinct(structures, typed), []
    for split in [*(name for name in _USES if (there.split == name).any()), "all"]:
        tables = [table if split == "all" else table[table.split == split] for table in (there, used)]
        own = [len(table if split == "all" else table[table.split == split]) for table in (typed, structures)]
        row = {"split": split, "use": _USES.get(split, ""), "there": len(tables[0]), "rnas": len(tables[1])}
        rows.append(row | {"typed": own[0], "structures": own[1]} | _facts(tables[1]))
    return pd.DataFrame(rows).astype(dict.fromkeys(["families", "types", "nucleotides"], "Int64"))


def _facts(records: pd.DataFrame) -> dict:
    """What is known of the RNAs of a split."""
    names = {"families": "family", "types": "type"}
    facts = {plural: records[name].nunique() if name in records else pd.NA for plural, name in names.items()}
    lengths = records.sequence.str.len()
    facts |= {"nucleotides": int(lengths.sum()), "median_length": lengths.median()}
    element = "".join(records.element.dropna()) if "element" in records else ""
    facts["in_stems"] = element.count("S") / len(element) if element else np.nan
    nothing = dict.fromkeys(facts, pd.NA) | {"median_length": np.nan, "in_stems": np.nan}
    return facts if len(records) else nothing


def headed(table: pd.DataFrame) -> pd.DataFrame:
    """The columns of `record_sets` that fit into a page, under names for readers."""
    return table[[*_HEADERS]].rename(columns=_HEADERS)


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
    """tab-element-agreement: of each element's nucleotides (rows) the share that bpRNA calls each letter, and
    how many nucleotides these are."""
    cross = counts.pivot(index="element", columns="bprna", values="nucleotides").fillna(0)
    cross = cross.reindex([name for name in ELEMENTS if name in cross.index])
    shares = cross.div(cross.sum(axis=1), axis=0)
    shares.insert(0, "nucleotides", cross.sum(axis=1).astype(int))
    return shares.rename(lambda letter: f"{letter} ({ELEMENTS[letter]})").reset_index()


def in_percent(agreement: pd.DataFrame) -> pd.DataFrame:
    """`element_agreement` as it is shown: shares in percent with two decimals, nothing where they are 0."""
    letters = agreement.columns.drop(["element", "nucleotides"])
    shown = agreement[letters].map(lambda share: f"{share:.2%}" if share else "")
    return agreement[["element", "nucleotides"]].join(shown.add_prefix("bpRNA: "))


def agreement(counts: pd.DataFrame) -> dict:
    """Nucleotides that were compared, and the share of them that both programs call by the same letter."""
    same = counts.nucleotides[counts.element == counts.bprna].sum()
    return {"nucleotides": counts.nucleotides.sum(), "agreement": same / counts.nucleotides.sum()}


def separation(training: pd.DataFrame, evaluated: pd.DataFrame) -> dict:
    """How many families (or sequences, if none are known) of each setting's scored split were trained or
    selected on: keys unit, heldout and shared of unseen families; seen_rnas and seen_shared, the sequences of
    seen families that are among those trained or selected on; 0 where there are none."""
    known = "family" in training and "family" in evaluated
    column, unit = ("family", "families") if known else ("sequence", "sequences")
    seen, unseen = SETTINGS.values()
    heldout = set(evaluated.loc[evaluated.split == unseen[1], column].dropna())
    learnt = {*training[column], *evaluated.loc[evaluated.split == unseen[0], column]}
    scored = set(evaluated.sequence[evaluated.split == seen[1]])
    read = {*training.sequence, *evaluated.sequence[evaluated.split == seen[0]]}
    facts = {"unit": unit, "heldout": len(heldout), "shared": len(heldout & learnt)}
    return facts | {"seen_rnas": len(scored), "seen_shared": len(scored & read)}
