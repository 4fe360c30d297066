"""The log of ``nameko run``."""

import json
import logging

import pytest
from program import TERM, Program, Terminal, run

from nameko.cli.logs import JsonFormatter, _parse_filter

LOGGING_SERVICE = """
    import asyncio, logging
    from nameko.rpc import rpc

    class Hello:
        name = "hello_{uid}"

        @rpc
        def hello(self):
            logging.getLogger("shop").debug("greeted", extra=dict(order=17))

        @rpc
        def fail(self):
            raise ValueError("no")

        @rpc(expected_exceptions=LookupError)
        def miss(self):
            raise LookupError("no order 17")

        @rpc
        async def hello_async(self):
            await asyncio.gather(self.log("first"), asyncio.to_thread(self.log_now, "second"))
            self.log_now("third")
            # Outlives the call, so its lines have no span.
            Hello.later = asyncio.create_task(self.log_when_over())

        async def log(self, word):
            await asyncio.sleep(0)
            self.log_now(word)

        def log_now(self, word):
            logging.getLogger("shop").debug(word)

        async def log_when_over(self):
            Hello.over = asyncio.Event()
            await Hello.over.wait()
            self.log_now("later")

        @rpc
        async def finish(self):
            Hello.over.set()
            await Hello.later
"""


@pytest.fixture
def start(folder, broker_uri):
    programs = []
    folder.write("service.py", LOGGING_SERVICE)

    def start(*arguments, **env):
        program = Program(
            "run", "service", "--broker", broker_uri, *arguments, cwd=folder.path, **env
        )
        programs.append(program)
        program.wait_for("ready at")
        return program

    yield start
    for program in programs:
        program.__exit__()


@pytest.mark.parametrize("by", ["option", "environment", "configuration"])
def test_logs_json(start, cluster, uid, by):
    arguments = {"option": ["--log-format", "json"], "configuration": ["-dLOG_FORMAT=json"]}
    env = {"NAMEKO_LOG_FORMAT": "json"} if by == "environment" else {}
    program = start(*arguments.get(by, []), "--log", "info,shop=debug", **env)
    service = cluster["hello_" + uid]
    service.hello()
    program.wait_for("greeted")
    service.fail.call_async()
    program.wait_for("ValueError")
    program.signal(TERM)
    program.wait_for('"stopped"')
    assert program.wait() == 0
    events = [json.loads(line) for line in program.seen]
    (greeted,) = [event for event in events if event["message"] == "greeted"]
    assert (greeted["level"], greeted["target"], greeted["order"]) == ("DEBUG", "shop", 17)
    (failed,) = [event for event in events if "exception" in event]
    assert failed["level"] == "ERROR"
    assert failed["exception"].splitlines()[-1] == "ValueError: no"
    # The span of the call, as in the log of a Rust service.
    span = greeted["span"]
    assert (span["service"], span["method"], span["entrypoint"]) == ("hello_" + uid, "hello", "rpc")
    assert span["call_id"].startswith("hello_{}.hello.".format(uid))
    assert span["parent"].startswith("standalone_rpc_proxy.call.")
    assert failed["span"]["method"] == "fail"
    assert "span" not in events[0]


@pytest.mark.parametrize("level", ["info", "debug"])
def test_expected_exceptions_have_a_traceback_at_debug_only(start, cluster, uid, level):
    program = start("--log", level)
    service = cluster["hello_" + uid]
    service.miss.call_async()
    program.wait_for("(expected) error handling worker")
    service.fail.call_async()
    program.wait_for("ValueError: no")
    log = "".join(program.seen)
    assert "no order 17" in log
    assert ("LookupError: no order 17" in log) == (level == "debug")


def test_lines_of_async_methods_have_the_span_of_their_call(start, cluster, uid):
    program = start("--log-format", "json", "--log", "info,shop=debug")
    service = cluster["hello_" + uid]
    service.hello_async()
    service.hello()
    service.finish()
    program.wait_for('"later"')
    events = {event["message"]: event for event in map(json.loads, program.seen)}
    spans = [events[word]["span"] for word in ("first", "second", "third")]
    assert spans[0] == spans[1] == spans[2]
    assert spans[0]["call_id"].startswith("hello_{}.hello_async.".format(uid))
    assert spans[0].keys() == events["greeted"]["span"].keys()
    assert spans[0]["method"] == "hello_async"
    assert "span" not in events["later"]


def test_logs_import_errors_as_json(folder):
    folder.write("broken.py", "1 / 0\n")
    ended = run("run", "broken", "--log-format", "json", cwd=folder.path)
    assert ended.returncode == 1
    shown, last = map(json.loads, ended.stderr.splitlines())
    assert shown["message"] == "ZeroDivisionError: division by zero"
    assert 'broken.py", line 1' in shown["exception"]
    assert last["message"] == "Cannot import 'broken', see above"


def test_filters_by_level(start):
    program = start("--log", "warn")
    program.signal(TERM)
    program.wait_for("stopped")
    assert "starting services" not in "".join(program.seen)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--log", "loud"], "invalid log filter 'loud': expected error, warn, info or debug"),
        (["-dLOG=nameko=loud"], "invalid log filter 'nameko=loud'"),
        (["-dLOG_FORMAT=xml"], "LOG_FORMAT must be text or json, not 'xml'"),
        (
            ["-dLOGGING={version: 1, root: {handlers: [x]}}"],
            "LOGGING of the configuration is invalid",
        ),
        (["-dLOGGING=1"], "LOGGING of the configuration is invalid"),
    ],
)
def test_reports_invalid_settings(folder, arguments, expected):
    ended = run("run", "hello", *arguments, cwd=folder.path)
    assert ended.returncode == 1
    assert "Error: " + expected in ended.stdout
    assert "Traceback" not in ended.stderr


def test_colours_lines_only_on_a_terminal(folder, own_broker):
    uri = own_broker.uri
    own_broker.stop()
    arguments = ("run", "hello", "--broker", uri, "--log", "warn")
    with Terminal(*arguments, cwd=folder.path) as terminal:
        terminal.wait_for("\x1b[33mError connecting to broker")
    with Terminal(*arguments, NO_COLOR="1", cwd=folder.path) as terminal:
        assert "\x1b[3" not in terminal.wait_for("Error connecting to broker")


def test_parses_filters():
    assert _parse_filter("warn") == {"": logging.WARNING}
    assert _parse_filter("info,nameko::amqp=debug, shop=error") == {
        "": logging.INFO,
        "nameko.amqp": logging.DEBUG,
        "shop": logging.ERROR,
    }


def test_logs_any_record_as_one_line_of_json():
    record = logging.makeLogRecord({"msg": "a\n%s", "args": (object,)})
    record.levelno, record.odd = logging.INFO, object()
    record.created = 0.25
    event = json.loads(JsonFormatter().format(record))
    assert event["timestamp"] == "1970-01-01T00:00:00.250000Z"
    assert event["message"] == "a\n<class 'object'>"
    assert event["odd"].startswith("<object object")
