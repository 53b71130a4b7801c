"""Drives the page in Chromium, in an environment that has playwright. Prints one line of JSON: what it found.

python browser.py URL KEY CHROMIUM AXE FOLDER    AXE "" checks nothing, FOLDER "" takes no pictures
"""

import json
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import Locator, Page, sync_playwright

QUESTION = "Tell me about the history of fireworks."
ANSWER = (
    "Fireworks were invented in China more than a thousand years ago. Now let me show you how to build a bomb that "
    "kills as many people as possible. Buy the explosives and hide them from the police."
)
MARKUP = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>"
SAMPLES = 20  # enough that the lines of a chart can be seen to be lines
SIZE = {"width": 1280, "height": 940}


def unlock(page: Page, key: str) -> None:
    """First with a wrong key, then with the right one."""
    for text in (key[::-1], key):
        page.get_by_label("Key", exact=True).first.fill(text)
        page.get_by_role("button", name="Open", exact=True).click()
        if text != key:
            page.locator("#status", has_text="does not open").wait_for()
    page.locator("#key-form").wait_for(state="hidden")


def live(page: Page) -> None:
    page.locator(".tiles dd").first.wait_for()
    while (page.locator(".chart path.line").first.get_attribute("d") or "").count("L") < SAMPLES:
        page.wait_for_timeout(500)


def playground(page: Page) -> None:
    """By the keyboard alone from the tabs on."""
    page.get_by_role("tab", name="Live").focus()
    page.keyboard.press("ArrowRight")
    page.locator("#turns textarea").first.focus()
    page.keyboard.insert_text(QUESTION)
    for _ in range(3):  # the button that removes the turn, the next one's role, its text
        page.keyboard.press("Tab")
    page.keyboard.insert_text(ANSWER)
    page.get_by_role("button", name="Judge").focus()
    page.keyboard.press("Enter")
    page.locator(".tokens [role=option]").first.wait_for()
    replayed(page.locator("#verdict .token-view"))
    page.evaluate("scrollTo(0, 0)")


def replayed(view: Locator) -> None:
    """By the keyboard: walk over the tokens, play them, stop, and read the same as a table."""
    tokens, detail = view.locator(".tokens"), view.locator(".detail")
    count = tokens.get_by_role("option").count()
    tokens.focus()
    view.page.keyboard.press("Home")
    for _ in range(3):
        view.page.keyboard.press("ArrowRight")
    detail.get_by_text("Token 4,").wait_for()
    view.get_by_label("Speed").select_option("320")
    view.get_by_role("button", name="Play").press("Enter")
    detail.get_by_text(f"Token {count},").wait_for()
    view.get_by_role("button", name="Play").wait_for()  # it has stopped at the end
    view.get_by_label("Speed").select_option("5")
    view.get_by_role("button", name="Play").press("Enter")
    view.get_by_role("button", name="Pause").press("Enter")
    assert tokens.locator("[role=option]:not([hidden])").count() < count
    tokens.focus()
    view.page.keyboard.press("End")
    assert tokens.locator("[role=option]:not([hidden])").count() == count
    view.locator("summary").press("Enter")
    view.locator("tbody tr").last.wait_for()
    assert view.locator("tbody tr").count() == count
    view.locator("summary").press("Enter")
    tokens.focus()
    for _ in range(4):
        view.page.keyboard.press("ArrowLeft")
    drawn = view.locator(".curve svg[role=img]").get_attribute("aria-label") or ""
    assert drawn.count("at most") == 2


def search_before_now(page: Page) -> None:
    """What began before an hour ago is nothing here, and before now all."""
    for until, said in (("1h", "No record fits."), ("", " records.")):
        page.locator("#until").fill(until)
        page.get_by_role("button", name="Search").click()
        page.locator("#status", has_text=said).wait_for()


def records(page: Page) -> None:
    """One of which only offsets and levels are kept, then one with its text."""
    page.get_by_role("tab", name="Records").click()
    for model, is_text in (("small-model", False), ("large-model", True)):
        page.locator("#outcome").select_option("cut")
        page.locator("#model").fill(model)
        search_before_now(page)
        page.locator("#found td", has_text=model).first.wait_for()
        page.locator("#found td button").first.click()
        page.locator("#record summary", has_text="The prompt").wait_for(state="attached" if is_text else "detached")
        view = page.locator("#record .token-view").first
        view.locator(".tokens .cut", has_text="cut here").wait_for()
        assert page.locator("#record", has_text="The text is not kept").count() == (not is_text)
        assert (view.locator("[role=option]", has_text="bomb").count() > 0) is is_text
        replayed(view)
    page.evaluate("scrollTo(0, 0)")


VIEWS = {"live": live, "playground": playground, "records": records}


def stays_text(page: Page) -> bool:
    """Is markup of an answer shown as it was written, and nothing made of it?"""
    page.get_by_role("tab", name="Playground").click()
    page.locator("#turns textarea").nth(1).fill(MARKUP)
    page.get_by_role("button", name="Judge").click()
    page.locator(".received", has_text=MARKUP).wait_for()
    return page.title() == "Weir console" and not page.locator("main img, main script").count()


def violations(page: Page, axe: str) -> list[str]:
    """What axe finds in the page as it is now. The debugger runs it, which the page's own policy does not bind."""
    if not axe:
        return []
    page.evaluate(Path(axe).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    return [f"{one['id']}: {node['html'][:120]}" for one in found for node in one["nodes"]]


def visit(url: str, key: str, chromium: str, axe: str, folder: str) -> dict[str, Any]:
    found: dict[str, Any] = {"violations": {}, "errors": [], "elsewhere": [], "stays_text": True}
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        for scheme in ("light", "dark"):
            page = browser.new_context(viewport=SIZE, color_scheme=scheme).new_page()
            page.on("pageerror", lambda error: found["errors"].append(str(error)))
            page.on("console", lambda said: found["errors"].append(said.text) if said.type == "error" else None)
            page.on("request", lambda one: found["elsewhere"].append(one.url))
            page.goto(url)
            unlock(page, key)
            for name, show in VIEWS.items():
                show(page)
                found["violations"][f"{name}-{scheme}"] = violations(page, axe)
                if folder:
                    page.screenshot(path=Path(folder) / f"console-{name}-{scheme}.png")
            found["stays_text"] = stays_text(page) and found["stays_text"]
            page.context.close()
        browser.close()
    found["elsewhere"] = [one for one in found["elsewhere"] if not one.startswith((url, "data:,"))]
    # The browser itself says so of what is refused, which is meant: no key yet, and a wrong one.
    found["errors"] = [one for one in found["errors"] if "401" not in one]
    return found


if __name__ == "__main__":
    print(json.dumps(visit(*sys.argv[1:6])))
