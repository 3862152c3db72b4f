"""What a model repository of another server says to its clients: README, labels, and a program that asks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from models.bundle.manifest import Manifest
from models.common.files import write_atomic

LABELS, SETTINGS, PROGRAM = "labels.txt", "client.json", "classify.py"

_README = """# {name} for {server}

Version `{version}`. {source}. Licence: {license}.
{warning}
{proofs}

The proof ran the graph in Halftone's own runtime. **This folder was not run on {server} itself.**
`python -m export.push` wrote its files, and tests read such files back. Ask for a few pictures whose answers are known
before it gets traffic.

## Start

{start}
## What the client must do

The server gets pixels, not files. Preprocessing decides the answer as much as the weights do:

1. Decode JPEG, PNG or WebP to 8-bit RGB. Of several frames take the first. Put transparent pictures on white. Of 16-bit
   samples keep the high byte. Ignore colour profiles.
2. Apply the EXIF orientation.
3. Resize the short side to {resize} pixels, {interpolation}, antialiased. The long side is
   `int({resize} * long / short)`.
4. Crop the centre square of {size} pixels, from `round((side - {size}) / 2)`.
5. Send `pixels`: UINT8 `[N, {size}, {size}, 3]`, RGB, 0 to 255. Subtract no mean and divide by no deviation: the graph
   does.
6. Receive `logits`: FP32 `[N, {classes}]`. Divide them by {temperature:g}; softmax then gives the calibrated
   probabilities. `{labels}` names the outputs, one a line.

`{program}` does all of it with the code of the proof. It needs Halftone (`pip install .` in its checkout) and a client
of the protocol:

```sh
pip install 'tritonclient[http]'
python {program} photo.jpg 127.0.0.1:8000
```
"""

_UNTRAINED = "\n**Untrained**: the weights are random and the predictions mean nothing.\n"


def write_guide(folder: Path, manifest: Manifest, *, server: str, labels: str, proofs: list[str], start: str) -> None:
    """Write `README.md`, the labels, the client and its settings into a model repository.

    Args:
        folder: root of the repository.
        manifest: of the bundle.
        server: name of the server.
        labels: path of the labels below the root.
        proofs: a sentence for each pushed variant.
        start: Markdown that says how the server is started.
    """
    spec = manifest.input
    write_atomic(folder / labels, ("\n".join(manifest.labels) + "\n").encode())
    write_atomic(folder / PROGRAM, Path(__file__).with_name("classify_remote.py").read_bytes())
    write_atomic(
        folder / SETTINGS,
        _json(
            {
                "model": manifest.name,
                "input": spec.to_dict(),
                "temperature": manifest.temperature,
                "labels": labels,
            }
        ),
    )
    text = _README.format(
        name=manifest.name,
        server=server,
        version=manifest.version,
        source=manifest.source[:1].upper() + manifest.source[1:],
        license=manifest.license,
        warning="" if manifest.trained else _UNTRAINED,
        proofs="\n".join(f"- {line}." for line in proofs),
        start=start,
        resize=spec.resize_to,
        interpolation=spec.interpolation,
        size=spec.size,
        classes=len(manifest.labels),
        temperature=manifest.temperature,
        labels=labels,
        program=PROGRAM,
    )
    write_atomic(folder / "README.md", text.encode())


def _json(values: Mapping[str, object]) -> bytes:
    return (json.dumps(values, indent=1, ensure_ascii=False) + "\n").encode()
