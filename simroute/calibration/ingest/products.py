"""Matrix products under one quantization scheme: vLLM's own measured kernels, or the nearest thing to them.

Owns which table stands for which scheme. Imports this room's op_tables, errors and hardware.
"""

from __future__ import annotations

import numpy as np

from simroute.calibration.ingest.op_tables import Curve, OpTables
from simroute.errors import CalibrationError
from simroute.hardware.roofline import DEQUANTIZE_FACTOR_HOPPER, SIXTEEN_BIT_EFFICIENCY
from simroute.hardware.specs import SIXTEEN_BIT_BYTES, QuantScheme
from simroute.hardware.weights import weight_bytes_of

BF16 = "bfloat16"
FORMATS = {"bf16": BF16, "fp16": BF16, "fp8": "fp8", "nvfp4": "nvfp4"}
"""Schemes whose products vLLM's tables hold, and their name for them."""
RATIO_FORMATS = {
    "w8a8-int8": "sq",
    "w8a16": "int8_wo",
    "awq-int4": "int4_wo",
    "gptq-int4": "int4_wo",
    "w4a16": "int4_wo",
}
"""Schemes that vLLM's tables lack, and TensorRT-LLM's name for products of the kind: their ratio to 16-bit products is
borrowed, except on Hopper."""
HOPPER = 9.0
"""Compute capability. TensorRT-LLM's kernels for these schemes are slower than 16 bits there from 8 rows on (H200
table), which vLLM's are not: CUTLASS int8 kernels have the tiles, bytes and rate of fp8 ones, and Marlin and Machete
read 4-bit weights at memory speed."""
MARLIN_SCHEMES = ("awq-int4",)
"""What vLLM multiplies with Marlin on Hopper, whose instructions reach 0.6 of the rate (see roofline.py): that is why
AWQ loses against 16 bits at full load. Other weight-only schemes have Machete."""
EXPERT_FORMATS = FORMATS | {"awq-int4": "int4_wo", "gptq-int4": "int4_wo", "w4a16": "int4_wo"}
"""Schemes whose fused experts vLLM's tables hold."""
FULL_TILE = 8


class Products:
    """Curves of seconds over rows, for one scheme on one GPU. Raises CalibrationError for a scheme without tables."""

    def __init__(self, tables: OpTables, scheme: QuantScheme, ratios: OpTables | None = None) -> None:
        self._tables = tables
        self._ratios = ratios
        self._scheme = scheme
        self.borrowed = scheme.name in RATIO_FORMATS
        hopper = tables.gpu.compute_capability == HOPPER
        if scheme.name not in (*FORMATS, *RATIO_FORMATS) or (self.borrowed and not hopper and ratios is None):
            raise CalibrationError(
                f"no kernel tables for {scheme.name} on {tables.gpu.name}: there are those for "
                f"{', '.join(FORMATS)}; for {', '.join(RATIO_FORMATS)} tables of TensorRT-LLM are needed beside vLLM's"
            )
        if self.borrowed:
            self._tables.note(_said(scheme.name, hopper))

    def plain(self, out_features: int, in_features: int) -> Curve:
        """A product that no scheme quantizes: output head, router."""
        return self._own(BF16, out_features, in_features, SIXTEEN_BIT_BYTES)

    def of(self, out_features: int, in_features: int) -> Curve:
        """A projection with `out_features` x `in_features` weights."""
        name = self._scheme.name
        weight_bytes = weight_bytes_of(self._scheme, expert=False)
        if not self.borrowed:
            return self._own(FORMATS[name], out_features, in_features, weight_bytes)
        if self._tables.gpu.compute_capability != HOPPER:
            return self._by_ratio(out_features, in_features)
        if not self._scheme.weight_only and self._scheme.compute_dtype == "int8":
            return self._own("fp8", out_features, in_features, weight_bytes)
        return self._weight_only(out_features, in_features, weight_bytes)

    def _own(self, name: str, out_features: int, in_features: int, weight_bytes: float) -> Curve:
        """As measured, at the batch sizes that stand for all, and never faster than memory gives the weights.

        The sizes are 1, 2, 4 and multiples of 8, for which CUDA graphs are captured. Tables also time one row more than
        a full tile, where a product in fp8 on Hopper takes up to twice as long. Larger batches have any number of rows,
        so leaving that out is on the fast side there; measured times to first token agree better without it.
        """
        sizes, seconds = self._tables.gemm(name, out_features, in_features)
        kept = np.isin(sizes, (1, 2, 4)) | (sizes % FULL_TILE == 0)
        least_s = out_features * in_features * weight_bytes / self._tables.stream_bytes_s(name)
        return Curve(sizes[kept], np.maximum(seconds[kept], least_s))

    def _by_ratio(self, out_features: int, in_features: int) -> Curve:
        """vLLM's 16-bit product times the other framework's ratio of this format to 16 bits, row count by row count."""
        assert self._ratios is not None
        plain = self.plain(out_features, in_features)
        theirs = self._ratios.gemm(RATIO_FORMATS[self._scheme.name], out_features, in_features)
        theirs_plain = self._ratios.gemm(BF16, out_features, in_features)
        ratio = np.interp(plain.sizes, theirs.sizes, theirs.seconds / theirs_plain.seconds)
        return Curve(plain.sizes, plain.seconds * ratio)

    def _weight_only(self, out_features: int, in_features: int, weight_bytes: float) -> Curve:
        """vLLM's 16-bit product, less the weights that need not be read; not faster than Marlin where that runs."""
        plain = self.plain(out_features, in_features)
        weights = out_features * in_features
        stream_bytes_s = self._tables.stream_bytes_s(BF16)
        saved_s = weights * (SIXTEEN_BIT_BYTES - weight_bytes) / stream_bytes_s
        seconds = np.maximum(plain.seconds - saved_s, weights * weight_bytes / stream_bytes_s)
        if self._scheme.name in MARLIN_SCHEMES:
            rate = self._tables.gpu.sixteen_bit_flops * SIXTEEN_BIT_EFFICIENCY * DEQUANTIZE_FACTOR_HOPPER
            seconds = np.maximum(seconds, 2 * plain.sizes * weights / rate)
        return Curve(plain.sizes, seconds)


def _said(scheme: str, hopper: bool) -> str:
    """What stands for the products of a scheme that vLLM's tables lack."""
    if not hopper:
        return (
            f"products in {scheme}: vLLM's in 16 bits times TensorRT-LLM's ratio of {RATIO_FORMATS[scheme]} to 16 bits"
        )
    if scheme == "w8a8-int8":
        return "products in int8: vLLM's in fp8, whose CUTLASS kernels read as many bytes and multiply at the same rate"
    marlin = ", bounded by what Marlin's instructions reach" if scheme in MARLIN_SCHEMES else ""
    return f"products in {scheme}: vLLM's in 16 bits less the reading of the weights that are saved{marlin}"
