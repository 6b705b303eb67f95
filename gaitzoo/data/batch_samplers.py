"""Which sequences a training step sees: P people with K walks each, shared among processes."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

import torch.distributed as dist
from torch import Tensor
from torch.utils.data import Sampler

from gaitzoo.data.ranking import as_list

__all__ = ["Draw", "PKBatchSampler"]


class Draw(int):
    """An index that counts its draws: the same sequence again, but with other frames.

    Args:
        index: Place of the sequence.
        number: What tells this draw from the others of the sequence.

    Example:
        >>> Draw(3, 7) == 3, Draw(3, 7).number
        (True, 7)
    """

    number: int

    def __new__(cls, index: int, number: int) -> Draw:
        """Makes an index."""
        draw = super().__new__(cls, index)
        draw.number = number
        return draw

    def __getnewargs__(self) -> tuple[int, int]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """What a copy in another process is made of."""
        return int(self), self.number


class PKBatchSampler(Sampler[list[int]]):
    """Batches of P people with K walks each, as triplet losses need them.

    People are drawn without replacement for each batch, and so are the walks of a person; who has
    fewer than K is drawn with replacement. Sequences of unknown people (label -1) are left out.

    Every process draws the same batches from the same seed and takes people of its own, so that
    batches of processes never share a person. A batch depends on the seed, the epoch and its number
    alone: training that was interrupted goes on as if it had not been.

    Give it to a ``DataLoader`` as ``batch_sampler``. The indices it yields are ``int``; with
    :class:`gaitzoo.GaitDataset` each draw of a sequence shows other frames.

    Args:
        labels: ``[N]`` numbers of the people, for example ``dataset.labels``.
        people: P, of all processes together.
        walks: K.
        num_batches: Batches of an epoch; ``None`` = as many as the walks fill, 1 at least.
        seed: Of all draws; the same in every process.
        rank: Number of this process; ``None`` = that of ``torch.distributed``, or 0.
        world_size: How many processes there are; ``None`` = that of ``torch.distributed``, or 1.

    Raises:
        TypeError: If labels are no whole numbers.
        ValueError: If there are fewer people than P, P is no multiple of ``world_size``, or a
            number is out of range.

    Example:
        >>> sampler = PKBatchSampler([0, 0, 1, 1, 2, 2], people=2, walks=2, seed=3)
        >>> batch = next(iter(sampler))
        >>> len(batch), len(sampler)
        (4, 1)
    """

    def __init__(
        self,
        labels: Sequence[int] | Tensor,
        people: int = 8,
        walks: int = 16,
        *,
        num_batches: int | None = None,
        seed: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
    ) -> None:
        together = dist.is_available() and dist.is_initialized()
        rank = (dist.get_rank() if together else 0) if rank is None else rank
        if world_size is None:
            world_size = dist.get_world_size() if together else 1
        for name, number in (("people", people), ("walks", walks), ("world_size", world_size)):
            if type(number) is not int or number < 1:
                raise ValueError(f"expected {name} as a whole number of 1 or more, got {number!r}")
        if num_batches is not None and (type(num_batches) is not int or num_batches < 1):
            raise ValueError(f"expected num_batches of 1 or more, or None, got {num_batches!r}")
        if not 0 <= rank < world_size:
            raise ValueError(f"expected rank 0 to {world_size - 1}, got {rank}")
        if people % world_size:
            raise ValueError(
                f"expected people as a multiple of the {world_size} processes, got {people}"
            )
        self.places: dict[int, list[int]] = {}
        for place, label in enumerate(as_list(labels, "labels")):
            if isinstance(label, str):
                raise TypeError(
                    f"expected labels as numbers, got {label!r}; dataset.labels has them"
                )
            if label >= 0:
                self.places.setdefault(label, []).append(place)
        if len(self.places) < people:
            raise ValueError(
                f"expected {people} people or more, got {len(self.places)}; choose fewer per batch"
            )
        known = sum(map(len, self.places.values()))
        self.people, self.walks = people, walks
        self.num_batches = num_batches or max(1, known // (people * walks))
        self.seed, self.rank, self.world_size = seed, rank, world_size
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Chooses the batches of an epoch; call it before each.

        Args:
            epoch: Its number.
        """
        self.epoch = epoch

    def __len__(self) -> int:
        return self.num_batches

    def __iter__(self) -> Iterator[list[int]]:
        for number in range(self.num_batches):
            yield self._batch(self.epoch * self.num_batches + number)

    def _batch(self, step: int) -> list[int]:
        draw = random.Random(f"{self.seed}/{step}")
        batch: list[int] = []
        everybody = draw.sample(sorted(self.places), self.people)
        for person in everybody[self.rank :: self.world_size]:
            # By person: what a process draws does not depend on how many there are.
            own = random.Random(f"{self.seed}/{step}/{person}")
            places = self.places[person]
            enough = len(places) >= self.walks
            chosen = own.sample(places, self.walks) if enough else own.choices(places, k=self.walks)
            batch += [Draw(place, step * self.walks + i) for i, place in enumerate(chosen)]
        return batch
