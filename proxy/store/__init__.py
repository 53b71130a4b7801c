"""The store of records: one a request, kept where `weir records` and a console can search them.

row       a finished record as a row of the database
filters   which records are wanted
schema    the tables, and how an older database becomes one of today
base      what every store can do, and how it fails
sql       what all of them say
sqlite    a file (the default)
postgres  a server, for several instances
writer    a thread with a bounded queue, so that no disk can hold up a stream
places    the store that the settings name
checkup   what weir doctor says of it
command   weir records list | show | export
tables    what they print
"""
