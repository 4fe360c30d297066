"""A chat in the browser: `nameko run examples.websocket.chat`, then open http://localhost:8000 in
two windows."""

from werkzeug.wrappers import Response

from nameko.web.handlers import http
from nameko.web.websocket import WebSocketHubProvider, rpc

PAGE = """<!DOCTYPE html>
<title>Chat</title>
<form><input autofocus placeholder="Say something"></form>
<pre></pre>
<script>
  const room = new URLSearchParams(location.search).get("room") || "lobby";
  const socket = new WebSocket(`ws://${location.host}/ws`);
  const call = (method, data) => socket.send(JSON.stringify({method, data}));
  socket.onopen = () => call("enter", {room});
  socket.onmessage = ({data}) => {
    const {event, data: said} = JSON.parse(data);
    if (event === "said") document.querySelector("pre").append(`${said.who}: ${said.text}\\n`);
  };
  document.querySelector("form").onsubmit = event => {
    event.preventDefault();
    const input = document.querySelector("input");
    call("say", {text: input.value});
    input.value = "";
  };
</script>
"""


class Chat:
    name = "chat"

    hub = WebSocketHubProvider()

    @http("GET", "/")
    def page(self, request):
        return Response(PAGE, mimetype="text/html")

    @rpc
    def enter(self, socket_id, room):
        self.hub.subscribe(socket_id, room)

    @rpc
    def say(self, socket_id, text):
        for room in self.hub.get_subscriptions(socket_id):
            self.hub.broadcast(room, "said", {"who": socket_id[:4], "text": text})
