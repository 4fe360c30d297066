"""What a service that replaces the WSGI server gives back: the app on a socket."""


class Server:
    def __init__(self, socket, address, app, debug=False, **options) -> None:
        self.socket = socket
        self.address = address
        self.app = app
        self.debug = debug
