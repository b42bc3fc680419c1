"Pictures in other colour spaces than sRGB, and files of more than one picture: the right colours, or an error."

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from mrl.io.pictures import read_picture

COLOUR = (200, 120, 60)
ADOBE = ((0.60974, 0.31111, 0.01947), (0.20528, 0.62567, 0.06087), (0.14919, 0.06322, 0.74457))  # D50, of its profile
P3 = ((0.51512, 0.2412, -0.00105), (0.29198, 0.69225, 0.04189), (0.1571, 0.06657, 0.78407))


def fixed(values):
    return b"".join(struct.pack(">i", round(v * 65536)) for v in values)


def profile(primaries=None, gamma=2.2):
    "Return an ICC profile of version 2: of RGB with primaries (red, green, blue; X, Y, Z at D50), or of grey."
    d50, curve = fixed((0.9642, 1, 0.8249)), b"curv" + bytes(4) + struct.pack(">IHH", 1, round(gamma * 256), 0)
    tags = {b"desc": b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(78)}
    tags |= {b"cprt": b"text" + bytes(4) + b"CC0\0", b"wtpt": b"XYZ " + bytes(4) + d50}
    for name, xyz in zip(b"rgb", primaries or ()):
        tags |= {bytes([name]) + b"XYZ": b"XYZ " + bytes(4) + fixed(xyz), bytes([name]) + b"TRC": curve}
    if not primaries:
        tags[b"kTRC"] = curve
    table, body, at = struct.pack(">I", len(tags)), b"", 132 + 12 * len(tags)
    for name, value in tags.items():
        table += name + struct.pack(">II", at + len(body), len(value))
        body += value + bytes(-len(value) % 4)
    kind = b"RGB XYZ " if primaries else b"GRAYXYZ "
    head = struct.pack(">III", at + len(body), 0, 0x02400000) + b"mntr" + kind
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + d50 + bytes(48)
    return head + table + body


def picture(mode="RGB"):
    return Image.new("RGB", (16, 16), COLOUR).convert(mode)


def colour(path):
    return read_picture(path).pixels[8, 8].astype(int)


EXACT = {"jpg": {"quality": 100, "subsampling": 0}, "webp": {"lossless": True}, "avif": {"quality": 100}}


@pytest.mark.parametrize("kind", ["png", "jpg", "tif", "webp", "avif", "heic"])
@pytest.mark.parametrize(
    ("primaries", "gamma", "expected"),
    [(ADOBE, 563 / 256, (224, 121, 53)), (P3, 2.2, (214, 116, 38)), (ADOBE, 1.0, (246, 183, 128))],
)
def test_colours_are_those_of_the_profile(tmp_path, kind, primaries, gamma, expected):
    if kind == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    path = tmp_path / f"a.{kind}"
    picture().resize((64, 64)).save(path, icc_profile=profile(primaries, gamma), **EXACT.get(kind, {}))
    assert np.abs(colour(path) - expected).max() <= 4


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P"])
def test_profiles_of_every_kind_of_pixels(tmp_path, mode):
    picture().convert(mode, palette=Image.Palette.ADAPTIVE).save(tmp_path / "a.png", icc_profile=profile(P3))
    assert np.abs(colour(tmp_path / "a.png") - (214, 116, 38)).max() <= 1


@pytest.mark.parametrize("mode", ["L", "LA"])
def test_profiles_of_grey(tmp_path, mode):
    picture(mode).save(tmp_path / "a.png", icc_profile=profile(gamma=1.0))
    light = np.asarray(picture("L"))[0, 0] / 255
    assert np.abs(colour(tmp_path / "a.png") - 255 * (1.055 * light ** (1 / 2.4) - 0.055)).max() <= 1


@pytest.mark.parametrize(
    ("mode", "said"),
    [
        ("RGB", profile()),  # of grey, for a picture in colour
        ("L", profile(P3)),
        ("CMYK", profile(P3)),
        ("RGB", b"broken" * 40),
        ("RGB", profile(P3)[:200]),
        ("RGB", bytes(500)),
    ],
)
def test_profiles_that_cannot_be_used_are_named(tmp_path, mode, said):
    picture(mode).save(tmp_path / "a.jpg", icc_profile=said, quality=100, subsampling=0)
    with pytest.warns(UserWarning, match="a.jpg: its colour profile cannot be used .*taken as sRGB"):
        found = colour(tmp_path / "a.jpg")
    assert np.abs(found - np.asarray(picture(mode).convert("RGB"))[0, 0]).max() <= 2


def test_a_profile_of_ten_megabytes(tmp_path):
    picture().save(tmp_path / "a.jpg", icc_profile=profile(P3) + bytes(10**7), quality=100, subsampling=0)
    assert np.abs(colour(tmp_path / "a.jpg") - (214, 116, 38)).max() <= 2
    picture().save(tmp_path / "a.png", icc_profile=profile(P3) + bytes(7 * 10**7))
    with pytest.raises(ValueError, match="a.png: cannot be read as a picture .Decompressed data too large"):
        read_picture(tmp_path / "a.png")


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def gamma(value):
    return chunk(b"gAMA", struct.pack(">I", value))


OF_ADOBE = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 21000, 71000, 15000, 6000))
OF_SRGB = chunk(b"cHRM", struct.pack(">8I", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))


@pytest.mark.parametrize(
    ("chunks", "expected"),
    [
        (gamma(100000), (229, 182, 133)),  # light itself
        (gamma(45455) + OF_SRGB, COLOUR),  # as ImageMagick writes sRGB
        (gamma(45455) + OF_ADOBE, (222, 120, 56)),
        (chunk(b"sRGB", b"\0") + gamma(100000), COLOUR),
        (gamma(0), COLOUR),
        (chunk(b"cHRM", bytes(32)), COLOUR),
        (chunk(b"cICP", bytes([12, 13, 0, 1])), (213, 115, 42)),
        (chunk(b"cICP", bytes([1, 13, 0, 1])) + gamma(100000), COLOUR),
    ],
)
def test_colours_that_chunks_of_png_state(tmp_path, chunks, expected):
    file = io.BytesIO()
    picture().save(file, "PNG")
    data = file.getvalue()
    (tmp_path / "a.png").write_bytes(data[:33] + chunks + data[33:])
    assert np.abs(colour(tmp_path / "a.png") - expected).max() <= 1


def test_high_dynamic_range_is_refused(tmp_path):
    file = io.BytesIO()
    picture().save(file, "PNG")
    data = file.getvalue()
    (tmp_path / "a.png").write_bytes(data[:33] + chunk(b"cICP", bytes([9, 16, 0, 1])) + data[33:])
    with pytest.raises(ValueError, match=r"a.png: .*high dynamic range; save it in sRGB\)$"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("space", "index", "expected"), [(0xFFFF, "R03", 224), (2, "", 224), (0xFFFF, "R98", 200), (1, "R98", 200)]
)
def test_adobe_rgb_of_a_camera_without_a_profile(tmp_path, space, index, expected):
    "DCF 2.0: a tag of EXIF's interoperability says it."
    exif = Image.Exif()
    exif.get_ifd(0x8769).update({0xA001: space} | ({0xA005: {1: index}} if index else {}))
    picture().save(tmp_path / "a.jpg", exif=exif, quality=100, subsampling=0)
    assert abs(colour(tmp_path / "a.jpg")[0] - expected) <= 1


@pytest.mark.parametrize("kind", ["gif", "webp", "png", "tif", "avif"])
def test_a_file_of_several_pictures_says_so(tmp_path, kind):
    others = [Image.new("RGB", (16, 16), (10, 20, 30 * n)) for n in range(3)]
    picture().save(tmp_path / f"a.{kind}", save_all=True, append_images=others, **EXACT.get(kind, {}))
    with pytest.warns(UserWarning, match=rf"a.{kind}: has several pictures; the first is read"):
        assert np.abs(colour(tmp_path / f"a.{kind}") - COLOUR).max() <= 3


@pytest.mark.parametrize("kind", ["mpo", "heic"])
def test_the_picture_that_a_file_names_is_read(tmp_path, kind):
    "The other one is a depth or gain map, or the second view."
    if kind == "heic":
        pytest.importorskip("pillow_heif").register_heif_opener()
    first, second = picture().resize((64, 64)), Image.new("RGB", (64, 64))
    first.save(tmp_path / f"a.{kind}", save_all=True, append_images=[second])
    assert np.abs(colour(tmp_path / f"a.{kind}") - COLOUR).max() <= 3


@pytest.mark.parametrize(("tag", "kind", "value"), [(254, 4, 1), (50706, 1, b"\1\4\0\0")])
def test_thumbnails_of_raw_files_are_refused(tmp_path, tag, kind, value):
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[tag], tags.tagtype[tag] = value, kind
    picture().save(tmp_path / "a.nef", "TIFF", tiffinfo=tags)
    with pytest.raises(ValueError, match=r"a.nef: .*a raw file of a camera, .* thumbnail is found; save it as JPEG\)$"):
        read_picture(tmp_path / "a.nef")
