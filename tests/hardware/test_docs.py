"""The examples of docs/hardware.md run and print what they say."""

import doctest
from pathlib import Path

DOC = Path(__file__).resolve().parents[2] / "docs/hardware.md"


def test_examples_of_the_hardware_page():
    results = doctest.testfile(str(DOC), module_relative=False, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert results.attempted > 15
    assert results.failed == 0
