from nameko.utils.threads import ThreadKilled as GreenletExit

__all__ = ["GreenletExit"]
