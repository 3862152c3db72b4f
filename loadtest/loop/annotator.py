"""Annotator of the run: looks at each task's picture and gives it the class that it was sent with.

The service keeps pictures as JPEG files of its own, so the annotator recognises a picture as the most similar one that
was sent. The labels go through Label Studio's API if there is one, else into a file as Label Studio exports it.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np

from loadtest.loop.pictures import Picture, thumbnail
from loadtest.reporting.cli import PeerError

TIMEOUT_SECONDS = 120

Task = dict[str, Any]


def recognise(tasks: Sequence[Task], folder: Path, sent: Sequence[Picture]) -> list[str]:
    """Return the class of each task's picture.

    Args:
        tasks: as `training.data.review` writes them.
        folder: of the file of the tasks.
        sent: pictures among which each is.
    """
    known = np.stack([thumbnail(each.data) for each in sent])
    labels = []
    for task in tasks:
        path = folder / parse_qs(urlsplit(task["data"]["image"]).query)["d"][0]
        distances = np.abs(known - thumbnail(path.read_bytes())).sum(axis=1)
        labels.append(sent[int(distances.argmin())].label)
    return labels


def exported(tasks: Sequence[Task], labels: Sequence[str]) -> list[Task]:
    """Return the tasks with labels, as Label Studio exports them."""
    return [
        {"id": number, "data": task["data"], "annotations": [{"completed_by": 1, "result": _result(label)}]}
        for number, (task, label) in enumerate(zip(tasks, labels, strict=True), start=1)
    ]


class LabelStudio:
    """A running Label Studio, by its API.

    Args:
        url: its address.
        token: of a user: an access token of the account page, or a legacy token.

    Raises:
        PeerError: it doesn't answer, or refuses the token.
    """

    def __init__(self, url: str, token: str) -> None:
        self._url = url.rstrip("/")
        self._authorization = f"Token {token}"
        if token.count(".") == 2:
            # A personal access token is a JSON Web Token, which is exchanged for one of a few minutes.
            self._authorization = f"Bearer {self._call('POST', 'token/refresh', {'refresh': token})['access']}"

    def label(self, tasks: Sequence[Task], interface: str, pictures: Path, labels: Sequence[str]) -> list[Task]:
        """Make a project, import the tasks, annotate each, and return the export.

        Args:
            tasks: as `training.data.review` writes them.
            interface: the labelling interface.
            pictures: folder of the pictures, in the LOCAL_FILES_DOCUMENT_ROOT of Label Studio.
            labels: class of each task.

        Raises:
            PeerError: Label Studio refuses one of the steps.
        """
        project = self._call("POST", "projects", {"title": "loadtest.loop", "label_config": interface})["id"]
        storage = {"project": project, "title": "pictures", "path": str(pictures.absolute()), "use_blob_urls": True}
        self._call("POST", "storages/localfiles", storage)
        self._call("POST", f"projects/{project}/import", list(tasks))
        by_picture = {task["data"]["image"]: label for task, label in zip(tasks, labels, strict=True)}
        for task in self._call("GET", f"tasks?project={project}&page_size={len(tasks)}&fields=all")["tasks"]:
            annotation = {"result": _result(by_picture[task["data"]["image"]])}
            self._call("POST", f"tasks/{task['id']}/annotations", annotation)
        return list(self._call("GET", f"projects/{project}/export?exportType=JSON"))

    def _call(self, method: str, path: str, body: Any = None) -> Any:
        head, mark, query = path.partition("?")
        request = urllib.request.Request(
            f"{self._url}/api/{head}{'' if head.endswith(('export', 'import')) else '/'}{mark}{query}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={"Content-Type": "application/json", "Authorization": self._authorization},
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as response:
                return json.loads(response.read())
        except urllib.error.HTTPError as error:
            said = error.read().decode(errors="replace")[:200]
            raise PeerError(
                f"Label Studio refuses {method} {path} with {error.code}: {said}; give the token of its account page, "
                "and start it with LOCAL_FILES_SERVING_ENABLED=true"
            ) from None
        except (OSError, ValueError) as error:
            raise PeerError(
                f"--label-studio {self._url} does not answer ({error}): start it, or omit the flag"
            ) from None


def _result(label: str) -> list[dict[str, Any]]:
    return [{"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [label]}}]
