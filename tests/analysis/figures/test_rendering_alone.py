"""A picture that would fetch something is not drawn."""

import altair as alt
import pytest

from emergraph.analysis.figures.picture import Picture
from emergraph.analysis.figures.rendering import ImageFormat, render

NOWHERE = "http://127.0.0.1:9/"


def svg_of(inside):
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9" viewBox="0 0 9 9">{inside}</svg>'


@pytest.mark.parametrize("image", ImageFormat)
@pytest.mark.parametrize(
    "chart",
    [
        alt.Chart(alt.Data(values=[{"u": f"{NOWHERE}a.png"}])).mark_image().encode(url="u:N"),
        alt.Chart(alt.Data(values=[{"u": NOWHERE}])).mark_point().encode(href="u:N"),
        Picture(svg_of(f'<image href="{NOWHERE}" width="5" height="5"/>')),
        Picture(svg_of(f'<image xlink:href="{NOWHERE}" width="5" height="5"/>')),
        Picture(svg_of('<image href="/etc/hostname" width="5" height="5"/>')),
        Picture(svg_of(f'<rect fill="url({NOWHERE}#a)" width="5" height="5"/>')),
    ],
    ids=["image", "link", "svg image", "xlink", "file", "fill"],
)
def test_what_names_another_place_is_refused(chart, image):
    with pytest.raises(ValueError, match="a figure must hold all that it shows"):
        render(chart, image)


@pytest.mark.parametrize("image", ImageFormat)
def test_data_of_elsewhere_are_refused(image):
    chart = alt.Chart(f"{NOWHERE}data.json").mark_point().encode(x="a:Q")
    with pytest.raises(ValueError, match="External data url not allowed"):
        render(chart, image)


@pytest.mark.parametrize("image", ImageFormat)
def test_names_that_look_like_links_are_only_text(image):
    names = [f'<image href="{NOWHERE}"/>', f' href="{NOWHERE}', "url(http://x)"]
    chart = (
        alt.Chart(alt.Data(values=[{"n": name} for name in names])).mark_text().encode(y="n:N", text="n:N")
    )
    assert render(chart, image)
    inside = '<a href="#b"/><rect id="b" fill="url(#c)"/><text>href="http://x" url(http://x)</text>'
    assert render(Picture(svg_of(inside)), image)
