"""The corpus that the language model is trained on: one safetensors file, for the build alone."""

import json
from pathlib import Path

import numpy as np
from covariance import BLOCK, CANONICAL, Alignment, base_distributions
from families import LENGTH, SEED, Family
from safetensors.numpy import save_file


class Corpus:
    """Training sequences with the exact distribution of every drawn base.

    Tensors, N nucleotides and S sequences:

    bases [N]
        Index into ACGU, all sequences one after the other.
    start [S + 1]
        Where each sequence starts.
    partner [N]
        Index within the sequence of the partner in the projected structure (canonical pairs), -1 unpaired.
    cm_partner [N]
        The same for the covariance model's pair, whatever its bases; -1 none.
    target [N]
        First of the five rows of `targets` for this position. Row target + c is P(base) given the base c of
        the nucleotide at cm_partner (c = 0 to 3), row target + 4 is P(base) with that one hidden or absent.
        -1 in natural sequences, whose distribution nobody knows.
    targets [R, 4]
        Distributions over A, C, G, U.
    family, type, noise, natural [S]
        Numbers in the metadata's lists `families` and `types`; cmemit's exponent, 0 if natural; 1 if natural.
    """

    def __init__(self, families: list[Family]):
        self.families = [family.name for family in families]
        self.types = sorted({family.type for family in families})
        self.parts: dict[str, list[np.ndarray]] = {}
        self.targets = [np.full((BLOCK, 4), 0.25, np.float32)]  # of insertions
        self.rng = np.random.default_rng([SEED, 5])

    def add(self, family: Family, exponent: float, model: str, alignment: Alignment):
        """Add sequences emitted from `model` at `exponent`, or natural ones (`model` empty).

        Sequences that are too long lose their 5' or 3' end; those that are too short are left out.
        """
        codes, is_base = alignment.codes, alignment.codes >= 0
        length = is_base.sum(1, keepdims=True)
        rank = np.cumsum(is_base, 1) - 1
        first = np.maximum(length - LENGTH[1], 0) * (self.rng.random(length.shape) < 0.5)
        kept = is_base & (length >= LENGTH[0]) & (rank >= first) & (rank < first + LENGTH[1])
        mate = alignment.partner()
        has_mate = (mate >= 0) & is_base[:, mate]
        cm_partner = np.where(has_mate & kept[:, mate], (rank - first)[:, mate], -1)
        is_pair = CANONICAL[codes, codes[:, mate]] & (np.abs(cm_partner - (rank - first)) > 3)
        target = np.full(codes.shape, -1)
        if model:
            blocks = base_distributions(model).blocks(exponent)
            assert len(blocks) == alignment.position.max() + 1
            block = sum(map(len, self.targets)) + BLOCK * (2 * alignment.position + ~has_mate)
            target = np.where(alignment.position >= 0, block, 0)
            self.targets.append(blocks.reshape(-1, 4))
        lengths = kept.sum(1)[kept.any(1)]
        for name, values, kind in (
            ("bases", codes[kept], np.uint8),
            ("partner", np.where(is_pair, cm_partner, -1)[kept], np.int16),
            ("cm_partner", cm_partner[kept], np.int16),
            ("target", target[kept], np.int32),
            ("length", lengths, np.int64),
            ("family", np.full(len(lengths), self.families.index(family.name)), np.int16),
            ("type", np.full(len(lengths), self.types.index(family.type)), np.int16),
            ("noise", np.full(len(lengths), exponent), np.float32),
            ("natural", np.full(len(lengths), not model), np.uint8),
        ):
            self.parts.setdefault(name, []).append(values.astype(kind))

    def save(self, path: Path) -> dict[str, int]:
        """Write the corpus whole or not at all; returns how much it is."""
        tensors = {name: np.concatenate(values) for name, values in self.parts.items()}
        tensors["start"] = np.concatenate([[0], np.cumsum(tensors.pop("length"))])
        tensors["targets"] = np.concatenate(self.targets)
        path.parent.mkdir(exist_ok=True)
        metadata = {"families": json.dumps(self.families), "types": json.dumps(self.types)}
        save_file(tensors, path.with_suffix(".tmp"), metadata)
        path.with_suffix(".tmp").rename(path)
        return {
            "families": len(self.families),
            "sequences": len(tensors["family"]),
            "natural": int(tensors["natural"].sum()),
            "nucleotides": len(tensors["bases"]),
        }
