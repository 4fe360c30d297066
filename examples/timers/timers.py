"""A timer: `nameko run examples.timers.timers`, in any number of terminals.

Every instance prints its own heartbeat.
"""

import os

from nameko.timer import timer


class Reports:
    name = "reports"

    @timer(interval=5, eager=True)
    def heartbeat(self):
        print("{} is alive".format(os.getpid()))
