"""A what-if: `page` and `text` (terminal, Markdown, CSV) are the ways out; `cells` says what stands in both.

`charts` draws.
"""
