"""moto as a second opinion on the AWS side, and DuckDB as the Athena that reads what S3 holds.

A real Envoy log goes through meshlens into moto's CloudWatch Logs, Firehose and S3. What arrived is compared with Envoy's own
answer key; then the three questions that users of access logs start with are asked of the S3 objects.

    moto.py MESHLENS_BINARY LOG.gz KEY.jsonl.gz
"""

import gzip
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import boto3
import duckdb

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


def identities(records: list[dict]) -> list[tuple]:
    return sorted((r["start_time"], r["request_id"] or "", r["path"] or "", r["response_code"]) for r in records)


def access_of(lines) -> list[dict]:
    return [record for record in map(json.loads, lines) if record.get("log_type") == "access"]


def cloudwatch_records(logs) -> list[dict]:
    events, token = [], {}
    while True:
        page = logs.get_log_events(logGroupName=GROUP, logStreamName=STREAM, startFromHead=True, **token)
        if not page["events"]:
            return access_of(event["message"] for event in events)
        events += page["events"]
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
        run = subprocess.run(
            [meshlens, "run", "--input", "-", "--to", f"s3://{BUCKET}/access", "--to", f"cloudwatch:{GROUP}/{STREAM}"]
            + ["--to", f"firehose:{DELIVERY}"],
            input=gzip.open(log).read(),
            stderr=subprocess.PIPE,
            timeout=120,
            check=False,
        )
        stderr = run.stderr.decode()
        assert run.returncode == 0, stderr
        key = answer_key(key_file)
        wanted = identities(key)

        assert identities(cloudwatch_records(logs)) == wanted, "CloudWatch Logs"
        delivered = b"".join(bucket_objects(s3, "delivered").values())
        assert identities(access_of(delivered.splitlines())) == wanted, "Firehose"
        objects = bucket_objects(s3, BUCKET)
        lines = [line for body in objects.values() for line in gzip.decompress(body).splitlines()]
        assert identities(access_of(lines)) == wanted, "S3"
        with tempfile.TemporaryDirectory() as directory:
            for name, body in objects.items():
                path = Path(directory) / name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(body)
            ask_duckdb(Path(directory), key)
        print(f"moto and DuckDB: {len(wanted)} access records in each of three services, {len(objects)} S3 objects, 3 queries agree")
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    main()
