"""One engine's settings, in vLLM's own names. Imports only errors."""

from __future__ import annotations

from dataclasses import dataclass

from simroute.errors import UsageError


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """What the scheduler of one replica is given (defaults: vLLM's API server on a GPU of 70 GiB or more).

    `num_gpu_blocks` includes vLLM's null block, as vLLM reports it: usable blocks are one fewer.
    `max_num_seqs` is clipped to `max_num_batched_tokens`, as vLLM does.
    Raises UsageError for settings that vLLM itself refuses.
    """

    num_gpu_blocks: int
    block_size: int = 16
    max_num_batched_tokens: int = 8192
    max_num_seqs: int = 1024
    max_model_len: int = 8192
    enable_prefix_caching: bool = True
    enable_chunked_prefill: bool = True
    policy: str = "fcfs"
    long_prefill_token_threshold: int = 0
    long_prefill_token_threshold_adaptive: bool = False
    scheduler_reserve_full_isl: bool = True
    watermark: float = 0.0
    max_num_active_seqs: int | None = None
    async_scheduling: bool = True

    def __post_init__(self) -> None:
        object.__setattr__(self, "max_num_seqs", min(self.max_num_seqs, self.max_num_batched_tokens))
        for name in ("block_size", "max_num_batched_tokens", "max_num_seqs", "max_model_len", "max_num_active_seqs"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UsageError(f"{name}: must be at least 1, got {value}")
        if self.long_prefill_token_threshold < 0:
            raise UsageError(
                f"long_prefill_token_threshold: must be at least 0, got {self.long_prefill_token_threshold}"
            )
        if not 0.0 <= self.watermark < 1.0:
            raise UsageError(f"watermark: must be at least 0 and below 1, got {self.watermark}")
        if self.policy not in ("fcfs", "priority"):
            raise UsageError(f"policy: must be fcfs or priority, got {self.policy}")
        needed = -(-self.max_model_len // self.block_size)
        if needed > self.num_gpu_blocks - 1:
            raise UsageError(
                f"max_model_len {self.max_model_len} needs {needed} KV blocks of {self.block_size} tokens, but only "
                f"{self.num_gpu_blocks - 1} are usable: lower max_model_len or give the cache more memory"
            )
        if not self.enable_chunked_prefill and self.max_num_batched_tokens < self.max_model_len:
            raise UsageError(
                f"max_num_batched_tokens {self.max_num_batched_tokens} is below max_model_len {self.max_model_len}: "
                "enable chunked prefill or raise max_num_batched_tokens"
            )
