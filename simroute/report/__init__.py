"""What to show: tables for the terminal and a self-contained HTML report.

`tables` and `html` are the two ways out; `text` words numbers for both, `series` and `charts` draw. Imports results.
"""
