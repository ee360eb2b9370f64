"""A browser for the tests that look at pages: Chromium or Google Chrome, if it is installed."""

import shutil

from playwright.sync_api import sync_playwright

NAMES = ["chromium", "chromium-browser", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"]
MISSING = "no browser: install Chromium (apt-get install chromium) or Google Chrome"
# all that a reader sees, with what stands in boxes
SEEN = "() => [document.body.innerText, ...[...document.querySelectorAll('textarea')].map((box) => box.value)].join('\\n')"


def find():
    """The browser's path, or None."""
    return next(filter(None, map(shutil.which, NAMES)), None)


def seen_in_order(text, wanted):
    """Whether all of `wanted` stand in `text`, one after the other."""
    position = 0
    for each in wanted:
        position = text.find(each, position)
        if position < 0:
            return False
        position += len(each)
    return True


def answers(url, text, *wanted):
    """Open a page of Gradio, type `text` into its first box, submit it, and wait until all of `wanted` are seen, in this order.

    Raises:
        AssertionError: they were seen before the answer, or not within a minute after it, or a script of the page failed.
    """
    errors = []
    with sync_playwright() as playwright:
        page = playwright.chromium.launch(executable_path=find()).new_page()
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.get_by_role("textbox").first.fill(text)
        assert not seen_in_order(page.evaluate(SEEN), wanted), f"nothing of {wanted} would show that there is an answer"
        page.get_by_role("button", name="Submit").click()
        for _ in range(600):
            if seen_in_order(page.evaluate(SEEN), wanted):
                break
            page.wait_for_timeout(100)
        else:
            raise AssertionError(f"not seen in this order: {wanted}\n{page.evaluate(SEEN)}")
    assert not errors, errors
