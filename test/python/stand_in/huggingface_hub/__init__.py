"""
Stands in for the real `huggingface_hub` where that cannot be installed: as much of it as the tests call, written from
the layout of the cache. It proves that the tests run and can fail, and nothing about the real library.
"""

import hashlib
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from base64 import urlsafe_b64encode
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

__version__ = "1.0.0+stand.in"
_CACHED_NO_EXIST = object()
_ENDPOINT = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
_LINKS = os.environ.get("HF_HUB_DISABLE_SYMLINKS") != "1"
_TAG = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# This file is a cache directory tag created by huggingface_hub.\n"
    "# For information about cache directory tags, see:\n"
    "#\thttps://bford.info/cachedir/\n"
)


class LocalEntryNotFoundError(Exception):
    pass


class EntryNotFoundError(Exception):
    pass


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_):
        return None


def _open(method, url):
    request = urllib.request.Request(url, method=method, headers={"Accept-Encoding": "identity"})
    try:
        return urllib.request.build_opener(_NoRedirect, urllib.request.ProxyHandler({})).open(request)
    except urllib.error.HTTPError as answer:
        return answer


def _prefix(repo_type):
    return "" if repo_type == "model" else f"{repo_type}s/"


def _metadata(repo_id, repo_type, revision, filename):
    path = urllib.parse.quote(filename)
    revision = urllib.parse.quote(revision, safe="")
    url = f"{_ENDPOINT}/{_prefix(repo_type)}{repo_id}/resolve/{revision}/{path}"
    commit = None
    while True:
        with _open("HEAD", url) as answer:
            headers = answer.headers
            commit = commit or headers.get("X-Repo-Commit")
            if headers.get("X-Error-Code") == "EntryNotFound":
                return commit, None, None, url
            location = headers.get("Location")
            if location and not urllib.parse.urlparse(location).netloc:
                url = urllib.parse.urljoin(url, location)
                continue
            etag = (headers.get("X-Linked-ETag") or headers["ETag"]).removeprefix("W/").strip('"')
            size = int(headers.get("X-Linked-Size") or headers["Content-Length"])
            return commit, etag, size, location or url


def _fetch(url, path, size):
    with _open("GET", url) as answer, open(path, "wb") as file:
        shutil.copyfileobj(answer, file)
    if os.path.getsize(path) != size:
        raise OSError("the body ended early")


def _write(path, text):
    if path.is_file() and path.read_text() == text:
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.write_text(text)
    os.replace(temporary, path)


@contextmanager
def _lock(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path):
        path.chmod(0o664)
        yield


def _repo_folder(cache_dir, repo_id, repo_type):
    return Path(cache_dir) / "--".join([f"{repo_type}s", *repo_id.split("/")])


def _is_commit(revision):
    return re.fullmatch("[0-9a-f]{40}", revision) is not None


def _known_commit(folder, revision):
    if _is_commit(revision):
        return revision
    ref = folder / "refs" / revision
    return ref.read_text() if ref.is_file() else None


def hf_hub_download(
    repo_id, filename, *, repo_type="model", revision="main", cache_dir=None, local_dir=None, local_files_only=False
):
    if local_dir is not None:
        return _to_local_dir(repo_id, filename, repo_type, revision, Path(local_dir), local_files_only)
    folder = _repo_folder(cache_dir, repo_id, repo_type)
    known = _known_commit(folder, revision)
    if known is not None and (local_files_only or _is_commit(revision)):
        entry = folder / "snapshots" / known / filename
        if entry.exists():
            return str(entry)
    if local_files_only:
        raise LocalEntryNotFoundError(filename)
    commit, etag, size, url = _metadata(repo_id, repo_type, revision, filename)
    if etag is None:
        marker = folder / ".no_exist" / commit / filename
        marker.parent.mkdir(parents=True, exist_ok=True)
        marker.touch()
        raise EntryNotFoundError(filename)
    blob = folder / "blobs" / etag
    entry = folder / "snapshots" / commit / filename
    for parent in (blob.parent, entry.parent):
        parent.mkdir(parents=True, exist_ok=True)
    if not (folder.parent / "CACHEDIR.TAG").exists():
        (folder.parent / "CACHEDIR.TAG").write_text(_TAG)
    if revision != commit:
        _write(folder / "refs" / revision, commit)
    with _lock(folder.parent / ".locks" / folder.name / f"{etag}.lock"):
        if entry.exists():
            return str(entry)
        is_new = not blob.exists()
        if is_new:
            temporary = blob.with_name(f"{etag}.{uuid.uuid4().hex[:8]}.incomplete")
            _fetch(url, temporary, size)
            os.replace(temporary, blob)
        if _LINKS:
            os.symlink(os.path.relpath(blob, entry.parent), entry)
        elif is_new:
            os.replace(blob, entry)
        else:
            shutil.copyfile(blob, entry)
    return str(entry)


def _to_local_dir(repo_id, filename, repo_type, revision, folder, local_files_only):
    path = folder / filename
    notes = folder / ".cache" / "huggingface"
    metadata = notes / "download" / f"{filename}.metadata"
    known = metadata.read_text().split("\n") if metadata.is_file() else None
    if known is not None and path.stat().st_mtime - 1 > float(known[2]):
        known = None
    if path.is_file() and (local_files_only or (known is not None and known[0] == revision)):
        return str(path)
    if local_files_only:
        raise LocalEntryNotFoundError(filename)
    commit, etag, size, url = _metadata(repo_id, repo_type, revision, filename)
    for parent in (path.parent, metadata.parent):
        parent.mkdir(parents=True, exist_ok=True)
    (notes / ".gitignore").write_text("*")
    (notes / "CACHEDIR.TAG").write_text(_TAG)
    with _lock(notes / "download" / f"{filename}.lock"):
        if known is None or known[1] != etag or not path.is_file():
            name = urlsafe_b64encode(hashlib.sha1(metadata.name.encode()).digest()).decode()
            temporary = metadata.with_name(f"{name}.{etag}.{uuid.uuid4().hex[:8]}.incomplete")
            _fetch(url, temporary, size)
            os.replace(temporary, path)
        metadata.write_text(f"{commit}\n{etag}\n{time.time()}\n")
    return str(path)


def snapshot_download(repo_id, *, repo_type="model", revision="main", cache_dir=None, local_files_only=False):
    folder = _repo_folder(cache_dir, repo_id, repo_type)
    if local_files_only:
        commit = _known_commit(folder, revision)
        snapshot = commit and folder / "snapshots" / commit
        if not snapshot or not snapshot.is_dir():
            raise LocalEntryNotFoundError(repo_id)
        return str(snapshot)
    api = f"{_ENDPOINT}/api/{repo_type}s/{repo_id}"
    with _open("GET", f"{api}/revision/{urllib.parse.quote(revision, safe='')}") as answer:
        commit = json.load(answer)["sha"]
    with _open("GET", f"{api}/tree/{commit}?recursive=true") as answer:
        files = {entry["path"]: _tree_entry(entry) for entry in json.load(answer) if entry["type"] == "file"}
    tree = folder / "trees" / f"{commit}.json"
    tree.parent.mkdir(parents=True, exist_ok=True)
    tree.write_text(json.dumps({"format_version": 1, "files": files}))
    tree.chmod(0o600)
    for path in files:
        hf_hub_download(repo_id, path, repo_type=repo_type, revision=commit, cache_dir=cache_dir)
    if revision != commit:
        _write(folder / "refs" / revision, commit)
    return str(folder / "snapshots" / commit)


def _tree_entry(entry):
    known = {"size": entry["size"], "blob_id": entry["oid"]}
    if "lfs" in entry:
        known |= {"lfs_sha256": entry["lfs"]["oid"], "lfs_size": entry["lfs"]["size"]}
    if "xetHash" in entry:
        known["xet_hash"] = entry["xetHash"]
    return known


def try_to_load_from_cache(repo_id, filename, cache_dir=None, revision="main", repo_type="model"):
    folder = _repo_folder(cache_dir, repo_id, repo_type)
    commit = _known_commit(folder, revision)
    if commit is None:
        return None
    if (folder / ".no_exist" / commit / filename).is_file():
        return _CACHED_NO_EXIST
    entry = folder / "snapshots" / commit / filename
    return str(entry) if entry.is_file() else None


_Info = namedtuple("Info", "repos warnings")
_Repo = namedtuple("Repo", "repo_id repo_type refs revisions")
_Revision = namedtuple("Revision", "commit_hash files")


def scan_cache_dir(cache_dir):
    repos, warnings = [], []
    for folder in Path(cache_dir).iterdir():
        if folder.name in (".locks", "CACHEDIR.TAG"):
            continue
        try:
            repos.append(_scan_repo(folder))
        except ValueError as warning:
            warnings.append(warning)
    return _Info(repos, warnings)


def _scan_repo(folder):
    kind, *parts = folder.name.split("--")
    if kind not in ("models", "datasets", "spaces") or not parts:
        raise ValueError(f"not a cache of a repository: {folder}")
    if not (folder / "snapshots").is_dir():
        raise ValueError(f"no snapshots in {folder}")
    revisions = []
    for snapshot in (folder / "snapshots").iterdir():
        if not snapshot.is_dir():
            raise ValueError(f"a file among the snapshots: {snapshot}")
        files = [path for path in snapshot.rglob("*") if not path.is_dir()]
        for path in files:
            if not path.exists():
                raise ValueError(f"blob missing (broken symlink): {path}")
        revisions.append(_Revision(snapshot.name, files))
    base = folder / "refs"
    refs = {str(path.relative_to(base)): path.read_text() for path in base.rglob("*") if path.is_file()}
    missing = set(refs.values()) - {revision.commit_hash for revision in revisions}
    if missing:
        raise ValueError(f"references to missing commits: {missing}")
    return _Repo("/".join(parts), kind[:-1], refs, revisions)
