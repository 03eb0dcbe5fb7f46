"""What to show: tables for the terminal and self-contained HTML pages.

`tables` and `html` are the two ways out of a run; `text` words numbers for both, `cells` are tables for every way out,
`series` and `charts` draw. A comparison and a validation have files of their own, `plan` and `whatif` rooms. Imports
scenario and results.
"""
