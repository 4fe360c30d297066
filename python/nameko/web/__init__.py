"""HTTP and WebSocket entrypoints, and their server."""
