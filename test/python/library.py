"""Answers calls of Python's `huggingface_hub`, one JSON object per line, for the tests beside this file."""

import json
import sys

import huggingface_hub as hub


def scan_cache_dir(cache_dir):
    info = hub.scan_cache_dir(cache_dir)
    return {
        "warnings": [str(warning) for warning in info.warnings],
        "repos": sorted(
            (
                {
                    "id": repo.repo_id,
                    "type": repo.repo_type,
                    "refs": sorted(repo.refs),
                    "revisions": sorted(revision.commit_hash for revision in repo.revisions),
                    "files": sum(len(revision.files) for revision in repo.revisions),
                }
                for repo in info.repos
            ),
            key=lambda repo: (repo["type"], repo["id"]),
        ),
    }


def try_to_load_from_cache(**arguments):
    found = hub.try_to_load_from_cache(**arguments)
    return "known to be missing" if found is hub._CACHED_NO_EXIST else found


own = {"scan_cache_dir": scan_cache_dir, "try_to_load_from_cache": try_to_load_from_cache}

print(json.dumps({"version": hub.__version__, "path": hub.__file__}), flush=True)
for line in sys.stdin:
    name, arguments = json.loads(line)
    try:
        function = own.get(name) or getattr(hub, name)
        answer = {"result": function(**arguments)}
    except Exception as error:
        answer = {"error": type(error).__name__, "message": str(error)}
    print(json.dumps(answer), flush=True)
