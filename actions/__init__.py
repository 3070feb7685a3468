"""The reusable Action's steps, in the order in which `action.yml` runs them.

prepare   an environment for the other three (standard library only, run as a script)
execute   the mode: train, evaluate, gate, pursue or respond; writes result.json and fills the artifact's folder
report    job summary, annotations and, when asked, one comment, from result.json; runs after a failure too
gate      the job's exit code: fails when the mode failed, or when the gate found the head significantly worse
"""
