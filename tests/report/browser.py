"""A real browser, where there is one, for pages that draw themselves."""

import shutil
import subprocess

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def as_seen(page, mode, width, directory):
    """(width, whether nothing is wider, charts drawn) of `page` in a browser, without network and without an error."""
    asked = "innerWidth, document.documentElement.scrollWidth <= innerWidth, "
    asked += "document.querySelectorAll('.chart.js-plotly-plot').length"
    seen = _asked(page, asked, mode, width, directory)
    return int(seen[0]), seen[1] == "true", int(seen[2])


def on_paper(page, width, directory):
    """(whether every table and every chart is whole, folded tables) of `page` as it is printed, `width` pixels wide.

    What is meant for paper is shown on the screen, after the charts were drawn half as wide again.
    """
    asked = "(dispatchEvent(new Event('beforeprint')), document.body.style.width = '', "
    asked += "document.querySelector('style').append(document.querySelector('style').textContent"
    asked += ".replaceAll('@media print', '@media screen')), "
    asked += (
        "[...document.querySelectorAll('.scroll, figure')].every((e) => [...e.querySelectorAll('table, .main-svg')]"
    )
    asked += ".every((part) => part.getBoundingClientRect().right <= e.getBoundingClientRect().right + 1 "
    asked += "&& (getComputedStyle(e).overflowX === 'visible' || e.scrollWidth <= e.clientWidth)))), "
    asked += "document.querySelectorAll('details:not([open]) table').length"
    wide = page.replace("<body>", f'<body style="width: {3 * width // 2}px; max-width: none">')
    seen = _asked(wide, asked, "light", width, directory)
    return seen[0] == "true", int(seen[1])


def _asked(page, asked, mode, width, directory):
    """What the expressions `asked` are in `page` a while after it was loaded, as words.

    A frame gives the width, for a window has a least one of its own; the frame's size is read from inside.
    """
    spy = (
        f"<script>addEventListener('load', () => setTimeout(() => {{ parent.document.title = [{asked}].join(' '); }}, "
    )
    spy += "500));</script>"
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
    return done.stdout.partition("<title>")[2].partition("</title>")[0].split()
