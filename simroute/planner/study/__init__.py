"""A what-if: `changes` to a scenario (`spot` among them), the `cells` that replay them, what to buy (`purchase`), and
all of it as plain data (`document`).
"""
