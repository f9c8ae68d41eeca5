"""The parts of multipart/form-data: taken as photos, or refused in our words and without a line in the log."""

import pytest
from helpers.serving import multipart

uploads = pytest.importorskip("catdog_jax.serving.uploads", reason="the extra `serve` is not installed")

KIND = "multipart/form-data; boundary=B"


def part(headers: str, data: bytes = b"pixels") -> bytes:
    return b"--B\r\n" + "".join(f"{line}\r\n" for line in headers.split("\n")).encode() + b"\r\n" + data + b"\r\n"


def body(*parts: bytes) -> bytes:
    return b"".join([*parts, b"--B--\r\n"])


@pytest.mark.parametrize(
    ("headers", "name"),
    [
        ('Content-Disposition: form-data; name="f"; filename="a;b.jpg"', "a;b.jpg"),
        ('content-disposition: form-data; name="f"; filename="Kätzchen.jpg"\nContent-Type: text/plain', "Kätzchen.jpg"),
        ('Content-Disposition: form-data; filename=""', ""),
        ('Content-Disposition: form-data; name="f"\nContent-Type: image/png', None),
        ('Content-Disposition: form-data; name="f"\nContent-Type: Application/Octet-Stream', None),
        ("Content-Type: image/jpeg", None),
    ],
)
def test_a_file_is_a_photo_and_so_is_a_part_that_says_it_is_one(headers: str, name: str | None) -> None:
    data = bytes(range(256)) * 9 + b"\r\n--b\r\n--\r\n"
    assert uploads.photos(KIND, body(part(headers, data)), 16) == [(name, data)]


def test_photos_keep_their_order() -> None:
    assert uploads.photos(KIND, multipart(b"1", b"", b"3"), 3) == [("0", b"1"), ("1", b""), ("2", b"3")]


TEXT = part('Content-Disposition: form-data; name="comment"', b"hello")
WRONG = {
    "a text field": (
        KIND,
        body(TEXT),
        "part 'comment': expected a photo with a file name, found a text field. Leave it out.",
    ),
    "a text field with a type": (
        KIND,
        body(multipart(b"1")[:-7], part('Content-Disposition: form-data; name="a"\nContent-Type: text/plain')),
        "part 'a': expected a photo with a file name, found a text field. Leave it out.",
    ),
    "a part without a name": (
        KIND,
        body(part("X: y")),
        "part 1: expected a photo with a file name, found a text field. Leave it out.",
    ),
    "too many": (KIND, multipart(*[b"1"] * 4), "body: expected 1 to 3 photos, found more."),
    "none": (KIND, b"--B--\r\n", "body: expected 1 to 3 photos, found none."),
    "no end": (
        KIND,
        multipart(b"1", b"2")[:-9],
        "body: expected parts up to the closing boundary, found none. Was it cut off?",
    ),
    "nothing": (KIND, b"", "body: expected parts up to the closing boundary, found none. Was it cut off?"),
    "no parts": (
        KIND,
        b"no parts at all",
        "body: expected parts as multipart/form-data divides them, found a malformed part.",
    ),
    "a bad header": (
        KIND,
        body(part("no colon")),
        "body: expected parts as multipart/form-data divides them, found a malformed part.",
    ),
    "a long header": (
        KIND,
        body(part("X: " + "y" * 9999)),
        "body: expected parts as multipart/form-data divides them, found a malformed part.",
    ),
    "no boundary": (
        "multipart/form-data",
        b"",
        "content-type: expected multipart/form-data with a boundary, found none.",
    ),
    "a long boundary": (
        f"{KIND}{'B' * 999}",
        b"",
        "body: expected parts as multipart/form-data divides them, found a malformed part.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_is_wrong_is_said_in_our_words(case: str) -> None:
    kind, sent, expected = WRONG[case]
    with pytest.raises(uploads.UploadError) as caught:
        uploads.photos(kind, sent, 3)
    assert str(caught.value) == expected
