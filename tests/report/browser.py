"""A real browser, where there is one, for pages that draw themselves."""

import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def charts_drawn(page, mode, directory):
    """How many charts of `page` a browser in `mode` (light or dark) has drawn, without network and without an error."""
    path = directory / "page.html"
    path.write_text(page, "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={directory / 'profile'}"]
    command += ["--enable-logging=stderr", "--virtual-time-budget=10000", "--window-size=800,1200"]
    command += ["--force-dark-mode"] if mode == "dark" else []
    done = subprocess.run([*command, "--dump-dom", path.as_uri()], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    return done.stdout.count('class="chart js-plotly-plot"')
