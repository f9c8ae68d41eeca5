"""The audit of drawn pictures with planted faults: recall of each kind, the page, the exit status, the list of photos."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy as np
import pytest
from helpers.planted_faults import plant, recall
from PIL import Image

from catdog_jax import cli
from catdog_jax.auditing import audit, drift, page
from catdog_jax.auditing.drift import Drift, Drifts
from catdog_jax.auditing.duplicates import Duplicates
from catdog_jax.auditing.evidence import Copies, Evidence, Fault, Look, Photo
from catdog_jax.auditing.file_faults import FileFaults
from catdog_jax.auditing.findings import Check, Findings
from catdog_jax.auditing.label_errors import LabelError, LabelErrors
from catdog_jax.auditing.page import Section, Shown
from catdog_jax.commands import audit as audit_command
from catdog_jax.errors import UsageError
from catdog_jax.features import shards
from catdog_jax.features.cache import FeatureCache
from catdog_jax.files import atomic
from catdog_jax.photos import exclude_list, sources
from catdog_jax.photos.demo import drawing
from catdog_jax.photos.fingerprint import Fingerprint

pytestmark = pytest.mark.lenient_types
NUMBERS = {"swapped": 2, "across": 2, "encoded": 2, "truncated": 2, "text": 1}
EVIL = '"><script>alert(1)</script><img src=x onerror=alert(1)>&{0}%s'


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    root = tmp_path_factory.mktemp("drawn")
    drawing.draw_dataset(root, counts={"train": 40, "validation": 24, "test": 24})
    return root


def write_cache(source, out) -> None:
    """Features that tell the true classes apart, of the sound photos."""
    dataset, rng, names = sources.load(str(source)), np.random.default_rng(0), []
    shared = Fingerprint(weights_sha256="0", pool="avg", views=("original",), dtype="float16", classes=("cats", "dogs"))
    for split in sources.SPLITS:
        records = dataset.split(split)
        labels = [record.label for record in records]
        x = np.abs(rng.normal(size=(len(records), 1, 512)) + 1).astype(np.float32)
        x[:, 0, :40] += 3 * np.array(labels, np.float32)[:, None]
        hashes = [atomic.sha256(record.read()) for record in records]
        names.append(f"{split}-00000-of-00001")
        shards.write_shard(out, names[-1], shards.Rows([r.id for r in records], labels, hashes, [], [x]), shared)
    shards.write_manifest(out, str(source), names, shared)


def test_planted_faults_are_found_and_the_list_settles_them(source, tmp_path, capsys):
    planted = plant(source, tmp_path / "photos", NUMBERS)
    write_cache(source, tmp_path / "features")
    command = ["audit", "--data", str(tmp_path / "photos"), "--features", str(tmp_path / "features"), "--strict"]
    listed = tmp_path / "exclude.txt"
    assert cli.main([*command, "--out", str(tmp_path / "audit"), "--write-exclude", str(listed)]) == 3
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert recall(found, planted) == NUMBERS
    assert len(found["faulty"]) == 3
    assert len(found["copies"]) == 4  # no drawn picture is taken for another
    assert [one["split"] for one in found["drift"]] == ["validation", "test"]
    assert all(one["low"] < drift.DRIFTED for one in found["drift"])
    shown, notes = capsys.readouterr()
    assert all(words in shown and words not in notes for words in ("Audit of", "across splits", "truncated"))
    assert "Page: " in notes
    page = (tmp_path / "audit" / "audit.html").read_text()
    assert page.count("<img") >= 8

    names = exclude_list.read(listed)
    assert names.isdisjoint(planted["swapped"])  # for a person to decide
    assert {pair[0] for pair in planted["across"]} <= names  # the copy that is tested on stays
    assert {*planted["truncated"], *planted["text"]} <= names
    lines = listed.read_text().splitlines()
    suspects = [one["photo"]["id"] for one in found["suspicions"] if one["suspect"]]
    assert set(suspects) & set(planted["swapped"])
    assert all(f"# {one}" in lines for one in suspects)
    # Looked at: the labels are wrong
    exclude_list.write(listed, [*lines, *map(exclude_list.line, planted["swapped"])])
    assert cli.main([*command, "--out", str(tmp_path / "again"), "--exclude", str(listed)]) in (0, 3)
    again = json.loads((tmp_path / "again" / "audit.json").read_text())
    assert not again["faulty"]
    assert not again["copies"]
    assert not {one["photo"]["id"] for one in again["suspicions"]} & set(planted["swapped"])


def test_what_no_stage_takes_is_found(source, tmp_path, capsys):
    shutil.copytree(source, tmp_path / "photos")
    command = ["audit", "--data", str(tmp_path / "photos"), "--strict", "--out", str(tmp_path / "audit")]
    (tmp_path / "photos" / "train" / "cats" / "notes.txt").write_text("text")
    assert cli.main(command) == 0
    assert "left out: 1 .txt\n" in capsys.readouterr().out
    (tmp_path / "photos" / "train" / "cats" / "phone.jxl").write_bytes(b"\xff\x0a\xfa\x7f")
    assert cli.main(command) == 3
    line = "left out: 1 .jxl, 1 .txt; 1 of them look like pictures, for example 'train/cats/phone.jxl'"
    assert line in capsys.readouterr().out
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert {one["kind"]: one["pictures"] for one in found["left_out"]} == {".jxl": 1, ".txt": 0}
    assert line in Tags((tmp_path / "audit" / "audit.html").read_text()).text


def test_names_that_are_not_utf8_pass_through(source, tmp_path, capsys):
    shutil.copytree(source, tmp_path / "photos")
    folder = tmp_path / "photos" / "train" / "cats"
    (folder / os.fsdecode(b"caf\xe9.jpg")).write_bytes(b"no photo")
    (folder / os.fsdecode(b"caf\xe9.h\xe9ic")).write_bytes(b"\xff\x0a\xfa\x7f")
    assert cli.main(["audit", "--data", str(tmp_path / "photos"), "--strict", "--out", str(tmp_path / "audit")]) == 3
    found = json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert found["faulty"][0]["photo"]["id"] == "train/cats/caf\udce9.jpg"
    assert found["left_out"][0]["kind"] == ".h\udce9ic"
    assert r"left out: 1 .h\udce9ic; 1 of them look like pictures" in capsys.readouterr().out
    assert r"caf\udce9.jpg" in (tmp_path / "audit" / "audit.html").read_text()


def test_a_data_set_that_lacks_a_split_is_looked_at_all_the_same(source, tmp_path, capsys):
    shutil.copytree(source / "test", tmp_path / "photos" / "validation")
    assert cli.main(["audit", "--data", str(tmp_path / "photos"), "--strict", "--out", str(tmp_path / "audit")]) == 3
    assert "No photos of 'cats' in the train split: `catdog extract` needs some." in capsys.readouterr().out


def test_a_cameras_jpeg_of_several_pictures_is_no_fault(source, tmp_path):
    drawing.draw_dataset(tmp_path / "photos", seed=3, counts={"train": 1, "validation": 1, "test": 1})
    path = tmp_path / "photos" / "train" / "cats" / "cat.000.jpg"
    with Image.open(path) as image:
        image.save(path.with_name("mpo.tmp"), "MPO", save_all=True, append_images=[image.rotate(180)])
    os.replace(path.with_name("mpo.tmp"), path)
    assert not audit.audit(sources.load(str(tmp_path / "photos")))["file faults"]


def test_without_features_neither_jax_is_imported_nor_a_label_checked(source, tmp_path):
    code = "import sys\nfrom catdog_jax import cli\n"
    code += f"status = cli.main(['audit', '--data', {str(source)!r}, '--out', {str(tmp_path)!r}, '--strict'])\n"
    code += "print(status, sorted({'jax', 'flax', 'sklearn', 'matplotlib', 'scipy'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("nothing was found that speaks against training\n")
    assert done.stdout.endswith("\n0 []\n")  # nothing is wrong with the drawings
    assert "catdog audit --features CACHE" in done.stdout


def test_features_of_other_photos_are_an_error(source, tmp_path, capsys):
    drawing.draw_dataset(tmp_path / "others", seed=5, counts={"train": 1, "validation": 1, "test": 1})
    write_cache(tmp_path / "others", tmp_path / "features")
    command = [
        "audit",
        "--data",
        str(source),
        "--features",
        str(tmp_path / "features"),
        "--out",
        str(tmp_path / "audit"),
    ]
    assert cli.main(command) == 1
    assert "expected features of photos of" in capsys.readouterr().err
    assert cli.main(["audit", "--data", "demo", "--workers", "0"]) == 2
    assert "--workers: expected 1 or more" in capsys.readouterr().err


class Tags(HTMLParser):
    def __init__(self, page: str):
        super().__init__()
        self.found: list[tuple[str, dict]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))

    def handle_data(self, text):
        self.text += text


def findings_of(*checks: Check, classes: tuple[str, str] = ("cats", "dogs"), **changes) -> Findings:
    counts = {split: dict(zip(classes, (1, 2), strict=True)) for split in sources.SPLITS}
    return Findings("x", classes, counts, checks, **changes)


def copies(*photos: Photo, exact: bool = True) -> Copies:
    return Copies(photos, tuple(range(len(photos))), exact, 1.0, 0.99, not exact)


def test_the_page_escapes_every_name_and_holds_all_it_shows(monkeypatch):
    evil, other = Photo(EVIL, "train", EVIL), Photo("b.jpg", "test", "dogs")
    checks = (
        FileFaults((Fault(evil, "unreadable", EVIL),), 3),
        Duplicates((copies(evil, other, exact=False),)),
        LabelErrors((LabelError(evil, EVIL, 0.99999, True),), 3, 0.9),
        Drifts((Drift("test", 0.7, 0.6, 0.8),)),
    )
    monkeypatch.setattr(page, "thumbnails", lambda *_: {"b.jpg": (b"jpeg", (160, 90))})
    dataset = sources.Dataset(EVIL, (EVIL, "dogs"), ())
    findings = dataclasses.replace(
        findings_of(*checks, classes=(EVIL, "dogs"), told=(EVIL,), dataset=dataset), source=EVIL
    )
    tree = Tags(findings.report())
    assert not any(tag == "script" for tag, _ in tree.found)
    images = [attributes for tag, attributes in tree.found if tag == "img"]
    assert images == [
        {"src": "data:image/jpeg;base64,anBlZw==", "width": "160", "height": "90", "alt": "Photo labelled dogs"}
    ]
    assert tree.text.count(EVIL) == 11
    assert "over 99.99" in tree.text
    assert "0.600 – 0.800" in tree.text
    assert not any(value.startswith("http") for _, attributes in tree.found for value in attributes.values() if value)
    frame = Tags(findings._repr_html_())
    assert [tag for tag, _ in frame.found] == ["iframe"]
    assert frame.found[0][1]["srcdoc"] == findings.report()


def test_what_is_too_much_to_list_is_counted(capsys):
    photos = tuple(Photo(f"{i}.jpg", "train", "cats") for i in range(102))
    across = copies(*photos, Photo("102.jpg", "test", "cats"))
    within = copies(*photos, Photo("102.jpg", "train", "cats"))
    faults = FileFaults(tuple(Fault(photo, "truncated", "cut") for photo in photos[:12]), 103)
    findings = findings_of(faults, Duplicates((across, across, *[within] * 9)))
    assert Tags(findings.report()).text.count("3 more are in audit.json.") == 11
    audit_command._report(findings)
    shown = capsys.readouterr().out
    assert shown.count(": truncated: ") == 10
    assert "… 2 more are in audit.json" in shown
    assert shown.count("across splits: ") == 2
    assert shown.count("more are") == 1


def test_of_copies_the_one_that_is_tested_on_stays_and_of_these_the_largest(source):
    photos = [Photo("a", "train", "cats"), Photo("b", "test", "cats"), Photo("c", "test", "cats")]
    looks = [Look(photo, "", size=(side, side), pixels=b"x") for photo, side in zip(photos, (90, 20, 30), strict=True)]
    opposite = [Look(Photo(name, "train", label), "", pixels=b"y") for name, label in (("d", "cats"), ("e", "dogs"))]
    groups = audit.duplicates.find([*looks, *opposite])
    assert [photo.id for photo in groups[0].photos] == ["c", "b", "a"]
    assert (groups[0].across, groups[0].opposite, groups[1].opposite) == (True, False, True)
    found = Duplicates.find(Evidence(sources.load(str(source)), looks, groups, None, 0))
    assert found.found == (groups[1], groups[0])  # opposite labels first
    kept = [line for line in findings_of(found).exclude() if not line.startswith("#")]
    assert kept == ["d", "e", "b", "a"]  # of contradicting labels none stays


# ----------------------------------------------------------------------------------------------------
# from Python


def test_python_gets_what_the_command_writes(source, tmp_path):
    planted = plant(source, tmp_path / "photos", NUMBERS)
    write_cache(source, tmp_path / "features")
    data, cache = str(tmp_path / "photos"), tmp_path / "features"
    assert cli.main(["audit", "--data", data, "--features", str(cache), "--out", str(tmp_path / "audit")]) == 0
    findings = audit.audit(sources.load(data), features=FeatureCache.open(cache))
    findings.save(tmp_path / "saved")
    for name in ("audit.json", "audit.html"):
        assert (tmp_path / "saved" / name).read_bytes() == (tmp_path / "audit" / name).read_bytes()
    assert {fault.photo.id for fault in findings["file faults"]} == {*planted["truncated"], *planted["text"]}
    assert len(findings["copies"]) == 4
    assert [drift.split for drift in findings["drift"]] == ["validation", "test"]
    assert "truncated 2: ends before its picture does" in repr(findings)


def test_wrong_arguments_are_named(source):
    with pytest.raises(TypeError, match="photos: expected a Dataset, found str"):
        audit.audit(str(source))
    with pytest.raises(UsageError, match="--seed: expected 0 or more, found -1"):
        audit.audit(sources.load(str(source)), seed=-1)


@dataclasses.dataclass(frozen=True)
class Long(Check):
    """A further check, as its module would have it."""

    name = "long names"
    found: tuple[Photo, ...]

    @classmethod
    def find(cls, evidence):
        return cls(tuple(look.photo for look in evidence.looks if len(look.photo.id) > 20))

    def rows(self):
        return [("long names", f"{len(self.found)}", "over 20 letters")]

    def section(self):
        return Section("Long names", photos=[Shown(photo.id, photo.label, ("long",)) for photo in self.found])

    def to_json(self):
        return {"long_names": [photo.id for photo in self.found]}


def test_a_further_check_is_a_class_and_a_line(source, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(audit, "CHECKS", (*audit.CHECKS, Long))
    assert cli.main(["audit", "--data", str(source), "--strict", "--out", str(tmp_path)]) == 3
    names = [record.id for record in sources.load(str(source)).records if len(record.id) > 20]
    assert json.loads((tmp_path / "audit.json").read_text())["long_names"] == names
    assert f"│ {len(names)}" in capsys.readouterr().out
    assert (tmp_path / "audit.html").read_text().count('<img src="data:image/jpeg') == len(names)
