"""The lifetime of a simulated process, as exchange, broker and disk see it."""

from typing import Protocol


class Lifetime(Protocol):
    """The lifetime of a process, from its start to its end."""

    @property
    def is_dead(self) -> bool:
        """Whether the process has ended, killed or not: nothing that it does takes effect then."""
        ...


class ClockedLifetime(Lifetime, Protocol):
    """The lifetime of a process with its own wall clock."""

    def wall_ns(self) -> int:
        """Return the process's wall clock in nanoseconds since 1970."""
        ...
