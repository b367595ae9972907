"""Covariance models: sequences drawn from them, and the exact distribution of every base that they draw.

Infernal's cmemit draws aligned sequences; `base_distributions` reads the emission probabilities from the
model's text, so that P(base | base of its partner) is known exactly for every consensus column.
"""

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sae_rna.records.structure import CANONICAL_PAIRS, split_pseudoknots

BASES = "ACGU"
#: Rows of a block of distributions: given that the partner is A, C, G or U, and given nothing.
BLOCK = 5
CANONICAL = np.array([[five + three in CANONICAL_PAIRS for three in BASES] for five in BASES])
_CODES = np.full(256, -1, np.int8)
_CODES[np.frombuffer(b"ACGUTacgut", np.uint8)] = [0, 1, 2, 3, 3] * 2
_GAPS = np.frombuffer(b"-.~_", np.uint8)


@dataclass
class Alignment:
    """Aligned sequences with their consensus structure."""

    names: list[str]
    codes: np.ndarray
    """Index into `BASES`, -1 at gaps and -2 at any other letter. Shape [sequences, columns], int8."""
    structure: str
    """Consensus structure in WUSS notation, '.' for everything that is no bracket or letter."""
    position: np.ndarray
    """Consensus position of every column, counted from 0; -1 in insertions."""

    def rows(self) -> list[str]:
        """The aligned sequences as text, N where the letter is not one of `BASES`."""
        return ["".join(row) for row in np.array(list(BASES + "N-"))[self.codes]]

    def sequences(self) -> list[str]:
        """The sequences without gaps."""
        return [row.replace("-", "") for row in self.rows()]

    def partner(self) -> np.ndarray:
        """Column that each column pairs with in the nested consensus, -1 unpaired. Shape [columns]."""
        return split_pseudoknots(self.structure)[0]

    def subset(self, rows: np.ndarray) -> "Alignment":
        """Some of the sequences."""
        return replace(self, names=[self.names[row] for row in rows], codes=self.codes[rows])

    def of_length(self, shortest: int, longest: int) -> "Alignment":
        """The sequences of an allowed length."""
        length = (self.codes != -1).sum(1)
        return self.subset(np.nonzero((length >= shortest) & (length <= longest))[0])


def read_alignments(text: str) -> list[Alignment]:
    """Alignments of a Stockholm text, interleaved or not."""
    alignments = []
    for part in re.split(r"^//\s*$", text, flags=re.M):
        rows: dict[str, list[str]] = {}
        notes: dict[str, str] = {"SS_cons": "", "RF": ""}
        for line in part.splitlines():
            if line.startswith("#=GC"):
                _, name, letters = line.split()
                notes[name] = notes.get(name, "") + letters
            elif line and line[0] not in "#/":
                name, letters = line.split()
                rows.setdefault(name, []).append(letters)
        if rows:
            letters = np.array([np.frombuffer("".join(row).encode(), np.uint8) for row in rows.values()])
            codes = _CODES[letters]
            codes[(codes < 0) & ~np.isin(letters, _GAPS)] = -2
            is_consensus = np.array([letter != "." for letter in notes["RF"] or notes["SS_cons"]])
            position = np.where(is_consensus, np.cumsum(is_consensus) - 1, -1)
            structure = re.sub(r"[^][(){}<>A-Za-z]", ".", notes["SS_cons"])
            alignments.append(Alignment(list(rows), codes, structure, position))
    return alignments


def write_alignment(path: Path, alignment: Alignment, name: str):
    """Stockholm file, one line a sequence, as cmbuild reads it."""
    lines = ["# STOCKHOLM 1.0", f"#=GF ID {name}"]
    lines += [f"{number} {row}" for number, row in enumerate(alignment.rows(), 1)]
    path.write_text("\n".join([*lines, f"#=GC SS_cons {alignment.structure}", "//"]) + "\n")


def emit(models: Path, exponent: float, count: int, seed: int, *options: str) -> list[Alignment]:
    """`count` sequences of every model of the file, all probabilities raised to `exponent` and normalised."""
    command = [
        "cmemit",
        "-a",
        "--outformat",
        "Pfam",
        "--exp",
        str(exponent),
        "-N",
        str(count),
        "--seed",
        str(seed),
    ]
    command += [*options, models]
    return read_alignments(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def emit_from(model: str, exponent: float, count: int, seed: int, folder: Path) -> Alignment:
    """Sequences of one model, given as text, drawn from its states alone even where it has no pairs."""
    path = folder / "emitting.cm"
    path.write_text(model)
    return emit(path, exponent, count, seed, "--nohmmonly")[0]


def build_model(alignment: Alignment, name: str, folder: Path) -> str:
    """Text of the covariance model of an alignment (cmbuild with its defaults)."""
    write_alignment(folder / f"{name}.sto", alignment, name)
    command = ["cmbuild", "-F", folder / f"{name}.cm", folder / f"{name}.sto"]
    subprocess.run(command, check=True, capture_output=True)
    return (folder / f"{name}.cm").read_text()


@dataclass
class BaseDistributions:
    """Emission probabilities of one model, a value for every consensus position."""

    alone: np.ndarray
    """P(base) where the position is unpaired or its partner is deleted. Shape [positions, 4]."""
    joint: np.ndarray
    """P(base, partner's base) where both are there; zeros at unpaired positions. Shape [positions, 4, 4]."""
    paired: np.ndarray
    """Whether the position has a partner. Shape [positions]."""

    def blocks(self, exponent: float) -> np.ndarray:
        """Rows [positions, 2, `BLOCK`, 4] of P(base | ...): [:, 0] with the partner there, [:, 1] without.

        Row 0 to 3 of a block: the partner is A, C, G, U; row 4: it is hidden. Unpaired: all are the same.
        """
        alone = self.alone**exponent
        alone = np.repeat((alone / alone.sum(1, keepdims=True))[:, None], BLOCK, 1)
        joint = np.where(self.paired[:, None, None], self.joint, 1 / 16) ** exponent
        joint /= joint.sum((1, 2), keepdims=True)
        given = np.swapaxes(joint / joint.sum(1, keepdims=True), 1, 2)
        with_partner = np.concatenate([given, joint.sum(2)[:, None]], 1)
        return np.stack([np.where(self.paired[:, None, None], with_partner, alone), alone], 1).astype(
            np.float32
        )


def base_distributions(model: str) -> BaseDistributions:
    """The emissions in a covariance model's text (INFERNAL1/a). That insertions are uniform is checked."""
    body = model[model.index("\nCM\n") : model.index("\n//")]
    alone, joint, node = {}, {}, None
    for line in body.splitlines()[2:]:
        if opened := re.search(r"\[ (\w+) +\d+ \] +(\S+) +(\S+)", line):
            node = opened.groups()
            continue
        state, *fields = line.split()
        if node[0] == "MATP" and state == "MP":
            left, right = int(node[1]), int(node[2])
            pair = 2.0 ** np.array(fields[-16:], float).reshape(4, 4) / 16
            joint[left], joint[right] = pair, pair.T
        elif state in ("ML", "MR"):
            alone[int(node[1 if state == "ML" else 2])] = 2.0 ** np.array(fields[-4:], float) / 4
        elif state in ("IL", "IR") and np.any(np.array(fields[-4:], float)):
            raise ValueError(f"an insertion that is not uniform: {line}")
    columns = sorted(alone)
    normalised = lambda p: p / p.sum()  # noqa: E731
    return BaseDistributions(
        np.array([normalised(alone[column]) for column in columns]),
        np.array([normalised(joint[column]) if column in joint else np.zeros((4, 4)) for column in columns]),
        np.array([column in joint for column in columns]),
    )
