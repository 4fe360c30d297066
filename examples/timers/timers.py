"""Work that nobody calls for: `nameko run examples.timers.timers`, in any number of terminals.

The heartbeat is every instance's own.
"""

import os

from nameko.timer import timer


class Reports:
    name = "reports"

    @timer(interval=5, eager=True)
    def heartbeat(self):
        print("{} is alive".format(os.getpid()))
