"""What `sae-rna annotate` does: features along any RNAs, as tables, tracks for genome browsers and a page.

RNAs are read in parts. Finished parts are kept until all are, so that a stopped command goes on; the files
are written from one part after the other, in memory that does not grow with their number.
"""

import hashlib
import re
import shutil
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from pyarrow import parquet
from tqdm import tqdm

from sae_rna import browser, figures, results
from sae_rna.analysis import familiar, structure_features
from sae_rna.cache import RunFolder, waiting_lock
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.loading import fingerprint
from sae_rna.files import try_writing, write_atomically, writing
from sae_rna.parameters import Parameters, resolve
from sae_rna.publishing import page_html
from sae_rna.publishing.outputs import chart_svg
from sae_rna.records.places import places
from sae_rna.records.splits import SETTINGS, select_length
from sae_rna.records.structure import ELEMENTS, add_elements, pair_table
from sae_rna.sae.autoencoder import SparseAutoencoders
from sae_rna.study import Study

PART = 50_000  # nucleotides that are annotated together, about: memory follows from it
DRAWN, PANELS, LONGEST_DRAWN = 3, 3, 300  # RNAs that are drawn, features of each; their nucleotides at most
LISTED = 20  # RNAs in the page's table
FIRING, TRIED = 5, 200  # features of a dictionary that are taken; RNAs on which these are what fires most
_OLD = "drawing-*.svg", "L*.bedgraph", "features.bed", "features.gff3"  # files that not every annotation has
_FEATURES = (
    "A feature was chosen for a concept on families of no training RNA. Where chance or its confounds (base, "
    "neighbours, position, length, GC content) tell as much, it says little about the concept; whether "
    "simpler directions do as well, and whether its name survives further tests, is said in the book. Its "
    "scale is its maximum on the study's RNAs or, where these are not known, on those here; drawings and "
    "marked.sto show shares of it."
)
_FAMILIAR = (
    "{inside} RNAs lie in the range of those on which the autoencoders were trained (from the 1st to the "
    "99th percentile of each; a surprisal below it is no fault): {length} nt, a GC content of {gc}, a "
    "surprisal of {surprisal} nats (the mean of -ln p of the bases that stand there, nothing masked). The "
    "others are beyond what the features were chosen and tested on."
)
_UNFAMILIAR = (
    "On which RNAs these autoencoders were trained is not known here, so none is said to be beyond them. The "
    "surprisal is the mean of -ln p of the bases that stand there, in nats, nothing masked."
)


@dataclass(eq=False)
class Annotator:
    """A language model, autoencoders by layer, and the features that are looked at. Made by `load`."""

    model: LanguageModel  # with its head for masked bases, if it has one
    autoencoders: Mapping[int, SparseAutoencoders]
    features: (
        pd.DataFrame
    )  # name (L5/123), layer, feature, concept, fault ("" if none), maximum (NaN if unknown)
    known: pd.DataFrame  # `familiar.ranges`; no rows if the training RNAs are not known

    @classmethod
    def load(
        cls,
        features: Sequence[str] = (),
        layer: int | None = None,
        profile: str = "default",
        dictionary: str | None = None,
        model: str | None = None,
        records: pd.DataFrame | None = None,
    ) -> "Annotator":
        """The autoencoders of a profile's study, trained if they are not there yet, or those of `dictionary`.

        features : layer and number (L5/123) or, of a study, a concept ("hairpin loop"); by default the best
            feature of each concept, or of a dictionary those that fire most on the first `records`
        layer : where they are chosen; by default in all of a study, or in the last of a dictionary
        dictionary, model : a folder or hub id of autoencoders, and of their model if it is not where it was

        Raises ValueError for a feature or layer that there is not, and for a model of other weights.
        """
        if dictionary:
            return cls(*_of_dictionary(dictionary, model, features, layer, records))
        if model:
            raise ValueError(f"{model} needs autoencoders of its own: give them, too, as the dictionary")
        return cls(*_of_study(Study(Parameters.from_profile(profile)), features, layer))

    @cached_property
    def key(self) -> dict:
        """What an annotation depends on, for JSON."""
        digest = hashlib.sha256()
        for layer in sorted(self.autoencoders):
            for name, tensor in sorted(self.autoencoders[layer].state_dict().items()):
                digest.update(name.encode() + tensor.cpu().numpy().tobytes())
        own = {"autoencoders": digest.hexdigest(), "features": self.features, "known": self.known}
        return self.model.key | own

    def tables(self, records: pd.DataFrame, bar: tqdm | None = None) -> tuple[pd.DataFrame, pd.DataFrame]:
        """What the features do on records: a row per nucleotide, and a row per RNA.

        Of nucleotides: id, position (from 1), base, element (if structures are known) and the activation of
        each feature, NaN at letters other than ACGU. Of RNAs: id, length, gc, surprisal, outside (in what it
        is beyond the training RNAs) and of each feature the share of nucleotides on which it fires, its mean
        and its maximum.
        """
        records = add_elements(records.reset_index(drop=True))
        length_S = records.sequence.str.len().to_numpy()
        start_S, rna_T = np.cumsum(length_S) - length_S, np.arange(len(records)).repeat(length_S)
        columns = {"id": records.id.to_numpy()[rna_T], "position": np.arange(len(rna_T)) - start_S[rna_T] + 1}
        columns |= {"base": list("".join(records.sequence))}
        columns |= {"element": list("".join(records.element))} if "element" in records else {}
        values_TF = np.full((len(rna_T), len(self.features)), np.nan, np.float32)
        surprisal_T = np.full(len(rna_T), np.nan)
        for reading in familiar.read(self.model, records.sequence.tolist(), [*self.autoencoders]):
            row_T = start_S[reading.sequence_T] + reading.position_T
            surprisal_T[row_T] = reading.surprisal_T
            for layer, of in self.features.groupby("layer"):
                values_TF[np.ix_(row_T, of.index)] = _encoded(self.autoencoders[layer], reading)[
                    :, of.feature
                ]
            if bar is not None:
                bar.update(len(np.unique(reading.sequence_T)))
        values = pd.DataFrame(values_TF, columns=self.features.name)
        fires = (values > 0).astype(float).where(values.notna())
        rnas = familiar.measured(records, pd.Series(surprisal_T).groupby(rna_T).mean())
        rnas["outside"] = familiar.outside(rnas, self.known)
        by_rna = values.groupby(rna_T)
        for kind, table in {
            "share": fires.groupby(rna_T).mean(),
            "mean": by_rna.mean(),
            "max": by_rna.max(),
        }.items():
            rnas = rnas.join(table.add_suffix(f" {kind}"))
        return pd.DataFrame(columns).join(values), rnas


@torch.inference_mode()
def _encoded(sae: SparseAutoencoders, reading: familiar.Reading) -> np.ndarray:
    """Activations of all features of an autoencoder, [T, F]."""
    (layer,) = sae.config.layers
    return sae.encode(sae.standardise(reading.states[layer][:, None]).transpose(0, 1))[0].cpu().numpy()


def _of_study(study: Study, wanted: Sequence[str], layer: int | None) -> tuple:
    """The fields of an `Annotator`."""
    with warnings.catch_warnings(action="ignore"):  # of the study's records, which are not those annotated
        p, trained = study.parameters, study.autoencoders()
    if layer is not None and layer not in study.layers:
        raise ValueError(f"layer {layer} has no features: choose one of {', '.join(map(str, study.layers))}")
    if not all((study.run.folder / name).exists() for name in trained.key):
        said = "the first use trains autoencoders and chooses their features, minutes on two cores"
        warnings.warn(f"{said}; both stay in {study.run.folder}", stacklevel=4)
    rnas = study.activations("structures")
    scores = results.elements(study)
    scores = scores[
        (scores.setting == [*SETTINGS][-1]) & scores.layer.isin([layer] if layer else study.layers)
    ]
    best = [structure_features.best(scores, ELEMENTS[letter]) for letter in scores.element.unique()]
    concepts = {of.concept: (int(of.layer), int(of.feature), of.fault) for of in best}
    features = _features(wanted or [*concepts], concepts, study.layers, p.expansion * study.model.width)
    maximum = rnas.summary.set_index(["layer", "feature"]).maximum
    features["maximum"] = maximum.reindex(pd.MultiIndex.from_frame(features[["layer", "feature"]])).to_numpy()
    try:
        model = study.masked_model()
    except ValueError:  # it has no head
        model = study.model
    stacks = {number: trained[number] for number in sorted(set(features.layer))}
    return model, stacks, features, study.kept(familiar.ranges, model, study.training)


def _of_dictionary(source: str, model: str | None, wanted, layer: int | None, records) -> tuple:
    """The fields of an `Annotator`."""
    stack = SparseAutoencoders.from_pretrained(resolve(source)).requires_grad_(False)
    name, revision = (model, None) if model else (stack.config.model, stack.config.revision)
    try:
        own = LanguageModel.load(resolve(name), revision, masked=True)
    except ValueError:  # it has no head, or a fault that is said now
        own = LanguageModel.load(resolve(name), revision)
    stack.to(own.device).check_model(fingerprint(own.model.base_model), name)
    layers = sorted(set(stack.config.layers))
    if not wanted:
        if records is None:
            raise ValueError(
                f"what the features of {source} are is not known: name some, such as L{layers[-1]}/0"
            )
        sae, short = (
            stack.only(layers[-1] if layer is None else layer),
            records.sequence.str.len() <= own.longest,
        )
        readings = familiar.read(own, records.sequence[short].head(TRIED).tolist(), sae.config.layers)
        fires_F = sum((_encoded(sae, reading) > 0).sum(0) for reading in readings)
        wanted = [f"L{sae.config.layers[0]}/{at}" for at in np.argsort(-fires_F, kind="stable")[:FIRING]]
        said = "what the features are is not known, so those are taken that fire most"
        warnings.warn(f"{source}: {said}; --features names others", stacklevel=4)
    features = _features(wanted, {}, layers, stack.config.latents).assign(maximum=np.nan)
    stacks = {number: stack.only(number) for number in sorted(set(features.layer))}
    return own, stacks, features, pd.DataFrame({"measure": [], "low": [], "high": []})


def _features(wanted: Sequence[str], concepts: Mapping, layers: Sequence[int], latents: int) -> pd.DataFrame:
    """`Annotator.features` without their maxima. ValueError for one that there is not."""
    places = dict[tuple[int, int], None]()
    for text in wanted:
        number = re.fullmatch(r"L(\d+)/(\d+)", text)
        if not number and text not in concepts:
            words = "".join(f", '{name}'" for name in concepts)
            raise ValueError(
                f"there is no feature '{text}': write L{layers[-1]}/12 for layer and number{words}"
            )
        layer, feature = map(int, number.groups()) if number else concepts[text][:2]
        if layer not in layers or feature >= latents:
            there = f"layers are {', '.join(map(str, layers))}, features 0 to {latents - 1}"
            raise ValueError(f"there is no feature '{text}': {there}")
        places[layer, feature] = None
    rows = []
    for layer, feature in places:
        own = {name: fault for name, (*at, fault) in concepts.items() if at == [layer, feature]}
        facts = {"concept": ", ".join(own), "fault": "; ".join(dict.fromkeys(filter(None, own.values())))}
        rows.append({"name": f"L{layer}/{feature}", "layer": layer, "feature": feature} | facts)
    return pd.DataFrame(rows)


def annotate(
    annotator: Annotator, records: pd.DataFrame, output: Path, bed: str | Path | None = None
) -> list[Path]:
    """Write all files of an annotation to a folder and return them; the page "Run your own" lists them.

    records : as `read_records` gives them; those too long for the model are left out with a warning
    bed : a file of their places on chromosomes; by default names such as chr1:100-200(+) tell them

    Stopped, it goes on after the last part that was finished.
    """
    try_writing(output / "report.html")
    records = select_length(records, annotator.model.longest)
    placed, folders = places(records, bed), list[Path]()
    columns = [name for name in ("id", "sequence", "secondary_structure", "element") if name in records]
    number_S, own = (records.sequence.str.len().cumsum() - 1) // PART, sys.modules[__name__]
    run = RunFolder(output / ".parts")
    with waiting_lock(output / ".lock", str(output)):
        with tqdm(total=len(records), desc="annotating", unit=" RNAs", mininterval=1) as bar:
            for _, part in records[columns].groupby(number_S):

                def make(folder: Path, part=part):
                    for name, table in zip(("nucleotides", "rnas"), annotator.tables(part, bar)):
                        table.to_parquet(folder / f"{name}.parquet", index=False)

                folders.append(run.kept("part", [annotator.key, part], make, own))
                bar.update(part.index[-1] + 1 - bar.n)
        made = _write(annotator, records, placed, folders, output)
        shutil.rmtree(run.folder)
    return made


def _write(annotator: Annotator, records, placed, folders: list[Path], output: Path) -> list[Path]:
    """Write all files from the parts' tables, each of them whole or not at all."""
    rnas = pd.concat([pd.read_parquet(folder / "rnas.parquet") for folder in folders], ignore_index=True)
    highest = rnas.filter(like=" max").max().reset_index(drop=True)
    features = annotator.features.assign(maximum=annotator.features.maximum.fillna(highest))
    features["label"] = features.concept + np.where(
        features.fault == "", "", " (chance or confounds tell as much)"
    )
    schema, first, drawn = parquet.read_schema(folders[0] / "nucleotides.parquet"), 0, list[pd.DataFrame]()
    texts = browser.files(features, schema.names, any(placed))
    with ExitStack() as stack:
        place = {
            name: stack.enter_context(writing(output / name)) for name in ("nucleotides.parquet", *texts)
        }
        whole = stack.enter_context(parquet.ParquetWriter(place["nucleotides.parquet"], schema))
        opened = {name: stack.enter_context(open(place[name], "w", encoding="utf-8")) for name in texts}
        for name, (head, _) in texts.items():
            opened[name].write(head)
        for folder in tqdm(folders, "writing", delay=1):
            whole.write_table(table := parquet.read_table(folder / "nucleotides.parquet"))
            last = first + parquet.read_metadata(folder / "rnas.parquet").num_rows
            part = browser.Part(records[first:last], placed[first:last], table.to_pandas(), features)
            for name, (_, text_of) in texts.items():
                opened[name].write(text_of(part))
            drawn += _tracks(part, DRAWN - len({of.record.iloc[0] for of in drawn}))
            first = last
    charts = [figures.feature_tracks(table) for table in drawn]
    others = {f"drawing-{number}.svg": _svg(chart) for number, chart in enumerate(charts, 1)}
    others["rnas.tsv"] = rnas.to_csv(sep="\t", index=False, float_format="%.6g")
    others["report.html"] = page_html("Features along RNAs", _report(annotator, features, rnas, charts))
    for name, text in others.items():
        write_atomically(output / name, text)
    made = [output / name for name in (*place, *others)]
    for old in _OLD:  # of an annotation that was here before
        for path in {*output.glob(old)}.difference(made):
            path.unlink()
    return made


def _svg(chart) -> str:
    spec = chart.to_dict()
    return chart_svg(spec, spec["description"])


def _tracks(part: browser.Part, count: int) -> list[pd.DataFrame]:
    """Tables of `figures.feature_tracks`: `count` RNAs at most, each with the features strongest on it."""
    tables, features = list[pd.DataFrame](), part.features.set_index("name")
    short = np.flatnonzero(part.records.sequence.str.len() <= LONGEST_DRAWN)
    for number in short[:count] if "secondary_structure" in part.records else ():
        record, rows = part.records.iloc[number], part.nucleotides[part.nucleotides.rna == number]
        share = (rows[features.index] / features.maximum).clip(0, 1).fillna(0)
        rows = rows[["position", "base", "element"]].assign(record=record.id, rna=record.id)
        rows = rows.assign(
            bracket=[*record.secondary_structure], partner=pair_table(record.secondary_structure) + 1
        )
        for name in share.max().nlargest(PANELS).index:
            own = features.loc[name, ["layer", "feature", "concept", "fault"]]
            chosen = f"chosen for {own.concept}" if own.concept else "of no known concept"
            tables.append(rows.assign(activation=share[name], place=chosen, **own))
    return tables


def _report(annotator: Annotator, features: pd.DataFrame, rnas: pd.DataFrame, charts: list) -> list:
    """The parts of the page."""
    model, shares, highest = annotator.model, rnas.filter(like=" share"), rnas.filter(like=" max")
    facts = f"{len(rnas):,} RNAs of {rnas.length.sum():,} nt, read by {model.source}, weights "
    facts += f"{fingerprint(model.model.base_model)}."
    passes = np.where(features.fault == "", "yes", "no: " + features.fault)
    table = pd.DataFrame({"feature": features.name, "chosen for": features.concept})
    table["beyond chance and confounds"] = np.where(features.concept == "", "", passes)
    table["fires on RNAs"] = (highest > 0).sum().to_numpy()
    table["on a share of their nt"] = shares.where(shares > 0).mean().to_numpy()
    table["maximum"], table["scale"] = highest.max().to_numpy(), features.maximum
    parts = [facts, "# Features", _FEATURES, table, "# How familiar the RNAs are"]
    if len(annotator.known):
        ends = {of.measure: f"{of.low:,.3g} to {of.high:,.3g}" for of in annotator.known.itertuples()}
        beyond = rnas.outside[rnas.outside != ""].str.split(", ").explode().value_counts()
        parts.append(_FAMILIAR.format(inside=f"{(rnas.outside == '').sum():,} of {len(rnas):,}", **ends))
        parts += [beyond.rename_axis("beyond").reset_index(name="RNAs")] if len(beyond) else []
    else:
        parts.append(_UNFAMILIAR)
    shown = rnas[["id", *familiar.MEASURES, "outside"]].join(highest).head(LISTED)
    parts += [f"# The first {len(shown)} RNAs", shown]
    return [*parts, *(["# Drawings", *charts] if charts else [])]
