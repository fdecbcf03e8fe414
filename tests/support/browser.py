"""Pages in a real browser that has no network."""

import json
import re
import shutil
import subprocess

import pytest

# Runs in the page: what it shows, and what it asked for.
_PROBE = """<script>addEventListener("load", () => {
  const images = [...document.images].map(image => [image.complete && image.naturalWidth, image.alt]);
  const requests = performance.getEntriesByType("resource").map(entry => entry.name)
    .filter(name => !name.startsWith("data:"));
  document.title = JSON.stringify({images, requests, rows: document.querySelectorAll("tr").length,
    headings: [...document.querySelectorAll("h2, h3")].map(node => node.textContent)});
})</script></body>"""


def find_browser():
    """The program of Chromium; the test that asks is skipped where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome", "chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on this machine (Debian: apt-get install chromium)")


def visit(browser, page, *options):
    """Run headless Chromium on a file, with every host name unresolvable; its standard output."""
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    flags += ["--window-size=1300,1200", f"--user-data-dir={page.parent / 'profile'}"]
    command = [browser, *flags, *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def inspect(browser, path, script=_PROBE, *options):
    """What `script`, which ends the body of the page, leaves in the page's title as JSON."""
    probe = path.with_name("probe.html")
    probe.write_text(path.read_text(encoding="utf-8").replace("</body>", script), encoding="utf-8")
    dump = visit(browser, probe, "--dump-dom", "--virtual-time-budget=20000", *options)
    title = re.search(r"<title>(.*?)</title>", dump, re.DOTALL)
    assert title, dump[:500]
    return json.loads(title[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">"))
