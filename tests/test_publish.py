"""Sending the hub folder: to a hub on loopback that speaks its protocol, by the real client."""

import base64
import json
import os
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from test_hub import make

from conceptcaps import publish
from conceptcaps.errors import InputError
from conceptcaps.io import read_json

ROOT = Path(__file__).resolve().parent.parent
DRY = publish.Spec(repo="someone/ConceptCaps", private=True, send=False)
PUSH = """
from conceptcaps import publish
from conceptcaps.errors import InputError
spec = publish.Spec(repo="someone/ConceptCaps", private=True, send=True)
try:
    publish.push({folder!r}, spec=spec, report={report!r})
except InputError as error:
    raise SystemExit(f"error: {{error}}")
"""


class Hub(BaseHTTPRequestHandler):
    """Takes what upload_folder sends, as plain files; refuses any token but 'letmein'."""

    def do_GET(self):
        self.answer({"sha": "0" * 40, "id": "someone/ConceptCaps", "siblings": []}, path="GET")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        if self.path.endswith("/repos/create"):
            self.server.created = json.loads(body)
            self.answer({"url": f"{self.server.address}/datasets/someone/ConceptCaps"})
        elif self.path.endswith("/validate-yaml"):
            self.server.card = json.loads(body)
            self.answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in json.loads(body)["files"]
            ]
            self.answer({"files": files})
        elif "/commit/" in self.path:
            for line in map(json.loads, body.splitlines()):
                if line["key"] == "deletedFile":
                    self.server.deleted.append(line["value"]["path"])
                if line["key"] == "file":
                    value = line["value"]
                    self.server.received[value["path"]] = base64.b64decode(value["content"])
            address = f"{self.server.address}/datasets/someone/ConceptCaps/commit/{'1' * 40}"
            self.answer({"commitUrl": address, "commitOid": "1" * 40, "pullRequestUrl": None})
        else:
            self.answer({"error": f"unknown: {self.path}"}, status=404)

    def answer(self, content, *, status=200, path=None):
        if self.headers["Authorization"] != "Bearer letmein":
            content, status = {"error": "Invalid token"}, 401
        if path and "/tree/" in self.path:
            content = [
                {"type": "file", "path": name, "size": 1, "oid": "0" * 40}
                for name in self.server.there
            ]
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.received, server.created = {}, None
    server.there, server.deleted = [], []  # before, and what is taken away
    Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = make(tmp_path_factory.mktemp("push"), 12)[0]
    (folder / ".snakemake_timestamp").touch()  # as Snakemake leaves in every directory it made
    return folder


def contents(folder):
    found = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    found.pop(".snakemake_timestamp")
    return found


def send(folder, report, server, **variables):
    """Push in a process of its own: the client reads its address when it is imported."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("HF_")}
    environment |= {"HF_ENDPOINT": server.address, "HF_HOME": str(report.parent), **variables}
    environment["PYTHONPATH"] = str(ROOT / "workflow/scripts")
    command = [sys.executable, "-c", PUSH.format(folder=str(folder), report=str(report))]
    return subprocess.run(command, env=environment, capture_output=True, text=True)


def test_by_default_it_says_what_it_would_send(folder, tmp_path, capsys):
    publish.push(folder, spec=DRY, report=tmp_path / "push.json")
    said = capsys.readouterr().out
    assert "would send to someone/ConceptCaps (private): " in said
    assert "Nothing was sent" in said
    report = read_json(tmp_path / "push.json")
    assert {entry["file"] for entry in report["files"]} == contents(folder).keys()
    assert all(entry["file"] in said for entry in report["files"])
    assert report["commit"] is None


def test_it_sends_every_file_with_the_token_of_the_environment(folder, tmp_path, server):
    stale = "data/default/train-00000-of-00002.parquet"  # of an earlier, larger build
    server.there = [stale, "README.md"]
    done = send(folder, tmp_path / "push.json", server, HF_TOKEN="letmein")
    assert done.returncode == 0, done.stderr
    assert server.deleted == [stale]
    assert server.received == {name: p.read_bytes() for name, p in contents(folder).items()}
    assert server.created["visibility"] == "private" and server.created["type"] == "dataset"
    commit = read_json(tmp_path / "push.json")["commit"]
    assert commit.endswith("/commit/" + "1" * 40)
    assert "letmein" not in done.stdout + done.stderr + (tmp_path / "push.json").read_text()


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({}, "HF_TOKEN: is not set"),
        ({"HF_TOKEN": "wrong"}, "someone/ConceptCaps: the hub did not take it"),
        ({"HF_TOKEN": "letmein", "HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE: is set"),
    ],
)
def test_what_is_missing_is_named(folder, tmp_path, server, variables, message):
    done = send(folder, tmp_path / "push.json", server, **variables)
    assert done.returncode == 1 and message in done.stderr, done.stderr
    assert "Traceback" not in done.stderr and "wrong" not in done.stderr
    assert not server.received and not (tmp_path / "push.json").exists()


@pytest.mark.parametrize(("repo", "message"), [(None, "is null"), ("a/b/c", r"push\.repo")])
def test_a_bad_repository_is_named(folder, tmp_path, repo, message):
    spec = publish.Spec(repo=repo, private=True, send=True)
    with pytest.raises(InputError, match=message):
        publish.push(folder, spec=spec, report=tmp_path / "push.json")


def test_a_folder_that_is_not_what_its_sums_say_is_not_sent(tmp_path):
    folder, _ = make(tmp_path, 3)
    (folder / "notes.txt").write_text("private")
    with pytest.raises(InputError, match=r"notes\.txt is in only one"):
        publish.push(folder, spec=DRY, report=tmp_path / "push.json")
    (folder / "notes.txt").unlink()
    (folder / "config.yaml").write_text("{}")
    with pytest.raises(InputError, match=r"config\.yaml: its content is not what"):
        publish.push(folder, spec=DRY, report=tmp_path / "push.json")
    (folder / "SHA256SUMS").unlink()
    with pytest.raises(InputError, match="SHA256SUMS: is missing"):
        publish.push(folder, spec=DRY, report=tmp_path / "push.json")
