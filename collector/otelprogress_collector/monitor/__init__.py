"""Who is alive: worker links, leases, verdicts, the spans of the dead."""
