"""Dispatches events with the standalone dispatcher, from threads."""

import load

from nameko.standalone.events import event_dispatcher

options = load.arguments("uri")
dispatch = event_dispatcher({"AMQP_URI": options.uri})
load.measure(options, load.in_threads(lambda: dispatch(load.SOURCE, load.EVENT, load.BODY)))
