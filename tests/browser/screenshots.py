"""Take the README's pictures from the demo's console: `python -m tests.browser.screenshots`, about two minutes.

It starts `phasegate demo --keep` and looks at its console with the installed Chromium.
"""

import json
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

from tests.browser.harness import chromium

IMAGES = Path(__file__).parents[2] / "docs" / "img"
MOST_BYTES = 200_000


def main() -> None:
    command = [sys.executable, "-m", "app.cli", "demo", "--keep", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as demo:
        try:
            assert demo.stdout is not None
            told = (json.loads(line) for line in demo.stdout)
            kept = next(line for line in told if line["event"] == "kept")
            take(kept["url"], kept["link"])
        finally:
            demo.terminate()


def take(url: str, link: str) -> None:
    """Both pictures, 1280 pixels wide, of the server at `url`, let in by a link."""
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium(), args=["--no-sandbox", "--disable-lcd-text"]
        )
        page = browser.new_page(viewport={"width": 1280, "height": 720}, color_scheme="light")
        page.goto(link)
        page.wait_for_url("**/account")
        page.goto(url)
        page.get_by_role("link", name="write", exact=True).wait_for()
        keep(page, "board")
        page.goto(f"{url}/reviews")
        page.locator("#desk[data-state=open] .verdicts button:not([aria-disabled=true])").first.wait_for()
        keep(page, "review")
        browser.close()


def keep(page: Page, name: str) -> None:
    path = IMAGES / f"{name}.png"
    page.screenshot(path=path)
    assert path.stat().st_size <= MOST_BYTES, f"{path} has {path.stat().st_size} bytes"


if __name__ == "__main__":
    main()
