"""`weir eval`: how well a guard judges labelled conversations, by the rules of the published evaluation.

`datasets` reads files, `run` has the guard judge them, `metrics` counts, `report` and `picture` show it.
"""
