"""What arrives: requests as a columnar trace, read from files or made up from a specification.

Reading order: `trace` (the columns), `formats` (readers, one a file), `merge`, `synth` (traces from a YAML spec),
`inspect` (what is in a trace). Imports only errors, rng and units.
"""
