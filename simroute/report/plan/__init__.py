"""A plan: `page`, `table` (for a terminal) and `text` (Markdown, CSV) are the ways out.

`words` and `cells` say what stands in all of them, `charts` and `frontier` draw.
"""
