"""What a model is trained on: rows, contamination, licences, quality, and the cards that say what was measured."""
