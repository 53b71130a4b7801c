"""What a relayed chunk costs: Weir beside a bare pass-through, measured from outside. `python -m bench.relay`."""
