"""Command line: the same steps for people without a notebook."""

import argparse
import sys
from pathlib import Path

import yaml

from sae_rna.parameters import MODELS, ROOT, Parameters, read_profile


def main(arguments: list[str] | None = None) -> int:
    """Run a command; errors of the user's making end in one sentence and exit status 1."""
    parser = argparse.ArgumentParser(prog="sae-rna", description="Sparse autoencoders for RNA language models.")
    commands = parser.add_subparsers(dest="command", required=True)
    notebook = commands.add_parser("notebook", help="execute one notebook with the parameters of a profile")
    notebook.add_argument("notebook", type=Path)
    notebook.add_argument("--output", type=Path, required=True, help="where the executed notebook goes")
    notebook.add_argument("--profile", default="default", help="a name in profiles/ or a YAML file")
    notebook.add_argument(
        "-p", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"), help="another value for one parameter (YAML)"
    )
    for name, task in (("train", "train all autoencoders of"), ("encode", "encode the evaluation RNAs with the trained autoencoders of")):
        step = commands.add_parser(name, help=f"{task} one group of layers, as the notebooks would when they need them")
        step.add_argument("model", choices=MODELS, help="whose hidden states: the language model's or the control's, of random weights")
        step.add_argument("layers", help="a group, such as layers-1-6")
        step.add_argument("--profile", default="default", help="a name in profiles/ or a YAML file")
        step.add_argument("--receipt", type=Path, help="a file to write that says where the results are")
    records = commands.add_parser("records", help="fetch model and data from the hub, and draw the sample of RNAs")
    records.add_argument("--profile", default="default", help="a name in profiles/ or a YAML file")
    records.add_argument("--receipt", type=Path, help="a file to write that says where the results are")
    plan = commands.add_parser("plan", help="what a study will cost: tokens, memory, disk and hours of each step")
    plan.add_argument("--profile", default="default", help="a name in profiles/ or a YAML file")
    export = commands.add_parser("export", help="write trained autoencoders as another library loads them")
    export.add_argument("source", help="a folder of autoencoders, as runs/default/autoencoders-topk-x8-seed0-layers-1-6-..., or a hub id")
    export.add_argument("--to", choices=("saelens", "dictionary_learning"), required=True)
    export.add_argument("--output", type=Path, required=True, help="gets one folder for each autoencoder")
    given = parser.parse_args(arguments)
    try:
        if given.command == "export":
            _export(given)
        elif given.command == "plan":
            from sae_rna.plan import report

            print(report(Parameters.from_profile(given.profile)))
        elif given.command in ("records", "train", "encode"):
            _step(given)
        else:
            _notebook(given)
    except (ValueError, FileNotFoundError, ImportError, RuntimeError) as error:
        print(f"sae-rna: {error}", file=sys.stderr)
        return 1
    return 0


def _notebook(given):
    from sae_rna import publishing

    parameters = read_profile(given.profile) | {name: yaml.safe_load(value) for name, value in given.p}
    Parameters.check_names(parameters)
    checked = Parameters(**parameters)
    publishing.execute(given.notebook, given.output, parameters, figures=ROOT / checked.run / "figures", failures=ROOT / checked.run)


def _step(given):
    from sae_rna.runs import write_json
    from sae_rna.study import Study

    study = Study(Parameters.from_profile(given.profile))
    if given.command == "records":
        made = [study.data_file("structures"), study.data_file("types")]
    else:
        work = study.train_all if given.command == "train" else study.encode_all
        made = [str(folder) for folder in work(given.model, study.group(given.layers))]
    print(*made, sep="\n")
    if given.receipt:
        write_json(given.receipt, made)


def _export(given):
    from sae_rna.autoencoder import SparseAutoencoders
    from sae_rna.export import to_dictionary_learning, to_saelens

    write = {"saelens": to_saelens, "dictionary_learning": to_dictionary_learning}[given.to]
    for folder in write(SparseAutoencoders.from_pretrained(given.source), given.output):
        print(folder)


if __name__ == "__main__":
    sys.exit(main())
