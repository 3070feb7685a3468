"""Postdoc: a GitHub App that post-trains language models through pull requests."""

__version__ = "0.1.0"
