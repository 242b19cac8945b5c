"""A ModelScope hub on 127.0.0.1, for ModelScope's real client.

It speaks what the client asks of the hub: model information, revisions, file lists, files with ranges; for data sets
the formation, the file tree, the meta file, access tokens and the zips. It is a proxy too: whatever host is asked
for through it, in the clear or through CONNECT, gets the images it was given, so that a script with a URL in it runs
as printed. Every request is kept in `requests`.

    with Hub() as hub:
        hub.add_model('damo/name', {'configuration.json': b'...', 'pytorch_model.pt': b'...'})
        subprocess.run([...], env={**os.environ, **hub.environment(cache_dir)})
"""

import hashlib
import json
import re
import shutil
import ssl
import subprocess
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

# Old releases of ModelScope have no client package of their own and do not read MODELSCOPE_ENDPOINT. They find this hub
# as a proxy, under the names of the real one.
BY_PROXY = find_spec('modelscope_hub') is None
REAL_NAMES = ('www.modelscope.cn', 'modelscope.cn')
CREATED = 1664582400  # 2022-10-01, when the models were published: older than every release of the client


class Hub:
    """The server and what it holds. `url` is its address once entered."""

    def __init__(self):
        self.models = {}  # id -> {path: bytes}
        self.datasets = {}  # 'namespace/name' -> (formation, {path: bytes})
        self.files = {}  # path of any other URL, whatever the host -> bytes
        self.digests = {}  # path of a model's file -> SHA-256 that its listing tells in place of the right one
        self.tags = ('v1.0.0',)
        self.instead = None  # (status, JSON content) of every answer but those to '/', for a hub that is ill
        self.requests = []  # (method, path with query)
        self._folder = None

    def add_model(self, model_id, files):
        """Serve a model repository: `files` maps paths to their content."""
        self.models[model_id] = dict(files)

    def add_dataset(self, dataset_id, files, formation=2):
        """Serve a data set repository; formation 2 is ModelScope's `native` (a meta file and one zip
        per split), 4 `general` (files that Hugging Face's `datasets` reads, such as parquet)."""
        self.datasets[dataset_id] = (formation, dict(files))

    def add_file(self, path, content):
        """Serve `content` under `path` of every host that is asked for through this server."""
        self.files[path] = content

    def environment(self, cache, proxy=False):
        """Variables that point ModelScope's client here, with its cache in `cache`; `proxy`: everything else too."""
        variables = {'MODELSCOPE_ENDPOINT': self.url, 'MODELSCOPE_CACHE': str(cache), 'no_proxy': '127.0.0.1'}
        if proxy or BY_PROXY:
            certificate = str(self.certificate)
            variables.update(
                http_proxy=self.url,
                https_proxy=self.url,
                HTTP_PROXY=self.url,
                HTTPS_PROXY=self.url,
                SSL_CERT_FILE=certificate,
                REQUESTS_CA_BUNDLE=certificate,
            )
        return variables

    def trust(self, *hosts):
        """Make a certificate for https hosts, so that their URLs can be answered. Needs the `openssl` command."""
        key, self.certificate = Path(self._folder) / 'key.pem', Path(self._folder) / 'certificate.pem'
        names = ','.join(f'DNS:{host}' for host in dict.fromkeys((*hosts, *(REAL_NAMES if BY_PROXY else ()))))
        subprocess.run(
            [
                'openssl',
                'req',
                '-x509',
                '-newkey',
                'ec',
                '-pkeyopt',
                'ec_paramgen_curve:prime256v1',
                '-nodes',
                '-days',
                '2',
                '-subj',
                '/CN=loopback hub',
                '-addext',
                f'subjectAltName={names}',
                '-keyout',
                str(key),
                '-out',
                str(self.certificate),
            ],
            check=True,
            capture_output=True,
        )
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.tls.load_cert_chain(self.certificate, key)

    def asked(self, pattern):
        """Return the requests whose 'METHOD path' matches a regular expression."""
        return [f'{method} {path}' for method, path in self.requests if re.search(pattern, f'{method} {path}')]

    def __enter__(self):
        self._folder = tempfile.mkdtemp(prefix='hub-')
        handler = type('Handler', (_Handler,), {'hub': self})
        self._server = ThreadingHTTPServer(('127.0.0.1', 0), handler)
        self._server.daemon_threads = True
        self.url = f'http://127.0.0.1:{self._server.server_port}'
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()
        if BY_PROXY:
            self.trust()
        return self

    def stop(self):
        """Go off the network: the port refuses connections from now on."""
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._thread.join()
            self._server = None

    def __exit__(self, *error):
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'
    hub = None

    def log_message(self, *args):
        pass

    def do_CONNECT(self):  # noqa: N802 the standard library's name
        self.hub.requests.append(('CONNECT', self.path))
        self.send_response(200)
        self.end_headers()
        self.connection = self.hub.tls.wrap_socket(self.connection, server_side=True)
        self.rfile = self.connection.makefile('rb', -1)
        self.wfile = self.connection.makefile('wb', 0)
        self.close_connection = False

    def do_HEAD(self):  # noqa: N802
        self._answer(body=False)

    def do_GET(self):  # noqa: N802
        self._answer()

    def do_POST(self):  # noqa: N802
        self.rfile.read(int(self.headers.get('Content-Length') or 0))
        self._answer()

    def _answer(self, body=True):
        parts = urlsplit(self.path)
        self.hub.requests.append((self.command, parts.path + ('?' + parts.query if parts.query else '')))
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        found = self._find(unquote(parts.path), query)
        if self.hub.instead and parts.path != '/':
            self._send(self.hub.instead[0], self.hub.instead[1], 'application/json', body)
        elif found is None:
            self._send(
                404,
                json.dumps({'Code': 10010205001, 'Message': f'not found: {self.path}', 'Success': False}).encode(),
                'application/json',
                body,
            )
        elif isinstance(found, bytes):
            self._send_ranges(found, body)
        else:
            self._send(200, json.dumps(found).encode(), 'application/json', body)

    def _find(self, path, query):
        if path == '/':
            return b'hub'
        if path in self.hub.files:
            return self.hub.files[path]
        model = re.fullmatch(r'/(?:openapi|api)/v1/models/([^/]+/[^/]+)(/.*)?', path)
        if model and model[1] in self.hub.models:
            return self._model(model[1], model[2] or '', query, path.startswith('/openapi'))
        dataset = re.fullmatch(r'/(?:openapi|api)/v1/datasets/(.+)', path)
        if dataset and path.startswith('/api'):
            return self._dataset(dataset[1], query)
        if path.startswith('/api/v1/repos/'):
            return _ok({})
        return None

    def _model(self, model_id, what, query, open_api):
        owner, name = model_id.split('/')
        files = self.hub.models[model_id]
        if not what and open_api:
            return {'success': True, 'data': {'id': model_id, 'owner': owner, 'name': name, 'visibility': 'public'}}
        if not what:
            return _ok({'Id': 1, 'Name': name, 'Path': owner, 'Owner': owner, 'Visibility': 5})
        if what == '/revisions':
            return _ok(
                {
                    'RevisionMap': {
                        'Branches': [{'Revision': 'master', 'CreatedAt': CREATED}],
                        'Tags': [{'Revision': tag, 'CreatedAt': CREATED} for tag in self.hub.tags],
                    }
                }
            )
        if what == '/repo/files':
            return _ok({'Files': _listing(files, self.hub.digests)})
        if what == '/repo':
            return files.get(query.get('FilePath'))
        return None

    def _dataset(self, rest, query):
        for number, (dataset_id, (formation, files)) in enumerate(self.hub.datasets.items(), 1):
            by_number = rest.startswith(f'{number}/')
            what = rest[len(str(number)) :] if by_number else rest[len(dataset_id) :]
            if not by_number and not rest.startswith(dataset_id):
                continue
            if what == '':
                return _ok({'Id': number, 'Type': formation, 'Name': dataset_id.split('/')[1], 'Visibility': 5})
            if what == '/repo/tree':
                tree = _tree(files, query.get('Root', '').strip('/'), query.get('Recursive') == 'True')
                return _ok({'Files': tree if query.get('PageNumber', '1') == '1' else [], 'TotalCount': len(tree)})
            if what == '/repo':
                return files.get(query.get('FilePath'))
            if what == '/ststoken':
                return _ok(
                    {
                        'AccessId': 'id',
                        'AccessSecret': 'secret',
                        'SecurityToken': 'token',
                        'Bucket': 'bucket',
                        'Dir': 'dir',
                        'BackupDir': 'backup',
                        'Region': 'oss-cn-hangzhou',
                    }
                )
            if what.rstrip('/') == '/oss/tree':
                return _ok([])
            if what == '/download/increase':
                return _ok({})
        return None

    def _send_ranges(self, content, body):
        wanted = re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('Range') or '')
        if not wanted:
            self._send(200, content, 'application/octet-stream', body)
            return
        start, end = int(wanted[1]), min(int(wanted[2] or len(content)), len(content) - 1)
        if start > end:
            self._send(416, b'', 'application/octet-stream', body, {'Content-Range': f'bytes */{len(content)}'})
            return
        self._send(
            206,
            content[start : end + 1],
            'application/octet-stream',
            body,
            {'Content-Range': f'bytes {start}-{end}/{len(content)}'},
        )

    def _send(self, status, content, kind, body, headers=None):
        self.send_response(status)
        for key, value in {
            'Content-Type': kind,
            'Content-Length': str(len(content)),
            'Accept-Ranges': 'bytes',
            **(headers or {}),
        }.items():
            self.send_header(key, value)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _ok(data):
    return {'Code': 200, 'Success': True, 'Message': 'success', 'Data': data}


def _tree(files, root, recursive):
    """What lies below a folder of a repository: its files and folders, `recursive`: those in the folders too."""
    below = {path: content for path, content in files.items() if not root or path.startswith(f'{root}/')}
    folders = {
        str(folder): b''
        for path in below
        for folder in Path(path).parents
        if str(folder) not in ('.', root) and (not root or str(folder).startswith(f'{root}/'))
    }
    listed = _listing(below) + [{**entry, 'Type': 'tree'} for entry in _listing(folders)]
    return [entry for entry in listed if recursive or str(Path(entry['Path']).parent) == (root or '.')]


def _listing(files, digests=None):
    return [
        {
            'Id': hashlib.sha1(path.encode() + content).hexdigest(),
            'Name': Path(path).name,
            'Path': path,
            'Type': 'blob',
            'Size': len(content),
            'Revision': 'master',
            'Sha256': (digests or {}).get(path, hashlib.sha256(content).hexdigest()),
            'CommittedDate': CREATED,
        }
        for path, content in files.items()
    ]
