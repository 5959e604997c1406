"""What survives: the journal, the state of runs, keys and history."""
