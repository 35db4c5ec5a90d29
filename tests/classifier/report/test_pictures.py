import base64
import io

import numpy as np
import pytest
from matplotlib.image import imread

from classifier.report.pictures import AGAINST, FOR, example_pictures, template_pictures


def pixels(uri):
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.round(255 * imread(io.BytesIO(base64.b64decode(content)), "png")).astype(int)


def test_grey_templates_are_white_at_zero_red_for_and_blue_against():
    templates = np.array([[[0.0, 2.0]], [[-2.0, 1.0]]])
    first, second = map(pixels, template_pictures(templates))
    assert first.tolist() == [[[255, 255, 255], FOR.tolist()]]
    assert second[0, 0].tolist() == AGAINST.tolist()
    np.testing.assert_allclose(second[0, 1], (255 + FOR) / 2, atol=1)


def test_coloured_templates_are_grey_at_zero():
    templates = np.array([[[[0.0, 0.5, -0.5]]]])
    (picture,) = map(pixels, template_pictures(templates))
    np.testing.assert_allclose(picture[0, 0], [127.5, 255, 0], atol=1)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_examples_share_one_scale_from_black_to_white(shape, dtype):
    X = np.arange(2 * np.prod(shape)).reshape(2, *shape).astype(dtype)
    X = X * 5 + 3
    pictures = [pixels(uri) for uri in example_pictures(X)]
    expected = (X.astype(float) - X.min()) / (X.max() - X.min()) * 255
    for picture, values in zip(pictures, expected, strict=True):
        np.testing.assert_allclose(picture, values[..., 0] if shape[2:] == (1,) else values, atol=1)


def test_there_may_be_none_or_nothing_in_them():
    assert example_pictures(np.empty((0, 4, 4))) == []
    assert (pixels(example_pictures(np.full((1, 2, 2), 7.0))[0]) == 0).all()
    assert (pixels(template_pictures(np.zeros((1, 2, 2)))[0]) == 255).all()
