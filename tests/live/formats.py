"""A real Envoy with random format strings: what it prints in text, parsed by meshlens, against its own JSON of the same operators.

Each listener logs every request twice: in text by a random format, and in JSON with each of that format's operators by itself.
Every field of every line must be equal, or be named in `parse_ambiguous`.

    formats.py MESHLENS_BINARY [SEED]
"""

import json
import random
import signal
import subprocess
import sys
import tempfile
import threading
from http.server import ThreadingHTTPServer
from pathlib import Path

import httpx
from envoy import ENVOY, SECRET, Upstream, cluster, free_port, listener, ready, wait_for

LISTENERS = 24
REQUESTS = 25

OPERATORS = """
START_TIME START_TIME(%s) START_TIME(%s.%3f) START_TIME(%Y/%m/%dT%H:%M:%S%z) START_TIME(%d/%b/%Y:%H:%M:%S)
DURATION REQUEST_DURATION REQUEST_TX_DURATION RESPONSE_DURATION RESPONSE_TX_DURATION COMMON_DURATION(DS_RX_BEG:DS_TX_END:us)
BYTES_RECEIVED BYTES_SENT REQUEST_HEADERS_BYTES RESPONSE_HEADERS_BYTES UPSTREAM_WIRE_BYTES_SENT DOWNSTREAM_WIRE_BYTES_RECEIVED
UPSTREAM_HEADER_BYTES_SENT DOWNSTREAM_HEADER_BYTES_RECEIVED PROTOCOL UPSTREAM_PROTOCOL RESPONSE_CODE RESPONSE_CODE_DETAILS
CONNECTION_TERMINATION_DETAILS RESPONSE_FLAGS RESPONSE_FLAGS_LONG UPSTREAM_REQUEST_ATTEMPT_COUNT UPSTREAM_HOST UPSTREAM_CLUSTER
UPSTREAM_LOCAL_ADDRESS UPSTREAM_REMOTE_ADDRESS UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT UPSTREAM_REMOTE_PORT
UPSTREAM_TRANSPORT_FAILURE_REASON DOWNSTREAM_REMOTE_ADDRESS DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT DOWNSTREAM_REMOTE_PORT
DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT(16) DOWNSTREAM_DIRECT_REMOTE_ADDRESS DOWNSTREAM_LOCAL_ADDRESS DOWNSTREAM_LOCAL_PORT
CONNECTION_ID UPSTREAM_CONNECTION_ID STREAM_ID ROUTE_NAME HOSTNAME GRPC_STATUS GRPC_STATUS(NUMBER) FILTER_CHAIN_NAME ACCESS_LOG_TYPE
REQUESTED_SERVER_NAME DOWNSTREAM_TLS_VERSION DOWNSTREAM_PEER_SUBJECT TRACE_ID VIRTUAL_CLUSTER_NAME
REQ(:METHOD) REQ(:PATH) REQ(X-ENVOY-ORIGINAL-PATH?:PATH) REQ(:AUTHORITY) REQ(:SCHEME) REQ(USER-AGENT) REQ(USER-AGENT):7
REQ(X-REQUEST-ID) REQ(X-FORWARDED-FOR) REQ(X-ONE) REQ(X-TWO?X-ONE) REQUEST_HEADER(X-THREE) REQ(ACCEPT-ENCODING) REQ(REFERER)
RESP(CONTENT-LENGTH) RESP(SERVER) RESP(X-ENVOY-UPSTREAM-SERVICE-TIME) RESPONSE_HEADER(DATE) TRAILER(X-NONE)
DYNAMIC_METADATA(ns:key) FILTER_STATE(some.key) CLUSTER_METADATA(ns:key) PATH(NQ) QUERY_PARAM(y)
""".split()

BORDERS = [" ", '" "', ' "', '" ', "|", "\t", ", ", "] [", " - ", " key=", ";", " (", ")->", "ms ", " %% ", "{", "'", "", "/"]
HEADERS = ["plain", "two words", 'quote" "inside', "a|b;c", "- -", "] [", "1.2.3.4:80", "/x/y", "a, b", "x=1", "200", "{a}"]


def random_format(pick: random.Random) -> tuple[str, list[str]]:
    # Operators of one key would make the second a `_2`, and nothing else; the key is told by its place here.
    operators = pick.sample(OPERATORS, pick.randrange(2, 14))
    text = pick.choice(["", "[", '"', "[%START_TIME%] "])
    if "START_TIME" in text:
        operators = ["START_TIME"] + [each for each in operators if not each.startswith("START_TIME")]
        rest = operators[1:]
    else:
        rest = operators
    for operator in rest:
        text += f"%{operator}%" + pick.choice(BORDERS)
    return text, operators


def loggers(text: str, operators: list[str], place: Path, number: int) -> list:
    def logger(name: str, log_format: dict) -> dict:
        return {
            "name": "envoy.access_loggers.file",
            "typed_config": {
                "@type": "type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog",
                "path": str(place / f"{name}-{number}.log"),
                "log_format": log_format,
            },
        }

    key = {f"{place:02}": f"%{operator}%" for place, operator in enumerate(operators)}
    return [logger("text", {"text_format_source": {"inline_string": text + "\n"}}), logger("key", {"json_format": key})]


def drive(pick: random.Random, ports: list[int]) -> None:
    paths = ["/", "/a/b", f"/a?token={SECRET}&y={SECRET}", "/missing", "/nowhere", "/users/7;v=1"]
    with httpx.Client(timeout=10) as client:
        for port in ports:
            for _ in range(REQUESTS):
                headers = {name: pick.choice(HEADERS) for name in ("x-one", "x-two", "x-three") if pick.random() < 0.7}
                headers["user-agent"] = pick.choice(HEADERS)
                if pick.random() < 0.3:
                    headers["referer"] = f"http://a/b?c={SECRET}"
                if pick.random() < 0.3:
                    headers["x-forwarded-for"] = "10.1.2.3, 192.0.2.7"
                client.request(pick.choice(["GET", "POST"]), f"http://127.0.0.1:{port}{pick.choice(paths)}", headers=headers)


def same(found, key) -> bool:
    if key is None or key == "-":
        return found is None
    if isinstance(key, float) and key.is_integer():
        key = int(key)
    return str(found) == str(key) or (key == "" and found is None)


def parse_key(line: str, text: str) -> dict:
    try:
        return json.loads(line)
    except ValueError as error:
        raise AssertionError(f"the answer key is no JSON: {line}\n{text}") from error


def compare(meshlens: str, work: Path, number: int, text: str, operators: list[str]) -> tuple[int, int, int]:
    parse = [meshlens, "parse", "--format", text, str(work / f"text-{number}.log")]
    redacted = subprocess.run(parse, capture_output=True, check=True).stdout
    # A line that a layout without `[%START_TIME%] ` at its start does not fit is any text: nobody knows where a parameter stands in it.
    known = [line for line in redacted.splitlines() if text.startswith("[%START_TIME%] ") or b'"log_type":"access"' in line]
    assert SECRET.encode() not in b"".join(known), f"a query string got through\n{text}"
    whole = subprocess.run([*parse, "--redact", "keep"], capture_output=True, check=True).stdout
    records = [json.loads(line) for line in whole.splitlines()]
    keys = [parse_key(line, text) for line in (work / f"key-{number}.log").read_text().splitlines()]
    assert len(records) == len(keys) == REQUESTS, f"{len(records)} records, {len(keys)} keys\n{text}"
    read = marked = 0
    for record, key in zip(records, keys):
        if record.get("log_type") != "access":
            continue
        read += 1
        fields = list(record.items())[: len(operators)]
        doubtful = set(record.get("parse_ambiguous", []))
        for place, (name, found) in enumerate(fields):
            expected = key.get(f"{place:02}")
            if name in doubtful:
                marked += 1
            else:
                assert same(found, expected), f"{operators[place]}: {found!r} for {expected!r}\n{text}\n{record}\n{key}"
    return read, marked, len(keys)


def unique_ports(count: int) -> set[int]:
    ports = set()
    while len(ports) < count:
        ports.add(free_port())
    return ports


def run(meshlens: str, seed: int, work: Path) -> None:
    pick = random.Random(seed)
    upstream = ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    formats = [random_format(pick) for _ in range(LISTENERS)]
    ports = list(unique_ports(len(formats)))
    listeners = [
        listener("http", port, "app", loggers(text, operators, work, number))
        for number, (port, (text, operators)) in enumerate(zip(ports, formats))
    ]
    clusters = [cluster("app", upstream.server_port), cluster("closed", 1)]
    (work / "envoy.json").write_text(json.dumps({"static_resources": {"listeners": listeners, "clusters": clusters}}))
    with open(work / "envoy.log", "wb") as log:
        envoy = subprocess.Popen(
            [ENVOY, "-c", work / "envoy.json", "--concurrency", "1", "--disable-hot-restart", "--use-dynamic-base-id"]
            + ["--file-flush-interval-msec", "100"],
            stdout=log,
            stderr=log,
        )
    try:
        wait_for("envoy to listen", lambda: envoy.poll() is not None or all(ready(port) for port in ports))
        assert envoy.poll() is None, (work / "envoy.log").read_text()[-2000:]
        drive(pick, ports)
        envoy.send_signal(signal.SIGTERM)
        envoy.wait(30)
    finally:
        if envoy.poll() is None:
            envoy.kill()
        upstream.shutdown()
    read = marked = lines = 0
    for number, (text, operators) in enumerate(formats):
        some = compare(meshlens, work, number, text, operators)
        read, marked, lines = read + some[0], marked + some[1], lines + some[2]
    # Some formats have borders that stand in values all the time.
    assert read * 2 > lines, f"only {read} of {lines} lines were read"
    print(f"{LISTENERS} random formats: {read} of {lines} lines read, {marked} fields marked ambiguous, none wrong")


if __name__ == "__main__":
    seed = int(sys.argv[2]) if len(sys.argv) > 2 else random.randrange(1 << 32)
    print(f"seed {seed}")
    with tempfile.TemporaryDirectory() as directory:
        run(sys.argv[1], seed, Path(directory))
