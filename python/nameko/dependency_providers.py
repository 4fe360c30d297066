"""Dependency providers of general use."""

from __future__ import annotations

from typing import Any

from nameko.extensions import DependencyProvider
from nameko.workers import nonblocking


class Config(DependencyProvider):
    """Injects a copy of the container's configuration."""

    @nonblocking
    def get_dependency(self, worker_ctx: Any) -> dict[str, Any]:
        return self.container.config.copy()
