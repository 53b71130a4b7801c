"""How many GPUs a number of streams needs, and what their bad days look like: a simulation, since no GPU was there.

    python -m bench.fleet             # all of it, minutes; docs/scale.md is written from such a run
    python -m bench.fleet.host        # what a question costs an engine's host, measured on this machine

`model` says how long a step takes and what memory a token, `traffic` what is offered, `placement` which engine gets a
stream, `fleet` what there is; `simulation` plays it, many streams (`live`) and engines at a time, `lags` counts.
`capacity`, `events` and `needs` are what is asked of it; `report` and `picture` show the answers.
"""
