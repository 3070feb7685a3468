"""Jobs on Actions machines: `backend` (dispatch, watch, cancel), `api` (what it needs of GitHub), `artifact` (outputs
that came that way)."""
