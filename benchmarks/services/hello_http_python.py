import json

from nameko.web.handlers import http


class HelloService:
    name = "bench_http_python"

    @http("GET", "/hello/<name>")
    def hello(self, request, name):
        body = json.dumps({"greeting": "Hello, {}!".format(name)})
        return 200, {"Content-Type": "application/json"}, body
