"""Contacts that a masked language model knows: how a base at one position changes what it expects elsewhere.

Shapes: L positions of one RNA, A bases at the position that is substituted, B bases expected at the other.
"""

import numpy as np
import torch

from sae_rna.extraction.language_model import LanguageModel
from sae_rna.records.composition import encode_bases
from sae_rna.records.structure import pair_table

SEPARATION = 4  # nucleotides from one base of a pair to the other, at least
BATCH_TOKENS = 8192  # tokens of mutants that are read at a time


@torch.inference_mode()
def substituted_logits(model: LanguageModel, sequence: str) -> np.ndarray:
    """Logits of the bases at every position with each base in turn at every other, float32 [L, A, L, B].

    One pass for each of 3 L mutants and one for the sequence itself, nothing masked. `model` must have been
    loaded with its head. Raises ValueError for letters other than A, C, G and U.
    """
    codes_L, length = encode_bases([sequence])[0], len(sequence)
    if (codes_L < 0).any():
        place = int(np.argmax(codes_L < 0))
        fault = f"'{sequence[place]}' at position {place + 1} of the sequence is no base"
        raise ValueError(f"{fault}: contacts are read from A, C, G and U; leave this RNA out")
    (tokens,) = model.tokenize([sequence])["input_ids"]
    site, base = np.nonzero(codes_L[:, None] != np.arange(4))
    mutants = tokens.repeat(len(site) + 1, 1)  # the last one is the sequence as it is
    mutants[torch.arange(len(site)), model.first + torch.as_tensor(site)] = model.base_ids[base]
    columns, read = slice(model.first, model.first + length), list[torch.Tensor]()
    for rows in mutants.split(max(1, BATCH_TOKENS // len(tokens))):
        logits = model.model(input_ids=rows, attention_mask=torch.ones_like(rows)).logits
        read.append(logits[:, columns, model.base_ids].float().cpu())
    logits_NLB = torch.cat(read).numpy()
    logits_LALB = np.broadcast_to(logits_NLB[-1], (length, 4, length, 4)).copy()
    logits_LALB[site, base] = logits_NLB[:-1]
    return logits_LALB


def jacobian_contacts(logits_LALB: np.ndarray) -> np.ndarray:
    """Contact scores [L, L] of the categorical Jacobian (Zhang et al. 2024, PNAS 121:e2406285121).

    Logits centred over both letters and made symmetric, their norm over letters less the average product of
    its rows (Dunn, Wahl & Gloor 2008, Bioinformatics 24:333). All 0 for a model that expects always the same.
    """
    centred = logits_LALB - logits_LALB.mean(1, keepdims=True)
    centred -= centred.mean(3, keepdims=True)
    norm = np.sqrt((((centred + centred.transpose(2, 3, 0, 1)) / 2) ** 2).sum((1, 3)))
    np.fill_diagonal(norm, 0.0)
    total = norm.sum(0)
    return norm - np.outer(total, total) / max(total.sum(), np.finfo(np.float32).tiny)


def dependencies(logits_LALB: np.ndarray, sequence: str) -> np.ndarray:
    """Nucleotide dependencies [L, L] (Tomaz da Silva et al. 2025, doi:10.1038/s41588-025-02347-3).

    In row i and column j the largest change of the log2 odds of any base at j by any substitution at i; 0 in
    the diagonal, since what is read at the substituted base itself is no dependency.
    """
    others = torch.from_numpy(logits_LALB)[..., [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]]
    odds_LALB = (logits_LALB - others.logsumexp(-1).numpy()) / np.log(2)
    own_LB = odds_LALB[0, encode_bases([sequence])[0][0]]
    change_LL = np.abs(odds_LALB - own_LB).max(axis=(1, 3))
    np.fill_diagonal(change_LL, 0.0)
    return change_LL


def contact_scores(model: LanguageModel, sequence: str) -> dict[str, np.ndarray]:
    """Symmetric scores [L, L] of both methods by name: of `dependencies` the mean of both directions."""
    logits_LALB = substituted_logits(model, sequence)
    change_LL = dependencies(logits_LALB, sequence)
    return {"jacobian": jacobian_contacts(logits_LALB), "dependency": (change_LL + change_LL.T) / 2}


def contact_precision(contacts_LL: np.ndarray, structure: str) -> float:
    """Share of true pairs among as many top contacts, `SEPARATION` apart or more, as the structure has
    pairs."""
    partner = pair_table(structure)
    i, j = np.triu_indices(len(structure), SEPARATION)
    count = (partner > np.arange(len(partner))).sum()
    top = np.argsort(-contacts_LL[i, j], kind="stable")[:count]
    return float((partner[i[top]] == j[top]).mean())


def chance_precision(structure: str) -> float:
    """`contact_precision` to expect of contacts drawn at random: pairs as a share of all that are asked."""
    partner = pair_table(structure)
    i, j = np.triu_indices(len(structure), SEPARATION)
    return float((partner[i] == j).mean())
