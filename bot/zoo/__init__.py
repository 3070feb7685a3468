"""The zoo: real runs with one injected fault each, healthy runs beside them, and what a diagnosis makes of both.

`plan` says which runs there are, `making` carries them out (the shipped scripts on the practice base, then the real
evaluator), `judging` drops injections that did no harm and healthy runs that did not reach their level, and `scoring`
asks the diagnosis engine, the monitor and the baselines about what is left. Whoever diagnoses never sees `truth.json`,
and no name of a fault stands in a folder's name, a recipe, a row or a log.

Not covered: anything that only a GPU shows. Its logs are written down in `replayed` and scored apart.
"""
