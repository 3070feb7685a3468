"""Inert text, under the name that the conversation's modules know it by; `bot.domain.inert` has it."""

from bot.domain.inert import clipped, code, fenced, inert, inert_line, inert_plain, printable, unmentioned

__all__ = ["clipped", "code", "fenced", "inert", "inert_line", "inert_plain", "printable", "unmentioned"]
