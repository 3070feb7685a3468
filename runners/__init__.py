"""Where jobs run: the Runner protocol, the supervisor that stands around a job, and the backends."""
