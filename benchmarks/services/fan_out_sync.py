import reports

from nameko.events import event_handler


def handler(number):
    @event_handler("bench_source", "happened")
    def handle(self, text):
        reports.handled(text)

    handle.__name__ = "handle_{}".format(number)
    return handle


class FanOut:
    name = "bench_fan_out"


for number in range(10):
    setattr(FanOut, "handle_{}".format(number), handler(number))
