"""The durable loop: the journal, the pure policy that reads it, and the engine that performs what it decides."""
