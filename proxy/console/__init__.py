"""The console: one page on the operator's listener, and what it asks for.

page        the files, and the headers that keep them to themselves
shown       what it asks of whoever it shows
live        the numbers of /metrics as an object
playground  a conversation judged by the real guard, and what a client would have got of it
search      what is wanted of the records
routes      where all of it is served
"""
