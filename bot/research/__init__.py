"""Papers, datasets, documentation and code, looked up with typed functions that need no language model."""
