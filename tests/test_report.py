"""The report: notebook 06, its prose and figures, and their export to HTML and PDF."""

import html.parser
import importlib.util
import io
import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pypandoc
import pypdf
import pytest

import export
import figures as fg
import helpers as hp

NASTY = '<script>alert(1)< $x_1$ *b* `c` [d](e) #read("f") @g é 榛子.png'
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def draw(rng, defect):
    image = np.full((64, 64, 3), 20, np.uint8)
    cv2.circle(image, (32, 32), 22, (60, 100, 150), -1)
    mask = np.zeros((64, 64), np.uint8)
    if defect:
        x, y = (int(v) for v in rng.integers(22, 42, 2))
        cv2.circle(mask, (x, y), 6, 255, -1)
        image[mask > 0] = 230
    noise = rng.normal(0, 4, image.shape)
    return np.clip(image + noise, 0, 255).astype(np.uint8), mask


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Two categories: `nut`, and one with masks and an ill-natured file name."""
    root, rng, labels = tmp_path_factory.mktemp("data"), np.random.default_rng(0), {}
    for category in ("nut", "榛子 & co"):
        for part, count in (("train/good", 12), ("test", 12)):
            (root / category / part).mkdir(parents=True)
            for i in range(count):
                bad = part == "test" and i % 2 == 1
                image, mask = draw(rng, bad)
                special = category != "nut" and part == "test" and i == 1
                name = NASTY if special else f"{i:03d}.png"
                hp.write_image(root / category / part / name, image)
                if part == "test":
                    entry = {"label": "bad", "defect": "hole"} if bad else {}
                    labels[f"{category}/test/{name}"] = {"label": "good"} | entry
                if bad and category != "nut":
                    target = root / category / "ground_truth" / f"{Path(name).stem}.png"
                    hp.write_image(target, np.repeat(mask[..., None], 3, axis=2))
    text = json.dumps(labels, ensure_ascii=False)
    (root / "image_anomaly_labels.json").write_text(text, encoding="utf-8")
    return root


def run_notebook(settings, monkeypatch):
    """Execute notebook 06 in this process; its outputs as an executed notebook."""
    outputs = []

    def display(content, metadata=None, raw=False):
        bundle = content if raw else {"text/markdown": content.data}
        outputs.append({"data": bundle, "metadata": metadata or {}})

    monkeypatch.setattr(fg, "display", display)
    path = hp.ROOT / "notebooks" / "06_report.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    names = {"__name__": "notebook"}
    for index, cell in enumerate(code):
        exec("".join(cell["source"]), names)
        if index == 0:  # the parameters
            names.update(vars(settings))
    settings.output.mkdir(parents=True, exist_ok=True)
    executed = json.dumps({"cells": [{"outputs": outputs}]})
    (settings.output / "06_report.ipynb").write_text(executed, encoding="utf-8")


@pytest.fixture(scope="module", params=["en", "zh"])
def reports(request, data, tmp_path_factory):
    """(language, folder of `nut`, folder of the other, folder of the common one)."""
    lang, target = request.param, tmp_path_factory.mktemp(request.param)
    folders = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        for category in ("nut", "榛子 & co"):
            settings = hp.Settings(
                category=category,
                dataset_path=str(data),
                visualization_dir=str(target),
                backbone="efficientnet_lite2",
                image_size=64,
                lang=lang,
            )
            hp.save_evaluation(settings)
            run_notebook(settings, monkeypatch)
            export.export_report([settings.output], settings.output, lang)
            folders.append(settings.output)
    export.export_report(folders, target, lang)
    return lang, *folders, target


class Page(html.parser.HTMLParser):
    """What an HTML file refers to, its pictures' alt texts and its visible text."""

    def __init__(self, path):
        super().__init__()
        self.tags, self.references, self.alts, self.text = [], [], [], ""
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        attributes = dict(attributes)
        keys = ("src", "href", "srcset", "data", "action", "poster")
        self.references += [attributes[k] for k in keys if k in attributes]
        if tag == "img":
            self.alts.append(attributes.get("alt", ""))

    def handle_data(self, data):
        self.text += data


def pdf_text(path):
    return "\n".join(page.extract_text() for page in pypdf.PdfReader(path).pages)


def squeezed(text):
    return re.sub(r"\s", "", text)


def test_pdf_reads_like_a_report(reports):
    lang, nut, _, _ = reports
    text = pdf_text(nut / "report.pdf")
    headings = {
        "en": ("Contents", "Summary", "The task", "Method", "Galleries", "Limits"),
        "zh": ("目录", "摘要", "任务", "方法", "检测实例", "局限", "参考文献"),
    }
    for heading in headings[lang]:
        assert heading in text
    metrics = json.loads((nut / "metrics.json").read_text(encoding="utf-8"))
    assert f"AUROC{'of' if lang == 'en' else '为'}{metrics['auroc']:.3f}" in squeezed(
        text
    )
    assert f"{metrics['threshold']:.4g}" in text
    assert "$" not in text and "\\" not in text and "&#" not in text
    assert "**" not in text and "figure:" not in text
    assert len(CHINESE.findall(text)) > 1500 if lang == "zh" else "Gaussian" in text


def test_captions_are_numbered_and_every_figure_is_there(reports):
    lang, nut, other, both = reports
    figure, table = ("Figure", "Table") if lang == "en" else ("图", "表")
    for folder in (nut, other, both):
        page, text = Page(folder / "report.html"), pdf_text(folder / "report.pdf")
        for word in (figure, table):
            numbers = re.findall(rf"^{word} (\d+)\.", page.text, flags=re.MULTILINE)
            assert [int(n) for n in numbers] == [*range(1, len(numbers) + 1)]
            assert len(numbers) >= 6
            for number in numbers:
                assert f"{word}{number}." in squeezed(text)
            if word == figure:
                assert page.tags.count("figure") == len(page.alts) == len(numbers)
                pages = pypdf.PdfReader(folder / "report.pdf").pages
                assert sum(len(p.images) for p in pages) == len(numbers)


def test_pdf_has_a_linked_contents_and_embedded_fonts(reports):
    lang, nut, _, _ = reports
    reader = pypdf.PdfReader(nut / "report.pdf")
    links = [a for a in reader.pages[0].get("/Annots", [])]
    assert len(links) >= 10
    assert len(reader.outline) >= 10
    assert f"1 / {len(reader.pages)}" in reader.pages[0].extract_text()
    names = set()
    for page in reader.pages:
        for font in page["/Resources"].get("/Font", {}).values():
            font = font.get_object()
            inner = font.get("/DescendantFonts", [font])[0].get_object()
            descriptor = inner["/FontDescriptor"].get_object()
            assert {"/FontFile", "/FontFile2", "/FontFile3"} & set(descriptor)
            names.add(font["/BaseFont"])
    family = fg.cjk_font()[0].replace(" ", "")
    assert any(family in name for name in names) == (lang == "zh")


def test_html_stands_alone(reports):
    lang, nut, other, both = reports
    for folder in (nut, other, both):
        page = Page(folder / "report.html")
        source = (folder / "report.html").read_text(encoding="utf-8")
        assert all(r.startswith(("data:", "#")) for r in page.references)
        assert not {"script", "link", "iframe", "object"} & set(page.tags)
        assert not re.search(r"url\(\s*['\"]?(?!data:)|@import", source)
        assert "math" in page.tags and "prefers-color-scheme: dark" in source
        assert 'name="viewport"' in source
        assert page.alts and all(len(alt) > 10 for alt in page.alts)
        anchors = [r[1:] for r in page.references if r.startswith("#")]
        assert all(f'id="{anchor}"' in source for anchor in anchors)
        if lang == "zh":
            assert all(CHINESE.search(alt) for alt in page.alts)
            captions = re.findall("<(?:fig)?caption.*?</", source, flags=re.DOTALL)
            assert all(CHINESE.search(caption[9:]) for caption in captions)
        for suffix in ("html", "pdf"):
            assert (folder / f"report.{suffix}").stat().st_size < 5e6


def test_names_are_shown_and_never_executed(reports):
    _, _, other, both = reports
    for folder in (other, both):
        assert NASTY in Page(folder / "report.html").text
        assert squeezed(NASTY) in squeezed(pdf_text(folder / "report.pdf"))
    assert "榛子 & co" in Page(both / "report.html").text


def test_common_report_compares_first(reports):
    _, nut, other, both = reports
    text = Page(both / "report.html").text
    positions = [text.index("DeLong"), text.index("arXiv")]
    for folder in (nut, other):
        metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
        positions.insert(1, text.rindex(metrics["data_sha256"][:8]))
        assert f"{metrics['auroc']:.3f}" in text
    assert positions[0] < min(positions[1:3]) and max(positions[1:3]) < positions[3]
    assert text.count("arXiv:2011.08785") == 1


def test_failing_export_changes_nothing(reports, tmp_path, monkeypatch):
    lang, nut, _, _ = reports
    shutil.copy(nut / "06_report.ipynb", tmp_path)
    (tmp_path / "report.html").write_text("old")

    def fail(*args, **kwargs):
        raise RuntimeError("no\nspace left")

    with monkeypatch.context() as patch:
        patch.setattr(export.typst, "compile", fail)
        with pytest.raises(export.ExportError, match="no space left") as error:
            export.export_report([tmp_path], tmp_path, lang)
    assert "\n" not in str(error.value)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["06_report.ipynb", "report.html"]
    assert (tmp_path / "report.html").read_text() == "old"

    (tmp_path / "report.pdf").write_text("old")
    export.export_report([tmp_path], tmp_path, lang, pdf=False)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["06_report.ipynb", "report.html"]
    assert (tmp_path / "report.html").read_text(encoding="utf-8") != "old"


def test_notebook_without_a_report_is_refused(tmp_path):
    (tmp_path / "06_report.ipynb").write_text('{"cells": []}')
    with pytest.raises(export.ExportError, match="run it first"):
        export.export_report([tmp_path], tmp_path, "en")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_report_without_labels(data, tmp_path, lang, monkeypatch):
    shutil.copytree(data / "nut", tmp_path / "data" / "nut")
    settings = hp.Settings(
        category="nut",
        dataset_path=str(tmp_path / "data"),
        visualization_dir=str(tmp_path),
        backbone="efficientnet_lite2",
        image_size=64,
        lang=lang,
    )
    run_notebook(settings, monkeypatch)
    export.export_report([settings.output], settings.output, lang)
    page = Page(settings.output / "report.html")
    assert len(page.alts) >= 3
    assert "{%" not in page.text and "None" not in page.text


@pytest.mark.parametrize(
    "text",
    [
        NASTY,
        "a_b_ ~c~ ^d^ **e**",
        "$$x$$ \\alpha {f} | g",
        "![h](i) <!-- j -->",
        "1. k",
    ],
)
def test_escaped_text_shows_literally(text):
    markdown = f"x {fg.escape(text)}"
    plain = pypandoc.convert_text(
        markdown, "plain", export.MARKDOWN, extra_args=["--wrap=none"]
    )
    assert plain.strip() == f"x {text}"


def test_heat_map_colours():
    image = np.full((40, 80, 3), 100, np.uint8)
    values = np.zeros((64, 64), np.float32)
    values[:, 32:] = 10
    panel = fg.heatmap_panel(image, values, (0, 10), "jet")
    assert panel.shape[0] == 64 and panel.dtype == np.uint8
    cold, hot = panel[32, 128 + 4 + 10], panel[32, 128 + 4 + 120]  # RGB
    assert cold[2] > 100 > cold[0] and hot[0] > 100 > hot[2]
    assert (panel[32, :128] == 100).all()  # the original, in the image's shape
    calm = fg.heatmap_panel(image, values, (10, 30), "jet")
    assert (calm[32, 142] == cold).all()  # below the scale is as cold as its low end
    mask = np.zeros((40, 80), bool)
    mask[15:25, 30:50] = True
    outlined = fg.heatmap_panel(image, values, (0, 10), mask=mask)
    assert (outlined[:, :128] == 255).all(axis=2).any()
    low, high = fg.map_scale(np.random.default_rng(0).normal(size=(20, 32, 32)))
    assert abs(low) < 0.1 and abs(high - 2 * 2.576) < 0.3


def test_chinese_font_is_found_or_named(monkeypatch):
    monkeypatch.setattr(fg.font_manager.fontManager, "ttflist", [])
    fg.cjk_font.cache_clear()
    assert fg.cjk_font()[1].name == "NotoSansSC-Regular.ttf"
    fg.cjk_font.cache_clear()
    monkeypatch.setattr(fg.font_manager.fontManager, "ttflist", [])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(hp.InputError, match="zhplot"), fg.figure_style("zh"):
        pass
    fg.cjk_font.cache_clear()


@pytest.mark.filterwarnings("error:.*[Gg]lyph.*missing")
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_performance_summary_has_all_glyphs(lang):
    rng = np.random.default_rng(0)
    is_bad = np.repeat([0, 1, -1], 10)
    scores = rng.normal(is_bad, 1)
    figure = fg.performance_summary(
        rng.normal(size=(30, 5)), scores, is_bad, 0.5, lang=lang
    )
    mime, content = fg.encode(figure)
    assert mime == "image/png"
    pixels = cv2.imdecode(np.frombuffer(io.BytesIO(content).read(), np.uint8), 1)
    assert pixels.shape[0] > 1000 and pixels.std() > 10
