"""Layout of the PDF: sizes, alt texts, rows and floats in typst's source."""

import numpy as np
import pytest

from anomaly.files import write_image
from anomaly.report.layout import arranged

SHAPES = {
    "a.png": (400, 500),
    "b.png": (400, 400),
    "c.png": (300, 1040),
    "d.jpg": (9, 9),
}
TEXT = "\n\n".join(
    f'![x]({name}){{#fig-{name[0]} alt="so &#34;{name[0]}&#34;"}}' for name in SHAPES
)


def figure(name):
    caption = "  caption: [\n    x (y)\n  ]\n"
    return f'#figure(image("{name}"),\n{caption})\n<fig-{name[0]}>\n'


@pytest.fixture
def folder(tmp_path):
    for name, shape in SHAPES.items():
        write_image(tmp_path / name, np.zeros((*shape, 3), np.uint8))
    return tmp_path


def test_narrow_neighbours_share_a_row(folder):
    source = "text\n\n" + figure("a.png") + "\n" + figure("b.png") + "\nend\n"
    found = arranged(source, TEXT, folder)
    row = "#place(auto, float: true, block[#grid(columns: (1.250fr, 1.000fr)"
    assert found.startswith("text\n\n" + row)
    assert found.count("width: 100.0%") == found.count("#figure") == 2
    assert found.count("<fig-a>") == found.count("<fig-b>") == 1
    assert found.endswith("\nend\n")


@pytest.mark.parametrize("between", ["words\n\n", "= Heading\n<heading>\n"])
def test_others_stay_apart(folder, between):
    source = figure("a.png") + "\n" + between + figure("b.png")
    assert "#grid" not in arranged(source, TEXT, folder)
    source = figure("a.png") + "\n" + figure("c.png")  # too wide for both
    found = arranged(source, TEXT, folder)
    assert "#grid" not in found and found.count("float: true") == 2


def test_a_plot_is_not_above_its_heading_and_a_photograph_stays(folder):
    found = arranged("= Heading\n<heading>\n" + figure("a.png"), TEXT, folder)
    assert "#place(bottom, float: true" in found
    assert "float" not in arranged(figure("d.jpg"), TEXT, folder)


def test_width_is_that_of_the_pixels_and_alt_text_is_there(folder):
    found = arranged(figure("a.png"), TEXT, folder)
    assert 'image("a.png", width: 48.1%, alt: "so \\"a\\"")' in found  # 500 of 1040
    assert "width: 100.0%" in arranged(figure("c.png"), TEXT, folder)


def test_two_narrow_tables_share_a_row(folder):
    table = "#figure(\n  align(left)[#table(\n    columns: {},\n    [a],\n  )]\n"
    table += "  , caption: [x]\n  , kind: table\n  )\n"
    for columns, shared in (((2, 2), True), ((2, 3), False)):
        source = "\n".join(map(table.format, columns))
        found = arranged(source, TEXT, folder)
        assert found.startswith("#grid") == shared and found.count("#figure") == 2
