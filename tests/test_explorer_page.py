"""The explorer in a real headless Chromium: filters, sound, comparison, accessibility, speed."""

import functools
import json
import shutil
import statistics
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from explorer_run import CHROMIUM, ROOT, export, synthetic_index

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium"),
]
SEVERE = ("serious", "critical")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return export(tmp_path_factory.mktemp("explorer"))


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(
            executable_path=CHROMIUM,
            args=["--no-sandbox", "--autoplay-policy=no-user-gesture-required"],
        )
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser, folder):
    """The page, opened from disk; at the end it has said nothing and asked for nothing else."""
    yield from opened(browser, folder.as_uri(), {"width": 1280, "height": 900})


@pytest.fixture
def phone(browser, folder):
    yield from opened(browser, folder.as_uri(), {"width": 390, "height": 844})


class Silent(SimpleHTTPRequestHandler):
    def log_message(self, *arguments):
        pass


@pytest.fixture
def served(browser, folder):
    """The same from a web server, where the page does not lie at the root."""
    handler = functools.partial(Silent, directory=folder.parent)
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/{folder.name}"
        yield from opened(browser, address, {"width": 1280, "height": 900})
        server.shutdown()


def opened(browser, address, viewport):
    context = browser.new_context(viewport=viewport)
    page = context.new_page()
    said, asked = [], []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.on("requestfailed", lambda request: said.append(f"{request.url} {request.failure}"))
    page.goto(f"{address}/index.html")
    page.wait_for_selector(".card .caption")
    yield page
    context.close()
    aborted = [line for line in said if not line.endswith("net::ERR_ABORTED")]  # left unfinished
    assert aborted == []
    assert asked and all(url.startswith(f"{address}/") for url in asked)


def count(page) -> int:
    return int(page.inner_text("#count").split()[0].replace(",", ""))


def test_filters_leave_exactly_the_clips_that_the_tables_have(page, folder):
    rows = json.loads((folder / "expected.json").read_text())
    assert count(page) == len(rows)
    page.click("button.tag:has-text('piano')")
    assert count(page) == sum("piano" in row["tags"] for row in rows)
    page.click("button.tag:has-text('piano')")
    assert count(page) == sum("piano" not in row["tags"] for row in rows)
    page.click("button.tag:has-text('piano')")
    page.uncheck("#arms label:has-text('base') input")
    own = [row for row in rows if row["arm"] != "base"]
    assert 0 < count(page) == len(own) < len(rows)
    page.uncheck("#splits label:has-text('train') input")
    own = [row for row in own if row["split"] != "train"]
    assert 0 < count(page) == len(own)
    page.click("text=Clear all filters")
    page.fill("#min", "0.105")
    page.fill("#max", "0.3")
    assert count(page) == sum(0.105 <= row["score"] <= 0.3 for row in rows)
    page.click("text=Clear all filters")
    page.select_option("select[data-category='0']", "none")
    assert count(page) == 0  # every set has a genre
    page.click("text=Clear all filters")
    page.check("#several")
    both = {row["id"] for row in rows if row["arm"] == "base"}
    assert count(page) == sum(row["id"] in both for row in rows)
    page.click("text=Clear all filters")
    page.select_option("#sort", "high")
    best = max(row["score"] for row in rows)
    assert f"CLAP {best:.3f}" in page.inner_text(".card >> nth=0")


def test_the_address_keeps_the_filters(page):
    page.click("button.tag:has-text('jazz')")
    page.fill("#min", "0.1")
    kept = count(page)
    page.reload()
    page.wait_for_selector(".card .caption")
    assert count(page) == kept and page.input_value("#min") == "0.1"
    assert page.get_attribute("button.tag:has-text('jazz')", "data-state") == "with"


def test_a_clip_plays_and_another_stops_it(page):
    playing = "i => { const a = document.querySelectorAll('#cards audio')[i]; return !a.paused; }"
    moved = "() => document.querySelector('#cards audio').currentTime > 0.05"
    page.evaluate("() => document.querySelector('#cards audio').setAttribute('loop', '')")
    page.focus(".card >> nth=0")
    page.keyboard.press("p")
    page.wait_for_function(moved)
    page.keyboard.press("j")
    page.keyboard.press("p")
    page.wait_for_function(f"() => !({playing})(0)")
    assert page.evaluate("() => document.activeElement.dataset.row") == "1"
    shapes = page.evaluate(
        "() => [...document.querySelectorAll('#cards img')].slice(0, 2)"
        ".map(i => [i.complete, i.naturalWidth, i.naturalHeight])"
    )
    assert shapes == [[True, 320, 96]] * 2


def test_it_works_from_a_web_server(served):
    served.evaluate("() => document.querySelector('#cards audio').setAttribute('loop', '')")
    served.focus(".card >> nth=0")
    served.keyboard.press("p")
    served.wait_for_function("() => document.querySelector('#cards audio').currentTime > 0.05")


def test_captions_show_what_is_named_missing_and_extra(page):
    page.fill("#id", "item000")
    page.wait_for_selector(".card .caption")
    own = page.locator(".card:has-text('conceptcaps item000')")
    assert own.locator("mark.named").all_inner_texts() == ["piano"]
    assert own.locator("mark.extra").all_inner_texts() == ["flute"]
    assert own.locator("mark.denied").all_inner_texts() == ["jazz"]
    assert own.locator(".chip.missing").count() == 2  # calm, slow tempo
    assert "extra: not asked for" in own.locator(".chip.extra").inner_text()


def test_arms_stand_side_by_side(page):
    page.focus(".card >> nth=0")
    page.keyboard.press("c")
    page.wait_for_selector("#compare .caption >> nth=1")
    assert page.locator("#compare h4").all_inner_texts() == [
        "conceptcaps item000",
        "base item000",
    ]
    tops = [box["y"] for box in (c.bounding_box() for c in page.locator("#compare .card").all())]
    assert tops[0] == tops[1]
    page.keyboard.press("Escape")
    assert not page.is_visible("#compare")


def test_scorecard_and_figures(page):
    page.click("nav >> text=Scorecard")
    rows = page.locator("#scorecard tbody tr").all_inner_texts()
    assert [row.split("\n")[0].split("\t")[0] for row in rows] == ["Table 1", "A claim", "Another"]
    assert all(text in rows[1] for text in ("0.5", "not run: one crop", "0.4321* [0.4, 0.5]"))
    assert "23,815" in rows[2] and "0.4321\n" in rows[2] and "N = 1,234" in rows[2]
    page.click("nav >> text=Figures")
    page.wait_for_function("() => document.querySelector('#figures img').naturalWidth > 0")
    assert "Of 7,000 sets." in page.inner_text("#figures")


def test_skipping_to_the_clips_keeps_the_filters(page):
    page.click("button.tag:has-text('jazz')")
    kept, address = count(page), page.url
    page.evaluate("document.querySelector('.skip').click()")
    assert count(page) == kept and page.url == address
    assert page.evaluate("document.activeElement.id") == "results"
    assert page.get_attribute("button.tag:has-text('jazz')", "data-state") == "with"


def test_the_address_keeps_the_view(page):
    page.click("nav >> text=Scorecard")
    page.reload()
    page.wait_for_selector("#scorecard td")
    assert page.get_attribute("[data-view=scorecard]", "aria-current") == "page"
    page.click("nav >> text=Clips")
    assert "view" not in page.url and page.is_visible(".card .caption >> nth=0")


def test_verified_are_clips_of_the_dataset_that_were_audited(page, folder):
    rows = json.loads((folder / "expected.json").read_text())
    own = [row for row in rows if row["arm"] == "conceptcaps"]
    verified = [row for row in own if row["verified"]]
    page.select_option("#verified", "yes")
    assert 0 < count(page) == len(verified) < len(own)
    facts = page.locator(".card .facts").all_inner_texts()
    assert facts and all("verified" in fact for fact in facts)
    chip = page.locator(".card >> nth=0").locator(".chip small >> nth=0")
    chip.wait_for()
    assert 0 <= float(chip.inner_text()) <= 1
    page.select_option("#verified", "no")
    assert count(page) == len(own) - len(verified)


def violations(page) -> list[str]:
    import axe_playwright_python

    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text())
    found = page.evaluate("() => axe.run({preload: false})")
    assert len(found["passes"]) > 15
    return [
        f"{rule['id']}: {rule['nodes'][0]['html'][:200]}"
        for rule in found["violations"]
        if rule["impact"] in SEVERE
    ]


def test_axe_finds_nothing_serious(page):
    page.click("button.tag:has-text('piano')")
    assert violations(page) == []
    page.wait_for_selector(".compare")
    page.click(".compare >> nth=0")
    page.wait_for_selector("#compare .caption")
    assert violations(page) == []
    page.keyboard.press("Escape")
    for view in ("Scorecard", "Figures", "Help"):
        page.click(f"nav >> text={view}")
        assert violations(page) == []


def test_axe_finds_nothing_serious_in_the_dark(page):
    page.emulate_media(color_scheme="dark")
    assert violations(page) == []


def test_a_phone_shows_everything_in_its_width(phone):
    assert phone.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert not phone.is_visible("#arms")
    phone.click("nav >> text=Scorecard")
    assert phone.evaluate("() => document.documentElement.scrollWidth") <= 390
    assert violations(phone) == []
    phone.click("nav >> text=Clips")
    phone.click("summary")
    assert phone.is_visible("#arms")
    assert violations(phone) == []


def test_paper_scale_filters_in_100_ms_and_loads_in_2_s(browser, folder, tmp_path):
    large = tmp_path / "large"
    shutil.copytree(folder, large)
    (large / "data/run.js").write_text(synthetic_index(folder, 21_433))
    opening = sum(
        (large / name).stat().st_size
        for name in [
            *(path.name for path in (ROOT / "resources/explorer").iterdir()),
            "data/run.js",
        ]
    )
    assert opening <= 2_000_000
    page = browser.new_page()
    loads = []
    for _ in range(5):
        page.goto("about:blank")
        page.goto((large / "index.html").as_uri())
        assert count(page) == 21_433
        loads.append(page.evaluate("() => performance.getEntriesByType('navigation')[0].duration"))
    clicks = page.evaluate(
        """() => [...document.querySelectorAll('button.tag')].slice(0, 30).map(button => {
            const start = performance.now();
            button.click();
            document.body.offsetHeight;  // the layout too
            const took = performance.now() - start;
            button.click(); button.click();
            return took; })"""
    )
    page.close()
    load_ms, filter_ms = statistics.median(loads), statistics.median(clicks)
    print(f"load {load_ms:.0f} ms, filter {filter_ms:.1f} ms, {opening} bytes to open")
    assert load_ms <= 2000 and filter_ms <= 100


def test_what_is_published_without_audio_is_small(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    outside = [path for path in files if path.relative_to(folder).parts[0] != "audio"]
    assert sum(path.stat().st_size for path in outside) <= 2_000_000
    assert {path.name for path in (ROOT / "resources/explorer").iterdir()} <= {
        path.name for path in outside
    }
