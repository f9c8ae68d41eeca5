"""The photos of a request of multipart/form-data or JSON, in memory, or what is wrong with it in our words."""

import base64
import binascii
import json
from typing import Any, NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from catdog_jax.errors import CatdogError

_JSON = 'a JSON object {"photos": [{"data": BASE64}]}'
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


def json_photos(body: bytes, most: int) -> list[Upload]:
    """The photos of a JSON request: `{"photos": [{"data": BASE64, "name": "cat.jpg"}]}`, whose names may be left out.

    Raises:
      UploadError: it is another object, or holds no photo or too many, or one that is not base64.

    Example:
      >>> json_photos(b'{"photos": [{"data": "Y2F0"}]}', 16)
      [Upload(name=None, data=b'cat')]
    """
    try:
        request = json.loads(body)
    except (ValueError, RecursionError):
        raise UploadError(f"body: expected {_JSON}, found no JSON.") from None
    if not isinstance(request, dict) or set(request) != {"photos"}:
        found = _text_of(sorted(request)) if isinstance(request, dict) else type(request).__name__
        raise UploadError(f"body: expected {_JSON}, found {found}.")
    photos = request["photos"]
    if not isinstance(photos, list) or not 1 <= len(photos) <= most:
        found = f"{len(photos)}" if isinstance(photos, list) else type(photos).__name__
        raise UploadError(f"photos: expected a list of 1 to {most} photos, found {found}.")
    return [_json_photo(f"photos[{i}]", photo) for i, photo in enumerate(photos)]


def _json_photo(where: str, photo: Any) -> Upload:
    if not isinstance(photo, dict) or not {"data"} <= set(photo) <= {"data", "name"}:
        found = _text_of(sorted(photo)) if isinstance(photo, dict) else type(photo).__name__
        raise UploadError(f"{where}: expected an object with data and, if you like, a name, found {found}.")
    name, data = photo.get("name"), photo["data"]
    if name is not None and not isinstance(name, str):
        raise UploadError(f"{where}.name: expected a text, found {type(name).__name__}.")
    if not isinstance(data, str):
        raise UploadError(f"{where}.data: expected base64, found {type(data).__name__}.")
    if data.startswith("data:"):
        raise UploadError(f"{where}.data: expected base64, found a data: address. Send what is behind its comma.")
    try:
        return Upload(name, base64.b64decode("".join(data.split()), validate=True))
    except (binascii.Error, ValueError) as error:
        raise UploadError(f"{where}.data: expected base64, found other text ({error}).") from None


def _text_of(names: list[str]) -> str:
    return ", ".join(map(repr, names))[:100] or "nothing"


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
