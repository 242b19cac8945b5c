"""An S3 server on this machine, moto's, in a process of its own."""

import subprocess
import sys
from types import TracebackType
from typing import Any

SERVE = """
import logging, sys
from moto.server import ThreadedMotoServer
logging.getLogger('werkzeug').setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address='127.0.0.1', port=0, verbose=False)
server.start()
print(server.get_host_and_port()[1], flush=True)
sys.stdin.read()
"""


class S3Server:
    """Serves while it is entered, without passing anything on to another server.

    Attributes:
        environment: the variables by which a client finds it.
    """

    def __enter__(self) -> 'S3Server':
        import boto3

        self._process = subprocess.Popen(
            [sys.executable, '-c', SERVE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        port = int(self._process.stdout.readline())
        self.environment = {
            'AWS_ENDPOINT_URL': f'http://127.0.0.1:{port}',
            'AWS_ACCESS_KEY_ID': 'AKIA-of-the-tests',
            'AWS_SECRET_ACCESS_KEY': 'hush-hush-of-the-tests',
            'AWS_DEFAULT_REGION': 'us-east-1',
        }
        self.client: Any = boto3.client(
            's3',
            endpoint_url=self.environment['AWS_ENDPOINT_URL'],
            aws_access_key_id=self.environment['AWS_ACCESS_KEY_ID'],
            aws_secret_access_key=self.environment['AWS_SECRET_ACCESS_KEY'],
            region_name=self.environment['AWS_DEFAULT_REGION'],
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.client.close()
        self._process.stdin.close()
        self._process.stdout.close()
        self._process.wait()

    def names(self, bucket: str, prefix: str = '') -> list[str]:
        """The names of the objects in a bucket that begin so."""
        pages = self.client.get_paginator('list_objects_v2').paginate(Bucket=bucket, Prefix=prefix)
        return [each['Key'] for page in pages for each in page.get('Contents', ())]

    def get(self, bucket: str, name: str) -> bytes:
        """The content of an object."""
        return self.client.get_object(Bucket=bucket, Key=name)['Body'].read()

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Make or replace an object."""
        self.client.put_object(Bucket=bucket, Key=name, Body=content)

    def tree(self, bucket: str, prefix: str = '') -> dict[str, bytes]:
        """The content of the objects below a prefix that ends with `/`, by their names below it."""
        return {name[len(prefix) :]: self.get(bucket, name) for name in self.names(bucket, prefix)}

    def remove(self, bucket: str, prefix: str = '') -> None:
        """Remove the objects in a bucket that begin so."""
        for name in self.names(bucket, prefix):
            self.client.delete_object(Bucket=bucket, Key=name)
