"""Assertions as a JUnit file, which CI systems read: one testcase an assertion. Imports nothing of simroute.

The elements are those of Jenkins' junit-10.xsd; GitHub and GitLab read the same.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from xml.etree import ElementTree

_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
"""What XML 1.0 cannot hold, not even escaped."""


@dataclass(frozen=True, slots=True)
class Check:
    """One assertion: its text, what it is about (`group`), and a line for each thing that it does not hold for.

    `skipped` says why it was not checked; then `failures` mean nothing.
    """

    text: str
    group: str = ""
    failures: tuple[str, ...] = ()
    skipped: str = ""


def junit_xml(suite: str, results: Sequence[Check]) -> str:
    """The checks of `suite` (such as `simroute run`) as the text of a JUnit file; the same for the same checks."""
    failed = sum(bool(check.failures) and not check.skipped for check in results)
    skipped = sum(bool(check.skipped) for check in results)
    counts = {"tests": str(len(results)), "failures": str(failed), "errors": "0", "skipped": str(skipped)}
    root = ElementTree.Element("testsuites", {"name": _legal(suite), **counts})
    inner = ElementTree.SubElement(root, "testsuite", {"name": _legal(suite), **counts, "time": "0"})
    for check in results:
        _testcase(inner, suite, check)
    ElementTree.indent(root)
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{ElementTree.tostring(root, encoding="unicode")}\n'


def _testcase(parent: ElementTree.Element, suite: str, check: Check) -> None:
    # Readers group testcases by the parts of the class name between dots.
    group = ".".join(filter(None, (suite.replace(" ", "."), check.group)))
    names = {"classname": _legal(group), "name": _legal(check.text), "time": "0"}
    case = ElementTree.SubElement(parent, "testcase", names)
    if check.skipped:
        ElementTree.SubElement(case, "skipped", {"message": _legal(check.skipped)})
    elif check.failures:
        message = {"message": _legal(check.failures[0]), "type": "assertion"}
        ElementTree.SubElement(case, "failure", message).text = _legal("\n".join(check.failures))


def _legal(text: str) -> str:
    return _ILLEGAL.sub("�", text)
