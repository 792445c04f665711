#!/usr/bin/env python3
"""The server's page in a headless browser, by keyboard alone where a person can: draw, watch, look, draw again, cancel, in
both colour schemes, with no request to anywhere else. serve_page.py FOLDER also writes screenshots."""
import pathlib
import re
import shutil
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from _client_python import need  # noqa: E402

need("playwright")
from playwright.sync_api import expect, sync_playwright  # noqa: E402

from _serve import Server, run_all  # noqa: E402

BROWSER = next((p for p in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if p), None)
server = browser = pictures = None


class Page:
    """A fresh page; what it asks for and what it complains of are kept."""

    def __init__(self, scheme="light", at=None):
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": 1180, "height": 820})
        self.page = self.context.new_page()
        self.asked, self.complaints = [], []
        self.page.on("request", lambda r: self.asked.append(r.url))
        self.page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.goto(f"http://127.0.0.1:{(at or server).port}/")

    def __enter__(self):
        return self.page

    def __exit__(self, kind, *_):
        self.context.close()
        if kind is None:
            strangers = [u for u in self.asked if not re.match(r"(http://127\.0\.0\.1:|data:|blob:)", u)]
            assert not strangers, strangers
            # browsers log every answer that is no success
            complaints = [c for c in self.complaints if "status of 400" not in c]
            assert not complaints, complaints


def shoot(page, name):
    if pictures:
        page.screenshot(path=pictures / f"{name}.png")


def fill(page, **fields):
    for name, value in fields.items():
        page.fill(f"[name={name}]", str(value))


def test_draw_by_keyboard():
    with Page() as page:
        expect(page.locator("#model")).to_contain_text("mini")
        expect(page.locator("#state")).to_have_text("ready")
        assert page.evaluate("document.activeElement.id") == "prompt"  # one may write at once
        page.keyboard.type("a red circle above a blue square")
        fill(page, width=64, height=64, num_inference_steps=30, seed=7)
        page.keyboard.press("Control+Enter")
        expect(page.locator(".job progress")).to_be_visible()
        expect(page.locator(".job .quiet")).to_contain_text(re.compile(r"step \d+ of 30"))
        expect(page.locator("#gallery img")).to_have_count(1, timeout=60000)
        expect(page.locator(".job")).to_have_count(0)
        page.locator("#gallery button").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#viewer")).to_be_visible()
        expect(page.locator("#facts")).to_contain_text("a red circle above a blue square")
        expect(page.locator("#facts tr", has_text="seed")).to_contain_text("7")
        assert page.evaluate("document.querySelector('#large img').naturalWidth") == 64
        shoot(page, "page_viewer")
        page.locator("#again").press("Enter")
        expect(page.locator("#viewer")).to_be_hidden()
        assert page.input_value("[name=seed]") == "7" and page.input_value("[name=num_inference_steps]") == "30"
        assert page.input_value("#prompt") == "a red circle above a blue square"
        expect(page.locator("#groups")).to_contain_text("group 0")
        expect(page.locator("#groups")).to_contain_text("peak")


def test_previews_progress_and_cancel():
    with Page() as page:
        page.fill("#prompt", "a long one")
        fill(page, width=128, height=128, num_inference_steps=120)
        page.click("button.main")
        expect(page.locator(".job .preview")).to_have_attribute("src", re.compile("^data:image/png"), timeout=60000)
        expect(page.locator(".job .quiet")).to_contain_text("left")
        shoot(page, "page_drawing")
        page.click(".job button")
        expect(page.locator(".job")).to_have_count(0, timeout=10000)


def ask_for(at, prompt, **more):
    return at.ask("POST", "/v1/images/generations", {"prompt": prompt, "size": "64x64", "steps": 2, "async": True, **more})[1]["id"]


def test_a_long_queue_holds_up_nothing():
    """A browser opens six connections to a server, and jobs of others are there too."""
    jobs = [ask_for(server, f"waits {i}", steps=200) for i in range(30)]
    with Page() as page:
        expect(page.locator("#rows .job").first).to_contain_text("waits 0")  # what is drawn comes first
        expect(page.locator("#rows .job")).to_have_count(12)
        expect(page.locator("#more-wait")).to_have_text("and 18 more")
        shoot(page, "page_queue")
        seen = {page.inner_text("#groups") for _ in range(6) if not page.wait_for_timeout(800)}
        assert len(seen) > 1, seen  # it moves
        page.locator("#rows .job button").first.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#rows .job").first).to_contain_text("waits 1", timeout=10000)
        assert page.evaluate("document.activeElement.textContent") == "Cancel"  # of the next one
        for job in jobs[1:]:
            server.ask("POST", f"/v1/jobs/{job}/cancel")
        expect(page.locator(".job")).to_have_count(0, timeout=10000)
        ask_for(server, "somebody else's")
        expect(page.locator("#gallery li").first).to_contain_text("somebody else's", timeout=60000)


def test_a_server_that_comes_back_is_followed():
    with tempfile.TemporaryDirectory() as data:
        other = Server("--num_inference_steps", "4", data=data)
        context = browser.new_context(viewport={"width": 1180, "height": 820})
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{other.port}/")
        ask_for(other, "before", steps=200)
        last = ask_for(other, "last")
        expect(page.locator("#rows .job")).to_have_count(2, timeout=10000)
        other.process.kill()
        other.process.wait()
        expect(page.locator("#state")).to_have_text("not reachable", timeout=10000)
        shoot(page, "page_away")
        port = other.port
        other.close()
        other = Server("--num_inference_steps", "4", "--port", str(port), data=data)
        try:
            expect(page.locator("#state")).to_have_text("ready", timeout=10000)
            other.wait_job(last)
            expect(page.locator("#gallery li")).to_have_count(2, timeout=10000)
            expect(page.locator(".job")).to_have_count(0)
            expect(page.locator("#error")).to_have_text("")
        finally:
            context.close()
            other.close()


def test_what_is_refused_is_said():
    with Page() as page:
        page.fill("#prompt", "a")
        fill(page, width=67, height=64)
        # the browser's own check would hold it back
        page.evaluate("document.getElementById('form').noValidate = true")
        page.click("button.main")
        expect(page.locator("#error")).to_contain_text("67")


def test_both_schemes_and_a_narrow_window():
    for scheme in ("light", "dark"):
        with Page(scheme) as page:
            expect(page.locator("#gallery img").first).to_be_visible()
            background = page.evaluate("getComputedStyle(document.body).backgroundColor")
            light = sum(map(int, re.findall(r"\d+", background)[:3])) / 3
            assert (light > 128) == (scheme == "light"), background
            page.wait_for_timeout(300)
            shoot(page, f"page_{scheme}")
            page.set_viewport_size({"width": 390, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")


def test_every_control_has_a_name_and_can_be_reached():
    with Page() as page:
        page.click("#more summary")
        nameless = page.evaluate("""[...document.querySelectorAll('input,textarea,select,button,a')]
            .filter(e => !e.labels?.length && !e.textContent.trim() && !e.getAttribute('aria-label')).map(e => e.outerHTML)""")
        assert not nameless, nameless
        shoot(page, "page_more")
        page.locator("#prompt").focus()
        reached = set()
        for _ in range(30):
            reached.add(page.evaluate("document.activeElement.name || document.activeElement.id || document.activeElement.textContent"))
            page.keyboard.press("Tab")
        assert {"prompt", "width", "height", "n", "num_inference_steps", "guidance_scale", "seed", "negative_prompt", "sampler", "Draw"} <= reached, reached


def test_texts_of_others_are_no_markup():
    with Page() as page:
        page.fill("#prompt", "<img src=x onerror=\"document.title='broken'\">")
        fill(page, width=64, height=64, num_inference_steps=1)
        page.keyboard.press("Control+Enter")
        expect(page.locator("#gallery span", has_text="<img").first).to_be_visible(timeout=60000)
        assert page.title() == "Atelier"


def test_a_key_is_asked_for_and_used():
    with tempfile.TemporaryDirectory() as data, Server("--api_key", "0123456789abcdef0", data=data) as other:
        context = browser.new_context()
        page = context.new_page()
        page.goto(f"http://127.0.0.1:{other.port}/")
        expect(page.locator("#error")).to_contain_text("key")
        page.fill("#key", "0123456789abcdef0")
        page.keyboard.press("Tab")
        expect(page.locator("#model")).to_contain_text("mini")
        page.fill("#prompt", "a")
        fill(page, width=64, height=64, num_inference_steps=1)
        page.click("button.main")
        expect(page.locator("#gallery img")).to_have_count(1, timeout=60000)
        page.wait_for_function("document.querySelector('#gallery img').naturalWidth === 64")
        context.close()


def main():
    global server, browser, pictures
    if not BROWSER:
        print("skipped: no chromium here")
        return 77
    arguments = sys.argv[1:]
    if arguments and pathlib.Path(arguments[0]).is_dir():
        pictures = pathlib.Path(arguments.pop(0)).resolve()
    with Server() as server, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=BROWSER, args=["--no-sandbox"])
        tests = [value for name, value in globals().items() if name.startswith("test_")]
        code = run_all([t for t in tests if not arguments or any(a in t.__name__ for a in arguments)])
        browser.close()
        return code


if __name__ == "__main__":
    sys.exit(main())
