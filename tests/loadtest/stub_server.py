"""Peer for the tests, without dependencies: `python stub_server.py PORT [--wrong] [--broken]`.

Responds with class 7 to every POST; with --wrong class 8, with --broken 500 to two of four requests of each connection.
"""

import http.server
import json
import sys

INDEX = 8 if "--wrong" in sys.argv else 7


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        super().setup()
        self.answered = 0

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"predictions": [{"label": "seven", "index": INDEX, "probability": 1.0}]}).encode()
        # Two by two: a client with two pictures would otherwise get the same status for each of them always.
        self.send_response(500 if "--broken" in sys.argv and self.answered % 4 >= 2 else 200)
        self.answered += 1
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
