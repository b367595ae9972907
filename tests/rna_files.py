"""Small files of RNAs, and what reading them gives."""

from pathlib import Path

import pandas as pd
import pytest

from sae_rna.records.readers import read_records

HAIRPIN = {"id": "one", "sequence": "GGCAAAAGCC", "secondary_structure": "(((....)))"}
KNOTTED = {"id": "two", "sequence": "GGGAACCCAACCCUUGGG", "secondary_structure": "(((..[[[..)))..]]]"}


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text)
    return path


def as_dicts(records: pd.DataFrame) -> list[dict]:
    return records.to_dict("records")


def refusal(path, **arguments) -> str:
    with pytest.raises(ValueError) as caught:
        read_records(path, **arguments)
    return str(caught.value)


def ct(title: str) -> str:
    rows = zip(range(1, 11), "GGCAAAAGCC", [10, 9, 8, 0, 0, 0, 0, 3, 2, 1], strict=True)
    return f"10 {title}\n" + "".join(f"{i} {base} {i - 1} {i + 1} {j} {i}\n" for i, base, j in rows)
