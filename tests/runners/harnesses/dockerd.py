"""Containers under a dockerd that the tests start."""

from __future__ import annotations

from tests.runners.engines import EngineHarness


class Harness(EngineHarness):
    slow = True
    kind = "dockerd"
