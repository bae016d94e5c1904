"""Looks into the moto of docker-compose.yml until all traffic has arrived in the group, the delivery bucket and the S3 bucket."""

import gzip
import json
import time

import boto3

WANTED = 50
SETTINGS = {
    "endpoint_url": "http://127.0.0.1:5000",
    "region_name": "us-east-1",
    "aws_access_key_id": "test",
    "aws_secret_access_key": "test",
}


def objects(bucket: str) -> list[bytes]:
    s3 = boto3.client("s3", **SETTINGS)
    bodies = []
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
        for entry in page.get("Contents", []):
            body = s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
            bodies.append(gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body)
    return bodies


def events() -> list[bytes]:
    logs = boto3.client("logs", **SETTINGS)
    return [
        event["message"].encode()
        for group in logs.describe_log_groups()["logGroups"]
        for page in logs.get_paginator("filter_log_events").paginate(logGroupName=group["logGroupName"])
        for event in page["events"]
    ]


def traffic(bodies: list[bytes]) -> int:
    raw = b"\n".join(bodies)
    assert b"SECRET" not in raw, "a query string got through"
    records = [json.loads(line) for line in raw.splitlines()]
    return sum(record.get("log_type") == "access" and record.get("user_agent") == "traffic/1.0" for record in records)


deadline = time.monotonic() + 120
found: dict = {}
while time.monotonic() < deadline:
    try:
        found = {
            "CloudWatch Logs": traffic(events()),
            "Firehose": traffic(objects("meshlens-firehose")),
            "S3": traffic(objects("meshlens-logs")),
        }
    except Exception as error:  # moto is starting, the bucket is not there yet
        if isinstance(error, AssertionError):
            raise
        found = {"not yet": type(error).__name__}
    if list(found.values()) == [WANTED] * 3:
        print("compose:", found)
        break
    time.sleep(1)
else:
    raise SystemExit(f"compose: wanted {WANTED} access records in each place, found {found}")
