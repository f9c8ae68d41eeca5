"""Bad, odd and rare photos, each with its verdict: what `decoding.decode` makes of the corners, or a part of the refusal.

Every file is drawn when it is asked for; none takes more than a second.
"""

import base64
import io
import os
import re
import socket
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin

Colour = tuple[int, int, int]
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
FOUR = (RED, GREEN, BLUE, GREY)
DAMAGED = "damaged or truncated"
FOREIGN = "expected JPEG, PNG, WEBP, BMP, GIF, TIFF, AVIF, HEIF, found"
LARGE = "expected (1 to|at most) 67,108,864 pixels, found"


class Case(NamedTuple):
    """One file.

    Attributes:
      name: of the file; a case of its own where the name is what is odd.
      place: puts it at a path.
      corners: the colours top left, top right, bottom left, bottom right; None where it is refused.
      refusal: a pattern of a part of the reason.
      tolerance: how far a colour may be off.
    """

    name: str
    place: Callable[[Path], object]
    corners: tuple[Colour, ...] | None = None
    refusal: str = ""
    tolerance: int = 6

    def check(self, pixels: np.ndarray | None, reason: str) -> None:
        """Asserts that this is the verdict: the pixels, or the reason why there are none."""
        assert (pixels is None) == (self.corners is None), f"{self.name!r}: {reason or 'taken'}"
        if pixels is None:
            assert re.search(self.refusal, reason), f"{self.name!r}: {reason}"
        else:
            found = np.array([pixels[y, x] for y in (8, -9) for x in (8, -9)], int)
            assert np.abs(found - np.array(self.corners)).max() <= self.tolerance, f"{self.name!r}: {found.tolist()}"


def cases() -> list[Case]:
    """All of them."""
    return [*_cut(), *_foreign(), *_large(), *_bombs(), *_modes(), *_exif(), *_animations(), *_jpegs(), *_pngs(), *_others(),
            *_tiffs(), *_avifs(), *_heics(), *_names(), *_no_files()]  # fmt: skip


def quarters(mode: str = "RGB", side: int = 64) -> Image.Image:
    picture = Image.new("RGB", (side, side))
    for i, colour in enumerate(FOUR):
        picture.paste(colour, (side // 2 * (i % 2), side // 2 * (i // 2), side, side))
    return picture.convert(mode)


def encoded(picture: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, form, **options)
    return buffer.getvalue()


def jpeg(**options: object) -> bytes:
    return encoded(quarters(), "JPEG", quality=95, subsampling=0, **options)


def noise(form: str) -> bytes:
    return encoded(Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)), form)


def good(name: str, data: bytes, corners: tuple[Colour, ...] = FOUR, tolerance: int = 6) -> Case:
    return Case(name, lambda path: path.write_bytes(data), corners, tolerance=tolerance)


def bad(name: str, data: bytes, refusal: str) -> Case:
    return Case(name, lambda path: path.write_bytes(data), refusal=refusal)


def _cut() -> Iterator[Case]:
    for form in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "AVIF"):
        data = noise(form)
        for share in (10, 50, 99):
            yield bad(f"cut-{share}.{form.lower()}.jpg", data[: len(data) * share // 100], f"{DAMAGED}|{FOREIGN}")
    yield bad("empty.jpg", b"", "found an empty file")
    yield bad("zeros.jpg", bytes(10_000), f"{FOREIGN} unknown content")
    yield bad("only-the-start.jpg", b"\xff\xd8\xff", f"{DAMAGED}|{FOREIGN}")


def _foreign() -> Iterator[Case]:
    yield bad("page.jpg", b"<!doctype html><title>404</title>", "found what looks like HTML")
    yield bad("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg' width='1' height='1'/>", "HTML, XML or SVG")
    yield bad("postscript.jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(touch canary) system\n", FOREIGN)
    yield bad("stars.jpg", b"SIMPLE  =                    T".ljust(2880), FOREIGN)
    yield bad("icon.png", encoded(quarters(), "ICO"), FOREIGN)
    yield bad("jpeg2000.jpg", encoded(quarters(), "JPEG2000"), FOREIGN)
    yield bad("portable.bmp", encoded(quarters(), "PPM"), FOREIGN)
    yield bad("document.jpg", b"%PDF-1.7\n" + bytes(99), FOREIGN)
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("photo.jpg", bytes(10**6))
    yield bad("archive.jpg", archive.getvalue(), FOREIGN)
    yield good("photo-with-an-archive-behind.jpg", jpeg() + archive.getvalue())
    yield good("png-named.jpg", encoded(quarters(), "PNG"), tolerance=0)


def png(width: int, height: int, rows: bytes, depth: int = 8, colour: int = 0, extra: bytes = b"") -> bytes:
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + extra + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def bmp(width: int, height: int) -> bytes:
    return struct.pack("<2sIII", b"BM", 54, 0, 54) + struct.pack(
        "<IiiHHIIIIII", 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0
    )


def gif(screen: tuple[int, int], frame: tuple[int, int]) -> bytes:
    table = struct.pack("<HHBBB", *screen, 0x80, 0, 0) + bytes(6)
    return b"GIF89a" + table + b"," + struct.pack("<HHHHB", 0, 0, *frame, 0) + b"\x02\x02\x44\x01\0;"


def _large() -> Iterator[Case]:
    start = noise("JPEG")
    size = start.index(b"\xff\xc0") + 5
    yield bad("50k.png", png(50_000, 50_000, b""), LARGE)
    yield bad("50k.jpg", start[:size] + struct.pack(">HH", 50_000, 50_000) + start[size + 4 :], LARGE)
    yield bad("50k.bmp", bmp(50_000, 50_000), LARGE)
    yield bad("50k.gif.jpg", gif((50_000, 50_000), (9, 9)), LARGE)
    yield bad("small-screen-large-frame.gif.jpg", gif((9, 9), (50_000, 50_000)), LARGE)
    yield bad("10k.png", png(10_000, 10_000, b""), LARGE + " 10000 x 10000")  # where Pillow only warns
    yield bad("just-over.png", png(8193, 8192, b""), LARGE + " 8193 x 8192")
    yield good("just-under.png", png(8192, 8192, bytes(8192 * 1025), depth=1), (BLACK,) * 4)
    yield good("a-line.png", png(2**22, 1, b"\0" + b"\xff" * 2**22), (WHITE,) * 4)
    yield good("a-column.png", png(1, 2**20, b"\0\xff" * 2**20), (WHITE,) * 4)
    yield good("one-pixel.png", png(1, 1, b"\0\x80"), (GREY,) * 4)
    yield bad("no-pixel.png", png(0, 9, b""), f"{LARGE}|{DAMAGED}|{FOREIGN}")
    yield bad("negative.bmp", bmp(-9, 9), LARGE)


def scans(side: int, count: int) -> bytes:
    """A progressive JPEG whose scans are hardly there and each cost a pass over all pixels."""
    blocks = (side // 8) ** 2
    bits = ("0" + "1" * 14) * -(-blocks // 32_767)
    bits += "1" * (-len(bits) % 8)
    zeros = int(bits, 2).to_bytes(len(bits) // 8).replace(b"\xff", b"\xff\0")
    tables = segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + b"\1\x11\0")
    tables += segment(0xC4, b"\0\1" + bytes(16)) + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    first = segment(0xDA, b"\1\1" + bytes(4)) + bytes(-(-blocks // 8))
    return b"\xff\xd8" + tables + first + (segment(0xDA, b"\1\1\0\1\x3f\0") + zeros) * count + b"\xff\xd9"


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(body) + 2) + body


def _bombs() -> Iterator[Case]:
    zeros = zlib.compress(bytes(2**26), 9)
    text = chunk(b"zTXt", b"Comment\0\0" + zeros)
    many = chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(2**20 - 1), 9)) * 100
    yield bad("text-bomb.png", png(9, 9, bytes(90), extra=text), DAMAGED)
    yield bad("many-texts.png", png(9, 9, bytes(90), extra=many), DAMAGED)
    yield bad("itxt-bomb.png", png(9, 9, bytes(90), extra=chunk(b"iTXt", b"Comment\0\1\0\0\0" + zeros)), DAMAGED)
    yield bad("profile-bomb.png", png(9, 9, bytes(90), extra=chunk(b"iCCP", b"icc\0\0" + zeros)), DAMAGED)
    yield good("more-rows-than-said.png", png(9, 9, bytes(2**24)), (BLACK,) * 4)
    yield good("sixteen-bits-large.png", png(8192, 4096, bytes(4096 * 16385), depth=16), (BLACK,) * 4)
    yield bad("100,000-scans.jpg", scans(8192, 100_000), "expected a JPEG of at most 100 scans")
    yield good("100-scans.jpg", scans(256, 99), (GREY,) * 4)


def _modes() -> Iterator[Case]:
    shades = ((76,) * 3, (150,) * 3, (29,) * 3, GREY)
    yield good("grey.jpg", encoded(quarters("L"), "JPEG", quality=95), shades)
    yield good("cmyk.jpg", encoded(quarters("CMYK"), "JPEG", quality=95))
    yield good("grey-and-alpha.png", encoded(Image.new("LA", (9, 9), (0, 0)), "PNG"), (WHITE,) * 4)
    yield good("alpha.png", encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 51)), "PNG"), ((204,) * 3,) * 4)
    yield good(
        "alpha.webp", encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 51)), "WEBP", lossless=True), ((204,) * 3,) * 4
    )
    palette = quarters().quantize(4)
    top_left = palette.getpixel((0, 0))
    yield good("palette.png", encoded(palette, "PNG"))
    yield good("palette-and-alpha.png", encoded(palette, "PNG", transparency=top_left), (WHITE, GREEN, BLUE, GREY))
    clear = bytes(0 if i == top_left else 255 for i in range(4))
    yield good("palette-and-alphas.png", encoded(palette, "PNG", transparency=clear), (WHITE, GREEN, BLUE, GREY))
    yield good(
        "beyond-the-palette.png", png(9, 9, b"\0\7\7\7\7\7\7\7\7\7" * 9, 8, 3, chunk(b"PLTE", bytes(6))), (BLACK,) * 4
    )
    yield good("sixteen-bits.png", encoded(Image.new("I;16", (9, 9), 257 * 128), "PNG"), (GREY,) * 4)
    yield good("sixteen-bits-colour.png", png(9, 9, (b"\0" + b"\xff\xff\0\0\0\0" * 9) * 9, 16, 2), (RED,) * 4)
    clear = chunk(b"tRNS", b"\x80\x80")
    yield good("sixteen-bits-and-alpha.png", png(9, 9, (b"\0" + b"\x80\x80" * 9) * 9, 16, 0, clear), (GREY,) * 4)
    yield good("one-bit.png", encoded(Image.new("1", (9, 9), 1), "PNG"), (WHITE,) * 4)


def oriented(orientation: int) -> tuple[Colour, ...]:
    """The corners of `FOUR` once turned, from the Exif standard's words: where the 0th row and column lie."""
    a, b, c, d = FOUR
    turned = {2: (b, a, d, c), 3: (d, c, b, a), 4: (c, d, a, b), 5: (a, c, b, d), 6: (c, a, d, b), 7: (d, b, c, a),
              8: (b, d, a, c)}  # fmt: skip
    return turned.get(orientation, FOUR)


def exif(orientation: int) -> Image.Exif:
    block = Image.Exif()
    block[0x0112] = orientation
    return block


def _exif() -> Iterator[Case]:
    for orientation in range(1, 9):
        yield good(f"orientation-{orientation}.jpg", jpeg(exif=exif(orientation)), oriented(orientation))
    yield good("orientation-6.png", encoded(quarters(), "PNG", exif=exif(6)), oriented(6))
    yield good("orientation-6.webp", encoded(quarters(), "WEBP", exif=exif(6), lossless=True), oriented(6))
    yield good("orientation-99.jpg", jpeg(exif=exif(99)))
    photo = jpeg()
    broken = segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\xff")
    loop = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 1, 0x8769, 4, 1, 8) + struct.pack("<I", 8))
    far = segment(0xE1, b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 9999, 0x0112, 2, 2**31, 2**31))
    huge = segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 200
    for name, block in {"broken": broken, "looping": loop, "far": far, "huge": huge}.items():
        yield good(f"{name}-exif.jpg", photo[:2] + block + photo[2:])


def _animations() -> Iterator[Case]:
    size, frame = struct.pack("<HH", 8, 8), b",\0\0\0\0\x08\0\x08\0\0\x02\x02\x44\x01\0"
    head = b"GIF89a" + size + b"\x80\0\0" + bytes(RED + BLUE)
    first = encoded(Image.new("RGB", (8, 8), RED), "GIF")
    yield good("10,000-frames.gif.jpg", first[:-1] + frame * 9_999 + b";", (RED,) * 4)
    yield bad("no-frame.gif.jpg", head + b";", f"{DAMAGED}|{FOREIGN}")
    still = encoded(Image.new("RGB", (8, 8), RED), "WEBP", lossless=True)[12:]
    place = struct.pack("<I", 0)[:3] * 2 + struct.pack("<I", 7)[:3] * 2 + struct.pack("<I", 10)[:3] + b"\0"
    frames = _riff(b"ANMF", place + still) * 10_000
    body = _riff(b"VP8X", b"\2\0\0\0" + struct.pack("<I", 7)[:3] * 2) + _riff(b"ANIM", bytes(6)) + frames
    yield good("10,000-frames.webp", _riff(b"RIFF", b"WEBP" + body), (RED,) * 4)
    pair = [Image.new("RGB", (8, 8), colour) for colour in (RED, BLUE)]
    yield good("animated.png", encoded(pair[0], "PNG", save_all=True, append_images=pair[1:]), (RED,) * 4)
    frames_said = chunk(b"acTL", struct.pack(">II", 2**31, 0))
    yield good("billions-of-frames.png", png(9, 9, bytes(90), extra=frames_said), (BLACK,) * 4)


def _riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


ARITHMETIC = (  # 16 x 16 pixels by libjpeg-turbo 3, because Pillow writes none
    "/9j/4AAQSkZJRgABAQAAAQABAAD/2wBDAAMCAgMCAgMDAwMEAwMEBQgFBQQEBQoHBwYIDAoMDAsKCwsNDhIQDQ4RDgsLEBYQERMUFRUVDA8XGBYUGBIUFRT/"
    "2wBDAQMEBAUEBQkFBQkUDQsNFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBQUFBT/yQARCAAQABADAREAAhEBAxEB"
    "/8wACgAQEAUBEBEF/9oADAMBAAIRAxEAPwD/ANlJHFQSonTeZL+bZisUoWVjWOor8K1aAUD/2Q=="
)


def _jpegs() -> Iterator[Case]:
    photo = jpeg()
    app0 = 4 + int.from_bytes(photo[4:6])
    yield good("no-jfif.jpg", photo[:2] + photo[app0:])
    yield good("progressive.jpg", jpeg(progressive=True))
    yield good("arithmetic.jpg", base64.b64decode(ARITHMETIC))
    yield good("restarts.jpg", jpeg(restart_marker_blocks=1))
    yield good("fill-bytes.jpg", photo[:2] + b"\xff" * 999 + photo[2:])
    yield good(
        "a-colour-profile.jpg", jpeg(icc_profile=ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    )
    yield good("a-broken-profile.jpg", jpeg(icc_profile=b"\xff" * 100_000))
    yield good("a-comment-like-scans.jpg", photo[:2] + segment(0xFE, b"\xff\xda\xff\xd9" * 1_000) + photo[2:])
    yield good("several-pictures.jpg", encoded(quarters(), "MPO", quality=95, subsampling=0, save_all=True,
                                              append_images=[Image.new("RGB", (8, 8))]))  # fmt: skip
    header = photo.index(b"\xff\xc0")
    yield bad("twelve-bits.jpg", photo[: header + 4] + b"\x0c" + photo[header + 5 :], DAMAGED)
    yield bad("five-channels.jpg", photo[: header + 9] + b"\5" + photo[header + 10 :], DAMAGED)
    yield bad("no-tables.jpg", photo[:2] + photo[header:], f"{DAMAGED}|{FOREIGN}")


def _pngs() -> Iterator[Case]:
    whole = encoded(quarters(), "PNG")
    place = whole.index(b"IDAT")
    yield bad("wrong-checksum.png", whole[: place + 20] + b"\0\1\2\3" + whole[place + 24 :], DAMAGED)
    yield bad("no-data.png", whole[: place - 4] + chunk(b"IEND", b""), DAMAGED)
    yield good("interlaced.png", encoded(quarters(), "PNG", interlace=1))
    note = PngImagePlugin.PngInfo()
    note.add_text("XML:com.adobe.xmp", "<x tiff:Orientation='6'" + "a" * 100_000)
    yield good("metadata-that-does-not-end.png", encoded(quarters(), "PNG", pnginfo=note))
    yield good(
        "a-broken-profile.png", png(9, 9, bytes(90), extra=chunk(b"iCCP", b"icc\0\0" + b"\xff" * 99)), (BLACK,) * 4
    )
    yield bad("unknown-compression.png", whole[:26] + b"\7" + whole[27:], f"{DAMAGED}|{FOREIGN}")


def _others() -> Iterator[Case]:
    yield good("lossy.webp", encoded(quarters(), "WEBP", quality=100), tolerance=12)
    yield good("lossless.webp", encoded(quarters(), "WEBP", lossless=True))
    yield good("plain.bmp", encoded(quarters(), "BMP"))
    upside = bytearray(encoded(quarters(), "BMP"))
    struct.pack_into("<i", upside, 22, -64)
    yield good("upside-down.bmp", bytes(upside), (BLUE, GREY, RED, GREEN))
    yield bad("no-rows.bmp", bmp(64, 64), DAMAGED)


def tiff(size: tuple[int, int], tags: dict[int, tuple[int, int]], data: bytes = bytes(99), magic: int = 42) -> bytes:
    """An uncompressed grey TIFF, or what other tags make of it: number of the tag -> (count, value); all are of 4 bytes."""
    plain = {256: size[0], 257: size[1], 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: size[1], 279: len(data)}
    entries = sorted(({tag: (1, value) for tag, value in plain.items()} | tags).items())
    directory = struct.pack("<H", len(entries)) + b"".join(struct.pack("<HHII", tag, 4, *one) for tag, one in entries)
    return struct.pack("<2sHI", b"II", magic, 8 + len(data)) + data + directory + bytes(4)


def _tiffs() -> Iterator[Case]:
    for compression in ("raw", "packbits", "tiff_lzw", "tiff_adobe_deflate", "tiff_deflate"):
        yield good(f"{compression}.tif", encoded(quarters(), "TIFF", compression=compression), tolerance=0)
    yield good("jpeg.tif", encoded(quarters(), "TIFF", compression="jpeg", quality=95), tolerance=12)
    yield good("tiff.jpg", encoded(quarters(), "TIFF"), tolerance=0)
    for orientation in range(1, 9):
        data = encoded(quarters(), "TIFF", exif=exif(orientation), compression="tiff_lzw")
        yield good(f"orientation-{orientation}.tiff", data, oriented(orientation), tolerance=0)
    yield good("cmyk.tif", encoded(quarters("CMYK"), "TIFF"))
    yield good("alpha.tif", encoded(Image.new("RGBA", (9, 9), (0, 0, 0, 51)), "TIFF"), ((204,) * 3,) * 4)
    yield good("sixteen-bits.tif", encoded(Image.new("I;16", (9, 9), 257 * 128), "TIFF"), (GREY,) * 4)
    yield good("sixteen-bits-motorola.tif", encoded(Image.new("I;16B", (9, 9), 257 * 128), "TIFF"), (GREY,) * 4)
    pages = {"save_all": True, "append_images": [Image.new("RGB", (9, 9))] * 300}
    yield good("pages.tif", encoded(quarters(), "TIFF", **pages), tolerance=0)
    yield bad("float.tif", encoded(Image.new("F", (9, 9), 0.5), "TIFF"), "expected a TIFF of 8 or 16 bits .* mode F")
    yield bad("lab.tif", encoded(Image.new("LAB", (9, 9)), "TIFF"), "expected a TIFF of 8 or 16 bits .* mode LAB")
    yield bad("wide-integers.tif", encoded(Image.new("I", (9, 9), 2**20), "TIFF"), "TIFF of 8 or 16 bits .* mode I")
    for compression in ("packbits", "tiff_lzw", "tiff_adobe_deflate", "jpeg"):
        data = encoded(quarters(), "TIFF", compression=compression)
        yield bad(f"broken-{compression}.tif", data[:8] + b"\xff\x00\x41" * 20 + data[68:], DAMAGED)
    for compression in ("lzma", "zstd", "group4"):
        mode = "1" if compression == "group4" else "RGB"
        try:
            data = encoded(quarters(mode), "TIFF", compression=compression)
        except (OSError, RuntimeError):  # of another libtiff
            continue
        yield bad(f"{compression}.tif", data, f"expected a TIFF with no compression, .* found {compression}")
    yield bad("50k.tif", tiff((50_000, 50_000), {}), "expected (1 to|at most) (50,331,648|67,108,864) pixels, found")
    yield bad("10k-by-6k.tif", tiff((10_000, 6_000), {}), "expected 1 to 50,331,648 pixels, found 10000 x 6000")
    tiles = {322: (1, 60_000), 323: (1, 60_000), 324: (1, 8), 325: (1, 99), 259: (1, 5)}
    yield bad("tile-of-gigabytes.tif", tiff((9, 9), tiles), f"pixels, found 60000 x 60000|{DAMAGED}|{FOREIGN}")
    yield good("strip-of-billions-of-rows.tif", tiff((9, 9), {278: (1, 2**32 - 1)}), (BLACK,) * 4)
    yield bad("nothing-behind.tif", tiff((6_000, 6_000), {}), DAMAGED)
    many = dict.fromkeys(range(40000, 60000), (2**14, 8))  # every one is said to be all of the file
    yield good("20,000-tags.tif", tiff((9, 9), many, bytes(2**16)), (BLACK,) * 4)
    yield bad("billions-of-samples.tif", tiff((9, 9), {277: (1, 2**31)}), f"{DAMAGED}|{FOREIGN}")
    yield bad("far-away.tif", tiff((9, 9), {273: (1, 2**31)}), DAMAGED)
    yield bad("big.tif", tiff((9, 9), {}, magic=43), f"{DAMAGED}|{FOREIGN}")
    loop = bytearray(tiff((9, 9), {34665: (1, 107)}))  # its EXIF is itself
    struct.pack_into("<I", loop, len(loop) - 4, 107)  # and so is its next page
    yield good("loop.tif", bytes(loop), (BLACK,) * 4)


def box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data) + 8) + kind + data


def _avifs() -> Iterator[Case]:
    whole = encoded(quarters(), "AVIF", quality=95, subsampling="4:4:4", speed=10)
    yield good("plain.avif", whole, tolerance=8)
    yield good(
        "alpha.avif", encoded(Image.new("RGBA", (16, 16), (0, 0, 0, 51)), "AVIF", speed=10), ((204,) * 3,) * 4, 8
    )
    for orientation in (1, 2, 6):
        data = encoded(quarters(), "AVIF", quality=95, subsampling="4:4:4", speed=10, exif=exif(orientation))
        yield good(f"orientation-{orientation}.avif", data, oriented(orientation), tolerance=8)
    yield bad("header-alone.avif", whole[:32], f"{DAMAGED}|{FOREIGN}")
    yield bad("avif.jpg", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf", f"{DAMAGED}|{FOREIGN}")
    place = whole.index(b"ispe") + 8
    large = whole[:place] + struct.pack(">II", 8_192, 8_192) + whole[place + 8 :]
    yield bad("8k.avif", large, "expected 1 to 50,331,648 pixels, found 8192 x 8192")
    yield bad("60k.avif", whole[:place] + struct.pack(">II", 60_000, 60_000) + whole[place + 8 :],
              f"pixels, found|{DAMAGED}|{FOREIGN}")  # fmt: skip
    pair = {"save_all": True, "append_images": [Image.new("RGB", (64, 64), BLUE)], "speed": 10}
    yield bad("sequence.avif", encoded(quarters(), "AVIF", **pair), "expected an AVIF of one picture, found a sequence")
    stream = b"\x12\0\x0a\x0b" + sequence_header(16_384, 16_384)
    located = struct.pack(">IBBHHHHII", 0, 0x44, 0, 1, 1, 0, 1, 24 + 8, len(stream))
    head = box(b"ftyp", b"avif\0\0\0\0mif1miaf") + box(b"mdat", stream)
    yield bad("stream-of-268-megapixels.avif", head + box(b"meta", bytes(4) + box(b"iloc", located)),
              "expected at most 50,331,648 pixels, found a stream of 268,435,456")  # fmt: skip
    located = struct.pack(">IBBHHHHII", 0, 0x44, 0, 1, 1, 0, 1, 24 + 8, 2 * 10_001)
    head = box(b"ftyp", b"avif\0\0\0\0mif1miaf") + box(b"mdat", b"\x12\0" * 10_001)
    yield bad("10,001-units.avif", head + box(b"meta", bytes(4) + box(b"iloc", located)), "at most 10,000 units")
    extents = struct.pack(">II", 0, 2**16) * 60_000
    located = struct.pack(">IBBHHHH", 0, 0x44, 0, 1, 1, 0, 60_000) + extents
    yield bad(
        "gigabytes-of-extents.avif", head + box(b"meta", bytes(4) + box(b"iloc", located)), "longer than the file"
    )


def sequence_header(width: int, height: int) -> bytes:
    """AV1's header of a still picture, in its reduced form, with 16 bits for each side."""
    bits = f"{0:03b}11{0:05b}{15:04b}{15:04b}{width - 1:016b}{height - 1:016b}"
    return int(bits.ljust(88, "0"), 2).to_bytes(11)


def _heics() -> Iterator[Case]:
    """Where pillow-heif is, HEIC is decoded; elsewhere it is named."""
    try:
        import pillow_heif
    except ImportError:
        yield bad("phone.heic.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "found HEIC, which needs one more package")
        return
    pillow_heif.register_heif_opener()
    whole = encoded(quarters(), "HEIF", quality=95)
    yield good("plain.heic", whole, tolerance=12)
    for orientation in (1, 6):
        data = encoded(quarters(), "HEIF", quality=95, exif=exif(orientation).tobytes())
        yield good(f"orientation-{orientation}.heic", data, oriented(orientation), tolerance=12)
    for share in (10, 50, 99):
        yield bad(f"cut-{share}.heic.jpg", whole[: len(whole) * share // 100], f"{DAMAGED}|{FOREIGN}")
    place = whole.index(b"ispe") + 8
    for side in (8_192, 60_000):
        yield bad(f"{side}.heic", whole[:place] + struct.pack(">II", side, side) + whole[place + 8 :],
                  f"pixels, found|{DAMAGED}|{FOREIGN}|Security limit")  # fmt: skip


def _names() -> Iterator[Case]:
    odd = ("two\nlines.jpg", "-x.jpg", "=1+1.jpg", "[red]bold.jpg", "%00.jpg", "猫.JPG", "\x1b]0;title\x07.jpg")
    for name in (*odd, "a" * 251 + ".jpg"):
        yield good(name, jpeg())
    yield good(os.fsdecode(b"caf\xe9-\xff.jpg"), jpeg())
    yield bad(os.fsdecode(b"bad-\xfe\n.jpg"), b"no photo", FOREIGN)


def _no_files() -> Iterator[Case]:
    """What cannot be sent to a server, because it has no bytes."""
    yield Case("loop.jpg", lambda path: path.symlink_to(path.name), refusal="expected a file, found")
    yield Case("nowhere.jpg", lambda path: path.symlink_to("absent"), refusal="expected a file, found nothing")
    yield Case("pipe.jpg", os.mkfifo, refusal="expected a file, found something else")
    yield Case("pipe-behind-a-link.jpg", _linked_pipe, refusal="expected a file, found something else")
    yield Case("socket.jpg", _socket, refusal="expected a file, found something else")
    yield Case("device.jpg", lambda path: path.symlink_to("/dev/zero"), refusal="expected a file, found something else")

    yield Case(
        "a-terabyte.jpg", lambda path: (path.touch(), os.truncate(path, 2**40)), refusal="268,435,456 bytes, found more"
    )


def _linked_pipe(path: Path) -> None:
    os.mkfifo(path.with_name(".pipe"))
    path.symlink_to(".pipe")


def _socket(path: Path) -> None:
    place = os.getcwd()
    os.chdir(path.parent)  # a socket's path may have 108 bytes
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(path.name)
    finally:
        os.chdir(place)
