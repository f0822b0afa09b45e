"""JupyterLab and the report in a real browser, moved as a person moves them."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from urllib.request import Request, urlopen

import nbformat
import pytest

from anomaly.files import ROOT
from anomaly.report.exporters import export_report
from anomaly.report.widgets import WIDGET

sync_api = pytest.importorskip(
    "playwright.sync_api", reason="pip install -r requirements-dev.txt: no playwright"
)
NAMES = ("chromium", "chromium-browser", "google-chrome")
BROWSER = next(filter(None, map(shutil.which, NAMES)), None)
FLAGS = """--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update --no-proxy-server"""
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
REPORTS = sorted((ROOT / "report").rglob("report.html"))
RESIDUE = ("model not found", "VBox(", "FloatProgress(", "HBox(")

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no Chromium: apt install chromium"),
]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=BROWSER, headless=True, args=FLAGS.split()
        )
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def lab(tiny, tmp_path_factory):
    """(folder, URL) of a JupyterLab as `make lab` starts it, with tiny data."""
    root = tmp_path_factory.mktemp("lab")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    values = {"image_size": 64, "backbone": "efficientnet_lite2", "device": "cpu"}
    values |= {"dataset_path": str(tiny), "visualization_dir": str(root / "report")}
    for path in (root / "notebooks").glob("*.ipynb"):
        notebook = nbformat.read(path, as_version=4)
        cell = next(
            c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])
        )
        for name, value in values.items():
            line = rf"^({name}\b[^=]*= ).*$"
            cell.source = re.sub(line, rf"\g<1>{value!r}", cell.source, flags=re.M)
        nbformat.write(notebook, path)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {"JUPYTER_CONFIG_DIR": "config", "JUPYTER_RUNTIME_DIR": "runtime"}
    folders |= {"JUPYTER_DATA_DIR": "data", "IPYTHONDIR": "ipython"}
    environment = os.environ | {k: str(root / v) for k, v in folders.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += [f"--config={ROOT / 'tools' / 'lab_config.py'}", f"--port={port}"]
    command += ["--IdentityProvider.token=", "--ServerApp.disable_check_xsrf=True"]
    log = (root / "lab.log").open("w")
    process = subprocess.Popen(
        command, cwd=root, env=environment, stdout=log, stderr=subprocess.STDOUT
    )
    try:
        wait_for(lambda: ask(f"http://127.0.0.1:{port}/api") or process.poll())
        assert process.poll() is None, (root / "lab.log").read_text()
        yield root, f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)
        log.close()


def ask(url, method="GET"):
    """What Jupyter's server answers, None while it does not."""
    try:
        with urlopen(Request(url, method=method), timeout=10) as answer:
            return json.loads(answer.read() or "{}")
    except OSError:
        return None


def wait_for(condition, seconds=120, pause=lambda: time.sleep(0.3)):
    """The condition's value as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < end, f"not within {seconds} s"
        pause()
    return value


def opened(browser, url, name, width=1280):
    """A page with a notebook whose kernel is idle."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.goto(f"{url}/lab/tree/notebooks/{name}?reset", wait_until="domcontentloaded")
    page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
    wait_for(lambda: is_idle(url, name), pause=lambda: page.wait_for_timeout(200))
    return page


def is_idle(url, name):
    sessions = [s for s in ask(f"{url}/api/sessions") or [] if name in s["path"]]
    return sessions and sessions[0]["kernel"]["execution_state"] == "idle"


def run_all(page, path, url):
    """Run > Run All Cells, then save; the notebook as saved, when all has run."""
    menu = page.get_by_role("menuitem", name="Run", exact=True)
    menu.click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()

    def is_done():
        page.wait_for_timeout(1000)
        page.keyboard.press("Control+s")
        page.wait_for_timeout(500)
        try:
            notebook = nbformat.read(path, as_version=4)
        except nbformat.reader.NotJSONError:  # the lab is writing it just now
            return None
        code = [c for c in notebook.cells if c.cell_type == "code"]
        failed = [o for c in code for o in c.outputs if o.output_type == "error"]
        done = all(cell.execution_count for cell in code)
        return (done or failed) and is_idle(url, path.name) and notebook

    return wait_for(is_done, 300, pause=lambda: None)


def shut_down(page, url, name):
    page.close()
    for session in ask(f"{url}/api/sessions"):
        ask(f"{url}/api/sessions/{session['id']}", "DELETE")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_in_the_lab(path, lab, browser):
    root, url = lab
    page = opened(browser, url, path.name)
    try:
        saved = run_all(page, root / "notebooks" / path.name, url)
        if path.stem == "07_explorer":
            check_that_a_slider_moves_picture_and_text(page)
    finally:
        shut_down(page, url, path.name)
    outputs = [o for c in saved.cells for o in c.get("outputs", [])]
    assert not [o.evalue for o in outputs if o.output_type == "error"]
    assert not [o.text for o in outputs if o.get("name") == "stderr"]
    for output in outputs:
        data = output.get("data", {})
        assert WIDGET not in data
        assert not any(word in data.get("text/plain", "") for word in RESIDUE)
        if any(mime.startswith("image/") for mime in data):
            assert ' alt="' in data["text/html"]  # JupyterLab knows no other


def check_that_a_slider_moves_picture_and_text(page):
    handle = page.locator(".jupyter-widgets [role=slider]").first
    handle.scroll_into_view_if_needed()
    picture = page.locator("img.jupyter-widgets")
    text = page.locator(".widget-html-content", has_text="false-positive rate")

    def seen():
        pixels = (
            "x => fetch(x.src).then(r => r.text()).then(t => t.length + t.slice(-99))"
        )
        return picture.evaluate(pixels), text.inner_text()

    before = seen()
    assert "threshold" in before[1]
    handle.focus()
    for _ in range(3):
        page.keyboard.press("ArrowLeft")

    def has_followed():
        after = seen()
        return after[0] != before[0] and after[1] != before[1]

    wait_for(has_followed, 10, pause=lambda: page.wait_for_timeout(50))


def test_a_saved_explorer_opens_without_its_kernel(lab, browser):
    root, url = lab
    name = "07_explorer.ipynb"
    page = opened(browser, url, name)
    run_all(page, root / "notebooks" / name, url)
    shut_down(page, url, name)
    page = opened(browser, url, name, width=800)
    try:
        still = page.get_by_alt_text("the first view of the explorer")
        wait_for(still.count, 30, pause=lambda: page.mouse.wheel(0, 300))
        assert not any(word in page.inner_text("body") for word in RESIDUE)
    finally:
        shut_down(page, url, name)


def test_links_inside_the_report_lead_somewhere_in_the_lab(lab, browser):
    root, url = lab
    name = "06_report.ipynb"
    page = opened(browser, url, name)
    try:
        run_all(page, root / "notebooks" / name, url)
        link = page.locator('a[href="#fig-pipeline"]').first
        wait_for(link.count, 30, pause=lambda: page.mouse.wheel(0, 600))
        link.click()
        page.wait_for_timeout(1000)
        # untrusted output has the one, trusted output the other
        mark = '[data-jupyter-id="fig-pipeline"], #fig-pipeline'
        place = page.locator(mark)
        box = place.locator("xpath=..").bounding_box()
        assert 0 < box["y"] < 900
    finally:
        shut_down(page, url, name)


def test_a_wrong_parameter_is_one_line_in_the_lab(lab, browser):
    root, url = lab
    path = root / "notebooks" / "wrong.ipynb"
    notebook = nbformat.read(root / "notebooks" / "01_data_exploration.ipynb", 4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(
            'category: str = "hazelnut"', 'category = "nut"'
        )
    nbformat.write(notebook, path)
    page = opened(browser, url, path.name)
    try:
        saved = run_all(page, path, url)
    finally:
        shut_down(page, url, path.name)
        path.unlink()
    [error] = [
        o for c in saved.cells for o in c.get("outputs", []) if o.output_type == "error"
    ]
    assert error.ename == "InputError" and "nut" in error.evalue
    assert len("\n".join(error.traceback).splitlines()) == 1


LAYOUT = """() => [...document.body.querySelectorAll("*")].filter(e => {
  const width = document.documentElement.clientWidth + 1;
  const scrolls = x => x && (/auto|scroll/.test(getComputedStyle(x).overflowX)
    || scrolls(x.parentElement));
  return e.getBoundingClientRect().right > width && !scrolls(e.parentElement);
}).map(e => e.outerHTML.slice(0, 200))"""


def check_page(browser, path, width, scheme):
    """No element wider than the page, no request to a network, no console error."""
    page = browser.new_page(
        viewport={"width": width, "height": 900}, color_scheme=scheme
    )
    requests, errors = [], []
    page.on("request", lambda request: requests.append(request.url))
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    try:
        page.goto(path.as_uri())
        assert page.evaluate(LAYOUT) == []
        wide = "document.documentElement.scrollWidth"
        assert page.evaluate(wide) <= width
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (dark != "rgb(255, 255, 255)") == (scheme == "dark")
    finally:
        page.close()
    assert not errors
    assert all(url.startswith(("file:", "data:")) for url in requests)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 1100])
@pytest.mark.parametrize(
    "path", REPORTS, ids=lambda path: str(path.parent.relative_to(ROOT))
)
def test_a_report_fits_its_window(path, width, scheme, browser):
    check_page(browser, path, width, scheme)


def test_a_report_made_from_the_lab_fits_its_window(lab, browser, tmp_path):
    """The notebook that a person has run and saved, exported."""
    root, url = lab
    name = "06_report.ipynb"
    page = opened(browser, url, name)
    run_all(page, root / "notebooks" / name, url)
    shut_down(page, url, name)
    shutil.copy(root / "notebooks" / name, tmp_path)
    export_report([tmp_path], tmp_path, "en", pdf=False)
    check_page(browser, tmp_path / "report.html", 400, "dark")
