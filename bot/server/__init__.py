"""The bot's HTTP door: webhooks in, read-only views out."""
