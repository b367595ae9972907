"""Which records are taken: by length, balanced; and on which side each is: train, selection or heldout."""

import hashlib
import warnings
from bisect import bisect
from collections.abc import Iterable
from itertools import accumulate

import numpy as np
import pandas as pd

from sae_rna.records.checks import check_columns, how_many

SPLITS = {"train": 0.8, "selection": 0.1, "heldout": 0.1}  # shares of families, else of sequences
#: Where features are chosen, and where they are scored: RNAs that the language model never read, of families
#: that it was trained on (if the data say so), and of families that took part in nothing.
SETTINGS = {"seen families": ("seen-selection", "seen-heldout"), "unseen families": ("selection", "heldout")}
EVALUATION_SPLITS = (*SETTINGS["seen families"], *SETTINGS["unseen families"], "natural")
_BOUNDS = [*accumulate(SPLITS.values())][:-1]
#: Other people's names of splits -> ours, where ours is not there already.
_SPLIT_NAMES = {"training": "train", "validation": "selection", "valid": "selection", "val": "selection",
                "dev": "selection", "test": "heldout", "held-out": "heldout"}  # fmt: skip
_FURTHER_SPLITS = ("validation", "natural", *SETTINGS["seen families"])  # that only given splits have
KNOWN_SPLITS = {*SPLITS, *_SPLIT_NAMES, *_FURTHER_SPLITS}
_FEWEST = 5  # families of a type for which the type gets a share of its own in every split


def settings(records: pd.DataFrame) -> dict[str, tuple[str, str]]:
    """Those of `SETTINGS` whose two splits are among the records'."""
    there = set(records.split)
    return {name: splits for name, splits in SETTINGS.items() if there.issuperset(splits)}


def select_length(records: pd.DataFrame, longest: int) -> pd.DataFrame:
    """Records of at most `longest` nucleotides. A warning if any are skipped, a ValueError if all are."""
    long, count = records.sequence.str.len() > longest, f"{len(records):,} records are longer than"
    if long.all():
        raise ValueError(f"all {count} the {longest} nt that can be read; give shorter ones")
    if long.any():
        warnings.warn(f"{long.sum():,} of {count} {longest} nt and are skipped", stacklevel=2)
    return records[~long].reset_index(drop=True)


def balanced_sample(records: pd.DataFrame, by: str | list[str], per_group, seed: int) -> pd.DataFrame:
    """At most `per_group` records of every value of the column(s) `by`, in the order of `records`.

    `seed` and the ids alone decide which ones; those without a value of `by` are left out. `per_group` is a
    number, or one for each record. Raises ValueError for a missing column and for a group of less than one.
    """
    by = [by] if isinstance(by, str) else by
    check_columns(records, by, "the table of records", "balance by one of these")
    if np.any(np.less(per_group, 1)):
        raise ValueError(f"{np.min(per_group)} records of every {by[-1]} are impossible; ask for 1 or more")
    draws = records.id.map(lambda name: uniform(seed, name))
    place = places(draws, [records[column] for column in by])
    return records[place <= per_group].reset_index(drop=True)


def places(draws: pd.Series, groups: list[pd.Series]) -> pd.Series:
    """Place of every record in its group by its draw, from 1; NaN without a group. Samples take the first."""
    return draws.groupby(groups).rank(method="first")


def largest_sizes(split: pd.Series, group: pd.Series, per_train: int, per_split: int) -> pd.Series:
    """Most records of each record's group in a sample: `per_train`, or the group's share of `per_split`."""
    share = per_split // group.groupby(split).transform("nunique")
    return share.clip(lower=1).where(~split.str.lower().isin(["train", "training"]), per_train)


def assign_splits(records: pd.DataFrame, seed: int) -> pd.DataFrame:
    """`records` with the column `split`: train, selection or heldout in the shares of `SPLITS`.

    ``records.attrs["split_by"]`` says which way was taken:
    - ``"given"``: the records have all three (else all are made anew, with a warning); validation is read as
      selection and test as heldout where there is none. A warning says if held-out families stand elsewhere.
    - ``"family"``: no family is on two sides. Shares are of families, within every type of five families or
      more; families of rarer types are split together. A record of no known family is one of its own.
    - ``"sequence"``: fewer than three families are known. Identical sequences are on one side, homologues
      perhaps not. A record keeps its side when others are added (unless a side would be empty).

    Raises ValueError for an unknown name of a split, and for fewer than three distinct sequences.
    """
    split, split_by = _given_splits(records) if "split" in records else None, "given"
    if split is None:
        split_by = "family" if "family" in records and records.family.nunique() >= 3 else "sequence"
        units, sides = (_sides_of_families if split_by == "family" else _sides_of_sequences)(records, seed)
        if len(set(sides.values())) < len(SPLITS):
            sides = _deal(sides, seed)
        split = units.map(sides)
    records = records.assign(split=split)
    records.attrs["split_by"] = split_by
    return records


def _given_splits(records: pd.DataFrame) -> pd.Series | None:
    """Our name of every record's split; None, with a warning, if there are not all three."""
    named = records.split.str.lower()
    named = named.replace({old: new for old, new in _SPLIT_NAMES.items() if new not in set(named)})
    strange = ~named.isin([*SPLITS, *_FURTHER_SPLITS])
    if strange.any():
        first, known = records[strange].iloc[0], ", ".join(SPLITS)
        given = "no split" if pd.isna(first.split) else f"the split '{first.split}'"
        fault = f"record '{first.id}' has {given}{how_many(strange)}"
        raise ValueError(f"{fault}; use {known}, or leave the column split out to have it made")
    if absent := [split for split in SPLITS if split not in set(named)]:
        sets = " and no ".join(absent)
        warnings.warn(f"the given splits have no {sets} set: the records are split anew", stacklevel=3)
        return None
    family = records.get("family", pd.Series(index=records.index))
    heldout = set(family[named == "heldout"].dropna())
    if shared := heldout & set(family[named.isin(["train", "selection"])]):
        which = f"{len(shared):,} of {len(heldout):,} families of the given held-out split"
        where = "in train or selection too: held-out scores are not of unseen families"
        warnings.warn(f"{which} stand {where}", stacklevel=3)
    return named


def _sides_of_sequences(records: pd.DataFrame, seed: int) -> tuple[pd.Series, dict[str, str]]:
    """The sequence of every record, and the split of every sequence."""
    sequences = records.sequence.unique()
    if len(sequences) < 3:
        raise ValueError(f"{len(sequences)} distinct sequences cannot be split; give three or more")
    return records.sequence, {sequence: side(seed, sequence) for sequence in sequences}


def _sides_of_families(records: pd.DataFrame, seed: int) -> tuple[pd.Series, dict[str, str]]:
    """The family of every record, and the split of every family."""
    family = records.family.fillna("sequence " + records.sequence)
    rna_type = records["type"].fillna("") if "type" in records else pd.Series("", records.index)
    strata = rna_type.groupby(family).min()  # one type per family, whatever the order of the records
    strata = strata.where(strata.map(strata.value_counts()) >= _FEWEST, "")
    sides: dict[str, str] = {}
    for names in strata.groupby(strata).groups.values():
        sides |= _deal(names, seed) if len(names) >= _FEWEST else dict.fromkeys(names, "train")
    return family, sides


def _deal(names: Iterable[str], seed: int) -> dict[str, str]:
    """Every name's split, at random in the shares of `SPLITS`; at least one selection and one held-out."""
    order = sorted(names, key=lambda name: uniform(seed, name))
    selection, heldout = (max(1, round(SPLITS[split] * len(order))) for split in ("selection", "heldout"))
    sides = np.repeat([*SPLITS], [len(order) - selection - heldout, selection, heldout]).tolist()
    return dict(zip(order, sides, strict=True))


def side(seed: int, text: str) -> str:
    """The split that a sequence, or a family of a stream, has by itself, whatever else there is."""
    return [*SPLITS][bisect(_BOUNDS, uniform(seed, text))]


def uniform(seed: int, text: str) -> float:
    """A number in [0, 1) that depends on `seed` and `text` alone, on every machine and in every version."""
    return int.from_bytes(hashlib.blake2b(f"{seed}/{text}".encode(), digest_size=6).digest()) / 2**48
