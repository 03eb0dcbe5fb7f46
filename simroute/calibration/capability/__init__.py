"""The capability matrix: what each variant can do at given loads, and how good its answers are.

`candidates` finds the variants of a scenario or of calibration files, `matrix` simulates them; `lm_eval` and `evaluate`
give accuracies. The format of the files is `scenario.matrix`'s.
"""
