"""A collector's end of OTLP/HTTP: decodes requests with the official package, and prints a line of JSON for each.

The first argument is the port. A line on standard input is the answer to all requests from then on: a status and a
Retry-After, or "partial" and a number of rejected points or records.
"""

import gzip
import http.server
import json
import sys
import threading

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)

answer = ["200"]
# An answer holds for all lines after its own.
lock = threading.Lock()


class Collector(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers["content-encoding"] == "gzip":
            body = gzip.decompress(body)
        is_logs = self.path.endswith("/v1/logs")
        request = ExportLogsServiceRequest() if is_logs else ExportMetricsServiceRequest()
        request.ParseFromString(body)
        with lock:
            status, *more = answer
            line = {
                "status": 200 if status == "partial" else int(status),
                "path": self.path,
                "headers": {name.lower(): value for name, value in self.headers.items()},
                "body": MessageToDict(request, preserving_proto_field_name=True),
            }
            print(json.dumps(line), flush=True)
        reply = ExportLogsServiceResponse() if is_logs else ExportMetricsServiceResponse()
        if status == "partial":
            status = "200"
            if is_logs:
                reply.partial_success.rejected_log_records = int(more[0])
            else:
                reply.partial_success.rejected_data_points = int(more[0])
            reply.partial_success.error_message = "too old"
        text = reply.SerializeToString()
        self.send_response(int(status))
        if status == "503" and more:
            self.send_header("retry-after", more[0])
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True


server = Server(("127.0.0.1", int(sys.argv[1])), Collector)
threading.Thread(target=server.serve_forever, daemon=True).start()
print(json.dumps("ready"), flush=True)
for line in sys.stdin:
    with lock:
        answer[:] = line.split()
        print(json.dumps("set"), flush=True)
