"""GitHub's primary rate limits: so many requests an hour for each token, counted in windows that start at first use."""

from __future__ import annotations

from dataclasses import dataclass

WINDOW_SECONDS = 3600
LIMITS = {"core": 5000, "graphql": 5000, "search": 30}
ANONYMOUS_LIMIT = 60


@dataclass(slots=True)
class Window:
    limit: int
    used: int
    reset: int

    def as_dict(self, resource: str | None = None) -> dict[str, object]:
        values: dict[str, object] = {
            "limit": self.limit,
            "used": self.used,
            "remaining": max(self.limit - self.used, 0),
            "reset": self.reset,
        }
        return values if resource is None else values | {"resource": resource}


class RateLimits:
    def __init__(self) -> None:
        self._windows: dict[tuple[str, str], Window] = {}
        self._limits: dict[str, int] = {}

    def window(self, key: str, resource: str, now: float) -> Window:
        window = self._windows.get((key, resource))
        if window is None or window.reset <= now:
            limit = ANONYMOUS_LIMIT if key == "anonymous" else self._limits.get(resource, LIMITS[resource])
            window = self._windows[key, resource] = Window(limit, 0, int(now) + WINDOW_SECONDS)
        return window

    def set_limit(self, resource: str, limit: int) -> None:
        """For tests of exhaustion: the limit of new and running windows."""
        self._limits[resource] = limit
        for (key, name), window in self._windows.items():
            if name == resource and key != "anonymous":
                window.limit = limit


def headers(window: Window, resource: str) -> dict[str, str]:
    return {f"x-ratelimit-{name}": str(value) for name, value in window.as_dict(resource).items()}
