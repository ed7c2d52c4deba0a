"""moto's S3 server on a free port, and a proxy in front of it that counts requests and can fail some of them."""

import threading
from contextlib import contextmanager

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server


class _Quiet(WSGIRequestHandler):
    def log(self, *_):
        pass


class FlakyS3:
    """An S3 service in this process; `fail(method)` says of each request whether it is answered with 503."""

    def __init__(self):
        self.requests = []
        self.fail = lambda method: False
        inner = DomainDispatcherApplication(create_backend_app)

        def application(environ, start_response):
            self.requests.append(environ["REQUEST_METHOD"])
            if self.fail(environ["REQUEST_METHOD"]):
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start_response("503 Slow Down", [("Content-Type", "application/xml")])
                return [b"<Error><Code>SlowDown</Code><Message>reduce your request rate</Message></Error>"]
            return inner(environ, start_response)

        self.server = make_server("127.0.0.1", 0, application, threaded=True, request_handler=_Quiet)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@contextmanager
def s3_service():
    service = FlakyS3()
    thread = threading.Thread(target=service.server.serve_forever, daemon=True)
    thread.start()
    yield service
    service.server.shutdown()
    thread.join()


def environment_of(service, folder):
    return {
        "AWS_ENDPOINT_URL": service.url,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "TALLY_CACHE": str(folder / "cache"),
    }
