"""How the embedded data are made: near-identical sequences are found, covariance models are read exactly."""

import json
import shutil

import numpy as np
import pytest
from build_records import further_families
from corpus import Corpus
from covariance import BASES, BaseDistributions, base_distributions, build_model, emit_from, read_alignments
from families import Family, draw_broken_pairs
from safetensors import safe_open
from similarity import clusters, near_pairs

TOY = """# STOCKHOLM 1.0
one          GGGACuGAAAGU.CCCA
two          GCGAC.GAAAGUaCGCA
three        GGG-C.UUCGG-.CCCA
#=GC SS_cons <<<<<.____>>.>>>:
#=GC RF      GGGAC.GAAAGU.CCCA
//
"""


def edit_distance(a: str, b: str) -> int:
    """The textbook's recursion, without a band."""
    row = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        row, above = [i], row
        for j, other in enumerate(b, 1):
            row.append(min(row[-1] + 1, above[j] + 1, above[j - 1] + (letter != other)))
    return row[-1]


def test_near_pairs_are_those_of_the_full_edit_distance():
    rng = np.random.default_rng(0)
    sequences = []
    for _ in range(12):
        ancestor = rng.integers(4, size=rng.integers(20, 60))
        for edits in (0, 1, 2, 3, 5, 8):
            copy = list(ancestor)
            for _ in range(edits):
                place = int(rng.integers(len(copy)))
                kind = rng.integers(3)
                if kind == 0:
                    copy[place] = int(rng.integers(4))
                elif kind == 1:
                    copy.insert(place, int(rng.integers(4)))
                else:
                    copy.pop(place)
            sequences.append("".join(BASES[code] for code in copy))
    longer = [[max(len(a), len(b)) for b in sequences] for a in sequences]
    distance = np.array([[edit_distance(a, b) for b in sequences] for a in sequences])
    expected = np.argwhere(distance <= np.floor(0.1 * np.array(longer) + 1e-9))
    assert 72 < len(expected) < 72 * 7
    assert np.array_equal(near_pairs(sequences, sequences), expected)


def test_no_near_pair_is_in_two_clusters():
    chain = ["A" * 20, "A" * 18 + "CC", "A" * 16 + "CCCC", "G" * 20]
    assert list(clusters(chain)) == [0, 0, 0, 1]  # the ends of the chain are 80 % identical


def test_an_alignment_is_read_with_its_insertions_and_pairs():
    alignment = read_alignments(TOY)[0]
    assert alignment.sequences() == ["GGGACUGAAAGUCCCA", "GCGACGAAAGUACGCA", "GGGCUUCGGCCCA"]
    assert list(np.nonzero(alignment.position < 0)[0]) == [5, 12] and alignment.position.max() == 14
    assert list(alignment.partner()[:5]) == [15, 14, 13, 11, 10]
    assert alignment.of_length(14, 16).names == ["one", "two"]


def test_conditional_distributions_follow_from_the_joint_one():
    joint = np.zeros((2, 4, 4))
    joint[0, 2, 1], joint[0, 2, 3], joint[0, 0, 3], joint[0, 1, 0] = 0.5, 0.25, 0.2, 0.05
    joint[0] += 1e-9
    joint[1] = joint[0].T
    known = BaseDistributions(np.full((2, 4), 0.25), joint, np.array([True, True]))
    blocks = known.blocks(1.0)
    assert blocks.shape == (2, 2, 5, 4) and np.allclose(blocks.sum(-1), 1)
    assert np.allclose(
        blocks[0, 0, 3], [0.2 / 0.45, 0, 0.25 / 0.45, 0], atol=1e-6
    )  # the partner is U: A or G
    assert np.allclose(blocks[0, 0, 4], [0.2, 0.05, 0.75, 0], atol=1e-6)
    assert np.allclose(
        blocks[1, 0, 2], [0, 0.5 / 0.75, 0, 0.25 / 0.75], atol=1e-6
    )  # the partner is G: C or U
    assert np.allclose(blocks[:, 1], 0.25)
    sharper = known.blocks(2.0)
    assert np.allclose(
        sharper[0, 0, 4, 2], (0.5**2 + 0.25**2) / (0.5**2 + 0.25**2 + 0.2**2 + 0.05**2), atol=1e-6
    )


def test_broken_pairs_are_drawn_again_and_others_are_left():
    alignment = read_alignments(TOY)[0]
    alignment.codes[0, 0], alignment.codes[0, 15] = 0, 0  # A-A
    before = alignment.codes.copy()
    draw_broken_pairs(alignment, np.full((alignment.codes.shape[1], 4), 0.25))
    pair = BASES[alignment.codes[0, 0]] + BASES[alignment.codes[0, 15]]
    assert pair in {"AU", "UA", "GC", "CG", "GU", "UG"}
    changed = np.argwhere(before != alignment.codes)
    assert {tuple(place) for place in changed} <= {(0, 0), (0, 15)}


def load(path):
    with safe_open(path, "np") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def test_the_corpus_crops_what_is_too_long_and_keeps_what_pairs_inside(tmp_path):
    text = f"# STOCKHOLM 1.0\nlong {'G' * 120}{'A' * 60}{'C' * 120}\nshort {'-' * 290}{'C' * 10}\n"
    alignment = read_alignments(text + f"#=GC SS_cons {'<' * 120}{'_' * 60}{'>' * 120}\n//\n")[0]
    family = Family("long", "", "SRP_RNA", "Long", "train")
    corpus = Corpus([family])
    corpus.add(family, 0.0, "", alignment)
    corpus.save(tmp_path / "corpus.safetensors")
    tensors, metadata = load(tmp_path / "corpus.safetensors")
    assert json.loads(metadata["families"]) == ["long"] and list(tensors["start"]) == [0, 256]
    assert (tensors["target"] == -1).all() and tensors["natural"].all() and (tensors["noise"] == 0).all()
    partner = tensors["partner"]
    here = np.nonzero(partner >= 0)[0]
    assert len(here) == 2 * (120 - 44) and np.array_equal(partner[partner[here]], here)
    assert set(zip(tensors["bases"][here], tensors["bases"][partner[here]])) == {(2, 1), (1, 2)}


@pytest.mark.skipif(not shutil.which("cmemit"), reason="needs Infernal: apt install infernal")
@pytest.mark.parametrize("exponent", [1.4, 3.0])
def test_emitted_bases_have_the_distribution_that_the_corpus_names(tmp_path, exponent):
    model = build_model(read_alignments(TOY)[0], "toy", tmp_path)
    assert len(base_distributions(model).alone) == 15
    family = Family("toy", "", "cis-reg", "Toy", "train")
    corpus = Corpus([family])
    drawn = emit_from(model, exponent, 20_000, 1, tmp_path)
    drawn.codes = np.hstack([drawn.codes, np.zeros((20_000, 10), np.int8)])  # long enough to be kept
    drawn.structure += "." * 10
    drawn.position = np.concatenate([drawn.position, np.full(10, -1)])
    corpus.add(family, exponent, model, drawn)
    corpus.save(tmp_path / "corpus.safetensors")
    tensors, _ = load(tmp_path / "corpus.safetensors")
    assert np.allclose(tensors["targets"].sum(1), 1, atol=1e-5)
    start = np.repeat(tensors["start"][:-1], np.diff(tensors["start"]))
    partner, cm_partner, bases = tensors["partner"], tensors["cm_partner"], tensors["bases"]
    assert np.array_equal(partner[partner >= 0], cm_partner[partner >= 0])
    given = np.where(cm_partner >= 0, bases[start + np.maximum(cm_partner, 0)], 4)
    compared = 0
    for row in np.unique(tensors["target"][tensors["target"] > 0]):
        for code in range(5):
            here = (tensors["target"] == row) & (given == code)
            if here.sum() >= 400:
                shares = np.bincount(bases[here], minlength=4) / here.sum()
                assert np.abs(shares - tensors["targets"][row + code]).max() < 2.5 / np.sqrt(here.sum())
                compared += 1
    assert compared >= 15


def test_further_families_are_those_of_the_training_side_that_were_not_chosen():
    def family(name: str, side: str) -> Family:
        return Family(name, "", "sRNA", name, side)

    families = [family("a", "train"), family("b", "train"), family("c", "heldout")]
    (further,) = further_families(families, families[:1])
    assert (further.name, further.type, further.side) == ("b", "further sRNA", "train")
