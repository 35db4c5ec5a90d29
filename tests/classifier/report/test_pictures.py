import numpy as np
import pytest

from classifier.report.figures import AGAINST, FOR, example_images, template_images


def test_grey_templates_are_white_at_zero_red_for_and_blue_against():
    templates = np.array([[[0.0, 2.0]], [[-2.0, 1.0]]])
    first, second = template_images(templates)
    np.testing.assert_array_equal(first, [[[255, 255, 255], FOR]])
    np.testing.assert_array_equal(second[0, 0], AGAINST)
    np.testing.assert_allclose(second[0, 1], (255 + FOR) / 2, atol=1)


def test_coloured_templates_are_grey_at_zero():
    templates = np.array([[[[0.0, 0.5, -0.5]]]])
    (picture,) = template_images(templates)
    np.testing.assert_allclose(picture[0, 0], [127.5, 255, 0], atol=1)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (2, 3, 3)])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.int16])
def test_examples_share_one_scale_from_black_to_white(shape, dtype):
    X = np.arange(2 * np.prod(shape)).reshape(2, *shape).astype(dtype)
    X = X * 5 + 3
    pictures = example_images(X)
    expected = (X.astype(float) - X.min()) / (X.max() - X.min()) * 255
    for picture, values in zip(pictures, expected, strict=True):
        np.testing.assert_allclose(picture, values[..., 0] if shape[2:] == (1,) else values, atol=1)


def test_there_may_be_none_or_nothing_in_them():
    assert example_images(np.empty((0, 4, 4))) == []
    assert (example_images(np.full((1, 2, 2), 7.0))[0] == 0).all()
    assert (template_images(np.zeros((1, 2, 2)))[0] == 255).all()
