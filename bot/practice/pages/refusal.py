"""The refusal to draw, which the charts and the graphs share."""


class CannotDraw(Exception):
    """The text is not a drawing we know how to make; the message says why, and the source is shown as code."""
