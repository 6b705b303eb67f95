"""Memory that shows who reads it before writing."""

from __future__ import annotations

import torch

__all__ = ["fill_freed_memory"]

# Bytes of a tensor, and how many: small blocks and large ones, which the C library keeps apart.
# Few small ones, because Python's own objects stand between them.
_TENSORS = {2**power: 10 for power in range(6, 17)} | {2**18: 16, 2**21: 4, 2**23: 1}


def fill_freed_memory(device: str | torch.device = "cpu") -> None:
    """Leaves NaN in memory that the next tensors will get, most of them at least.

    Code that reads memory before it has written there gives the right numbers as long as zeros
    stand in it, as they do in fresh memory. With this called first, it gives NaN.

    Args:
        device: Where the memory is.

    Example:
        >>> fill_freed_memory()
        >>> torch.empty(3, 4).shape  # what stands in it is not zero now
        torch.Size([3, 4])
    """

    def full(size: int) -> torch.Tensor:
        # Bytes with every bit set are NaN in all floating-point types.
        return torch.full((size,), 255, dtype=torch.uint8, device=device)

    # Freeing a large block teaches the C library to keep blocks up to that size for itself.
    del_first = full(max(_TENSORS))
    del del_first
    held = [full(size) for size, count in _TENSORS.items() for _ in range(count)]
    del held
