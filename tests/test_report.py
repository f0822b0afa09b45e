"""The report as a reader gets it: notebook 06, executed, as HTML and PDF."""

import html.parser
import json
import re
import shutil
from pathlib import Path

import cv2
import nbformat
import numpy as np
import pypdf
import pytest

import helpers as hp
from anomaly.files import ROOT, write_image
from anomaly.report.exporters import export_report
from anomaly.report.style import cjk_font
from anomaly.settings import Settings

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
                write_image(root / category / part / name, image)
                if part == "test":
                    entry = {"label": "bad", "defect": "hole"} if bad else {}
                    labels[f"{category}/test/{name}"] = {"label": "good"} | entry
                if bad and category != "nut":
                    target = root / category / "ground_truth" / f"{Path(name).stem}.png"
                    write_image(target, np.repeat(mask[..., None], 3, axis=2))
    text = json.dumps(labels, ensure_ascii=False)
    (root / "image_anomaly_labels.json").write_text(text, encoding="utf-8")
    return root


def run_notebook(settings, monkeypatch):
    """Execute notebook 06 in this process; its outputs as an executed notebook."""
    outputs = []

    def display(content, metadata=None, raw=False):
        bundle = content if raw else {"text/markdown": content.data}
        output = nbformat.v4.new_output("display_data", bundle, metadata=metadata or {})
        outputs.append(output)

    monkeypatch.setattr("anomaly.report.show.display", display)
    path = ROOT / "notebooks" / "06_report.ipynb"
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    names = {"__name__": "notebook"}
    for index, cell in enumerate(code):
        exec("".join(cell["source"]), names)
        if index == 0:  # the parameters
            names.update(vars(settings))
    settings.output.mkdir(parents=True, exist_ok=True)
    executed = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell()])
    executed.cells[0].outputs = outputs
    nbformat.write(executed, settings.output / "06_report.ipynb")


@pytest.fixture(scope="module", params=["en", "zh"])
def reports(request, data, tmp_path_factory):
    """(language, folder of `nut`, folder of the other, folder of the common one)."""
    lang, target = request.param, tmp_path_factory.mktemp(request.param)
    folders = []
    with pytest.MonkeyPatch.context() as monkeypatch:
        for category in ("nut", "榛子 & co"):
            settings = Settings(
                category=category,
                dataset_path=str(data),
                visualization_dir=str(target),
                backbone="efficientnet_lite2",
                image_size=64,
                lang=lang,
            )
            hp.save_evaluation(settings)
            run_notebook(settings, monkeypatch)
            export_report([settings.output], settings.output, lang)
            folders.append(settings.output)
    export_report(folders, target, lang)
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
    family = cjk_font()[0].replace(" ", "")
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


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_report_without_labels(data, tmp_path, lang, monkeypatch):
    shutil.copytree(data / "nut", tmp_path / "data" / "nut")
    settings = Settings(
        category="nut",
        dataset_path=str(tmp_path / "data"),
        visualization_dir=str(tmp_path),
        backbone="efficientnet_lite2",
        image_size=64,
        lang=lang,
    )
    run_notebook(settings, monkeypatch)
    export_report([settings.output], settings.output, lang)
    page = Page(settings.output / "report.html")
    assert len(page.alts) >= 3
    assert "{%" not in page.text and "None" not in page.text
