from nameko.utils.threads import ManagedThread as GreenThread
from nameko.utils.threads import spawn

__all__ = ["GreenThread", "spawn"]
