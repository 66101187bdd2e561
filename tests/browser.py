"""Chromium, for tests of pages. They are among the slow ones, and skipped without one."""

import contextlib
import shutil

import pytest

_ARGUMENTS = [
    *(
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-sync",
    ),
    *("--disable-background-networking", "--disable-component-update"),
]


def chromium():
    """The path of a Chromium; skips the test if there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    return pytest.skip("no Chromium here: apt-get install chromium")


@contextlib.contextmanager
def windows(profiles):
    """A function `window(width, height, touch=False)` that opens a Playwright context.

    Args:
        profiles: makes a new folder at every call.
    """
    playwright = pytest.importorskip("playwright.sync_api")
    executable = chromium()
    contexts = []
    with playwright.sync_playwright() as driver:

        def window(width, height, touch=False):
            contexts.append(
                driver.chromium.launch_persistent_context(
                    profiles(),
                    executable_path=executable,
                    headless=True,
                    args=_ARGUMENTS,
                    viewport={"width": width, "height": height},
                    has_touch=touch,
                    is_mobile=touch,
                )
            )
            return contexts[-1]

        yield window
        for context in contexts:
            context.close()


class Page:
    """A page in Chromium, with all errors it reports and all requests it makes."""

    def __init__(self, context, path):
        self.complaints, self.requests = [], []
        self.page = context.new_page()
        self.page.on("console", lambda m: self.complaints.append(m.text))
        self.page.on("pageerror", lambda e: self.complaints.append(str(e)))
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.goto(path.as_uri())

    def fits(self):
        """Whether the page is no wider than its window."""
        wide = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        return self.page.evaluate(wide) == 0
