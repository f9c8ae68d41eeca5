"""A function of many inputs in threads, a bounded number of them in advance: how photos are decoded everywhere."""

import collections
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from catdog_jax.config import cores

Input = TypeVar("Input")
Output = TypeVar("Output")


def map_ahead(
    function: Callable[[Input], Output], inputs: Iterable[Input], workers: int | None, ahead: int
) -> Iterator[Output]:
    """Yields the function of each input, in order, computed in threads (Pillow decodes and resizes without the GIL).

    Args:
      function: what is computed.
      inputs: read as they are needed.
      workers: threads; None for one a core.
      ahead: how many results there are at most that nobody has taken yet.
    """
    pool = ThreadPoolExecutor(workers or cores())
    try:
        source = iter(inputs)
        queue = collections.deque(pool.submit(function, one) for one in itertools.islice(source, ahead))
        while queue:
            result = queue.popleft().result()
            queue.extend(pool.submit(function, one) for one in itertools.islice(source, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)  # who stops early need not wait for what was computed ahead
