"""What to try: the playbook of sourced recipes and remedies, which needs no key."""
