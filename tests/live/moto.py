"""moto as a second opinion on the AWS side, and DuckDB as the Athena that reads what S3 holds.

A real Envoy log goes through meshlens into moto's CloudWatch Logs, Firehose and S3. What arrived is compared with Envoy's own
answer key; then the three questions that users of access logs start with are asked of the S3 objects.

The log is repeated, each time with request ids of its own, until there are MESHLENS_MOTO_RECORDS lines (20,000 unless set).
Every record of every service is compared, so that one that is lost, duplicated or altered shows.

    moto.py MESHLENS_BINARY LOG.gz KEY.jsonl.gz
"""

import gzip
import json
import math
import os
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import boto3
import duckdb

RECORDS = int(os.environ.get("MESHLENS_MOTO_RECORDS", "20000"))
BUCKET, GROUP, STREAM, DELIVERY = "meshlens-logs", "/ecs/access", "task-1", "access"


def start_moto() -> tuple[subprocess.Popen, str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    moto = Path(sys.executable).with_name("moto_server")
    server = subprocess.Popen([moto, "-H", "127.0.0.1", "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(300):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return server, f"http://127.0.0.1:{port}"
        except OSError:
            time.sleep(0.1)
    server.kill()
    raise SystemExit("moto did not start")


def answer_key(path: str) -> list[dict]:
    names = {"t": "start_time", "m": "method", "p": "path", "c": "response_code", "du": "duration", "id": "request_id"}
    records = []
    with gzip.open(path, "rt") as lines:
        for line in lines:
            key = json.loads(line)
            record = {name: None if key[short] == "-" else key[short] for short, name in names.items()}
            if record["path"]:
                record["path"] = record["path"].split("?")[0].split("%3F")[0].split("%3f")[0]
            records.append(record)
    return records


def repeated(log: bytes, key: list[dict], count: int) -> tuple[bytes, list[dict]]:
    """The log and its key, again and again with fresh request ids, at least once and up to `count` lines."""
    pattern = re.compile(b"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
    ids = {record["request_id"].encode() for record in key if pattern.fullmatch((record["request_id"] or "").encode())}
    lines, out_lines, out_key = log.splitlines(keepends=True), [], []
    for turn in range(max(1, math.ceil(count / len(lines)))):
        head = f"{turn:08x}".encode()
        # Fresh by its first eight digits; what looks like an id and is none stays as it is.
        fresh = {old: head + old[8:] for old in ids} if turn else {old: old for old in ids}
        out_lines += [pattern.sub(lambda match: fresh.get(match[0], match[0]), line) for line in lines]
        for record in key:
            old = (record["request_id"] or "").encode()
            out_key.append(record | {"request_id": fresh.get(old, old).decode() or None})
    return b"".join(out_lines), out_key


def identities(records: Iterable[dict]) -> Counter:
    return Counter((r["start_time"], r["request_id"] or "", r["path"] or "", r["response_code"], r["duration"]) for r in records)


def compare(service: str, got: Counter, wanted: Counter) -> None:
    lost, more = wanted - got, got - wanted
    duplicated = sum(count for identity, count in more.items() if identity in wanted)
    print(f"{service}: {got.total()} records, lost {lost.total()}, duplicated {duplicated}, altered {more.total() - duplicated}")
    assert not lost and not more, (service, list(lost)[:3], list(more)[:3])


def access_of(lines: Iterable) -> Iterator[dict]:
    return (record for record in map(json.loads, lines) if record.get("log_type") == "access")


def cloudwatch_records(logs) -> Iterator[dict]:
    token = {}
    while True:
        page = logs.get_log_events(logGroupName=GROUP, logStreamName=STREAM, startFromHead=True, limit=10_000, **token)
        if not page["events"]:
            return
        yield from access_of(event["message"] for event in page["events"])
        token = {"nextToken": page["nextForwardToken"]}


def bucket_objects(s3, bucket: str) -> dict[str, bytes]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    keys = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}


def ask_duckdb(directory: Path, key: list[dict]) -> None:
    columns = "{'start_time': 'VARCHAR', 'method': 'VARCHAR', 'path': 'VARCHAR', 'response_code': 'BIGINT', 'duration': 'BIGINT', "
    columns += "'request_id': 'VARCHAR', 'log_type': 'VARCHAR', 'authority': 'VARCHAR', 'user_agent': 'VARCHAR'}"
    source = f"read_json('{directory}/**/*.gz', format='newline_delimited', columns={columns}, hive_partitioning=true)"
    base = f"from {source} where log_type = 'access'"

    rows = duckdb.sql(f"select start_time, response_code {base} and response_code >= 500 order by start_time desc limit 100").fetchall()
    errors = sorted((r["start_time"] for r in key if r["response_code"] >= 500), reverse=True)[:100]
    assert [row[0] for row in rows] == errors and all(row[1] >= 500 for row in rows), "latest 100 errors"

    rows = duckdb.sql(f"select path, avg(duration), max(duration), count(*) {base} group by path").fetchall()
    by_path: dict = {}
    for record in key:
        by_path.setdefault(record["path"], []).append(record["duration"])
    wanted = {path: (sum(all_of) / len(all_of), max(all_of), len(all_of)) for path, all_of in by_path.items()}
    got = {path: (mean, most, count) for path, mean, most, count in rows}
    assert got.keys() == wanted.keys(), "paths"
    for path, (mean, most, count) in wanted.items():
        assert abs(got[path][0] - mean) < 1e-6 and got[path][1:] == (most, count), f"durations of {path}"

    times = sorted(record["start_time"] for record in key)
    first, last = times[len(times) // 4], times[3 * len(times) // 4]
    everything = f"read_json('{directory}/**/*.gz', format='newline_delimited', union_by_name=true, hive_partitioning=true)"
    audit = duckdb.sql(
        f"select * from {everything} where log_type = 'access' and start_time between '{first}' and '{last}' order by start_time"
    )
    names = set(audit.columns)
    assert {"year", "month", "day", "hour", "request_id", "authority", "user_agent", "bytes_sent"} <= names, names
    assert len(audit.fetchall()) == sum(first <= time <= last for time in times), "audit between two dates"


def main() -> None:
    meshlens, log, key_file = sys.argv[1:]
    server, endpoint = start_moto()
    try:
        environment = {"AWS_ENDPOINT_URL": endpoint, "AWS_REGION": "us-east-1", "AWS_DEFAULT_REGION": "us-east-1"}
        environment |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_EC2_METADATA_DISABLED": "true"}
        os.environ.update(environment)
        s3, firehose, logs = boto3.client("s3"), boto3.client("firehose"), boto3.client("logs")
        for bucket in (BUCKET, "delivered"):
            s3.create_bucket(Bucket=bucket)
        destination = {"RoleARN": "arn:aws:iam::123456789012:role/firehose", "BucketARN": "arn:aws:s3:::delivered"}
        firehose.create_delivery_stream(DeliveryStreamName=DELIVERY, ExtendedS3DestinationConfiguration=destination)
        log, key = repeated(gzip.open(log).read(), answer_key(key_file), RECORDS)
        begun = time.monotonic()
        run = subprocess.run(
            [meshlens, "run", "--input", "-", "--to", f"s3://{BUCKET}/access", "--to", f"cloudwatch:{GROUP}/{STREAM}"]
            + ["--to", f"firehose:{DELIVERY}"],
            input=log,
            stderr=subprocess.PIPE,
            timeout=120 + RECORDS / 1_000,
            check=False,
        )
        seconds = time.monotonic() - begun
        stderr = run.stderr.decode()
        assert run.returncode == 0, stderr
        wanted = identities(key)

        compare("CloudWatch Logs", identities(cloudwatch_records(logs)), wanted)
        delivered = bucket_objects(s3, "delivered").values()
        # Each object of moto's Firehose holds whole records, and each record whole lines.
        compare("Firehose", identities(access_of(line for body in delivered for line in body.splitlines())), wanted)
        objects = bucket_objects(s3, BUCKET)
        lines = (line for body in objects.values() for line in gzip.decompress(body).splitlines())
        compare("S3", identities(access_of(lines)), wanted)
        with tempfile.TemporaryDirectory() as directory:
            for name, body in objects.items():
                path = Path(directory) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)
            ask_duckdb(Path(directory), key)
        print(f"moto and DuckDB: {wanted.total()} access records in each of three services, {len(objects)} S3 objects, "
              f"3 queries agree; delivered in {seconds:.1f} s")
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    main()
