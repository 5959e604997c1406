"""Real OTLP receivers for the sender's tests: HTTP and gRPC on 127.0.0.1, with scripted answers."""

from __future__ import annotations

import gzip
import socket
import ssl
import struct
import threading
from concurrent import futures
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self

import grpc
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Reply:
    """One scripted answer."""

    status: int | grpc.StatusCode = 200
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    endless: bool = False
    hang: bool = False
    reset: bool = False
    """Break the connection once `body`, as raw bytes of an answer, has left."""


@dataclass
class Received:
    path: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """Records requests; answers with `script` in order, then with `default`."""

    script: list[Reply] = field(default_factory=list)
    default: Reply = field(default_factory=Reply)
    received: list[Received] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    tls: ssl.SSLContext | None = None
    """Only over HTTP."""

    def take(self, path: str, headers: dict[str, str], body: bytes) -> Reply:
        self.received.append(Received(path, headers, body))
        return self.script.pop(0) if self.script else self.default

    def log_records(self, *, distinct: bool = False) -> list:
        bodies = [one.body for one in self.received if one.path.endswith(("/v1/logs", "LogsService/Export"))]
        if distinct:
            bodies = list(dict.fromkeys(bodies))
        return [
            record
            for body in bodies
            for group in ExportLogsServiceRequest.FromString(body).resource_logs
            for scope in group.scope_logs
            for record in scope.log_records
        ]

    def spans(self) -> list:
        return [
            span
            for one in self.received
            if one.path.endswith(("/v1/traces", "TraceService/Export"))
            for group in ExportTraceServiceRequest.FromString(one.body).resource_spans
            for scope in group.scope_spans
            for span in scope.spans
        ]


class HttpReceiver(Receiver):
    """An OTLP/HTTP server."""

    def __enter__(self) -> Self:
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                reply = receiver.take(self.path, {k.lower(): v for k, v in self.headers.items()}, body)
                if reply.hang:
                    receiver.released.wait(30)
                    self.close_connection = True
                    return
                if reply.reset:
                    self.wfile.write(reply.body)
                    self.wfile.flush()
                    # Closing now sends RST.
                    self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    self.close_connection = True
                    return
                self.send_response(int(reply.status))
                for key, value in reply.headers:
                    self.send_header(key, value)
                if reply.endless:
                    self.end_headers()
                    self.close_connection = True
                    try:
                        while not receiver.released.is_set():
                            self.wfile.write(b"x" * 4096)
                    except OSError:
                        pass
                    return
                self.send_header("content-length", str(len(reply.body)))
                self.end_headers()
                self.wfile.write(reply.body)

            def log_message(self, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        if self.tls is not None:
            self._server.socket = self.tls.wrap_socket(self._server.socket, server_side=True)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{self._server.server_port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


class GrpcReceiver(Receiver):
    """An OTLP/gRPC server."""

    def __enter__(self) -> Self:
        receiver = self

        class Handler(grpc.GenericRpcHandler):
            def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
                headers = dict(details.invocation_metadata)

                def export(body: bytes, context: grpc.ServicerContext) -> bytes:
                    reply = receiver.take(details.method, headers, body)
                    if reply.hang:
                        receiver.released.wait(30)
                    if isinstance(reply.status, grpc.StatusCode):
                        context.set_trailing_metadata(reply.headers)
                        context.abort(reply.status, "scripted")
                    return reply.body

                return grpc.unary_unary_rpc_method_handler(export)

        self._server = grpc.server(futures.ThreadPoolExecutor(4), handlers=(Handler(),))
        port = self._server.add_insecure_port("127.0.0.1:0")
        self._server.start()
        self.url = f"http://127.0.0.1:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.stop(None).wait()


def dead_url() -> str:
    """Where nobody listens: a port that was free a moment ago."""
    with ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler) as server:
        return f"http://127.0.0.1:{server.server_port}"
