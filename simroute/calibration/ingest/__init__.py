"""What others measured, as run directories or calibrations: one file a format.

Benchmarks of a server become run directories (`vllm_serve`, `vllm_sweep`, `guidellm`: requests; `vllm_forward`,
`iteration_log`: iterations), with what their files do not tell from `described`. Tables of kernel times become
calibrations (`op_tables`).
"""
