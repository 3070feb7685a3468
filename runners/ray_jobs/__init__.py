"""Jobs on a Ray cluster.

`backend` (what the shared part of far runners asks for), `dashboard` (Ray's HTTP API), `demand` (what a job waits for,
in words), `train` (one run over several machines, on a node).
"""
