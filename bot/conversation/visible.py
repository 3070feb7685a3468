"""Visible text, under the name that the conversation's modules know it by; `bot.domain.visible` has it."""

from bot.domain.visible import has_bidi, is_invisible, visible_markdown, visible_text, without_comments

__all__ = ["has_bidi", "is_invisible", "visible_markdown", "visible_text", "without_comments"]
