"""Names what went wrong in a training run, on which line of its recipe, and what to set there instead.

`diagnose(folder)` reads a finished run, `preflight(folder)` one that has not started. Both are pure functions of the
folder's files and need nothing but the standard library and PyYAML.
"""

from __future__ import annotations

from bot.diagnosis.engine import diagnose, diagnosis_of
from bot.diagnosis.folder import read_folder
from bot.diagnosis.observations import Observations
from bot.diagnosis.preflight import preflight, preflight_of

__all__ = ["Observations", "diagnose", "diagnosis_of", "preflight", "preflight_of", "read_folder"]
