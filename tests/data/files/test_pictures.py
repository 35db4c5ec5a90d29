"""Pictures as Pillow reads them, whatever their kind, and what cannot be read."""

import struct
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from data.errors import InputError
from data.files import pictures
from data.files.pictures import find_pictures, open_pictures

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
CORNERS = np.array([[RED, GREEN], [BLUE, WHITE]], np.uint8)


def corners(width=64, height=64):
    """Return a picture of four colours, in a corner each of the square in its middle."""
    side = min(width, height)
    square = CORNERS.repeat(side // 2, axis=0).repeat(side // 2, axis=1)
    rows, columns = (height - side) // 2, (width - side) // 2
    pad = [(rows, height - side - rows), (columns, width - side - columns), (0, 0)]
    return Image.fromarray(np.pad(square, pad))


def test_pictures_are_found_in_the_order_of_their_names(tmp_path):
    folder, outside = tmp_path / "mine", tmp_path / "outside"
    for name in ("mine/b", "mine/a", "mine/empty", "mine/.hidden", "outside"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("b/2.PNG", "b/10.jpg", "a/x.webp", "a/notes.txt", "a/._x.jpg", ".hidden/1.png"):
        (folder / name).touch()
    (folder / "top.png").touch()
    (outside / "1.png").touch()
    (folder / "c").symlink_to(outside)
    (folder / "b/0.png").symlink_to(outside / "1.png")
    (folder / "b/3.png").symlink_to("2.PNG")
    (folder / "a/y.png").mkdir()
    paths, labels = find_pictures(folder)
    assert [str(path.relative_to(folder)) for path in paths] == [
        *("a/x.webp", "b/10.jpg", "b/2.PNG", "b/3.png")
    ]
    assert labels == ["a", "b", "b", "b"]
    assert find_pictures(folder / "b") == (paths[1:], None)
    with pytest.raises(InputError, match=r"empty: no pictures .* in the folder or in its sub-"):
        find_pictures(folder / "empty")


def opened(picture, tmp_path, name, **options):
    """Return what is read of a picture; of one of four corners, a pixel well within each."""
    picture.save(tmp_path / name, **options)
    size, inside = (2, slice(None)) if picture.size == (2, 2) else (8, slice(1, None, 5))
    rows, _ = open_pictures([tmp_path / name], size, tmp_path / "cache")
    return rows[:][0, inside, inside].astype(int)


LOSSLESS = {"webp": {"lossless": True}, "jpg": {"quality": 100, "subsampling": 0}}


@pytest.mark.parametrize("kind", ["png", "bmp", "gif", "tif", "webp", "jpg"])
def test_every_kind_of_file_is_cut_to_its_middle(kind, tmp_path):
    for size in ((64, 64), (200, 64), (64, 90), (2, 2)):
        read = opened(corners(*size), tmp_path, f"{size}.{kind}", **LOSSLESS.get(kind, {}))
        np.testing.assert_allclose(read, CORNERS, atol=9)


def test_pictures_are_turned_as_their_exif_says(tmp_path):
    upright, turns = corners(), Image.Transpose
    mirrored = [turns.FLIP_LEFT_RIGHT, turns.ROTATE_180, turns.FLIP_TOP_BOTTOM, turns.TRANSPOSE]
    turned = [turns.ROTATE_90, turns.TRANSVERSE, turns.ROTATE_270]
    for value, turn in enumerate([*mirrored, *turned], 2):
        for kind in ("jpg", "png", "tif"):
            exif = Image.Exif()
            exif[0x0112] = value
            read = opened(upright.transpose(turn), tmp_path, f"{value}.{kind}", exif=exif)
            np.testing.assert_allclose(read, CORNERS, atol=9)


def test_modes_become_grey_or_colour_on_white(tmp_path):
    clear = corners().convert("RGBA")
    clear.putalpha(Image.fromarray(np.array([[0], [255]], np.uint8).repeat(32, 0).repeat(64, 1)))
    on_white = np.array([[WHITE, WHITE], [BLUE, WHITE]])
    levels = Image.fromarray(np.array([[0, 300], [40_000, 65_535]], np.uint16))
    grey = np.array([[0, 1], [156, 255]])[..., None]
    byte = Image.fromarray(grey[..., 0].astype(np.uint8))
    bits = np.array([[False, True]] * 2)
    cases = [
        (clear, "png", on_white),
        (clear, "webp", on_white),
        (corners().quantize(4), "png", CORNERS),
        (corners().convert("CMYK"), "tif", CORNERS),
        (levels, "png", grey),
        (levels, "tif", grey),
        (byte, "png", grey),
        (Image.merge("LA", (byte, Image.new("L", (2, 2), 255))), "png", grey),
        (Image.fromarray(bits), "png", 255 * bits[..., None]),
    ]
    for i, (picture, kind, expected) in enumerate(cases):
        read = opened(picture, tmp_path, f"{i}.{kind}", **LOSSLESS.get(kind, {}))
        np.testing.assert_allclose(read, expected, atol=1)
    both = [tmp_path / "6.png", tmp_path / "2.png"]  # one has colours
    for channels, shape in ((None, (2, 2, 2, 3)), (1, (2, 2, 2, 1))):
        assert open_pictures(both, 2, tmp_path / "cache", channels)[0].shape == shape


def test_photographs_are_those_of_pillow(tmp_path):
    """Which reads the whole JPEG, and averages: as it looks, draft or not, is what counts here."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    photograph = small.resize((300, 300), Image.Resampling.BICUBIC)
    photograph.save(tmp_path / "1.jpg", quality=95)
    with Image.open(tmp_path / "1.jpg") as whole:
        expected = np.asarray(whole.resize((32, 32), Image.Resampling.BILINEAR)).astype(int)
    rows, _ = open_pictures([tmp_path / "1.jpg"], 32, tmp_path / "cache")
    assert abs(rows[:][0].astype(int) - expected).mean() < 2.5


def png(width, height):
    """Return a picture of a few bytes that declares its size."""

    def chunk(kind, content):
        crc = zlib.crc32(kind + content).to_bytes(4, "big")
        return len(content).to_bytes(4, "big") + kind + content + crc

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IDAT", zlib.compress(bytes(99)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + data + chunk(b"IEND", b"")


def test_broken_pictures_are_left_out_and_named(tmp_path, monkeypatch, caplog, peak_of):
    monkeypatch.setattr(pictures, "BLOCK", 100)
    paths = [tmp_path / f"{i:02}.png" for i in range(20)]
    for i, path in enumerate(paths):
        Image.fromarray(np.full((4, 4, 3), i, np.uint8)).save(path)
    paths[3].write_bytes(paths[3].read_bytes()[:45])
    # Of which Pillow would start Ghostscript.
    paths[7].write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n")
    paths[11].write_bytes(png(50_000, 50_000))
    paths[12].write_bytes(png(11_000, 11_000))  # of which Pillow only warns
    paths.pop(13).unlink()
    broken = [3, 7, 11, 12]
    written = set[int]()  # when the cache was: the second time nothing is
    for _ in range(2):
        caplog.clear()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rows, is_read = open_pictures(paths, 4, tmp_path / "cache")
        written |= {path.stat().st_mtime_ns for path in (tmp_path / "cache").iterdir()}
        assert len(written) == 1
        assert np.flatnonzero(~is_read).tolist() == broken
        expected = [i for i in range(20) if i not in (*broken, 13)]
        assert rows[:][:, 0, 0, 0].tolist() == expected
        assert rows.shape == (15, 4, 4, 3)
        (line,) = caplog.messages
        assert line.startswith("4 of 19 pictures cannot be read (")
        assert line.endswith("and are left out")
        assert line.count(".png: ") == 3
    for numbers, words in (
        ((3, 7, 8, 12), r"3 of 4 pictures cannot be read \(.*07.png: cannot ident"),
        ((11,), "2500000000 pixels"),
        ((12,), "declares 11000 x 11000"),
    ):

        def refused(numbers=numbers, words=words):
            with pytest.raises(InputError, match=words):
                open_pictures([paths[i] for i in numbers], 4, tmp_path / "cache")

        assert peak_of(refused) < 2**21
