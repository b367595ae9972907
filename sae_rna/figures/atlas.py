"""Pages of single features: histograms, logos and RNAs as HTML and SVG, quick to write by the thousand.

What comes from the data is escaped here where it becomes part of a picture; texts and cells of tables are
escaped by `publishing.write_atlas`, for which `feature_pages` and `feature_index` are.
"""

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from html import escape

import numpy as np
import pandas as pd

from sae_rna.figures.use import letter_outlines
from sae_rna.records.composition import NUCLEOTIDES
from sae_rna.records.splits import SETTINGS

LEVELS, CHUNK = 9, 10  # colours of an activation above 0; letters that stay together where lines wrap
_SPLITS = {split: setting for setting, splits in SETTINGS.items() for split in splits}
_WIDTH, _HEIGHT, _LEFT, _STEP = 420, 110, 36, 26  # of a histogram, and of a letter in a logo, pixels
_CONCEPTS = {"concept": "concept", "selection_auroc": "AUROC where chosen", "auroc": "AUROC within bases",
             "chance": "chance", "control": "best control", "control_auroc": "its AUROC",
             "precision": "precision", "recall": "recall", "base_rate": "base rate"}  # fmt: skip
_EFFECTS = {"intervention": "intervention", "place": "masked", "effect": "effect", "low": "95 % from",
            "high": "to", "least": "controls from", "most": "to", "beyond": "beyond all"}  # fmt: skip
"""Headers of tables by column."""


def histogram(counts: np.ndarray, maximum: float) -> str:
    """SVG of a histogram from 0 to `maximum`, its bars as high as the logarithm of their counts."""
    high, step, marks = np.log10(1 + max(counts.max(), 9)), (_WIDTH - _LEFT - 10) / len(counts), []
    tall = lambda count: _HEIGHT * np.log10(1 + count) / high  # noqa: E731
    for tick in 10 ** np.arange(int(high) + 1):
        y = 10 + _HEIGHT - tall(tick)
        marks.append(f'<path class="line" d="M{_LEFT} {y:.1f}H{_WIDTH}"/>')
        marks.append(f'<text x="{_LEFT - 4}" y="{y + 4:.1f}" text-anchor="end">{tick:,}</text>')
    for place, count in enumerate(counts):
        left, right = (maximum * (place + end) / len(counts) for end in (0, 1))
        box = f'x="{_LEFT + place * step:.1f}" y="{10 + _HEIGHT - tall(count):.1f}"'
        box += f' width="{step - 1:.1f}" height="{tall(count):.1f}"'
        marks.append(f'<rect class="bar" {box}><title>{left:.3g} to {right:.3g}: {count:,}</title></rect>')
    for at, words in ((_LEFT, "0"), (_WIDTH - 10, f"{maximum:.3g}")):
        marks.append(f'<text x="{at}" y="{_HEIGHT + 24}" text-anchor="middle">{words}</text>')
    words = f"Histogram of {counts.sum():,} activations up to {maximum:.3g}"
    return _svg(_WIDTH + 10, _HEIGHT + 28, words, marks)


def information(shares_W4: np.ndarray) -> np.ndarray:
    """Heights of letters in bits, [W, 4]: 2 less the entropy, times the share (Schneider & Stephens 1990);
    0 where shares are not known."""
    share = np.nan_to_num(shares_W4, nan=0.25)
    entropy_W = -(share * np.log2(np.maximum(share, 1e-12))).sum(1)
    return share * (2 - entropy_W)[:, None]


def peak_logo(shares_W4: np.ndarray) -> str:
    """SVG of a sequence logo; the middle column is the peak. The axis ends at the next half bit."""
    bits_W4, reach = information(shares_W4), len(shares_W4) // 2
    most, letters = max(0.5, np.ceil(2 * bits_W4.sum(1).max() - 1e-9) / 2), set()
    end, marks = _LEFT + _STEP * len(bits_W4), [f'<text x="0" y="14">{most:g} bits</text>']
    marks.append(f'<path class="line" d="M{_LEFT} 10H{end}M{_LEFT} {10 + _HEIGHT}H{end}"/>')
    for place, bits_4 in enumerate(bits_W4):
        foot, left = 0.0, _LEFT + place * _STEP
        for letter in np.argsort(bits_4):
            tall = bits_4[letter] / most * _HEIGHT
            if tall >= 0.5:
                at = f"translate({left + 1} {10 + _HEIGHT - foot:.1f}) scale({_STEP - 2} {tall:.1f})"
                marks.append(f'<use href="#{NUCLEOTIDES[letter]}" transform="{at}"/>')
                letters.add(NUCLEOTIDES[letter])
            foot += tall
        words = f"{place - reach:+d}".replace("-", "−") if place != reach else "0"
        at = f'x="{left + _STEP / 2:.0f}" y="{_HEIGHT + 24}" text-anchor="middle"'
        marks.append(f"<text {at}>{words}</text>")
    marks.insert(0, f"<defs>{''.join(map(_outline, sorted(letters)))}</defs>")
    return _svg(end + 4, _HEIGHT + 28, "Sequence logo around the peaks", marks)


@cache
def _outline(letter: str) -> str:
    points = " ".join(f"{x:.2f} {-y:.2f}" for x, y in letter_outlines()[letter])
    return f'<path id="{letter}" class="{letter}" d="M{points}Z"/>'


def _svg(width: int, height: int, words: str, marks: Iterable[str]) -> str:
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return f'<svg {size} role="img" aria-label="{escape(words)}">{"".join(marks)}</svg>'


def rna(example) -> str:
    """An RNA's sequence above its structure, both coloured by activation; what has the concept underlined.

    `example`: name, split, sequence, structure, share_L (0..1), marked_L (bool).
    """
    level_L, chunks = np.ceil(np.clip(example.share_L, 0, 1) * LEVELS).astype(int), []
    for start in range(0, len(example.sequence), CHUNK):
        part = slice(start, start + CHUNK)
        letters = _runs(example.sequence[part], level_L[part])
        brackets = _runs(example.structure[part], level_L[part], example.marked_L[part])
        chunks.append(f"<span>{letters}\n{brackets}</span>")
    most = example.share_L.max(initial=0)
    words = f"{most:.0%} of the maximum" if most else "silent"
    caption = escape(f"{example.name}, {_SPLITS.get(example.split, example.split)}: {words}")
    body = f'<figcaption>{caption}</figcaption><div class="seq">{"".join(chunks)}</div>'
    return f'<figure class="rna">{body}</figure>'


def _runs(text: str, level_L: np.ndarray, marked_L: np.ndarray | None = None) -> str:
    """HTML of a text, its runs of one level (0: none) and mark in an element of their own."""
    state_L = level_L if marked_L is None else level_L + (LEVELS + 1) * marked_L
    ends = [*(np.flatnonzero(np.diff(state_L)) + 1).tolist(), len(text)]
    parts, start = [], 0
    for end in ends:
        mark, level = divmod(int(state_L[start]), LEVELS + 1)
        name = f'"m a{level}"' if mark and level else "m" if mark else f"a{level}" if level else ""
        words = escape(text[start:end])
        parts.append(f"<b class={name}>{words}</b>" if name else words)
        start = end
    return "".join(parts)


def feature_pages(details: Iterable, table: pd.DataFrame) -> Iterator[tuple]:
    """Address, title, first sentence and sections of every feature's page.

    details : of `analysis.atlas.details`; table : of `analysis.atlas.features`
    """
    pages = table.set_index(["layer", "feature"]).page.to_dict()
    for detail in details:
        row = detail.row
        title = f"Feature {row.feature} of layer {row.layer}" + (f": {row.concept}" if row.named else "")
        lead = f"Verdict: {row.verdict}."
        if row.concept:
            lead += f" Closest concept: {row.concept}, AUROC within bases {row.auroc:.3f} in unseen families "
            lead += f"(chance {row.chance:.3f}; best control, {row.control}: {row.control_auroc:.3f})."
        yield row.page, title, lead, [part for part in _sections(detail, pages) if part[2]]


def _sections(detail, pages: Mapping) -> list[tuple]:
    """Heading, note, and pictures and tables of each section, empty ones too."""
    row, numbers = detail.row, detail.numbers
    marked = f" Underlined: {row.concept}." if row.concept else ""
    against = f"Of {numbers['having']:,} held-out RNAs with the concept, it is silent there in "
    against += f"{numbers['missed']:,}; of {numbers['firing']:,} in which it fires, in {numbers['astray']:,} "
    against += f"it fires outside of the concept only.{marked}"
    against_rnas = [*map(rna, detail.silent), *map(rna, detail.outside)] if row.concept else []
    peaks = f"The strongest nucleotides of {detail.peaks} RNAs of {detail.families} families, each family "
    near = [((of.feature, pages[row.layer, of.feature]), *of[2:]) for of in detail.near.itertuples()]
    tested = {name: name for name in detail.tested if name not in ("layer", "feature")} | {"setting": "RNAs"}
    return [
        ("At a glance", "", [(("what", "value", "beside"), _facts(row))]),
        ("How strongly", "Nucleotides by activation, where it fires; counts on a logarithmic axis.",
         [histogram(detail.counts, detail.maximum)]),
        ("The letters around its peaks", f"{peaks}counting as one.", [peak_logo(detail.logo)]),
        ("RNAs, from the strongest to the weakest", f"At even ranks of those in which it fires.{marked}",
         [*map(rna, detail.examples)]),
        ("Concepts", "Those that suit it best on the families on which features are chosen, scored on "
         "held-out ones. Chance: 95th percentile of the same choice on shifted annotations.",
         _table(detail.scores, _CONCEPTS)),
        ("Put to the test", "Share of its firing that survives where the letters stay and the structure "
         "goes, and where the structure stays.", _table(detail.tested, tested)),
        ("What the model does with it", "Change of the log-odds of a masked base; controls: matched features "
         "at the partner.", _table(detail.used, _EFFECTS)),
        ("Counterexamples", against, against_rnas),
        ("Where it fires", "Shares of the nucleotides on which it fires, and of all.",
         _table(detail.where, {"kind": "kind", "name": "name", "firing": "of its firing", "all": "of all"})),
        ("Nearest features", "By direction (cosine of decoder rows) and by activation (correlation).",
         [(("feature", "cosine", "correlation"), near)]),
    ]  # fmt: skip


def _table(table: pd.DataFrame, headers: Mapping[str, str]) -> list:
    rows = table[[*headers]].itertuples(index=False, name=None)
    return [(headers.values(), rows)] if len(table) else []


def _facts(row) -> list[tuple]:
    """What, value, and what is to be known beside it; what was not tested is said so."""
    facts = [
        ("density", row.density, f"fires in {row.sequences:,} RNAs of known type"),
        ("base on which it fires most", row.base, f"{row.base_share:.0%} of its firing"),
        ("R² of the 5-mer", row.kmer_r2, "share of its variance that the letters around a nucleotide tell"),
        ("explained by confounds", row.explained, "base, neighbours, position, GC content and length"),
        ("gamma", row.gamma, f"95 %: {row.low:.4f} to {row.high:.4f}; q = {row.q:.2g}"),
        ("answers to pairing", row.pairing, "gamma above that of every control"),
        ("needed for the partner", row.needed, f"change of its log-odds {row.effect:+.3f}"),
        ("recurs in another seed", row.recurs,
         f"counterpart {row.twin}: cosine {row.cosine:.2f}, correlation {row.correlation:.2f}"),
        ("prefers types", row.types or "none", "beyond length and GC content"),
    ]  # fmt: skip
    return [of if pd.notna(of[1]) else (of[0], "not tested", "") for of in facts]


def feature_index(table: pd.DataFrame) -> tuple:
    """Headers and rows of the index, from `analysis.atlas.features`; the first cell links to the page."""
    columns = {"layer": "layer", "concept": "concept", "verdict": "verdict", "auroc": "AUROC",
               "chance": "chance", "precision": "precision", "density": "density", "letters": "base",
               "kmer_r2": "5-mer R²", "pairing": "pairing", "recurs": "recurs", "types": "types"}  # fmt: skip
    bases = [f"{base} {share:.0%}" for base, share in zip(table.base, table.base_share)]
    rows = table.assign(letters=bases).replace({"concept": {"": None}, "types": {"": None}})[[*columns]]
    names = [f"L{layer}/{feature}" for layer, feature in zip(table.layer, table.feature)]
    links = zip(names, table.page)
    rows = [(link, *row) for link, row in zip(links, rows.itertuples(index=False))]
    return ("feature", *columns.values()), rows
