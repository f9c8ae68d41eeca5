"""A folder of files that classifies in the browser alone: the page of `catdog serve`, the model, and ONNX Runtime for browsers.

Any host of static files will do, with no header of its own: the runtime is the single-threaded one.
The photos stay with their owner.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic, atomic_folder, sealed
from catdog_jax.runtime import decision, model_file

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
INTEGRITY = (
    # As npm writes it
    "sha512-q0y+JrrtukXSzsBWEMccVfqX25LRmosXHF+CaRJmg8pZClzcV7svNc4rKY3jL02Vb7QmRMDs1SigqR4CXAfKYQ=="
)
LICENCE = f"{PACKAGE} {VERSION}: MIT (Microsoft)"
_MEMBERS = {  # of the package -> of the folder; .js, because not every host knows the media type of .mjs
    "package/dist/ort.wasm.bundle.min.mjs": "ort.js",
    "package/dist/ort-wasm-simd-threaded.wasm": "ort.wasm",
}
_PAGE = Path(__file__).parents[1] / "page"
_SECONDS = 600  # for npm


def check(directory: Path, runtime: Path | None = None) -> None:
    """Refuses a folder that `write` could not write, and gets the runtime, so that both are said before the work begins.

    Raises:
      CatdogError: as `atomic_folder.check_replaceable`, or the runtime cannot be had.
    """
    atomic_folder.check_replaceable(directory, "--web")
    _package(runtime)


def write(directory: Path, model: bytes, runtime: Path | None = None) -> Path:
    """Writes the folder, whole or not at all.

    The model is what `catdog export` writes, any precision, with or without a heat map;
    `runtime` is the file of the pinned npm package, which npm fetches by default, once, into
    the cache.

    Raises:
      CatdogError: the folder cannot be written or holds files of other origin, or the runtime
        cannot be had.
    """
    package = _package(runtime)
    with atomic_folder.folder_writer(directory, "--web") as folder:
        for source in (_PAGE, _PAGE / "web"):  # whose backend.js takes the other's place
            for file in filter(Path.is_file, source.iterdir()):
                shutil.copyfile(file, folder / file.name)
        with tarfile.open(package) as archive:
            for member, name in _MEMBERS.items():
                (folder / name).write_bytes(archive.extractfile(member).read())  # type: ignore[union-attr] # the hash is known
        atomic.write_bytes(folder / "model.onnx", model)
        sealed.write_json(folder / "model.json", about(model))
    return directory


def about(model: bytes) -> dict[str, object]:
    """What the page wants to know of a model, from its metadata: classes, how it decides and decodes, licences."""
    metadata = model_file.described(model).metadata
    licences = {**json.loads(metadata.get("licences", "{}")), "runtime": LICENCE}
    rule = decision.stored(metadata)
    recipe = json.loads(metadata["recipe"])
    return {"classes": rule.classes, "decision": rule.settings(), "recipe": recipe, "licences": licences}


def _package(named: Path | None) -> Path:
    """The pinned package's file, with the right content."""
    path = named or atomic.cache_directory() / f"{PACKAGE}-{VERSION}.tgz"
    if named is None and not path.exists():
        _fetch(path)
    else:
        _check_integrity(
            path, "Name the file of that version with --web-runtime." if named else "Delete it and run again."
        )
    return path


def _check_integrity(path: Path, advice: str) -> None:
    try:
        with open(path, "rb") as file:
            integrity = "sha512-" + base64.b64encode(hashlib.file_digest(file, "sha512").digest()).decode()
    except OSError as error:
        raise CatdogError(f"{path}: expected {PACKAGE} {VERSION}, found: {error.strerror}. {advice}") from None
    if integrity != INTEGRITY:
        raise CatdogError(f"{path}: expected {PACKAGE} {VERSION} with {INTEGRITY}, found {integrity}. {advice}")


def _fetch(path: Path) -> None:
    """Lets npm fetch the package, from whatever registry it is set up for; it takes its name when its hash is right."""
    advice = f"Or name the file of the package, {path.name}, with --web-runtime."
    npm = shutil.which("npm")
    if npm is None:
        raise CatdogError(f"--web: expected npm to fetch {PACKAGE} {VERSION}, found none. Install Node.js. {advice}")
    quiet = ("--loglevel=error", "--ignore-scripts", "--no-update-notifier", "--no-audit", "--no-fund")
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", *quiet]
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".npm.") as folder:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_SECONDS)
            packed = Path(folder, path.name)
            if done.returncode or not packed.is_file():
                reason = " ".join(done.stderr.replace("npm error", "").split())[:300] or f"status {done.returncode}"
                raise CatdogError(f"npm pack {PACKAGE}@{VERSION}: expected a file, found: {reason}. {advice}")
            _check_integrity(packed, f"It was removed; check npm's registry. {advice}")
            os.replace(packed, path)
    except subprocess.TimeoutExpired:
        raise CatdogError(
            f"npm pack {PACKAGE}@{VERSION}: expected a file within {_SECONDS} s, found none. {advice}"
        ) from None
    except OSError as error:
        raise CatdogError(f"{path}: cannot be written: {error.strerror}. Free space or set CATDOG_CACHE.") from error
