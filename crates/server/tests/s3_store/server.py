"""An S3 store on loopback: moto's, behind a check of every signature and body hash by botocore, over what was really sent
(moto's own check decodes addresses first and refuses even botocore where a name has a slash in a query or a plus).

Says where and who as one line of JSON, and then answers lines until its input ends: `list`, or `head KEY`, as another
client sees it; `hold NAME` lets nobody put a file of this name, `held` waits for somebody who tries, `go` lets them."""
import hashlib
import io
import json
import os
import sys
import threading

os.environ["AWS_EC2_METADATA_DISABLED"] = "true"

import boto3
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

REGION, BUCKET = "eu-test-1", "toci-logs"
KEY, SECRET = "AKIATOCITEST", "secret/of+the=tests"


class Hold:
    """Who puts a file of this name waits."""

    def __init__(self):
        self.name = None
        self.reached = threading.Event()
        self.gate = threading.Event()

    def begin(self, name):
        self.reached.clear()
        self.gate.clear()
        self.name = name

    def end(self):
        self.name = None
        self.gate.set()

    def meets(self, environ):
        name = environ["PATH_INFO"].rpartition("/")[2]
        if environ["REQUEST_METHOD"] == "PUT" and name == self.name:
            self.reached.set()
            self.gate.wait()


hold = Hold()


class Checked:
    """The application behind the check."""

    def __init__(self, application):
        self.application = application

    def __call__(self, environ, start_response):
        why = self.wrong(environ)
        if why is None:
            hold.meets(environ)
            return self.application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "application/xml")])
        return [f"<Error><Code>{why}</Code></Error>".encode()]

    def wrong(self, environ):
        given = environ.get("HTTP_AUTHORIZATION", "")
        scheme, _, rest = given.partition(" ")
        fields = dict(part.strip().split("=", 1) for part in rest.split(",") if "=" in part)
        if scheme != "AWS4-HMAC-SHA256":
            return "AccessDenied"
        length = int(environ.get("CONTENT_LENGTH") or 0)
        body = environ["wsgi.input"].read(length)
        environ["wsgi.input"] = io.BytesIO(body)
        headers = {}
        for name in fields["SignedHeaders"].split(";"):
            variable = name.upper().replace("-", "_")
            value = environ.get("HTTP_" + variable, environ.get(variable))
            headers[name] = value
        told = headers.get("x-amz-content-sha256", "")
        is_hash = len(told) == 64
        if is_hash and hashlib.sha256(body).hexdigest() != told:
            return "XAmzContentSHA256Mismatch"
        url = f"http://{environ['HTTP_HOST']}{environ['RAW_URI']}"
        request = AWSRequest(method=environ["REQUEST_METHOD"], url=url, headers=headers)
        request.context["timestamp"] = headers["x-amz-date"]
        auth = S3SigV4Auth(Credentials(KEY, SECRET), "s3", REGION)
        text = auth.string_to_sign(request, auth.canonical_request(request))
        if auth.signature(text, request) != fields["Signature"]:
            return "SignatureDoesNotMatch"
        if not fields["Credential"].startswith(f"{KEY}/{headers['x-amz-date'][:8]}/{REGION}/s3/"):
            return "InvalidAccessKeyId"
        return None


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log(self, *_):
        pass


application = Checked(DomainDispatcherApplication(create_backend_app))
server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=Quiet)
threading.Thread(target=server.serve_forever, daemon=True).start()
endpoint = f"http://127.0.0.1:{server.server_port}"
s3 = boto3.client(
    "s3",
    endpoint_url=endpoint,
    region_name=REGION,
    aws_access_key_id=KEY,
    aws_secret_access_key=SECRET,
)
s3.create_bucket(Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION})


def say(what):
    print(json.dumps(what), flush=True)


say({"endpoint": endpoint, "key": KEY, "secret": SECRET})
for line in sys.stdin:
    word, _, rest = line.rstrip("\n").partition(" ")
    if word == "list":
        pages = s3.get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
        keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
        parts = s3.list_multipart_uploads(Bucket=BUCKET).get("Uploads", [])
        say({"keys": keys, "unfinished": len(parts)})
    elif word == "head":
        head = s3.head_object(Bucket=BUCKET, Key=rest)
        say({
            "type": head["ContentType"],
            "encoding": head.get("ContentEncoding", ""),
            "bytes": head["ContentLength"],
            "tag": head["ETag"],
        })
    elif word == "hold":
        hold.begin(rest)
        say({})
    elif word == "held":
        say({"held": hold.reached.wait(20)})
    elif word == "go":
        hold.end()
        say({})
