"""What `sae-rna compare` does: which features differ between two groups of RNAs? One page and its tables."""

from pathlib import Path

from sae_rna import figures
from sae_rna.analysis import compare
from sae_rna.files import try_writing, write_atomically
from sae_rna.publishing import page_html
from sae_rna.study import Study

_INTRODUCTION = (
    "Group A is {a}: {size_a}. Group B is {b}: {size_b}. Not counted in these are {left_out_a} and "
    "{left_out_b} RNAs that are unlike all of the other group in length and GC content. {unit}."
)
_VOLCANO = (
    "Every point is one of {tested} retained features: {differ} differ at a false discovery rate of 5 %, "
    "and a single 3-mer takes away more than half of the effect of {composition} of these. The effect "
    "(Hedges' g) is of the share of nucleotides on which a feature fires, beyond length and GC content; p "
    "by permutation (at least {least_p})."
)
_ALARM = (
    "Do letters alone do it? Of {units} that it was not fitted on, beyond length and GC content, a logistic "
    "regression on all features tells the groups apart with AUROC {features}, on 3-mer frequencies with "
    "{kmers} (0.5 is chance): {letters}. Where both do as well, a difference of features may be one of "
    "letters. An AUROC clearly below 0.5, or an interval from below to above 0.5, shows too few {units}, and "
    "not that letters do not do it."
)
_LIMITS = (
    "Not shown: that the model uses these features, and that RNAs of other families would differ in them. "
    "Groups may differ in more than was matched: organism, source, how their sequences were found."
)


def write_comparison(study: Study, a: str, b: str, output: Path) -> list[Path]:
    """Compare two groups, each a file or conditions on columns of the study's RNAs; return the files written.

    Raises ValueError from `compare.groups` and where too few are alike.
    """
    page, p = output / "compare.html", study.parameters
    try_writing(page)
    longest = study.source("types").longest
    rnas = compare.groups(a, b, study.all_records("types"), longest, p.seed)
    summary = study.activations("types").summary
    table = study.kept(compare.differences, study.model, study.autoencoders(), summary, rnas, seed=p.seed)
    numbers = compare.numbers(table, rnas)
    parts = [_INTRODUCTION.format(**numbers), "# Which features differ"]
    parts += [figures.volcano(table, numbers["a"], numbers["b"]), _VOLCANO.format(**numbers)]
    if numbers["differ"]:
        parts += [compare.difference_table(table), "# Where they fire"]
        parts += [figures.firing_places(compare.where(table), numbers["a"], numbers["b"])]
    parts += ["# Is it composition?", _ALARM.format(**numbers), _LIMITS]
    flat = table.drop(columns=["place_a", "place_b"]).sort_values("p_value", kind="stable")
    files = {page: page_html(f"{numbers['a']} against {numbers['b']}", parts)}
    files |= {output / "features.tsv": flat.to_csv(sep="\t", index=False)}
    files |= {output / "rnas.tsv": rnas.to_csv(sep="\t", index=False)}
    for path, content in files.items():
        write_atomically(path, content)
    return list(files)
