"""Where evaluation finds what keeps its host to itself."""

from embedlab._core.quiet import quiet_host, random_state_restored

__all__ = ["quiet_host", "random_state_restored"]
