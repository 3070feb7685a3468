"""Jobs on Hugging Face Jobs.

Here: `backend` (what the shared part of far runners asks for), `hub` (the Hub's API), `stream` and `store` (what comes
back), `prices`, `schedule` (evaluations by the clock). In the container: `bootstrap`, `container` (the wrapper there),
`runs` (the repository of inputs and outputs), `unprivileged` (the script's own user). Between the two: `wire` (signed
lines of the log) and `package` (our code as one archive).
"""
