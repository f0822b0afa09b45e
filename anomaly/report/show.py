"""Pictures and prose of the report as outputs of its notebook.

Caption and alt text travel in an output's metadata, and in the report's own notebook
section, figure and language, too: there the exporters find them.
"""

import base64
import html
import os

import numpy as np
from IPython.display import Markdown, display

from anomaly.report.prose import FIGURE
from anomaly.report.style import encode


def tell(sections: dict[str, str], section: str, figures: dict, lang: str) -> None:
    """Display a section: its text, and figures[name]() where it names a figure."""
    for bundle, metadata in outputs(sections, section, figures, lang):
        display(bundle, raw=True, metadata=metadata)
        if "caption" in metadata:  # links in the text lead to here
            place = f'<a id="fig-{metadata["figure"]}"></a>'
            display(Markdown(f"{place}*{metadata['caption']}*"))


def outputs(sections: dict[str, str], section: str, figures: dict, lang: str):
    """A section as (data, metadata) of the outputs that make it up, one by one."""
    parts = FIGURE.split(sections[section])  # text, caption, name, alt, text, …
    where = {"section": section, "lang": lang}
    for index in range(0, len(parts), 4):
        if text := parts[index].strip():
            yield {"text/markdown": text, "text/plain": text}, where
        if index + 1 < len(parts):
            caption, name, alt = parts[index + 1 : index + 4]
            told = {"caption": caption, "alt": html.unescape(alt), "figure": name}
            data, size = picture_bundle(figures[name](), told["alt"])
            yield data, {**where, **told, **size}


def picture_bundle(picture, alt):
    """A figure or an RGB array as (data, metadata) of an output.

    A figure is shown at its size in inches, so that its text is as large as the prose;
    its pixels are for sharp screens and print. JupyterLab gives pictures no alt text,
    so that there an <img> stands beside them, which it prefers.
    """
    size = {}
    if not isinstance(picture, np.ndarray):
        size = {"width": round(96 * picture.get_figwidth())}
    mime, content = encode(picture)
    data = {mime: base64.b64encode(content).decode(), "text/plain": alt}
    if "JPY_SESSION_NAME" in os.environ:  # a kernel that JupyterLab started
        data["text/html"] = img(mime, data[mime], alt, **size)
    return data, {mime: {"alt": alt, **size}}


def img(mime, content, alt, width=None):
    """An HTML picture, from base64."""
    wide = f' width="{width}"' if width else ""
    return f'<img src="data:{mime};base64,{content}" alt="{html.escape(alt)}"{wide}>'
