"""nameko-sentry: reports exceptions of methods.

It sends reports from green threads, which do not run here. A subclass uses real threads instead.
"""

import base64
import http.server
import json
import threading
import zlib
from queue import SimpleQueue

import pytest
from nameko_sentry import SentryReporter
from raven.conf.remote import RemoteConfig
from raven.transport.threaded import ThreadedHTTPTransport

from nameko.rpc import rpc


class Reporter(SentryReporter):
    def setup(self):
        super().setup()
        dsn = self.container.config["SENTRY"]["DSN"]
        self.client.remote = RemoteConfig.from_string(dsn, transport=ThreadedHTTPTransport)

    def stop(self):
        self.client.remote.get_transport().get_worker().stop()


@pytest.fixture
def sentry():
    """The DSN of a server, and a queue of the reports it received."""
    reports = SimpleQueue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") != "deflate":
                body = base64.b64decode(body)
            reports.put(json.loads(zlib.decompress(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *args):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield "http://public:secret@127.0.0.1:{}/1".format(server.server_port), reports
    server.shutdown()
    thread.join()
    server.server_close()


def test_reports_exceptions(serve, cluster, sentry, uid):
    dsn, reports = sentry

    class Service:
        name = "service-" + uid
        sentry = Reporter()

        @rpc(expected_exceptions=KeyError)
        def method(self, expected):
            raise KeyError("known") if expected else ValueError("unknown")

    container = serve(Service, SENTRY={"DSN": dsn})
    cluster._worker_ctx.data["user_id"] = "anna"
    for expected, level in ((False, 40), (True, 30)):
        with pytest.raises(Exception, match="known"):
            cluster[Service.name].method(expected)
        report = reports.get(timeout=10)
        assert report["logger"] == Service.name + ".method"
        assert report["level"] == level
        assert report["tags"]["service_name"] == Service.name
        assert report["tags"]["method_name"] == "method"
        assert report["user"]["user_id"] == "anna"
    container.stop()
