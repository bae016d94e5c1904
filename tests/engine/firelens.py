"""The image in the place of the FireLens router, under a real engine: what the ECS agent does, with docker instead of the agent.

A network namespace of the task (`awsvpc`), moto in it as AWS, the router with the generated configuration and the socket directory
mounted, applications with the fluentd log driver and exactly the options that the agent sets. Router first, then the
applications, then these end, then the router gets SIGTERM. Every line has to arrive, byte for byte, and the router has to end
with 0 and a whole account.
"""

import gzip
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import boto3

IMAGE = sys.argv[1] if len(sys.argv) > 1 else "meshlens"
MOTO = "motoserver/moto:5.2.5"
TASK = "0123456789abcdef0123456789abcdef"
PREFIX = "meshlens-firelens-"
BUCKET, STREAM, DELIVERY_BUCKET = "logs", "access", "delivered"
ARN = f"arn:aws:ecs:us-east-1:123456789012:task/production/{TASK}"
# As task definitions write them. The last is what a user of the image that is replaced may have.
HEALTH_CHECKS = [
    "echo '{\"health\": \"check\"}' | nc 127.0.0.1 8877 || exit 1",
    "curl -f http://127.0.0.1:2020/api/v1/health || exit 1",
    "curl -f http://127.0.0.1:2020/api/v1/uptime || exit 1",
    "curl -s http://127.0.0.1:2020/api/v1/metrics/prometheus | grep fluentbit || exit 1",
    "nc -z 127.0.0.1 24224",
    "/fluent-bit/bin/fluent-bit --version | grep -i v",
]
GENERATED = """
[INPUT]
    Name forward
    Mem_Buf_Limit 25MB
    unix_path /var/run/fluent.sock

[INPUT]
    Name forward
    Listen 127.0.0.1
    Port 24224

[INPUT]
    Name tcp
    Tag firelens-healthcheck
    Listen 127.0.0.1
    Port 8877

[FILTER]
    Name   grep
    Match noisy-firelens*
    Exclude log ^(?=.*ELB-HealthChecker\\/2\\.0).*$

[FILTER]
    Name record_modifier
    Match *
    Record ecs_cluster production
    Record ecs_task_arn {arn}
    Record ecs_task_definition web:7

@INCLUDE /fluent-bit/configs/output-metrics-healthcheck.conf

[OUTPUT]
    Name null
    Match firelens-healthcheck

{outputs}
"""
LOGS = "    Name cloudwatch_logs\n    Match {name}-firelens*\n    auto_create_group true\n    log_group_name {name}\n    log_stream_prefix ecs-\n    region us-east-1\n"
S3 = f"    Name s3\n    Match {{name}}-firelens*\n    bucket {BUCKET}\n    region us-east-1\n    s3_key_format /$TAG/%Y/%m/%d/%H-%M-%S-$UUID\n    total_file_size 1M\n    upload_timeout 1m\n    use_put_object On\n"
FIREHOSE = f"    Name kinesis_firehose\n    Match {{name}}-firelens*\n    delivery_stream {STREAM}\n    region us-east-1\n"


def docker(*arguments: str, check: bool = True, capture: bool = True) -> str:
    done = subprocess.run(["docker", *arguments], capture_output=capture, check=False)
    if check and done.returncode:
        raise SystemExit(f"docker {' '.join(arguments)}: {done.stderr.decode(errors='replace')}")
    return (done.stdout + done.stderr).decode(errors="replace").strip() if capture else ""


class Task:
    """A task: its namespace, moto, its directory on the host."""

    def __init__(self, outputs: dict[str, str], user: str, read_only: bool) -> None:
        self.containers: list[str] = []
        self.user, self.read_only = user, read_only
        # Short: the path of a unix socket has at most 107 bytes.
        self.directory = pathlib.Path(tempfile.mkdtemp(prefix="firelens-", dir="/tmp"))
        self.socket = self.directory / "socket"
        self.socket.mkdir()
        self.directory.chmod(0o755)
        if user:
            owner, group = (int(part) for part in user.split(":"))
            shutil.os.chown(self.socket, owner, group)
        sections = "\n".join("[OUTPUT]\n" + text.format(name=name) for name, text in outputs.items())
        config = self.directory / "fluent.conf"
        config.write_text(GENERATED.format(arn=ARN, outputs=sections))
        config.chmod(0o644)
        self.start("pause", "--entrypoint", "sleep", IMAGE, "3600")
        self.start("moto", "--network", self.namespace(), MOTO, "-p", "5000")
        address = docker("inspect", "-f", "{{.NetworkSettings.IPAddress}}", PREFIX + "pause")
        settings = {
            "endpoint_url": f"http://{address}:5000",
            "region_name": "us-east-1",
            "aws_access_key_id": "test",
            "aws_secret_access_key": "test",
        }
        self.logs, self.s3, self.firehose = (boto3.client(name, **settings) for name in ("logs", "s3", "firehose"))
        deadline = time.monotonic() + 60
        while True:
            try:
                for bucket in (BUCKET, DELIVERY_BUCKET):
                    self.s3.create_bucket(Bucket=bucket)
                break
            except Exception:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.3)
        destination = {"RoleARN": "arn:aws:iam::123456789012:role/firehose", "BucketARN": f"arn:aws:s3:::{DELIVERY_BUCKET}"}
        self.firehose.create_delivery_stream(DeliveryStreamName=STREAM, ExtendedS3DestinationConfiguration=destination)

    def namespace(self) -> str:
        return f"container:{PREFIX}pause"

    def start(self, name: str, *arguments: str) -> None:
        docker("rm", "-f", PREFIX + name, check=False)
        self.containers.append(name)
        docker("run", "-d", "--name", PREFIX + name, *arguments)

    def router(self) -> None:
        """The mounts, the user and the environment of the agent."""
        options = ["--network", self.namespace()]
        options += ["-v", f"{self.directory}/fluent.conf:/fluent-bit/etc/fluent-bit.conf", "-v", f"{self.socket}/:/var/run/"]
        options += ["--user", self.user] if self.user else []
        options += ["--read-only"] if self.read_only else []
        environment = {
            "AWS_ENDPOINT_URL": "http://127.0.0.1:5000",
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        for key, value in environment.items():
            options += ["-e", f"{key}={value}"]
        self.start("router", *options, IMAGE)

    def app(self, name: str, script: str, wait: bool = False, kind: str = "") -> None:
        """An application with driver awsfirelens; `kind` is the container's name in the task definition."""
        options = ["--log-driver", "fluentd", "--network", self.namespace()]
        settings = {
            "tag": f"{kind or name}-firelens-{TASK}",
            "fluentd-address": f"unix://{self.socket}/fluent.sock",
            "fluentd-sub-second-precision": "true",
            "fluentd-async": "true",
        }
        for key, value in settings.items():
            options += ["--log-opt", f"{key}={value}"]
        self.start(name, *options, "-e", "FLUENT_HOST=127.0.0.1", "-e", "FLUENT_PORT=24224", "--entrypoint", "sh", IMAGE, "-c", script)
        if wait:
            docker("wait", PREFIX + name)

    def stop_router(self) -> tuple[int, str]:
        begin = time.monotonic()
        docker("stop", "-t", "30", PREFIX + "router")
        print(f"  router: ended {time.monotonic() - begin:.1f} s after SIGTERM")
        code = int(docker("inspect", "-f", "{{.State.ExitCode}}", PREFIX + "router"))
        return code, docker("logs", PREFIX + "router")

    def events(self, group: str) -> dict[str, list[str]]:
        """Messages of a log group by stream."""
        streams: dict[str, list[str]] = {}
        pages = self.logs.get_paginator("filter_log_events").paginate(logGroupName=group)
        for event in (event for page in pages for event in page["events"]):
            streams.setdefault(event["logStreamName"], []).append(event["message"])
        return streams

    def objects(self, bucket: str) -> dict[str, list[str]]:
        """Lines of a bucket by key."""
        found = {}
        for page in self.s3.get_paginator("list_objects_v2").paginate(Bucket=bucket):
            for entry in page.get("Contents", []):
                body = self.s3.get_object(Bucket=bucket, Key=entry["Key"])["Body"].read()
                found[entry["Key"]] = (gzip.decompress(body) if body[:2] == b"\x1f\x8b" else body).decode().splitlines()
        return found

    def end(self) -> None:
        for name in reversed(self.containers):
            docker("rm", "-f", "-v", PREFIX + name, check=False)
        shutil.rmtree(self.directory, ignore_errors=True)


def texts(messages: list[str], source: str = "") -> list[str]:
    records = [json.loads(message) for message in messages]
    for record in records:
        assert record["ecs_task_arn"] == ARN and record["ecs_task_definition"] == "web:7", record
        assert set(record) - {"date"} >= {"container_id", "container_name", "source", "log"}, record
    return [record["log"] for record in records if not source or record["source"] == source]


def same(what: str, got: list[str], wanted: list[str]) -> None:
    if sorted(got) != sorted(wanted):
        missing = [line[:80] for line in wanted if line not in got]
        more = [line[:80] for line in got if line not in wanted]
        raise AssertionError(f"{what}: {len(got)} of {len(wanted)} lines; missing {missing[:5]}, unknown {more[:5]}")
    print(f"  {what}: {len(got)} lines")


def drop_in(user: str, read_only: bool) -> None:
    print(f"-- user {user or 'root'}, {'read-only' if read_only else 'writable'} root file system")
    task = Task({"early": LOGS, "app": LOGS, "short": S3, "noisy": FIREHOSE}, user, read_only)
    try:
        # Lines written before the socket exists. The driver dials again 1, 2, 4 and 7 s after the first line.
        task.app("early", "i=0; while [ $i -lt 5 ]; do echo early $i; i=$((i+1)); done; sleep 12; echo early late")
        time.sleep(1)
        begin = time.monotonic()
        task.router()
        while not (task.socket / "fluent.sock").exists():
            assert time.monotonic() - begin < 20, "no socket:\n" + docker("logs", PREFIX + "router", check=False)
            time.sleep(0.01)
        print(f"  router: socket {time.monotonic() - begin:.2f} s after docker run began")

        lines = 'i=0; while [ $i -lt 300 ]; do echo "out $i"; echo "err $i" >&2; i=$((i+1)); done; echo; '
        # 16 KiB and more, bytes that are not UTF-8, characters across the cut. No last line without its end: the driver sends that
        # when the container is gone, and discards what is queued then.
        lines += "head -c 16384 /dev/zero | tr '\\0' x; echo; head -c 40000 /dev/zero | tr '\\0' y; echo; "
        lines += "{ head -c 16383 /dev/zero | tr '\\0' z; printf '\\303\\251\\n'; }; printf 'bad \\377\\376 end\\n'; sleep 3"
        task.app("app", lines)
        task.app("noisy", "echo 'GET / curl'; echo 'GET / ELB-HealthChecker/2.0'; echo done; sleep 2")
        for index in range(10):
            task.app(f"short-{index}", f"echo short {index}; usleep 100000", wait=True, kind="short")

        for command in HEALTH_CHECKS:
            done = subprocess.run(["docker", "exec", PREFIX + "router", "sh", "-c", command], capture_output=True, timeout=10, check=False)
            assert done.returncode == 0, f"health check {command}: {done.returncode} {done.stdout!r} {done.stderr!r}"
        done = subprocess.run(["docker", "exec", PREFIX + "router", "sh", "-c", "curl -sf http://127.0.0.1:2021/ || exit 1"], check=False)
        assert done.returncode == 1, "a check of a port where nobody listens has to fail"
        print(f"  health checks: {len(HEALTH_CHECKS)}")
        identity = docker("exec", PREFIX + "router", "sh", "-c", "id -u; cat /proc/1/comm")
        print(f"  router: uid and process 1: {identity.split()}")

        # ECS ends the applications first, and then, with the runtime's rest still coming, the router.
        for name in ("early", "app", "noisy"):
            docker("wait", PREFIX + name)
        code, log = task.stop_router()
        account = [line for line in log.splitlines() if "account:" in line]
        assert code == 0, f"the router ended with {code}:\n{log[-3000:]}"
        assert account and "dropped=0" in account[-1] and "pending=0" in account[-1], f"{account}\n{log[-3000:]}"

        [(stream, messages)] = task.events("early").items()
        assert stream == f"ecs-early-firelens-{TASK}", stream
        same("before the socket existed", texts(messages), [f"early {i}" for i in range(5)] + ["early late"])
        [(stream, messages)] = task.events("app").items()
        out = [f"out {i}" for i in range(300)] + ["", "x" * 16384, "y" * 40000, "z" * 16383 + "é"]
        got = texts(messages, "stdout")
        bad = [line for line in got if line.startswith("bad ")]
        assert len(bad) == 1 and bad[0].endswith(" end"), bad
        same("stdout", [line for line in got if line not in bad], out)
        same("stderr", texts(messages, "stderr"), [f"err {i}" for i in range(300)])
        objects = task.objects(BUCKET)
        assert all(key.startswith(f"short-firelens-{TASK}/20") for key in objects), list(objects)
        same("containers of 100 ms", texts(sum(objects.values(), [])), [f"short {i}" for i in range(10)])
        same("grep", texts(sum(task.objects(DELIVERY_BUCKET).values(), [])), ["GET / curl", "done"])
    except BaseException:
        print(docker("logs", PREFIX + "router", check=False)[-4000:])
        raise
    finally:
        task.end()


def bare_image() -> None:
    """What can be seen without a task."""
    run = lambda *arguments: docker("run", "--rm", *arguments)
    for user in ("", "65532:65532"):
        options = ["--read-only", "--network", "none"] + (["--user", user] if user else [])
        assert "meshlens" in run(*options, IMAGE, "--version")
        assert "meshlens" in run(*options, IMAGE, "/fluent-bit/bin/fluent-bit", "--version")
        assert "meshlens" in run(*options, "--entrypoint", "/fluent-bit/bin/fluent-bit", IMAGE, "-V")
        assert run(*options, IMAGE, "sh", "-c", "echo hello") == "hello"
        assert run(*options, IMAGE, "bash", "-c", "echo hello") == "hello"
        assert "valid" in run(*options, IMAGE, "check", "--config", "/etc/meshlens/service-connect.toml")
    names = "/init/fluent_bit_init_entrypoint.sh /fluent-bit/parsers/parsers.conf /fluent-bit/configs/parse-json.conf /ecs/s3.conf"
    run(IMAGE, "sh", "-c", " && ".join(f"test -e {name}" for name in names.split()))
    unknown = subprocess.run(["docker", "run", "--rm", IMAGE, "/fluent-bit/bin/fluent-bit", "--no-such"], capture_output=True, check=False)
    assert unknown.returncode == 2 and b"--no-such" in unknown.stderr, unknown
    print("bare image: names, shell, users, read-only")


if __name__ == "__main__":
    bare_image()
    if "--bare" not in sys.argv:
        drop_in("", read_only=False)
        drop_in("65532:65532", read_only=True)
        print("firelens drop-in passed")
