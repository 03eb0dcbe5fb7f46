"""The examples of the pages about hardware and calibration files run and print what they say."""

import doctest
from pathlib import Path

import pytest

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.mark.parametrize(("page", "examples"), [("hardware.md", 16), ("calibration-file.md", 9)])
def test_examples_of_the_page(page, examples):
    results = doctest.testfile(str(DOCS / page), module_relative=False, optionflags=doctest.IGNORE_EXCEPTION_DETAIL)
    assert results.attempted >= examples
    assert results.failed == 0
