"""Papers: found, read by section, and turned into recipes in which every value has the words it came from.

`search`, `citations` and `links` ask the public catalogues, `reading` fetches a paper in the best form there is and
`html`, `latex` and `pdf` take it apart into one model (`model.Paper`), `recipe` reads hyperparameters, data and results
out of that by rules. No language model is asked anywhere in here.
"""
