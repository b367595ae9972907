"""Ctrl-C, SIGTERM, which clusters send before they kill, and a terminal that closes: work can go on after."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SIGNALS = signal.SIGINT, signal.SIGTERM, signal.SIGHUP
_held: list[int] | None = None  # signals that wait for the end of a `whole` block


class Stopped(KeyboardInterrupt):
    """Raised by a signal of this `number`; `where` says what the same command does when it is given again."""

    def __init__(self, number: int, where: str = "uses all steps that are finished"):
        super().__init__(f"stopped; the same command {where}")
        self.number = number


@contextmanager
def stoppable() -> Iterator[None]:
    """In this block signals raise `Stopped`, those that were ignored before excepted.

    Only the main thread hears of signals: elsewhere nothing changes.
    """
    heard = _SIGNALS if threading.current_thread() is threading.main_thread() else ()
    before = {number: signal.getsignal(number) for number in heard}
    for number in [number for number in before if before[number] is not signal.SIG_IGN]:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@contextmanager
def whole() -> Iterator[None]:
    """What this block does is done whole: inside `stoppable`, a signal waits for its end. Do not nest."""
    global _held
    waiting: list[int] = []
    _held = waiting
    try:
        yield
    finally:
        _held = None
    if waiting:
        raise Stopped(waiting[0])


def _stop(number: int, _frame):
    if _held is None:
        raise Stopped(number)
    _held.append(number)
