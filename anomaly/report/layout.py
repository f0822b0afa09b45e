"""Layout of the PDF: pandoc's typst source with pictures sized, in rows, floating."""

import html
import json
import re
from pathlib import Path

from PIL import Image

INCHES, DPI = 6.5, 160  # width of the text; pixels per inch of a figure
FIGURE = r'^#figure\(image\("[\w.-]+"\),\n(?: .*\n)*\)\n<[\w-]+>\n'
TABLE = r"^#figure\(\n  align\(left\)\[#table\(\n    columns: 2,\n(?: .*\n)* +\)\n"


def arranged(source: str, text: str, folder: Path) -> str:
    """typst source as pandoc makes it of the Markdown `text`, arranged for pages.

    Pictures are no wider than they are sharp and carry their alt texts. Two narrow
    figures that follow each other share a row, as high as each other. Plots, but not
    photographs, float to where a page has room; not above the heading of a section
    that they begin. Two tables of two columns each share a row, too.
    """
    alts = dict(re.findall(r'\]\(([\w.-]+)\)\{#\S+ alt="(.*)"\}$', text, flags=re.M))

    def shape(figure):
        name = re.search(r'image\("(.*?)"', figure)[1]
        width, height = Image.open(folder / name).size  # OpenCV: no 榛子 on Windows
        return name, min(1, width / DPI / INCHES, 1.3 * width / height), width / height

    def sized(figure, share=None):
        name, sharp, _ = shape(figure)
        alt = json.dumps(html.unescape(alts[name]), ensure_ascii=False)
        image = f'image("{name}", width: {share or sharp:.1%}, alt: {alt})'
        return figure.replace(f'image("{name}")', image)

    def floating(match, body):
        begins = match.string[: match.start()].endswith(">\n")  # a heading's label
        where = "bottom" if begins else "auto"
        return f"#place({where}, float: true, block[{body}])\n"

    def row(match):
        (_, a, wide_a), (_, b, wide_b) = map(shape, match.groups())
        if a + b > 1.05:
            return match[0]
        cells = "".join(f"[{sized(figure, share=1)}], " for figure in match.groups())
        columns = f"columns: ({wide_a:.3f}fr, {wide_b:.3f}fr), column-gutter: 2em"
        return floating(match, f"#grid({columns}, {cells})")

    def single(match):
        figure = sized(match[0])
        return floating(match, figure) if ".png" in shape(figure)[0] else figure

    pair = r"#grid(columns: (1fr, 1fr), column-gutter: 2em, [\1], [\2])\n"
    source = re.sub(rf"({TABLE})\n({TABLE})", pair, source, flags=re.M)
    source = re.sub(rf"({FIGURE})\n({FIGURE})", row, source, flags=re.M)
    return re.sub(FIGURE, single, source, flags=re.M)
