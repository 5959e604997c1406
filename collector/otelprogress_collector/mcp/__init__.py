"""MCP on the collector's port."""
