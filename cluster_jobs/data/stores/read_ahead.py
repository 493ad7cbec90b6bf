"""Background fetching of items that will be needed soon."""

import contextlib
import queue
import threading
from collections.abc import Callable, Hashable
from concurrent.futures import Future, wait
from typing import Generic, TypeVar

THREADS = 8
Item = TypeVar("Item", bound=Hashable)


class ReadAhead(Generic[Item]):
    """Up to ``THREADS`` fetches at a time, first come, first served.

    Its threads are daemons: a command that ends waits for no fetch, as it would for those of a ThreadPoolExecutor.
    """

    def __init__(self, fetch: Callable[[Item], object]) -> None:
        self._fetch = fetch
        self._queue: queue.SimpleQueue[tuple[Item, Future[None]]] = queue.SimpleQueue()
        self._pending: dict[Item, Future[None]] = {}
        self._lock = threading.Lock()
        self._threads = 0

    def submit(self, item: Item) -> None:
        """Queues an item to be fetched, unless it is queued or being fetched."""
        with self._lock:
            if item in self._pending:
                return
            future: Future[None] = Future()
            self._pending[item] = future
            if self._threads < THREADS:
                self._threads += 1
                threading.Thread(target=self._work, daemon=True).start()
        self._queue.put((item, future))

    def settle(self, item: Item) -> None:
        """Waits for an item that is being fetched; removes one that is still queued.

        An error is not passed on: the caller fetches the item itself and gets the error, if it persists.
        """
        with self._lock:
            future = self._pending.get(item)
        if future is not None and not future.cancel():
            wait([future])

    def _work(self) -> None:
        while True:
            item, future = self._queue.get()
            wanted = future.set_running_or_notify_cancel()
            if wanted:
                with contextlib.suppress(Exception):
                    self._fetch(item)
            with self._lock:
                del self._pending[item]
            if wanted:
                future.set_result(None)
