"""The report as a browser shows it: nothing overflows, nothing fails, tables can be sorted, print has every column."""

import html
import json
import re
import shutil
import subprocess

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium to open the report with")

# Runs in the report after it has loaded, and leaves what it found to the page around it.
PROBE = """
<script>
window.addEventListener("load", () => {
  const found = { errors: window.caught, width: document.documentElement.clientWidth };
  found.page = document.documentElement.scrollWidth;
  found.textless = [...document.images].filter(image => !image.alt || !image.naturalWidth).length;
  found.images = document.images.length;
  const ends = selector => [...document.querySelectorAll(selector)].map(part => part.getBoundingClientRect().right);
  found.right = Math.max(...ends("img, .caption, figcaption, .scroll"));
  found.described = [...document.querySelectorAll("table")].filter(
    table => document.getElementById(table.getAttribute("aria-describedby"))?.closest(".scroll") === null).length;
  found.boxes = [...document.querySelectorAll(".scroll:has(table)")].map(
    box => [box.querySelector("tbody").rows.length, box.classList.contains("tall"), box.clientHeight]);
  found.tables = document.querySelectorAll("table").length;
  const tables = [...document.querySelectorAll("table")].filter(table => table.tBodies[0].rows.length > 2);
  found.sorted = tables.map(table => {
    const heads = [...table.tHead.rows[0].cells];
    const k = heads.findIndex(head => head.classList.contains("n"));
    const read = () => [...table.tBodies[0].rows].map(row => row.cells[k].dataset.value ?? "");
    const button = heads[k].querySelector("button");
    button.focus();
    const focused = document.activeElement === button;
    button.click();
    const up = read(), mark = heads[k].getAttribute("aria-sort");
    button.click();
    return { up, down: read(), marks: [mark, heads[k].getAttribute("aria-sort")], focused };
  });
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
CATCH = "<script>window.caught = []; window.onerror = message => { window.caught.push(message); };</script>"
AROUND = """<!DOCTYPE html><title>around</title><pre id="found"></pre>
<script>addEventListener("message", event => { document.getElementById("found").textContent = event.data; });</script>
<iframe style="border: 0; width: WIDTHpx; height: 900px" srcdoc="PAGE"></iframe>
"""


def opened(report, folder, width):
    """What a browser finds in a report whose page is `width` CSS pixels wide."""
    page = (report / "report.html").read_text(encoding="utf-8")
    page = page.replace("<head>", f"<head>{CATCH}").replace("</body>", f"{PROBE}</body>")
    around = folder / "around.html"
    around.write_text(AROUND.replace("WIDTH", str(width)).replace("PAGE", html.escape(page)), encoding="utf-8")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        "--no-first-run", f"--user-data-dir={folder / 'profile'}", "--window-size=1600,1000",
        "--virtual-time-budget=20000", "--enable-logging=stderr", "--dump-dom", around.as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=180, check=True)
    [told] = re.findall(r'<pre id="found">(.*?)</pre>', done.stdout, re.S)
    return json.loads(html.unescape(told)), [line for line in done.stderr.splitlines() if ":CONSOLE" in line]


@pytest.fixture(scope="module", params=[390, 1440])
def found(request, report, tmp_path_factory):
    return request.param, *opened(report, tmp_path_factory.mktemp("browser"), request.param)


def test_nothing_overflows_and_nothing_fails(found):
    width, page, console = found
    assert page["page"] <= page["width"] <= width
    assert page["errors"] == []
    assert console == []


def test_every_image_is_shown_and_has_a_text(found):
    _, page, _ = found
    assert page["images"] == 15
    assert page["textless"] == 0


def test_figures_and_captions_are_as_wide_as_the_page_and_only_long_tables_scroll(found):
    width, page, _ = found
    assert page["right"] <= page["width"] <= width
    assert page["described"] == page["tables"] == len(page["boxes"]), "a caption does not scroll with its table"
    for rows, tall, height in page["boxes"]:
        assert tall == (rows > 15)
        assert not tall or height <= 512


@pytest.mark.skipif(shutil.which("pdftotext") is None, reason="no pdftotext to read the print with")
def test_print_has_every_column_and_heads_that_can_be_read(report, tmp_path):
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
        f"--user-data-dir={tmp_path / 'profile'}", f"--print-to-pdf={tmp_path / 'page.pdf'}",
        (report / "report.html").as_uri(),
    ]  # fmt: skip
    subprocess.run(command, capture_output=True, timeout=180, check=True)
    boxes = ["pdftotext", "-bbox", str(tmp_path / "page.pdf"), "-"]
    pages = subprocess.run(boxes, capture_output=True, text=True, check=True).stdout.split("<page ")[1:]
    page = next(page for page in pages if "detectable" in page and ">Hedges'<" in html.unescape(page))
    width = float(re.match(r'width="([\d.]+)"', page)[1])
    found = re.findall(r'xMax="([\d.]+)"[^>]*>(.*?)</word>', page)
    words = {html.unescape(word): float(right) for right, word in found}
    with (report / "comparisons.md").open(encoding="utf-8") as lines:
        heads = next(line for line in lines if line.startswith("|")).strip("|\n ").replace("|", " ").split()
    assert set(heads) <= set(words)
    assert max(words.values()) < width - 15


def test_tables_are_sorted_by_numbers_with_what_is_missing_last(found):
    _, page, _ = found
    assert len(page["sorted"]) >= 4
    for table in page["sorted"]:
        known = [float(value) for value in table["up"] if value]
        assert known == sorted(known)
        assert [value for value in table["up"] if not value] == table["up"][len(known) :]
        assert [float(value) for value in table["down"] if value] == sorted(known, reverse=True)
        assert [value for value in table["down"] if not value] == table["down"][len(known) :]
        assert table["marks"] == ["ascending", "descending"]
        assert table["focused"], "a table can be sorted from the keyboard"
