"""What to buy: the cheapest fleet that meets the targets, what happens when things change, and how to deploy it.

Imports scenario and what is below it.
"""
