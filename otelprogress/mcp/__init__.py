"""The MCP server: language models follow operations and steer them. Needs the extra `otelprogress[mcp]`.

Nothing outside of this package imports it but the collector and the command `otelprogress mcp`, when they serve it.
"""
