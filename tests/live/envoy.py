"""A real Envoy on all four protocols, in both Service Connect formats, through a FireLens-shaped client into meshlens.

Envoy's stdout and stderr go line by line into Fluent Forward messages as Docker's driver makes them. Envoy also writes its own
JSON record of each request to a file: the answer key. Every access line must come out of meshlens with the key's values, its
query string gone.

    envoy.py MESHLENS_BINARY
"""

import asyncio
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import httpx

SECRET = "LIVESECRET"
ENVOY = Path(sys.executable).with_name("envoy")

COMMON = {
    "start_time": "%START_TIME%",
    "bytes_received": "%BYTES_RECEIVED%",
    "bytes_sent": "%BYTES_SENT%",
    "duration": "%DURATION%",
}
HTTP = COMMON | {
    "method": "%REQ(:METHOD)%",
    "path": "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%",
    "protocol": "%PROTOCOL%",
    "response_code": "%RESPONSE_CODE%",
    "upstream_service_time": "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%",
    "forwarded_for": "%REQ(X-FORWARDED-FOR)%",
    "user_agent": "%REQ(USER-AGENT)%",
    "request_id": "%REQ(X-REQUEST-ID)%",
    "authority": "%REQ(:AUTHORITY)%",
    "upstream_host": "%UPSTREAM_HOST%",
}
HTTP2 = HTTP | {"stream_id": "%STREAM_ID%"}
GRPC = HTTP2 | {"grpc_status": "%GRPC_STATUS()%"}
TCP = COMMON | {
    "downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "downstream_remote_port": "%DOWNSTREAM_REMOTE_PORT%",
    "connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%",
    "connection_id": "%CONNECTION_ID%",
}
HEAD = '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% '
TAIL = (
    "%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "
    '"%REQ(X-FORWARDED-FOR)%" "%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%"'
)
TEXT = {
    "http": HEAD + TAIL + "\n",
    "http2": HEAD + TAIL + ' "%STREAM_ID%"\n',
    "grpc": HEAD + "%GRPC_STATUS()% " + TAIL + ' "%STREAM_ID%"\n',
    "tcp": "[%START_TIME%] %DOWNSTREAM_REMOTE_ADDRESS% %DOWNSTREAM_REMOTE_PORT% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% "
    "%CONNECTION_TERMINATION_DETAILS% %CONNECTION_ID%\n",
}
KEYS = {"http": HTTP, "http2": HTTP2, "grpc": GRPC, "tcp": TCP}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def access_logs(layout: str, text: bool, key_file: str) -> list:
    kind = {"text_format_source": {"inline_string": TEXT[layout]}} if text else {"json_format": KEYS[layout]}
    return [
        {
            "name": "envoy.access_loggers.stdout",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
                "log_format": kind,
            },
        },
        {
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": key_file,
                "log_format": {"json_format": KEYS[layout] | {"layout": layout}},
            },
        },
    ]


def listener(layout: str, port: int, cluster: str, logs: list) -> dict:
    address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
    if layout == "tcp":
        proxy = {
            "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": layout,
            "cluster": cluster,
            "access_log": logs,
        }
        return {"address": address, "filter_chains": [{"filters": [{"name": "tcp", "typed_config": proxy}]}]}
    manager = {
        "@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": layout,
        "codec_type": "HTTP1" if layout == "http" else "HTTP2",
        "access_log": logs,
        "route_config": {
            "virtual_hosts": [
                {
                    "name": layout,
                    "domains": ["*"],
                    "routes": [
                        {"match": {"prefix": "/nowhere"}, "route": {"cluster": "closed"}},
                        {"match": {"prefix": "/"}, "route": {"cluster": cluster}},
                    ],
                }
            ]
        },
        "http_filters": [
            {
                "name": "envoy.filters.http.router",
                "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"},
            }
        ],
    }
    return {"address": address, "filter_chains": [{"filters": [{"name": "hcm", "typed_config": manager}]}]}


def cluster(name: str, port: int, http2: bool = False) -> dict:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}}
    made = {
        "name": name,
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if http2:
        made["typed_extension_protocol_options"] = {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
                "explicit_http_config": {"http2_protocol_options": {}},
            }
        }
    return made


class Upstream(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = b"x" * random.Random(self.path).randrange(2000)
        self.send_response(404 if "missing" in self.path else 200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.do_GET()

    def log_message(self, *_):
        pass


def echo_server() -> int:
    server = socket.create_server(("127.0.0.1", 0))

    def serve():
        while True:
            peer, _ = server.accept()
            with peer:
                data = peer.recv(1000)
                peer.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return server.getsockname()[1]


class GrpcHandler(grpc.GenericRpcHandler):
    def service(self, details):
        def answer(request, context):
            if "Missing" in details.method:
                context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
            return request

        return grpc.unary_unary_rpc_method_handler(answer)


def pack_text(text: bytes) -> bytes:
    if len(text) < 32:
        return bytes([0xA0 | len(text)]) + text
    return b"\xda" + struct.pack(">H", len(text)) + text if len(text) < 65536 else b"\xdb" + struct.pack(">I", len(text)) + text


class FireLens:
    """Sends lines as Docker's fluentd log driver does for FireLens: one Message a line, map order random, option `{}`."""

    def __init__(self, path: str, tag: str):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.connect(path)
        self.tag = pack_text(tag.encode())
        self.lock = threading.Lock()

    def send(self, line: bytes, source: bytes) -> None:
        now = time.time_ns()
        fields = [
            (b"container_id", b"4f1c2d3e4b5a"),
            (b"container_name", b"/ecs-live-1-envoy-a0b1c2"),
            (b"source", source),
            (b"log", line),
        ]
        random.shuffle(fields)
        record = b"\x84" + b"".join(pack_text(key) + pack_text(value) for key, value in fields)
        stamp = b"\xd7\x00" + struct.pack(">II", now // 10**9, now % 10**9)
        with self.lock:
            self.socket.sendall(b"\x94" + self.tag + stamp + record + b"\x80")

    def follow(self, stream, source: bytes) -> threading.Thread:
        def run():
            for line in stream:
                self.send(line.rstrip(b"\n"), source)

        thread = threading.Thread(target=run)
        thread.start()
        return thread


def drive(ports: dict) -> None:
    pick = random.Random(7)
    paths = ["/", f"/a/b?token={SECRET}", f"/missing?x=1&y={SECRET}", f"/enc%3Ft={SECRET}", f"/nowhere?{SECRET}"]
    agents = ["curl/8.11.1", 'quote" "inside', "x\" 200 - 0 0 \"y", "tab\there", "-", "Mozilla/5.0 (X11; Linux x86_64)"]
    with httpx.Client(timeout=10) as client:
        for _ in range(120):
            headers = {"user-agent": pick.choice(agents), "x-request-id": f"{pick.randrange(1 << 60):x}"}
            if pick.random() < 0.5:
                headers["x-forwarded-for"] = "10.1.2.3, 192.0.2.7"
            url = f"http://127.0.0.1:{ports['http']}{pick.choice(paths)}"
            client.request(pick.choice(["GET", "POST"]), url, headers=headers)

    async def http2() -> None:
        async with httpx.AsyncClient(http1=False, http2=True, timeout=10) as client:
            for _ in range(60):
                url = f"http://127.0.0.1:{ports['http2']}{pick.choice(paths)}"
                await client.get(url, headers={"user-agent": pick.choice(agents)})

    asyncio.run(http2())
    with grpc.insecure_channel(f"127.0.0.1:{ports['grpc']}") as channel:
        for number in range(60):
            method = channel.unary_unary(pick.choice(["/shop.v1.Orders/Create", "/shop.v1.Orders/Missing"]))
            try:
                method(b"\x0a\x01" * (number + 1), timeout=10)
            except grpc.RpcError as error:
                assert error.code() == grpc.StatusCode.NOT_FOUND, error
    for number in range(40):
        with socket.create_connection(("127.0.0.1", ports["tcp"])) as peer:
            peer.sendall(b"z" * (number + 1))
            peer.recv(1000)


def wait_for(what: str, done) -> None:
    deadline = time.monotonic() + 30
    while not done():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited 30 s for {what}")
        time.sleep(0.02)


def ready(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
        return True
    except OSError:
        return False


def identity(record: dict) -> tuple:
    if "connection_id" in record:
        return ("tcp", record["connection_id"])
    return (record["start_time"], record["request_id"], record["path"], record["user_agent"])


def expected(key: dict) -> dict:
    key = {name: None if value == "-" else value for name, value in key.items() if name != "layout"}
    if key.get("path"):
        key["path"] = key["path"].split("?")[0].split("%3F")[0]
    return key


def run(meshlens: str, text: bool, work: Path) -> tuple[int, int]:
    http_upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=http_upstream.serve_forever, daemon=True).start()
    grpc_upstream = grpc.server(futures.ThreadPoolExecutor(4), handlers=[GrpcHandler()])
    grpc_port = grpc_upstream.add_insecure_port("127.0.0.1:0")
    grpc_upstream.start()
    ports = {layout: free_port() for layout in KEYS}
    key_file = work / "key.jsonl"
    upstreams = {"http": "app", "http2": "app", "grpc": "rpc", "tcp": "echo"}
    config = {
        "static_resources": {
            "listeners": [
                listener(layout, ports[layout], upstreams[layout], access_logs(layout, text, str(key_file))) for layout in KEYS
            ],
            "clusters": [
                cluster("app", http_upstream.server_port),
                cluster("rpc", grpc_port, http2=True),
                cluster("echo", echo_server()),
                cluster("closed", 1),
            ],
        }
    }
    (work / "envoy.json").write_text(json.dumps(config))
    socket_path = str(work / "fluent.sock")
    with open(work / "out.jsonl", "wb") as out, open(work / "meshlens.log", "wb") as log:
        router = subprocess.Popen([meshlens, "run", "--forward-unix", socket_path, "--to", "stdout"], stdout=out, stderr=log)
    envoy = None
    try:
        wait_for("meshlens to listen", lambda: os.path.exists(socket_path))
        envoy = subprocess.Popen(
            [ENVOY, "-c", work / "envoy.json", "--concurrency", "1", "--disable-hot-restart", "--use-dynamic-base-id"]
            + ["--file-flush-interval-msec", "100", "--log-level", "info"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        client = FireLens(socket_path, "ecs-service-connect-x-firelens-0123456789abcdef")
        followers = [client.follow(envoy.stdout, b"stdout"), client.follow(envoy.stderr, b"stderr")]
        wait_for("envoy to listen", lambda: all(ready(port) for port in ports.values()))
        drive(ports)
        # Envoy writes its logs out at its end; what it wrote is then with the client.
        envoy.send_signal(signal.SIGTERM)
        envoy.wait(30)
        for follower in followers:
            follower.join(30)
        client.socket.close()
        router.send_signal(signal.SIGTERM)
        code = router.wait(40)
    finally:
        for process in (envoy, router):
            if process and process.poll() is None:
                process.kill()
        grpc_upstream.stop(None)
        http_upstream.shutdown()
    stderr = (work / "meshlens.log").read_text()
    assert code == 0, f"meshlens ended with {code}:\n{stderr}"
    return compare(work, stderr)


def compare(work: Path, stderr: str) -> tuple[int, int]:
    raw = (work / "out.jsonl").read_bytes()
    assert SECRET.encode() not in raw and SECRET not in stderr, "a query string got through"
    records = [json.loads(line) for line in raw.splitlines()]
    access = [record for record in records if record.get("log_type") == "access"]
    keys = [expected(json.loads(line)) for line in key_file_lines(work)]
    assert keys, "envoy wrote no answer key"
    assert len(access) == len(keys), f"{len(access)} access records for {len(keys)} requests"
    open_keys = {}
    for key in keys:
        open_keys.setdefault(identity(key), []).append(key)
    ambiguous = 0
    for record in access:
        doubtful = set(record.get("parse_ambiguous", []))
        ambiguous += bool(doubtful)
        if doubtful:
            continue
        candidates = open_keys.get(identity(record), [])
        wrong = [{n: (record.get(n), v) for n, v in key.items() if record.get(n) != v} for key in candidates]
        assert {} in wrong, f"no answer key fits {record}: {wrong}"
        candidates.pop(wrong.index({}))
    assert all(record["container_name"] == "/ecs-live-1-envoy-a0b1c2" for record in records)
    own = sum(record.get("log_type") == "envoy" for record in records)
    assert own > 50, f"only {own} lines of Envoy's own log were recognised"
    return len(access), ambiguous


def key_file_lines(work: Path) -> list[str]:
    return (work / "key.jsonl").read_text().splitlines()


if __name__ == "__main__":
    for text in (False, True):
        with tempfile.TemporaryDirectory() as directory:
            count, doubtful = run(sys.argv[1], text, Path(directory))
            print(f"{'text' if text else 'json'}: {count} access records equal Envoy's own account, {doubtful} marked ambiguous")
