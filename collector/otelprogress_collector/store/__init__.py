"""What survives: the journal, the state of runs, keys and history.

`interface` says what a store is, `factory` makes one. On the disk (`sqlite`) it is one SQLite database:

- `append` is one transaction: `writing` and `records` make rows of a batch, `mark` notes beside the database how far
  the log goes.
- A start (`opening`) takes the directory (`data_dir`), makes or migrates the tables (`schema`), verifies and mends
  what is there (`verification`) and decides whether the log needs a new name (`epoch`).
- Beside commits go `upkeep` (states of runs into their table, `run_changes`; the write-ahead log into the database),
  `retention`, `backup` and everything that reads.
"""
