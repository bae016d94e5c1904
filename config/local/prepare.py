"""Makes the bucket and the delivery stream that config/local.toml writes to, in the AWS that AWS_ENDPOINT_URL names."""

import time

import boto3
from botocore.exceptions import BotoCoreError, ClientError

BUCKET, DELIVERY_STREAM, DELIVERY_BUCKET = "meshlens-logs", "meshlens-access", "meshlens-firehose"


def create() -> None:
    s3, firehose = boto3.client("s3"), boto3.client("firehose")
    for bucket in (BUCKET, DELIVERY_BUCKET):
        s3.create_bucket(Bucket=bucket)
    if DELIVERY_STREAM not in firehose.list_delivery_streams()["DeliveryStreamNames"]:
        firehose.create_delivery_stream(
            DeliveryStreamName=DELIVERY_STREAM,
            ExtendedS3DestinationConfiguration={
                "RoleARN": "arn:aws:iam::123456789012:role/firehose",
                "BucketARN": f"arn:aws:s3:::{DELIVERY_BUCKET}",
            },
        )


for attempt in range(60):
    try:
        create()
        print("prepare: bucket and delivery stream are there")
        break
    except (BotoCoreError, ClientError) as error:
        print("prepare: not yet:", type(error).__name__)
        time.sleep(0.5)
else:
    raise SystemExit("prepare: no answer from the AWS endpoint")
