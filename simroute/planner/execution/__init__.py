"""Replays side by side, and kept: the seam `Executor` with its process pool, Ray as another, and the cache on disk."""
