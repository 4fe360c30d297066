"""Dispatches events with the standalone dispatcher, from tasks."""

import asyncio

import load

from nameko.standalone.events import async_event_dispatcher

options = load.arguments("uri")
dispatch = async_event_dispatcher({"AMQP_URI": options.uri})
asyncio.run(load.measure_async(options, lambda: dispatch(load.SOURCE, load.EVENT, load.BODY)))
