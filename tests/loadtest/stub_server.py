"""A peer without packages, for the tests: `python stub_server.py PORT [--wrong] [--broken]`.

Answers class 7 to every POST; with --wrong class 8, with --broken 500 to about every second request.
"""

import http.server
import json
import random
import sys

INDEX = 8 if "--wrong" in sys.argv else 7
# At random: clients that take turns would always meet the same answer.
CHANCE = random.Random(1)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = json.dumps({"predictions": [{"label": "seven", "index": INDEX, "probability": 1.0}]}).encode()
        self.send_response(500 if "--broken" in sys.argv and CHANCE.random() < 0.5 else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
