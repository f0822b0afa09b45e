"""What a notebook shows: figures and tables with their captions, in its language.

    say, show, table = lesson(settings.lang)

Captions and alt texts stand in captions.toml, both languages side by side; the words of
tables in words.toml, by their English.
"""

import tomllib
from functools import cache, partial
from pathlib import Path

import pandas
from IPython.display import Markdown, display

from anomaly.files import ROOT
from anomaly.report.show import picture_bundle
from anomaly.report.style import speaker

CAPTIONS = Path(__file__).with_name("captions.toml")
WORDS = Path(__file__).with_name("words.toml")


def lesson(lang):
    """say(english, chinese), show(picture, name), table(rows, name) of a language."""
    return speaker(lang), partial(show, lang=lang), partial(table, lang=lang)


@cache
def captions():
    """{name: {"en" or "zh": {"caption", "alt"}}}; tables have no alt text."""
    return tomllib.loads(CAPTIONS.read_text(encoding="utf-8"))


@cache
def words():
    """{English: Chinese} of what stands in the tables."""
    return tomllib.loads(WORDS.read_text(encoding="utf-8"))


def place(path):
    """A path as a reader sees it: below the project, or whole where it lies outside."""
    return (path.relative_to(ROOT) if path.is_relative_to(ROOT) else path).as_posix()


def show(picture, name, lang="en", **values):
    """Display a figure or an RGB array above the caption that has its name.

    `values` fill {braces} in caption and alt text.
    """
    words = captions()[name][lang]
    caption, alt = (words[key].format(**values) for key in ("caption", "alt"))
    bundle, size = picture_bundle(picture, alt)
    display(bundle, raw=True, metadata={"caption": caption, "alt": alt, **size})
    display(Markdown(f"*{caption}*"))


def table(rows, name, lang="en", digits=4, **values):
    """Display rows, [{column: value}] or a DataFrame, as a table with a caption.

    Numbers stand at the right, real ones with so many digits; None is a dash. Columns
    and texts are English, and are shown in Chinese if `words` has it.
    """
    frame = pandas.DataFrame(rows)
    if lang == "zh":
        frame = frame.rename(columns=words())
        frame = frame.map(lambda x: words().get(x, x) if isinstance(x, str) else x)
    caption = captions()[name][lang]["caption"].format(**values)
    numbers = frame.select_dtypes("number").columns
    look = frame.style.hide(axis="index").format(precision=digits, na_rep="–")
    look = look.set_properties(subset=list(numbers), **{"text-align": "right"})
    others = [column for column in frame.columns if column not in numbers]
    look = look.set_properties(subset=others, **{"text-align": "left"})
    look = look.set_caption(caption).set_table_styles(
        [
            {"selector": "caption", "props": "caption-side: bottom; text-align: left; min-width: 26em"},
            {"selector": "th", "props": "text-align: left"},
            *(
                {"selector": f"th.col{i}", "props": "text-align: right"}
                for i, column in enumerate(frame.columns)
                if column in numbers
            ),
        ]
    )
    number = f"{{:.{digits}f}}".format
    plain = frame.astype(object).where(frame.notna(), "–")
    plain = plain.to_string(index=False, float_format=number)
    html = look.to_html(table_uuid=name)
    display({"text/html": html, "text/plain": plain}, raw=True)
