"""HTTP and WebSocket entrypoints, and the server behind them."""
