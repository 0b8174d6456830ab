"""What a thumbnail is; that it finds its way from bucket to bucket is an integration test."""

import io

import pytest
from fixtures.examples import load
from PIL import Image, UnidentifiedImageError

app = load("thumbnail")


def photo(size: tuple[int, int], mode: str = "RGB", kind: str = "JPEG", orientation: int = 1) -> bytes:
    """A generated picture."""
    image = Image.linear_gradient("L").resize(size).convert(mode)
    exif = image.getexif()
    exif[0x0112] = orientation
    out = io.BytesIO()
    image.save(out, kind, exif=exif)
    return out.getvalue()


def opened(jpeg: bytes) -> Image.Image:
    """A thumbnail, checked to be a JPEG."""
    image = Image.open(io.BytesIO(jpeg))
    assert image.format == "JPEG"
    return image


@pytest.mark.parametrize(("size", "wanted"), [((1024, 512), (256, 128)), ((300, 900), (85, 256)), ((64, 48), (64, 48))])
def test_thumbnail_fits_and_keeps_proportions(size: tuple[int, int], wanted: tuple[int, int]) -> None:
    """The longer side is at most 256 pixels, the proportions stay, and a small photo is not enlarged."""
    assert opened(app.thumbnail(photo(size))).size == wanted


@pytest.mark.parametrize(("mode", "kind"), [("L", "JPEG"), ("CMYK", "JPEG"), ("RGBA", "PNG"), ("P", "PNG")])
def test_any_colours_become_rgb(mode: str, kind: str) -> None:
    """Grey, print colours, transparency and palettes become a plain JPEG."""
    assert opened(app.thumbnail(photo((512, 512), mode, kind))).mode == "RGB"


def test_thumbnail_stands_upright() -> None:
    """A camera's orientation mark is applied, because the thumbnail carries none."""
    assert opened(app.thumbnail(photo((800, 400), orientation=6))).size == (128, 256)


def test_the_same_photo_makes_the_same_thumbnail() -> None:
    """An event that is delivered twice writes the same bytes."""
    source = photo((640, 480))
    assert app.thumbnail(source) == app.thumbnail(source)


def test_what_is_no_image_fails() -> None:
    """A text called .jpg raises, so that its event ends as a dead letter instead of being lost."""
    with pytest.raises(UnidentifiedImageError):
        app.thumbnail(b"not a photo")
