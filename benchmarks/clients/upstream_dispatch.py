"""Dispatches events with upstream's standalone dispatcher, from green threads."""

import eventlet

eventlet.monkey_patch()

import load  # noqa: E402

from nameko.standalone.events import event_dispatcher  # noqa: E402

options = load.arguments("uri")
dispatch = event_dispatcher({"AMQP_URI": options.uri})
load.measure(options, load.in_threads(lambda: dispatch(load.SOURCE, load.EVENT, load.BODY)))
