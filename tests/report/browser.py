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


def as_seen(page, mode, width, directory):
    """(width, whether nothing is wider, charts drawn) of `page` in a browser, without network and without an error.

    A frame gives the width, for a window has a least one of its own; the frame's size is read from inside.
    """
    spy = "<script>addEventListener('load', () => setTimeout(() => { parent.document.title = [innerWidth, "
    spy += "document.documentElement.scrollWidth <= innerWidth, "
    spy += "document.querySelectorAll('.chart.js-plotly-plot').length].join(' '); }, 500));</script>"
    (directory / "inner.html").write_text(page.replace("</body>", f"{spy}</body>"), "utf-8")
    frame = f'<title>waiting</title><iframe src="inner.html" style="width:{width}px;height:3000px;border:0"></iframe>'
    (directory / "frame.html").write_text(frame, "utf-8")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={directory / 'profile'}"]
    command += ["--allow-file-access-from-files", "--enable-logging=stderr", "--virtual-time-budget=10000"]
    command += ["--window-size=1400,3200", *(["--force-dark-mode"] if mode == "dark" else [])]
    address = (directory / "frame.html").as_uri()
    done = subprocess.run([*command, "--dump-dom", address], capture_output=True, text=True, timeout=120)
    assert "CONSOLE" not in done.stderr
    title = done.stdout.partition("<title>")[2].partition("</title>")[0].split()
    return int(title[0]), title[1] == "true", int(title[2])
