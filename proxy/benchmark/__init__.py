"""`weir bench guard`: how fast a guard is on this machine, beside the two other ways of running it.

`arrivals` is the load, `search` finds the most streams that a load may have; `ways` and `baselines` are
what is measured, `queueing` plays a load to them, `door` to the whole service; `figures` is what comes out
and `report` shows it.
"""
