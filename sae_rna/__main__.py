"""Command line: the same steps for people without a notebook."""

import argparse
import os
import re
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from safetensors import SafetensorError

from sae_rna.files import one_sentence, try_writing, write_json, writing
from sae_rna.parameters import MODELS, Parameters, read_yaml
from sae_rna.stopping import Stopped, stoppable


def main(arguments: list[str] | None = None) -> int:
    """Run a command; errors of the user's making end in one sentence and exit status 1, Ctrl-C in 130."""
    given = _parser().parse_args(arguments)
    warnings.formatwarning = lambda message, *rest, **more: f"sae-rna: {message}\n"
    try:
        with stoppable():
            if given.receipt:
                try_writing(given.receipt)
            made = list(map(str, given.run(given)))
            print(*made, sep="\n", end="\n" * bool(made))
            if given.receipt:
                write_json(given.receipt, made)
    except Stopped as stop:
        if "SAE_RNA_QUIET" not in os.environ:  # `build` has a line for all jobs
            print(f"sae-rna: {stop}", file=sys.stderr)
        return 128 + stop.number
    except (ValueError, OSError, ImportError, RuntimeError, SafetensorError) as error:
        print(f"sae-rna: {one_sentence(error)}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    profile, receipt = (argparse.ArgumentParser(add_help=False) for _ in range(2))
    profile.add_argument("--profile", default="default", help="a name in profiles/ or a YAML file")
    receipt.add_argument("--receipt", type=Path, help="a file to write that says where the results are")
    about = "Sparse autoencoders for RNA language models."
    parser = argparse.ArgumentParser(prog="sae-rna", description=about)
    commands = parser.add_subparsers(dest="command", required=True)

    def command(run, text: str, *parents) -> argparse.ArgumentParser:
        added = commands.add_parser(run.__name__.strip("_"), help=text, parents=parents)
        added.set_defaults(run=run, receipt=None)
        return added

    notebook = command(_notebook, "execute one notebook with the parameters of a profile", profile)
    notebook.add_argument("notebook", type=Path)
    notebook.add_argument("--output", type=Path, required=True, help="where the executed notebook goes")
    text, names = "another value for one parameter (YAML)", ("NAME", "VALUE")
    notebook.add_argument("-p", nargs=2, action="append", default=[], metavar=names, help=text)
    text = "encode the evaluation RNAs with the trained autoencoders"
    for run, task in ((_train, "train all autoencoders"), (_encode, text)):
        step = command(run, f"{task} of one group of layers", profile, receipt)
        step.add_argument("model", choices=MODELS, help="whose hidden states: the model's or the control's")
        step.add_argument("layers", help="a group, such as layers-1-6")
    command(_records, "fetch model and data from the hub, draw the sample of RNAs", profile, receipt)
    command(_plan, "what a study will cost: tokens, memory, disk and hours of each step", profile)
    export = command(_export, "write trained autoencoders as SAELens loads them")
    text = "a folder of autoencoders, such as runs/default/autoencoders-..., or a hub id"
    export.add_argument("source", help=text)
    export.add_argument("--output", type=Path, required=True, help="gets one folder for each autoencoder")
    _add_tools(command, profile)
    return parser


def _add_tools(command: Callable, profile: argparse.ArgumentParser):
    """Commands for one's own models and RNAs."""
    audit = command(_audit, "what a language model knows of base pairs: one page, and tables beside it")
    text = "a folder in multimolecule's format or a hub id"
    audit.add_argument("--model", default=Parameters.model, help=text)
    audit.add_argument("--records", default=Parameters.structures, help="RNAs of known structure and family")
    audit.add_argument("--families", type=int, default=10, help="how many are audited")
    audit.add_argument("--sequences", type=int, default=20, help="RNAs of each family, at most")
    audit.add_argument("--output", type=Path, default=Path("audit"), help="a folder")
    text = "what the language model predicts for RNAs with a feature changed: a table and sequence logos"
    steer = command(_steer, text, profile)
    steer.add_argument("source", help="a file of RNAs, such as rna.fa")
    steer.add_argument("--feature", required=True, help="layer and number, such as L5/123")
    text = "value of the feature at all nucleotides, in multiples of its maximum; 0 takes it away"
    steer.add_argument("--strength", type=float, required=True, help=text)
    text = "the table, as Parquet by that suffix, else separated by tabs; logos stand beside it as SVG"
    steer.add_argument("--output", type=Path, default=Path("steered.tsv"), help=text)
    text = "which features differ between two groups of RNAs: one page, and tables beside it"
    compared = command(_compare, text, profile)
    text = "a file of RNAs, or conditions on columns of the profile's, such as 'type == \"tRNA\"'"
    compared.add_argument("a", metavar="A", help=text)
    compared.add_argument("b", metavar="B", help="the same of those that these are compared with")
    compared.add_argument("--output", type=Path, default=Path("compare"), help="a folder")
    text = "features along RNAs: tables, tracks for genome browsers, drawings, and one page"
    annotate = command(_annotate, text, profile)
    annotate.add_argument("source", help="a file of RNAs, such as rna.fa")
    text = "by layer and number or by concept, such as L5/123 'hairpin loop'; else the best of each concept"
    annotate.add_argument("--features", nargs="+", default=[], metavar="FEATURE", help=text)
    annotate.add_argument("--layer", type=int, help="where features are chosen; else everywhere")
    text = "other autoencoders than the profile's: a folder, such as runs/k32/autoencoders-..., or a hub id"
    annotate.add_argument("--dictionary", help=text)
    annotate.add_argument("--model", help="the language model of --dictionary, if it is not where it was")
    annotate.add_argument("--bed", type=Path, help="places on chromosomes; else names like chr1:100-200(+)")
    annotate.add_argument("--output", type=Path, default=Path("annotated"), help="a folder")


def _notebook(given):
    from sae_rna import publishing

    values = {name: read_yaml(value, f"the value {value!r} of '{name}'") for name, value in given.p}
    checked = Parameters.from_profile(given.profile, **values)
    injected = {"profile": given.profile} | {name: getattr(checked, name) for name in values}
    run = Path(checked.run)
    began = time.time() - 1  # clocks of disks are coarse
    try:
        publishing.execute(given.notebook, given.output, injected, figures=run / "figures", failures=run)
    except Stopped as stop:  # and so is the notebook's own process
        from sae_rna.sae.checkpoint import stopped_at  # seconds to import

        if where := stopped_at(run, began):
            raise Stopped(stop.number, where) from None
        raise
    return []


def _records(given):
    return [_study(given).source(use).file for use in ("structures", "types")]


def _train(given):
    study = _study(given)
    return study.train(study.parameters.variants[given.model], study.group(given.layers))


def _encode(given):
    study = _study(given)
    group, uses = study.group(given.layers), study.parameters.encoded[given.model]
    return [folder for use, variants in uses.items() for folder in study.encode(use, variants, group)]


def _study(given):
    from sae_rna.study import Study

    return Study(Parameters.from_profile(given.profile))


def _plan(given):
    from sae_rna.plan import report

    return [report(Parameters.from_profile(given.profile))]


def _export(given):
    from sae_rna.sae.autoencoder import SparseAutoencoders
    from sae_rna.sae.export import to_saelens

    return to_saelens(SparseAutoencoders.from_pretrained(given.source), given.output)


def _audit(given):
    from sae_rna.audit import write_audit

    return write_audit(given.model, given.records, given.families, given.sequences, given.output)


def _steer(given):
    from sae_rna.analysis import use
    from sae_rna.figures import logo
    from sae_rna.records.readers import read_records

    if not (named := re.fullmatch(r"L(\d+)/(\d+)", given.feature)):
        raise ValueError(f"--feature cannot be {given.feature}: write layer and number, such as L5/123")
    (layer, feature), study = map(int, named.groups()), _study(given)
    if layer not in study.layers:
        raise ValueError(f"layer {layer} has no features: choose one of {', '.join(map(str, study.layers))}")
    summary, records = study.activations("types").summary, read_records(given.source)
    value = given.strength * summary.maximum[(summary.layer == layer) & (summary.feature == feature)].max()
    model, sae = study.masked_model(), study.autoencoders()[layer]
    table = use.steer_records(model, sae, records, feature, value)
    with writing(given.output) as path:
        as_parquet = path.suffix == ".parquet"
        table.to_parquet(path, index=False) if as_parquet else table.to_csv(path, sep="\t", index=False)
    made = [given.output]
    for number, (_, rows) in enumerate(table.groupby("id", sort=False), 1):
        made.append(given.output.with_name(f"{given.output.stem}-{number}.svg"))
        with writing(made[-1]) as path:
            logo(rows).save(str(path))
    return made


def _compare(given):
    from sae_rna.compare import write_comparison

    groups = {"group_a": given.a, "group_b": given.b}
    parameters = Parameters.from_profile(given.profile, **groups)
    return write_comparison(_study(given), parameters.group_a, parameters.group_b, given.output)


def _annotate(given):
    from sae_rna.annotate import Annotator, annotate
    from sae_rna.records.readers import read_records

    records, own = read_records(given.source), (given.profile, given.dictionary, given.model)
    annotator = Annotator.load(given.features, given.layer, *own, records=records)
    return annotate(annotator, records, given.output, given.bed)


if __name__ == "__main__":
    sys.exit(main())
