"""The result of an overridden get_wsgi_server(): an application and its socket."""


class Server:
    def __init__(self, socket, address, app, debug=False, **options) -> None:
        self.socket = socket
        self.address = address
        self.app = app
        self.debug = debug
