"""One module per family of rules, each with its own table; `bot.diagnosis.engine` runs them all."""
