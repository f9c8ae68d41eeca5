"""The photos of a request of multipart/form-data: its parts, in memory, or what is wrong with it in our words."""

from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from catdog_jax.errors import CatdogError

_KINDS = ("image/", "application/octet-stream")  # of a part that is a photo though it has no file name


class UploadError(CatdogError):
    """A request that does not hold photos as it should. The message says what was expected and found."""


class Upload(NamedTuple):
    """A photo as it came: its file's name, where it has one, and its bytes."""

    name: str | None
    data: bytes


def photos(content_type: str, body: bytes, most: int) -> list[Upload]:
    """The photos of a request.

    Raises:
      UploadError: it is not divided by its boundary, or a part of it is no file, or it holds no
        photo or too many.
    """
    form = _Form(most)
    try:
        boundary = parse_options_header(content_type)[1][b"boundary"]
        events = (
            "part_begin",
            "part_data",
            "part_end",
            "header_field",
            "header_value",
            "header_end",
            "headers_finished",
            "end",
        )
        parser = MultipartParser(boundary, {f"on_{event}": getattr(form, event) for event in events})  # type: ignore[arg-type]
        parser.write(body)
    except KeyError:
        raise UploadError("content-type: expected multipart/form-data with a boundary, found none.") from None
    except FormParserError:
        raise UploadError("body: expected parts as multipart/form-data divides them, found a malformed part.") from None
    if not form.ended:
        raise UploadError("body: expected parts up to the closing boundary, found none. Was it cut off?")
    if not form.uploads:
        raise form.wrong_number("none")
    return form.uploads


class _Form:
    """What the parser calls, with places in the body."""

    def __init__(self, most: int):
        self.uploads: list[Upload] = []
        self.ended = False
        self._most, self._parts = most, 0

    def part_begin(self) -> None:
        self._parts += 1
        self._headers: dict[bytes, bytes] = {}
        self._field, self._value, self._data = bytearray(), bytearray(), bytearray()

    def header_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]

    def header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def header_end(self) -> None:
        self._headers[bytes(self._field).lower()] = bytes(self._value)
        self._field.clear()
        self._value.clear()

    def headers_finished(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition"))[1]
        kind = self._headers.get(b"content-type", b"").decode("latin-1").lower()
        file = options.get(b"filename")
        if file is None and not kind.startswith(_KINDS):
            name = repr(_text(options[b"name"])[:100]) if b"name" in options else str(self._parts)
            raise UploadError(f"part {name}: expected a photo with a file name, found a text field. Leave it out.")
        if len(self.uploads) == self._most:
            raise self.wrong_number("more")
        self._name = None if file is None else _text(file)

    def part_data(self, data: bytes, start: int, end: int) -> None:
        self._data += data[start:end]

    def part_end(self) -> None:
        self.uploads.append(Upload(self._name, bytes(self._data)))

    def end(self) -> None:
        self.ended = True

    def wrong_number(self, found: str) -> UploadError:
        return UploadError(f"body: expected 1 to {self._most} photos, found {found}.")


def _text(name: bytes) -> str:
    try:
        return name.decode()
    except UnicodeDecodeError:
        return name.decode("latin-1")
