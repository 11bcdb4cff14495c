"""`watcher check`: is all there that `run` needs, what do the limits allow, what do the providers answer.

`command` leads; `plan` is the arithmetic of the limits, `machine` looks at ports, files and folders, `ask` sends requests, and
`report` gathers what is found.
"""
