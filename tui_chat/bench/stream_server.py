"""A server that streams a reply as fast as it can: the other end of `bench server`.

Started as `python -m tui_chat.bench.stream_server`; it prints its port and serves until it is
killed. The first text of a reply is the moment at which it was sent, in nanoseconds of the
monotonic clock, which is the same for all processes of a machine.
"""

import json
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKENS = 2000
MODEL = "stream"
PAUSE_SECONDS = 0.05
"""Between the head and the first token, so that the client is waiting when it comes."""


def chunk(text: str | None, finish_reason: str | None = None) -> bytes:
    """One event of a streamed reply, as vLLM writes it."""
    delta = {} if text is None else {"content": text}
    data = {
        "id": "chatcmpl-0123456789abcdef",
        "object": "chat.completion.chunk",
        "created": 1_790_000_000,
        "model": MODEL,
        "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish_reason}],
    }
    return event(json.dumps(data))


def event(data: str) -> bytes:
    """One event as a chunk of HTTP."""
    body = f"data: {data}\n\n".encode()
    return b"%x\r\n%s\r\n" % (len(body), body)


WORDS = ("sky", "light", "because", "waves", "of", "the", "scatter", "blue")
REST = [chunk(f"{WORDS[number % len(WORDS)]} ") for number in range(1, TOKENS)]
USAGE = {"prompt_tokens": 9, "completion_tokens": TOKENS, "total_tokens": TOKENS + 9}
END = (
    chunk(None, "stop")
    + event(json.dumps({"choices": [], "usage": USAGE}))
    + event("[DONE]")
    + b"0\r\n\r\n"
)


class Handler(BaseHTTPRequestHandler):
    """Answers the list of models and requests for a reply."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """The one model there is."""
        found = self.path == "/v1/models"
        data = {"data": [{"id": MODEL, "max_model_len": 8192}]} if found else {"error": "no"}
        body = json.dumps(data).encode()
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """A reply of `TOKENS` tokens, each in a write of its own."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        time.sleep(PAUSE_SECONDS)
        self.wfile.write(chunk(f"{time.monotonic_ns()} "))
        for data in REST:
            self.wfile.write(data)
        self.wfile.write(END)

    def log_message(self, *_: object) -> None:
        """Nothing is printed but the port."""


def main() -> None:
    """Serve until killed."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_address[1], flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
