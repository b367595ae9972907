"""The page that reads a pasted RNA: its script against torch, in chromium, and what it says and draws."""

import csv
import io
import json
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from browser import chromium
from given import Given
from stacks import WITH_K, anywhere

from sae_rna.analysis import atlas, ground_truth, try_rna
from sae_rna.analysis.controls import latents
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import hidden_states
from sae_rna.parameters import ROOT
from sae_rna.records.checks import KNOWN_LETTERS
from sae_rna.records.structure import pair_table, split_pseudoknots
from sae_rna.sae.activations import Autoencoders
from sae_rna.sae.autoencoder import Member

LAYERS = 3, 6  # a block's output, and the state behind the last layer norm
TRNA = "GCGGAUUUAGCUCAGUUGGGAGAGCGCCAGACUGAAGAUCUGGAGGUCCUGUGUUCGAUCCACAGAAUUCGCACCA"
CLOVER = "(((((((..((((........)))).((((.........)))).....(((((.......))))))))))))...."
RANDOM = "".join(np.random.default_rng(0).choice(list("ACGU"), 150))
RNAS = ["G", "ACGU", "GGGAAANCCCRYACGUN", TRNA, RANDOM]
ARCHITECTURES = "relu-l1-matched", "topk", "batchtopk", "jumprelu"  # one for each activation function
HOSTILE = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def model():
    return LanguageModel.load(str(ROOT / "data/rinalmo-nano"), device="cpu")


def autoencoders(architecture: str) -> Autoencoders:
    torch.manual_seed(5)
    members = tuple(Member(layer, 8 if architecture in WITH_K else 0.1) for layer in LAYERS)
    stack = (
        anywhere(architecture, members=members, width=128, latents=64).float().eval().requires_grad_(False)
    )
    if architecture == "batchtopk":
        stack.threshold.fill_(0.7)
    return Autoencoders([list(LAYERS)], [], lambda group: stack)


def rounded(model, of: Autoencoders) -> tuple[LanguageModel, Autoencoders]:
    """Both with matrices in half precision, the encoder's with the standardisation folded into it."""
    read, stack = deepcopy(model.model), deepcopy(of.of_group(list(LAYERS)))
    for weight in read.parameters():
        weight.data = weight.data.half().float() if weight.ndim == 2 else weight.data
    std_M1D = stack.standardise.std[:, :, None]
    stack.encoder_weight.data = (stack.encoder_weight.data / std_M1D).half().float() * std_M1D
    return replace(model, model=read), replace(of, of_group=lambda group: stack)


def table(rows=((3, 5), (3, 41), (6, 5), (6, 63))) -> pd.DataFrame:
    """Features as `named` gives them."""
    facts = {
        "setting": "unseen families",
        "base_auroc": 0.7,
        "null_p95": 0.5,
        "fault": "",
        "verdict": "keeps its name",
    }
    features = pd.DataFrame(rows, columns=["layer", "feature"]).assign(**facts, certain=True, shown=True)
    names = ["stem", "hairpin loop", "bulge", HOSTILE]
    return features.assign(
        concept=names[: len(rows)], threshold=0.1, maximum=[20.0, 5.0, 15.0, 20.0][: len(rows)]
    )


RECORDS = pd.DataFrame([{"id": HOSTILE, "sequence": TRNA, "secondary_structure": CLOVER, "type": "tRNA"}])


def expected(model, of: Autoencoders, sequence: str) -> np.ndarray:
    """Shares of the features of `table` by torch, [J, length]; NaN where there is no A, C, G or U."""
    states_TLD, rows = hidden_states(model, [sequence], LAYERS), []
    for row in table().itertuples():
        values = latents(of[row.layer])(states_TLD[:, LAYERS.index(row.layer)])[:, [row.feature]]
        shares = np.full(len(sequence), np.nan)
        shares[[letter in "ACGU" for letter in sequence]] = values.toarray()[:, 0] / row.maximum
        rows.append(shares)
    return np.stack(rows)


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def opened(browser, tmp_path_factory):
    """Opens a page with a fragment from file://; no page may have complained in the end."""
    errors, folder = [], tmp_path_factory.mktemp("book")
    (folder / "executed").mkdir()
    (folder / "_static").symlink_to(ROOT / "book/assets")

    def open_page(fragment: str, width: int = 1280):
        head = '<!DOCTYPE html><html lang="en"><meta charset="utf-8"><title>page</title>'
        head += '<link rel="stylesheet" href="../_static/book.css"><main class="bd-content">'
        path = folder / "executed/page.html"
        path.write_text(f"{head}{fragment}</main>")
        page = browser.new_page(viewport={"width": width, "height": 800})
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("console", lambda message: errors.append(message.text) if message.type == "error" else None)
        page.goto(path.as_uri())
        page.wait_for_function("document.querySelector('#try-rna p')?.textContent !== undefined")
        return page

    yield open_page
    assert errors == []


@pytest.fixture(scope="module")
def page(model, opened):
    """The page, once the example is read."""
    page = opened(try_rna.fragment(model, autoencoders("relu-l1-matched"), table(), RECORDS))
    page.wait_for_selector(".try-legend")
    return page


def submit(page, sequence: str, structure: str = ""):
    page.fill("#try-sequence", sequence)
    page.fill("#try-structure", structure)
    page.click("button[type=submit]")


LOADED = "TryRna.load(JSON.parse(document.getElementById('try-rna-content').textContent))"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_script_reads_as_torch_does(model, opened, architecture):
    of = autoencoders(architecture)
    page = opened(try_rna.fragment(model, of, table(), RECORDS))
    page.evaluate(f"() => {{ window.model = {LOADED}; }}")
    by_half, fired = rounded(model, of), 0
    for sequence in RNAS:
        text = page.evaluate("rna => JSON.stringify(TryRna.read(model, rna))", sequence)  # NaN becomes null
        found = np.array(json.loads(text), float)
        np.testing.assert_allclose(found, expected(*by_half, sequence), atol=1e-3)
        np.testing.assert_allclose(found, expected(model, of, sequence), atol=2e-2)  # not rounded
        fired += np.nansum(found > 0)
    assert 0.03 < fired / sum(map(len, RNAS)) / 4 < 0.9


def test_the_states_of_all_tokens_are_those_of_torch(model, opened):
    of = autoencoders("relu-l1-matched")
    page = opened(try_rna.fragment(model, of, table(), RECORDS))
    found = page.evaluate(f"rna => Object.values(TryRna.hiddenStates({LOADED}, rna)).map(x => [...x])", TRNA)
    states_TLD = hidden_states(rounded(model, of)[0], [TRNA], LAYERS)
    for values, states_TD in zip(found, states_TLD.transpose(1, 0, 2), strict=True):
        np.testing.assert_allclose(np.reshape(values, (-1, 128))[1:-1], states_TD, atol=1e-3)


def test_the_page_shows_what_the_script_read(page, model):
    shares = expected(*rounded(model, autoencoders("relu-l1-matched")), TRNA)
    submit(page, TRNA, CLOVER)
    with page.expect_download() as download:
        page.click("text=Download the values")
    rows = list(csv.reader(io.StringIO(download.value.path().read_text())))
    assert rows[0] == ["position", "base", "structure", "stem (layer 3 feature 5)", *rows[0][4:]]
    assert [row[:3] for row in rows[1:]] == [[str(n + 1), *of] for n, of in enumerate(zip(TRNA, CLOVER))]
    np.testing.assert_allclose(np.array([row[3:] for row in rows[1:]], float).T, shares, atol=1.1e-3)
    assert page.inner_text(".try-letters").replace("\n", "").count("G") == TRNA.count("G")
    drawn = page.eval_on_selector_all(
        ".try-drawing circle", "all => all.map(c => +c.style.getPropertyValue('--share'))"
    )
    np.testing.assert_allclose(drawn, np.minimum(shares[0], 1), atol=1.6e-3)
    page.focus("input[type=radio]")
    page.keyboard.press("ArrowDown")  # the next feature, without a mouse
    drawn = page.eval_on_selector_all(
        ".try-letters .try-base", "all => all.map(c => +c.style.getPropertyValue('--share'))"
    )
    np.testing.assert_allclose(drawn, np.minimum(shares[1], 1), atol=1.6e-3)
    assert "hairpin loop (layer 3 feature 41)" in page.get_attribute(".try-letters", "aria-label")
    assert len(page.query_selector_all("tbody tr")) == len(TRNA)
    pages = atlas.addresses(autoencoders("relu-l1-matched"), table())
    links = page.eval_on_selector_all("fieldset a", "all => all.map(a => a.getAttribute('href'))")
    assert links == [page for page in pages if page] and links[0].endswith("-L3-5.html")


def test_texts_stay_texts(page):
    assert HOSTILE in page.inner_text("fieldset")  # the name of a feature
    submit(page, f">{HOSTILE}\nACGU")
    assert HOSTILE in page.inner_text("[role=status]")
    submit(page, HOSTILE)
    assert page.inner_text("[role=alert]").startswith('"<" at position 1')
    assert page.query_selector_all("img") == []


@pytest.mark.parametrize("width", [390, 768, 1280])
def test_the_page_fits_its_window(model, opened, width):
    page = opened(try_rna.fragment(model, autoencoders("relu-l1-matched"), table(), RECORDS), width)
    submit(page, "AC" * 256)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize(
    ("sequence", "structure", "field", "sentence"),
    [
        ("", "", "sequence", "There is no sequence: paste one, such as GGGAAACCC."),
        ("> a title alone", "", "sequence", "There is no sequence: paste one"),
        ("ACGZU", "", "sequence", '"Z" at position 4 is no letter of an RNA: take it out, or write N'),
        ("ACG-U", "", "sequence", '"-" at position 4 is no letter'),
        ("ACG\n🧬", "", "sequence", '"🧬" at position 4 is no letter'),
        (">a\nACG\n>b\nACG", "", "sequence", 'There are 2 headers that start with ">": paste one RNA at a time.'),
        ("A" * 513, "", "sequence", "The RNA has 513 nucleotides, this page reads at most 512: paste a part of it"),
        ("ACGU", "(.)", "structure", "The structure has 3 symbols, the sequence 4 nucleotides: give one symbol"),
        ("ACGU", "((.)", "structure", '"(" at position 1 of the structure has no partner: mend it, or leave'),
        ("ACGU", "(.))", "structure", '")" at position 4 of the structure has no partner'),
        ("ACGU", "(.?)", "structure", '"?" at position 3 of the structure is no dot-bracket symbol'),
        ("ACGU", "(.])", "structure", '"]" at position 3 of the structure has no partner'),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_said_in_one_sentence(page, sequence, structure, field, sentence):
    submit(page, sequence, structure)
    assert page.inner_text("[role=alert]").startswith(sentence)
    assert page.evaluate("document.activeElement.id") == f"try-{field}"
    assert page.get_attribute(f"#try-{field}", "aria-invalid") == "true"
    assert page.query_selector_all(".try-letters") == []
    submit(page, "GGGAAACCC", "(((...)))")
    assert page.inner_text("[role=alert]") == "" and page.query_selector_all("[aria-invalid]") == []


@pytest.mark.parametrize(
    ("text", "brackets"),
    [(">mine\nacgu\nTP n\r\n", "(..A)a."), ("ACGU UNN\n(..[)]. (-3.40)", ""), ("ACGUUNN", "<..A>a, ( -0.1)")],
)
def test_what_people_paste_is_read(page, text, brackets):
    rna = page.evaluate(f"([text, brackets]) => TryRna.parse(text, brackets, {LOADED})", [text, brackets])
    assert rna["sequence"] == "ACGUUNN" and rna["name"] == ("mine" if ">mine" in text else "")
    assert rna["structure"]["inner"] == [4, -1, -1, -1, 0, -1, -1] and rna["structure"]["crossing"] == [
        [3, 5]
    ]


def test_a_drawn_structure_keeps_its_distances(page):
    rng = np.random.default_rng(1)
    structures = [ground_truth.draw_rna(rng)[1] for _ in range(30)]
    structures += [
        "",
        ".",
        "()",
        "(())",
        "." * 40,
        "(((...)))",
        CLOVER,
        "((..[[..))..]].",
        "[[..((..]]..))",
        "A(.a.)",
    ]
    for structure in structures:
        of = page.evaluate("text => { const { inner, crossing } = TryRna.pairs(text, text.length); "
                           "return { inner, crossing, places: TryRna.layout(inner) } }", structure)  # fmt: skip
        places, inner = np.array(of["places"], float).reshape(-1, 2), np.array(of["inner"], int)
        assert np.isfinite(places).all()
        paired = np.flatnonzero(inner >= 0)
        np.testing.assert_allclose(np.linalg.norm(places[paired] - places[inner[paired]], axis=1), 1)
        np.testing.assert_allclose(np.linalg.norm(np.diff(places, axis=0), axis=1), 1)  # neighbours
        whole = inner.copy()
        for i, j in of["crossing"]:
            whole[[i, j]] = j, i
        assert whole.tolist() == pair_table(structure).tolist()
        if not of["crossing"]:
            assert inner.tolist() == split_pseudoknots(structure)[0].tolist()
    hairpin = np.array(page.evaluate("TryRna.layout(TryRna.pairs('((((....))))', 12).inner)"))
    distances = np.linalg.norm(hairpin[:, None] - hairpin, axis=2) + np.eye(12)
    assert distances.min() > 0.99  # nothing lies on anything else


def test_a_page_that_cannot_be_says_why(model, opened, monkeypatch):
    none = table().assign(shown=False)
    page = opened(try_rna.fragment(model, autoencoders("topk"), none, RECORDS))
    assert "does better than chance" in page.inner_text("#try-rna")
    monkeypatch.setattr(try_rna, "MEGABYTES", 1)
    fragment = try_rna.fragment(model, autoencoders("topk"), table(), RECORDS)
    assert len(fragment) < 1000
    said = opened(fragment).inner_text("#try-rna")
    assert said == "This run's language model (3 MB) is too large for a browser: " + said.split(": ")[1]
    assert "sae-rna annotate" in said
    monkeypatch.setattr(model.model.config, "position_embedding_type", "absolute")
    assert "reads RNAs with RiNALMo alone" in try_rna.obstacle(model, table())


def test_weights_that_no_feature_needs_are_left_out(model):
    read = try_rna.reader(model, autoencoders("relu-l1-matched"), table(((3, 5), (3, 41))))
    blocks = {name.split(".")[2] for name in read["weights"] if ".layer." in name}
    assert blocks == {"0", "1", "2"} and "encoder.layer_norm.weight" not in read["weights"]
    assert list(read["saes"]) == [3] and read["saes"][3]["rows"] == [5, 41]
    assert list(try_rna.reader(model, autoencoders("topk"), table())["saes"][6]["rows"]) == list(range(64))
    assert set(read["letters"]) == set(KNOWN_LETTERS)


def test_a_name_is_certain_only_if_it_passes_everything():
    keys = {"setting": "unseen families", "layer": 3, "feature": 1, "element": "S"}
    scores = pd.DataFrame([keys, keys | {"element": "H"}, keys | {"element": "B"}, keys | {"element": "M"}])
    scores = scores.assign(
        selection_base_auroc=0.8, base_auroc=0.7, base_auroc_low=0.6, null_p95=[0.5, 0.5, 0.65, 0.5]
    )
    scores["explained"] = [False, False, False, True]
    names = pd.DataFrame([keys | {"concept": "stem", "verdict": ground_truth.KEEPS},
                          keys | {"concept": "hairpin loop", "verdict": ground_truth.LOSES},
                          keys | {"concept": "multiloop", "verdict": ground_truth.KEEPS}])  # fmt: skip
    records = pd.DataFrame({"sequence": ["AC", "GU"], "split": ["selection", "heldout"]})
    rnas = Given({3: np.array([[0, 4], [0, 9]])}, records)
    found = try_rna.named(scores, names.assign(source=rnas.name, group="element"), rnas).set_index("concept")
    assert found.certain.to_dict() == {
        "stem": True,
        "hairpin loop": False,
        "bulge": False,
        "multiloop": False,
    }
    assert found.verdict["bulge"] == "not tested" and not found.shown["bulge"] and found.shown["multiloop"]
    assert set(found.maximum) == {4.0}  # of the families on which it was chosen
    assert try_rna.name_table(found.reset_index())["beyond chance and confounds"].tolist()[0] == "yes"


def test_the_example_is_a_natural_trna_of_median_length():
    rows = [("tRNA", "natural", n) for n in (70, 76, 90)] + [("tRNA", "sampled", 76), ("sRNA", "natural", 20)]
    records = pd.DataFrame(rows, columns=["type", "origin", "length"])
    records = records.assign(id=records.index.astype(str), sequence=["A" * n for n in records.length])
    records["secondary_structure"] = ["." * n for n in records.length]
    found = try_rna.example(records)
    assert found["name"] == "natural, 1" or "1" in found["name"]
    assert len(found["sequence"]) == 76 and len(found["structure"]) == 76
