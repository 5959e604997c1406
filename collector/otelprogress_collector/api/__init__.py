"""What is read: the feed, server-sent events, REST, health, metrics."""
