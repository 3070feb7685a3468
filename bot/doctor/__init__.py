"""`postdoc doctor`: what this machine can do (`machine`), whether GitHub is set up for it (`github`), and what to do
about each thing that is missing.

Secrets are reported as present or absent; no value is ever printed.
"""

from bot.doctor.machine import as_json, best_tier, examination, report_lines

__all__ = ["as_json", "best_tier", "examination", "report_lines"]
