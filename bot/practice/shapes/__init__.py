"""GitHub's JSON objects, complete with every field that its API description requires."""
