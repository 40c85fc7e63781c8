"""A KV cache at fixed addresses, whose length lives on the device: what a captured step needs.

All layers share one length, so that rewinding is one write and a step counts once. A token is
written where the length says; a prompt is written, and attended to, up to where it ends.
"""

from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, StaticCache, StaticLayer

FIRST_TOKENS = 4096
"""Room to begin with where the whole window is not taken at once."""
ALIGNMENT = 256
"""Capacities are multiples of it, so that attention can split them evenly."""
WHOLE_WINDOW_SHARE = 0.5
"""The whole window is taken at once where it needs at most this share of the free memory."""
GROWTH_SHARE = 0.9
"""Share of the free memory that a cache may grow into; the rest is for the forward pass."""


class WindowLayer(StaticLayer):  # type: ignore[misc]
    """Keys and values of one layer at addresses that never change."""

    is_croppable = False

    def __init__(self, owner: "WindowCache", is_last: bool) -> None:
        super().__init__(max_cache_len=owner.capacity)
        self.cumulative_length = owner.length
        self._owner = owner
        self._is_last = is_last

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate for states of shape (batch, heads, tokens, head_dim)."""
        self.device = key_states.device
        self.keys, self.values = (
            torch.zeros(
                (*states.shape[:2], self.max_cache_len, states.shape[3]),
                dtype=states.dtype,
                device=states.device,
            )
            for states in (key_states, value_states)
        )
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """Write states (batch, heads, tokens, head_dim) behind what is held.

        Returns all keys and values for a single token, and the used part of them for several.
        """
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        count = key_states.shape[2]
        keys, values = self.keys, self.values
        if count == 1:
            position = self._owner.length.view(1)
            keys.index_copy_(2, position, key_states)
            values.index_copy_(2, position, value_states)
        else:
            start, end = self._owner.start, self._owner.start + count
            keys[:, :, start:end] = key_states
            values[:, :, start:end] = value_states
            keys, values = keys[:, :, :end], values[:, :, :end]
        if self._is_last:
            # A replayed step runs no Python: only `rewind` may be relied on for `start`.
            self._owner.start += count
            self._owner.length.add_(count)
        return keys, values

    def crop(self, tokens_to_remove: int) -> None:
        """Not for one layer: they share their length.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError("the layers of a WindowCache are rewound together")

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """How many keys `update` returns, and the position of the first."""
        used = self._owner.start + query_length
        return (self.max_cache_len if query_length == 1 else used), 0

    def get_seq_length(self) -> Any:
        """The number of tokens held, as a tensor on the device."""
        return self._owner.length


class WindowCache(Cache):  # type: ignore[misc]
    """Room for `capacity` tokens, of which the first `length` are valid."""

    def __init__(self, layers: int, capacity: int, device: torch.device | str) -> None:
        self.capacity = capacity
        self.length = torch.zeros((), dtype=torch.long, device=device)
        """Tokens held, on the device. Only ever written in place: graphs know its address."""
        self.start = 0
        """Tokens held before a prompt is read, known to the host; set by `rewind`."""
        super().__init__(layers=[WindowLayer(self, n == layers - 1) for n in range(layers)])

    def rewind(self, length: int) -> None:
        """Keep the first `length` tokens; what lies behind them is masked off until overwritten."""
        self.length.fill_(length)
        self.start = length

    def forget(self) -> None:
        """Keep nothing, and no number either: a NaN that is masked off still spoils a sum."""
        for layer in self.layers:
            if layer.is_initialized:
                layer.keys.zero_()
                layer.values.zero_()
        self.rewind(0)

    def grown(self, capacity: int, length: int) -> "WindowCache":
        """A cache of `capacity` tokens with the first `length` of this one, which is then empty.

        Layer after layer moves, so the peak is one layer more than the new cache and the old.
        """
        larger = WindowCache(len(self.layers), capacity, self.length.device)
        for old, new in zip(self.layers, larger.layers, strict=True):
            new.lazy_initialization(old.keys, old.values)
            new.keys[:, :, :length] = old.keys[:, :, :length]
            new.values[:, :, :length] = old.values[:, :, :length]
            old.keys = old.values = None
            old.is_initialized = False
        larger.rewind(length)
        return larger

    @property
    def memory_bytes(self) -> int:
        """Memory that keys and values take, used or not."""
        held = [layer for layer in self.layers if layer.is_initialized]
        return sum(layer.keys.nbytes + layer.values.nbytes for layer in held)


def has_plain_layers(config: Any) -> bool:
    """Whether every layer of a model attends to the whole context, and keeps nothing else."""
    layers = StaticCache(config=config, max_cache_len=1).layers
    return all(type(layer) is StaticLayer for layer in layers)


def aligned(tokens: int) -> int:
    """The least capacity for `tokens`."""
    return -(-tokens // ALIGNMENT) * ALIGNMENT


def first_capacity(window: int, bytes_per_token: int, free_bytes: int, *, follows_use: bool) -> int:
    """Tokens to make room for at load; 0 where not even a short conversation fits.

    Args:
        window: tokens that the engine may hold.
        bytes_per_token: of the cache, all layers.
        free_bytes: of the device, beside the weights.
        follows_use: whether a step costs what is used of the cache, not what is allocated.
    """
    whole = aligned(window)
    if follows_use and whole * bytes_per_token <= free_bytes * WHOLE_WINDOW_SHARE:
        return whole
    first = min(whole, FIRST_TOKENS)
    return first if first * bytes_per_token <= free_bytes * GROWTH_SHARE else 0


def next_capacity(
    tokens: int, capacity: int, window: int, bytes_per_token: int, free_bytes: int
) -> int:
    """The capacity for `tokens` when `capacity` is too small: doubled, at most the window.

    Returns what fits where doubling does not, and `capacity` itself where nothing more does:
    the old cache stays until the new one is filled.
    """
    wanted = min(aligned(window), max(aligned(tokens), 2 * capacity))
    room = int(free_bytes * GROWTH_SHARE) // bytes_per_token // ALIGNMENT * ALIGNMENT
    return max(capacity, min(wanted, room))
