"""The in-process host and its edges: WebSocket server and clients, worker link, runtime files, history."""
