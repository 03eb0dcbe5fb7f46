"""What a search found, as plain data: `document` puts it together.

`frontier` says what the verdicts say together, `relax` what to ask less of where nothing fits. `proof` is what stands
behind the best plan: its `headroom`, the `curve` of latency against load, and the `sensitivity` to `worlds` in which
one thing is otherwise. `plots` draws them in notebooks.
"""
