"""Jobs on other machines. A backend starts a *wrapper* there (`wrapper.py`), which fetches the job, runs it under the
same supervisor as on this machine and talks home through a *store* (`store.py`); here `runner.py` keeps a mirror of the
job's folder, so that everybody else reads a far job as they read a near one."""
