"""What to buy: many replays of many fleets, and what they say together.

The questions are `plan` (the cheapest fleet), `whatif` (what happens when things change), `capacity` (what one replica
can do) and `split` (one long replay in windows). Their rooms: `fleets` searches, `answer` says what was found and what
stands behind it, `emit` writes it as files to deploy; `study` holds the cells of a what-if; `windows` the pieces of a
split replay; `execution` runs replays side by side and keeps what they gave. `targets` are what is promised to classes.
May import scenario, report and everything below them.
"""
