"""Rating: people say, pair by pair and without knowing whose they are, which of two maps of an image explains it better.

`study.open_study` makes or opens a study, `server.serve` shows it to raters, `results.results` counts their votes, and
`crowd` takes it to a crowdsourcing service and back. The page needs neither the models nor the data, and loads neither.
"""
